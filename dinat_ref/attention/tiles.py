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

Where a tile's windows lie in its slab is its geometry. Few geometries exist: that of the interior, where each tile is
the one before it moved along, and those of the edges. Tiles that share one are computed together, and found together:
nothing here counts tokens, so that a sequence of ten million is cut as fast as one of ten.
"""

import functools
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from dinat_ref.attention.bias import bias_place, read_bias, spread
from dinat_ref.attention.boxes import Boxes, whole
from dinat_ref.attention.cache import ByteCache
from dinat_ref.attention.cut import AlikeTiles, alike_tiles
from dinat_ref.attention.operands import inside_transform
from dinat_ref.neighborhood import Neighborhood, row_major_pitch

QUERIES_PER_TILE = 16  # in the interior
MOST_QUERIES_PER_TILE = 512
MOST_KEYS_KEPT = 512  # a geometry's tables have about as many rows, and as many columns
MOST_BYTES_KEPT = 64 * 2**20  # of all layouts together


class AxisTiles:
    """Tiles of one axis that share a geometry as tensors: numbers of tokens, ``pitch`` from position to position."""

    def __init__(
        self, neighborhood: Neighborhood, boxes: Boxes, axis: int, alike: AlikeTiles, device: torch.device
    ) -> None:
        """Count positions in tokens of their boxes."""
        self.neighborhood, self.axis, self.tile, self.allows_all = neighborhood, axis, alike.tile, alike.allows_all
        self.kernel_size = neighborhood.kernel_size[axis]
        queries, keys = self.tile.queries, self.tile.keys
        query_pitch, key_pitch = (row_major_pitch([len(x) for x in box])[axis] for box in (boxes.queries, boxes.keys))
        self.shift = (queries.start - keys.start) // keys.step  # how many keys lie before the first query
        distances = torch.cat([sums([numbers(a, device), numbers(b, device)]) for a, b in alike.distances])
        self.first_queries = query_pitch * (queries.start - boxes.queries[axis].start + distances)  # [tiles]
        self.first_keys = key_pitch * (keys.start - boxes.keys[axis].start + distances)  # [tiles]
        self.queries = query_pitch * keys.step * torch.arange(len(queries), device=device)  # [T], from the first on
        self.keys = key_pitch * keys.step * torch.arange(len(keys), device=device)  # [S]

    def mask(self) -> Tensor:
        """Which keys each query attends: bool [T, S]."""
        first, count = self.neighborhood.window_bounds(self.axis, self.keys.device, self.tile.queries)  # each [T]
        start = ((first - self.tile.keys.start) // self.tile.keys.step)[:, None]  # [T, 1], in slots of the slab
        slot = torch.arange(len(self.keys), device=self.keys.device)  # [S]
        return (start <= slot) & (slot < start + count[:, None])

    def bias_index(self) -> Tensor:
        """Where in rpb the bias of each query for each key stands: int64 [T, S], legal outside the windows, too."""
        query = torch.arange(len(self.queries), device=self.keys.device)[:, None]  # [T, 1]
        key = torch.arange(len(self.keys), device=self.keys.device) - self.shift  # [S]
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
        self.kept_slots = self.slots() if keep_tables and not self.allows_all else None
        self.kept_rows = self.rows() if keep_tables and self.keys.device.type != "cpu" else None

    @property
    def num_bytes(self) -> int:
        """How much memory it takes: its tensors, and a kilobyte for each as an object."""
        own = [x for part in (self, *self.axes) for x in vars(part).values() if isinstance(x, Tensor)]
        return sum(x.nbytes + 1024 for x in (*own, *(self.kept_rows or ())))

    def mask(self) -> Tensor:
        """Which keys each query attends: bool [T, S]."""
        tables = (spread(axis.mask(), number, len(self.axes)) for number, axis in enumerate(self.axes))
        return functools.reduce(torch.logical_and, tables).reshape(len(self.queries), len(self.keys))

    def slots(self) -> Tensor:
        """In which slots of its slab each query's keys lie, in the order of ``Neighborhood.indices``: int64 [T, K]."""
        neighborhood, device = self.axes[0].neighborhood, self.keys.device
        keys = neighborhood.indices(device, [axis.tile.queries for axis in self.axes])  # [T, K], the first tile's
        pitches = zip(neighborhood.pitch, self.axes, strict=True)
        slab = sums([pitch * numbers(axis.tile.keys, device) for pitch, axis in pitches])  # [S], in the layout
        return torch.searchsorted(slab, keys)

    def rows(self) -> tuple[Tensor, Tensor]:
        """The numbers of all queries and keys: int64 [tiles, T] and [tiles, S]."""
        return self.first_queries[:, None] + self.queries, self.first_keys[:, None] + self.keys

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


