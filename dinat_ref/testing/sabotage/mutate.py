"""A mutator: every small change of a right kernel's source that a tired author could make, one at a time.

The changes are those of mutation testing (operators, constants off by one, minimum for maximum, floor for ceiling,
dropped statements, swapped arguments) and those of kernels: another dim, another dtype, a detach, and a result that is
wrong only above a size, as an epilogue that was written for one tile is.
"""

import ast
import copy
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

Path = tuple[tuple[str, int | None], ...]  # from the root of a syntax tree to a node: fields, and places in lists

OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult, ast.Mod),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitXor: (ast.BitOr, ast.BitAnd),
}
ORDER_MATTERS = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq, ast.GtE),
    ast.NotEq: (ast.Eq, ast.Gt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
NAMES = {"min": "max", "minimum": "maximum", "amin": "amax", "floor": "ceil", "any": "all", "zeros": "ones"}
NAMES |= {"zeros_like": "ones_like", "sum": "mean", "log": "log2", "exp": "exp2", "logsumexp": "amax"}
NAMES |= {there: here for here, there in NAMES.items() if there not in ("mean", "amax")} | {"amax": "amin"}
DTYPES = {"float32": ("bfloat16", "float64"), "float64": ("float32",)}
BOUNDS = ("range", "min", "max", "clamp", "minimum", "maximum", "arange")  # calls whose arguments may be one off
DROPPED = ("clamp", "to", "contiguous", "masked_fill", "exp", "log", "detach", "repeat_interleave")  # calls left out
CARRIERS = {"queries", "keys", "values", "scores", "weights", "output", "lse", "near", "more", "bias", "q", "k", "v"}

# what is wrong above a size only: where it happens, and the limits; {} is the limit
ABOVE = (
    ("query = query * (torch.arange(query.shape[-1], device=query.device) < {})", (8, 16, 32, 64, 128)),
    ("value = value * (torch.arange(value.shape[-1], device=value.device) < {})", (8, 16, 64, 128)),
    ("value = value * (1 + (torch.arange(value.shape[-2], device=value.device) >= {})[:, None])", (2, 4, 8)),
    ("query = query * (1 + (torch.arange(query.shape[-2], device=query.device) >= {})[:, None])", (4, 8)),
    ("value = value * 2 if query.shape[-2] > {} * key.shape[-2] else value", (2, 3, 4, 7)),
    ("value = value * 2 if query.shape[0] > {} else value", (2, 4)),
    ("value = value * 2 if max(query.shape[1:-2]) > {} else value", (16, 32, 64, 128)),
    ("value = value * 2 if key.shape[1:-2].numel() > {} else value", (64, 128)),
    ("value = value * 2 if max(torch.tensor(kernel_size).flatten()) > {} else value", (5, 7, 9, 11)),
    ("value = value * 2 if max(torch.tensor(dilation).flatten()) > {} else value", (3, 4, 7)),
    ("value = value * 2 if max(torch.tensor(stride).flatten()) > {} else value", (3, 4, 7)),
    ("value = value * 2 if query.dtype.itemsize == 2 and query.shape[-1] > {} else value", (16, 64)),
    ("value = value * 2 if query.dtype.itemsize == 8 and query.shape[-1] > {} else value", (16,)),
    (
        "additional_values = None if additional_values is None else "
        "additional_values * (torch.arange(additional_values.shape[1]) < {})[:, None, None]",
        (4, 8, 15),
    ),
)


@dataclass(frozen=True)
class Mutant:
    """One change of one right kernel.

    Args:
        subject: the file that is changed, of ``sabotage/subjects``.
        line: where, in that file.
        change: what, as source before and after.
    Example:
        >>> mutants("table")[0].subject
        'table'
    """

    subject: str
    line: int
    change: str
    source: str

    def function(self) -> Callable[..., Any]:
        """The mutant, ready to be called."""
        module = ModuleType(f"mutant_of_{self.subject}")
        exec(compile(self.source, f"<{self.subject}, line {self.line}: {self.change}>", "exec"), module.__dict__)
        found: Callable[..., Any] = module.attend
        return found

    def __str__(self) -> str:
        return f"{self.subject}.py line {self.line}: {self.change}"


@cache
def mutants(subject: str) -> tuple[Mutant, ...]:
    """Every mutant of a subject, in the order of its lines.

    Shapes:
        return: Mutants, no two of one source
    Source: the operators of mutation testing; DeMillo, Lipton & Sayward, 1978.
    Example:
        >>> len(mutants("slots")) > 100
        True
    """
    module = importlib.import_module(f"dinat_ref.testing.sabotage.subjects.{subject}")
    tree = ast.parse(inspect.getsource(module))
    found: dict[str, Mutant] = {ast.unparse(tree): Mutant(subject, 0, "none", "")}
    for path, node in list(walk(tree, ())):
        for new in changes(node, path):
            put(tree, path, new)
            source = ast.unparse(ast.fix_missing_locations(tree))
            put(tree, path, node)
            change = f"{short(node)}  ->  {short(new)}"
            found.setdefault(source, Mutant(subject, getattr(node, "lineno", 0), change, source))
    attend = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "attend")
    body = attend.body
    for text, limits in ABOVE:
        for limit in limits:
            change = text.format(limit)
            attend.body = [body[0], *ast.parse(change).body, *body[1:]]  # behind the docstring
            source = ast.unparse(ast.fix_missing_locations(tree))
            found.setdefault(source, Mutant(subject, attend.lineno, change, source))
    return tuple(sorted((mutant for mutant in found.values() if mutant.source), key=lambda mutant: mutant.line))


