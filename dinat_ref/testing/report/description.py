"""A failure in words that are made from it: on which problems, and where in the output. True, where no name fits.

Only what holds for all problems that were kept is said: a feature that every failing problem has and no passing one.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from torch import Tensor

from dinat_ref.testing.checks.plain import expected_mask
from dinat_ref.testing.checks.yardstick import Yardstick, run
from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.report.results import Result

FEATURES: dict[str, Callable[[Problem], bool]] = {
    "kernel_size is even on an axis": lambda p: any(size % 2 == 0 for size in p.kernel_size),
    "kernel_size is 1 on an axis": lambda p: min(p.kernel_size) == 1,
    "kernel_size is the length of an axis": lambda p: any(k == n for k, n in zip(p.kernel_size, p.layout, strict=True)),
    "dilation > 1": lambda p: max(p.dilation) > 1,
    "a length is no multiple of its dilation": lambda p: any(n % d for n, d in zip(p.layout, p.dilation, strict=True)),
    "stride > 1": lambda p: max(p.stride) > 1,
    "stride is even on an axis": lambda p: any(stride % 2 == 0 for stride in p.stride),
    "is_causal": lambda p: any(p.is_causal),
    "is_causal on some axes, not on all": lambda p: any(p.is_causal) and not all(p.is_causal),
    "there are fewer heads of keys than of queries": lambda p: p.heads != p.heads_kv,
    "there is more than one head": lambda p: p.heads > 1,
    "there is more than one batch element": lambda p: p.batch > 1,
    "the batch is empty": lambda p: p.batch == 0,
    "there are additional keys": lambda p: p.extra_keys > 0,
    "there is a bias": lambda p: p.rpb,
    "a scale is given": lambda p: p.scale is not None,
    "tensors are strided": lambda p: p.strided,
    "head_dim_v is not head_dim": lambda p: p.head_dim != p.head_dim_v,
    "the axes have different arguments": lambda p: any(
        len(set(values)) > 1 for values in (p.kernel_size, p.stride, p.dilation, p.is_causal)
    ),
    "a length is odd": lambda p: any(length % 2 for length in p.layout),
    "a length is no multiple of 4": lambda p: any(length % 4 for length in p.layout),
    "a length is no multiple of 16": lambda p: any(length % 16 for length in p.layout),
    "head_dim is odd": lambda p: p.head_dim % 2 == 1,
    "head_dim is no power of two": lambda p: p.head_dim & (p.head_dim - 1) != 0,
    "the axes have different lengths": lambda p: len(set(p.layout)) > 1,
    "tensors are in half precision": lambda p: p.dtype.itemsize == 2,
    "tensors are float64": lambda p: p.dtype_name == "f64",
}
SIZES: dict[str, Callable[[Problem], int]] = {
    "number of axes": lambda p: p.ndim,
    "head_dim": lambda p: p.head_dim,
    "head_dim_v": lambda p: p.head_dim_v,
    "heads": lambda p: p.heads,
    "batch": lambda p: p.batch,
    "kernel_size": lambda p: max(p.kernel_size),
    "stride": lambda p: max(p.stride),
    "dilation": lambda p: max(p.dilation),
    "additional keys": lambda p: p.extra_keys,
    "longest axis": lambda p: max(p.layout),
    "tokens": lambda p: p.neighborhood.num_tokens,
}


def which_problems(failing: Sequence[Problem], passing: Sequence[Problem]) -> str:
    """What the failing problems have in common and no passing one has.

    Example:
        >>> problems = [Problem(f"1d 9 k3 s{stride} d1 h1 e1 f32 seed0") for stride in (1, 2, 3)]
        >>> which_problems(problems[1:], problems[:1])
        'wrong exactly where stride > 1'
        >>> which_problems(problems[2:], problems[:2])
        'wrong from stride 3 on'
    """
    if not passing:
        return "wrong on every problem posed"
    for words, has in FEATURES.items():
        for there in (True, False):
            if all(has(p) is there for p in failing) and all(has(p) is not there for p in passing):
                return f"wrong exactly where {words}" if there else f"right exactly where {words}"
    for words, size in SIZES.items():
        if min(map(size, failing)) > max(map(size, passing)):
            return f"wrong from {words} {min(map(size, failing))} on"
        if max(map(size, failing)) < min(map(size, passing)):
            return f"wrong up to {words} {max(map(size, failing))}"
    shared = [w for w, has in FEATURES.items() if all(map(has, failing)) and not all(map(has, passing))]
    return f"wrong only where {' and '.join(shared[:3])}, though not always there" if shared else ""


def what_it_takes(problem: Problem, right: Collection[Problem]) -> str:
    """The sizes of a failing problem that make it fail, since with any of them smaller the kernel is right.

    Example:
        >>> problem = Problem("1d 3 k1 d1 h1 e17 f32 seed0")
        >>> what_it_takes(problem, {problem.but(head_dim=16), problem.but(head_dim=8)})
        'it takes head_dim 17: with 16 it is right'
    """
    smaller: dict[str, tuple[int, Problem]] = {}
    for name in ("batch", "head_dim", "head_dim_v", "extra_keys"):
        value = getattr(problem, name)
        if value > (name != "extra_keys"):
            smaller[name] = value, problem.but(**{name: value - 1})
    group = problem.heads // problem.heads_kv
    if problem.heads_kv > 1:
        fewer = problem.heads_kv - 1
        smaller["heads_kv"] = problem.heads_kv, problem.but(heads=group * fewer, heads_kv=fewer)
    if group > 1:
        smaller["heads to each head of keys,"] = group, problem.but(heads=problem.heads_kv * (group - 1))
    for name in ("layout", "kernel_size", "stride", "dilation"):
        for axis, value in enumerate(getattr(problem, name)):
            less = tuple(n - (place == axis) for place, n in enumerate(getattr(problem, name)))
            with suppress(ValueError):
                smaller[f"{name}" + f" on axis {axis}" * (problem.ndim > 1)] = value, problem.but(**{name: less})
    needed = [f"{name} {value}: with {value - 1} it is right" for name, (value, one) in smaller.items() if one in right]
    return f"it takes {', and '.join(needed)}" if needed else ""


def in_words(kernel: Kernel, result: Result) -> str:
    """Say where the smallest failing problem goes wrong, after what is known of the problems.

    Example:
        >>> import torch
        >>> from dinat_ref import na1d
        >>> def late(*tensors, **arguments):
        ...     output = na1d(*tensors, **arguments)
        ...     return output + (torch.arange(output.shape[1]) > 3)[:, None, None]
        >>> in_words(Kernel(late), Result("N01-float32", "", problem="1d 6 k3 d1 h1 e1 f32 seed0"))
        'queries 4 5 of 6 are wrong'
    """
    try:
        problem = Problem(result.problem)
        where = _windows(kernel, problem) if result.id[0] == "W" else _numbers(kernel, problem)
    except (Exception, SystemExit):
        where = ""  # there is no output to look at
    return "; ".join(part for part in (result.seen, where) if part)


def _numbers(kernel: Kernel, problem: Problem) -> str:
    """Which queries, heads, batch elements and channels are wrong, beside the exact output."""
    inputs = problem.inputs(kernel.device)
    got, ruler = run(kernel, problem, inputs).double().cpu(), Yardstick(problem, inputs)
    for words, found in (("NaN", got.isnan()), ("infinite", got.isinf())):
        if bool(found.any()):
            return f"the output is {words} for {_some('queries', found.any(-1).any(-1).flatten(1).any(0))}"
    wrong = (got - ruler.output).abs() > ruler.output_budget  # [B, *layout, H, Dv]
    if not bool(wrong.any()):
        return ""  # the check asks for something else
    wrong = wrong.flatten(1, -3)  # [B, N, H, Dv]
    axes = {"batch elements": (1, 2, 3), "heads": (0, 1, 3), "channels": (0, 1, 2)}
    parts = [_some("queries", wrong.any(-1).any(-1).any(0))]
    for name, others in axes.items():
        along = wrong.sum(others) > 0
        parts += [_some(name, along)] if not bool(along.all()) else []
    return f"{', '.join(parts)} are wrong"


def _windows(kernel: Kernel, problem: Problem) -> str:
    """How wrong windows differ: where, by how many keys, and which way they are moved."""
    weights, expected = kernel.weights(problem), expected_mask(problem.neighborhood)
    if not bool(weights.isfinite().all()):
        return f"the output is not finite for {_some('queries', ~weights.isfinite().all(1))}"
    got = weights.abs() > 1e-6
    wrong = (got ^ expected).any(1)
    if not bool(wrong.any()):
        return ""
    words = f"the windows of {_some('queries', wrong)} are wrong"
    more = (got.sum(1) - expected.sum(1))[wrong]
    if bool((more != 0).any()):
        least, most = int(more.min()), int(more.max())
        sign = "more" if least > 0 else "fewer" if most < 0 else ""
        return f"{words}: {abs(least)} keys {sign}" if sign and least == most else f"{words}: not as many keys"
    if problem.ndim > 1:
        return words
    first = got[wrong].int().argmax(1) - expected[wrong].int().argmax(1)
    moved = {int(step) for step in first}
    step = moved.pop()
    return f"{words}: they begin {abs(step)} {'late' if step > 0 else 'early'}" if not moved and step else words


def _some(name: str, chosen: Tensor) -> str:
    """A few of a kind by number, or how many of them.

    Example:
        >>> import torch
        >>> _some("heads", torch.tensor([False, True])), _some("queries", torch.ones(9).bool())
        ('heads 1 of 2', 'all 9 queries')
    """
    numbers, count = chosen.nonzero().flatten().tolist(), len(chosen)
    if len(numbers) == count:
        return f"all {count} {name}"
    if len(numbers) <= 4:
        return f"{name} {' '.join(map(str, numbers))} of {count}"
    span = f" ({numbers[0]} to {numbers[-1]})" if numbers[-1] - numbers[0] + 1 == len(numbers) else ""
    return f"{len(numbers)} of {count} {name}{span}"
