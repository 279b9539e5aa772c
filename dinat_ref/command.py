"""What all commands share: an error for bad input, text from outside made harmless, whole files, a progress line."""

import contextlib
import errno
import os
import secrets
import stat
import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # of scripts and emoji: nothing is hidden by them
DISK_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
LEFT_OVER = 3600  # seconds after which a file that nobody finished is taken for a killed command's


def printable(text: object) -> str:
    r"""Spell out what would command a terminal instead of being shown: escapes, line breaks, changes of direction.

    For all text from outside: labels, names of files and tensors, messages of other programs.

    Example:
        >>> print(printable("cat\x1b[2J\n"), printable("Löwe 犬 👩‍🔬"))
        cat\x1b[2J\n Löwe 犬 👩‍🔬
    """
    return "".join(letter.encode("unicode_escape").decode() if _commands(letter) else letter for letter in str(text))


def _commands(letter: str) -> bool:
    """Whether a character steers a terminal or reorders the text around it: control, format, surrogate, line."""
    return letter not in JOINERS and unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")


class CommandError(Exception):
    """Bad input to a command: ``dinat-ref`` prints it as one line and exits with status 2, without a traceback.

    Example:
        >>> raise CommandError("image not found: cat.jpg")
        Traceback (most recent call last):
        dinat_ref.command.CommandError: image not found: cat.jpg
    """

    def __init__(self, message: object) -> None:
        """Make the message one line that can be printed."""
        super().__init__(printable(message))


class UnwritableError(CommandError):
    """A file that cannot be written, and why.

    Example:
        >>> UnwritableError("curves.svg", "No space left on device").reason
        'No space left on device'
    """

    def __init__(self, path: Path | str, reason: object) -> None:
        """Name the file that was asked for, whatever temporary one could not be written."""
        super().__init__(f"cannot write {path}: {reason}")
        self.reason = reason


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Hand out a temporary path beside ``path`` and rename it when the block ends well, so no half file is left.

    The temporary name keeps the suffix, since many writers choose the format by it. Whoever writes must have closed
    the file when the block ends: where files that are open cannot be renamed, on Windows, nothing else would do.

    Shapes:
        yields: a path to write to
    Raises:
        UnwritableError: the directory cannot be written, the path is a folder, or the disk is full.
    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with whole_file(Path(directory) / "note.txt") as temporary:
        ...         _ = temporary.write_text("all of it")
        ...     (Path(directory) / "note.txt").read_text()
        'all of it'
    """
    path = Path(path)
    temporary = _claim(path)
    remove_leftovers(path.parent, path.name, LEFT_OVER)
    try:
        yield temporary
        try:
            temporary.replace(path)
        except OSError as error:  # e.g. another program holds the old file open, on Windows
            raise UnwritableError(path, error.strerror) from None
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UnwritableError(path, error.strerror) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path | str) -> None:
    """Raise before any work what ``whole_file`` would raise after it; the folder is made.

    Raises:
        UnwritableError: as ``whole_file``.
    Example:
        >>> check_writable("/")
        Traceback (most recent call last):
        dinat_ref.command.UnwritableError: cannot write /: it is a folder
    """
    _claim(Path(path)).unlink()


def remove_leftovers(folder: Path, name: str, older_than: float = 0) -> None:
    """Remove what killed commands left of their ``whole_file`` of this name.

    Args:
        older_than: seconds; a younger file may be that of a command that runs.
    Example:
        >>> remove_leftovers(Path("no-such-folder"), "curves.svg")
    """
    stem, suffix = _temporary_name(Path(name))
    for found in folder.glob(".*"):
        middle = found.name[len(stem) : len(found.name) - len(suffix)]
        if found.name == stem + middle + suffix and len(middle) == 8 and set(middle) <= set("0123456789abcdef"):
            with contextlib.suppress(OSError):  # somebody else was faster
                if time.time() - found.stat().st_mtime >= older_than:
                    found.unlink()


def _temporary_name(path: Path) -> tuple[str, str]:
    """What a temporary name of a path begins and ends with, short enough for any file system."""
    return f".{path.stem[:40]}-", path.suffix[:20]


def _claim(path: Path) -> Path:
    """Make the folder of a path and an empty file of a temporary name, with the permissions that any new file has."""
    stem, suffix = _temporary_name(path)
    temporary = path.parent / f"{stem}{secrets.token_hex(4)}{suffix}"
    make_folder(path.parent, path)
    try:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(path.stat().st_mode):  # a name that is too long is refused here, too
                raise UnwritableError(path, "it is a folder" if path.is_dir() else "it is no regular file")
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise UnwritableError(path, error.strerror) from None
    return temporary


def make_folder(folder: Path, file: Path | None = None) -> None:
    """Make a folder and those above it, for itself or for a file.

    Raises:
        UnwritableError: it cannot be made; where a file lies in the way, the message names it.
    Example:
        >>> make_folder(Path("."))
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        in_the_way = next((above for above in (folder, *folder.parents) if above.is_file()), None)
        reason = error.strerror if in_the_way is None else f"it lies below a file, {in_the_way}"
        raise UnwritableError(file or folder, reason) from None


class Progress:
    """Since when there was no line of progress, where no terminal rewrites one."""

    seconds = 10.0
    since: float | None = None


def show_progress(text: str) -> None:
    """Rewrite the progress line on stderr, or clear it; where stderr is no terminal, print a line every ten seconds.

    Example:
        >>> show_progress("window 3 of 12")
    """
    if sys.stderr.isatty():
        print(f"\r\033[K{printable(text)}", end="", file=sys.stderr, flush=True)
        return
    now = time.monotonic()
    if Progress.since is None:
        Progress.since = now
    elif text and now - Progress.since >= Progress.seconds:
        Progress.since = now
        print(printable(text), file=sys.stderr, flush=True)
