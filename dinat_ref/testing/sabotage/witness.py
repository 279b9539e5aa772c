"""Brute force: an input on which a mutant is wrong, or none, and then it is a right kernel that was written otherwise.

Nothing here is shared with the checks: mutant and original are called side by side on far more, and far larger, calls
than a run of the checks poses, and on every small combination of arguments, legal or not.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dinat_ref.testing.checks.enumeration import axes_up_to
from dinat_ref.testing.problem import Inputs, Problem
from dinat_ref.testing.supports import Supports

Function = Callable[..., Any]
Trial = Callable[[Function], list[Tensor]]
LOOSE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}  # rounding, not a bug


def outcome(function: Function, trial: Trial) -> list[Tensor] | None:
    """What a trial gives, None where it raises."""
    try:
        return trial(function)
    except Exception:
        return None


def same(one: list[Tensor] | None, other: list[Tensor] | None) -> bool:
    """Whether two outcomes are alike but for rounding.

    Example:
        >>> same([torch.ones(2)], [torch.ones(2) + 1e-7]), same([torch.ones(2)], None)
        (True, False)
    """
    if one is None or other is None:
        return one is other
    if [(t.shape, t.dtype) for t in one] != [(t.shape, t.dtype) for t in other]:
        return False
    for a, b in zip(one, other, strict=True):
        a, b, loose = a.detach().double(), b.detach().double(), LOOSE.get(a.dtype, 0.0)
        if not a.numel():
            continue
        size = float(a[torch.isfinite(a)].abs().amax()) if bool(torch.isfinite(a).any()) else 1.0
        if not bool(torch.isclose(a, b, rtol=loose, atol=loose * size, equal_nan=True).all()):
            return False
    return True


References = list[tuple[str, Trial, list[Tensor] | None]]


def references(right: Function, supports: Supports, large_problems: int = 120) -> References:
    """Every trial with what a right kernel gives, to be compared with many mutants of it.

    Example:
        >>> from dinat_ref.testing.sabotage.subjects.table import attend
        >>> references(attend, Supports(ndim={1}), large_problems=0)[0][0]
        '1d 3 k2 d1 h1 e1 f32 seed0, stride dilation is_causal scale left out'
    """
    return [(name, trial, outcome(right, trial)) for name, trial in trials(supports, large_problems)]


def witness(right: References, mutant: Function) -> str | None:
    """The first call on which a mutant and its original differ, in words; None where they never do.

    Example:
        >>> from dinat_ref.testing.sabotage.subjects.table import attend
        >>> def dilated(*tensors, dilation=2, **arguments):
        ...     return attend(*tensors, dilation=dilation, **arguments)
        >>> witness(references(attend, Supports(ndim={1}), large_problems=0), dilated)
        '1d 3 k2 d1 h1 e1 f32 seed0, stride dilation is_causal scale left out'
    """
    return next((name for name, trial, wanted in right if not same(wanted, outcome(mutant, trial))), None)


def trials(supports: Supports, large_problems: int = 120) -> Iterator[tuple[str, Trial]]:
    """Every trial, the cheap ones first."""
    yield from defaults()
    yield from odd_arguments(supports)
    yield from odd_tensors(supports)
    for axis in axes_up_to(10):
        beside = min(supports.ndim) - 1
        values = [(plain,) * beside + (given,) for plain, given in zip(PLAIN, axis, strict=True)]
        yield from numbers(problem_of(values, seed=axis[0]), supports, gradients=False)
    for seed in range(large_problems):
        problem = large(random.Random(seed), supports)
        yield from numbers(problem, supports, gradients=False)
        if seed % 2 == 0:
            narrow = problem.but(head_dim=min(problem.head_dim, 5), head_dim_v=min(problem.head_dim_v, 4), batch=2)
            yield from numbers(
                narrow.but(heads=problem.heads // problem.heads_kv, heads_kv=1), supports, gradients=True
            )


FIELDS = ("layout", "kernel_size", "stride", "dilation", "is_causal")
PLAIN = (3, 2, 1, 1, False)


def problem_of(values: Iterable[tuple[Any, ...]], **others: Any) -> Problem:
    """A problem from its layout, kernel size, stride, dilation and causality."""
    return Problem("", **dict(zip(FIELDS, values, strict=True)), **others)


def call(tensors: list[Tensor], arguments: tuple[Any, ...], named: dict[str, Any], function: Function) -> list[Tensor]:
    """Call a function and list the tensors of its result."""
    result = function(*tensors, *arguments, **named)
    return list(result) if isinstance(result, (tuple, list)) else [result]


def numbers(problem: Problem, supports: Supports, gradients: bool) -> Iterator[tuple[str, Trial]]:
    """Output and lse; or both with and without the lse, their gradients, and scores in the hundreds."""
    where = {name: getattr(problem, name) for name in FIELDS[1:]} | {"scale": problem.scale}

    def forward(inputs: Inputs, function: Function) -> list[Tensor]:
        rest = inputs.named()
        tensors = [rest.pop(name) for name in ("query", "key", "value")]
        ways = ({"return_lse": True}, {}) if gradients else ({"return_lse": True},)
        return [tensor for way in ways for tensor in call(tensors, (), where | rest | way, function)]

    def weighted(parts: list[Tensor]) -> Tensor:
        return torch.stack(
            [(part.double() * torch.linspace(-1, 1, part.numel()).view_as(part)).sum() for part in parts]
        ).sum()

    def backward(function: Function) -> list[Tensor]:
        inputs = problem.inputs().map(lambda tensor: tensor.requires_grad_())
        leaves = list(inputs.named().values())
        twice = supports.double_backward and problem.dtype.itemsize > 2  # in half precision it is mostly rounding
        first = torch.autograd.grad(weighted(forward(inputs, function)), leaves, create_graph=twice)
        return [*first, *(torch.autograd.grad(weighted(list(first)), leaves) if twice else ())]

    yield f"{problem}", partial(forward, problem.inputs())
    if gradients:
        yield f"{problem}, gradients", backward
        inputs = problem.inputs()
        yield f"{problem}, query times 300", partial(forward, inputs.but(query=300 * inputs.query))


def large(draw: random.Random, supports: Supports) -> Problem:
    """A problem of realistic numbers: large heads, long windows, every dtype."""
    ndim = draw.choice(list(supports.ndim))
    axes = []
    for _ in range(ndim):
        k = draw.randint(1, (15, 7, 3)[ndim - 1])
        d = draw.choice([1, 1, 2, 3, draw.randint(4, 9) if ndim == 1 else 2])
        axes.append((k * d + draw.randint(0, (40, 6, 2)[ndim - 1]), k, draw.randint(1, k), d, draw.random() < 0.4))
    heads_kv, group = draw.choice([(1, 1), (2, 2), (3, 1), (1, 8), (12, 1), (2, 5)])
    return problem_of(
        zip(*axes, strict=True),
        batch=draw.choice([1, 1, 2, 5]),
        heads=heads_kv * group,
        heads_kv=heads_kv,
        head_dim=draw.choice([1, 3, 8, 17, 33, 64, 80, 130, 257]),
        head_dim_v=draw.choice([1, 4, 17, 65, 129, 257]),
        extra_keys=draw.choice([0, 0, 1, 5, 9, 17, 40]),
        rpb=supports.rpb and draw.random() < 0.5,
        scale=draw.choice([None, None, 0.0, 0.3, -1.0]),
        dtype_name=draw.choice(["f32", "f32", "f64", "bf16", "f16"]),
        strided=draw.random() < 0.3,
        seed=draw.randint(0, 9999),
    )


def defaults() -> Iterator[tuple[str, Trial]]:
    """Arguments left out, given by position, given as one number; an empty batch."""
    names = ("kernel_size", "stride", "dilation", "is_causal", "scale")
    full = (2, 1, 1, False, None)
    for line in (
        "1d 3 k2 d1 h1 e1 f32 seed0",
        "2d 4x5 k2 d1 b0 h4 hkv2 e4 bf16 seed0",
        "2d 4x5 k2 d1 h4 hkv2 e4 f32 seed0",
    ):
        tensors = list(Problem(line).inputs().named().values())
        for count in range(1, 6):
            left = f"{line}, {' '.join(names[count:]) or 'nothing'} left out"
            yield left, partial(call, tensors, full[:count], {})
            yield left + ", the rest by name", partial(call, tensors, (), dict(zip(names[:count], full, strict=False)))


def odd_arguments(supports: Supports) -> Iterator[tuple[str, Trial]]:
    """Every small combination of arguments on one axis and some on two: legal or not."""
    values = range(-1, 7)
    for length in range(1, 6):
        line = [torch.linspace(0, 1, length).reshape(1, length, 1, 1)] * 3
        for where in itertools.product(values, values, values, (False, True)):
            yield f"layout {length}, kernel_size, stride, dilation, is_causal {where}", partial(call, line, where, {})
    plane = [torch.linspace(0, 1, 20).reshape(1, 4, 5, 1, 1)] * 3
    sizes = [(3,), (3, 3, 3), (0, 3), (3, 6), (5, 3), (3, 3), 2]
    for given in itertools.product(sizes, [1, (1,), (1, 4)], [1, (2, 1)]):
        yield f"layout 4 x 5, kernel_size, stride, dilation {given}", partial(call, plane, given, {})


OTHERS: dict[str, tuple[Any, ...]] = {"batch": (1, 3), "layout": (4, 6), "heads": (1, 2, 3, 8), "head_dim": (1, 6)}
OTHERS |= {"dtype": (torch.float64, torch.bfloat16), "device": ("meta",)}


def odd_tensors(supports: Supports) -> Iterator[tuple[str, Trial]]:
    """Query, key, value and what stands beside them, with up to two of their shapes or dtypes out of order."""
    tensors, beside = [make() for _ in range(3)], make()[:, :2]
    for text, changed in spoilt(("query", "key", "value")):
        yield text, partial(call, changed, (3,), {})
    for text, (keys, values) in spoilt(("additional_keys", "additional_values")):
        yield text, partial(call, tensors, (3,), {"additional_keys": keys, "additional_values": values})
    for name in ("additional_keys", "additional_values"):
        yield f"{name} alone", partial(call, tensors, (3,), {name: beside})
    if supports.rpb:
        for heads, width in itertools.product((1, 3, 4, 5), (1, 3, 4, 5, 6)):
            yield f"rpb {heads, width}", partial(call, tensors, (3,), {"rpb": torch.zeros(heads, width)})


def spoilt(names: tuple[str, ...]) -> Iterator[tuple[str, list[Tensor]]]:
    """Tensors of one shape, with one thing or two out of order, in one of them or in two."""
    single = [(tensor, {name: value}) for tensor in range(len(names)) for name in OTHERS for value in OTHERS[name]]
    for given in [*((one,) for one in single), *itertools.combinations(single, 2)]:
        changes: list[dict[str, Any]] = [{} for _ in names]
        for tensor, change in given:
            changes[tensor] = changes[tensor] | change
        text = ", ".join(f"{names[tensor]} with {change}" for tensor, change in given)
        yield text, [make(**change) for change in changes]


def make(
    batch: int = 2, layout: int = 5, heads: int = 4, head_dim: int = 3, dtype: Any = torch.float32, device: str = "cpu"
) -> Tensor:
    """A tensor of some shape."""
    count = batch * layout * heads * head_dim
    return torch.linspace(-1, 1, count, dtype=dtype, device=device).reshape(batch, layout, heads, head_dim)
