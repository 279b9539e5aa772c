"""Drawings show what the definition says: colours are read back from the axes, never compared as pictures."""

import hypothesis.strategies as st
import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_hex

from dinat_ref import Neighborhood, window
from dinat_ref.analysis.receptive_field import layers_to_reach
from dinat_ref.viz.atlas import draw_pattern, patterns
from dinat_ref.viz.attention import draw_attention, draw_photo
from dinat_ref.viz.bias import draw_bias
from dinat_ref.viz.grid import default_view, lay_out
from dinat_ref.viz.inverse import draw_attended_by, draw_attention_counts
from dinat_ref.viz.receptive_field import draw_receptive_field
from dinat_ref.viz.theme import ACCENT, GROUP, HOUSE, KEY, QUERY, new_figure
from dinat_ref.viz.windows import draw_window, outline_window


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Neighborhood, tuple[int, ...]]:
    layout = tuple(draw(st.lists(st.integers(3, 11), min_size=1, max_size=2)))
    kernel = tuple(draw(st.integers(1, length)) for length in layout)
    dilation = tuple(draw(st.integers(1, length // size)) for length, size in zip(layout, kernel, strict=True))
    stride = tuple(draw(st.integers(1, size)) for size in kernel)
    causal = tuple(draw(st.booleans()) for _ in layout)
    token = tuple(draw(st.integers(0, length - 1)) for length in layout)
    return Neighborhood(layout, kernel, stride, dilation, causal), token


def cells(axes: Axes, color: str) -> set[tuple[int, int]]:
    """The (row, column) of every cell drawn in a colour."""
    found = set()
    for collection in axes.collections:
        if isinstance(collection, PatchCollection) and to_hex(collection.get_facecolor()[0]) == color.lower():
            for path in collection.get_paths():
                column, row = path.vertices[:4].mean(0)
                found.add((round(float(row)), round(float(column))))
    return found


def as_rows(tokens: list[tuple[int, ...]]) -> set[tuple[int, ...]]:
    return {(0, *token) if len(token) == 1 else token for token in tokens}


@given(scenes())
def test_blue_cells_are_the_neighbors(scene: tuple[Neighborhood, tuple[int, ...]]) -> None:
    neighborhood, token = scene
    axes = draw_window(neighborhood, token, new_figure()[1][0, 0])
    assert cells(axes, KEY) == as_rows(neighborhood.neighbors(token))
    assert cells(axes, QUERY) == as_rows([token])
    if max(neighborhood.dilation) > 1:
        same = [
            other
            for other in neighborhood.tokens()
            if all((i - j) % d == 0 for i, j, d in zip(other, token, neighborhood.dilation, strict=True))
        ]
        assert cells(axes, GROUP) == as_rows(same)


@given(scenes())
def test_green_cells_are_the_inverse_neighborhood(scene: tuple[Neighborhood, tuple[int, ...]]) -> None:
    neighborhood, token = scene
    axes = draw_attended_by(neighborhood, token, new_figure()[1][0, 0])
    expected = [other for other in neighborhood.tokens() if token in neighborhood.neighbors(other)]
    assert cells(axes, ACCENT) == as_rows(expected)


@given(scenes())
def test_counts_are_the_column_sums_of_the_mask(scene: tuple[Neighborhood, tuple[int, ...]]) -> None:
    neighborhood, _ = scene
    axes = draw_attention_counts(neighborhood, new_figure()[1][0, 0])
    drawn = np.asarray(axes.images[0].get_array()).ravel()
    np.testing.assert_array_equal(drawn, neighborhood.mask().sum(0).numpy())


@given(scenes())
def test_the_view_holds_the_window(scene: tuple[Neighborhood, tuple[int, ...]]) -> None:
    neighborhood, token = scene
    for factor in (1, 50):  # the same neighborhood on a layout too large to draw whole
        layout = tuple(length * factor for length in neighborhood.layout)
        large = Neighborhood(layout, neighborhood.kernel_size, dilation=neighborhood.dilation)
        axes = draw_window(large, token, new_figure()[1][0, 0])
        left, right = axes.get_xlim()
        bottom, top = axes.get_ylim()
        for row, column in as_rows(large.neighbors(token)):
            assert left <= column <= right
            assert top <= row <= bottom
        assert cells(axes, KEY) == as_rows(large.neighbors(token))


def test_an_edge_is_seen_by_a_dashed_outline_and_an_arrow() -> None:
    def shift_marks(token: tuple[int, int]) -> tuple[int, int]:
        axes = draw_window(Neighborhood((12, 12), 5), token, new_figure()[1][0, 0], legend=False)
        return sum(patch.get_linestyle() != "solid" for patch in axes.patches), len(axes.texts)

    assert shift_marks((6, 6)) == (0, 0)
    assert shift_marks((0, 6)) == (1, 1)
    assert default_view([lay_out(Neighborhood((12, 12), 5), (0, 6))]) == ((-2, 12), (0, 12))


@pytest.mark.parametrize("name", patterns())
def test_patterns_are_windows(name: str) -> None:
    layer = patterns(16)[name]
    drawn = np.asarray(draw_pattern(layer, new_figure()[1][0, 0]).images[0].get_array()) > 0
    for query, keys in enumerate(layer.windows(0)):
        assert sorted(np.flatnonzero(drawn[query])) == sorted(keys)


def test_lines_between_cells_stop_where_they_would_hide_them() -> None:
    for length in (64, 65):
        axes = draw_pattern(Neighborhood((length,), 5), new_figure()[1][0, 0])
        assert len(axes.get_xticks(minor=True)) == (length - 1 if length == 64 else 0)


@pytest.mark.parametrize("shape", [(20, 31), (150, 130)])
def test_field_shows_its_holes(shape: tuple[int, int]) -> None:
    reached = layers_to_reach([Neighborhood(shape, 3, dilation=4)] * 2, (9, 11)).numpy()
    drawn = np.asarray(draw_receptive_field(reached, new_figure()[1][0, 0]).images[0].get_array())
    seen = reached >= 0
    np.testing.assert_array_equal(drawn[seen], reached[seen])  # larger, perhaps, but never another colour
    assert (drawn == -1).any()


def test_attention_colours_are_the_weights() -> None:
    neighborhood = Neighborhood((30, 40), 5, dilation=3)
    weights = torch.zeros(30, 40)
    for number, (row, column) in enumerate(neighborhood.neighbors((2, 20))):
        weights[row, column] = number
    axes = draw_attention(np.zeros((30, 40, 3)), weights.numpy(), neighborhood, (2, 20), new_figure()[1][0, 0])
    squares = next(found for found in axes.collections if isinstance(found, PatchCollection))
    np.testing.assert_array_equal(np.asarray(squares.get_array()), np.arange(25) * 25)


def test_outlines_hold_every_key() -> None:
    neighborhood = Neighborhood((60, 80), (5, 3), dilation=(4, 7))
    axes = outline_window(new_figure()[1][0, 0], neighborhood, (59, 0), label="A")
    outline = axes.patches[0].get_bbox()  # type: ignore[attr-defined]
    rows, columns = window(59, 60, 5, dilation=4), window(0, 80, 3, dilation=7)
    assert (outline.y0, outline.y1) == (rows[0] - 0.5, rows[-1] + 0.5)
    assert (outline.x0, outline.x1) == (columns[0] - 0.5, columns[-1] + 0.5)


def test_bias_frames_the_interior_offsets() -> None:
    axes = draw_bias(np.zeros((13, 9)), new_figure()[1][0, 0])
    frame = axes.patches[0].get_bbox()  # type: ignore[attr-defined]
    offsets = [key - 20 for key in window(20, 41, 7)], [key - 20 for key in window(20, 41, 5)]
    assert (frame.y0, frame.y1) == (offsets[0][0] - 0.5, offsets[0][-1] + 0.5)
    assert (frame.x0, frame.x1) == (offsets[1][0] - 0.5, offsets[1][-1] + 0.5)


def test_drawing_leaves_the_settings_alone() -> None:
    before = dict(matplotlib.rcParams)
    draw_window(Neighborhood((9,), 3), (0,), new_figure()[1][0, 0])
    assert dict(matplotlib.rcParams) == before
    assert any(before[name] != value for name, value in HOUSE.items())


def test_refuses_what_cannot_be_drawn() -> None:
    axes = new_figure()[1][0, 0]
    with pytest.raises(ValueError, match="one or two axes"):
        draw_window(Neighborhood((5, 5, 5), 3), (0, 0, 0), axes)
    with pytest.raises(ValueError, match="photo must be"):
        draw_photo(np.zeros((5, 5, 4)), axes)
    with pytest.raises(ValueError, match="one layout of two axes"):
        draw_attention(np.zeros((5, 5)), np.zeros((5, 6)), Neighborhood((5, 5), 3), (0, 0), axes)
    with pytest.raises(ValueError, match="0 at the token itself"):
        draw_receptive_field(np.ones((5, 5)), axes)
    with pytest.raises(ValueError, match="num_layers must be at least"):
        draw_receptive_field(np.arange(5), axes, num_layers=3)
    with pytest.raises(ValueError, match="table must be"):
        draw_bias(np.zeros((4, 4)), axes)
    with pytest.raises(ValueError, match="drawn of one axis"):
        draw_pattern(Neighborhood((5, 5), 3), axes)
