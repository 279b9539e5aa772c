"""The page that steps through a run, in a real browser, and the same in the terminal."""

import base64
import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

from dinat_ref import Neighborhood
from dinat_ref.analysis.recording.problem import Problem
from dinat_ref.analysis.recording.run import RECORDED, Recording, record
from dinat_ref.analysis.recording.values import Values
from dinat_ref.cli import main
from dinat_ref.viz.step.page import step_page
from tests.viz.browser import DARK, browse

PROBLEMS = [
    Problem("edges", Neighborhood((3, 4), kernel_size=3)),
    Problem("dilated", Neighborhood((9,), kernel_size=2, stride=2, dilation=3, is_causal=True), bias=True),
]


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    values = Values()
    return [record(formulation, problem, values) for formulation in RECORDED for problem in PROBLEMS]


def look(recordings: list[Recording], folder: Path, width: int = 1200, *flags: str) -> dict[str, Any]:
    """Open the page in a frame of some width, go through it, and read what it shows."""
    probe = Path(__file__).parent.joinpath("probes", "step.js").read_text(encoding="utf-8")
    return browse(step_page(recordings), probe, folder, width, 850, *flags)


def unpacked(page: str) -> dict[str, Any]:
    """What a page holds."""
    text = page.split('id="data">')[1].split("</script>")[0]
    return dict(json.loads(zlib.decompress(base64.b64decode(text))))


def test_the_page_shows_what_was_recorded(recordings: list[Recording], tmp_path: Path) -> None:
    found = look(recordings, tmp_path)
    for shown, recording in zip(found["runs"], recordings, strict=True):
        assert (shown["formulation"], shown["problem"]) == (recording.formulation, recording.problem.name)
        assert shown["steps"] == len(recording.steps)
        neighborhood = recording.problem.neighborhood
        if recording.output is None:
            axis = neighborhood.ndim - 1
            pairs = [f"{i} {j}" for i, keys in enumerate(neighborhood.windows(axis)) for j in keys]
            assert sorted(shown["pairs"]) == sorted(pairs)
        else:
            numbers = torch.tensor([float(number) for number in shown["numbers"]])
            torch.testing.assert_close(numbers, recording.output.flatten(), rtol=0, atol=0)

        if recording.formulation in ("unfold", "tiled") and max(neighborhood.dilation) > 1:  # the groups, pulled apart
            places = [tuple(place) for place in shown["apart"]]
            lines = [sorted(x for x, y in places if y == line) for line in sorted({y for _, y in places})]
            assert lines == [[0, 40, 80]] * 3
            assert [y for _, y in places] == [places[i % 3][1] for i in range(9)]
        else:
            assert shown["apart"] == []

    again = Values()  # another run, recorded anew, has the numbers that the page unpacks
    anew = [record(recording.formulation, recording.problem, again) for recording in recordings]
    assert [run.steps for run in anew] == [run.steps for run in recordings]
    for number, numbers in enumerate(found["values"][: len(again.entries)]):
        if numbers is not None:
            expected = again.get(number).flatten().tolist()
            read = [{"true": 1.0, "false": 0.0}.get(text) or float(text.replace("Infinity", "inf")) for text in numbers]
            assert all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(read, expected, strict=True))

    assert found["links"] == [[made.formulation, made.problem.name, 7, 3, True] for made in recordings]

    first, second, back, query, following, over, end, home = found["keys"]
    assert first[0] == back[0] < second[0]
    assert query[2] == 0
    assert following[2] == 1
    assert over[1] <= following[1]
    assert end[0] == len(next(r for r in recordings if r.formulation == "loops").steps) - 1
    assert home[0] == 0
    assert found["playing"]
    assert found["stopped"]
    assert found["clicked"][2] == 5
    assert found["detour"] == ["window", 1, 1]  # the column of token 5 in a layout of 3 x 4
    assert found["back"] == ["loops", 5]
    assert found["paper"] == "rgb(255, 255, 255)"


def test_the_page_fits_a_phone_and_a_dark_room(recordings: list[Recording], tmp_path: Path) -> None:
    found = look([recordings[0], recordings[2]], tmp_path, 390, DARK)
    assert found["wide"] <= 0
    assert found["paper"] == "rgb(21, 23, 26)"


def test_the_page_is_one_file_without_network(recordings: list[Recording]) -> None:
    page = step_page(recordings)
    assert not re.findall(r"(?:src|href)\s*=|https?://|@import|fetch\(|XMLHttpRequest", page.split('id="data"')[0])
    script = page.split("</script>")[1]
    assert not re.findall(r"https?://|import\(|fetch\(|XMLHttpRequest|Math\.exp|softmax\(", script)


def test_the_command_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "step.html"
    assert main(["step", "gather", "--layout", "6x7", "--dilation", "2", "--query", "0,3", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    page = out.read_text(encoding="utf-8")
    assert len(page.encode()) < 2_000_000
    assert unpacked(page)["start"] == 3


@pytest.mark.parametrize("formulation", RECORDED)
def test_the_terminal_has_the_same(formulation: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["step", formulation, "--layout", "3x4", "--query", "0,1", "--text"]) == 0
    text = capsys.readouterr().out
    run = record(formulation, Problem("same", Neighborhood((3, 4), 3)))
    if formulation == "window":
        assert text.count("-> 0 1 2") == 2  # the row 0 and the column 1
    else:
        number = run.output.flatten()[1].item()
        assert formulation != "loops" or f"output = [B 1, Dv 1] {number:.3g}" in text
        assert f"{formulation}_attention" in text
    assert len(text.splitlines()) < 420


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layout", "1000x1000"], "layout must have at most 144 tokens, it is to be read"),
        (["--layout", "12x12", "--kernel-size", "12"], "at most 2048 scores, it is to be read"),
        (["--layout", "3x3x3"], "layout must have one axis or two"),
        (["--layout", "4x5", "--dilation", "2"], "kernel_size * dilation on axis 0"),
        (["--layout", "4x5", "--kernel-size", "3x3x3"], "kernel_size must have one entry per axis"),
        (["--layout", "0x5"], "length on axis 0 must be at least 1"),
        (["--layout", "4x5", "--query", "4,0"], "token must lie in the layout (4, 5), got (4, 0)"),
        (["--out", "step.pdf"], "the page is written as .html, got step.pdf"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["step", "loops", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("dinat-ref step: error: ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
