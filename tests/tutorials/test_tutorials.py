"""Every tutorial runs, keeps its frame, and is what its notebook shows."""

import ast
import base64
import importlib.util
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch

TUTORIALS = Path(__file__).parents[2] / "tutorials"
_specification = importlib.util.spec_from_file_location("tutorials_build", TUTORIALS / "build.py")
build = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(build)
SOURCES = sorted(TUTORIALS.glob("[0-9][0-9]_*.py"))
NEEDS = {
    "sklearn": (("from sklearn", "load_digits("), "scikit-learn ships the pictures"),
    "safetensors": (("pretrained=True", "load_training("), "safetensors reads trained weights"),
}


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


def exercises(source: Path) -> list[tuple[str, str]]:
    """What a tutorial asks at its end, and the code of each solution; no code where there is none."""
    part = cells(source)[-1][1].split("## On your own")[1].split("## Further reading")[0]
    asked = [text.split("<details>") for text in re.split(r"^\* ", part, flags=re.MULTILINE)[1:]]
    return [(text, "\n".join(re.findall(r"```python\n(.*?)```", "".join(rest), re.DOTALL))) for text, *rest in asked]


def notebook(source: Path) -> dict[str, Any]:
    return dict(json.loads(source.with_suffix(".ipynb").read_text()))


def outputs_of(source: Path) -> list[dict[str, str]]:
    """Every picture that a notebook shows."""
    data = [output.get("data", {}) for cell in notebook(source)["cells"] for output in cell.get("outputs", [])]
    return [shown for shown in data if "image/png" in shown]


def colour_type(picture: str) -> int:
    """The colour type in the header of a PNG: 3 is a palette."""
    return base64.b64decode(picture)[25]


def each(sources: list[Path] = SOURCES) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("source", sources, ids=lambda source: source.stem)


def test_numbers_are_consecutive_and_in_the_order_of_the_list() -> None:
    assert [source.name[:2] for source in SOURCES] == [f"{number:02d}" for number in range(1, len(SOURCES) + 1)]
    readme = (TUTORIALS / "README.md").read_text()
    rows = [line for line in readme.splitlines() if line.startswith("| ![") and ".ipynb)" in line]
    assert len(rows) == len(SOURCES)
    for row, source in zip(rows, SOURCES, strict=True):
        assert f"](thumbnails/{source.stem}.png) | [{source.name[:2]} · " in row
        assert f"]({source.stem}.ipynb) |" in row
        assert (TUTORIALS / "thumbnails" / f"{source.stem}.png").is_file()


@each()
def test_runs(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, (uses, reason) in NEEDS.items():
        if any(use in source.read_text() for use in uses):
            pytest.importorskip(package, reason=f"{reason}; pip install 'dinat-ref[tutorials]'")
    monkeypatch.chdir(TUTORIALS)
    settings = dict(matplotlib.rcParams)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    names = runpy.run_path(str(source), run_name="__main__")
    for _, solution in exercises(source):  # in the names of the tutorial, as a reader would
        exec(compile(solution, f"{source.name}: solution", "exec"), dict(names))
    torch.random.set_rng_state(state)
    torch.set_num_threads(threads)
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
def test_every_exercise_has_a_solution_that_proves_itself(source: Path) -> None:
    assert len(exercises(source)) >= 2
    for exercise, solution in exercises(source):
        assert exercise.strip()
        assert "assert" in solution, exercise
        assert "](" not in solution  # the site would take it for a link
    text = cells(source)[-1][1]
    assert (
        text.count("<details><summary>Solution</summary>\n\n") == text.count("\n\n</details>") == len(exercises(source))
    )


@each()
def test_begins_with_the_idea_and_not_with_helpers(source: Path) -> None:
    """What the first cell imports is what the tutorial is about; drawings are imported where they are drawn."""
    first = next(text for kind, text in cells(source) if kind == "code")
    imports = [node for node in ast.parse(first).body if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in imports if str(node.module).startswith("dinat_ref") for alias in node.names]
    assert len(names) <= 6
    assert not any(str(node.module).startswith("dinat_ref.viz") for node in imports)


@each()
def test_links_lead_somewhere(source: Path) -> None:
    text = "\n".join(text for kind, text in cells(source) if kind == "markdown")
    targets = [part.split(")")[0] for part in text.split("](")[1:]]
    assert targets
    for target in targets:
        path = TUTORIALS / target
        assert target.startswith("https://arxiv.org/abs/") or path.is_file(), target
        assert path.suffix != ".ipynb" or path.with_suffix(".py").is_file(), target


@each(SOURCES[:-1])
def test_leads_on_to_the_next(source: Path) -> None:
    following = SOURCES[SOURCES.index(source) + 1]
    last_cell = cells(source)[-1][1]
    assert re.search(rf"Next:\s\[{following.name[:2]}, [^]]+\]\({following.stem}\.ipynb\)", last_cell)


@each()
def test_notebook_is_made_from_the_source(source: Path) -> None:
    made = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in notebook(source)["cells"]]
    assert made == build.opening(source, build.repository()) + cells(source)


