"""Whole figures for ``dinat-ref tour``: photos side by side, and windows on the pixels of a photo."""

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from dinat_ref.analysis.denoising import KERNEL_SIZE, STRENGTH
from dinat_ref.analysis.photo import psnr
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.viz.attention import draw_photo
from dinat_ref.viz.plates import attention_plate, receptive_field_plate
from dinat_ref.viz.theme import new_figure, share_legend
from dinat_ref.viz.windows import draw_window, window_legend

Token = tuple[int, ...]


def photos_plate(photos: Mapping[str, Tensor]) -> Figure:
    """Put photos of one size side by side under their titles, and below them the same detail of each, enlarged.

    Shapes:
        photos: title -> [X, Y, 3], numbers in 0 .. 1
        return: a figure of two drawings per photo
    Raises:
        ValueError: no photo, or an array of another shape.
    Example:
        >>> import torch
        >>> len(photos_plate({"dark": torch.zeros(20, 30, 3), "light": torch.ones(20, 30, 3)}).axes)
        4
    """
    if not photos:
        raise ValueError("a drawing needs at least one photo, got none")
    rows, columns = next(iter(photos.values())).shape[:2]
    detail = ((rows // 5, rows // 5 + max(1, rows // 4)), (columns // 3, columns // 3 + max(1, columns // 3)))
    width = 3.0 * len(photos)
    heights = [rows / columns, (detail[0][1] - detail[0][0]) / (detail[1][1] - detail[1][0])]
    figure, grid = new_figure(2, len(photos), size=(width, 0.4 + 3.0 * sum(heights)), height_ratios=heights)
    for column, (title, photo) in enumerate(photos.items()):
        draw_photo(photo.numpy(), grid[0, column], title=title)
        draw_photo(photo.numpy(), grid[1, column], title="a detail, enlarged", view=detail)
    return figure


def window_grid_plate(neighborhoods: Sequence[Neighborhood], tokens: Sequence[Token]) -> Figure:
    """Draw the windows of several queries: a row for each neighborhood, a column for each query.

    Shapes:
        neighborhoods: of one layout of two axes
        return: a figure of len(neighborhoods) x len(tokens) drawings
    Raises:
        ValueError: nothing to draw, or a token outside the layout.
    Example:
        >>> neighborhoods = [Neighborhood((20, 20), 5), Neighborhood((20, 20), 5, dilation=4)]
        >>> len(window_grid_plate(neighborhoods, [(0, 0), (9, 9)]).axes)
        4
    """
    if not neighborhoods or not tokens:
        raise ValueError("a drawing needs at least one neighborhood and one query, got none")
    figure, grid = new_figure(len(neighborhoods), len(tokens), size=(3.0 * len(tokens), 0.6 + 3.2 * len(neighborhoods)))
    for row, neighborhood in zip(grid, neighborhoods, strict=True):
        for axes, token in zip(row, tokens, strict=True):
            draw_window(neighborhood, token, axes, legend=False)
    every = [(neighborhood, token) for neighborhood in neighborhoods for token in tokens]
    share_legend(figure, window_legend([pair[0] for pair in every], [pair[1] for pair in every]), columns=2)
    return figure


def tour_plates(photo: Tensor, noisy: Tensor, denoised: Tensor) -> Iterator[tuple[str, Figure]]:
    """Make the pictures of the tour one after another, each with its file name.

    Shapes:
        photo, noisy, denoised: [X, Y, 3], numbers in 0 .. 1
    Example:
        >>> import torch
        >>> photo = torch.rand(20, 30, 3)
        >>> next(tour_plates(photo, photo + 0.1, photo))[0]
        'denoised.png'
    """
    rows, columns = photo.shape[:2]
    tokens = [(0, 0), (_varied_edge_row(photo), columns - 1), (2 * rows // 5, columns // 2)]
    largest = min(rows, columns) // KERNEL_SIZE
    dilation = max(1, min(8, largest))
    dilations = [max(1, round(largest ** (layer / 3))) for layer in range(4)]
    yield (
        "denoised.png",
        photos_plate(
            {
                "the photo": photo,
                f"noisy: PSNR {psnr(noisy, photo):.1f} dB": noisy,
                f"denoised: PSNR {psnr(denoised, photo):.1f} dB": denoised,
            }
        ),
    )
    neighborhoods = [Neighborhood((rows, columns), KERNEL_SIZE, dilation=d) for d in sorted({1, dilation})]
    yield "windows.png", window_grid_plate(neighborhoods, tokens)
    yield "attention.png", attention_plate(photo, tokens, KERNEL_SIZE, sorted({1, dilation}), STRENGTH)
    stacks = {
        "4 layers, dilation 1": [Neighborhood((rows, columns), KERNEL_SIZE)] * 4,
        f"dilations {', '.join(map(str, dilations))}": [
            Neighborhood((rows, columns), KERNEL_SIZE, dilation=step) for step in dilations
        ],
    }
    yield "receptive_field.png", receptive_field_plate(stacks, tokens[2])


def _varied_edge_row(photo: Tensor) -> int:
    """The row whose query on the right edge has the most varied window, so that there is something to attend to."""
    strip = photo[:, -KERNEL_SIZE:].mean(-1).unfold(0, KERNEL_SIZE, 1)  # [windows, KERNEL_SIZE, KERNEL_SIZE]
    return int(strip.flatten(1).std(1).argmax()) + KERNEL_SIZE // 2
