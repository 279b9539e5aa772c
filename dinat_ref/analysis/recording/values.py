"""The values that variables held in a recorded run, each different value once.

A value is a number in a list of entries, which a JSON file can hold as they are. The numbers inside of tensors stand
apart, in blobs: base64 of their bytes, so that nothing is rounded, and a reshaped tensor costs nothing::

    {"shape": [1, 5], "dtype": "float32", "blob": 3}        a tensor
    {"items": [4, 7], "kind": "tuple"}                      a tuple or list of other entries
    {"range": [0, 6, 2]}                                    a range
    {"fields": {"queries": 8, "keys": 9}, "kind": "Chunk"}  an object of this package
    {"number": "inf"}                                       a number that JSON cannot write
    {"other": "cpu"}                                        anything else, as text
    3, 0.5, true, null, "text"                              as they are
"""

import base64
import json
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

Entry = Any  # what JSON can hold
PACKED = {torch.float32: "<f4", torch.float64: "<f8", torch.int64: "<i4", torch.bool: "u1"}  # as bytes in a blob
DEEPEST = 4  # objects inside of objects
LONGEST = 60  # letters of what is kept as text


class Values:
    """A list of values without repetitions.

    Example:
        >>> values = Values()
        >>> [values.add(value) for value in (3, torch.zeros(2), range(4), torch.zeros(2))]
        [0, 1, 2, 1]
        >>> values.get(1), values.get(2)
        (tensor([0., 0.]), range(0, 4))
    """

    def __init__(self) -> None:
        """Begin without any value."""
        self.entries: list[Entry] = []
        self.blobs: list[str] = []
        self._numbers: dict[str, int] = {}
        self._blob_numbers: dict[bytes, int] = {}
        self._tensors: dict[int, Tensor] = {}

    def add(self, value: object, depth: int = 0) -> int:
        """Keep a value as it is now; return its number."""
        return self._number(self._entry(value, depth))

    def get(self, number: int) -> Any:
        """Give a value back: tensors, tuples, lists, ranges and numbers as they were, objects as dictionaries.

        A tensor is unpacked once and handed out as often as it is asked for: to be read, not to be written into.
        """
        entry = self.entries[number]
        if not isinstance(entry, dict):
            return entry
        if "shape" in entry:
            if number not in self._tensors:
                self._tensors[number] = self._tensor(entry)
            return self._tensors[number]
        if "items" in entry:
            items = [self.get(item) for item in entry["items"]]
            return tuple(items) if entry["kind"] == "tuple" else items
        if "range" in entry:
            return range(*entry["range"])
        if "fields" in entry:
            return {name: self.get(field) for name, field in entry["fields"].items()}
        return float(entry["number"]) if "number" in entry else entry["other"]

    def _number(self, entry: Entry) -> int:
        key = json.dumps(entry)
        if key not in self._numbers:
            self._numbers[key] = len(self.entries)
            self.entries.append(entry)
        return self._numbers[key]

    def _entry(self, value: object, depth: int) -> Entry:
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"number": str(value)}
        if isinstance(value, Tensor) and value.dtype in PACKED:
            return {"shape": list(value.shape), "dtype": str(value.dtype)[6:], "blob": self._blob(value)}
        if isinstance(value, range):
            return {"range": [value.start, value.stop, value.step]}
        if depth < DEEPEST and isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {"items": [self.add(item, depth + 1) for item in value], "kind": kind}
        fields = _fields(value)
        if depth < DEEPEST and fields:
            named = {name: self.add(field, depth + 1) for name, field in fields.items()}
            return {"fields": named, "kind": type(value).__name__}
        text = repr(value)
        return {"other": type(value).__name__ if " at 0x" in text or len(text) > LONGEST else text}

    def _blob(self, tensor: Tensor) -> int:
        data = tensor.detach().cpu().numpy().astype(PACKED[tensor.dtype]).tobytes()
        if data not in self._blob_numbers:
            self._blob_numbers[data] = len(self.blobs)
            self.blobs.append(base64.b64encode(data).decode())
        return self._blob_numbers[data]

    def _tensor(self, entry: dict[str, Any]) -> Tensor:
        dtype = getattr(torch, entry["dtype"])
        numbers = np.frombuffer(base64.b64decode(self.blobs[entry["blob"]]), dtype=PACKED[dtype])
        return torch.from_numpy(numbers.copy()).to(dtype).reshape(entry["shape"])


def _fields(value: object) -> dict[str, object]:
    """What an object of this package consists of, without what is private to it; nothing for other objects."""
    if isinstance(value, type) or callable(value) or not type(value).__module__.startswith("dinat_ref."):
        return {}
    fields = value._asdict() if hasattr(value, "_asdict") else getattr(value, "__dict__", {})
    return {name: field for name, field in fields.items() if not name.startswith("_")}
