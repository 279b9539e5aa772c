"""E: illegal arguments must raise something, whatever its text; neither compute nonsense nor end the process.

The violations are generated from the rules, the smallest of each, one axis and one tensor at a time: a rule that is
checked on one axis only, or for the key but not for the value, is a rule that is not checked.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dinat_ref.testing.kernel import Kernel, Wrong
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.registry import check
from dinat_ref.testing.supports import Supports

Violation = tuple[
    str, Problem, dict[str, Any], dict[str, Any]
]  # words, a legal call, its arguments, its tensors changed
Generate = Callable[[Problem, Supports], Iterator[Violation]]
LENGTHS = (2, 3, 4, 5, 6, 7, 9)  # of the axis on which a rule is broken


def small(supports: Supports, budget: str) -> Iterator[Problem]:
    """A small legal problem for each number of axes, to be spoilt."""
    head_dim = 4 if supports.head_dims is None else min(supports.head_dims)
    for ndim in supports.ndim:
        layout = tuple(4 + axis for axis in range(ndim))
        dtype = supports.main_dtype
        problem = Problem(layout=layout, kernel_size=3, batch=2, heads=2, head_dim=head_dim, dtype_name=dtype)
        if supports.takes(problem):
            yield problem


def must_raise(id: str, title: str, needs: tuple[str, ...] = ()) -> Callable[[Generate], Generate]:
    """Enter a check: calls that are legal but for one thing must raise, every one of them."""

    def enter(generate: Generate) -> Generate:
        def examine(kernel: Kernel, problem: Problem) -> None:
            for words, legal, arguments, tensors in generate(problem, kernel.supports):
                inputs = legal.inputs(kernel.device)
                for name, change in tensors.items():
                    setattr(inputs, name, change(inputs))
                try:
                    result = kernel.call(inputs, kernel.arguments(legal) | arguments)
                except Exception:
                    continue
                shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
                raise Wrong(f"accepted silently: {title}: {words}; returned {shape}")

        examine.__doc__ = f"Raises: {title}"
        check(id, enumerate=small, needs=needs)(examine)
        return generate

    return enter


def on_each_axis(
    problem: Problem, supports: Supports, name: str, broken: Callable[[int], Iterator[tuple[int, int, int]]]
) -> Iterator[Violation]:
    """Break a rule on one axis after the other: ``broken`` gives (length, kernel size, value of the argument)."""
    for axis in range(problem.ndim):
        for length, kernel_size, value in itertools.chain.from_iterable(map(broken, LENGTHS)):
            layout = tuple(length if other == axis else n for other, n in enumerate(problem.layout))
            sizes = tuple(kernel_size if other == axis else 3 for other in range(problem.ndim))
            if not supports.per_axis and problem.ndim > 1:
                layout, sizes = (length,) * problem.ndim, (kernel_size,) * problem.ndim
            legal = problem.but(layout=layout, kernel_size=sizes)
            given = list(getattr(legal, name))
            given[axis] = value
            if not supports.per_axis:
                given = [value] * problem.ndim
            if supports.takes(legal):
                yield f"{name} {value} on axis {axis}, {legal!r}", legal, {name: tuple(given)}, {}


def sizes(length: int) -> Iterator[int]:
    """Legal kernel sizes of an axis, odd ones and even ones."""
    return iter(range(1, length + 1))


@must_raise("E01-kernel-size-zero", "kernel_size 0")
def kernel_zero(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """0 keys, on each axis."""
    return on_each_axis(problem, supports, "kernel_size", lambda n: iter([(n, 1, 0)]))


@must_raise("E02-kernel-negative", "a negative kernel_size")
def kernel_negative(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """-1 and -3 keys, on each axis."""
    return on_each_axis(problem, supports, "kernel_size", lambda n: iter([(n, 1, -1), (n, 1, -3)]))


@must_raise("E03-kernel-too-large", "a kernel larger than the layout")
def kernel_too_large(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """One key more than tokens (two, for odd kernels), on each axis."""

    def broken(length: int) -> Iterator[tuple[int, int, int]]:
        yield from ((length, 1, k) for k in (length + 1, length + 2) if supports.even or k % 2)

    return on_each_axis(problem, supports, "kernel_size", broken)


@must_raise("E04-dilation-too-large", "kernel_size * dilation larger than the layout", ("dilation",))
def dilation_too_large(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """The smallest dilation that does not fit, for every kernel size, on each axis."""

    def broken(length: int) -> Iterator[tuple[int, int, int]]:
        yield from ((length, k, length // k + 1) for k in sizes(length))

    return on_each_axis(problem, supports, "dilation", broken)


@must_raise("E05-dilation-zero", "a dilation below 1", ("dilation",))
def dilation_zero(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """0 and -1, on each axis."""
    return on_each_axis(problem, supports, "dilation", lambda n: iter([(n, 1, 0), (n, 1, -1)]))


@must_raise("E06-stride-zero", "a stride below 1", ("stride",))
def stride_zero(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """0 and -1, on each axis."""
    return on_each_axis(problem, supports, "stride", lambda n: iter([(n, 1, 0), (n, 1, -1)]))


@must_raise("E07-stride-above-kernel", "a stride larger than the kernel", ("stride",))
def stride_above_kernel(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """One more than the kernel size, for every kernel size, on each axis."""

    def broken(length: int) -> Iterator[tuple[int, int, int]]:
        yield from ((length, k, k + 1) for k in sizes(length))

    return on_each_axis(problem, supports, "stride", broken)


@must_raise("E08-axes-of-kernel", "another number of entries than axes")
def wrong_entries(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """One entry too many and one too few, of each argument."""
    has = {"kernel_size": True, "stride": supports.stride, "dilation": supports.dilation}
    has["is_causal"] = supports.causal and not supports.causal_rows
    for name in (name for name, there in has.items() if there):
        value = getattr(problem, name)[0]
        for count in {problem.ndim + 1, problem.ndim - 1}:
            yield f"{name} with {count} entries for {problem.ndim} axes", problem, {name: (value,) * count}, {}


BOTH = ("key", "value")
EACH = (("key",), ("value",), BOTH)  # together, too: they fit each other, and may be compared with nothing else


def changed(
    problem: Problem, names: Sequence[str], words: str, change: Callable[[Tensor], Tensor], **fields: Any
) -> Violation:
    """One tensor changed, or two in the same way."""
    legal = problem.but(**fields)
    tensors = {name: lambda inputs, name=name: change(getattr(inputs, name)) for name in names}
    return f"{' and '.join(names)} with {words}, {legal!r}", legal, {}, tensors


def more(axis: int, tensor: Tensor) -> Tensor:
    """One entry more on an axis."""
    return torch.cat([tensor, tensor.narrow(axis, 0, 1)], axis)


def less(axis: int, tensor: Tensor) -> Tensor:
    """One entry less on an axis."""
    return tensor.narrow(axis, 1, tensor.shape[axis] - 1)


def cast(dtype: torch.dtype, tensor: Tensor) -> Tensor:
    """The same numbers in another dtype."""
    return tensor.to(dtype)


def of_width(size: int, tensor: Tensor) -> Tensor:
    """Another head_dim."""
    return torch.cat([tensor, tensor], -1)[..., :size]


def other_layouts(problem: Problem, *names: str) -> Iterator[Violation]:
    """A token more and a token less on each axis, and two axes exchanged."""
    for axis in range(1, problem.ndim + 1):
        yield changed(problem, names, f"a token more on axis {axis - 1}", partial(more, axis))
        yield changed(problem, names, f"a token less on axis {axis - 1}", partial(less, axis))
    if problem.ndim > 1:
        yield changed(problem, names, "two axes exchanged", lambda t: t.transpose(1, problem.ndim).contiguous())


@must_raise("E09-key-layout", "a key with another layout")
def key_layout(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """On each axis; alone, and together with the value."""
    yield from other_layouts(problem, "key")
    yield from other_layouts(problem, *BOTH)


@must_raise("E10-value-layout", "a value with another layout")
def value_layout(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """On each axis."""
    return other_layouts(problem, "value")


@must_raise("E11-batch", "a key or value with another batch")
def other_batch(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """More, less, and one beside several, which broadcasts."""
    for names in EACH:
        yield changed(problem, names, "a batch of 6", lambda t: torch.cat([t] * 3))
        yield changed(problem, names, "a batch of 1", lambda t: t[:1])
        yield changed(problem, names, "a batch of 2", lambda t: torch.cat([t] * 2), batch=1)


@must_raise("E12-head-dim", "a key with another head_dim than the query")
def other_head_dim(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """Twice as many numbers, half as many, and one, which broadcasts."""
    for size in {2 * problem.head_dim, problem.head_dim // 2, 1} - {problem.head_dim, 0}:
        for name in ("key", "query"):
            yield changed(problem, [name], f"a head_dim of {size}", partial(of_width, size))


@must_raise("E13-heads", "a value with other heads than the key")
def other_heads(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """More, fewer, and one beside several, which broadcasts."""
    for name in ("value", "key") if not supports.gqa else ("value",):
        yield changed(problem, [name], "4 heads beside 2", lambda t: torch.cat([t] * 2, -2))
    yield changed(problem, ["value"], "1 head beside 2", lambda t: t[..., :1, :])
    if supports.gqa:
        yield changed(problem, ["key"], "1 head beside a value of 2", lambda t: t[..., :1, :])


@must_raise("E14-head-groups", "query heads that are no multiple of the key heads")
def head_groups(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """3 over 2, 1 over 2."""
    yield changed(problem, ["query"], "3 heads over 2", lambda t: torch.cat([t, t[..., :1, :]], -2))
    yield changed(problem, ["query"], "1 head over 2", lambda t: t[..., :1, :])


@must_raise("E15-lonely-extra-keys", "additional keys without values, or values without keys", ("extra_keys",))
def lonely_extra(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """Either alone."""
    for name in ("additional_keys", "additional_values"):
        yield f"{name} alone", problem, {}, {name: lambda inputs: inputs.key.flatten(1, -3)[:, :2]}


@must_raise("E16-rpb-shape", "a bias table of another shape", ("rpb",))
def rpb_shape(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """An offset more and one less on each axis; other heads, and one, which broadcasts."""
    right = (problem.heads, *(2 * size - 1 for size in problem.kernel_size))
    for axis in range(len(right)):
        for step in (-1, 1):
            shape = tuple(size + step * (place == axis) for place, size in enumerate(right))
            yield (
                f"a table of {shape}",
                problem,
                {},
                {"rpb": lambda inputs, s=shape: torch.zeros(s, dtype=problem.dtype)},
            )


def odd_only(supports: Supports, budget: str) -> Iterator[Problem]:
    """The small problems, of a kernel declared without even kernel sizes."""
    return iter(()) if supports.even else small(supports, budget)


def even_undeclared(kernel: Kernel, problem: Problem) -> None:
    """Raises: an even kernel size, where the kernel is declared without them."""
    arguments = kernel.arguments(problem) | {"kernel_size": (2,) * problem.ndim}
    try:
        kernel.call(problem.inputs(kernel.device), arguments)
    except Exception:
        return
    raise Wrong("accepted silently: an even kernel size, though the kernel is declared without them")


check("E17-even-undeclared", enumerate=odd_only)(even_undeclared)


@must_raise("E18-dtype", "a key or value with another dtype")
def other_dtype(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """A wider and a narrower one."""
    for names in EACH:
        for dtype in {torch.float64, torch.bfloat16} - {problem.dtype}:
            yield changed(problem, names, f"dtype {dtype}", partial(cast, dtype))


@must_raise("E19-device", "a key or value on another device")
def other_device(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """On no device at all."""
    for names in EACH:
        yield changed(problem, names, "its device the meta device", lambda t: t.to("meta"))


@must_raise("E20-extra-shapes", "additional keys or values of another shape", ("extra_keys",))
def extra_shapes(problem: Problem, supports: Supports) -> Iterator[Violation]:
    """Another batch, number, heads or head_dim; in one of them, in both where they still fit each other."""
    several, both = problem.but(extra_keys=3), ("additional_keys", "additional_values")
    for names in ((both[0],), (both[1],), both):
        yield changed(several, names, "a batch of 1", lambda t: t[:1])
        yield changed(several, names, "a batch of 4", lambda t: torch.cat([t, t]))
        yield changed(several, names, "1 head", lambda t: t[..., :1, :])
        yield changed(several, names, "4 heads", lambda t: torch.cat([t, t], -2))
    for name in both:
        yield changed(several, [name], "a key less than the other", lambda t: t[:, 1:])
        yield changed(several, [name], "twice the head_dim", lambda t: torch.cat([t, t], -1))
