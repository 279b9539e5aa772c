"""What a source file says about itself: its statements, functions, comments, and the letters of its shapes."""

import ast
import inspect
import io
import keyword
import re
import tokenize
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import dinat_ref

PACKAGE = Path(dinat_ref.__file__).parent
SHAPE = re.compile(r"\[[^\[\]]*\]")


@dataclass(frozen=True)
class Statement:
    """A statement without what is inside of it, as the first and the last of its lines, and the names that it binds."""

    first: int
    last: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A file of this package.

    Example:
        >>> from dinat_ref import window
        >>> source = Source.of(window.__code__.co_filename)
        >>> source.name, source.summaries["window"]
        ('dinat_ref/window.py', 'List the positions that the query at position i attends, in increasing order.')
    """

    path: Path
    text: str = field(repr=False)

    @staticmethod
    @cache
    def of(filename: str) -> "Source":
        """Read a file, once: thousands of steps ask what it says."""
        return Source(Path(filename), Path(filename).read_text(encoding="utf-8"))

    @property
    def name(self) -> str:
        """The path from the package on."""
        return self.path.relative_to(PACKAGE.parent).as_posix()

    @cached_property
    def tree(self) -> ast.Module:
        """The file, parsed."""
        return ast.parse(self.text)

    @cached_property
    def statements(self) -> dict[int, Statement]:
        """The innermost statement of each line that has one."""
        found: dict[int, Statement] = {}
        for node in ast.walk(self.tree):  # from the outside in
            if isinstance(node, ast.stmt):
                body = getattr(node, "body", None)
                last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
                if isinstance(node, ast.FunctionDef):  # up to the colon, without the docstring
                    arguments: list[ast.arg | ast.expr] = [*node.args.args, *([node.returns] if node.returns else [])]
                    last = max(node.lineno, *(part.end_lineno or 0 for part in arguments))
                statement = Statement(node.lineno, last, _bound(node))
                found |= dict.fromkeys(range(node.lineno, last + 1), statement)
        return found

    @cached_property
    def docstrings(self) -> dict[str, str]:
        """The docstring of every function, and under "" that of the file."""
        functions = [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)]
        found = {node.name: ast.get_docstring(node) or "" for node in functions}
        return {**found, "": ast.get_docstring(self.tree) or ""}

    @cached_property
    def summaries(self) -> dict[str, str]:
        """The first paragraph of each docstring, as one line of plain text."""
        return {
            name: " ".join(text.split("\n\n")[0].replace("``", "").split()) for name, text in self.docstrings.items()
        }

    @cached_property
    def comments(self) -> dict[int, str]:
        """The comment of each line that has one."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return {token.start[0]: token.string[1:].strip() for token in tokens if token.type == tokenize.COMMENT}

    def note(self, statement: Statement) -> str:
        """What the comments on and above a statement say beside shapes."""
        above: list[str] = []
        line = statement.first - 1
        while line in self.comments and self.text.splitlines()[line - 1].lstrip().startswith("#"):
            above.insert(0, self.comments[line])
            line -= 1
        beside = [self.comments.get(line, "") for line in range(statement.first, statement.last + 1)]
        words = [re.sub(rf"^({SHAPE.pattern}[,;:]?\s*)+", "", text) for text in (*above, *beside)]
        return " ".join(text for text in words if text and not text.startswith(("type:", "noqa")))

    def letters(self, statement: Statement, function: str) -> dict[str, list[str]]:
        """The shapes that a statement's comments give the names that it binds; at ``def``, those of the docstring."""
        if statement.names[:1] == (function,):
            rows = re.findall(r"^\s*([\w, ]+?):\s*(\[.*)$", self.docstrings[function], re.MULTILINE)
            return {name.strip(): _shapes(shape) for names, shape in rows for name in names.split(",")}
        shapes = [
            shape
            for line in range(statement.first, statement.last + 1)
            for shape in _shapes(self.comments.get(line, ""))
        ]
        if len(shapes) == len(statement.names):
            return {name: [shape] for name, shape in zip(statement.names, shapes, strict=True)}
        return dict.fromkeys(statement.names, shapes)

    @cached_property
    def tinted(self) -> list[list[tuple[str, str]]]:
        """Each line as pieces of text with their kind: code, comment, text (docstrings and strings), keyword."""
        kinds: list[list[str]] = [["code"] * len(line) for line in self.text.splitlines()]
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            kind = {tokenize.COMMENT: "comment", tokenize.STRING: "text"}.get(token.type)
            if token.type == tokenize.NAME and keyword.iskeyword(token.string):
                kind = "keyword"
            (top, left), (bottom, right) = token.start, token.end
            for row in range(top, bottom + 1) if kind else ():
                begin, end = left if row == top else 0, right if row == bottom else len(kinds[row - 1])
                kinds[row - 1][begin:end] = [kind or "code"] * (end - begin)
        return [_pieces(line, kind) for line, kind in zip(self.text.splitlines(), kinds, strict=True)]


def indented_block(text: str, wanted: str) -> list[str]:
    r"""Find the first indented block of a docstring in which some text stands, as lines without their margin.

    Example:
        >>> indented_block("Say.\n\n    a = b\n    c = d\n\nEnd.", "c =")
        ['a = b', 'c = d']
    """
    blocks = re.findall(r"(?:^    .*\n?|^[ \t]*\n)+", text, re.MULTILINE)
    return next((inspect.cleandoc(block).splitlines() for block in blocks if wanted in block), [])


def _bound(node: ast.stmt) -> tuple[str, ...]:
    """The plain names that a statement binds, in order."""
    if isinstance(node, ast.FunctionDef):
        return (node.name,)
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.For):
        targets = [node.target]
    parts = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return tuple(part.id for part in parts if isinstance(part, ast.Name))


def _shapes(comment: str) -> list[str]:
    return [shape[1:-1] for shape in SHAPE.findall(comment)]


def _pieces(line: str, kinds: list[str]) -> list[tuple[str, str]]:
    pieces: list[tuple[str, str]] = []
    for character, kind in zip(line, kinds, strict=True):
        if pieces and pieces[-1][1] == kind:
            pieces[-1] = (pieces[-1][0] + character, kind)
        else:
            pieces.append((character, kind))
    return pieces
