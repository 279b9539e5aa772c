"""Whole figures, composed of the drawings of this package: what ``dinat-ref draw`` and ``figures/`` write."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from dinat_ref.analysis.attention_maps import attention_map
from dinat_ref.analysis.photo import patch_operands
from dinat_ref.analysis.receptive_field import Layer, layers_to_reach
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.viz.atlas import draw_pattern, pattern_legend, patterns
from dinat_ref.viz.attention import draw_attention, draw_photo
from dinat_ref.viz.inverse import draw_attended_by, draw_attention_counts, inverse_legend
from dinat_ref.viz.receptive_field import draw_receptive_field
from dinat_ref.viz.theme import TIMES, new_figure, share_legend
from dinat_ref.viz.windows import draw_window, outline_window, window_legend

Token = tuple[int, ...]


def hero_plate() -> Figure:
    """The picture of the README: a window, what the edge does to it, and what dilation does to it.

    Shapes:
        return: a figure of three drawings
    Source: arXiv:2204.07143, arXiv:2209.15001.
    Example:
        >>> len(hero_plate().axes)
        3
    """
    plain, dilated = Neighborhood((12, 12), 5), Neighborhood((12, 12), 5, dilation=2)
    scenes = (
        (f"A window: the 5{TIMES}5 tokens\naround the query", plain, (5, 6)),
        ("At an edge it is shifted,\nnever cut: 25 keys as before", plain, (0, 11)),
        ("Dilation 2: 25 keys again,\none dilation group, twice as wide", dilated, (5, 6)),
    )
    figure, grid = new_figure(1, 3, size=(9, 4.2))
    for axes, (title, neighborhood, token) in zip(grid.flat, scenes, strict=True):
        draw_window(neighborhood, token, axes, view=((-2, 12), (0, 14)), title=title, legend=False)
    share_legend(figure, window_legend([plain, dilated], [(0, 11), (5, 6)]))
    return figure


def windows_plate(neighborhood: Neighborhood, tokens: Sequence[Token]) -> Figure:
    """Draw the windows of several queries side by side.

    Shapes:
        return: a figure of one drawing per token
    Raises:
        ValueError: no token, a token outside the layout, or a layout of more than two axes.
    Example:
        >>> len(windows_plate(Neighborhood((9, 9), 3), [(0, 0), (4, 4)]).axes)
        2
    """
    if not tokens:
        raise ValueError("a drawing needs at least one query, got none")
    columns = 1 if neighborhood.ndim == 1 else min(len(tokens), 3)
    rows = -(-len(tokens) // columns)
    cell = (7.0, 1.1) if neighborhood.ndim == 1 else (3.0, 3.2)
    width = max(5.0, cell[0] * columns)
    figure, grid = new_figure(rows, columns, size=(width, 0.7 + cell[1] * rows))
    for axes in grid.flat[len(tokens) :]:
        axes.remove()
    for axes, token in zip(grid.flat, tokens, strict=False):
        draw_window(neighborhood, token, axes, legend=False)
    share_legend(figure, window_legend([neighborhood] * len(tokens), tokens), columns=3 if width > 8 else 2)
    return figure


def inverse_plate(neighborhood: Neighborhood, tokens: Sequence[Token]) -> Figure:
    """Draw who attends each of some tokens, and how often every token is attended.

    Shapes:
        return: a figure of one drawing per token and one of the counts
    Raises:
        ValueError: no token, a token outside the layout, or a layout of more than two axes.
    Example:
        >>> len(inverse_plate(Neighborhood((9, 9), 3), [(0, 0)]).axes)  # two drawings and a colour scale
        3
    """
    if not tokens:
        raise ValueError("a drawing needs at least one token, got none")
    figure, grid = new_figure(1, len(tokens) + 1, size=(3.0 * (len(tokens) + 1), 3.6))
    for axes, token in zip(grid.flat, tokens, strict=False):
        draw_attended_by(neighborhood, token, axes, legend=False)
    draw_attention_counts(neighborhood, grid.flat[-1])
    share_legend(figure, inverse_legend(), columns=4)
    return figure


def atlas_plate(length: int = 16) -> Figure:
    """Draw the pattern atlas: ten members of the family as matrices of queries and keys.

    Shapes:
        return: a figure of ten drawings
    Raises:
        ValueError: length is below 15.
    Source: arXiv:2204.07143, arXiv:2209.15001, arXiv:2504.16922.
    Example:
        >>> len(atlas_plate().axes)
        10
    """
    figure, grid = new_figure(2, 5, size=(9.5, 4.6))
    for axes, (name, layer) in zip(grid.flat, patterns(length).items(), strict=True):
        draw_pattern(layer, axes, name)
    share_legend(figure, list(pattern_legend()))
    return figure


def receptive_field_plate(stacks: Mapping[str, Sequence[Layer]], token: Token) -> Figure:
    """Draw the receptive field of one token in several stacks of layers, in one colour scale.

    Shapes:
        return: a figure of one drawing per stack, and a colour scale
    Raises:
        ValueError: no stack, or a token outside the layout.
    Example:
        >>> len(receptive_field_plate({"NA": [Neighborhood((20, 20), 5)] * 2}, (9, 9)).axes)
        2
    """
    if not stacks:
        raise ValueError("a drawing needs at least one stack of layers, got none")
    figure, grid = new_figure(1, len(stacks), size=(1.2 + 2.7 * len(stacks), 3.2))
    num_layers = max(len(layers) for layers in stacks.values())
    for number, (axes, (name, layers)) in enumerate(zip(grid.flat, stacks.items(), strict=True), start=1):
        reached = layers_to_reach(layers, token)
        last = number == len(stacks)
        draw_receptive_field(reached, axes, num_layers=num_layers, colorbar=last)
        axes.set_title(f"{name}\n{axes.get_title(loc='left')}", loc="left", fontsize=9)
    return figure


def attention_plate(
    photo: Tensor, tokens: Sequence[Token], kernel_size: int, dilations: Sequence[int], strength: float = 0.25
) -> Figure:
    """Draw what some pixels of a photo attend to, when attention goes to pixels whose patches look alike.

    Shapes:
        photo:  [X, Y, 3]
        return: a figure: the photo with the windows, then a drawing per dilation and token
    Raises:
        ValueError: no token, a token outside the photo, or a window larger than the photo.
    Source: queries and keys as in ``dinat_ref.analysis.photo``.
    Example:
        >>> import torch
        >>> len(attention_plate(torch.rand(30, 30, 3), [(9, 9)], kernel_size=5, dilations=[1]).axes)
        3
    """
    if not tokens:
        raise ValueError("a drawing needs at least one query, got none")
    neighborhoods = [Neighborhood(tuple(photo.shape[:2]), kernel_size, dilation=d) for d in dilations]
    query, key = patch_operands(photo, strength=strength)
    columns = len(tokens) + 1
    figure, grid = new_figure(len(dilations), columns, size=(2.9 * columns, 2.7 * len(dilations)))
    for row, neighborhood in zip(grid, neighborhoods, strict=True):
        dilation = neighborhood.dilation[0]
        draw_photo(photo.numpy(), row[0], title=f"kernel {kernel_size}, dilation {dilation}")
        for letter, token, axes in zip("ABCDEFGH", tokens, row[1:], strict=False):
            outline_window(row[0], neighborhood, token, label=letter)
            weights = attention_map(query, key, token, kernel_size, dilation=dilation, scale=1.0)[0, 0]
            title = f"{letter}: query {token}"
            draw_attention(photo.mean(-1).numpy(), weights.numpy(), neighborhood, token, axes, title=title)
    return figure
