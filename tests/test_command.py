"""What commands share: files that are whole or absent, and the progress line."""

import errno
import io
import os
import stat
import sys
import time
from pathlib import Path

import pytest

from dinat_ref.command import (
    LEFT_OVER,
    CommandError,
    Progress,
    check_writable,
    printable,
    remove_leftovers,
    show_progress,
    whole_file,
)


def test_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    with whole_file(path) as temporary:
        temporary.write_bytes(b"all of it")
        assert not path.exists()
        assert temporary.parent == path.parent  # so that renaming is one step
        assert temporary.suffix == ".png"
    assert path.read_bytes() == b"all of it"
    assert list(tmp_path.iterdir()) == [path]


def write_and_fail(path: Path, error: BaseException) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise error


@pytest.mark.parametrize("error", [ValueError("half"), KeyboardInterrupt()])
def test_nothing_is_left_when_the_block_fails(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "figure.png"
    with pytest.raises(type(error)):
        write_and_fail(path, error)
    assert list(tmp_path.iterdir()) == []


def test_the_old_file_stays_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    path.write_text("old")
    with pytest.raises(ValueError, match="half"):
        write_and_fail(path, ValueError("half"))
    assert path.read_text() == "old"
    with whole_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_directories_are_made(tmp_path: Path) -> None:
    with whole_file(str(tmp_path / "a" / "b" / "note.txt")) as temporary:
        temporary.write_text("here")
    assert (tmp_path / "a" / "b" / "note.txt").read_text() == "here"


def test_permissions_are_the_usual_ones(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "note.txt") as temporary:
            temporary.write_text("here")
        assert os.umask(0o027) == 0o027  # left as it was
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "note.txt").stat().st_mode) == 0o640


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    path = tmp_path / "file" / "note.txt"
    with pytest.raises(CommandError, match=f"^cannot write {path}: "), whole_file(path):
        pass


@pytest.mark.parametrize("name", ["folder", "n" * 300 + ".svg", os.devnull, "file/note.txt"])
def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path, name: str) -> None:
    """Nothing is made, and a device is never replaced by a file."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("no directory")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CommandError, match=f"^cannot write {tmp_path / name}: \\w+") as early:
        check_writable(tmp_path / name)
    with pytest.raises(CommandError) as late, whole_file(tmp_path / name) as temporary:
        temporary.write_text("never")
    assert str(late.value) == str(early.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_checking_leaves_an_old_file_alone(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("old")
    check_writable(tmp_path / "note.txt")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path: Path, number: int) -> None:
    path = tmp_path / "figure.png"
    path.write_text("old")
    with pytest.raises(CommandError, match=f"^cannot write {path}: {os.strerror(number)}$"):
        write_and_fail(path, OSError(number, os.strerror(number), "figure.png"))
    assert [(entry, entry.read_text()) for entry in tmp_path.iterdir()] == [(path, "old")]


def test_what_killed_commands_left_goes_with_the_next_one(tmp_path: Path) -> None:
    """A young file may be another command's; one of another name is never touched."""
    left = [tmp_path / f".curves-{number:08x}.svg" for number in range(3)]
    other = [tmp_path / name for name in (".curves-mine.svg", ".curves-00000000.png", "curves-00000000.svg")]
    for path in [*left, *other]:
        path.touch()
    os.utime(left[0], (0, path.stat().st_mtime - LEFT_OVER - 1))
    with whole_file(tmp_path / "curves.svg") as temporary:
        temporary.write_text("new")
    assert sorted(tmp_path.iterdir()) == sorted([*left[1:], *other, tmp_path / "curves.svg"])
    remove_leftovers(tmp_path, "curves.svg")
    assert sorted(tmp_path.iterdir()) == sorted([*other, tmp_path / "curves.svg"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Löwe 犬\u3000猫 👩\u200d🔬 é", None),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("two\r\nlines\u2028three", r"two\r\nlines\u2028three"),
        ("txt.\u202egpj", r"txt.\u202egpj"),
        ("\x9b2J", r"\x9b2J"),
        (os.fsdecode(b"caf\xe9.jpg"), r"caf\udce9.jpg"),
        (Path("cat.jpg"), "cat.jpg"),
    ],
)
def test_text_from_outside_commands_nobody(text: object, shown: str | None) -> None:
    assert printable(text) == (text if shown is None else shown)
    assert str(CommandError(text)) == printable(text)
    printable(text).encode()  # whatever it was


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_rewrites_one_line_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    show_progress("1 of 2")
    show_progress("2 of \x1b[2J2")
    show_progress("")
    lines = terminal.getvalue().split("\r\033[K")
    assert lines == ["", "1 of 2", r"2 of \x1b[2J2", ""]


def test_progress_is_a_line_every_ten_seconds_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a log tells that something goes on, and a short command leaves nothing in it."""
    file, times = io.StringIO(), iter([5.0, 14.9, 15.0, 16.0, 24.9, 30.0, 39.9, 41.0])
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr(Progress, "since", None)
    monkeypatch.setattr(Progress, "seconds", 10.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    for number in range(7):
        show_progress(f"{number} of \x1b[2J8")
    show_progress("")
    assert file.getvalue() == "2 of \\x1b[2J8\n5 of \\x1b[2J8\n"


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    for below in ("note.json", "a/b/note.json"):
        path = tmp_path / "taken" / below
        with pytest.raises(CommandError, match=f"^cannot write {path}: it lies below a file, {tmp_path / 'taken'}$"):
            check_writable(path)
