"""Inverse neighborhoods: who attends to me? The edges get more attention than they give."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from dinat_ref.neighborhood import Neighborhood
from dinat_ref.viz.grid import View, cell_size, cells_are_seen, draw_cells, draw_layout, lay_out, set_view
from dinat_ref.viz.theme import ACCENT, KEY, QUERY, TOKEN, WEIGHTS, housed


@housed
def draw_attended_by(
    neighborhood: Neighborhood,
    token: Sequence[int],
    axes: Axes,
    *,
    view: View | None = None,
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """Draw which queries attend one key: its inverse neighborhood, in green.

    Blue corners mark the keys that the token itself attends, so that one sees where the two differ.

    Shapes:
        neighborhood: of one or two axes
        token:  one coordinate per axis
        return: the axes
    Args:
        view: rows and columns to show, ((first, behind), (first, behind)); the whole layout by default.
        title: None for the numbers of queries and keys.
        legend: explain the colours under the drawing.
    Raises:
        ValueError: more than two axes, or a token outside the layout.
    Source: the backward pass of arXiv:2204.07143 sums over these queries.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> draw_attended_by(Neighborhood((9,), 5), (2,), new_figure()[1][0, 0]).get_title(loc="left")
        'key (2): attends 5, attended by 5'
    """
    sheet = lay_out(neighborhood, token)
    view = ((0, sheet.shape[0]), (0, sheet.shape[1])) if view is None else view
    size = cell_size(view, sheet.dilation)
    edge = "white" if cells_are_seen(view) else "none"
    draw_layout(axes, sheet.shape, view)
    numbers = neighborhood.attended_by(tuple(token))
    queries = [divmod(number, sheet.shape[1]) for number in numbers]
    draw_cells(axes, queries, size, facecolor=ACCENT, edgecolor=edge, linewidth=0.6, zorder=1.2)
    draw_cells(axes, [sheet.token], size, facecolor=QUERY, edgecolor=edge, linewidth=0.6, zorder=1.3)
    keys = [(row, column) for row in sheet.window[0] for column in sheet.window[1]]
    small = (size[0] * 0.3, size[1] * 0.3)
    draw_cells(axes, keys, small, facecolor=KEY, edgecolor="white", linewidth=0.6, zorder=1.4)
    set_view(axes, view)
    if title is None:
        where = ", ".join(str(i) for i in token)
        title = f"key ({where}): attends {len(keys)}, attended by {len(numbers)}"
    axes.set_title(title)
    if legend:
        axes.legend(handles=inverse_legend(), loc="upper center", bbox_to_anchor=(0.5, 0.0))
    return axes


def inverse_legend() -> list[Patch]:
    """Make the legend of ``draw_attended_by``.

    Shapes:
        return: handles
    Example:
        >>> len(inverse_legend())
        4
    """
    words = {
        QUERY: "the token",
        ACCENT: "attends the token",
        KEY: "(small) attended by the token",
        TOKEN: "neither",
    }
    return [Patch(facecolor=color, edgecolor="#888888", linewidth=0.4, label=label) for color, label in words.items()]


@housed
def draw_attention_counts(neighborhood: Neighborhood, axes: Axes, title: str | None = None) -> Axes:
    """Draw how many queries attend each token, as a heat map.

    Shapes:
        neighborhood: of one or two axes
        return: the axes
    Raises:
        ValueError: more than two axes.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> axes = draw_attention_counts(Neighborhood((7,), 3), new_figure()[1][0, 0])
        >>> axes.images[0].get_array().tolist()
        [[2, 3, 4, 3, 4, 3, 2]]
    """
    if neighborhood.ndim > 2:
        raise ValueError(f"a drawing shows layouts of one or two axes, got {neighborhood.layout}")
    per_axis = []
    for axis, length in enumerate(neighborhood.layout):
        keys = [key for window in neighborhood.windows(axis) for key in window]
        per_axis.append(np.bincount(keys, minlength=length))
    counts = np.atleast_2d(per_axis[0]) if len(per_axis) == 1 else np.outer(*per_axis)
    image = axes.imshow(counts, cmap=WEIGHTS, vmin=0)
    if counts.size <= 400:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if count < 0.6 * counts.max() else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=7)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("queries that attend the token")
    bar.outline.set_visible(False)
    set_view(axes, ((0, counts.shape[0]), (0, counts.shape[1])))
    axes.set_title("how often each token is attended" if title is None else title)
    return axes
