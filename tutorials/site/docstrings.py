"""The house's docstrings as reStructuredText: prose stays prose, sections become what Sphinx sets well."""

import re
import textwrap
from collections.abc import Iterator

SECTION = re.compile(r"(Shapes|Args|Returns|Raises|Cost|Memory|Source|Example|Examples):(?:\s+(.*))?$")
LITERAL = re.compile(r"(``.+?``)", re.S)


def to_rst(lines: list[str]) -> list[str]:
    r"""Turn the lines of a docstring into lines of reStructuredText.

    Example:
        >>> to_rst(["Add *one*.", "", "Shapes:", "    x: [B, X]"])
        ['Add \\*one\\*.', '', '**Shapes**', '', '.. code-block:: text', '', '   x: [B, X]', '']
    """
    return [line for name, body in sections(lines) for line in section(name, body)]


def sections(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Cut a docstring: the name of each section and its lines, without their indent; prose has no name."""
    name, body = "", list[str]()
    for line in lines:
        found = SECTION.match(line)
        if found or (name and line and not line[0].isspace()):
            yield name, dedented(body)
            name, body = (found[1], [found[2] or ""]) if found else ("", [line])
        else:
            body.append(line)
    yield name, dedented(body)


def dedented(body: list[str]) -> list[str]:
    """Take away the indent of what follows a section's first line, and empty lines around it."""
    first, rest = body[:1], textwrap.dedent("\n".join(body[1:]))
    return "\n".join([*first, rest]).strip("\n").splitlines()


def section(name: str, body: list[str]) -> list[str]:
    """Set one section: prose and sources as text, shapes and examples as code, arguments as a list."""
    if not body:
        return []
    if not name:
        return prose(body)
    if name in ("Shapes", "Example", "Examples"):
        return [f"**{name}**", "", *block(body, "text" if name == "Shapes" else "pycon")]
    if name in ("Args", "Raises"):
        return [f"**{name}**", "", *entries(body), ""]
    return [f"**{name}.** " + escape(" ".join(line.strip() for line in body)), ""]


def prose(body: list[str]) -> list[str]:
    """Set paragraphs: what is indented, or follows a double colon, is code; a list stays one."""
    result: list[str] = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(body)):
        lines = paragraph.splitlines()
        if not paragraph.strip():
            continue
        if all(line.startswith("    ") for line in lines):
            result += block(textwrap.dedent(paragraph).splitlines(), "text")
        elif lines[0].startswith(("* ", "- ")):
            result += [f"* {item}" for item in items(lines)] + [""]
        else:
            code = next((place for place, line in enumerate(lines) if line.startswith("    ")), len(lines))
            text = re.sub(r"::$", ":", " ".join(lines[:code]))
            result += [escape(text), ""]
            result += block(textwrap.dedent("\n".join(lines[code:])).splitlines(), "text") if lines[code:] else []
    return result


def items(lines: list[str]) -> Iterator[str]:
    """Join the lines of each item of a list."""
    for item in re.split(r"^[*-] ", "\n".join(lines), flags=re.M)[1:]:
        yield escape(" ".join(item.split()))


def entries(body: list[str]) -> list[str]:
    """List arguments or errors: the name as code, then its text."""
    joined: list[str] = []
    for line in body:
        if line.startswith(" ") and joined:
            joined[-1] += " " + line.strip()
        elif line.strip():
            joined.append(line.strip())
    parts = (entry.partition(": ") for entry in joined)
    return [f"* ``{name}``: {escape(text)}" if text else f"* {escape(name)}" for name, _, text in parts]


def block(lines: list[str], language: str) -> list[str]:
    """Set lines as code."""
    return [f".. code-block:: {language}", "", *(f"   {line}".rstrip() for line in lines), ""]


def escape(text: str) -> str:
    """Keep words from being read as markup, but for ``code`` between double backticks."""
    parts = LITERAL.split(text)
    for place, part in enumerate(parts):
        if place % 2 == 0:
            parts[place] = re.sub(r"([\\*`|_])", r"\\\1", part)
        else:  # code stands between spaces or punctuation: a backslash and a space count, and are not shown
            parts[place] = rf"\ {part}\ "
    return "".join(parts)
