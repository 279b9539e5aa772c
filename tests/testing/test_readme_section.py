"""What the README shows of the kit is what the kit prints."""

import contextlib
import io
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TITLE = "## Verify your kernel in six lines"


def section() -> str:
    """The section, in the README or on its way there."""
    places = [ROOT / "README.md", ROOT / "dinat_ref" / "testing" / "README_SECTION.md"]
    texts = [place.read_text() for place in places if place.is_file()]
    return next(text[text.index(TITLE) :] for text in texts if TITLE in text)


def test_the_six_lines_print_what_the_readme_shows():
    code, shown = re.search(r"```python\n(.*?)```.*?```\n(.*?)```", section(), re.S).groups()
    assert len([line for line in code.splitlines() if line]) == 6
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert shown.strip() in printed.getvalue()
