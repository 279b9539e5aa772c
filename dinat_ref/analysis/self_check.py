"""A quick look whether all is right: every small window against its laws, every formulation against the definition."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from dinat_ref.attention import neighborhood_attention
from dinat_ref.attention.functional import FORMULATIONS
from dinat_ref.window import window

Axis = tuple[int, int, int, int, bool]


def legal_axes(longest: int) -> Iterator[Axis]:
    """Enumerate every legal (length, kernel_size, stride, dilation, is_causal) up to a length.

    Shapes:
        yields: five values
    Source: arXiv:2209.15001, section 3.2; stride: arXiv:2504.16922.
    Example:
        >>> list(legal_axes(1))
        [(1, 1, 1, 1, False), (1, 1, 1, 1, True)]
    """
    for length in range(1, longest + 1):
        for kernel_size in range(1, length + 1):
            dilations, strides = range(1, length // kernel_size + 1), range(1, kernel_size + 1)
            for dilation, stride, is_causal in itertools.product(dilations, strides, (False, True)):
                yield length, kernel_size, stride, dilation, is_causal


def broken_laws(i: int, axis: Axis) -> list[str]:
    """Name the laws that the window of one query breaks; none, if ``window`` is right.

    Shapes:
        return: a list of sentences
    Raises:
        TypeError, ValueError: as ``window``.
    Source: arXiv:2204.07143, section 3; arXiv:2209.15001, section 3.2.
    Example:
        >>> broken_laws(0, (5, 3, 1, 1, False))
        []
    """
    length, kernel_size, stride, dilation, is_causal = axis
    keys = list(window(i, length, kernel_size, stride, dilation, is_causal))
    group = [j for j in range(length) if (j - i) % dilation == 0]
    places = [group.index(j) for j in keys if j in group]
    laws = {
        "holds its query": i in keys,
        "stays in bounds and in its dilation group": len(places) == len(keys),
        "is contiguous in its group": all(b - a == 1 for a, b in itertools.pairwise(places)),
        "has kernel_size keys, when causal at most": len(keys) == kernel_size
        or (is_causal and len(keys) < kernel_size),
        "ends at its query when causal": not is_causal or keys[-1:] == [i],
    }
    if stride == 1 and not is_causal:  # the nearest of the group, of two equally near ones the left
        nearest = sorted(group, key=lambda j: (abs(j - i), j))[:kernel_size]
        laws["is the kernel_size nearest of its group"] = keys == sorted(nearest)
    return [law for law, holds in laws.items() if not holds]


def check_windows(longest: int = 12) -> int:
    """Hold the window of every query of every legal axis to its laws, and count the queries.

    Shapes:
        return: the number of windows
    Raises:
        AssertionError: a law is broken.
    Source: as ``broken_laws``.
    Example:
        >>> check_windows(3)
        66
    """
    count = 0
    for axis in legal_axes(longest):
        for i in range(axis[0]):
            broken = broken_laws(i, axis)
            if broken:
                raise AssertionError(f"the window of query {i} on {axis} breaks: {'; '.join(broken)}")
            count += 1
    return count


def small_problems() -> Iterator[tuple[tuple[int, ...], dict[str, object]]]:
    """Enumerate layouts and arguments of one to three axes, small enough for ``loops``.

    Shapes:
        yields: (layout, the arguments of ``neighborhood_attention``)
    Example:
        >>> next(small_problems())
        ((5,), {'kernel_size': (2,), 'stride': 1, 'dilation': (1,), 'is_causal': False})
    """
    for layout in ((5,), (7,), (4, 5), (5, 3), (3, 4, 2)):
        sizes = itertools.product(*(range(2, min(length, 4) + 1) for length in layout))
        for kernel_size in sizes:
            largest = tuple(length // size for length, size in zip(layout, kernel_size, strict=True))
            for dilation in {(1,) * len(layout), largest}:
                for stride, is_causal in itertools.product((1, 2), (False, True)):
                    yield (
                        layout,
                        {"kernel_size": kernel_size, "stride": stride, "dilation": dilation, "is_causal": is_causal},
                    )


def check_formulations(seed: int = 0) -> tuple[int, float]:
    """Compare every formulation with ``loops`` in float64, output and lse.

    Shapes:
        return: (the number of comparisons, the largest difference)
    Raises:
        AssertionError: a difference is larger than 1e-12.
    Source: the definition, arXiv:2209.15001, eq. 1-3.
    Example:
        >>> count, worst = check_formulations()
        >>> count > 600, worst < 1e-12
        (True, True)
    """
    generator = torch.Generator().manual_seed(seed)
    count, worst = 0, 0.0
    for layout, arguments in small_problems():
        query, key, value = (torch.randn(1, *layout, 2, 3, dtype=torch.float64, generator=generator) for _ in range(3))
        results = {
            impl: neighborhood_attention(query, key, value, **arguments, return_lse=True, impl=impl)  # type: ignore[arg-type]
            for impl in FORMULATIONS
        }
        for impl, result in results.items():
            if impl == "loops":
                continue
            difference = max(_distance(x, y) for x, y in zip(result, results["loops"], strict=True))
            if not difference <= 1e-12:
                raise AssertionError(f"{impl} differs from loops by {difference:.1e} on {layout}, {arguments}")
            count, worst = count + 1, max(worst, difference)
    return count, worst


def _distance(x: Tensor, y: Tensor) -> float:
    return float((x - y).abs().max())
