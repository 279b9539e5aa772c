"""What each formulation does with the tokens: the table, the windows, the tiles and the groups that it works on.

The loops and the mask need no drawing of their own: a window and a matrix say it all. Tokens carry their row-major
numbers, and one colour each where they are copied, so that a copy can be recognised.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from dinat_ref.attention.cut import Tile
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.viz.grid import box, draw_cells, draw_layout, lay_out, set_view
from dinat_ref.viz.theme import GRID, GROUP, INK, KEY, QUERY, TIMES, TOKEN, WEIGHTS, housed, plain_axes
from dinat_ref.window import dilation_group

GROUPS = (GROUP, "#F6CFA8", "#B7E0C8", "#E3C3D8", "#F3E3A0", "#D5D5E8")  # pale, so that numbers stay legible


@housed
def draw_numbers(neighborhood: Neighborhood, queries: Sequence[int], axes: Axes, title: str | None = None) -> Axes:
    """Draw the tokens of a layout, with numbers and a colour for each, and outline the windows of some queries.

    Args:
        queries: row-major numbers.
    Raises:
        ValueError: the layout has not two axes.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> axes = draw_numbers(Neighborhood((4, 5), 3), [0, 7], new_figure()[1][0, 0])
        >>> [text.get_text() for text in axes.texts][:3], len(axes.lines)
        (['0', '1', '2'], 2)
    """
    rows, columns = _two_axes(neighborhood)
    for i, j in neighborhood.tokens():
        number = neighborhood.number((i, j))
        _cell(axes, (i, j), number, _color(number, neighborhood.num_tokens))
    for query in queries:
        sheet = lay_out(neighborhood, neighborhood.coordinates(query))
        axes.add_patch(box(*sheet.window, edgecolor=QUERY, linewidth=2.0, zorder=4))
        axes.plot([sheet.token[1] + 0.3], [sheet.token[0] - 0.3], marker="o", markersize=4, color=QUERY, zorder=5)
    set_view(axes, ((0, rows), (0, columns)))
    axes.set_title("the tokens" if title is None else title)
    return axes


@housed
def draw_index_table(neighborhood: Neighborhood, queries: Sequence[int], axes: Axes, title: str | None = None) -> Axes:
    """Draw the rows of some queries in the table of indices: the numbers of their keys, in the keys' own colours.

    Args:
        queries: row-major numbers.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> axes = draw_index_table(Neighborhood((4, 5), 3), [0, 7], new_figure()[1][0, 0])
        >>> [text.get_text() for text in axes.texts][:9]
        ['0', '1', '2', '5', '6', '7', '10', '11', '12']
    """
    indices = neighborhood.indices()[list(queries)]  # [queries, K]
    for row, keys in enumerate(indices.tolist()):
        for slot, key in enumerate(keys):
            _cell(axes, (row, slot), key, _color(key, neighborhood.num_tokens))
    set_view(axes, ((0, len(queries)), (0, neighborhood.num_keys)))
    axes.set_yticks(range(len(queries)), [f"query {query}" for query in queries])
    axes.tick_params(length=0)
    axes.set_title(f"{neighborhood.num_keys} keys of each query" if title is None else title)
    return axes


@housed
def draw_sliding_windows(neighborhood: Neighborhood, axis: int, axes: Axes, title: str | None = None) -> Axes:
    """Draw all windows that ``unfold`` makes of one axis, a row each, and with dots the queries that take them.

    Args:
        axis: without dilation, which would make several axes of it, and without causality.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> axes = draw_sliding_windows(Neighborhood((5,), 3), 0, new_figure()[1][0, 0])
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['0, 1', '2', '3, 4']
    """
    length, kernel_size = neighborhood.layout[axis], neighborhood.kernel_size[axis]
    starts = [window.start for window in neighborhood.windows(axis)]
    count = length - kernel_size + 1
    for i in range(length):
        axes.text(i, -0.8, str(i), ha="center", va="center", fontsize=8)
    for first in range(count):
        takers = [i for i, start in enumerate(starts) if start == first]
        draw_cells(axes, [(first, i) for i in range(length)], facecolor=TOKEN, edgecolor="white", linewidth=1.0)
        keys = [(first, first + slot) for slot in range(kernel_size)]
        draw_cells(axes, keys, facecolor=KEY, edgecolor="white", linewidth=1.0, zorder=1.1)
        axes.plot(takers, [first] * len(takers), marker="o", color=QUERY, markeredgecolor="white", linestyle="none")
    set_view(axes, ((-1, count), (0, length)))
    axes.yaxis.tick_right()
    axes.set_yticks(
        range(count), [", ".join(str(i) for i, start in enumerate(starts) if start == n) for n in range(count)]
    )
    axes.yaxis.set_label_position("right")
    axes.set_ylabel("taken by the queries")
    axes.tick_params(length=0)
    axes.set_title(f"an axis of {length} has {count} windows of {kernel_size}" if title is None else title)
    return axes


@housed
def draw_tile(neighborhood: Neighborhood, tile: Sequence[Tile], axes: Axes, title: str | None = None) -> Axes:
    """Draw a tile of queries, and around it the slab of keys that holds all their windows.

    Args:
        tile: queries and keys on each of two axes, as ``axis_tiles`` gives them.
    Raises:
        ValueError: the layout has not two axes.
    Example:
        >>> from dinat_ref.attention.cut import axis_tiles
        >>> from dinat_ref.viz.theme import new_figure
        >>> neighborhood = Neighborhood((7, 8), 3)
        >>> tile = [axis_tiles(neighborhood, axis, size=2)[1] for axis in (0, 1)]
        >>> draw_tile(neighborhood, tile, new_figure()[1][0, 0]).get_title(loc="left")
        '2 × 2 queries, 4 × 4 keys'
    """
    shape = _two_axes(neighborhood)
    draw_layout(axes, shape, ((0, shape[0]), (0, shape[1])))
    rows, columns = tile
    keys = [(i, j) for i in rows.keys for j in columns.keys]
    queries = [(i, j) for i in rows.queries for j in columns.queries]
    draw_cells(axes, keys, facecolor=GROUP, edgecolor="white", linewidth=0.6, zorder=1.1)
    draw_cells(axes, queries, facecolor=QUERY, edgecolor="white", linewidth=0.6, zorder=1.2)
    axes.add_patch(box(rows.keys, columns.keys, edgecolor=KEY, linewidth=2.0, zorder=4))
    for token in neighborhood.tokens():
        color = "white" if token in queries else INK
        axes.text(
            token[1], token[0], str(neighborhood.number(token)), ha="center", va="center", fontsize=7, color=color
        )
    set_view(axes, ((0, shape[0]), (0, shape[1])))
    of_queries, of_keys = (
        TIMES.join(str(len(part)) for part in parts)
        for parts in ((rows.queries, columns.queries), (rows.keys, columns.keys))
    )
    axes.set_title(f"{of_queries} queries, {of_keys} keys" if title is None else title)
    return axes


@housed
def draw_tile_scores(neighborhood: Neighborhood, tile: Sequence[Tile], axes: Axes, title: str | None = None) -> Axes:
    """Draw the scores that a tile computes, a row for each of its queries: blue for its keys, the rest masked.

    Args:
        tile: as in ``draw_tile``.
    Example:
        >>> from dinat_ref.attention.cut import axis_tiles
        >>> from dinat_ref.viz.theme import new_figure
        >>> neighborhood = Neighborhood((7, 8), 3)
        >>> tile = [axis_tiles(neighborhood, axis, size=2)[1] for axis in (0, 1)]
        >>> draw_tile_scores(neighborhood, tile, new_figure()[1][0, 0]).get_title(loc="left")
        '64 scores, 28 of them masked'
    """
    rows, columns = tile
    keys = [neighborhood.number((i, j)) for i in rows.keys for j in columns.keys]
    queries = [neighborhood.number((i, j)) for i in rows.queries for j in columns.queries]
    allowed = neighborhood.mask()[queries][:, keys]  # [T, S]
    for (row, slot), is_key in np.ndenumerate(allowed.numpy()):
        style: Any = {"facecolor": KEY} if is_key else {"facecolor": TOKEN, "hatch": "////", "edgecolor": GRID}
        axes.add_patch(Rectangle((slot - 0.5, row - 0.5), 1, 1, linewidth=0, **style))
    for row in range(len(queries) + 1):
        axes.plot([-0.5, len(keys) - 0.5], [row - 0.5] * 2, color="white", linewidth=0.6, marker="")
    for slot in range(len(keys) + 1):
        axes.plot([slot - 0.5] * 2, [-0.5, len(queries) - 0.5], color="white", linewidth=0.6, marker="")
    set_view(axes, ((0, len(queries)), (0, len(keys))))
    axes.set_xticks(range(len(keys)), [str(key) for key in keys], fontsize=7)
    axes.set_yticks(range(len(queries)), [f"query {query}" for query in queries], fontsize=7)
    axes.tick_params(length=0)
    masked = int((~allowed).sum())
    axes.set_title(f"{allowed.numel()} scores, {masked} of them masked" if title is None else title)
    return axes


def tile_legend() -> list[Patch]:
    """Make the legend of ``draw_tile`` and ``draw_tile_scores``.

    Example:
        >>> [patch.get_label() for patch in tile_legend()][0]
        'tile of queries'
    """
    return [
        Patch(facecolor=QUERY, label="tile of queries"),
        Patch(facecolor=GROUP, edgecolor=KEY, linewidth=1.6, label="its slab of keys"),
        Patch(facecolor=KEY, label="score of a key in the window"),
        Patch(facecolor=TOKEN, edgecolor=GRID, hatch="////", label="masked"),
    ]


@housed
def draw_groups(
    neighborhood: Neighborhood, token: tuple[int, int], axes: Axes, apart: bool = False, title: str | None = None
) -> Axes:
    """Draw the dilation groups in colours, where they are or pulled apart, and the window of one query in each.

    Args:
        token: (row, column) of the query.
        apart: each group as a layout of its own.
    Raises:
        ValueError: the layout has not two axes.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> axes = draw_groups(Neighborhood((6, 7), 3, dilation=2), (0, 1), new_figure()[1][0, 0], apart=True)
        >>> [text.get_text() for text in axes.texts][:4]
        ['0', '1', '2', '3']
    """
    shape, dilation = _two_axes(neighborhood), neighborhood.dilation
    sheet = lay_out(neighborhood, token)
    sizes = [-(-length // d) for length, d in zip(shape, dilation, strict=True)]  # of the longest group

    def place(i: int, axis: int) -> float:
        group, m, _ = dilation_group(i, shape[axis], dilation[axis])
        return group * (sizes[axis] + 0.7) + m if apart else i

    for i, j in neighborhood.tokens():
        group = (i % dilation[0]) * dilation[1] + j % dilation[1]
        at = (place(i, 0), place(j, 1))
        is_key = i in sheet.window[0] and j in sheet.window[1]
        face = QUERY if (i, j) == token else KEY if is_key else GROUPS[group % len(GROUPS)]
        _cell(axes, at, neighborhood.number((i, j)), face)
    height, width = (place(length - 1, axis) + 1 for axis, length in enumerate(shape))
    if apart:
        height, width = (d * (size + 0.7) - 0.7 for d, size in zip(dilation, sizes, strict=True))
    axes.set_xlim(-0.6, width - 0.4)
    axes.set_ylim(height - 0.4, -0.6)
    axes.set_aspect("equal")
    plain_axes(axes)
    axes.set_title(("groups, pulled apart" if apart else "groups, in place") if title is None else title)
    return axes


def _two_axes(neighborhood: Neighborhood) -> tuple[int, int]:
    """The rows and columns of a layout, which must have two axes."""
    if neighborhood.ndim != 2:
        raise ValueError(f"the drawing shows a layout of two axes, got {neighborhood.layout}")
    return neighborhood.layout[0], neighborhood.layout[1]


def _color(number: int, num_tokens: int) -> str:
    """The colour of a token by its number, from the light two thirds of the map."""
    return matplotlib.colors.to_hex(matplotlib.colormaps[WEIGHTS](0.35 + 0.65 * number / max(num_tokens - 1, 1)))


def _cell(axes: Axes, at: tuple[float, float], number: int, face: str) -> None:
    """A cell with a number in it, dark or white as can be read."""
    red, green, blue = matplotlib.colors.to_rgb(face)
    ink = INK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.45 else "white"
    axes.add_patch(Rectangle((at[1] - 0.5, at[0] - 0.5), 1, 1, facecolor=face, edgecolor="white", linewidth=0.8))
    axes.text(at[1], at[0], str(number), ha="center", va="center", fontsize=7, color=ink)
