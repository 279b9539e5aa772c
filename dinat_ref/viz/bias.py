"""Relative positional bias tables: a learned number for every offset between query and key."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from dinat_ref.viz.theme import INK, SIGNED, housed


@housed
def draw_bias(table: ArrayLike, axes: Axes, title: str | None = None, largest: float | None = None) -> Axes:
    """Draw the bias table of one head: purple below zero, orange above, offsets in steps of the dilation.

    The square in the middle holds the offsets of interior queries; the rim is read at the edges only, where windows are
    shifted.

    Shapes:
        table:  [2k-1, 2k-1], one head of ``rpb``
        return: the axes
    Args:
        largest: the bias at the ends of the colour scale; the largest absolute value of the table by default.
    Raises:
        ValueError: the table does not have two odd sizes.
    Source: Liu et al., arXiv:2103.14030, eq. 4.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> draw_bias(np.zeros((5, 5)), new_figure()[1][0, 0]).get_xlabel()
        'key right of query'
    """
    biases = np.asarray(table, dtype=np.float64)
    if biases.ndim != 2 or not all(size % 2 for size in biases.shape):
        raise ValueError(f"table must be [2k-1, 2k-1], got {biases.shape}")
    rows, columns = (size // 2 for size in biases.shape)  # k - 1
    limit = float(np.abs(biases).max()) or 1.0 if largest is None else largest
    extent = (-columns - 0.5, columns + 0.5, rows + 0.5, -rows - 0.5)
    image = axes.imshow(biases, cmap=SIGNED, vmin=-limit, vmax=limit, extent=extent)
    kernel = rows + 1, columns + 1
    corner = (-(kernel[1] // 2) - 0.5, -(kernel[0] // 2) - 0.5)
    axes.add_patch(Rectangle(corner, kernel[1], kernel[0], fill=False, edgecolor=INK, linewidth=1.2))
    axes.set_xticks(range(-columns, columns + 1, 2))
    axes.set_yticks(range(-rows, rows + 1, 2))
    axes.set_xlabel("key right of query")
    axes.set_ylabel("key below query")
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("bias")
    bar.outline.set_visible(False)
    if title is not None:
        axes.set_title(title)
    return axes
