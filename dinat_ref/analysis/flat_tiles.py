"""Tiles of a flattened layout: what a kernel for sequences visits when it is handed the tokens of an image or a video.

A tile of 128 consecutive tokens is a long, flat strip of the layout. The windows of its queries need few tokens of
each of many rows, and every row is in tiles of its own: the curse of multi-dimensionality. ``dinat_ref.interop.flex``
permutes tokens so that such a kernel works on tiles of any shape.
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

from dinat_ref.analysis.kernel_tiles import TileCount, check_tiles, full_attention_visits
from dinat_ref.neighborhood import Neighborhood

MOST_STEPS = 2_000_000_000


def count_flat_tiles(neighborhood: Neighborhood, query_tile: int, key_tile: int, additional_keys: int = 0) -> TileCount:
    """Count the tiles that are visited when tokens are cut in row-major order, whatever their axes; about a second.

    Dilation groups are not gathered, since nothing is permuted: a dilated window touches the tiles of its whole extent.

    Args:
        query_tile, key_tile: consecutive tokens of a tile, 128 for FlexAttention.
    Raises:
        ValueError: a tile below 1, additional_keys below 0, or a layout too large to be counted pair by pair.
    Source: arXiv:2504.16922, section 3.1; arXiv:2403.04690, section 3.
    Example:
        >>> from dinat_ref.analysis.kernel_tiles import count_tiles
        >>> for stride in (1, 8):
        ...     image = Neighborhood((64, 64), kernel_size=24, stride=stride)
        ...     print(count_flat_tiles(image, 64, 64).worst, count_tiles(image, (8, 8), (8, 8)).worst)
        24 25
        24 9
    """
    (query_tile, *_), (key_tile, *_) = check_tiles(neighborhood, query_tile, key_tile, "static", additional_keys)
    tokens, row_length = neighborhood.num_tokens, neighborhood.layout[-1]
    steps = (tokens // query_tile + tokens // row_length) * neighborhood.num_keys
    if steps > MOST_STEPS:
        raise ValueError(f"{neighborhood.layout} has {steps:,} keys to place in tiles; at most {MOST_STEPS:,} are")

    key_starts = np.arange(0, tokens, key_tile)
    key_sizes = np.minimum(key_tile, tokens - key_starts)
    visits, full, computed = [], 0, 0
    for start in range(0, tokens, query_tile):
        queries = range(start, min(start + query_tile, tokens))
        pairs = np.zeros(len(key_starts))  # of query and key, in every tile of keys
        for row in range(queries[0] // row_length, queries[-1] // row_length + 1):
            in_row = range(max(queries[0] - row * row_length, 0), min(queries[-1] + 1 - row * row_length, row_length))
            attending = _attending(neighborhood, in_row)  # [row_length]
            places = attending.nonzero()[0]
            keys = _attended_rows(neighborhood, row)[:, None] * row_length + places  # [rows, places]
            counts = np.broadcast_to(attending[places], keys.shape)
            pairs += np.bincount((keys // key_tile).ravel(), counts.ravel(), minlength=len(pairs))
        visited = pairs > 0
        visits.append(int(visited.sum()))
        full += int((pairs == len(queries) * key_sizes).sum())
        computed += len(queries) * int(key_sizes[visited].sum())

    extra = -(-additional_keys // key_tile)
    attended = math.prod(sum(map(len, neighborhood.windows(axis))) for axis in range(neighborhood.ndim))
    return TileCount(
        len(visits),
        full_visits=full_attention_visits((tokens,), (query_tile,), (key_tile,), additional_keys),
        worst=max(visits) + extra,
        total=sum(visits) + len(visits) * extra,
        partial=sum(visits) - full,
        needed=attended + tokens * additional_keys,
        computed=computed + tokens * additional_keys,
        flop_speedup=(tokens + additional_keys) / (neighborhood.num_keys + additional_keys),
    )


def _attending(neighborhood: Neighborhood, queries: range) -> NDArray[np.int64]:
    """How many of some queries attend each place of the last axis."""
    attending = np.zeros(neighborhood.layout[-1], dtype=np.int64)
    for keys in neighborhood.windows(-1)[queries.start : queries.stop]:
        attending[keys.start : keys.stop : keys.step] += 1
    return attending


@functools.lru_cache(maxsize=4)  # the rows of one tile of queries
def _attended_rows(neighborhood: Neighborhood, row: int) -> NDArray[np.int64]:
    """The numbers of the rows in which a query of a row has keys."""
    place, numbers = row, np.zeros(1, dtype=np.int64)
    leading = list(range(neighborhood.ndim - 1))
    coordinates = []
    for axis in reversed(leading):
        place, i = divmod(place, neighborhood.layout[axis])
        coordinates.append(i)
    for axis, i in zip(leading, reversed(coordinates), strict=True):
        keys = np.asarray(neighborhood.windows(axis)[i])
        numbers = (numbers[:, None] * neighborhood.layout[axis] + keys).ravel()
    return numbers
