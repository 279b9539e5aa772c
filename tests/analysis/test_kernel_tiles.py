"""Counting tiles: against all pairs of tiles by brute force, and where a closed form is known."""

import functools
import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from dinat_ref import Neighborhood
from dinat_ref.analysis.flat_tiles import count_flat_tiles
from dinat_ref.analysis.kernel_tiles import TileCount, axis_tiles, count_tiles, end_to_end
from tests.oracle import Axis, legal_axes, nearest_window
from tests.strategies import problems


@functools.lru_cache
def group_windows(axis: Axis, group: int) -> list[int]:
    """The windows of a dilation group's queries as sets of places: integers, with a bit for each place."""
    length, _, _, dilation, _ = axis
    return [sum(1 << (j // dilation) for j in nearest_window(i, *axis)) for i in range(group, length, dilation)]


def by_force(axis: Axis, query_tile: int, key_tile: int, tiling: str) -> list[tuple[int, int]]:
    """Visited and full tiles of every query tile of an axis, from all pairs of tiles."""
    found = []
    for group in range(axis[3]):
        windows = group_windows(axis, group)
        exists = (1 << len(windows)) - 1
        for first in range(0, len(windows), query_tile):
            tile = windows[first : first + query_tile]
            begin = 0 if tiling == "static" else min((keys & -keys).bit_length() - 1 for keys in tile)
            pieces = [((1 << key_tile) - 1 << start) & exists for start in range(begin, len(windows), key_tile)]
            visited = [piece for piece in pieces if any(piece & keys for keys in tile)]
            found.append((len(visited), sum(all(piece & keys == piece for keys in tile) for piece in visited)))
    return found


@pytest.mark.parametrize("tiling", ["static", "dynamic"])
def test_every_axis_up_to_length_twelve(tiling, count_cases):
    """All windows and all tiles."""
    count = 0
    for axis in legal_axes(12):
        longest = -(-axis[0] // axis[3])  # of the dilation groups
        for query_tile, key_tile in itertools.product(range(1, longest + 1), repeat=2):
            tiles = axis_tiles(axis, query_tile, key_tile, tiling)
            counted = [(len(tile.tiles), tile.full) for tile in tiles]
            assert counted == by_force(axis, query_tile, key_tile, tiling), (axis, query_tile, key_tile)
            count += 1
    count_cases("tiled axes", count)
    assert count > 20_000


def tile_numbers(neighborhood: Neighborhood, tile: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The tile of every token: on each axis its dilation group, and which tile of the group."""
    steps = list(zip(neighborhood.dilation, tile, strict=True))
    return [
        tuple(part for i, (d, size) in zip(token, steps, strict=True) for part in (i % d, i // d // size))
        for token in neighborhood.tokens()
    ]


def count_pairs(neighborhood: Neighborhood, query_tiles: list, key_tiles: list) -> dict[str, int]:
    """What ``TileCount`` says of fixed tiles, from the dense mask: every pair of tiles that has a pair of tokens."""
    attends = neighborhood.mask()
    rows, columns = (
        {tile: torch.tensor([number for number, own in enumerate(tiles) if own == tile]) for tile in sorted(set(tiles))}
        for tiles in (query_tiles, key_tiles)
    )
    visits, partial, computed = [], 0, 0
    for queries in rows.values():
        pairs = [attends[queries][:, keys] for keys in columns.values()]
        visited = [part for part in pairs if part.any()]
        visits.append(len(visited))
        partial += sum(not bool(part.all()) for part in visited)
        computed += sum(part.numel() for part in visited)
    return {
        "query_tiles": len(visits),
        "worst": max(visits),
        "total": sum(visits),
        "partial": partial,
        "needed": int(attends.sum()),
        "computed": computed,
    }


def fields(count: TileCount, names: dict[str, int]) -> dict[str, int]:
    return {name: getattr(count, name) for name in names}


@given(problems(plain=True), st.data())
def test_any_layout_of_up_to_three_axes(problem, data):
    neighborhood = problem.neighborhood
    query_tile, key_tile = (
        tuple(data.draw(st.integers(1, length), label="tile") for length in problem.layout) for _ in range(2)
    )
    expected = count_pairs(neighborhood, tile_numbers(neighborhood, query_tile), tile_numbers(neighborhood, key_tile))
    assert fields(count_tiles(neighborhood, query_tile, key_tile), expected) == expected


@given(problems(plain=True), st.integers(1, 40), st.integers(1, 40))
def test_flattened_layouts(problem, query_tile, key_tile):
    neighborhood = problem.neighborhood
    numbers = [[number // size for number in range(neighborhood.num_tokens)] for size in (query_tile, key_tile)]
    expected = count_pairs(neighborhood, *numbers)
    assert fields(count_flat_tiles(neighborhood, query_tile, key_tile), expected) == expected


@given(problems(plain=True), st.data())
def test_dynamic_tiles_begin_with_the_first_key(problem, data):
    """n axes of dynamic tiles: each query tile has a grid of its own, so it is counted by itself."""
    neighborhood = problem.neighborhood
    query_tile, key_tile = (
        tuple(data.draw(st.integers(1, length), label="tile") for length in problem.layout) for _ in range(2)
    )
    members: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for token, tile in zip(neighborhood.tokens(), tile_numbers(neighborhood, query_tile), strict=True):
        members.setdefault(tile, []).append(token)
    visits = []
    for queries in members.values():
        keys = {key for query in queries for key in neighborhood.neighbors(query)}
        places = [tuple(i // d for i, d in zip(key, neighborhood.dilation, strict=True)) for key in keys]
        first = [min(column) for column in zip(*places, strict=True)]
        visits.append(
            len(
                {
                    tuple((i - low) // size for i, low, size in zip(place, first, key_tile, strict=True))
                    for place in places
                }
            )
        )
    count = count_tiles(neighborhood, query_tile, key_tile, tiling="dynamic")
    assert (count.worst, count.total) == (max(visits), sum(visits))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 30))
def test_dynamic_tiling_is_perfect_where_tiles_divide_kernel_and_stride(key_tile, query_tile, keys, queries, more):
    """The paper's condition, on every axis: key_tile divides kernel_size, query_tile divides stride."""
    kernel_size = key_tile * keys
    stride = min(query_tile * queries, kernel_size // query_tile * query_tile)
    if stride < 1:
        query_tile = stride = kernel_size
    length = kernel_size + more
    count = count_tiles(Neighborhood((length,), kernel_size, stride), query_tile, key_tile, tiling="dynamic")
    assert count.is_perfect
    assert count.waste == 0
    assert count.worst == keys
    assert count.speedup == pytest.approx(math.ceil(length / key_tile) / keys)  # length / kernel_size, but for the end


@given(problems(plain=True), st.integers(1, 5), st.sampled_from(["static", "dynamic"]))
def test_laws(problem, size, tiling):
    count = count_tiles(problem.neighborhood, size, size, tiling)
    assert count.is_perfect == (count.waste == 0)
    assert 0 <= count.waste < 1
    assert count.mean <= count.worst
    more = count_tiles(problem.neighborhood, size, size, tiling, additional_keys=3)
    extra = math.ceil(3 / size**problem.neighborhood.ndim)
    assert more.worst == count.worst + extra
    assert more.total == count.total + extra * count.query_tiles
    rounded = math.ceil(problem.neighborhood.num_tokens / size**problem.neighborhood.ndim)
    assert more.full_visits == count.full_visits + extra * count.full_visits // rounded
    assert (
        count.speedup
        <= count.flop_speedup * rounded * size**problem.neighborhood.ndim / problem.neighborhood.num_tokens
    )
    assert more.flop_speedup <= count.flop_speedup
    assert more.partial == count.partial


def test_full_attention_gains_nothing():
    count = count_tiles(Neighborhood((6, 12), (6, 12)), (4, 4), (3, 4))
    assert (count.speedup, count.flop_speedup, count.waste, count.is_perfect) == (1, 1, 0, True)
    assert (count.worst, count.query_tiles) == (6, 6)


def test_tiles_of_keys_that_hang_over_the_end_gain_less():
    """Full attention of 7 x 12 tokens takes 6 tiles of 15 keys; tiles of 3 x 5 take 9, of which 5 hang over an end."""
    count = count_tiles(Neighborhood((7, 12), (7, 12)), (4, 4), (3, 5))
    assert (count.worst, count.full_visits // count.query_tiles) == (9, 6)
    assert count.speedup == 6 / 9
    assert count.is_perfect


def test_groups_that_do_not_fill_their_tiles_cost_query_tiles():
    """20 tokens in 5 groups of 4: five half-empty tiles of 8 queries for the three that full attention has."""
    count = count_tiles(Neighborhood((20,), kernel_size=4, dilation=5), query_tile=8, key_tile=4)
    assert (count.query_tiles, count.worst, count.full_visits) == (5, 1, 3 * 5)
    assert count.speedup == 3
    assert count.flop_speedup == 5
    assert count.is_perfect


def test_flattened_tiles_are_tiles_of_one_axis():
    for arguments in ((100, 7, 3), (64, 16, 8), (50, 50, 50), (33, 4, 1)):
        sequence = Neighborhood(arguments[:1], *arguments[1:])
        assert count_flat_tiles(sequence, 16, 8) == count_tiles(sequence, 16, 8)


@pytest.mark.parametrize(
    ("speedup", "share", "full_steps", "expected"),
    [
        (5.0, 0.0, 0.0, 1.0),
        (5.0, 1.0, 0.0, 5.0),
        (5.0, 1.0, 1.0, 1.0),
        (2.0, 0.5, 0.5, 1 / 0.875),
    ],
)
def test_amdahl(speedup, share, full_steps, expected):
    assert end_to_end(speedup, share, full_steps) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query_tile": (4, 4, 4)}, "query_tile must have one entry per axis"),
        ({"query_tile": (4, 0)}, "query_tile on axis 1 must be at least 1, got 0"),
        ({"key_tile": -1}, "key_tile on axis 0 must be at least 1, got -1"),
        ({"tiling": "sideways"}, "tiling must be 'static' or 'dynamic', got 'sideways'"),
        ({"additional_keys": -2}, "additional_keys must be at least 0, got -2"),
    ],
)
def test_illegal_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        count_tiles(Neighborhood((8, 9), 3), **{"query_tile": 4, "key_tile": 4, **arguments})


def test_what_cannot_be_counted_is_refused_before_any_work():
    with pytest.raises(ValueError, match="axis 0 has about 50,000,001 tiles of queries; at most 250,000 are"):
        count_tiles(Neighborhood((50_000_000,), 3), 1, 1)
    with pytest.raises(ValueError, match="axis 0 is causal and has 50,000,000 tokens; at most 2,000,000 are"):
        count_tiles(Neighborhood((50_000_000,), 3, is_causal=True), 1000, 1)
    with pytest.raises(ValueError, match="keys to place in tiles; at most"):
        count_flat_tiles(Neighborhood((1000, 1000, 1000), 99), 128, 128)
    for wrong, message in (
        ({"share": 1.5}, "share must be in 0 .. 1, got 1.5"),
        ({"speedup": 0}, "speedup must be above"),
    ):
        with pytest.raises(ValueError, match=message):
            end_to_end(**{"speedup": 2.0, "share": 0.5, **wrong})
