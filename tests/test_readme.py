"""What the README and the site's pages say is true: examples print it, files exist, commands are the ones CI runs."""

import contextlib
import doctest
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "tutorials" / "site").glob("*.md"))]
TUTORIALS = sorted(path.name for path in (ROOT / "tutorials").glob("[0-9][0-9]_*.ipynb"))


def test_the_first_example_prints_what_it_says():
    code = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    promised = re.search(r"^# (tensor\(.*?\))", code, re.M).group(1)
    assert printed.getvalue().strip() == promised


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_it_links_to_exists(page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        links = re.findall(r"\]\((?!https?://)([^)#]+\.md)\)", page.read_text())
        waiting += {(page.parent / link).resolve() for link in links} - reached
    pages = [page for page in PAGES if "{toctree}" not in page.read_text()]  # the others only list these
    assert [page.name for page in pages if page not in reached] == []


def test_there_are_exactly_two_set_up_commands():
    commands = re.findall(r"^    (python3 -m venv .*)$", README, re.M)
    assert len(commands) == 2
    assert commands[0].endswith("dinat-ref tour")
    assert commands[1].endswith("python -m pytest")


def test_it_is_short():
    assert 120 <= len(README.splitlines()) <= 150


def test_every_tutorial_has_one_row_and_an_honest_time():
    """Minutes are told in steps of five, by a rule; a tutorial may change a little before its row must."""
    rows = re.findall(r"^\| \[(\d\d) · [^]]+\]\(tutorials/(\S+\.ipynb)\) \| .* \| (\d+) \|$", README, re.M)
    assert sorted(name for _, name, _ in rows) == TUTORIALS
    for number, name, minutes in rows:
        assert name.startswith(number)
        lines = (ROOT / "tutorials" / name).with_suffix(".py").read_text().splitlines()
        text = sum(len(line.split()) - 1 for line in lines if line.startswith("#"))
        code = sum(1 for line in lines if line and not line.startswith("#"))
        counted = text / 100 + code / 6  # 100 words a minute, 10 seconds a line
        assert int(minutes) % 5 == 0
        assert 0.7 * counted - 5 <= int(minutes) <= 1.3 * counted + 5, f"{name}: {counted:.0f} minutes"


@pytest.mark.parametrize("page", [page for page in PAGES if ">>> " in page.read_text()], ids=lambda page: page.name)
def test_consoles_on_pages_answer_what_they_say(page):
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert failed == 0
    assert tried > 0


def test_the_range_of_tiled_is_that_of_the_table_of_benchmarks():
    page = (ROOT / "tutorials" / "site" / "benchmarks.md").read_text()
    row = re.search(r"^\| `tiled` \| ([\d.]+) - ([\d.]+) \| ([\d.]+) - ([\d.]+) \|$", page, re.M).groups()
    smallest, largest = min(row, key=float), max(row, key=float)
    assert f"`tiled` takes {smallest} to {largest} times as long" in " ".join(README.split())