@each()
def test_notebook_is_executed_and_small(source: Path) -> None:
    assert source.with_suffix(".ipynb").stat().st_size < 1_000_000  # GitHub shows no large ones
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


def test_progress_is_no_output_but_a_warning_is() -> None:
    """How far a slow machine is goes to stderr; where it falls between the printed lines is chance."""
    streams = [("stdout", "one\n"), ("stderr", "epoch 3/12\n"), ("stdout", "two\n"), ("stderr", "UserWarning: no\n")]
    outputs = [{"output_type": "stream", "name": name, "text": text} for name, text in streams]
    kept = [(output["name"], output["text"]) for output in build.merged(outputs)]
    assert kept == [("stdout", "one\ntwo\n"), ("stderr", "UserWarning: no\n")]


@pytest.mark.parametrize(
    ("urls", "name"),
    [
        ("", None),
        ('[project.urls]\nHomepage = "https://github.com/someone/dinat-ref"', None),
        ('[project.urls]\nRepository = "https://example.org/someone/dinat-ref"', None),
        ('[project.urls]\nRepository = "https://github.com/someone"', None),
        ('[project.urls]\nRepository = "https://github.com/someone/dinat-ref"', "someone/dinat-ref"),
        ('[project.urls]\nRepository = "https://github.com/some-one/dinat.ref.git"', "some-one/dinat.ref"),
        ('[project.urls]\nRepository = "https://github.com/someone/dinat-ref/"', "someone/dinat-ref"),
    ],
)
def test_the_address_of_the_project_is_one_setting(urls: str, name: str | None, tmp_path: Path) -> None:
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(f'[project]\nname = "dinat-ref"\n{urls}\n')
    assert build.repository(pyproject) == name
    cells_before = build.opening(SOURCES[0], name)
    if name is None:
        assert cells_before == []
    else:
        badge, install = cells_before
        target = f"https://colab.research.google.com/github/{name}/blob/main/tutorials/{SOURCES[0].stem}.ipynb"
        assert badge[0] == "markdown"
        assert badge[1].endswith(f"]({target})")
        assert install[0] == "code"
        assert install[1].endswith(f"%pip install -q git+https://github.com/{name}")


@pytest.mark.parametrize("name", [None, "someone/dinat-ref"])
def test_a_notebook_begins_with_the_badge_where_there_is_an_address(
    name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TUTORIALS.parent))  # the kernel finds the project, and installs nothing
    for module in ("jupytext", "nbclient", "ipykernel"):
        pytest.importorskip(module, reason=f"{module} runs notebooks; pip install 'dinat-ref[tutorials]'")
    source = tmp_path / "01_say_hello.py"
    source.write_text("# %% [markdown]\n# # Hello\n\n# %%\nprint('hello')\n")
    made = build.execute(source, name)
    assert [(cell["cell_type"], cell["source"]) for cell in made.cells] == build.opening(source, name) + cells(source)
    assert build.printed(made) == ["hello\n"]
    code = [cell for cell in made.cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))


def test_building_without_an_address_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for module in ("jupytext", "nbclient", "ipykernel"):
        pytest.importorskip(module, reason=f"{module} runs notebooks; pip install 'dinat-ref[tutorials]'")
    for name, lines in ((None, 1), ("someone/dinat-ref", 0)):
        monkeypatch.setattr(build, "repository", lambda name=name: name)
        monkeypatch.setattr(build, "sources", lambda numbers: [])
        assert build.main([]) == 0
        assert capsys.readouterr().out.count("without Colab badges") == lines


def test_photos_are_stored_with_fewer_colours_only_where_a_notebook_is_too_large() -> None:
    pictures = [data["image/png"] for data in outputs_of(TUTORIALS / "15_colour_a_photo.py")]
    assert pictures
    assert all(colour_type(picture) == 3 for picture in pictures)  # a palette
    assert all(colour_type(data["image/png"]) == 6 for data in outputs_of(SOURCES[0]))  # red, green, blue, alpha
