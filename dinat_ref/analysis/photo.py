"""A photograph as tokens: one pixel is one token, and its patch says what it looks like.

With queries and keys made from patches, one neighborhood attention layer without any learned weight is non-local means:
it averages pixels whose patches look alike. The squared distance of two patches is a dot product in disguise::

    -|f_i - f_j|^2 / 2 h^2  =  ( <f_i, f_j>  -  |f_j|^2 / 2 ) / h^2   +   a number that only depends on i

and what depends on i alone cancels in a softmax. So  query_i = (f_i, 1) / h^2,  key_j = (f_j, -|f_j|^2 / 2).
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dinat_ref.images import open_photo

LONGEST_SIDE = 2048  # more pixels are averaged: nothing here looks at so many


def load_photo(path: Path | str | None = None) -> Tensor:
    """Read a photograph; without a path, the portrait of Grace Hopper that matplotlib ships.

    Shapes:
        return: float32 [X, Y, 3], red, green and blue in 0 .. 1, upright; at most 2048 pixels long
    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no image, or one with more pixels than can be meant.
    Source: the portrait is in the public domain (U.S. Navy).
    Example:
        >>> load_photo().shape
        torch.Size([600, 512, 3])
    """
    from matplotlib import get_data_path

    path = Path(get_data_path()) / "sample_data" / "grace_hopper.jpg" if path is None else Path(path)
    image = open_photo(path)
    image = image.reduce(-(-max(image.size) // LONGEST_SIDE))  # by a whole number of pixels, mostly 1
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)


def patch_operands(image: Tensor, patch_size: int = 3, strength: float = 0.25) -> tuple[Tensor, Tensor]:
    """Make a query and a key of every pixel, such that attention goes to the pixels whose patches look alike.

    Use them with ``scale=1``. The photo is mirrored at its edges, so that every pixel has a patch.

    Shapes:
        image:  [X, Y] or [X, Y, C]
        return: query and key, each [1, X, Y, 1, patch_size^2 C + 1]
    Args:
        patch_size: width of a patch in pixels, odd.
        strength: h above, in units of the pixels: how different two patches may be and still count as alike.
    Raises:
        ValueError: patch_size is even or below 1, strength is not above 0.
    Source: Buades, Coll & Morel, A non-local algorithm for image denoising, CVPR 2005.
    Example:
        >>> query, key = patch_operands(torch.tensor([[0.0, 0.0, 1.0]] * 3), strength=1.0)
        >>> scores = torch.einsum("bxyhd,bijhd->xyij", query, key)[1, 1, 1]  # of the pixel in the centre
        >>> scores - scores[1]  # minus half the squared distance to its own patch: 3 pixels differ by 1, then 6
        tensor([-1.5000,  0.0000, -3.0000])
    """
    if patch_size < 1 or patch_size % 2 == 0:
        raise ValueError(f"patch_size must be odd and at least 1, got {patch_size}")
    if strength <= 0:
        raise ValueError(f"strength must be above 0, got {strength}")
    channels = image.movedim(-1, 0) if image.ndim == 3 else image[None]  # [C, X, Y]
    rim = [patch_size // 2] * 4
    padded = functional.pad(channels[None], rim, mode="reflect")
    patches = functional.unfold(padded, patch_size)[0].T.unflatten(0, channels.shape[1:])  # [X, Y, patch_size^2 C]
    length = patches.square().sum(-1, keepdim=True)
    query = torch.cat([patches, torch.ones_like(length)], dim=-1) / strength**2
    key = torch.cat([patches, -length / 2], dim=-1)
    return query[None, :, :, None], key[None, :, :, None]


def psnr(image: Tensor, reference: Tensor) -> float:
    """Compute the peak signal-to-noise ratio of an image whose pixels lie in 0 .. 1.

    Shapes:
        image, reference: of one shape
        return: one number, in decibels
    Raises:
        ValueError: unequal shapes.
    Source: 10 log10 of 1 over the mean squared error.
    Example:
        >>> round(psnr(torch.full((4, 4), 0.6), torch.full((4, 4), 0.5)), 3)
        20.0
    """
    if image.shape != reference.shape:
        raise ValueError(
            f"image must have the shape of the reference {tuple(reference.shape)}, got {tuple(image.shape)}"
        )
    return float(-10 * (image.double() - reference.double()).square().mean().log10())
