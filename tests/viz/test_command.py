"""``dinat-ref draw``: every drawing is written whole and alike each time; bad input is one line and exit status 2."""

import re
from pathlib import Path

import pytest

from dinat_ref.cli import main

DRAWINGS = {
    "windows": ["--layout", "9", "12", "--kernel-size", "3", "4", "--dilation", "2", "--token", "0", "5"],
    "one axis": ["--layout", "20", "--kernel-size", "5", "--stride", "2", "--causal", "--token", "3"],
    "inverse": ["--token", "0", "6", "--token", "2", "2"],
    "atlas": [],
    "receptive-field": ["--layout", "30", "40", "--kernel-size", "5", "--dilations", "1", "5"],
    "attention": ["--kernel-size", "7", "--dilation", "4", "--token", "180", "250"],
}


def command(name: str, out: Path) -> list[str]:
    return ["draw", "windows" if name == "one axis" else name, *DRAWINGS[name], "--out", str(out)]


@pytest.mark.parametrize("name", DRAWINGS)
def test_draws_the_same_file_twice(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suffix = ".png" if name == "attention" else ".svg"
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    assert main(command(name, first)) == 0
    assert capsys.readouterr().out == f"{first}\n"
    assert main(command(name, second)) == 0
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG" if name == "attention" else b"<?xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["windows", "--token", "99", "0"], "token must lie in the layout (12, 12), got (99, 0)"),
        (["windows", "--kernel-size", "99"], "kernel_size * dilation on axis 0 must be at most"),
        (["windows", "--layout", "5", "5", "5", "--kernel-size", "3"], "layouts of one or two axes"),
        (["windows", "--kernel-size", "3", "3", "3"], "kernel_size must have one entry per axis"),
        (["attention", "no-such-photo.jpg"], "image not found: no-such-photo.jpg"),
        (["attention", __file__], "not an image"),
        (["attention", "--token", "600", "0"], "token must lie in the layout (600, 512)"),
        (["attention", "--strength", "0"], "--strength must be a positive number, got 0.0"),
        (["attention", "--strength", "nan"], "--strength must be a positive number, got nan"),
        (["attention", "--strength", "inf"], "--strength must be a positive number, got inf"),
        (["atlas", "--length", "9"], "length must be in 15 .. 2048, got 9"),
        (["atlas", "--length", "20000"], "length must be in 15 .. 2048, got 20000"),
        (["receptive-field", "--token", "0", "0", "--token", "1", "1"], "drawn of one token, got 2"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["draw", *arguments, "--out", str(tmp_path / "drawing.png")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("dinat-ref draw: error: ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["windows", "inverse", "atlas", "receptive-field", "attention"])
def test_help_of_a_drawing_has_its_examples_and_defaults(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["draw", name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    options = [option for option in re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE) if option != "--out"]
    assert options
    assert text.count("(default") >= len(options) - ("--causal" in options)
    assert f"dinat-ref draw {name} " in text.split("examples:")[1]


def test_the_output_is_checked_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("a file")
    arguments = ["draw", "attention", "no-such-photo.jpg", "--out", str(tmp_path / "taken" / "drawing.png")]
    assert main(arguments) == 2
    assert f"it lies below a file, {tmp_path / 'taken'}" in capsys.readouterr().err


def test_other_suffixes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", "windows", "--out", str(tmp_path / "drawing.gif")]) == 2
    assert "written as .pdf, .png or .svg, got drawing.gif" in capsys.readouterr().err
