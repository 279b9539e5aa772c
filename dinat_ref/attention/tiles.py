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

from dinat_ref.attention.bias import bias_place, read_bias, spread
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
    """The tiles of one axis that share a geometry, as tensors; its positions are ``pitch`` tokens apart."""

    def __init__(self, tiles: Sequence[Tile], kernel_size: int, pitch: int, device: torch.device) -> None:
        """Take tiles of one geometry."""
        self.example, self.kernel_size = tiles[0], kernel_size
        step = self.example.queries.step * pitch
        self.first_queries = torch.tensor([tile.queries.start * pitch for tile in tiles], device=device)  # [tiles]
        self.first_keys = torch.tensor([tile.keys.start * pitch for tile in tiles], device=device)  # [tiles]
        self.queries = step * torch.arange(len(self.example.queries), device=device)  # [T], counted from the first
        self.keys = step * torch.arange(len(self.example.keys), device=device)  # [S]

    @property
    def allows_all(self) -> bool:
        """Whether every query attends the whole slab."""
        return all(len(window) == len(self.example.keys) for window in self.example.windows)

    def mask(self) -> Tensor:
        """Which keys each query attends: bool [T, S]."""
        bounds = [(window.start, window.stop) for window in self.example.windows]
        start, stop = torch.tensor(bounds, device=self.keys.device).T[:, :, None]  # each [T, 1]
        slot = torch.arange(len(self.keys), device=self.keys.device)  # [S]
        return (start <= slot) & (slot < stop)

    def bias_index(self) -> Tensor:
        """Where in rpb the bias of each query for each key stands: int64 [T, S], legal outside the windows, too."""
        query = torch.arange(len(self.queries), device=self.keys.device)[:, None]  # [T, 1]
        key = torch.arange(len(self.keys), device=self.keys.device) - self.example.shift  # [S]
        return (key - query + self.kernel_size - 1).clamp(0, 2 * self.kernel_size - 2)


class TileBatch:
    """All tiles of one geometry: query t of tile n is token first_queries[n] + queries[t], and the keys alike."""

    def __init__(self, axes: Sequence[AxisTiles], keep_tables: bool = False) -> None:
        """Combine tiles of all axes."""
        self.axes = axes
        self.first_queries = sums([axis.first_queries for axis in axes])  # [tiles]
        self.first_keys = sums([axis.first_keys for axis in axes])  # [tiles]
        self.queries = sums([axis.queries for axis in axes])  # [T]
        self.keys = sums([axis.keys for axis in axes])  # [S]
        self.allows_all = all(axis.allows_all for axis in axes)  # every query attends the whole slab
        self.kept_mask = self.mask() if keep_tables and not self.allows_all else None
        self.kept_place = self.bias_place() if keep_tables else None

    def mask(self) -> Tensor:
        """Which keys each query attends: bool [T, S]."""
        tables = (spread(axis.mask(), number, len(self.axes)) for number, axis in enumerate(self.axes))
        return functools.reduce(torch.logical_and, tables).reshape(len(self.queries), len(self.keys))

    def bias_place(self) -> Tensor:
        """Where in rpb, read row by row, the bias of each query for each key stands: int64 [T, S]."""
        index, sizes = [axis.bias_index() for axis in self.axes], [2 * axis.kernel_size - 1 for axis in self.axes]
        return bias_place(index, sizes).reshape(len(self.queries), len(self.keys))

    def bias(self, rpb: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """What is added to the scores of each of these tiles: [H, T, S] with rpb, else [1, T, S], or None for zero."""
        bias = None
        if rpb is not None:
            place = self.bias_place() if self.kept_place is None else self.kept_place
            bias = read_bias(rpb, place)  # [H, T, S]
        if self.allows_all:
            return bias
        mask = self.mask() if self.kept_mask is None else self.kept_mask
        zero = torch.zeros((1, 1, 1), dtype=dtype, device=mask.device)
        return torch.where(mask, zero if bias is None else bias, -torch.inf)


def cut_into_tiles(neighborhood: Neighborhood, device: torch.device | str = "cpu") -> tuple[TileBatch, ...]:
    """Cut a layout into tiles, by geometry; computed once per set of arguments, unless the tables would be large.

    Shapes:
        return: batches of tiles; every token is once a query
    Source: the idea of tiles with halos is that of Hassani et al., arXiv:2403.04690.
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
        return _cut(*arguments, keep_tables=False)
    return _cut_once(*arguments)


def _cut(
    neighborhood: Neighborhood, sizes: tuple[int, ...], device: torch.device, keep_tables: bool
) -> tuple[TileBatch, ...]:
    most = max(1, int(MOST_QUERIES_PER_TILE ** (1 / neighborhood.ndim) + 1e-9))  # on each axis
    by_axis = []
    for axis, size, pitch in zip(neighborhood.axes, sizes, neighborhood.pitch, strict=True):
        by_axis.append([AxisTiles(tiles, axis[1], pitch, device) for tiles in alike_tiles(axis, size, most)])
    return tuple(TileBatch(axes, keep_tables) for axes in itertools.product(*by_axis))


@functools.lru_cache(maxsize=32)
def _cut_once(neighborhood: Neighborhood, sizes: tuple[int, ...], device: torch.device) -> tuple[TileBatch, ...]:
    with torch.inference_mode(False):  # tensors of inference mode could not be used outside of it
        return _cut(neighborhood, sizes, device, keep_tables=True)


def tile_shape(neighborhood: Neighborhood) -> tuple[int, ...]:
    """Choose the size of interior tiles: 16 queries in the proportions of the kernel.

    So a key that was copied into a slab is used by 16 queries, whatever the kernel. Larger tiles waste arithmetic, as
    more of their slab is masked: (tile + k - 1) / k on each axis. Smaller tiles copy every key more often, into
    matrices too small to be fast.

    Shapes:
        return: one number per axis
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
    Example:
        >>> sums([torch.tensor([0, 4]), torch.tensor([2, 3])])
        tensor([2, 3, 6, 7])
    """
    return functools.reduce(lambda total, own: (total[:, None] + own).flatten(), positions)
