"""Cutting one axis into tiles of queries and slabs of keys, in plain integers.

Of each dilation group, a tile is all queries whose windows start within ``size`` positions. The first and the last may
be of any size; between them each tile is the one before it moved along by ``size``::

    one axis of 12, kernel_size 3, size 4       tile     Q Q Q Q Q . . . . . . .       windows start at 0 .. 3
                                                slab     # # # # # # . . . . . .
                                                tile     . . . . . Q Q Q Q . . .       windows start at 4 .. 7
                                                slab     . . . . # # # # # # . .
                                                tile     . . . . . . . . . Q Q Q       windows start at 8 .. 9
                                                slab     . . . . . . . . # # # #

Nothing here counts tokens, so that a sequence of ten million is cut as fast as one of ten.
"""

import functools
import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from dinat_ref.neighborhood import Neighborhood
from dinat_ref.window import window


@dataclass(frozen=True)
class Tile:
    """Consecutive queries of a dilation group on one axis and their slab of keys, as positions on the axis."""

    queries: range
    keys: range

    def moved(self, by: int) -> "Tile":
        """The tile some positions further."""
        return Tile(*(range(x.start + by, x.stop + by, x.step) for x in (self.queries, self.keys)))


@dataclass(frozen=True)
class AlikeTiles:
    """The tiles of one axis that share a geometry: one of them, and how far from it the others lie.

    ``distances`` are pairs of ranges; each pair stands for all sums of a number of one and a number of the other.
    """

    tile: Tile
    allows_all: bool  # whether every query attends the whole slab
    distances: tuple[tuple[range, range], ...]

    def all(self) -> Iterator[Tile]:
        """Each tile by itself."""
        for groups, steps in self.distances:
            yield from (self.tile.moved(a + b) for a, b in itertools.product(groups, steps))


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
    length = neighborhood.layout[axis]
    alike = alike_tiles(neighborhood.axes[axis], range(length), size, most=length)
    return sorted(itertools.chain.from_iterable(tiles.all() for tiles in alike), key=lambda tile: tile.queries.start)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # not traced by torch.compile
def alike_tiles(axis: tuple[int, int, int, int, bool], part: range, size: int, most: int) -> tuple[AlikeTiles, ...]:
    """Cut the queries ``part`` of an axis into tiles of ``most`` queries at most, by geometry.

    Dilation groups that are equally long, and of which the part takes as many, are cut alike: there are four kinds at
    most. A geometry depends on the tile's place in its group and, for the last tile, on where the group ends.

    Shapes:
        return: tiles whose queries together are all positions of the part, each once
    Args:
        axis: length, kernel_size, stride, dilation and is_causal.
        size: queries of an interior tile; it is rounded up to a multiple of the stride.
    Example:
        >>> for tiles in alike_tiles((10**7, 3, 1, 1, False), range(10**7), size=16, most=512):
        ...     print(tiles.tile.queries, tiles.tile.keys, [len(steps) for _, steps in tiles.distances])
        range(0, 17) range(0, 18) [1]
        range(17, 33) range(16, 34) [624998]
        range(9999985, 10000000) range(9999984, 10000000) [1]
    """
    length, kernel_size, stride, dilation, is_causal = axis
    size = -(-size // stride) * stride
    alike: dict[tuple[range, int | None], AlikeTiles] = {}
    kinds = sorted({0, length % dilation, part.start % dilation, part.stop % dilation, dilation})
    for groups in itertools.starmap(range, itertools.pairwise(kinds)):
        first = groups[0]
        n, start, stop = (len(range(first, end, dilation)) for end in (length, part.start, part.stop))
        window_of = functools.partial(window, length=n, kernel_size=kernel_size, stride=stride, is_causal=is_causal)
        for queries, repeats in _cut_group(range(start, stop), window_of, size, most):
            keys = range(window_of(queries[0]).start, window_of(queries[-1]).stop)
            on_axis = (range(first + dilation * x.start, first + dilation * x.stop, dilation) for x in (queries, keys))
            allows_all = window_of(queries[0]) == window_of(queries[-1])
            at_the_end = window_of(queries[-1]).start == n - kernel_size
            key = queries, n if at_the_end else None
            like = alike.get(key, AlikeTiles(Tile(*on_axis), allows_all, distances=()))
            moved = first - like.tile.queries.start % dilation
            distances = range(moved, moved + len(groups)), range(0, repeats * dilation * size, dilation * size)
            alike[key] = replace(like, distances=(*like.distances, distances))
    return tuple(alike.values())


def _cut_group(members: range, window_of: Callable[[int], range], size: int, most: int) -> Iterator[tuple[range, int]]:
    """Yield tiles of a dilation group: queries, and how often they repeat, ``size`` queries further each time.

    A tile is all queries whose windows start within ``size`` positions. The second begins at the first window that
    starts ``size`` positions behind the first one; from there on, until the last, the starts repeat.
    """
    if not members:
        return
    start, end = window_of(members[0]).start, window_of(members[-1]).start
    number = (end - start) // size + 1
    tiles = [(members, 1)]
    if number > 1:
        second = members[bisect_left(members, start + size, key=lambda m: window_of(m).start)]
        last = second + (number - 2) * size
        interior = [(range(second, second + size), number - 2)] if number > 2 else []
        tiles = [(range(members.start, second), 1), *interior, (range(last, members.stop), 1)]
    for queries, repeats in tiles:
        for begin in range(queries.start, queries.stop, most):
            yield range(begin, min(begin + most, queries.stop)), repeats
