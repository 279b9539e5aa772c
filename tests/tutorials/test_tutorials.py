"""Every tutorial runs, keeps its frame, and is what its notebook shows."""

import base64
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch

TUTORIALS = Path(__file__).parents[2] / "tutorials"
SOURCES = sorted(TUTORIALS.glob("[0-9][0-9]_*.py"))


def cells(source: Path) -> list[tuple[str, str]]:
    """Read the py:percent format, without the library that writes the notebooks: kind and text of every cell."""
    found: list[tuple[str, list[str]]] = []
    for line in source.read_text().splitlines():
        if line.startswith("# %%"):
            found.append(("markdown" if "[markdown]" in line else "code", []))
        elif found[-1][0] == "markdown":
            found[-1][1].append(line.removeprefix("#").removeprefix(" "))
        else:
            found[-1][1].append(line)
    return [(kind, "\n".join(lines).strip()) for kind, lines in found]


def notebook(source: Path) -> dict[str, Any]:
    return dict(json.loads(source.with_suffix(".ipynb").read_text()))


def each(sources: list[Path] = SOURCES) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("source", sources, ids=lambda source: source.stem)


def test_numbers_are_unique_and_in_the_order_of_both_lists() -> None:
    numbers = [source.name[:2] for source in SOURCES]
    assert numbers[0] == "01"
    assert len(set(numbers)) == len(numbers)
    for readme, folder in ((TUTORIALS / "README.md", ""), (TUTORIALS.parent / "README.md", "tutorials/")):
        rows = [line for line in readme.read_text().splitlines() if line.startswith("| ![") and ".ipynb)" in line]
        assert len(rows) == len(SOURCES)
        for row, source in zip(rows, SOURCES, strict=True):
            assert f"]({folder}thumbnails/{source.stem}.png) | [{source.name[:2]} · " in row
            assert f"]({folder}{source.stem}.ipynb) |" in row
            assert (TUTORIALS / "thumbnails" / f"{source.stem}.png").is_file()


@each()
def test_runs(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "from sklearn" in source.read_text():
        pytest.importorskip("sklearn", reason="scikit-learn ships the pictures; pip install 'dinat-ref[tutorials]'")
    monkeypatch.chdir(TUTORIALS)
    settings = dict(matplotlib.rcParams)
    state = torch.random.get_rng_state()
    names = runpy.run_path(str(source), run_name="__main__")
    torch.random.set_rng_state(state)
    assert "torch" in names
    assert dict(matplotlib.rcParams) == settings


@each()
def test_has_the_frame_of_a_tutorial(source: Path) -> None:
    text = "\n".join(text for kind, text in cells(source) if kind == "markdown")
    assert text.startswith(f"# {source.name[:2]} · ")
    parts = ["**What you'll do:**", "**What you'll need:**", "## On your own", "## Further reading"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    code = "\n".join(text for kind, text in cells(source) if kind == "code")
    assert code.count("assert") >= 3


@each()
def test_links_lead_somewhere(source: Path) -> None:
    text = source.read_text()
    targets = [part.split(")")[0] for part in text.split("](")[1:]]
    assert targets
    for target in targets:
        assert target.startswith("https://arxiv.org/abs/") or (TUTORIALS / target).with_suffix(".py").is_file(), target


@each()
def test_notebook_is_made_from_the_source(source: Path) -> None:
    made = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in notebook(source)["cells"]]
    assert made == cells(source)


@each()
def test_notebook_is_executed_and_small(source: Path) -> None:
    assert source.with_suffix(".ipynb").stat().st_size < 300_000
    code = [cell for cell in notebook(source)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert cell["metadata"] == {}
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"
            if "image/png" in output.get("data", {}):
                assert base64.b64decode(output["data"]["image/png"]).startswith(b"\x89PNG")


@each(SOURCES[:1])
def test_the_notebook_command_reproduces_what_is_printed(source: Path) -> None:
    for name in ("jupytext", "nbclient", "ipykernel"):
        pytest.importorskip(name, reason=f"{name} runs notebooks; pip install 'dinat-ref[tutorials]'")
    command = [sys.executable, str(TUTORIALS / "build.py"), "--check", source.name[:2]]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=TUTORIALS.parent)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "1 notebooks checked\n"
