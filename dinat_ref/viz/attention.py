"""Attention laid over the picture it looks at."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from dinat_ref.neighborhood import Neighborhood
from dinat_ref.viz.grid import Sheet, View, box, cell_size, lay_out
from dinat_ref.viz.theme import INK, WEIGHTS, housed, plain_axes
from dinat_ref.viz.windows import mark_query


@housed
def draw_photo(photo: ArrayLike, axes: Axes, title: str | None = None, view: View | None = None) -> Axes:
    """Draw a picture whose pixels are the tokens: grey from 0 to 1, or colour.

    Shapes:
        photo:  [X, Y] or [X, Y, 3], numbers in 0 .. 1; others are cut off
        return: the axes; pixel (x, y) is centred on row x, column y
    Args:
        view: rows and columns to show; all by default.
    Raises:
        ValueError: another shape.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> draw_photo(np.zeros((4, 6)), new_figure()[1][0, 0], title="dark").get_title(loc="left")
        'dark'
    """
    pixels = np.clip(np.asarray(photo, dtype=np.float64), 0, 1)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"photo must be [X, Y] or [X, Y, 3], got {pixels.shape}")
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1)
    if view is not None:
        (top, bottom), (left, right) = view
        axes.set_xlim(left - 0.5, right - 0.5)
        axes.set_ylim(bottom - 0.5, top - 0.5)
    if title is not None:
        axes.set_title(title)
    return plain_axes(axes)


@housed
def draw_attention(
    photo: ArrayLike,
    attention: ArrayLike,
    neighborhood: Neighborhood,
    token: Sequence[int],
    axes: Axes,
    *,
    view: View | None = None,
    title: str | None = None,
    largest: float | None = None,
    colorbar: bool = True,
) -> Axes:
    """Draw one query's attention weights over the photo, with the query and the outline of its window.

    Weights are told as multiples of 1/K, what each of the K keys would get if all counted the same: 1 is a fair share.
    The drawing is zoomed in on the window unless a view is given.

    Shapes:
        photo:     [X, Y] or [X, Y, 3]
        attention: [X, Y], as ``attention_map`` gives for one batch and head
        token:     (row, column)
        return:    the axes
    Args:
        view: rows and columns to show, ((first, behind), (first, behind)).
        largest: the weight at the end of the colour scale in multiples of 1/K; the largest weight by default.
        colorbar: draw the colour scale.
    Raises:
        ValueError: photo, attention and neighborhood are not of one layout of two axes.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> neighborhood = Neighborhood((8, 8), 4)
        >>> weights = np.where(neighborhood.mask()[0].reshape(8, 8), 1 / 16, 0)
        >>> axes = draw_attention(np.ones((8, 8)), weights, neighborhood, (0, 0), new_figure()[1][0, 0])
        >>> axes.get_title(loc="left")
        'query (0, 0)'
    """
    weights = np.asarray(attention, dtype=np.float64)
    if neighborhood.ndim != 2 or not weights.shape == np.shape(photo)[:2] == neighborhood.layout:
        shapes = f"photo {np.shape(photo)}, attention {weights.shape}, neighborhood {neighborhood.layout}"
        raise ValueError(f"photo, attention and neighborhood must have one layout of two axes, got {shapes}")
    sheet = lay_out(neighborhood, token)
    view = zoom(sheet) if view is None else view
    draw_photo(photo, axes, title=f"query ({token[0]}, {token[1]})" if title is None else title, view=view)

    keys = [(row, column) for row in sheet.window[0] for column in sheet.window[1]]
    amounts = np.array([weights[key] for key in keys]) * neighborhood.num_keys
    scale = Normalize(0, float(amounts.max()) if largest is None else largest)
    height, width = size = cell_size(view, sheet.dilation)
    squares = [Rectangle((column - width / 2, row - height / 2), width, height) for row, column in keys]
    layer = PatchCollection(squares, cmap=WEIGHTS, norm=scale, alpha=0.85, linewidth=0, zorder=2)
    layer.set_array(amounts)
    axes.add_collection(layer)

    for thickness, color in ((3.0, "white"), (1.2, INK)):
        axes.add_patch(box(*sheet.window, size, edgecolor=color, linewidth=thickness, zorder=3, clip_on=False))
    mark_query(axes, sheet.token)
    if colorbar:
        bar = axes.figure.colorbar(ScalarMappable(scale, WEIGHTS), ax=axes, shrink=0.8, pad=0.02)
        bar.set_label("weight, times 1/K")
        bar.outline.set_visible(False)
    return axes


def zoom(sheet: Sheet) -> View:
    """Choose a view of a photo: the window and a third of its size around it, inside the photo where that is possible.

    Shapes:
        return: (first row, row behind the last), (first column, column behind the last)
    Example:
        >>> zoom(lay_out(Neighborhood((600, 512), 13), (0, 300)))
        ((0, 17), (290, 311))
    """
    spans = []
    for axis in (0, 1):
        extra = max(3, round((sheet.window[axis][-1] - sheet.window[axis][0]) * 0.35))
        first, behind = sheet.window[axis][0] - extra, sheet.window[axis][-1] + 1 + extra
        spans.append((max(first, 0), min(behind, sheet.shape[axis])))
    return spans[0], spans[1]
