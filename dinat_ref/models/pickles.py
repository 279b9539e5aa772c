"""Files of ``torch.save``: looked through before they are opened, and opened so that nothing in them runs.

Such a file is a pickle, a program for a small machine, with the bytes of its tensors beside it: in a zip archive, or
one after the other as PyTorch wrote before 1.6. ``torch.load(weights_only=True)`` runs no foreign function, but it
trusts the file with memory and time. So first the archive must hold no more than the file does (no compression), the
program must be short, and must name nothing but tensors; then no tensor may be larger than the file.
"""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy
import torch
from torch import Tensor

from dinat_ref.command import printable
from dinat_ref.models.pickle_scan import scan
from dinat_ref.outside import open_regular

MOST_ENTRIES = 100_000  # of an archive; one for each tensor and a few more
MOST_BYTES = 4 * 2**20  # of the program; that of DiNAT-Large with its optimizer has a tenth
TORCH = re.compile(r"torch\.(?!\w+Tensor$).*")  # but for torch.FloatTensor(10**12) and its kin, which none writes
PLAIN = ("collections.OrderedDict", "collections.Counter", "_codecs.encode", "builtins.set", "builtins.complex")
NUMPY = ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
HARMLESS = {"argparse.Namespace": "argparse.Namespace"} | dict.fromkeys(
    NUMPY,
    "(numpy.{core}.multiarray.scalar, '{scalar}'), numpy.dtype, numpy.dtypes.Float64DType, numpy.dtypes.Float32DType, "
    "numpy.dtypes.Int64DType",
)  # what training code keeps beside tensors, and how to allow it


def read_pickle(path: Path | str, wrappers: tuple[str, ...] = ()) -> Any:
    """Read what a file of ``torch.save`` holds: tensors, numbers and text in dictionaries and lists.

    Args:
        wrappers: names under which tensors may be found, the dearest first: an error shows how to get at them.
    Raises:
        OSError: as ``open``.
        ValueError: no such file; one that holds more than tensors; one that asks for more than it can hold.
    Source: PyTorch's serialization.
    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"epoch": 3, "model": {"head.bias": torch.zeros(2)}}, f"{folder}/last.pth")
        ...     read_pickle(f"{folder}/last.pth")
        {'epoch': 3, 'model': {'head.bias': tensor([0., 0.])}}
    """
    with open_regular(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        globals_, words = _look_through(file, size)
    allowed = {*PLAIN, *map(_full_name, torch.serialization.get_safe_globals())}
    foreign = sorted(name for name in globals_ if not (TORCH.fullmatch(name) or name in allowed))
    wrapper = next((name for name in wrappers if name in words), None)
    if foreign:
        raise ValueError(_refusal(path, foreign, wrapper))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged file, PyTorch's reader lets out whatever it stumbles over
        named = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
        if named and named[1] in globals_:  # one of PyTorch's own
            raise ValueError(_refusal(path, [named[1]], wrapper)) from None
        if isinstance(error, pickle.UnpicklingError):
            raise ValueError("it is damaged, or holds more than tensors; nothing in it was run") from None
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"it is damaged: {type(error).__name__}{reason and ': '}{reason}") from None
    _check_tensors(content, size)
    return content


def _look_through(file: BinaryIO, size: int) -> tuple[set[str], set[str]]:
    """Go through the programs of a file without running them, as ``scan``."""
    if file.read(2) != b"PK":
        file.seek(0)
        return scan(file, programs=5)  # magic number, version, machine, content, names of the tensors
    file.seek(0)
    try:
        if _count_entries(file, size) > MOST_ENTRIES:
            raise ValueError(f"it is an archive of more than {MOST_ENTRIES:,} entries")
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("it is a compressed archive, and torch.save makes none")
            if sum(entry.file_size for entry in entries) > size:
                raise ValueError("it is an archive that claims to hold more than its own size")
            programs = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
            if len(programs) != 1:
                raise ValueError("it is an archive, but none of torch.save")
            if programs[0].file_size > MOST_BYTES:
                raise ValueError(f"it describes its tensors in more than {MOST_BYTES:,} bytes")
            with archive.open(programs[0]) as program:
                return scan(program, programs=1)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OverflowError) as error:
        raise ValueError(f"it is a damaged archive: {error}") from None


def _count_entries(file: BinaryIO, size: int) -> int:
    """Read from the end of an archive how many entries it has, before anybody makes an object of each."""
    file.seek(max(0, size - 2**16 - 22))
    tail = file.read()
    file.seek(0)
    end, long_end = tail.rfind(b"PK\x05\x06"), tail.rfind(b"PK\x06\x06")
    count = int.from_bytes(tail[end + 10 : end + 12], "little") if end >= 0 else 0
    return max(count, int.from_bytes(tail[long_end + 32 : long_end + 40], "little") if long_end >= 0 else 0)


def _full_name(allowed: Any) -> str:
    """The name under which a user allowed something: torch.serialization.add_safe_globals takes pairs, too."""
    if isinstance(allowed, tuple):
        return str(allowed[1])
    return f"{allowed.__module__}.{allowed.__qualname__}"


def _refusal(path: Path | str, foreign: list[str], wrapper: str | None) -> str:
    """Say what a file holds beside tensors, and how to get at the tensors."""
    held = printable(", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""))
    part = f"[{wrapper!r}]" if wrapper else ""
    if set(foreign) <= set(HARMLESS):
        scalar = next((name for name in foreign if name.endswith("scalar")), NUMPY[-1])
        core = "core" if numpy.__version__.startswith("1.") else "_core"
        allowed = ", ".join(dict.fromkeys(HARMLESS[name].format(scalar=scalar, core=core) for name in foreign))
        imports = ", ".join(sorted({"torch", *(name.partition(".")[0] for name in foreign)}))
        allow = f"import {imports}; torch.serialization.add_safe_globals([{allowed}])"
        where, load = (
            "these lines allow just that and keep the tensors",
            f"torch.load({str(path)!r}, weights_only=True)",
        )
    else:
        allow, load = "import torch", f"torch.load({str(path)!r}, weights_only=False)"
        where = "if you trust who made it, keep the tensors once, in a sandbox, for these lines run what the file says"
    line = f"{allow}; torch.save({load}{part}, 'weights.pth')"
    return f'it holds more than tensors ({held}), and nothing in it was run; {where}: python -c "{printable(line)}"'


def _check_tensors(content: Any, size: int, depth: int = 0) -> None:
    """Raise where a tensor within dictionaries and lists would take more memory than the file has bytes."""
    if isinstance(content, Tensor):
        if content.layout != torch.strided or content.device.type != "cpu" or content.is_quantized:
            raise ValueError(f"it holds a tensor that is not plain: {content.layout} on {content.device}")
        needed, stored = content.numel() * content.dtype.itemsize, content.untyped_storage().nbytes()
        if needed > max(stored, 64) or stored > size:
            raise ValueError(f"it holds a tensor of shape {tuple(content.shape)}, larger than the file")
    elif isinstance(content, (dict, list, tuple)) and depth < 8:
        for entry in content.values() if isinstance(content, dict) else content:
            _check_tensors(entry, size, depth + 1)
