"""The pattern atlas: which query attends which key, as one matrix per pattern."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from dinat_ref.analysis.receptive_field import Layer, WindowedAttention
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.viz.theme import KEY, QUERY, TOKEN, housed

LONGEST = 2048  # tokens of an atlas: ten matrices of them, none of which shows more points
MOST_CELLS_SEEN = 64  # on a side; above, lines between them would hide them, and take minutes to be drawn


def patterns(length: int = 16) -> Mapping[str, Layer]:
    """Name the members of the family on one axis, from every token for itself to every token for all.

    Shapes:
        return: names and layers of the layout (length,)
    Raises:
        ValueError: length is below 15, which the dilated kernel needs, or too many to be drawn.
    Source: arXiv:2204.07143, arXiv:2209.15001, arXiv:2504.16922.
    Example:
        >>> len(patterns())
        10
    """
    if not 15 <= length <= LONGEST:
        raise ValueError(f"length must be in 15 .. {LONGEST}, got {length}")
    one = (length,)
    return {
        "kernel 1: a linear layer": Neighborhood(one, 1),
        "NA, kernel 5": Neighborhood(one, 5),
        "NA, kernel 4: leans left": Neighborhood(one, 4),
        "DiNA, kernel 5, dilation 3": Neighborhood(one, 5, dilation=3),
        "kernel = length: full": Neighborhood(one, length),
        "causal NA, kernel 5": Neighborhood(one, 5, is_causal=True),
        "causal, dilation 3": Neighborhood(one, 5, dilation=3, is_causal=True),
        "strided NA, kernel 5, stride 3": Neighborhood(one, 5, stride=3),
        "stride = kernel = 4: blocks": Neighborhood(one, 4, stride=4),
        "Swin's shifted blocks of 4": WindowedAttention(one, 4, 2),
    }


@housed
def draw_pattern(layer: Layer, axes: Axes, title: str | None = None) -> Axes:
    """Draw one axis as a matrix: a row per query, a column per key, blue where the query attends the key.

    Shapes:
        layer:  of one axis
        return: the axes
    Raises:
        ValueError: the layer has more than one axis.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> axes = draw_pattern(Neighborhood((4,), 4), new_figure()[1][0, 0])
        >>> int(axes.images[0].get_array().sum())  # 12 keys of 1, and the 4 queries themselves of 2
        20
    """
    if len(layer.layout) != 1:
        raise ValueError(f"a pattern is drawn of one axis, got the layout {tuple(layer.layout)}")
    length = layer.layout[0]
    cells = np.zeros((length, length), dtype=np.uint8)
    for query, keys in enumerate(layer.windows(0)):
        cells[query, list(keys)] = 1
        cells[query, query] *= 2
    axes.imshow(cells, cmap=ListedColormap([TOKEN, KEY, QUERY]), vmin=0, vmax=2)
    if length <= MOST_CELLS_SEEN:
        axes.set_xticks(np.arange(0.5, length - 1), minor=True)
        axes.set_yticks(np.arange(0.5, length - 1), minor=True)
        axes.grid(which="minor", color="white", linewidth=0.5)
    axes.tick_params(which="both", length=0, labelleft=False, labelbottom=False)
    axes.set_xlabel("key", labelpad=1)
    axes.set_ylabel("query", labelpad=1)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title is not None:
        axes.set_title(title, fontsize=8.5)
    return axes


def pattern_legend() -> list[Patch]:
    """Make the legend of ``draw_pattern``.

    Shapes:
        return: handles
    Example:
        >>> len(pattern_legend())
        3
    """
    words = {QUERY: "the query itself, attended", KEY: "key: attended", TOKEN: "not attended"}
    return [Patch(facecolor=color, edgecolor="#888888", linewidth=0.4, label=label) for color, label in words.items()]
