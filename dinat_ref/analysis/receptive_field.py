"""The receptive field of a stack of layers, exactly: which input tokens an output token depends on.

A layer lets a token see its window; the next layer lets it see the windows of the tokens in its window::

    field after l layers:   F_l(i) = union of F_{l-1}(j) over j in window_l(i),      F_0(i) = {i}

On every axis that is a product of boolean matrices, last layer first. A window of several axes is the Cartesian
product of its axes' windows, and so is a receptive field: [L, L] per axis is all that has to be stored, even for
a photograph. A residual connection adds nothing, since every window holds its own query.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor

from dinat_ref.neighborhood import per_axis
from dinat_ref.window import check_integer


class Layer(Protocol):
    """What a layer is here: a layout, and on each axis one window per position. ``Neighborhood`` is one.

    Shapes:
        layout (X,), (X, Y) or more; windows(axis) has one entry per position of the axis
    Example:
        >>> from dinat_ref import Neighborhood
        >>> layer: Layer = Neighborhood((3, 4), kernel_size=2)
        >>> layer.windows(0)
        (range(0, 2), range(0, 2), range(1, 3))
    """

    @property
    def layout(self) -> tuple[int, ...]:
        """The number of tokens on each axis."""

    def windows(self, axis: int) -> Sequence[Collection[int]]:
        """The positions that each position of one axis attends."""


@dataclass(frozen=True)
class FullAttention:
    """Full self attention as a layer of a receptive field: every token attends every token.

    Shapes:
        layout: (X,), (X, Y) or more
    Source: Vaswani et al., arXiv:1706.03762.
    Example:
        >>> FullAttention((3,)).windows(0)
        [range(0, 3), range(0, 3), range(0, 3)]
    """

    layout: tuple[int, ...]

    def windows(self, axis: int) -> list[range]:
        """The whole axis, for each of its positions."""
        return [range(self.layout[axis])] * self.layout[axis]


@dataclass(frozen=True)
class WindowedAttention:
    """Window attention (WSA), and its shifted form (SWSA), as a layer of a receptive field: blocks see themselves.

    The blocks of an axis begin at the multiples of ``window_size``, or ``shift`` behind them. Swin shifts by rolling
    the map and forbids what the roll alone made neighbours, so the first and the last block are smaller.

    Shapes:
        layout: (X,), (X, Y) or more
    Args:
        window_size: tokens of a block on every axis, or one number per axis.
        shift: where the second block begins; 0 for no shift. Swin takes window_size // 2 on every other layer.
    Raises:
        ValueError: when windows are asked for and window_size is below 1, or shift not below window_size.
    Source: Liu et al., Swin Transformer, arXiv:2103.14030, section 3.2.
    Example:
        >>> [list(keys) for keys in WindowedAttention((5,), window_size=3, shift=1).windows(0)]
        [[0], [1, 2, 3], [1, 2, 3], [1, 2, 3], [4]]
    """

    layout: tuple[int, ...]
    window_size: int | tuple[int, ...]
    shift: int | tuple[int, ...] = 0

    def windows(self, axis: int) -> list[range]:
        """The block of each position of one axis."""
        size = per_axis("window_size", self.window_size, self.layout)[axis]
        shift = per_axis("shift", self.shift, self.layout)[axis]
        if check_integer("window_size", size) < 1:
            raise ValueError(f"window_size on axis {axis} must be at least 1, got {size}")
        if not 0 <= check_integer("shift", shift) < size:
            raise ValueError(f"shift on axis {axis} must be in 0 .. {size - 1} (window_size - 1), got {shift}")
        length = self.layout[axis]
        starts = [(i - shift) // size * size + shift for i in range(length)]
        return [range(max(start, 0), min(start + size, length)) for start in starts]


def axis_fields(layers: Sequence[Layer], axis: int = 0) -> Tensor:
    """Give the receptive fields of all positions of one axis, after each of the layers.

    Shapes:
        return: bool [l + 1, L, L]: entry [n, i, j] says whether the output at i depends on the input at j, through
            the first n layers; n = 0 is the identity
    Raises:
        ValueError: no layer, or layers of different layouts.
    Cost: l products of matrices L x L.
    Source: the set propagation F_l(i) at the top of this module.
    Example:
        >>> from dinat_ref import Neighborhood
        >>> axis_fields([Neighborhood((6,), 3)] * 2)[-1].int()
        tensor([[1, 1, 1, 1, 0, 0],
                [1, 1, 1, 1, 0, 0],
                [1, 1, 1, 1, 1, 0],
                [0, 1, 1, 1, 1, 1],
                [0, 0, 1, 1, 1, 1],
                [0, 0, 1, 1, 1, 1]], dtype=torch.int32)
    """
    length = check_stack(layers)[axis]
    fields = [torch.eye(length)]
    for layer in layers:
        pairs = [(i, j) for i, keys in enumerate(layer.windows(axis)) for j in keys]
        attends = torch.zeros(length, length)
        attends[tuple(torch.tensor(pairs).T)] = 1
        fields.append(((attends @ fields[-1]) > 0).float())
    return torch.stack(fields).bool()


def receptive_field(layers: Sequence[Layer], token: Sequence[int]) -> Tensor:
    """Give the input tokens on which one output token depends, through all layers.

    Shapes:
        token:  one coordinate per axis
        return: bool [*layout]
    Raises:
        ValueError: no layer, layers of different layouts, or a token outside the layout.
    Source: the set propagation at the top of this module.
    Example:
        >>> from dinat_ref import Neighborhood
        >>> receptive_field([Neighborhood((9,), 3), Neighborhood((9,), 3, dilation=3)], (4,)).int()
        tensor([1, 1, 1, 1, 1, 1, 1, 1, 1], dtype=torch.int32)
    """
    return layers_to_reach(layers, token) >= 0


def layers_to_reach(layers: Sequence[Layer], token: Sequence[int]) -> Tensor:
    """Give the number of layers after which each input token enters the receptive field of one output token.

    The token itself is there after 0 layers; -1 marks what all layers together do not reach. Fields only grow, and
    an input token is reached when it is reached on every axis, so this is the largest number of the axes'.

    Shapes:
        token:  one coordinate per axis
        return: int64 [*layout], -1 .. l
    Raises:
        ValueError: no layer, layers of different layouts, or a token outside the layout.
    Source: the set propagation at the top of this module.
    Example:
        >>> from dinat_ref import Neighborhood
        >>> layers_to_reach([Neighborhood((9,), 3)] * 3, (1,))
        tensor([ 1,  0,  1,  2,  3, -1, -1, -1, -1])
    """
    layout = check_stack(layers)
    if len(token) != len(layout) or not all(0 <= i < length for i, length in zip(token, layout, strict=True)):
        raise ValueError(f"token must lie in the layout {layout}, got {tuple(token)}")
    never = len(layers) + 1
    per_axis_reach = []
    for axis, i in enumerate(token):
        fields = axis_fields(layers, axis)[:, i]  # [l + 1, L]
        per_axis_reach.append(torch.where(fields.any(0), fields.int().argmax(0), never))  # [L], the first True
    reach = reduce(torch.maximum, torch.meshgrid(*per_axis_reach, indexing="ij"))  # [*layout]
    return torch.where(reach == never, -1, reach)


def coverage(layers: Sequence[Layer], token: Sequence[int]) -> list[float]:
    """Give the share of the layout that one output token's receptive field covers after 0, 1, .. l layers.

    Shapes:
        token:  one coordinate per axis
        return: l + 1 numbers in 0 .. 1
    Raises:
        ValueError: no layer, layers of different layouts, or a token outside the layout.
    Source: the set propagation at the top of this module.
    Example:
        >>> from dinat_ref import Neighborhood
        >>> coverage([Neighborhood((8, 8), 4)] * 2, (4, 4))
        [0.015625, 0.25, 0.765625]
    """
    reach = layers_to_reach(layers, token)
    tokens = math.prod(reach.shape)
    return [int(((reach >= 0) & (reach <= count)).sum()) / tokens for count in range(len(layers) + 1)]


def check_stack(layers: Sequence[Layer]) -> tuple[int, ...]:
    """Return the layout that all layers share.

    Shapes:
        return: a tuple of integers.
    Raises:
        ValueError: no layer, or layers of different layouts.
    Example:
        >>> check_stack([FullAttention((3, 4))])
        (3, 4)
    """
    if not layers:
        raise ValueError("layers must hold at least one layer, got none")
    layout = tuple(layers[0].layout)
    for number, layer in enumerate(layers):
        if tuple(layer.layout) != layout:
            raise ValueError(f"layer {number} must have the layout of the first, {layout}, got {tuple(layer.layout)}")
    return layout
