"""What the contract says, stated a second time and another way: by sorting and by brute force, in NumPy.

Nothing here is imported from the package, and no formula of it is repeated: the window is found by ranking all
tokens of the dilation group by distance, and its stride group by cutting the group into pieces.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Axis = tuple[int, int, int, int, bool]
Array = NDArray[np.float64]


def legal_axes(longest: int) -> Iterator[Axis]:
    """Every legal (length, kernel_size, stride, dilation, is_causal) of an axis of up to ``longest`` tokens."""
    for length in range(1, longest + 1):
        for kernel_size in range(1, length + 1):
            for dilation in range(1, length // kernel_size + 1):
                for stride in range(1, kernel_size + 1):
                    for is_causal in (False, True):
                        yield length, kernel_size, stride, dilation, is_causal


def group_of(i: int, length: int, dilation: int) -> list[int]:
    """The tokens of an axis that dilation lets a query see, near or far."""
    return [j for j in range(length) if (j - i) % dilation == 0]


def stride_group_of(i: int, length: int, stride: int, dilation: int) -> list[int]:
    """The queries that share a window with query i: a dilation group cut into pieces of ``stride`` tokens."""
    group = group_of(i, length, dilation)
    pieces = [group[start : start + stride] for start in range(0, len(group), stride)]
    return next(piece for piece in pieces if i in piece)


def nearest_window(i: int, length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> list[int]:
    """The window of query i: the ``kernel_size`` tokens of its group that are nearest to its leader.

    Of two tokens equally near, the left one is nearer. Without causality the leader is the middle of the stride
    group, the right one of two, or the last query where the group ends early. With causality the leader is the
    last query of the stride group, only tokens up to it count, and those behind the query itself are cut off.
    """
    sharing = stride_group_of(i, length, stride, dilation)
    leader = sharing[-1] if is_causal else sharing[: stride // 2 + 1][-1]
    seen = [j for j in group_of(i, length, dilation) if not is_causal or j <= leader]
    ranked = sorted(seen, key=lambda j: (abs(j - leader), j > leader))
    return sorted(j for j in ranked[:kernel_size] if not is_causal or j <= i)


def neighbors(token: tuple[int, ...], axes: list[Axis]) -> list[tuple[int, ...]]:
    """The keys of a token, row-major."""
    windows = [nearest_window(i, *axis) for i, axis in zip(token, axes, strict=True)]
    return list(itertools.product(*windows))


def attention(
    axes: list[Axis],
    query: Array,
    key: Array,
    value: Array,
    scale: float | None = None,
    rpb: Array | None = None,
    additional_keys: Array | None = None,
    additional_values: Array | None = None,
) -> tuple[Array, Array]:
    """The output and the lse of neighborhood attention, one scalar product at a time, in float64."""
    batch, heads, head_dim = query.shape[0], query.shape[-2], query.shape[-1]
    scale = 1 / math.sqrt(head_dim) if scale is None else scale
    repeats = heads // key.shape[-2]
    output = np.zeros((*query.shape[:-1], value.shape[-1]))
    lse = np.zeros(query.shape[:-1])
    for token in itertools.product(*(range(axis[0]) for axis in axes)):
        keys = neighbors(token, axes)
        for b, h in itertools.product(range(batch), range(heads)):
            where = (b, *token, h)
            scores = [scale * float(query[where] @ key[(b, *j, h // repeats)]) for j in keys]
            values = [value[(b, *j, h // repeats)] for j in keys]
            if rpb is not None:
                for slot, j in enumerate(keys):
                    steps = zip(token, j, axes, strict=True)
                    scores[slot] += rpb[(h, *((there - here) // axis[3] + axis[1] - 1 for here, there, axis in steps))]
            if additional_keys is not None and additional_values is not None:
                for extra in range(additional_keys.shape[1]):
                    scores.append(scale * float(query[where] @ additional_keys[b, extra, h // repeats]))
                    values.append(additional_values[b, extra, h // repeats])
            highest = max(scores)
            weights = np.exp(np.array(scores) - highest)
            lse[where] = highest + np.log(weights.sum())
            output[where] = (weights[:, None] * np.array(values)).sum(0) / weights.sum()
    return output, lse
