"""What all commands share: an error for bad input, files that are whole or absent, and a progress line."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CommandError(Exception):
    """Bad input to a command: ``dinat-ref`` prints it as one line and exits with status 2, without a traceback.

    Example:
        >>> raise CommandError("image not found: cat.jpg")
        Traceback (most recent call last):
        dinat_ref.command.CommandError: image not found: cat.jpg
    """


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Hand out a temporary path beside ``path`` and rename it when the block ends well, so no half file is left.

    The temporary name keeps the suffix, since many writers choose the format by it.

    Shapes:
        yields: a path to write to
    Raises:
        CommandError: the directory cannot be written.
    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with whole_file(Path(directory) / "note.txt") as temporary:
        ...         _ = temporary.write_text("all of it")
        ...     (Path(directory) / "note.txt").read_text()
        'all of it'
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def show_progress(text: str) -> None:
    """Rewrite the progress line on stderr; on no terminal, say nothing. An empty text clears the line.

    Example:
        >>> show_progress("window 3 of 12")
    """
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
