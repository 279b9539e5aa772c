"""What the README says is true: its example prints what it says, its files exist, its commands are the ones CI runs."""

import contextlib
import io
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_first_example_prints_what_it_says():
    code = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    promised = re.search(r"^# (tensor\(.*?\))", code, re.M).group(1)
    assert printed.getvalue().strip() == promised


def test_every_file_it_links_to_exists():
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert len(links) > 8
    missing = [link for link in links if not (ROOT / link).exists()]
    assert missing == []


def test_there_are_exactly_two_set_up_commands():
    commands = re.findall(r"^    (python3 -m venv .*)$", README, re.M)
    assert len(commands) == 2
    assert commands[0].endswith("dinat-ref tour")
    assert commands[1].endswith("python -m pytest")
