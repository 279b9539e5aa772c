"""The window of a query on a grid of tokens: its keys, its dilation group, and what the edge does to it."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from dinat_ref.neighborhood import Neighborhood
from dinat_ref.viz.grid import (
    Sheet,
    View,
    box,
    cell_size,
    cells_are_seen,
    default_view,
    draw_cells,
    draw_layout,
    lay_out,
    set_view,
)
from dinat_ref.viz.theme import GROUP, INK, KEY, QUERY, TIMES, TOKEN, housed
from dinat_ref.window import dilation_group


@housed
def draw_window(
    neighborhood: Neighborhood,
    token: Sequence[int],
    axes: Axes,
    *,
    view: View | None = None,
    title: str | None = None,
    legend: bool = True,
    show_group: bool | None = None,
) -> Axes:
    r"""Draw which tokens one query attends.

    Blue cells are keys, pale blue ones belong to the query's dilation group but are not attended, grey ones have
    nothing to do with it. Where an edge shifts the window, a dashed outline shows where it would lie without the edge,
    over the rim of the layout, and an arrow shows the shift. With a stride, an orange outline holds the queries that
    share the window.

    Shapes:
        neighborhood: of one or two axes
        token:  one coordinate per axis
        return: the axes
    Args:
        view: rows and columns to show, ((first, behind), (first, behind)); chosen around the window by default.
        title: None for one that names token, kernel size and dilation.
        legend: explain the colours under the drawing.
        show_group: make the dilation group pale blue; by default where there are several of them.
    Raises:
        ValueError: more than two axes, or a token outside the layout.
    Source: windows from ``dinat_ref.window``.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> figure, grid = new_figure()
        >>> draw_window(Neighborhood((9, 9), kernel_size=5), (0, 4), grid[0, 0]).get_title(loc="left")
        'query (0, 4)\nkernel 5'
    """
    sheet = lay_out(neighborhood, token)
    view = default_view([sheet]) if view is None else view
    size = cell_size(view, sheet.dilation)
    larger = (size[0] * 1.4, size[1] * 1.4) if size > (1.0, 1.0) else size
    draw_layout(axes, sheet.shape, view)

    edge = "white" if cells_are_seen(view) else "none"
    group = [_members(sheet, axis, view) for axis in (0, 1)]
    if max(sheet.dilation) > 1 if show_group is None else show_group:
        draw_cells(axes, _product(*group), size, facecolor=GROUP, edgecolor=edge, linewidth=0.6, zorder=1.1)
    draw_cells(axes, _product(*sheet.window), size, facecolor=KEY, edgecolor=edge, linewidth=0.6, zorder=1.2)
    draw_query(axes, sheet, larger)
    if max(neighborhood.stride) > 1:
        axes.add_patch(box(*_sharers(sheet), edgecolor=QUERY, linewidth=1.6, zorder=4))
    _draw_shift(axes, sheet, size)

    set_view(axes, view)
    axes.set_title(describe(neighborhood, token) if title is None else title)
    if legend:
        handles = window_legend([neighborhood], [token])
        axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0))
    return axes


def draw_query(axes: Axes, sheet: Sheet, size: tuple[float, float] = (1.0, 1.0)) -> Axes:
    """Mark the query: an orange cell with a dot in it.

    Shapes:
        return: the axes
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> len(draw_query(new_figure()[1][0, 0], lay_out(Neighborhood((9, 9), 5), (0, 4))).collections)
        1
    """
    row, column = sheet.token
    draw_cells(axes, [sheet.token], size, facecolor=QUERY, edgecolor="white", linewidth=0.6, zorder=6)
    if size == (1.0, 1.0):
        axes.plot([column], [row], marker="o", markersize=3, color="white", linestyle="none", zorder=6.1)
    return axes


def describe(neighborhood: Neighborhood, token: Sequence[int]) -> str:
    r"""Say in two lines whose window it is.

    Shapes:
        return: a title
    Example:
        >>> describe(Neighborhood((9, 9), 3, dilation=(1, 3)), (0, 4))
        'query (0, 4)\nkernel 3, dilation 1 × 3'
    """
    parts = [f"kernel {_times(neighborhood.kernel_size)}"]
    if max(neighborhood.dilation) > 1:
        parts.append(f"dilation {_times(neighborhood.dilation)}")
    if max(neighborhood.stride) > 1:
        parts.append(f"stride {_times(neighborhood.stride)}")
    if any(neighborhood.is_causal):
        parts.append("causal" if all(neighborhood.is_causal) else f"causal {neighborhood.is_causal}")
    where = ", ".join(str(i) for i in token)
    return f"query ({where})\n{', '.join(parts)}"


def window_legend(neighborhoods: Sequence[Neighborhood], tokens: Sequence[Sequence[int]]) -> list[Patch | Line2D]:
    """Make the legend of one or several windows: only what their drawings show.

    Shapes:
        neighborhoods, tokens: equally many
        return: handles for ``axes.legend`` or ``figure.legend``
    Raises:
        ValueError: as ``draw_window``.
    Example:
        >>> [handle.get_label() for handle in window_legend([Neighborhood((9, 9), 5)], [(0, 4)])]
        ['query', 'key: attended', 'not attended', 'the window before the edge shifts it']
    """
    sheets = [lay_out(neighborhood, token) for neighborhood, token in zip(neighborhoods, tokens, strict=True)]
    dot = Line2D([], [], marker="s", color="none", markerfacecolor=QUERY, markeredgecolor=QUERY, markersize=8)
    dot.set_label("query")
    handles: list[Patch | Line2D] = [dot, Patch(facecolor=KEY, label="key: attended")]
    if any(max(sheet.dilation) > 1 for sheet in sheets):
        handles.append(Patch(facecolor=GROUP, label="same dilation group, not attended"))
    handles.append(Patch(facecolor=TOKEN, edgecolor="#888888", linewidth=0.5, label="not attended"))
    if any(sheet.window != sheet.unshifted for sheet in sheets):
        causal = any(any(neighborhood.is_causal) for neighborhood in neighborhoods)
        label = "the window far from edges" if causal else "the window before the edge shifts it"
        handles.append(Patch(fill=False, edgecolor=INK, linestyle=(0, (3, 2)), label=label))
    if any(max(neighborhood.stride) > 1 for neighborhood in neighborhoods):
        handles.append(Patch(fill=False, edgecolor=QUERY, linewidth=1.6, label="queries that share this window"))
    return handles


def mark_query(axes: Axes, token: tuple[int, int], color: str = QUERY) -> Axes:
    """Mark a query on a picture: a disc with a white rim, of one size at any zoom.

    Shapes:
        token:  (row, column)
        return: the axes
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> len(mark_query(new_figure()[1][0, 0], (3, 4)).lines)
        1
    """
    style: Any = {"marker": "o", "markersize": 6, "color": color, "markeredgecolor": "white", "linestyle": "none"}
    axes.plot([token[1]], [token[0]], zorder=5, clip_on=False, **style)
    return axes


@housed
def outline_window(
    axes: Axes, neighborhood: Neighborhood, token: Sequence[int], color: str = QUERY, label: str | None = None
) -> Axes:
    """Mark a query and the outline of its window on axes that show a picture of the layout.

    Shapes:
        token:  one coordinate per axis
        return: the axes
    Raises:
        ValueError: more than two axes, or a token outside the layout.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> len(outline_window(new_figure()[1][0, 0], Neighborhood((90, 90), 7, dilation=4), (0, 4)).patches)
        2
    """
    sheet = lay_out(neighborhood, token)
    for width, edge in ((3.0, "white"), (1.5, color)):  # a white rim makes the line visible on any picture
        axes.add_patch(box(*sheet.window, edgecolor=edge, linewidth=width, zorder=4, clip_on=False))
    mark_query(axes, (sheet.token[0], sheet.token[1]), color)
    if label is not None:
        left, right = sheet.window[1][0], sheet.window[1][-1]
        to_the_right = (
            right < 0.9 * sheet.shape[1]
        )  # beside the window, where it hides neither the query nor the outline
        place, offset, side = (right, 7, "left") if to_the_right else (left, -7, "right")
        at = (place, (sheet.window[0][0] + sheet.window[0][-1]) / 2)
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.9}
        text = axes.annotate(label, at, (offset, 0), textcoords="offset points", ha=side, va="center", color=color)
        text.set(bbox=paper, zorder=5, weight="bold")
    return axes


def _draw_shift(axes: Axes, sheet: Sheet, size: tuple[float, float]) -> None:
    """Outline the window without the edge, and point from its centre to the centre of the window."""
    if sheet.window == sheet.unshifted:
        return
    axes.add_patch(box(*sheet.unshifted, size, edgecolor=INK, linewidth=1.2, linestyle=(0, (3, 2)), zorder=4))
    if any(sheet.neighborhood.is_causal):
        return  # shortened, not shifted
    centres = [[(keys[0] + keys[-1]) / 2 for keys in windows] for windows in (sheet.unshifted, sheet.window)]
    (from_row, from_column), (to_row, to_column) = centres
    arrow = {"arrowstyle": "->", "color": INK, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    rim = [withStroke(linewidth=4, foreground="white")]  # to be seen on light and dark cells
    tip, tail = (to_column, to_row), (from_column, from_row)
    axes.annotate("", tip, tail, arrowprops={**arrow, "path_effects": rim}, zorder=5)


def _members(sheet: Sheet, axis: int, view: View) -> list[int]:
    """The positions of the query's dilation group on one axis, inside a view."""
    length, dilation = sheet.shape[axis], sheet.dilation[axis]
    group = dilation_group(sheet.token[axis], length, dilation)[0]
    return [i for i in range(group, length, dilation) if view[axis][0] <= i < view[axis][1]]


def _sharers(sheet: Sheet) -> tuple[range, range]:
    """The queries of the same dilation group whose window starts where the query's does, on each axis."""
    ranges = []
    for axis in (0, 1):
        own = axis - 2 + sheet.neighborhood.ndim  # -1 for the single row of a layout of one axis
        stride = sheet.neighborhood.stride[own] if own >= 0 else 1
        step = stride * sheet.dilation[axis]
        group, m, _ = dilation_group(sheet.token[axis], sheet.shape[axis], sheet.dilation[axis])
        first = group + m // stride * step
        ranges.append(range(first, min(first + step, sheet.shape[axis]), sheet.dilation[axis]))
    return ranges[0], ranges[1]


def _product(rows: Sequence[int], columns: Sequence[int]) -> list[tuple[int, int]]:
    return [(row, column) for row in rows for column in columns]


def _times(sizes: Sequence[int]) -> str:
    """One number where all axes agree, else one for each."""
    return str(sizes[0]) if len(set(sizes)) == 1 else TIMES.join(str(size) for size in sizes)
