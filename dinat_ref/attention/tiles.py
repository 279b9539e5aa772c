"""Cutting a layout into tiles of queries, each with the slab of keys that it attends.

Consecutive queries of a dilation group attend almost the same keys, so all that a tile of queries attends lies in
a slab little larger than the tile::

    one axis, kernel_size 7      tile     . . . . Q Q Q Q . . . . .
                                 slab     . # # # # # # # # # # . .      4 + 7 - 1 = 10 keys
                                 mask       1 1 1 1 1 1 1 . . .          the window of the first query
                                            . 1 1 1 1 1 1 1 . .
                                            . . 1 1 1 1 1 1 1 .
                                            . . . 1 1 1 1 1 1 1          the window of the last

The windows of a tile's queries, seen from the start of their slab, are its geometry. Few geometries exist: that of
the interior, and those of the edges, where windows are shifted. Tiles that share one are computed together.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dinat_ref.attention.bias import lookup_bias, spread
from dinat_ref.neighborhood import Neighborhood

QUERIES_PER_TILE = 64


@dataclass(frozen=True)
class Tile:
    """Consecutive queries of a dilation group on one axis and their slab of keys, as positions on the axis."""

    queries: range
    keys: range
    windows: tuple[range, ...]  # of each query, in slots of the slab

    @property
    def shift(self) -> int:
        """How many keys of the slab lie before the first query."""
        return (self.queries.start - self.keys.start) // self.queries.step

    @property
    def geometry(self) -> tuple[object, ...]:
        """All that mask and bias depend on."""
        return self.windows, len(self.keys), self.shift


@dataclass(frozen=True)
class TileBatch:
    """All tiles of one geometry: the row-major numbers of their T queries and S keys, and one tile of them per axis."""

    queries: Tensor  # [tiles, T]
    keys: Tensor  # [tiles, S]
    example: tuple[Tile, ...]

    def bias(self, rpb: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """What is added to the scores of each of these tiles: [H, T, S] with rpb, else [1, T, S], or None for zero."""
        device, ndim = self.queries.device, len(self.example)
        area = (self.queries.shape[1], self.keys.shape[1])
        slots = [torch.arange(len(tile.keys), device=device) for tile in self.example]  # each [S_axis]
        bias = None
        if rpb is not None:
            index = []
            for tile, slot, offsets in zip(self.example, slots, rpb.shape[1:], strict=True):
                query = torch.arange(len(tile.queries), device=device)[:, None] + tile.shift  # [T_axis, 1]
                index.append((slot - query + offsets // 2).clamp(0, offsets - 1))  # clamped only outside windows
            bias = lookup_bias(rpb, index).reshape(-1, *area)  # [H, T, S]
        if any(len(keys) < len(tile.keys) for tile in self.example for keys in tile.windows):
            mask = torch.ones((), dtype=torch.bool, device=device)
            for axis, (tile, slot) in enumerate(zip(self.example, slots, strict=True)):
                start = torch.tensor([keys.start for keys in tile.windows], device=device)[:, None]  # [T_axis, 1]
                stop = torch.tensor([keys.stop for keys in tile.windows], device=device)[:, None]
                mask = mask & spread((start <= slot) & (slot < stop), axis, ndim)
            none = torch.zeros((), dtype=dtype, device=device)
            bias = torch.where(mask.reshape(1, *area), none if bias is None else bias, -torch.inf)
        return bias


def cut_into_tiles(neighborhood: Neighborhood, device: torch.device | str | None = None) -> Iterator[TileBatch]:
    """Cut a layout into tiles and yield them by geometry.

    Shapes:
        yields: batches of token numbers queries [tiles, T] and keys [tiles, S]; every token is once a query
    Raises:
        Nothing: the neighborhood is already checked.
    Source: the project's own; the idea of tiles with halos is that of Hassani et al., arXiv:2403.04690.
    Example:
        >>> for batch in cut_into_tiles(Neighborhood((150,), kernel_size=3)):
        ...     print(tuple(batch.queries.shape), tuple(batch.keys.shape))
        (1, 75) (1, 76)
        (1, 75) (1, 76)
    """
    by_geometry: list[list[list[Tile]]] = []
    for axis, size in enumerate(tile_shape(neighborhood)):
        alike: dict[tuple[object, ...], list[Tile]] = {}
        for tile in axis_tiles(neighborhood, axis, size):
            alike.setdefault(tile.geometry, []).append(tile)
        by_geometry.append(list(alike.values()))
    for tiles in itertools.product(*by_geometry):
        queries = token_numbers([[tile.queries for tile in axis] for axis in tiles], neighborhood.layout, device)
        keys = token_numbers([[tile.keys for tile in axis] for axis in tiles], neighborhood.layout, device)
        yield TileBatch(queries, keys, example=tuple(axis[0] for axis in tiles))


def tile_shape(neighborhood: Neighborhood) -> tuple[int, ...]:
    """Choose the size of the tiles: 64 queries in the proportions of the kernel, multiples of the stride.

    Larger tiles waste arithmetic, as more of their slab is masked: (tile + k - 1) / k on each axis. Smaller tiles
    gather every key more often, into matrices too small to be fast.

    Shapes:
        return: one number per axis
    Raises:
        Nothing.
    Source: measured with ``dinat-ref bench``.
    Example:
        >>> tile_shape(Neighborhood((56, 56), kernel_size=7)), tile_shape(Neighborhood((16, 64, 64), (3, 7, 7)))
        ((8, 8), (2, 5, 5))
    """
    zoom = (QUERIES_PER_TILE / neighborhood.num_keys) ** (1 / neighborhood.ndim)
    sizes = zip(neighborhood.kernel_size, neighborhood.stride, strict=True)
    return tuple(stride * max(1, round(zoom * kernel_size / stride)) for kernel_size, stride in sizes)


def axis_tiles(neighborhood: Neighborhood, axis: int, size: int) -> list[Tile]:
    """Cut every dilation group of one axis into tiles of about ``size`` queries.

    Shapes:
        return: tiles whose queries together are all positions of the axis, each once
    Raises:
        Nothing.
    Source: the project's own.
    Example:
        >>> for tile in axis_tiles(Neighborhood((7,), kernel_size=3), axis=0, size=4): print(tile.queries, tile.keys)
        range(0, 3) range(0, 4)
        range(3, 7) range(2, 7)
    """
    length, _, stride, dilation, _ = neighborhood.axes[axis]
    windows = neighborhood.windows(axis)
    tiles = []
    for group in range(dilation):
        members = range(group, length, dilation)
        parts = max(1, round(len(members) / size))
        strides = math.ceil(len(members) / stride)  # queries that share a window stay together
        bounds = [strides * part // parts * stride for part in range(parts)] + [len(members)]
        for begin, end in itertools.pairwise(bounds):
            queries = members[begin:end]
            first = min(windows[i].start for i in queries)
            last = max(windows[i][-1] for i in queries)
            keys = range(first, last + dilation, dilation)
            slots = tuple(range(keys.index(windows[i][0]), keys.index(windows[i][-1]) + 1) for i in queries)
            tiles.append(Tile(queries, keys, slots))
    return tiles


def token_numbers(
    positions: Sequence[Sequence[range]], layout: Sequence[int], device: torch.device | str | None = None
) -> Tensor:
    """Combine positions on each axis to row-major token numbers, for every combination of tiles.

    Shapes:
        positions: for each axis, for each of its tiles, a range of equally many positions
        return: [tiles, tokens of a tile], int64
    Raises:
        Nothing.
    Source: the project's own.
    Example:
        >>> token_numbers([[range(0, 2)], [range(0, 2), range(2, 4)]], layout=(3, 4))
        tensor([[0, 1, 4, 5],
                [2, 3, 6, 7]])
    """
    number = torch.zeros((1, 1), dtype=torch.int64, device=device)
    for tiles, length in zip(positions, layout, strict=True):
        own = torch.tensor([list(tile) for tile in tiles], dtype=torch.int64, device=device)  # [tiles, tokens]
        number = number[:, None, :, None] * length + own[None, :, None, :]  # [before, tiles, before, tokens]
        number = number.flatten(2).flatten(0, 1)
    return number
