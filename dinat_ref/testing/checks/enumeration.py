"""Every window there is: all legal arguments of short axes, one after the other, shortest first.

Sampling is not enough for windows: a wrong leader of causal stride groups shows in 4 of 560 small configurations.
"""

import itertools
from collections.abc import Iterator
from functools import lru_cache

from dinat_ref.testing.problem import Problem
from dinat_ref.testing.supports import Supports

Axis = tuple[int, int, int, int, bool]  # length, kernel_size, stride, dilation, is_causal

FAMILIES = ("odd", "even", "dilation", "stride", "causal", "causal stride")
LENGTHS = {  # the longest axis enumerated, by budget and number of axes
    "quick": {1: 8, 2: 6, 3: 4},
    "full": {1: 16, 2: 10, 3: 6},
    "deep": {1: 20, 2: 14, 3: 8},
}
PRODUCTS = {"quick": {2: 3, 3: 1}, "full": {2: 5, 3: 2}, "deep": {2: 6, 3: 3}}  # all combinations of axes up to here
FILLERS: tuple[Axis, ...] = ((4, 3, 1, 1, False), (3, 3, 1, 1, False))
# axes that differ in everything, for combinations too long to enumerate; the lengths differ from axis to axis
MIXED: tuple[Axis, ...] = (
    (4, 2, 1, 2, False),
    (5, 3, 1, 1, False),
    (6, 2, 2, 3, False),
    (7, 5, 3, 1, False),
    (5, 4, 1, 1, True),
    (8, 3, 1, 2, False),
    (6, 3, 3, 1, True),
    (7, 3, 2, 2, True),
    (3, 3, 1, 1, False),
)


def family(axis: Axis) -> str:
    """Name what an axis exercises; the families are disjoint, so that a failure names the feature.

    Shapes:
        return: one of FAMILIES
    Example:
        >>> family((8, 4, 1, 1, False)), family((8, 4, 2, 2, False))
        ('even', 'stride')
    """
    _, kernel_size, stride, dilation, is_causal = axis
    if is_causal:
        return "causal stride" if stride > 1 else "causal"
    if stride > 1:
        return "stride"
    if dilation > 1:
        return "dilation"
    return "odd" if kernel_size % 2 else "even"


def axes_up_to(longest: int, shortest: int = 1) -> Iterator[Axis]:
    """All legal arguments of all axes up to a length, shortest first.

    Shapes:
        yields: (length, kernel_size, stride, dilation, is_causal)
    Source: the legal arguments of arXiv:2209.15001 and arXiv:2504.16922.
    Example:
        >>> len(list(axes_up_to(8)))
        358
    """
    for length in range(shortest, longest + 1):
        for is_causal in (False, True):
            for kernel_size in range(1, length + 1):
                for dilation in range(1, length // kernel_size + 1):
                    for stride in range(1, kernel_size + 1):
                        yield length, kernel_size, stride, dilation, is_causal


def combine(axes: tuple[Axis, ...], supports: Supports) -> Problem | None:
    """Make one problem of several axes, or None where the kernel takes none such.

    Shapes:
        return: a Problem with one head
    Example:
        >>> combine(((4, 2, 1, 2, False), (5, 3, 1, 1, True)), Supports())
        Problem("2d 4x5 k2x3 d2x1 causal0x1 h1 e1 f32 seed0")
    """
    length, kernel_size, stride, dilation, is_causal = zip(*axes, strict=True)
    if supports.causal_rows and not supports.per_axis:
        is_causal = (is_causal[0], *(False for _ in is_causal[1:]))
    problem = Problem(
        layout=length,
        kernel_size=kernel_size,
        stride=stride,
        dilation=dilation,
        is_causal=is_causal,
        head_dim=1 if supports.head_dims is None else min(supports.head_dims),
        dtype_name=supports.main_dtype,
    )
    return problem if supports.takes(problem) else None


@lru_cache(maxsize=64)
def window_problems(name: str | None, supports: Supports, budget: str) -> tuple[Problem, ...]:
    """Every problem of one family (or of all): the family's axis stands on each axis in turn, plain axes beside it.

    Shapes:
        return: Problems, remembered since many checks go through them
    Example:
        >>> len(window_problems(None, Supports(ndim={1}), "quick"))
        358
    """
    return tuple(_window_problems(name, supports, budget))


def _window_problems(name: str | None, supports: Supports, budget: str) -> Iterator[Problem]:
    for ndim in supports.ndim:
        longest = LENGTHS[budget].get(ndim, 3)
        for axis in axes_up_to(longest):
            if name is not None and family(axis) != name:
                continue
            for position in range(ndim):
                if not supports.per_axis:
                    axes: tuple[Axis, ...] = tuple((axis[0] + other, *axis[1:]) for other in range(ndim))
                    if position:
                        axes = axes[::-1]
                    if ndim > 2 and axis[0] > 4:
                        continue
                else:
                    filler = [FILLERS[other % 2] for other in range(ndim - 1)]
                    axes = (*filler[:position], axis, *filler[position:])
                problem = combine(axes, supports)
                if problem is not None:
                    yield problem


def product_problems(ndim: int, supports: Supports, budget: str) -> Iterator[Problem]:
    """All combinations of short axes, then of axes that differ in everything: where swapped axes show.

    Shapes:
        yields: Problems of ndim axes
    Example:
        >>> next(product_problems(2, Supports(), "quick"))
        Problem("2d 1x2 k1 d1 h1 e1 f32 seed0")
    """
    if ndim not in supports.ndim:
        return
    short = list(axes_up_to(PRODUCTS[budget].get(ndim, 1)))
    for axes in itertools.product(short, repeat=ndim):
        if ndim > 2 or axes[0][0] != axes[1][0]:
            problem = combine(axes, supports)
            if problem is not None:
                yield problem
    count = len(MIXED)
    if not supports.per_axis:
        combinations = [tuple((axis[0] + other, *axis[1:]) for other in range(ndim)) for axis in MIXED]
    elif ndim == 2:
        combinations = list(itertools.product(MIXED, repeat=2))
    else:
        steps = range(1, 3 if budget == "quick" else count)
        combinations = [
            tuple(MIXED[(i + step * n) % count] for n in range(ndim)) for i in range(count) for step in steps
        ]
    for axes in combinations:
        problem = combine(axes, supports)
        if problem is not None:
            yield problem
