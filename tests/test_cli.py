"""The console script: finding commands, and how it ends."""

import argparse
import importlib
import subprocess
import sys
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
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 141


def test_a_bug_is_not_hidden(fake_command: ModuleType) -> None:
    """Only CommandError is bad input; anything else keeps its traceback."""

    def run(args: argparse.Namespace) -> int:
        raise ValueError("a bug")

    fake_command.run = run  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["fake", "0"])


def test_only_the_command_asked_for_is_imported() -> None:
    others = sorted({module for module, _ in cli.COMMANDS.values()})
    code = "import sys; from dinat_ref.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += f"assert not set({others}) & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, check=True)


def test_package_runs() -> None:
    command = [sys.executable, "-W", "error", "-m", "dinat_ref", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == f"dinat-ref {dinat_ref.__version__}\n"
