"""Tokens on paper: a layout of one or two axes as a grid of cells, whole or zoomed in on a window.

Axis 0 runs down, axis 1 to the right, and the cell of a token is centred on its coordinates. A layout of one axis is
a single row. Where a view holds too many tokens for their cells to be seen, the tokens of a dilated window are drawn
as squares larger than a cell: they lie ``dilation`` apart, so nothing overlaps.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

from dinat_ref.analysis.attention_maps import check_token
from dinat_ref.analysis.edge_shift import unshifted_window
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.viz.theme import GRID, TOKEN, plain_axes

MOST_CELLS = 40  # per axis: more of them are not drawn one by one

Span = tuple[int, int]  # first position, and the one behind the last
View = tuple[Span, Span]  # rows, columns


@dataclass(frozen=True)
class Sheet:
    """A neighborhood and a token as two axes, and the ranges that its window covers on each.

    Shapes:
        token (row, column); window and unshifted two ranges each
    Example:
        >>> lay_out(Neighborhood((7,), 3), (0,)).shape
        (1, 7)
    """

    neighborhood: Neighborhood
    token: tuple[int, int]
    window: tuple[range, range]
    unshifted: tuple[range, range]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the layout."""
        layout = self.neighborhood.layout
        return (1, layout[0]) if len(layout) == 1 else (layout[0], layout[1])

    @property
    def dilation(self) -> tuple[int, int]:
        """The dilation of rows and columns."""
        dilation = self.neighborhood.dilation
        return (1, dilation[0]) if len(dilation) == 1 else (dilation[0], dilation[1])


def lay_out(neighborhood: Neighborhood, token: Sequence[int]) -> Sheet:
    """Put a neighborhood of one or two axes and one of its tokens on a sheet.

    Shapes:
        token: one coordinate per axis
    Raises:
        ValueError: more than two axes, or a token outside the layout.
    Example:
        >>> lay_out(Neighborhood((7,), 3), (0,)).window
        (range(0, 1), range(0, 3))
    """
    if neighborhood.ndim > 2:
        raise ValueError(f"a drawing shows layouts of one or two axes, got {neighborhood.layout}")
    check_token(neighborhood, token)
    windows = [neighborhood.windows(axis)[i] for axis, i in enumerate(token)]
    unshifted = [unshifted_window(i, *neighborhood.axes[axis]) for axis, i in enumerate(token)]
    if neighborhood.ndim == 1:
        windows, unshifted, token = [range(1), *windows], [range(1), *unshifted], (0, *token)
    return Sheet(neighborhood, (token[0], token[1]), (windows[0], windows[1]), (unshifted[0], unshifted[1]))


def span(keys: range) -> Span:
    """The first position of a window and the one behind its last.

    Shapes:
        return: two integers
    Example:
        >>> span(range(2, 8, 3))
        (2, 6)
    """
    return keys[0], keys[-1] + 1


def default_view(sheets: Sequence[Sheet], margin: float = 0.15) -> View:
    """Choose what to show: a small layout whole, else the windows with some tokens around them.

    Windows that an edge shifts make the view reach over that edge, so that the shift can be seen.

    Shapes:
        return: (first row, row behind the last), (first column, column behind the last)
    Raises:
        ValueError: no sheet.
    Example:
        >>> default_view([lay_out(Neighborhood((9, 9), 5), (0, 4))])
        ((-2, 9), (0, 9))
    """
    if not sheets:
        raise ValueError("a view needs at least one window")
    shape = sheets[0].shape
    spans = []
    for axis in (0, 1):
        ranges = [keys for sheet in sheets for keys in (sheet.window[axis], sheet.unshifted[axis])]
        first, behind = min(span(keys)[0] for keys in ranges), max(span(keys)[1] for keys in ranges)
        if max(shape) <= MOST_CELLS:
            first, behind = min(first, 0), max(behind, shape[axis])
        elif shape[axis] > 1:
            extra = max(2, round((behind - first) * margin))
            first, behind = first - extra, behind + extra
        spans.append((first, behind))
    return spans[0], spans[1]


