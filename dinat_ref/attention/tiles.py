"""Cutting a layout into tiles of queries, each with the slab of keys that it attends.

Consecutive queries of a dilation group attend almost the same keys, so all that a tile of queries attends lies in
a slab little larger than the tile::

    one axis, kernel_size 7      tile     . . . . Q Q Q Q . . . . .
                                 slab     . # # # # # # # # # # . .      4 + 7 - 1 = 10 keys
                                 mask       1 1 1 1 1 1 1 . . .          the window of the first query
                                            . 1 1 1 1 1 1 1 . .
                                            . . 1 1 1 1 1 1 1 .
                                            . . . 1 1 1 1 1 1 1          the window of the last

The slab comes first: a tile is all the queries whose windows fit it. At an edge, where windows are shifted, and with
stride, where they are shared, that is more queries for the same keys; a group of kernel_size tokens is one tile, and
needs no mask.

The windows of a tile's queries, seen from the start of their slab, are its geometry. Few geometries exist: that of
the interior, and those of the edges. Tiles that share one are computed together.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dinat_ref.attention.bias import lookup_bias, spread
from dinat_ref.neighborhood import Neighborhood, axis_windows

QUERIES_PER_TILE = 16  # in the interior
MOST_QUERIES_PER_TILE = 512


@dataclass(frozen=True)
class Tile:
    """Consecutive queries of a dilation group on one axis and their slab of keys, as positions on the axis."""

    queries: range
    keys: range
    windows: tuple[range, ...]  # of each query, in slots of the slab
    shift: int  # how many keys of the slab lie before the first query

    @property
    def geometry(self) -> tuple[object, ...]:
        """All that mask and bias depend on."""
        return self.windows, len(self.keys), self.shift


class AxisTiles:
    """The tiles of one axis that share a geometry, as tensors of positions."""

    def __init__(self, tiles: Sequence[Tile], device: torch.device | str | None = None) -> None:
        """Take tiles of one geometry."""
        first, dilation = tiles[0], tiles[0].queries.step
        queries = torch.arange(len(first.queries), device=device)  # [T]
        keys = torch.arange(len(first.keys), device=device)  # [S]
        self.first_queries = torch.tensor([tile.queries.start for tile in tiles], device=device)  # [tiles]
        self.first_keys = torch.tensor([tile.keys.start for tile in tiles], device=device)  # [tiles]
        self.queries, self.keys = dilation * queries, dilation * keys  # [T], [S], counted from the first
        self.offsets = keys - queries[:, None] - first.shift  # [T, S], from query to key, in steps of the dilation
        self.allowed: Tensor | None = None  # [T, S], or None if every query attends the whole slab
        if any(len(window) < len(first.keys) for window in first.windows):
            starts, stops = zip(*((window.start, window.stop) for window in first.windows), strict=True)
            start, stop = torch.tensor([starts, stops], device=device)[:, :, None]  # each [T, 1]
            self.allowed = (start <= keys) & (keys < stop)


class TileBatch:
    """All tiles of one geometry: query t of tile n is token first_queries[n] + queries[t], and the keys alike."""

    def __init__(self, axes: Sequence[AxisTiles], layout: Sequence[int]) -> None:
        """Combine tiles of all axes."""
        self.axes = axes
        self.first_queries = token_numbers([axis.first_queries for axis in axes], layout)  # [tiles]
        self.first_keys = token_numbers([axis.first_keys for axis in axes], layout)  # [tiles]
        self.queries = token_numbers([axis.queries for axis in axes], layout)  # [T]
        self.keys = token_numbers([axis.keys for axis in axes], layout)  # [S]

    def bias(self, rpb: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """What is added to the scores of each of these tiles: [H, T, S] with rpb, else [1, T, S], or None for zero."""
        bias = None
        if rpb is not None:
            sizes = zip(self.axes, rpb.shape[1:], strict=True)  # an offset is clamped only outside windows
            index = [(axis.offsets + size // 2).clamp(0, size - 1) for axis, size in sizes]
            bias = lookup_bias(rpb, index)  # [H, T of each axis, S of each axis]
        tables = [(number, axis.allowed) for number, axis in enumerate(self.axes) if axis.allowed is not None]
        if tables:
            mask = functools.reduce(
                torch.logical_and, [spread(table, number, len(self.axes)) for number, table in tables]
            )
            zero = torch.zeros((), dtype=dtype, device=mask.device)
            bias = torch.where(mask, zero if bias is None else bias, -torch.inf)
            sides = [axis.offsets.shape[side] for side in (0, 1) for axis in self.axes]
            bias = bias.expand(-1 if bias.ndim > len(sides) else 1, *sides)
        return None if bias is None else bias.reshape(-1, len(self.queries), len(self.keys))


def cut_into_tiles(neighborhood: Neighborhood, device: torch.device | str | None = None) -> list[TileBatch]:
    """Cut a layout into tiles, by geometry.

    Shapes:
        return: batches of tiles; every token is once a query
    Raises:
        Nothing: the neighborhood is already checked.
    Source: the project's own; the idea of tiles with halos is that of Hassani et al., arXiv:2403.04690.
    Example:
        >>> for batch in cut_into_tiles(Neighborhood((40,), kernel_size=3)):
        ...     print(batch.first_queries.tolist(), len(batch.queries), len(batch.keys))
        [0] 17 18
        [17] 16 18
        [33] 7 8
    """
    most = max(1, round(MOST_QUERIES_PER_TILE ** (1 / neighborhood.ndim)))
    axes = [
        [AxisTiles(tiles, device) for tiles in alike_tiles(axis, size, most)]
        for axis, size in zip(neighborhood.axes, tile_shape(neighborhood), strict=True)
    ]
    return [TileBatch(alike, neighborhood.layout) for alike in itertools.product(*axes)]


def tile_shape(neighborhood: Neighborhood) -> tuple[int, ...]:
    """Choose the size of interior tiles: 16 queries in the proportions of the kernel.

    Larger tiles waste arithmetic, as more of their slab is masked: (tile + k - 1) / k on each axis. Smaller tiles
    gather every key more often, into matrices too small to be fast.

    Shapes:
        return: one number per axis
    Raises:
        Nothing.
    Source: measured with ``dinat-ref bench``.
    Example:
        >>> tile_shape(Neighborhood((56, 56), kernel_size=7)), tile_shape(Neighborhood((16, 64, 64), (3, 7, 7)))
        ((4, 4), (1, 3, 3))
    """
    zoom = (QUERIES_PER_TILE / neighborhood.num_keys) ** (1 / neighborhood.ndim)
    return tuple(max(1, round(zoom * kernel_size)) for kernel_size in neighborhood.kernel_size)


def axis_tiles(neighborhood: Neighborhood, axis: int, size: int) -> list[Tile]:
    """Cut every dilation group of one axis into tiles: queries whose windows fit a slab of size + k - 1 keys.

    Shapes:
        return: tiles whose queries together are all positions of the axis, each once
    Raises:
        Nothing.
    Source: the project's own.
    Example:
        >>> for tile in axis_tiles(Neighborhood((9,), kernel_size=3), axis=0, size=2): print(tile.queries, tile.keys)
        range(0, 3) range(0, 4)
        range(3, 5) range(2, 6)
        range(5, 7) range(4, 8)
        range(7, 9) range(6, 9)
    """
    alike = alike_tiles(neighborhood.axes[axis], size, MOST_QUERIES_PER_TILE)
    return sorted(itertools.chain.from_iterable(alike), key=lambda tile: tile.queries.start)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # not traced by torch.compile
def alike_tiles(axis: tuple[int, int, int, int, bool], size: int, most: int) -> tuple[tuple[Tile, ...], ...]:
    """The tiles of an axis by geometry, of ``most`` queries at most; computed once per set of arguments."""
    return _alike_tiles(axis, size, most)


@functools.lru_cache(maxsize=1024)
def _alike_tiles(axis: tuple[int, int, int, int, bool], size: int, most: int) -> tuple[tuple[Tile, ...], ...]:
    length, kernel_size, _, dilation, _ = axis
    windows = axis_windows(*axis)
    alike: dict[tuple[object, ...], list[Tile]] = {}
    for group in range(dilation):
        members = range(group, length, dilation)
        while members:
            first = windows[members[0]].start
            slab = range(first, first + dilation * (size + kernel_size - 1), dilation)
            fits = itertools.takewhile(lambda i: windows[i][-1] in slab, members[:most])  # noqa: B023
            queries, members = members[: (count := len(list(fits)))], members[count:]
            keys = slab[: slab.index(windows[queries[-1]][-1]) + 1]
            slots = tuple(range(keys.index(windows[i][0]), keys.index(windows[i][-1]) + 1) for i in queries)
            tile = Tile(queries, keys, slots, shift=keys.index(queries[0]))
            alike.setdefault(tile.geometry, []).append(tile)
    return tuple(tuple(tiles) for tiles in alike.values())


def token_numbers(positions: Sequence[Tensor], layout: Sequence[int]) -> Tensor:
    """Combine positions on each axis to the row-major numbers of all their combinations.

    Shapes:
        positions: a tensor of positions for each axis
        return: one dimension, the last axis fastest
    Raises:
        Nothing.
    Source: the project's own.
    Example:
        >>> token_numbers([torch.tensor([0, 1]), torch.tensor([2, 3])], layout=(3, 4))
        tensor([2, 3, 6, 7])
    """
    number = positions[0]
    for own, length in zip(positions[1:], layout[1:], strict=True):
        number = (number[:, None] * length + own).flatten()
    return number
