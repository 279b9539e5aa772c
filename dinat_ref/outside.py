"""Files from outside, read with limits: regular files alone, no more bytes than can be meant, no trap in JSON.

A file that somebody sends may be a pipe that never ends, a hundred gigabytes, or brackets within brackets until Python
has no stack left. Whatever the package reads is opened here, and all JSON is read here.
"""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dinat_ref.command import printable

MOST_BYTES = 4 * 2**20  # of a JSON file; the largest that is published, an index of shards, has a tenth
DEEPEST = 64  # brackets within brackets; a configuration has 3
MOST_BRACKETS = 200_000  # objects and lists in all; a run of so many epochs has one for each
STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)  # in JSON


def open_regular(path: Path | str) -> BinaryIO:
    """Open a regular file to read its bytes.

    Raises:
        OSError: as ``open``.
        ValueError: a folder, a pipe, a device: no regular file.
    Example:
        >>> open_regular("/")
        Traceback (most recent call last):
        ValueError: / is no regular file
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe would wait for a writer
    if Path(path).is_dir():  # which some systems cannot open at all
        raise ValueError(f"{path} is no regular file")
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path} is no regular file")
    return os.fdopen(descriptor, "rb")


def read_text(path: Path | str, most_bytes: int = MOST_BYTES) -> str:
    """Read a text file in UTF-8.

    Raises:
        OSError: as ``open``.
        ValueError: no regular file, one with more bytes, or not UTF-8.
    Example:
        >>> read_text(__file__, most_bytes=10)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: ...outside.py has more than 10 bytes
    """
    with open_regular(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"{path} has more than {most_bytes:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8") from None


def read_json(path: Path | str, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Read the JSON object that a file holds.

    Raises:
        OSError: as ``open``.
        ValueError: as ``read_text`` and ``parse_json``; the file holds no object.
    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "config.json").write_text('{"depths": [3, 4]}')
        ...     read_json(Path(folder, "config.json"))
        {'depths': [3, 4]}
    """
    try:
        content = parse_json(read_text(path, most_bytes))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold one JSON object, got {type(content).__name__}")
    return content


def parse_json(text: str) -> Any:
    """Read JSON that is what it says: no name twice in an object, no NaN or Infinity, no more depth than is meant.

    Raises:
        ValueError: any of these, or no JSON.
    Example:
        >>> parse_json('{"depths": [3], "depths": [4]}')
        Traceback (most recent call last):
        ValueError: an object has the name 'depths' twice
    """
    letters = np.frombuffer(STRING.sub("", text).encode("utf-8", "replace"), np.uint8)
    opened, closed = (np.isin(letters, np.frombuffer(brackets, np.uint8)) for brackets in (b"[{", b"]}"))
    if np.cumsum(opened.astype(np.int32) - closed).max(initial=0) > DEEPEST:
        raise ValueError(f"JSON must be nested at most {DEEPEST} deep")
    if opened.sum() > MOST_BRACKETS:
        raise ValueError(f"JSON must have at most {MOST_BRACKETS:,} objects and lists, got {opened.sum():,}")
    return json.loads(text, object_pairs_hook=_each_name_once, parse_constant=_no_number)


def brief(value: object, most_letters: int = 60) -> str:
    r"""Show a value from outside in an error: printable, and no longer than one can read.

    Example:
        >>> print(brief("\x1b[2J"), brief([1] * 1000))
        '\x1b[2J' [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,...
    """
    if isinstance(value, int) and value.bit_length() > 200:  # Python refuses to spell out the longest
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, (list, tuple, dict, set)) and len(value) > most_letters:
        value = list(value)[:most_letters]
    text = printable(repr(value))
    return text if len(text) <= most_letters else text[: most_letters - 3] + "..."


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its names and values."""
    named = dict(pairs)
    if len(named) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in named if names.count(name) > 1)
        raise ValueError(f"an object has the name {brief(twice)} twice")
    return named


def _no_number(text: str) -> Any:
    """Refuse what Python would read as a number though JSON has none of the kind."""
    raise ValueError(f"{text} is no number in JSON")
