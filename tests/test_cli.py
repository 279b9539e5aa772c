"""The console script: finding commands, and how it ends."""

import argparse
import errno
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import dinat_ref
from dinat_ref import cli
from dinat_ref.command import CommandError


def ended(argv: list[str]) -> int | str | None:
    """The exit status of a call that ends the interpreter."""
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    return stop.value.code


@pytest.fixture
def fake_command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A command named "fake" that returns what it is told to."""
    module = ModuleType("dinat_ref.fake")

    def configure(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("status", type=int)

    def run(args: argparse.Namespace) -> int:
        return args.status

    module.configure, module.run = configure, run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dinat_ref.fake", module)
    monkeypatch.setitem(cli.COMMANDS, "fake", ("dinat_ref.fake", "return a number"))
    return module


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(["--version"]) == 0
    assert capsys.readouterr().out == f"dinat-ref {dinat_ref.__version__}\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(["--help"]) == 0
    text = capsys.readouterr().out
    for name, (_, summary) in cli.COMMANDS.items():
        assert name in text
        assert " ".join(summary.split()) in " ".join(text.split())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_every_command_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        importlib.import_module(cli.COMMANDS[name][0])
    except ModuleNotFoundError as error:
        pytest.skip(f"dinat-ref {name} needs {error.name}, which the testing extra does not install")
    assert ended([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert "example" in text.lower()
    assert f"dinat-ref {name}" in text


@pytest.mark.parametrize("argv", [[], ["paint"], ["--colour"]])
def test_usage_errors(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "dinat-ref: error: " in captured.err


@pytest.mark.parametrize("status", [0, 1])
def test_status_of_a_command_is_that_of_the_script(fake_command: ModuleType, status: int) -> None:
    assert cli.main(["fake", str(status)]) == status


def test_bad_input_is_one_line(fake_command: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: argparse.Namespace) -> int:
        raise CommandError("image not found: cat.jpg")

    fake_command.run = run  # type: ignore[attr-defined]
    assert cli.main(["fake", "0"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "dinat-ref fake: error: image not found: cat.jpg\n"


def test_interrupted(fake_command: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    fake_command.run = run  # type: ignore[attr-defined]
    assert cli.main(["fake", "0"]) == 130
    assert capsys.readouterr().err == "\ndinat-ref fake: stopped\n"


def test_a_reader_may_leave_early() -> None:
    """As ``dinat-ref bench | head`` does: no traceback, and the status that a shell gives for it."""
    command = [sys.executable, "-m", "dinat_ref", "bench", "--shapes", "tiny", "--only", "tiled", "--no-memory"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141


def test_interrupted_while_its_imports_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow_import(name: str) -> ModuleType:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", slow_import)
    assert cli.main(["tour"]) == 130
    assert capsys.readouterr().err == "\ndinat-ref tour: stopped\n"


FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")


@FULL
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_takes_nothing(unbuffered: str) -> None:
    """A full disk: one line and status 2, whether print sees it or the flush at the end."""
    command = [sys.executable, "-m", "dinat_ref", "run", "--never"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert run.returncode == 2
    assert run.stderr == "dinat-ref run: error: cannot write: No space left on device\n"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_is_one_line(fake_command: ModuleType, capsys: pytest.CaptureFixture[str], code: int) -> None:
    def run(args: argparse.Namespace) -> int:
        raise OSError(code, "the disk is full")

    fake_command.run = run  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_discard_output", lambda: None)  # that of pytest is needed again
        assert cli.main(["fake", "0"]) == 2
    assert capsys.readouterr().err == "dinat-ref fake: error: cannot write: the disk is full\n"


def print_names(args: argparse.Namespace) -> int:
    print("Löwe 犬")
    return 0


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", r"L\xf6we \u72ac"), ("cp1252", "Löwe \\u72ac"), ("utf-8", "Löwe 犬")]
)
def test_a_character_that_the_terminal_lacks(
    fake_command: ModuleType, monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str
) -> None:
    """A terminal of Windows (cp1252), or of the locale C: spelt out, never a UnicodeEncodeError."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding, newline="\n"))
    fake_command.run = print_names  # type: ignore[attr-defined]
    assert cli.main(["fake", "0"]) == 0
    assert written.getvalue().decode(encoding) == shown + "\n"


@pytest.mark.parametrize("status", [0, 1])
def test_closed_streams_swallow_what_is_printed(
    fake_command: ModuleType, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Python's stdout and stderr are None where the shell closed them: the status still tells."""

    def run(args: argparse.Namespace) -> int:
        print("Löwe", end="")
        print("犬", file=sys.stderr, flush=True)
        return args.status

    fake_command.run = run  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["fake", str(status)]) == status
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.close()


@pytest.mark.parametrize("bug", [ValueError("a bug"), FileNotFoundError(errno.ENOENT, "a bug", "table.json")])
def test_a_bug_is_not_hidden(fake_command: ModuleType, bug: Exception) -> None:
    """Only CommandError is bad input; anything else keeps its traceback."""

    def run(args: argparse.Namespace) -> int:
        raise bug

    fake_command.run = run  # type: ignore[attr-defined]
    with pytest.raises(type(bug), match="a bug"):
        cli.main(["fake", "0"])


@pytest.mark.parametrize(
    "argv", [["--help"], ["tour", "--help"], ["draw", "--help"], ["draw", "atlas", "--help"], ["bench", "--help"]]
)
def test_help_needs_no_pytorch(argv: list[str]) -> None:
    """Nor a command that was not asked for."""
    others = {module for name, (module, _) in cli.COMMANDS.items() if name not in argv}
    unwanted = sorted({*others, "torch", "numpy", "matplotlib"})
    code = f"import sys; from dinat_ref.cli import main\ntry: main({argv})\nexcept SystemExit: pass\n"
    code += f"found = set({unwanted}) & set(sys.modules)\nassert not found, found"
    subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, check=True)


def test_choices_are_those_of_the_rooms() -> None:
    """Options are known without PyTorch, and say the same as the code that needs it."""
    from dinat_ref.analysis import kernel_tiles
    from dinat_ref.options import tiles, train, verify
    from dinat_ref.testing import kernel, registry
    from dinat_ref.testing import verify as kit
    from dinat_ref.training import recipe

    assert tiles.TILINGS == kernel_tiles.TILINGS
    assert train.AUGMENTATIONS == recipe.AUGMENTATIONS
    assert verify.LAYOUTS == kernel.LAYOUTS
    assert tuple(registry.BUDGETS) == verify.BUDGETS
    assert kit.ALLOWED == verify.SECONDS


def test_package_runs() -> None:
    command = [sys.executable, "-W", "error", "-m", "dinat_ref", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == f"dinat-ref {dinat_ref.__version__}\n"
