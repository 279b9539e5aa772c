"""What Windows does otherwise, simulated: open files cannot be renamed or removed, and text is not UTF-8 by itself."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from dinat_ref.cli import main
from dinat_ref.command import CommandError, whole_file
from dinat_ref.models import DinatForImageClassification, Isotropic
from dinat_ref.models.weight_files import latest_checkpoint, read_checkpoint
from tests.models.tiny import tiny

TRAIN = ["train", "--data", "texture", "--images", "40", "--batch-size", "8", "--average-decay", "0.5"]
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed by Linux's /proc")


def open_files() -> Iterator[Path]:
    """Whatever this process has open or mapped to memory."""
    for descriptor in Path("/proc/self/fd").iterdir():
        if descriptor.is_symlink():
            yield descriptor.resolve()
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "/" in line:
            yield Path(line[line.index("/") :])


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let renaming and removing fail where a file is open, as it does there."""

    def refuse_open(*paths: Path) -> None:
        for path in map(Path.resolve, paths):
            if any(path == other or path in other.parents for other in open_files()):
                raise PermissionError(13, "The process cannot access the file because it is being used", str(path))

    replace, unlink, rmtree = Path.replace, Path.unlink, shutil.rmtree

    def replace_closed(self: Path, target: Path) -> Path:
        refuse_open(self, target)
        return replace(self, target)

    def unlink_closed(self: Path, missing_ok: bool = False) -> None:
        refuse_open(self)
        unlink(self, missing_ok)

    def rmtree_closed(path: Path, ignore_errors: bool = False) -> None:
        if Path(path).exists():
            refuse_open(Path(path))
        rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(Path, "replace", replace_closed)
    monkeypatch.setattr(Path, "unlink", unlink_closed)
    monkeypatch.setattr(shutil, "rmtree", rmtree_closed)


@needs_proc
def test_the_simulation_refuses_what_windows_refuses(tmp_path, windows):
    with open(tmp_path / "note.txt", "w") as file, pytest.raises(PermissionError):
        (tmp_path / "note.txt").replace(tmp_path / "other.txt")
    assert file.closed
    with open(tmp_path / "note.txt"), pytest.raises(PermissionError):
        shutil.rmtree(tmp_path)
    torch.save(torch.zeros(1000), tmp_path / "mapped.pth")
    mapped = torch.load(tmp_path / "mapped.pth", mmap=True)
    with pytest.raises(PermissionError):
        (tmp_path / "mapped.pth").unlink()
    assert not mapped.any()


@needs_proc
def test_a_run_is_trained_resumed_and_classified(tmp_path, windows, capsys):
    """No checkpoint is written, read or removed while it is open."""
    out = tmp_path / "run"
    assert main([*TRAIN, "--epochs", "2", "--out", str(out)]) == 0
    before = latest_checkpoint(out)
    assert main([*TRAIN, "--epochs", "2", "--out", str(out), "--resume"]) == 0
    assert main([*TRAIN, "--epochs", "1", "--init", str(out), "--out", str(tmp_path / "tuned")]) == 0
    assert [path.name for path in out.glob("*checkpoint*")] == [before.name]


@needs_proc
@pytest.mark.parametrize("make", [lambda: DinatForImageClassification(tiny()), lambda: Isotropic(32, 1, depth=1)])
def test_a_model_is_saved_over_the_files_that_it_came_from(tmp_path, windows, make):
    model = make()
    model.save_pretrained(tmp_path)
    state, again = read_checkpoint(tmp_path), type(model).from_pretrained(tmp_path)
    again.save_pretrained(tmp_path)
    assert state.keys() == read_checkpoint(tmp_path).keys()


@needs_proc
def test_drawings_and_pages_are_written_over_old_ones(tmp_path, windows):
    Image.new("RGB", (60, 40)).save(tmp_path / "photo.png")
    for _ in range(2):
        assert main(["explore", str(tmp_path / "photo.png"), "--tokens", "12", "--out", str(tmp_path / "a.html")]) == 0
        assert (
            main(["draw", "windows", "--layout", "6", "6", "--kernel-size", "3", "--out", str(tmp_path / "a.svg")]) == 0
        )


@needs_proc
def test_a_file_that_another_program_holds_is_one_line(tmp_path, windows):
    path = tmp_path / "curves.svg"
    path.write_text("old")

    def write() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("new")

    with open(path), pytest.raises(CommandError, match=f"^cannot write {path}: The process cannot access the file"):
        write()
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["old"]


def test_all_text_is_utf_8_whatever_the_system_prefers(tmp_path):
    """Python tells of every file that is opened in the system's own encoding; none of ours is."""
    Image.new("RGB", (60, 40)).save(tmp_path / "Löwe.png")
    tiny(num_labels=5).to_json(tmp_path / "config.json")
    torch.save(DinatForImageClassification(tiny()).state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "labels").write_bytes("Löwe\n犬\nc\nd\ne\n".encode())
    commands = [
        ["classify", "Löwe.png", "--weights", ".", "--labels", "labels", "--attention", "a.svg", "--size", "64"],
        ["explore", "Löwe.png", "--tokens", "12", "--out", "Löwe.html"],
        [*TRAIN, "--epochs", "1", "--out", "Läufe"],
        [*TRAIN, "--epochs", "1", "--out", "Läufe", "--resume"],
    ]
    code = "import warnings; from dinat_ref.cli import main\n"
    code += "warnings.filterwarnings('error', category=EncodingWarning, module='dinat_ref')\n"
    code += f"for command in {commands}: assert main(command) == 0, command\n"
    command = [sys.executable, "-X", "warn_default_encoding", "-X", "utf8=0", "-c", code]
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONIOENCODING": "cp1252:backslashreplace"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode("cp1252")[-2000:]
    assert "Löwe" in done.stdout.decode("cp1252")
    assert r"\u72ac" in done.stdout.decode("cp1252")
    assert "Läufe" in (tmp_path / "Läufe" / "checkpoint-0001").parent.name
