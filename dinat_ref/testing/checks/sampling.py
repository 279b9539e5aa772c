"""Drawing problems: one recipe, driven by a random number generator or by Hypothesis.

A problem is built valid, not filtered: kernel size and dilation first, then a length of exactly k * d or a little
more, so that full windows, ragged groups and lengths that the dilation does not divide come up all the time.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dinat_ref.testing.problem import Problem
from dinat_ref.testing.supports import Supports


class Chooser(Protocol):
    """Whoever makes the choices."""

    def integer(self, low: int, high: int) -> int:
        """An integer, both ends included."""

    def among(self, options: Sequence[Any]) -> Any:
        """One of the options, the simplest first."""


class RandomChooser:
    """Choices from a seeded generator.

    Example:
        >>> RandomChooser(0).integer(3, 3)
        3
    """

    def __init__(self, seed: int | str) -> None:
        """Seed the generator; a string mixes a seed with a name."""
        self.random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        return self.random.randint(low, high)

    def among(self, options: Sequence[Any]) -> Any:
        """One of the options."""
        return self.random.choice(list(options))


@dataclass(frozen=True)
class Wish:
    """What a check wants of its problems: True demands a feature, False forbids it, None leaves it to the draw.

    Example:
        >>> problem = draw_problem(RandomChooser(0), Supports(), Wish(causal=True, gqa=True))
        >>> any(problem.is_causal), problem.heads > problem.heads_kv
        (True, True)
    """

    even: bool | None = None
    stride: bool | None = None
    dilation: bool | None = None
    causal: bool | None = None
    gqa: bool | None = None
    extra_keys: bool | None = None
    rpb: bool | None = None
    head_dim_v: bool | None = None
    scale: bool | None = False
    strided: bool | None = False
    full: bool = False  # kernel_size * dilation is the length, on every axis
    whole: bool = False  # kernel_size is the length, on every axis
    uniform: bool = False  # one parameter for all axes
    dtype: str | None = None  # None: the kernel's main dtype
    batch: int | None = None
    min_slack: int = 0
    max_kernel: int = 5
    min_ndim: int = 1
    square: bool = False
    given: tuple[tuple[str, Any], ...] = ()  # fields of the problem that are set in the end
    when: Callable[[Problem], bool] | None = None

    def possible(self, supports: Supports) -> str | None:
        """Why the kernel can have no such problem, or None when it can."""
        demands = {"even", "stride", "dilation", "causal", "gqa", "extra_keys", "rpb", "head_dim_v", "scale", "strided"}
        for name in sorted(demands):
            if getattr(self, name) is True and not getattr(supports, name):
                return f"the kernel is declared without {name}"
        if self.dtype is not None and not supports.has(self.dtype):
            return f"the kernel is declared without {self.dtype}"
        if max(supports.ndim) < self.min_ndim:
            return f"the kernel is declared with fewer than {self.min_ndim} axes"
        return None


def draw_problem(choose: Chooser, supports: Supports, wish: Wish | None = None) -> Problem:
    """Draw one problem that a kernel is declared to take, small first.

    Shapes:
        return: a Problem of a few dozen tokens
    Args:
        choose: who makes the choices.
        supports: what the kernel takes; ``accepts``, ``max_tokens`` and ``when`` are left to the caller.
        wish: what the check wants.
    Raises:
        Nothing: the wish is possible, or what cannot be had is left out.
    Example:
        >>> draw_problem(RandomChooser(1), Supports(), Wish(whole=True)).neighborhood.mask().all().item()
        True
    """
    wish = wish or Wish()

    def maybe(name: str) -> bool:
        wanted = getattr(wish, name)
        return bool(getattr(supports, name)) and (bool(choose.among([False, True])) if wanted is None else wanted)

    ndim = choose.among([n for n in supports.ndim if n >= wish.min_ndim] or list(supports.ndim)[-1:])
    strided_windows, dilated, causal = maybe("stride"), maybe("dilation") and not wish.whole, maybe("causal")
    causal = causal and (wish.causal is True or not wish.whole or choose.among([False, True]))
    limit = (wish.max_kernel, min(wish.max_kernel, 4), min(wish.max_kernel, 3))[min(ndim, 3) - 1]
    sizes = [k for k in range(1, limit + 1) if (k % 2 or supports.even) and (wish.even is not False or k % 2)]
    sizes = [k for k in sizes if wish.even is not True or k % 2 == 0] or sizes
    axes: list[Any] = []
    for _ in range(ndim):
        kernel_size = choose.among(sizes)
        dilation = choose.integer(1, 3 if ndim < 3 else 2) if dilated and math.prod(a[0] for a in axes) < 30 else 1
        slack = 0 if wish.full or wish.whole else wish.min_slack + choose.integer(0, 4 if ndim < 3 else 1)
        stride = choose.integer(1, kernel_size) if strided_windows else 1
        allowed = causal and not (axes and supports.causal_rows)
        axes.append(
            (kernel_size * dilation + slack, kernel_size, stride, dilation, bool(allowed and choose.integer(0, 1)))
        )
    if wish.uniform or not supports.per_axis:
        longest = max(axes)
        axes = [longest] * ndim if wish.square else [(longest[0] + axis, *longest[1:]) for axis in range(ndim)]
        if wish.full or wish.whole:
            axes = [longest] * ndim
    axes = _insist(axes, wish, supports)

    group = choose.among([2, 3]) if maybe("gqa") else 1
    heads_kv = choose.integer(1, 2) if group == 1 else choose.among([2, 1])
    dims = sorted(supports.head_dims)[:3] if supports.head_dims is not None else [1, 2, 3, 5, 8]
    head_dim = choose.among(dims)
    length, kernel, stride_, dilation_, causal_ = zip(*axes, strict=True)
    problem = Problem(
        layout=length,
        kernel_size=kernel,
        stride=stride_,
        dilation=dilation_,
        is_causal=(causal_[0], *(False for _ in causal_[1:])) if supports.causal_rows else causal_,
        batch=choose.integer(1, 2) if wish.batch is None else wish.batch,
        heads=heads_kv * group,
        heads_kv=heads_kv,
        head_dim=head_dim,
        head_dim_v=choose.among(dims) if maybe("head_dim_v") else head_dim,
        extra_keys=choose.integer(1, 4) if maybe("extra_keys") else 0,
        rpb=maybe("rpb"),
        scale=choose.among([0.5, 1.0, 2.0, -0.25]) if maybe("scale") else None,
        dtype_name=wish.dtype or supports.main_dtype,
        strided=maybe("strided"),
        seed=choose.integer(0, 9999),
    )
    return problem.but(**dict(wish.given)) if wish.given else problem


def _insist(axes: list[tuple[int, int, int, int, bool]], wish: Wish, supports: Supports) -> list[Any]:
    """Give the first axis a demanded feature that the draw left out on all of them."""
    length, kernel_size, stride, dilation, causal = axes[0]
    if wish.stride is True and all(axis[2] == 1 for axis in axes):
        kernel_size = max(kernel_size, 3 if not supports.even or wish.even is False else 2)
        length, stride = max(length, kernel_size * dilation), min(2, kernel_size)
        if wish.whole or wish.full:
            length = kernel_size * dilation
    if wish.dilation is True and all(axis[3] == 1 for axis in axes):
        length, dilation = length + kernel_size, 2
        if wish.full:
            length = kernel_size * dilation
    if wish.causal is True and not any(axis[4] for axis in axes):
        causal = True
    first = (length, kernel_size, stride, dilation, causal)
    uniform = wish.uniform or not supports.per_axis
    return [first] * len(axes) if uniform and first != axes[0] else [first, *axes[1:]]


def random_problems(seed: int, name: str, supports: Supports, wish: Wish, count: int) -> Iterator[Problem]:
    """Draw problems from a seed, each check its own; those that the kernel declines are drawn again.

    Shapes:
        yields: at most count problems
    Example:
        >>> [problem.ndim for problem in random_problems(0, "N01", Supports(ndim={2}), Wish(), 3)]
        [2, 2, 2]
    """
    choose = RandomChooser(f"{seed} {name}")
    for _ in range(count):
        for _ in range(100):
            problem = draw_problem(choose, supports, wish)
            if supports.takes(problem) and (wish.when is None or wish.when(problem)):
                yield problem
                break
