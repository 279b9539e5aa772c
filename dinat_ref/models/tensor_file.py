"""The safetensors format, read and written: a header in JSON, then the bytes of the tensors, end to end.

    8 bytes           n, the length of the header, little-endian
    n bytes           {"head.bias": {"dtype": "F32", "shape": [10], "data_offsets": [0, 40]}, "__metadata__": {...}}
    the rest          the tensors' bytes, little-endian, rows first; offsets count from here

The header is checked against the file before a byte of a tensor is read: every tensor lies where the one before it
ends, and the last one ends where the file does. So a file gives no more than its size, and nothing in it is run.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinat_ref.command import whole_file
from dinat_ref.outside import MOST_BYTES, brief, open_regular, parse_json

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file by their names; they share no memory with the file.

    Shapes:
        return: tensors by name, on the CPU
    Raises:
        OSError: as ``open``.
        ValueError: no such format, or a header that does not describe the file.
    Source: github.com/huggingface/safetensors, its description of the format.
    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_tensors(f"{folder}/one.safetensors", {"head.bias": torch.tensor([1.0, 2.0])})
        ...     read_tensors(f"{folder}/one.safetensors")
        {'head.bias': tensor([1., 2.])}
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if length > min(MOST_BYTES, size - 8):
            raise ValueError(f"its header must fit the file and {MOST_BYTES:,} bytes, got {length:,}")
        try:
            header = parse_json(file.read(length).decode("utf-8"))
        except ValueError as error:
            raise ValueError(f"its header is no JSON: {error}") from None
        entries = _entries(header, size - 8 - length)
        return {name: _read_tensor(file, dtype, shape) for name, dtype, shape in entries}


def _entries(header: Any, size: int) -> list[tuple[str, torch.dtype, list[int]]]:
    """List name, dtype and shape of every tensor in the order of the file; raise unless they fill its size bytes."""
    if not isinstance(header, dict):
        raise ValueError(f"its header must be an object, got {brief(header)}")
    entries = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (begin, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
            plain = all(type(number) is int and 0 <= number < 2**63 for number in (*shape, begin, end))
        except (KeyError, TypeError, ValueError):
            plain = False
        if not plain:
            raise ValueError(f"its header must give {brief(name)} a known dtype, shape and offsets, got {brief(entry)}")
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{brief(name)} must have the bytes of its shape {brief(shape)}, got {end - begin:,}")
        entries.append((begin, end, name, dtype, shape))
    entries.sort(key=lambda entry: entry[:2])
    place = 0
    for begin, end, name, *_ in entries:
        if begin != place:
            raise ValueError(f"{brief(name)} must begin where the tensor before it ends, {place:,}, got {begin:,}")
        place = end
    if place != size:
        raise ValueError(f"its tensors must fill the file, {size:,} bytes, got {place:,}")
    return [(name, dtype, shape) for _, _, name, dtype, shape in entries]


def _read_tensor(file: Any, dtype: torch.dtype, shape: list[int]) -> Tensor:
    """Read the next tensor of an open file."""
    content = torch.empty(math.prod(shape) * dtype.itemsize, dtype=torch.uint8, device="cpu")
    if file.readinto(content.numpy().data) != len(content):
        raise ValueError("it is shorter than it was a moment ago")
    return content.view(dtype).reshape(shape)


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to a .safetensors file: the whole file, or none.

    Shapes:
        tensors: by name, anywhere
    Args:
        metadata: what else the header says.
    Raises:
        CommandError: the file cannot be written.
        ValueError: a dtype that the format does not have.
    Source: as ``read_tensors``; the widest numbers come first, so that all lie at multiples of their size.
    Example:
        >>> write_tensors("unwritten.safetensors", {"z": torch.zeros(2, dtype=torch.complex64)})
        Traceback (most recent call last):
        ValueError: z cannot be written: the format has no torch.complex64
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    place = 0
    for name, tensor in ordered:
        if tensor.dtype not in names:
            raise ValueError(f"{name} cannot be written: the format has no {tensor.dtype}")
        end = place + tensor.numel() * tensor.dtype.itemsize
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)  # so that the tensors begin at a multiple of 8
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in ordered:
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
