"""Shrinking: from a problem that fails to the smallest one near it that still does."""

import math
from collections.abc import Callable, Iterator

from dinat_ref.testing.problem import Problem


def simpler(problem: Problem) -> Iterator[Problem]:
    """List problems one step simpler: fewer axes, shorter axes, smaller and fewer parameters.

    Shapes:
        yields: Problems
    Example:
        >>> next(simpler(Problem("2d 5x4 k3 d1 h1 e1 f32 seed7")))
        Problem("1d 4 k3 d1 h1 e1 f32 seed7")
    """
    axes = list(problem.neighborhood.axes)

    def rebuilt(changed: list[tuple[int, int, int, int, bool]]) -> Problem:
        names = ("layout", "kernel_size", "stride", "dilation", "is_causal")
        return problem.but(**dict(zip(names, zip(*changed, strict=True), strict=True)))

    if len(axes) > 1:
        for axis in range(len(axes)):
            yield rebuilt(axes[:axis] + axes[axis + 1 :])
    for name, least in (("batch", 1), ("extra_keys", 0), ("head_dim", 1), ("head_dim_v", 1)):
        for value in {least, getattr(problem, name) // 2, getattr(problem, name) - 1}:
            if least <= value < getattr(problem, name):
                yield problem.but(**{name: value})
    group = problem.heads // problem.heads_kv
    for fewer in {1, problem.heads_kv // 2, problem.heads_kv - 1} - {0, problem.heads_kv}:
        yield problem.but(heads=group * fewer, heads_kv=fewer)
    for fewer in {1, group // 2, group - 1} - {0, group}:
        yield problem.but(heads=problem.heads_kv * fewer)
    for name, usual in (("rpb", False), ("scale", None), ("strided", False), ("seed", 0)):
        if getattr(problem, name) != usual:
            yield problem.but(**{name: usual})
    for index, (length, kernel_size, stride, dilation, is_causal) in enumerate(axes):
        changes = [(max(kernel_size * dilation, length // 2), kernel_size, stride, dilation, is_causal)]
        changes += [(length - 1, kernel_size, stride, dilation, is_causal)]
        changes += [
            (length, kernel_size, 1, dilation, is_causal),
            (length, kernel_size, stride - 1, dilation, is_causal),
        ]
        changes += [(length, kernel_size, stride, dilation - 1, is_causal)]
        changes += [(length, kernel_size, stride, dilation, False)]
        for smaller in {kernel_size - 2, kernel_size - 1}:
            changes += [(length, smaller, min(stride, smaller), dilation, is_causal)]
            changes += [
                (length - (kernel_size - smaller) * dilation, smaller, min(stride, smaller), dilation, is_causal)
            ]
        for change in changes:
            length_, kernel_, stride_, dilation_, _ = change
            legal = min(kernel_, stride_, dilation_) >= 1 and kernel_ * dilation_ <= length_ and stride_ <= kernel_
            if legal and change != axes[index]:
                yield rebuilt([*axes[:index], change, *axes[index + 1 :]])


def size(problem: Problem) -> tuple[float, ...]:
    """How large a problem is; shrinking only goes down.

    Shapes:
        return: numbers to compare
    Example:
        >>> size(Problem("1d 4 k3 d1 h1 e1 f32 seed0")) < size(Problem("1d 5 k3 d1 h1 e1 f32 seed0"))
        True
    """
    numbers = math.prod(problem.layout) * problem.heads * problem.batch * (problem.head_dim + problem.head_dim_v)
    parameters = sum(problem.kernel_size) + sum(problem.stride) + sum(problem.dilation) + sum(problem.is_causal)
    flags = problem.rpb + (problem.scale is not None) + problem.strided + problem.extra_keys
    return (problem.ndim, numbers, parameters, flags, problem.seed)


def shrink(problem: Problem, fails: Callable[[Problem], bool], tries: int = 200) -> Problem:
    """Take the first simpler problem that still fails, again and again, until none does or the tries are used up.

    Shapes:
        return: a Problem
    Source: the greedy reduction of QuickCheck (Claessen & Hughes, 2000).
    Example:
        >>> shrink(Problem("2d 9x8 k3 d1 h2 e8 f32 seed7"), lambda problem: problem.layout[-1] > 4)
        Problem("1d 5 k1 d1 h1 e1 f32 seed0")
    """
    while tries > 0:
        for candidate in simpler(problem):
            if size(candidate) >= size(problem):
                continue
            tries -= 1
            if fails(candidate):
                problem = candidate
                break
            if tries <= 0:
                return problem
        else:
            return problem
    return problem
