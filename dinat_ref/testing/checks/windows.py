"""W: the windows. With zero queries and one-hot values a kernel's output IS its window, so it is read, not sampled.

The first checks are the laws that name what is wrong; the others compare every window of every short layout with
``dinat_ref.window``, a family of arguments each.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from dinat_ref.testing.checks.enumeration import product_problems, window_problems
from dinat_ref.testing.checks.plain import expected_mask
from dinat_ref.testing.kernel import Kernel, Moot, Wrong
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.registry import check
from dinat_ref.testing.supports import Supports
from dinat_ref.window import dilation_group

THRESHOLD = 1e-6  # of a weight that counts as attended: the smallest true weight here is 1 / 200


def all_windows(supports: Supports, budget: str) -> Iterator[Problem]:
    """Every problem of the window enumeration."""
    return iter(window_problems(None, supports, budget))


def strided_windows(supports: Supports, budget: str) -> Iterator[Problem]:
    """Those with a stride."""
    return (problem for problem in all_windows(supports, budget) if max(problem.stride) > 1)


def axis_pairs(supports: Supports, budget: str) -> Iterator[Problem]:
    """Combinations of two axes."""
    return product_problems(2, supports, budget)


def axis_triples(supports: Supports, budget: str) -> Iterator[Problem]:
    """Combinations of three axes and more."""
    for ndim in supports.ndim:
        if ndim > 2:
            yield from product_problems(ndim, supports, budget)


def read_window(kernel: Kernel, problem: Problem, law: bool = False) -> Tensor:
    """Which keys the kernel attends: bool [N, N]. A law has no say where there is no window to read."""
    try:
        weights = kernel.weights(problem)
    except Exception:
        if law:
            raise Moot("W01-output-shape reports it") from None
        raise
    if not bool(torch.isfinite(weights).all()):
        raise Wrong(
            "zero queries must give finite outputs, got NaN or infinity", expected=expected_mask(problem.neighborhood)
        )
    return weights.abs() > THRESHOLD


def token_name(problem: Problem, number: int) -> str:
    """A token as coordinates, a single axis without brackets."""
    coordinates = problem.neighborhood.coordinates(int(number))
    return str(coordinates[0]) if len(coordinates) == 1 else str(coordinates)


def window_difference(problem: Problem, got: Tensor) -> str | None:
    """Say in words where the windows differ from the definition, None when they do not."""
    expected = expected_mask(problem.neighborhood)
    wrong = (expected ^ got).any(1).nonzero().flatten().tolist()
    if not wrong:
        return None
    query = wrong[0]

    def keys(row: Tensor) -> str:
        return " ".join(token_name(problem, key) for key in row.nonzero().flatten().tolist()) or "nothing"

    return (
        f"{len(wrong)} of {len(expected)} windows are wrong; query {token_name(problem, query)} "
        f"must attend {keys(expected[query])} and attends {keys(got[query])}"
    )


def fail(message: str, problem: Problem, got: Tensor) -> Wrong:
    """A finding about windows, with both windows to draw."""
    return Wrong(message, expected=expected_mask(problem.neighborhood), got=got)


@check("W01-output-shape", enumerate=all_windows)
def output_shape(kernel: Kernel, problem: Problem) -> None:
    """The output keeps the query's shape, whatever the stride."""
    kernel.weights(problem)


@check("W02-own-query", enumerate=all_windows)
def own_query(kernel: Kernel, problem: Problem) -> None:
    """Every query attends itself."""
    got = read_window(kernel, problem, law=True)
    missing = (~got.diagonal()).nonzero().flatten().tolist()
    if missing:
        names = ", ".join(token_name(problem, query) for query in missing[:4])
        raise fail(f"{len(missing)} of {len(got)} queries do not attend themselves: {names}", problem, got)


@check("W03-key-count", enumerate=all_windows)
def key_count(kernel: Kernel, problem: Problem) -> None:
    """Every query has exactly kernel_size keys, fewer only where causality ends its window."""
    got = read_window(kernel, problem, law=True)
    counts, expected = got.sum(1), expected_mask(problem.neighborhood).sum(1)
    wrong = (counts != expected).nonzero().flatten().tolist()
    if wrong:
        first = token_name(problem, wrong[0])
        have = f"{int(counts[wrong[0]])} keys, not {int(expected[wrong[0]])}"
        raise fail(
            f"{len(wrong)} of {len(got)} queries have the wrong number of keys; query {first} has {have}", problem, got
        )


@check("W04-contiguous", enumerate=all_windows)
def contiguous(kernel: Kernel, problem: Problem) -> None:
    """The keys of a query are contiguous in its dilation group, on every axis: no holes, no wrapping around."""
    got = read_window(kernel, problem, law=True)
    table = got.unflatten(1, problem.layout)  # [N, *layout]
    for axis, (length, _, _, dilation, _) in enumerate(problem.neighborhood.axes):
        others = [1 + other for other in range(problem.ndim) if other != axis]
        attended = table.amax(others) if others else table  # [N, L]
        positions = torch.arange(length)
        first = torch.where(attended, positions, length).amin(1)
        last = torch.where(attended, positions, -1).amax(1)
        holes = (last - first) // dilation + 1 != attended.sum(1)
        if bool(holes.any()):
            query = int(holes.nonzero()[0])
            keys = attended[query].nonzero().flatten().tolist()
            raise fail(
                f"query {token_name(problem, query)} attends {keys} on axis {axis}: not contiguous", problem, got
            )