def cut_into_tiles(
    neighborhood: Neighborhood, device: torch.device | str = "cpu", boxes: Boxes | None = None
) -> tuple[TileBatch, ...]:
    """Cut a layout into tiles, by geometry; kept for the next call, unless the tables are large.

    Shapes:
        return: batches of tiles; every query is in one of them, once
    Args:
        boxes: which tokens are queries and which are keys, numbered within their boxes; None for all. Windows stay
            those of the whole layout.
    Source: the idea of tiles with halos is that of Hassani et al., arXiv:2403.04690.
    Example:
        >>> for batch in cut_into_tiles(Neighborhood((40,), kernel_size=3)):
        ...     print(batch.first_queries.tolist(), len(batch.queries), len(batch.keys))
        [0] 17 18
        [17] 16 18
        [33] 7 8
        >>> [batch] = cut_into_tiles(Neighborhood((40,), 3), boxes=Boxes((range(39, 40),), (range(30, 40),)))
        >>> batch.first_queries + batch.queries, batch.first_keys + batch.keys
        (tensor([0]), tensor([7, 8, 9]))
    """
    boxes = whole(neighborhood) if boxes is None else boxes
    arguments = neighborhood, boxes, tile_shape(neighborhood), torch.device(device)
    belongs_to_a_trace = inside_transform() or type(torch.empty(0, device=device)) is not Tensor
    if belongs_to_a_trace or neighborhood.num_keys > MOST_KEYS_KEPT:
        return _cut(*arguments, keep_tables=False)
    with torch.inference_mode(False):  # tensors of inference mode could not be used outside of it
        return KEPT.get(arguments, lambda: _cut(*arguments, keep_tables=True))


KEPT = ByteCache[tuple[TileBatch, ...]](MOST_BYTES_KEPT, lambda batches: sum(batch.num_bytes for batch in batches))


def _cut(
    neighborhood: Neighborhood, boxes: Boxes, sizes: tuple[int, ...], device: torch.device, keep_tables: bool
) -> tuple[TileBatch, ...]:
    by_axis = []
    for axis in range(neighborhood.ndim):
        alike = alike_tiles(neighborhood.axes[axis], boxes.queries[axis], sizes[axis], most_queries(neighborhood.ndim))
        by_axis.append([AxisTiles(neighborhood, boxes, axis, tiles, device) for tiles in alike])
    return tuple(TileBatch(axes, keep_tables) for axes in itertools.product(*by_axis))


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


def most_queries(ndim: int) -> int:
    """The number of queries on one axis that a tile of several axes may have.

    Example:
        >>> [most_queries(ndim) for ndim in (1, 2, 3)]
        [512, 22, 8]
    """
    return max(1, int(MOST_QUERIES_PER_TILE ** (1 / ndim) + 1e-9))


def numbers(positions: range, device: torch.device) -> Tensor:
    """Make a tensor of a range.

    Shapes:
        return: [len(positions)]
    Example:
        >>> numbers(range(0, 6, 2), torch.device("cpu"))
        tensor([0, 2, 4])
    """
    return torch.arange(positions.start, positions.stop, positions.step, device=device)


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
