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
from typing import Any

import torch
from torch import Tensor

from dinat_ref.attention.bias import bias_place, spread
from dinat_ref.attention.operands import inside_transform
from dinat_ref.neighborhood import Neighborhood, axis_windows

QUERIES_PER_TILE = 16  # in the interior
MOST_QUERIES_PER_TILE = 512
MOST_KEYS_KEPT = 512  # a geometry's tables have about as many rows, and as many columns


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
    """The tiles of one axis that share a geometry, as tensors; positions are ``pitch`` tokens apart."""

    def __init__(self, tiles: Sequence[Tile], kernel_size: int, pitch: int, device: torch.device) -> None:
        """Take tiles of one geometry."""
        first, step = tiles[0], tiles[0].queries.step * pitch
        queries = torch.arange(len(first.queries), device=device)  # [T]
        keys = torch.arange(len(first.keys), device=device)  # [S]
        self.first_queries = torch.tensor([tile.queries.start * pitch for tile in tiles], device=device)  # [tiles]
        self.first_keys = torch.tensor([tile.keys.start * pitch for tile in tiles], device=device)  # [tiles]
        self.queries, self.keys = step * queries, step * keys  # [T], [S], counted from the first
        self.bias_size = 2 * kernel_size - 1
        offsets = keys - queries[:, None] - first.shift  # [T, S], from query to key, in steps of the dilation
        self.bias_index = (offsets + kernel_size - 1).clamp(0, self.bias_size - 1)  # clamped only outside windows
        starts, stops = zip(*((window.start, window.stop) for window in first.windows), strict=True)
        start, stop = torch.tensor([starts, stops], device=device)[:, :, None]  # each [T, 1], of the windows
        self.allowed = (start <= keys) & (keys < stop)  # [T, S]
        self.allows_all = all(len(window) == len(first.keys) for window in first.windows)


class TileBatch:
    """All tiles of one geometry: query t of tile n is token first_queries[n] + queries[t], and the keys alike."""

    def __init__(self, axes: Sequence[AxisTiles]) -> None:
        """Combine tiles of all axes."""
        self.first_queries = sums([axis.first_queries for axis in axes])  # [tiles]
        self.first_keys = sums([axis.first_keys for axis in axes])  # [tiles]
        self.queries = sums([axis.queries for axis in axes])  # [T]
        self.keys = sums([axis.keys for axis in axes])  # [S]
        area = len(self.queries), len(self.keys)
        self.bias_place = bias_place([axis.bias_index for axis in axes], [axis.bias_size for axis in axes]).reshape(
            area
        )
        self.allowed: Tensor | None = None  # [T, S], or None if every query attends the whole slab
        if not all(axis.allows_all for axis in axes):
            tables = [spread(axis.allowed, number, len(axes)) for number, axis in enumerate(axes)]
            self.allowed = functools.reduce(torch.logical_and, tables).reshape(area)

    def bias(self, rpb: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """What is added to the scores of each of these tiles: [H, T, S] with rpb, else [1, T, S], or None for zero."""
        if rpb is None and self.allowed is None:
            return None
        if rpb is None:
            bias = torch.zeros((1, 1, 1), dtype=dtype, device=self.keys.device)
        else:
            bias = rpb.flatten(1).index_select(1, self.bias_place.flatten()).unflatten(1, self.bias_place.shape)
        return bias if self.allowed is None else torch.where(self.allowed, bias, -torch.inf)


def cut_into_tiles(neighborhood: Neighborhood, device: torch.device | str = "cpu") -> tuple[TileBatch, ...]:
    """Cut a layout into tiles, by geometry; computed once per set of arguments, unless the tables would be large.

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
    arguments = neighborhood, tile_shape(neighborhood), torch.device(device)
    belongs_to_a_trace = inside_transform() or type(torch.empty(0, device=device)) is not Tensor
    if belongs_to_a_trace or neighborhood.num_keys > MOST_KEYS_KEPT:
        return _cut(*arguments)
    return _cut_once(*arguments)


def _cut(neighborhood: Neighborhood, sizes: tuple[int, ...], device: torch.device) -> tuple[TileBatch, ...]:
    most = max(1, int(MOST_QUERIES_PER_TILE ** (1 / neighborhood.ndim) + 1e-9))  # on each axis
    by_axis = []
    for axis, size, pitch in zip(neighborhood.axes, sizes, neighborhood.pitch, strict=True):
        by_axis.append([AxisTiles(tiles, axis[1], pitch, device) for tiles in alike_tiles(axis, size, most)])
    return tuple(TileBatch(axes) for axes in itertools.product(*by_axis))


@functools.lru_cache(maxsize=32)
def _cut_once(*arguments: Any) -> tuple[TileBatch, ...]:
    with torch.inference_mode(False):  # tensors of inference mode could not be used outside of it
        return _cut(*arguments)


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


def sums(positions: Sequence[Tensor]) -> Tensor:
    """Add up positions on each axis, in all combinations: row-major numbers of tokens.

    Shapes:
        positions: one dimension, for each axis
        return: one dimension, the last axis fastest
    Raises:
        Nothing.
    Source: the project's own.
    Example:
        >>> sums([torch.tensor([0, 4]), torch.tensor([2, 3])])
        tensor([2, 3, 6, 7])
    """
    return functools.reduce(lambda total, own: (total[:, None] + own).flatten(), positions)