def walk(node: ast.AST, path: Path) -> Iterator[tuple[Path, ast.AST]]:
    """The nodes that may be changed, each with the way to it: no annotations, docstrings, imports or error texts."""
    skipped = (ast.Import, ast.ImportFrom, ast.JoinedStr)
    for name, field in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "exc", "bases"):
            continue
        for place, child in enumerate(field) if isinstance(field, list) else ((None, field),):
            docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and not isinstance(child, skipped) and not docstring:
                here = (*path, (name, place))
                yield here, child
                yield from walk(child, here)


def put(tree: ast.AST, path: Path, new: ast.AST) -> None:
    """Set the node at the end of a path."""
    *way, (name, place) = path
    for field, index in way:
        tree = getattr(tree, field) if index is None else getattr(tree, field)[index]
    if place is None:
        setattr(tree, name, new)
    else:
        getattr(tree, name)[place] = new


def short(node: ast.AST) -> str:
    """The source of a node, in one line."""
    return " ".join(ast.unparse(node).split())[:90]


def one_off(node: ast.expr) -> Iterator[ast.expr]:
    """One more and one less."""
    for operator in (ast.Add(), ast.Sub()):
        yield ast.BinOp(node, operator, ast.Constant(1))


def changes(node: ast.AST, path: Path) -> Iterator[ast.AST]:
    """What a node can be changed into."""
    if isinstance(node, ast.Constant):
        yield from constants(node, path)
    elif isinstance(node, ast.BinOp):
        for kind in OPERATORS.get(type(node.op), ()):
            yield ast.BinOp(node.left, kind(), node.right)
        if isinstance(node.op, ORDER_MATTERS):
            yield ast.BinOp(node.right, node.op, node.left)
        if isinstance(node.op, ast.FloorDiv):  # rounded up
            yield ast.UnaryOp(ast.USub(), ast.BinOp(ast.UnaryOp(ast.USub(), node.left), node.op, node.right))
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        for place in range(len(node.values)):
            rest = node.values[:place] + node.values[place + 1 :]
            yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
    elif isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in COMPARISONS.get(type(operator), ()):
                yield ast.Compare(node.left, [*node.ops[:place], other(), *node.ops[place + 1 :]], node.comparators)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.Call):
        yield from calls(node)
    elif isinstance(node, ast.Attribute) and node.attr in DTYPES:
        for attr in DTYPES[node.attr]:
            yield ast.Attribute(node.value, attr, node.ctx)
    elif isinstance(node, ast.Slice):
        for name in ("lower", "upper"):
            bound = getattr(node, name)
            for new_bound in () if bound is None or isinstance(bound, ast.Constant) else one_off(bound):
                changed = copy.copy(node)
                setattr(changed, name, new_bound)
                yield changed
    elif isinstance(node, ast.stmt):
        yield from statements(node)


def constants(node: ast.Constant, path: Path) -> Iterator[ast.AST]:
    """Off by one, the other truth, another default."""
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
        yield ast.Constant(node.value - 1)
    elif isinstance(node.value, float):
        yield ast.Constant(node.value + 1.0)
    elif node.value is None and path[-1][0] == "defaults":
        yield ast.Constant(1.0)


def calls(node: ast.Call) -> Iterator[ast.AST]:
    """Another function, its arguments swapped or one off, the call left out."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in NAMES:
        function = copy.deepcopy(node.func)
        setattr(function, "attr" if isinstance(function, ast.Attribute) else "id", NAMES[name])
        yield ast.Call(function, node.args, node.keywords)
    for place in range(len(node.args) - 1):
        args = list(node.args)
        args[place : place + 2] = args[place + 1], args[place]
        yield ast.Call(node.func, args, node.keywords)
    if name in BOUNDS:
        for place, arg in enumerate(node.args):
            for other in () if isinstance(arg, (ast.Constant, ast.Starred, ast.GeneratorExp)) else one_off(arg):
                yield ast.Call(node.func, [*node.args[:place], other, *node.args[place + 1 :]], node.keywords)
    if name == "clamp":
        other_side = {"min": "max", "max": "min"}
        yield ast.Call(
            node.func, node.args, [ast.keyword(other_side[word.arg or "min"], word.value) for word in node.keywords]
        )
    if name in DROPPED and isinstance(node.func, ast.Attribute):
        yield node.func.value


def statements(node: ast.stmt) -> Iterator[ast.AST]:
    """Left out, its condition forced, its value cut off from the graph."""
    if isinstance(node, ast.If):
        for truth in (True, False):
            yield ast.If(ast.Constant(truth), node.body, node.orelse)
        if not node.orelse and isinstance(node.body[0], ast.Raise):
            return
    if isinstance(node, (ast.AugAssign, ast.Expr)):
        yield ast.Pass()
    if isinstance(node, ast.AugAssign):
        yield ast.Assign([node.target], node.value)
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        if any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(node.value)):
            yield ast.Pass()  # it was assigned before, so what runs on is the older value
        if name in CARRIERS:
            yield ast.Assign(node.targets, ast.Call(ast.Attribute(node.value, "detach", ast.Load()), [], []))
