"""How the receptive field of one token grows from layer to layer."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from numpy.typing import ArrayLike

from dinat_ref.viz.grid import View
from dinat_ref.viz.theme import QUERY, TIMES, TOKEN, WEIGHTS, housed, plain_axes


@housed
def draw_receptive_field(
    reached: ArrayLike,
    axes: Axes,
    *,
    title: str | None = None,
    view: View | None = None,
    num_layers: int | None = None,
    colorbar: bool = True,
) -> Axes:
    """Draw a map of the layers after which each input token enters the receptive field of one output token.

    The output token is orange, tokens that no layer reaches stay grey: the holes of a dilated stack show.

    Shapes:
        reached: [X, Y] or [X] integers, as ``layers_to_reach`` gives: 0 the token, -1 never reached
        return:  the axes
    Args:
        title: None for the size of the field: its extent in tokens, and its share of the layout.
        view: rows and columns to show; all by default.
        num_layers: layers of the colour scale, for several drawings to share; the largest of the map by default.
        colorbar: explain the colours.
    Raises:
        ValueError: another number of axes, no token of its own (0), or a num_layers below the largest.
    Example:
        >>> from dinat_ref.analysis.receptive_field import layers_to_reach
        >>> from dinat_ref.neighborhood import Neighborhood
        >>> from dinat_ref.viz.theme import new_figure
        >>> reached = layers_to_reach([Neighborhood((20, 20), 3)] * 2, (9, 9))
        >>> draw_receptive_field(reached, new_figure()[1][0, 0]).get_title(loc="left")
        '5 × 5 tokens, 6 % of all'
    """
    layers = np.atleast_2d(np.asarray(reached))
    if layers.ndim != 2 or not (layers == 0).any():
        raise ValueError(f"reached must be [X, Y] or [X] with 0 at the token itself, got {layers.shape}")
    deepest = max(int(layers.max()), 1) if num_layers is None else num_layers
    if deepest < layers.max():
        raise ValueError(f"num_layers must be at least the largest of reached, {layers.max()}, got {num_layers}")
    steps = np.linspace(0.15, 1.0, deepest)  # the first layer darkest, but not black
    ramp = matplotlib.colormaps[WEIGHTS]
    colors = ListedColormap([TOKEN, QUERY, *(ramp(step) for step in steps)])
    norm = BoundaryNorm(np.arange(-1.5, deepest + 1.5), colors.N)
    image = axes.imshow(_enlarge(layers), cmap=colors, norm=norm)

    row, column = (int(i) for i in np.argwhere(layers == 0)[0])
    axes.plot([column], [row], marker="o", markersize=5, color=QUERY, markeredgecolor="white", zorder=3)
    if view is not None:
        (top, bottom), (left, right) = view
        axes.set_xlim(left - 0.5, right - 0.5)
        axes.set_ylim(bottom - 0.5, top - 0.5)
    axes.set_title(_extent(layers) if title is None else title)
    if colorbar:
        bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02, ticks=range(-1, deepest + 1))
        words = ["never", "the token", "after 1 layer", *(f"after {count} layers" for count in range(2, deepest + 1))]
        bar.ax.set_yticklabels(words)
        bar.ax.tick_params(length=0)
        bar.outline.set_visible(False)
    return plain_axes(axes)


def _extent(layers: np.ndarray) -> str:
    """Say how far a field extends and what share of the layout it covers."""
    inside = layers >= 0
    rows, columns = np.nonzero(inside)
    size = f"{rows.max() - rows.min() + 1}{TIMES}{columns.max() - columns.min() + 1} tokens"
    share = 100 * inside.mean()
    return f"{size}, {share:.0f} % of all" if share >= 1 else f"{size}, {share:.1g} % of all"


def _enlarge(layers: np.ndarray) -> np.ndarray:
    """Draw the tokens of a field with holes larger than they are, where the layout is too large to see one token."""
    if max(layers.shape) <= 100:
        return layers
    nearest, near = [], []
    for axis in (0, 1):
        reached = np.flatnonzero((layers >= 0).any(1 - axis))
        gap = int(np.diff(reached).min()) if len(reached) > 1 else 1
        distance = np.abs(np.arange(layers.shape[axis])[:, None] - reached)  # [L, reached]
        nearest.append(reached[distance.argmin(1)])
        near.append(distance.min(1) <= 0.3 * gap)
    return np.where(np.outer(*near), layers[np.ix_(*nearest)], -1)
