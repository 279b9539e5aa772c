"""A source file beside its explanation: docstrings and comments on the left, the code they speak of on the right."""

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer


@dataclass
class Row:
    """What is said, and the code it is said of; ``name`` where a function or a class begins."""

    name: str = ""
    text: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)  # every line of the file is in one row


def rows(source: str) -> list[Row]:
    r"""Cut a source: a row begins with each definition, and with each comment that has lines of its own.

    Example:
        >>> [(row.name, row.text, row.code) for row in rows('def f():\n    "Say one."\n    # why\n    return 1\n')]
        [('f', ['Say one.'], ['def f():']), ('', ['why'], ['    return 1'])]
    """
    tree = ast.parse(source)
    names, docstrings = landmarks(tree)
    result = [Row()]
    for number, line in enumerate(source.splitlines(), start=1):
        comment = re.match(r"\s*#:? ?(.*)", line)
        if number in docstrings:
            if docstrings[number] is not None:
                result[-1].text += docstrings[number] or []
        elif number in names:
            result.append(Row(name=names[number], code=[line]))
        elif comment and not line.startswith("#!"):
            if result[-1].code and not (result[-1].text and not "".join(result[-1].code).strip()):
                result.append(Row())
            result[-1].text.append(comment[1])
        else:
            result[-1].code.append(line)
        result[-1].lines.append(number)
    return [row for row in result if row.lines]


def landmarks(tree: ast.Module) -> tuple[dict[int, str], dict[int, list[str] | None]]:
    """Find where definitions begin, with their names, and the lines of docstrings: the text stands at the first."""
    names: dict[int, str] = {}
    docstrings: dict[int, list[str] | None] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names[min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])] = node.name
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            text = ast.get_docstring(node)
            if text is not None:
                first = node.body[0]
                docstrings |= dict.fromkeys(range(first.lineno, (first.end_lineno or first.lineno) + 1), None)
                docstrings[first.lineno] = text.splitlines()
    return names, docstrings


def page(path: Path, name: str) -> str:
    """Write the page of a file in Markdown: a title, and a table as HTML."""
    table = "\n".join(table_rows(path.read_text(encoding="utf-8")))
    title = f"# `{name}`\n\nDocstrings and comments on the left, the code they speak of on the right.\n\n"
    return f'{title}```{{raw}} html\n<div class="annotated">\n{table}\n</div>\n```\n'


def table_rows(source: str) -> Iterator[str]:
    """The rows of the table."""
    formatter, seen = HtmlFormatter(cssclass="highlight"), {""}
    for row in rows(source):
        code = "\n".join(row.code).strip("\n")
        if not row.text and not code.strip():
            continue
        anchor = "" if row.name in seen else f' id="{row.name}"'
        seen.add(row.name)
        shown = highlight(code, PythonLexer(stripnl=False), formatter) if code.strip() else ""
        yield f'<div class="said"{anchor}>{said(row.text)}</div><div class="code">{shown}</div>'


def said(lines: list[str]) -> str:
    """An explanation as HTML: paragraphs, and what is indented or an example as it stands."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines).strip("\n")):
        head = [line for line in paragraph.splitlines() if not line.startswith("    ")]
        if paragraph.strip() and len(head) == len(paragraph.splitlines()):
            text = re.sub(r"``(.+?)``", r"<code>\1</code>", escape(" ".join(head)))
            parts.append(f"<p>{re.sub(r'::$', ':', text)}</p>")
        elif paragraph.strip():
            kind = ' class="section"' if head else ""
            parts.append(f"<pre{kind}>{escape(textwrap.dedent(paragraph))}</pre>")
    return "".join(parts)
