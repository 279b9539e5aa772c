"""How many tiles of keys a blocked kernel visits: what a window gains on a GPU, counted without one.

A fast kernel holds a tile of queries and visits every tile of keys in which one of them has a key. What a query does
not attend in a visited tile is computed all the same, and masked. Queries 4 to 7, tiles of 4 keys, kernel_size 4::

    stride 1    keys  0 1 2 3 | 4 5 6 7 | 8 9 10 11       stride 4    keys  0 1 2 3 | 4 5 6 7 | 8 9 10 11
    query 4           . . # #   # # . .   . . .  .        query 4           . . . .   # # # #   . . .  .
    query 5           . . . #   # # # .   . . .  .        query 5           . . . .   # # # #   . . .  .
    query 6           . . . .   # # # #   . . .  .        query 6           . . . .   # # # #   . . .  .
    query 7           . . . .   . # # #   # . .  .        query 7           . . . .   # # # #   . . .  .
                      three tiles for four keys                             one tile, and nothing to mask

A window is a product of axes, so tiles are counted axis by axis and multiplied. Speedups are bounds: those of a kernel
that spends its time on visited tiles alone, and waits for the tile of queries that visits the most.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dinat_ref.neighborhood import Neighborhood, per_axis
from dinat_ref.window import check_integer, window

TILINGS = ("static", "dynamic")
MOST_TILES = 250_000  # of queries on one axis
MOST_CAUSAL = 2_000_000  # tokens of an axis whose windows are added up one by one


@dataclass(frozen=True)
class AxisTile:
    """Consecutive queries of a dilation group on one axis and what they visit, all in places of that group.

    Example:
        >>> tile = axis_tiles((12, 4, 1, 1, False), query_tile=4, key_tile=4)[1]
        >>> tile.queries, tile.keys, tile.shared, list(tile.tiles)
        (range(4, 8), range(2, 9), range(5, 6), [0, 4, 8])
    """

    group: int
    length: int  # of the group
    queries: range
    keys: range  # that any of the queries attends
    shared: range  # that all of them attend
    tiles: range  # where the visited tiles of keys begin

    @property
    def full(self) -> int:
        """How many of the visited tiles need no mask: every query attends every key in them."""
        first, stop, size = self.shared.start, self.shared.stop, self.tiles.step
        return sum(first <= start and min(start + size, self.length) <= stop for start in self.tiles)

    @property
    def keys_visited(self) -> int:
        """How many keys there are in the visited tiles; the last tile may reach over the end."""
        return min(self.tiles[-1] + self.tiles.step, self.length) - self.tiles[0]


@dataclass(frozen=True)
class TileCount:
    """What a kernel visits for one layout, window and pair of tiles.

    Args:
        query_tiles: tiles of queries; each dilation group is tiled by itself, so dilation may make more of them.
        full_visits: visits of full attention without dilation, all its query tiles together.
        worst: key tiles that the busiest query tile visits.
        total: visits of all query tiles together.
        partial: visits of tiles that need a mask, since not every query attends every key.
        needed: pairs of query and key that attention is about.
        computed: pairs in the visited tiles.
        flop_speedup: keys of full attention over keys of a window, the bound of a kernel without tiles.
    Example:
        >>> count = count_tiles(Neighborhood((12,), kernel_size=4), query_tile=4, key_tile=4)
        >>> count.worst, count.total, count.speedup, count.flop_speedup, round(count.waste, 2)
        (3, 7, 1.0, 3.0, 0.57)
    """

    query_tiles: int
    full_visits: int
    worst: int
    total: int
    partial: int
    needed: int
    computed: int
    flop_speedup: float

    @property
    def mean(self) -> float:
        """Key tiles that a query tile visits on average."""
        return self.total / self.query_tiles

    @property
    def speedup(self) -> float:
        """The bound over full attention, when all query tiles take as long as the busiest."""
        return self.full_visits / (self.query_tiles * self.worst)

    @property
    def waste(self) -> float:
        """The share of the visited tiles that no query attends: 0 .. 1."""
        return 1 - self.needed / self.computed

    @property
    def is_perfect(self) -> bool:
        """Whether the window is perfectly block-sparse: no visited tile needs a mask, none holds a key in vain."""
        return self.partial == 0


def count_tiles(
    neighborhood: Neighborhood,
    query_tile: int | Sequence[int],
    key_tile: int | Sequence[int],
    tiling: str = "static",
    additional_keys: int = 0,
) -> TileCount:
    """Count the tiles of keys that every tile of queries visits; milliseconds for 100,000 tokens.

    Args:
        query_tile, key_tile: tokens of a tile, one number or one per axis.
        tiling: "static" cuts keys at multiples of the tile (FlexAttention; NATTEN, where it permutes tokens);
            "dynamic" begins with the first key that is needed (NATTEN's FNA for every GPU).
        additional_keys: keys that every query attends beside its window, in tiles of their own.
    Raises:
        ValueError: a tile below 1, another tiling, additional_keys below 0, or more tiles than can be counted.
    Source: Generalized Neighborhood Attention, arXiv:2504.16922, section 3.2.
    Example:
        >>> video = Neighborhood((30, 48, 80), kernel_size=(18, 24, 24), stride=(16, 8, 8))
        >>> count = count_tiles(video, query_tile=(4, 8, 8), key_tile=(2, 8, 8))
        >>> round(count.speedup, 2), count.is_perfect
        (11.11, True)
    """
    query_tile, key_tile = check_tiles(neighborhood, query_tile, key_tile, tiling, additional_keys)
    axes = list(zip(neighborhood.axes, query_tile, key_tile, strict=True))
    by_axis = [axis_tiles(*axis, tiling) for axis in axes]
    query_tiles = math.prod(map(len, by_axis))
    total = math.prod(sum(len(tile.tiles) for tile in tiles) for tiles in by_axis)
    full = math.prod(sum(tile.full for tile in tiles) for tiles in by_axis)
    computed = math.prod(sum(len(tile.queries) * tile.keys_visited for tile in tiles) for tiles in by_axis)
    extra = -(-additional_keys // math.prod(key_tile))
    return TileCount(
        query_tiles,
        full_visits=full_attention_visits(neighborhood.layout, query_tile, key_tile, additional_keys),
        worst=worst_visit(by_axis) + extra,
        total=total + query_tiles * extra,
        partial=total - full,
        needed=math.prod(map(_attended_pairs, neighborhood.axes)) + neighborhood.num_tokens * additional_keys,
        computed=computed + neighborhood.num_tokens * additional_keys,
        flop_speedup=(neighborhood.num_tokens + additional_keys) / (neighborhood.num_keys + additional_keys),
    )


def axis_tiles(
    axis: tuple[int, int, int, int, bool], query_tile: int, key_tile: int, tiling: str = "static"
) -> tuple[AxisTile, ...]:
    """Cut one axis, dilation group by dilation group, into tiles of queries.

    Windows move in one direction only, so the first query of a tile has the first key, and the last query the last.

    Args:
        axis: (length, kernel_size, stride, dilation, is_causal), as ``Neighborhood.axes`` has it.
    Example:
        >>> [len(tile.tiles) for tile in axis_tiles((12, 4, 1, 1, False), 4, 4)]
        [2, 3, 2]
        >>> [len(tile.tiles) for tile in axis_tiles((12, 4, 4, 1, False), 4, 4)]
        [1, 1, 1]
    """
    length, _, _, dilation, _ = axis
    result = []
    for group in range(dilation):
        members = range(group, length, dilation)
        for place in range(0, len(members), query_tile):
            queries = range(place, min(place + query_tile, len(members)))
            first, last = (window(members[m], *axis) for m in (queries[0], queries[-1]))
            begin, end = first[0] // dilation, last[-1] // dilation  # a key's place in the group is key div dilation
            shared = range(last[0] // dilation, first[-1] // dilation + 1)
            start = begin // key_tile * key_tile if tiling == "static" else begin
            tiles = range(start, end + 1, key_tile)
            result.append(AxisTile(group, len(members), queries, range(begin, end + 1), shared, tiles))
    return tuple(result)


def worst_visit(by_axis: Sequence[Sequence[AxisTile]]) -> int:
    """Count the key tiles that the busiest query tile visits: on every axis the busiest.

    Example:
        >>> worst_visit([axis_tiles((12, 4, 1, 1, False), 4, 4), axis_tiles((12, 4, 4, 1, False), 4, 4)])
        3
    """
    return math.prod(max(len(tile.tiles) for tile in tiles) for tiles in by_axis)


def full_attention_visits(
    layout: Sequence[int], query_tile: Sequence[int], key_tile: Sequence[int], additional_keys: int = 0
) -> int:
    """Count the visits of full attention: every tile of queries visits all keys, whose tiles need not know the axes.

    Example:
        >>> full_attention_visits((30, 48, 80), (4, 8, 8), (2, 8, 8)) // (8 * 6 * 10)
        900
    """
    queries = math.prod(-(-length // size) for length, size in zip(layout, query_tile, strict=True))
    keys_per_tile = math.prod(key_tile)
    return queries * (-(-math.prod(layout) // keys_per_tile) + -(-additional_keys // keys_per_tile))


def end_to_end(speedup: float, share: float, full_steps: float = 0.0) -> float:
    """Give the speedup of a whole run whose attention alone becomes faster: Amdahl's law.

    Args:
        speedup: of attention.
        share: of attention in the time of the run, 0 .. 1.
        full_steps: the share of the steps that keep full attention, 0 .. 1.
    Raises:
        ValueError: a share outside 0 .. 1, or no speedup above 0.
    Source: arXiv:2504.16922, section 4.1.
    Example:
        >>> round(end_to_end(11.11, share=0.607), 2), round(end_to_end(11.11, share=0.607, full_steps=15 / 50), 2)
        (2.23, 1.63)
    """
    for name, value in (("share", share), ("full_steps", full_steps)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in 0 .. 1, got {value}")
    if not speedup > 0:
        raise ValueError(f"speedup must be above 0, got {speedup}")
    faster = share * (1 - full_steps)
    return 1 / (1 - faster + faster / speedup)


def check_tiles(
    neighborhood: Neighborhood,
    query_tile: int | Sequence[int],
    key_tile: int | Sequence[int],
    tiling: str = "static",
    additional_keys: int = 0,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Give both tiles an entry per axis, or raise unless they can be counted.

    Raises:
        ValueError: as ``count_tiles``.
    Example:
        >>> check_tiles(Neighborhood((9, 9), 3), 4, (2, 0))
        Traceback (most recent call last):
        ValueError: key_tile on axis 1 must be at least 1, got 0
    """
    sizes = []
    for name, tile in (("query_tile", query_tile), ("key_tile", key_tile)):
        entries = per_axis(name, tile, neighborhood.layout)
        sizes.append(tuple(check_integer(f"{name} on axis {axis}", size) for axis, size in enumerate(entries)))
        for axis, size in enumerate(sizes[-1]):
            if size < 1:
                raise ValueError(f"{name} on axis {axis} must be at least 1, got {size}")
    if tiling not in TILINGS:
        raise ValueError(f"tiling must be 'static' or 'dynamic', got {tiling!r}")
    if check_integer("additional_keys", additional_keys) < 0:
        raise ValueError(f"additional_keys must be at least 0, got {additional_keys}")
    for axis, (length, _, _, dilation, is_causal) in enumerate(neighborhood.axes):
        tiles = -(-length // sizes[0][axis]) + dilation  # at most
        if tiles > MOST_TILES:
            raise ValueError(f"axis {axis} has about {tiles:,} tiles of queries; at most {MOST_TILES:,} are counted")
        if is_causal and length > MOST_CAUSAL:
            raise ValueError(f"axis {axis} is causal and has {length:,} tokens; at most {MOST_CAUSAL:,} are counted")
    return sizes[0], sizes[1]


def _attended_pairs(axis: tuple[int, int, int, int, bool]) -> int:
    """How many pairs of query and key there are on one axis."""
    length, kernel_size, _, _, is_causal = axis
    return sum(len(window(i, *axis)) for i in range(length)) if is_causal else length * kernel_size