@check("W05-one-group", enumerate=all_windows, needs=("dilation",))
def one_group(kernel: Kernel, problem: Problem) -> None:
    """All keys of a query lie in its own dilation group."""
    if max(problem.dilation) == 1:
        raise Moot("another family")
    got = read_window(kernel, problem, law=True)
    tokens = torch.tensor(list(problem.neighborhood.tokens()))
    groups = tokens % torch.tensor(problem.dilation)  # [N, axes]
    same = (groups[:, None] == groups[None]).all(-1)
    crossing = (got & ~same).any(1).nonzero().flatten().tolist()
    if crossing:
        raise fail(
            f"{len(crossing)} queries attend other dilation groups, first {token_name(problem, crossing[0])}",
            problem,
            got,
        )


@check("W06-stride-group", enumerate=strided_windows, needs=("stride",))
def stride_group(kernel: Kernel, problem: Problem) -> None:
    """The queries of a stride group share their window (where causality does not cut it)."""
    if any(problem.is_causal):
        raise Moot("another family")
    got = read_window(kernel, problem, law=True)
    groups: dict[tuple[tuple[int, int], ...], int] = {}
    for query, token in enumerate(problem.neighborhood.tokens()):
        name = []
        for i, (length, _, stride, dilation, _) in zip(token, problem.neighborhood.axes, strict=True):
            g, m, _ = dilation_group(i, length, dilation)
            name.append((g, m // stride))
        other = groups.setdefault(tuple(name), query)
        if bool((got[query] ^ got[other]).any()):
            pair = f"{token_name(problem, other)} and {token_name(problem, query)}"
            raise fail(f"queries {pair} are of one stride group and have different windows", problem, got)


@check("W07-attended", enumerate=all_windows)
def attended(kernel: Kernel, problem: Problem) -> None:
    """Every key is attended by some query, wherever the definition says so."""
    got = read_window(kernel, problem, law=True)
    lonely = (expected_mask(problem.neighborhood).any(0) & ~got.any(0)).nonzero().flatten().tolist()
    if lonely:
        raise fail(f"{len(lonely)} keys are attended by nobody, first {token_name(problem, lonely[0])}", problem, got)


@check("W08-nothing-behind", enumerate=all_windows, needs=("causal",))
def nothing_behind(kernel: Kernel, problem: Problem) -> None:
    """A causal query attends nothing behind itself."""
    if not any(problem.is_causal):
        raise Moot("another family")
    got = read_window(kernel, problem, law=True)
    tokens = torch.tensor(list(problem.neighborhood.tokens()))
    behind = ((tokens[None] > tokens[:, None]) & torch.tensor(problem.is_causal)).any(-1)
    leaking = (got & behind).any(1).nonzero().flatten().tolist()
    if leaking:
        raise fail(
            f"{len(leaking)} causal queries attend tokens behind them, first {token_name(problem, leaking[0])}",
            problem,
            got,
        )


def exact(kernel: Kernel, problem: Problem) -> None:
    """Compare the windows with the definition, key by key."""
    got = read_window(kernel, problem)
    difference = window_difference(problem, got)
    if difference is not None:
        raise fail(difference, problem, got)


def _enter_families() -> None:
    """One exact comparison for each family of arguments."""
    entries = (
        ("W11-odd-kernels", "odd", (), "exact windows: odd kernel sizes, shifted at edges"),
        ("W12-even-kernels", "even", ("even",), "exact windows: even kernel sizes lean left"),
        ("W13-dilation", "dilation", ("dilation",), "exact windows: dilation groups, ragged ones too"),
        ("W14-stride", "stride", ("stride",), "exact windows: stride groups share their leader's window"),
        ("W15-causal", "causal", ("causal",), "exact windows: causal windows end at their query"),
        ("W16-causal-stride", "causal stride", ("causal", "stride"), "exact windows: causal windows with stride"),
    )
    for id, name, needs, title in entries:

        def problems(supports: Supports, budget: str, name: str = name) -> Iterator[Problem]:
            return iter(window_problems(name, supports, budget))

        def examine(kernel: Kernel, problem: Problem) -> None:
            exact(kernel, problem)

        examine.__doc__ = title
        check(id, enumerate=problems, needs=needs)(examine)


_enter_families()


@check("W17-two-axes", enumerate=axis_pairs)
def two_axes(kernel: Kernel, problem: Problem) -> None:
    """Exact windows: every axis has its own length, kernel size, stride, dilation and causality."""
    exact(kernel, problem)


@check("W18-three-axes", enumerate=axis_triples)
def three_axes(kernel: Kernel, problem: Problem) -> None:
    """Exact windows: three axes, each with parameters of its own."""
    exact(kernel, problem)
