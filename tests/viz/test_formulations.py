"""The drawings of the formulations show the tables, windows, tiles and groups that attention uses."""

import itertools
from collections import Counter

import matplotlib.colors
import pytest
from matplotlib.axes import Axes

from dinat_ref import Neighborhood
from dinat_ref.attention.cut import axis_tiles
from dinat_ref.viz.formulations import (
    draw_groups,
    draw_index_table,
    draw_numbers,
    draw_sliding_windows,
    draw_tile,
    draw_tile_scores,
)
from dinat_ref.viz.theme import GROUP, KEY, QUERY, new_figure


def blank() -> Axes:
    return new_figure()[1][0, 0]


def cells(axes: Axes, color: str) -> set[tuple[float, float]]:
    """Row and column of all cells of one colour."""
    wanted = matplotlib.colors.to_rgba(color)
    single = [patch for patch in axes.patches if patch.get_facecolor() == wanted]
    corners = [(patch.get_y(), patch.get_x()) for patch in single]
    for collection in axes.collections:
        if tuple(collection.get_facecolor()[0]) == wanted:
            corners += [tuple(path.vertices[0][::-1]) for path in collection.get_paths()]
    return {(float(y) + 0.5, float(x) + 0.5) for y, x in corners}


def numbers(axes: Axes) -> dict[tuple[float, float], int]:
    return {(text.get_position()[1], text.get_position()[0]): int(text.get_text()) for text in axes.texts}


@pytest.mark.parametrize(
    "neighborhood", [Neighborhood((7, 8), 3), Neighborhood((6, 9), (2, 3), 2, (3, 1)), Neighborhood((4, 5), (3, 4))]
)
def test_the_table_is_the_one_that_gather_uses(neighborhood: Neighborhood) -> None:
    queries = [0, 7, neighborhood.num_tokens - 1]
    shown = numbers(draw_index_table(neighborhood, queries, blank()))
    for (row, slot), number in shown.items():
        assert number == neighborhood.indices()[queries[int(row)], int(slot)]
    assert len(shown) == 3 * neighborhood.num_keys
    tokens = numbers(draw_numbers(neighborhood, queries, blank()))
    assert {token: neighborhood.number(token) for token in neighborhood.tokens()} == tokens


@pytest.mark.parametrize(("length", "kernel_size", "stride"), [(5, 3, 1), (8, 4, 1), (9, 4, 3), (6, 6, 1)])
def test_each_query_takes_the_window_that_it_attends(length: int, kernel_size: int, stride: int) -> None:
    neighborhood = Neighborhood((length,), kernel_size, stride)
    axes = draw_sliding_windows(neighborhood, 0, blank())
    dots = Counter((float(x), float(y)) for line in axes.lines for x, y in zip(*line.get_data(), strict=True))
    assert len(dots) == dots.total() == length
    blue = cells(axes, KEY)
    for query, row in dots:
        assert {x for y, x in blue if y == row} == set(neighborhood.windows(0)[int(query)])


@pytest.mark.parametrize(
    "neighborhood", [Neighborhood((7, 8), 3), Neighborhood((9, 6), (4, 3), 1, (2, 1)), Neighborhood((8, 8), 4, 2)]
)
def test_blue_scores_are_all_keys_of_the_queries_and_the_slab_holds_them(neighborhood: Neighborhood) -> None:
    seen = []
    for row in axis_tiles(neighborhood, 0, 2):
        for column in axis_tiles(neighborhood, 1, 2):
            queries = [(i, j) for i in row.queries for j in column.queries]
            keys = [(i, j) for i in row.keys for j in column.keys]
            blue = cells(draw_tile_scores(neighborhood, (row, column), blank()), KEY)
            for number, query in enumerate(queries):
                assert {keys[int(slot)] for at, slot in blue if at == number} == set(neighborhood.neighbors(query))
            axes = draw_tile(neighborhood, (row, column), blank())
            assert cells(axes, QUERY) == set(queries)
            assert cells(axes, GROUP) == set(keys)
            seen += queries
    assert sorted(seen) == sorted(neighborhood.tokens())  # every query is in one tile


@pytest.mark.parametrize("apart", [False, True])
def test_groups_are_pulled_apart_without_loss_and_windows_become_dense(apart: bool) -> None:
    neighborhood = Neighborhood((7, 8), kernel_size=3, dilation=(2, 2))
    axes = draw_groups(neighborhood, (2, 5), blank(), apart=apart)
    shown = numbers(axes)
    assert sorted(shown.values()) == list(range(56))
    window = {neighborhood.coordinates(shown[at]) for at in cells(axes, KEY) | cells(axes, QUERY)}
    assert window == set(neighborhood.neighbors((2, 5)))
    rows, columns = (sorted({at[axis] for at in cells(axes, KEY)}) for axis in (0, 1))
    step = 1 if apart else 2
    assert [b - a for a, b in itertools.pairwise(rows)] == pytest.approx([step] * 2)
    assert [b - a for a, b in itertools.pairwise(columns)] == pytest.approx([step] * 2)


@pytest.mark.parametrize("layout", [(9,), (3, 3, 3)])
def test_only_two_axes_are_drawn(layout: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a layout of two axes, got"):
        draw_numbers(Neighborhood(layout, 3), [0], blank())
