"""The site shows every line of a source once, reads every docstring, and finds each dead link; Sphinx is run by CI."""

import ast
import doctest
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "tutorials" / "site"
SOURCES = sorted((ROOT / "dinat_ref").rglob("*.py"))


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The scripts of the site, which lie in no package; forgotten again afterwards."""
    names = ("annotate", "build", "docstrings")
    monkeypatch.syspath_prepend(str(SITE))
    before = {name: sys.modules.pop(name, None) for name in names}
    yield {name: importlib.import_module(name) for name in names}
    for name, module in before.items():
        sys.modules.pop(name)
        if module is not None:
            sys.modules[name] = module


def test_examples_of_the_scripts(scripts: dict[str, ModuleType]) -> None:
    for name in ("annotate", "docstrings"):
        failed, tried = doctest.testmod(scripts[name])
        assert (failed, tried) == (0, 1)


def test_every_line_of_every_source_is_in_one_row(scripts: dict[str, ModuleType]) -> None:
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        rows = scripts["annotate"].rows(source)
        lines = source.splitlines()
        assert [number for row in rows for number in row.lines] == list(range(1, len(lines) + 1)), path
        shown = [line for row in rows for line in row.code]
        said = [line.strip() for row in rows for line in row.text]
        left = [line for line in lines if not line.lstrip().startswith("#")]
        assert [line for line in shown if line not in left] == [], f"{path}: shows what is not there"
        assert len(shown) + len(said) >= len(left) - 4 * len(rows), f"{path}: lines are lost"  # quotes of docstrings


def test_what_is_code_on_an_annotated_page_is_the_same_program(scripts: dict[str, ModuleType]) -> None:
    """Without docstrings, that is: what is left of a page's right side parses to the source's own tree."""
    for name in scripts["build"].ANNOTATED:
        source = (ROOT / "dinat_ref" / name).read_text(encoding="utf-8")
        code = "\n".join(line for row in scripts["annotate"].rows(source) for line in row.code)
        assert ast.dump(ast.parse(code)) == ast.dump(without_docstrings(ast.parse(source))), name


def without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
            del node.body[0]
    return tree


def test_no_word_of_a_docstring_is_lost(scripts: dict[str, ModuleType]) -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
                continue
            lines = (ast.get_docstring(node) or "").splitlines()
            shown = "\n".join(scripts["docstrings"].to_rst(lines))
            assert words("\n".join(lines)) == words(re.sub(r"\.\. code-block:: \w+", "", shown)), path


def words(text: str) -> list[str]:
    return re.findall(r"\w+", re.sub(r"\\(.)", r"\1", text).replace("_", ""))


def test_a_dead_link_and_a_dead_anchor_are_found(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="b.html#there">1</a><a href="#here">2</a><a href="https://example.org/x">3</a>'
        '<a href="c.html">4</a><a href="b.html#nowhere">5</a><img src="p.png"><a href="d/">6</a>'
    )
    (tmp_path / "b.html").write_text('<h1 id="there">b</h1><a href="a.html?x=1#here">7</a>')
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "index.html").write_text("d")
    dead = list(scripts["build"].dead_links(tmp_path))
    assert dead == ["a.html: b.html#nowhere", "a.html: c.html", "a.html: p.png"]


def test_every_page_has_a_place_on_the_site() -> None:
    """In the table of contents, exactly once."""
    contents = re.findall(r"```\{toctree\}\n(?::[^\n]*\n)*\n(.*?)```", everything(), re.S)
    named = sorted(line for part in contents for line in part.split() if "/" not in line)
    assert named == sorted({"learn", *(path.stem for path in SITE.glob("*.md"))} - {"index"})


def everything() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in SITE.glob("*.md"))


def test_links_are_turned_to_where_things_lie_on_the_site(scripts: dict[str, ModuleType]) -> None:
    build, linked = scripts["build"], set[str]()
    page, place = SITE / "limits.md", build.SOURCES / "limits.md"
    text = "[a](models.md) [b](../../dinat_ref/window.py) [c](../01_draw_a_window.ipynb) [d](https://e.org) [f](#g)"
    turned = "[a](models.md) [b](source/window.md) [c](tutorials/01_draw_a_window.ipynb) [d](https://e.org) [f](#g)"
    assert build.relinked(text, page, place, linked) == turned
    assert linked == {"window.py"}
    code = "`tables[0](query)` and\n```python\ntables[0](query)\n```\n"  # no link
    assert build.relinked(code, page, place, linked) == code
    with pytest.raises(SystemExit, match=r"links to \.\./\.\./Makefile, which is not on the site"):
        build.relinked("[x](../../Makefile)", page, place, linked)
