"""Reading an .npz file that somebody sends: what it promises is compared with what it holds before anything is read.

``numpy.load`` believes a header: eight terabytes are asked for, or a hundred kilobytes become two gigabytes.
"""

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy
from numpy.lib import format as npy

from dinat_ref.outside import brief, open_regular

MOST_BYTES = 64 * 2**20  # of a file, and of an array in it
HEADER = 4096  # bytes that the header of an array may take

Array = numpy.ndarray[Any, Any]


def read_arrays(path: Path | str, names: tuple[str, ...]) -> Mapping[str, Array]:
    """Read the arrays of these names that a file holds.

    Raises:
        OSError: as ``open``.
        ValueError: no regular file, no .npz, a part of one, or more bytes than can be meant.
    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     numpy.savez(Path(folder, "a.npz"), output=numpy.ones(2))
        ...     read_arrays(Path(folder, "a.npz"), ("output", "lse"))
        {'output': array([1., 1.])}
    """
    with open_regular(path) as file:
        if file.seek(0, 2) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        file.seek(0)
        try:
            with zipfile.ZipFile(file) as archive:
                members = {info.filename: info for info in archive.infolist()}
                found = {name: members[f"{name}.npy"] for name in names if f"{name}.npy" in members}
                return {name: _read_array(archive, name, info) for name, info in found.items()}
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"it is no whole .npz file: {error}") from None


def _read_array(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> Array:
    """Read one array: its header first."""
    if info.file_size > MOST_BYTES:
        raise ValueError(f"its array {name} has {info.file_size:,} bytes, at most {MOST_BYTES:,} are read")
    with archive.open(info) as member:
        shape, order, dtype, start = _read_header(member, name)  # type: ignore[arg-type]
        promised, held = math.prod(shape) * dtype.itemsize, info.file_size - start
        if promised != held:
            raise ValueError(f"its array {name} of shape {brief(shape)} needs {promised:,} bytes and has {held:,}")
        data = member.read()  # to the end, where the checksum is compared
    return numpy.frombuffer(data, dtype).reshape(shape, order="F" if order else "C")


def _read_header(member: BinaryIO, name: str) -> tuple[tuple[int, ...], bool, numpy.dtype[Any], int]:
    """The shape, the order, the dtype, and where the numbers begin."""
    try:
        version = npy.read_magic(member)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, order, dtype = read(member, max_header_size=HEADER)
    except (ValueError, KeyError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        text = " ".join(str(error).split())[:100]
        raise ValueError(f"its array {name} has no header that NumPy writes: {text}") from None
    if dtype.hasobject or dtype.kind not in "fiubc" or min(shape, default=0) < 0:
        raise ValueError(f"its array {name} holds no numbers: dtype {brief(dtype.str)}, shape {brief(shape)}")
    return shape, order, dtype, member.tell()