def set_view(axes: Axes, view: View) -> Axes:
    """Show the rows and columns of a view, as square cells, without ticks.

    Shapes:
        return: the axes
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> [float(limit) for limit in set_view(new_figure()[1][0, 0], ((0, 4), (0, 6))).get_xlim()]
        [-0.6, 5.6]
    """
    (top, bottom), (left, right) = view
    axes.set_xlim(left - 0.6, right - 0.4)
    axes.set_ylim(bottom - 0.4, top - 0.6)
    axes.set_aspect("equal")
    return plain_axes(axes)


def draw_layout(axes: Axes, shape: tuple[int, int], view: View) -> Axes:
    """Draw the tokens of a layout inside a view: single cells where they can be seen, one plane where not.

    Shapes:
        return: the axes
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> len(draw_layout(new_figure()[1][0, 0], (4, 6), ((0, 4), (0, 6))).collections)
        1
    """
    (top, bottom), (left, right) = view
    rows = range(max(top, 0), min(bottom, shape[0]))
    columns = range(max(left, 0), min(right, shape[1]))
    if cells_are_seen(view):
        tokens = [(row, column) for row in rows for column in columns]
        draw_cells(axes, tokens, facecolor=TOKEN, edgecolor=GRID, linewidth=0.6)
    elif rows and columns:
        plane = Rectangle((columns[0] - 0.5, rows[0] - 0.5), len(columns), len(rows), facecolor=TOKEN, zorder=0.5)
        axes.add_patch(plane)
    return axes


def cells_are_seen(view: View) -> bool:
    """Whether a view is small enough for its cells to be drawn one by one.

    Shapes:
        return: one bool
    Example:
        >>> cells_are_seen(((0, 12), (0, 12))), cells_are_seen(((0, 512), (0, 12)))
        (True, False)
    """
    return max(behind - first for first, behind in view) <= MOST_CELLS + 20


def cell_size(view: View, dilation: tuple[int, int]) -> tuple[float, float]:
    """Height and width of the square drawn for a token: a cell, or most of a step where cells are tiny.

    Shapes:
        return: two numbers, in tokens
    Example:
        >>> cell_size(((0, 12), (0, 12)), (2, 2)), cell_size(((0, 208), (0, 208)), (16, 16))
        ((1.0, 1.0), (9.6, 9.6))
    """
    if cells_are_seen(view):
        return 1.0, 1.0
    height, width = (max(1.0, 0.6 * step) for step in dilation)
    return height, width


def draw_cells(
    axes: Axes,
    tokens: Iterable[tuple[int, int]],
    size: tuple[float, float] = (1.0, 1.0),
    facecolor: str = "none",
    edgecolor: str = "none",
    linewidth: float = 0.0,
    zorder: float = 1.0,
) -> PatchCollection:
    """Draw one rectangle per token, centred on its coordinates.

    Shapes:
        tokens: (row, column)
        size:   height and width in tokens
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> len(draw_cells(new_figure()[1][0, 0], [(0, 0), (0, 1)]).get_paths())
        2
    """
    height, width = size
    patches = [Rectangle((column - width / 2, row - height / 2), width, height) for row, column in tokens]
    collection = PatchCollection(patches, facecolor=facecolor, edgecolor=edgecolor, linewidth=linewidth, zorder=zorder)
    axes.add_collection(collection)
    return collection


def box(rows: range, columns: range, size: tuple[float, float] = (1.0, 1.0), **style: object) -> Rectangle:
    """A rectangle around all keys of a window.

    Shapes:
        size: height and width of a drawn token
    Example:
        >>> box(range(0, 3), range(0, 5, 2)).get_width()
        5.0
    """
    height, width = size
    corner = (columns[0] - width / 2, rows[0] - height / 2)
    return Rectangle(corner, columns[-1] - columns[0] + width, rows[-1] - rows[0] + height, fill=False, **style)  # type: ignore[arg-type]
