"""Which windows and strides are worth having: those that no closer one outruns.

A stride of s queries on an axis makes s queries share a window. The fewer share, the closer attention is to a sliding
window, and the more tiles a kernel visits in vain. The front keeps what is between: ordered by how many queries share a
window, each choice is faster than all before it; a larger stride that is no faster goes, as in the paper.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dinat_ref.analysis.kernel_tiles import (
    TileCount,
    axis_tiles,
    check_tiles,
    count_tiles,
    full_attention_visits,
    worst_visit,
)
from dinat_ref.analysis.tile_shapes import Pair
from dinat_ref.command import show_progress
from dinat_ref.neighborhood import Neighborhood, per_axis

MOST_STEPS = 500_000  # tiles of queries that are looked at for the strides of an axis
MOST_WINDOWS = 200_000


@dataclass(frozen=True)
class Choice:
    """A window and a stride with the tiles that serve them best.

    Example:
        >>> front = stride_front(Neighborhood((256, 256), 80), [((16, 16), (16, 8))])
        >>> [choice.neighborhood.stride for choice in front]
        [(1, 1), (16, 1), (16, 16)]
    """

    neighborhood: Neighborhood
    query_tile: tuple[int, ...]
    key_tile: tuple[int, ...]
    count: TileCount

    @property
    def sharing(self) -> int:
        """How many queries share a window: the product of the strides."""
        return math.prod(self.neighborhood.stride)


def stride_front(
    neighborhood: Neighborhood, tiles: Sequence[Pair], tiling: str = "static", additional_keys: int = 0
) -> list[Choice]:
    """Find the strides of a window that are worth having, over all tiles; the stride of ``neighborhood`` is ignored.

    Args:
        tiles: (tile of queries, tile of keys), at least one pair.
    Raises:
        ValueError: as ``count_tiles``, or an axis with too many strides to try.
    Source: arXiv:2504.16922, section 4.1 and appendix B.1.
    Example:
        >>> video = Neighborhood((30, 48, 80), (18, 24, 24))
        >>> for choice in stride_front(video, [((4, 8, 8), (2, 8, 8))])[-3:]:
        ...     print(choice.neighborhood.stride, round(choice.count.speedup, 2))
        (1, 8, 8) 9.09
        (2, 8, 8) 10.0
        (16, 8, 8) 11.11
    """
    candidates = [one for pair in tiles for one in _candidates(neighborhood, pair, tiling, additional_keys)]
    return [candidate.choice(tiling, additional_keys) for candidate in pareto(candidates)]


def window_front(
    layout: Sequence[int],
    sparsity: float,
    tiles: Sequence[Pair],
    tiling: str = "static",
    dilation: int | Sequence[int] = 1,
    at_least: int | Sequence[int] = 1,
    additional_keys: int = 0,
) -> list[Choice]:
    """Find the windows and strides that are worth having among the largest windows of a sparsity.

    A window is as wide as some tiles of keys, or as its axis, and as wide as the budget allows: on no axis is there
    room for another tile.

    Args:
        sparsity: the share of the tokens that a query must not attend, at least; 0 .. 1.
        at_least: the narrowest window, one number or one per axis.
    Raises:
        ValueError: a sparsity outside 0 .. 1, no window of it, or as ``stride_front``.
    Source: arXiv:2504.16922, section 4.1.
    Example:
        >>> front = window_front((256, 256), 0.9, [((16, 16), (16, 8))], at_least=80)
        >>> [(choice.neighborhood.kernel_size, choice.neighborhood.stride) for choice in front]
        [((80, 80), (1, 1)), ((80, 80), (16, 1)), ((80, 80), (16, 16))]
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be at least 0 and below 1, got {sparsity}")
    layout = tuple(layout)
    dilation, narrowest = per_axis("dilation", dilation, layout), per_axis("at_least", at_least, layout)
    keys = int((1 - sparsity) * math.prod(layout) + 1e-9)
    windows: list[tuple[Pair, Neighborhood]] = []
    for pair in tiles:
        check_tiles(Neighborhood(layout, 1, 1, dilation), *pair, tiling, additional_keys)
        widths = [
            [width for width in sorted({*range(size, most + 1, size), most}) if width >= low]
            for size, most, low in zip(pair[1], map(int.__floordiv__, layout, dilation), narrowest, strict=True)
        ]
        if math.prod(map(len, widths)) > MOST_WINDOWS:
            raise ValueError(
                f"{math.prod(map(len, widths)):,} windows to try, more than {MOST_WINDOWS:,}; set at_least"
            )
        windows += [(pair, Neighborhood(layout, window, 1, dilation)) for window in _largest(widths, keys)]
    if not windows:
        raise ValueError(f"no window of at least {narrowest} keys has a sparsity of {sparsity} on {layout}")

    front: list[Candidate] = []
    for number, (pair, neighborhood) in enumerate(windows, start=1):
        if number % 100 == 1:
            show_progress(f"window {number} of {len(windows)}")
        front = pareto([*front, *_candidates(neighborhood, pair, tiling, additional_keys)])
    show_progress("")
    return [candidate.choice(tiling, additional_keys) for candidate in front]


