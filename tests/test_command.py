"""What commands share: files that are whole or absent, and the progress line."""

import io
import os
import stat
import sys
from pathlib import Path

import pytest

from dinat_ref.command import CommandError, show_progress, whole_file


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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_rewrites_one_line_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    show_progress("1 of 2")
    show_progress("2 of 2")
    show_progress("")
    lines = terminal.getvalue().split("\r\033[K")
    assert lines == ["", "1 of 2", "2 of 2", ""]


def test_progress_is_silent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    show_progress("1 of 2")
    assert file.getvalue() == ""
