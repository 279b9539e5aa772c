"""What the page on verification shows of the kit is what the kit prints."""

import contextlib
import io
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "tutorials" / "site" / "verification.md"


def test_the_six_lines_print_what_the_page_shows():
    code, shown = re.search(r"```python\n(.*?)```.*?```\n(.*?)```", PAGE.read_text(), re.S).groups()
    assert len([line for line in code.splitlines() if line]) == 6
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, PAGE.name, "exec"), {})
    assert shown.strip() in printed.getvalue()