class Candidate(NamedTuple):
    """A window, a stride and a pair of tiles with nothing counted but the speedup.

    Example:
        >>> Candidate(1, 2.0, Neighborhood((9,), 3), (1,), ((2,), (2,))).choice("static").count.query_tiles
        5
    """

    sharing: int
    speedup: float
    neighborhood: Neighborhood
    stride: tuple[int, ...]
    pair: Pair

    def choice(self, tiling: str, additional_keys: int = 0) -> Choice:
        """Count all there is to count."""
        window = self.neighborhood
        strided = Neighborhood(window.layout, window.kernel_size, self.stride, window.dilation, window.is_causal)
        return Choice(strided, *self.pair, count_tiles(strided, *self.pair, tiling, additional_keys))


def pareto(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Keep the candidates that are faster than all in which as many queries, or fewer, share a window.

    Of equals the widest window stays.

    Example:
        >>> window, pair = Neighborhood((9,), 3), ((2,), (2,))
        >>> some = [Candidate(*pace, window, pace[:1], pair) for pace in ((1, 2.0), (2, 2.0), (3, 2.5))]
        >>> [candidate.stride for candidate in pareto(some)]
        [(1,), (3,)]
    """
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda one: (one.sharing, -one.speedup, -one.neighborhood.num_keys)):
        if not front or candidate.speedup > front[-1].speedup * (1 + 1e-9):
            front.append(candidate)
    return front


def _candidates(neighborhood: Neighborhood, pair: Pair, tiling: str, additional_keys: int) -> Iterator[Candidate]:
    """The window with all strides of which no smaller one, on any axis, does as well."""
    query_tile, key_tile = check_tiles(neighborhood, *pair, tiling, additional_keys)
    visits = full_attention_visits(neighborhood.layout, query_tile, key_tile, additional_keys)
    extra = -(-additional_keys // math.prod(key_tile))
    axes = zip(neighborhood.axes, query_tile, key_tile, strict=True)
    by_axis = [_axis_strides(axis[0], axis[1], axis[3], axis[4], *own, tiling) for axis, *own in axes]
    for combined in itertools.product(*by_axis):
        strides, worst, query_tiles = zip(*combined, strict=True)
        speedup = visits / (math.prod(query_tiles) * (math.prod(worst) + extra))
        yield Candidate(math.prod(strides), speedup, neighborhood, strides, pair)


@functools.lru_cache(maxsize=4096)
def _axis_strides(
    length: int, kernel_size: int, dilation: int, is_causal: bool, query_tile: int, key_tile: int, tiling: str
) -> tuple[tuple[int, int, int], ...]:
    """The strides of one axis that visit fewer tiles, at worst, than every smaller one; those visits; query tiles."""
    fewest = -(-kernel_size // key_tile)
    found: list[tuple[int, int, int]] = []
    steps = 0
    for stride in range(1, kernel_size + 1):
        tiles = axis_tiles((length, kernel_size, stride, dilation, is_causal), query_tile, key_tile, tiling)
        worst = worst_visit([tiles])
        if not found or worst < found[-1][1]:
            found.append((stride, worst, len(tiles)))
        steps += len(tiles)
        if found[-1][1] <= fewest:  # no stride visits fewer
            break
        if steps > MOST_STEPS:
            raise ValueError(f"an axis of {length:,} tokens has too many strides to try them all up to {kernel_size:,}")
    return tuple(found)


def _largest(widths: Sequence[Sequence[int]], most: int) -> Iterator[tuple[int, ...]]:
    """The windows of at most so many keys that have no wider neighbor of at most so many keys."""
    wider = [dict(itertools.pairwise(own)) for own in widths]
    for leading in itertools.product(*widths[:-1]):
        fitting = [width for width in widths[-1] if math.prod(leading) * width <= most]
        if fitting:
            window = (*leading, fitting[-1])
            keys = math.prod(window)
            if all(
                keys // width * step.get(width, most * width + 1) > most
                for width, step in zip(window, wider, strict=True)
            ):
                yield window
