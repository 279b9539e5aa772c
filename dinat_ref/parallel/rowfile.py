"""A map [rows, columns, channels] in a .npy file, of which a few rows at a time are in memory.

Rows are read and written at their places in the file. A memory map would do as much, but its pages count as memory of
the process as long as the system leaves them there, and nobody could say how much a run needs.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dinat_ref.outside import open_regular

Array = NDArray[Any]
KINDS = "fiu"  # floating point, integers, unsigned integers


class RowFile:
    """Rows of a .npy file, by their numbers.

    Shapes:
        shape: [rows, columns, channels]
    Raises:
        OSError: as ``open``.
        ValueError: no .npy file of three axes and plain numbers, row after row; one that is shorter than it says.
    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/map.npy", np.arange(12).reshape(4, 3, 1))
        ...     RowFile(f"{folder}/map.npy").read(range(1, 4, 2))[..., 0]
        array([[ 3,  4,  5],
               [ 9, 10, 11]])
    """

    def __init__(self, path: Path | str) -> None:
        """Read the header."""
        self.path = Path(path)
        with open_regular(path) as file:
            try:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                self.shape, by_columns, self.dtype = read(file)
            except ValueError as error:
                raise ValueError(f"{path} is no .npy file: {error}") from None
            if len(self.shape) != 3 or by_columns or self.dtype.kind not in KINDS:
                found = f"{self.dtype} {self.shape}{', column by column' if by_columns else ''}"
                raise ValueError(f"{path} must hold numbers [rows, columns, channels], row by row, got {found}")
            self._start = file.tell()
            self._bytes = self.dtype.itemsize * self.shape[1] * self.shape[2]  # of a row
            if os.fstat(file.fileno()).st_size < self._start + self._bytes * self.shape[0]:
                raise ValueError(f"{path} is shorter than its header says, {self.shape}")

    def read(self, rows: range) -> Array:
        """Read some rows: [rows, columns, channels]."""
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        with self.path.open("rb") as file:
            for place, run in _runs(rows):
                file.seek(self._start + self._bytes * run.start)
                file.readinto(found[place : place + len(run)].data)
        return found

    def write(self, rows: range, values: Array) -> None:
        """Write some rows: [rows, columns, channels]."""
        values = np.ascontiguousarray(values, self.dtype)
        if values.shape != (len(rows), *self.shape[1:]):
            raise ValueError(f"values must be {(len(rows), *self.shape[1:])}, got {values.shape}")
        with self.path.open("r+b") as file:
            for place, run in _runs(rows):
                file.seek(self._start + self._bytes * run.start)
                file.write(values[place : place + len(run)].data)


def create(path: Path, shape: tuple[int, ...], dtype: Any) -> RowFile:
    """Make a file of zeros that takes no room on the disk before it is written, where the system can.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     create(Path(folder, "map.npy"), (2, 3, 1), np.float32).shape
        (2, 3, 1)
    """
    dtype = np.dtype(dtype)
    with path.open("wb") as file:
        _write_header(file, shape, dtype)
        file.truncate(file.tell() + dtype.itemsize * int(np.prod(shape)))
    return RowFile(path)


def spool(bands: Iterable[Array], path: Path) -> RowFile:
    """Write bands of rows, one after the other, to a file.

    Raises:
        ValueError: no bands, or bands that do not fit each other.
    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     spool((np.full((2, 3, 1), number) for number in range(4)), Path(folder, "map.npy")).shape
        (8, 3, 1)
    """
    rows, first = 0, None
    with path.open("wb") as file:
        for band in bands:
            if first is None:
                first = band
                _write_header(file, (2**60, *band.shape[1:]), band.dtype)  # room for any number of rows
            if band.ndim != 3 or (band.shape[1:], band.dtype) != (first.shape[1:], first.dtype):
                raise ValueError(f"bands must be [rows, columns, channels] like the first, got {band.shape}")
            file.write(np.ascontiguousarray(band).data)
            rows += len(band)
        if first is None:
            raise ValueError("bands must hold rows, got none")
        file.seek(0)
        _write_header(file, (rows, *first.shape[1:]), first.dtype)
    return RowFile(path)


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Write a header of one length, whatever the number of rows."""
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    text = f"{fields!r}".ljust(245) + "\n"  # as numpy.lib.format says: padded with blanks to a multiple of 64
    file.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin1"))


def _runs(rows: range) -> list[tuple[int, range]]:
    """Rows that lie one after the other in the file, and their place among those asked for."""
    if abs(rows.step) == 1:
        return [(0, rows)] if rows else []
    return [(place, range(row, row + 1)) for place, row in enumerate(rows)]
