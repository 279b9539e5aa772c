"""A heat map of numbers that belong to tokens."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from numpy.typing import ArrayLike

from dinat_ref.viz.theme import WEIGHTS, housed, plain_axes


@housed
def draw_map(
    numbers: ArrayLike,
    axes: Axes,
    title: str | None = None,
    label: str | None = None,
    norm: Normalize | None = None,
) -> Axes:
    """Draw one number per token, with a colour scale.

    Shapes:
        numbers: [X, Y]
        return:  the axes
    Args:
        label: what the numbers are, written beside the colour scale; None for no scale.
        norm: from numbers to colours, for several maps to share; from the least to the largest number by default.
    Raises:
        ValueError: another number of axes.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> draw_map(np.zeros((4, 6)), new_figure()[1][0, 0], title="nothing").get_title(loc="left")
        'nothing'
    """
    values = np.asarray(numbers)
    if values.ndim != 2:
        raise ValueError(f"numbers must be [X, Y], got {values.shape}")
    image = axes.imshow(values, cmap=WEIGHTS, norm=norm)
    if label is not None:
        bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
        bar.set_label(label)
        bar.outline.set_visible(False)
    if title is not None:
        axes.set_title(title)
    return plain_axes(axes)
