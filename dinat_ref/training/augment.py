"""Small random changes of images that do not change their class: shift, turn, zoom, mirror."""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

SHIFT = 0.1  # of a side, at most
TURN = math.radians(12)
ZOOM = 0.15  # larger or smaller by


def draw_changes(augmentation: str, num_images: int, generator: torch.Generator) -> Tensor | None:
    """Draw a random affine map for each image, or nothing where there is no augmentation.

    Shapes:
        return: [num_images, 2, 3]: from coordinates of the new image to those of the old, both -1 .. 1; or None
    Args:
        augmentation: "none", "affine" (shift, turn, zoom) or "photo" (the same, and mirrored half of the time).
        generator: what the numbers are drawn from, on the CPU.
    Source: the usual augmentations of small images, e.g. Simard et al., ICDAR 2003.
    Example:
        >>> draw_changes("affine", num_images=5, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([5, 2, 3])
    """
    if augmentation == "none":
        return None
    shift_x, shift_y, turn, zoom = (2 * torch.rand(4, num_images, generator=generator) - 1).unbind()  # each [N]
    factor = torch.exp(ZOOM * zoom)
    cosine, sine = factor * torch.cos(TURN * turn), factor * torch.sin(TURN * turn)
    mirror = torch.ones(num_images)
    if augmentation == "photo":
        mirror = torch.randint(2, (num_images,), generator=generator) * 2.0 - 1
    # coordinates reach from -1 to 1, so a side is 2 long
    rows = [
        torch.stack([cosine * mirror, -sine, 2 * SHIFT * shift_x]),
        torch.stack([sine * mirror, cosine, 2 * SHIFT * shift_y]),
    ]
    return torch.stack(rows).permute(2, 0, 1)  # [N, 2, 3]


def apply_changes(images: Tensor, changes: Tensor | None) -> Tensor:
    """Change each image; what comes in from outside is 0: paper, or the mean colour of photographs.

    Shapes:
        images: [N, C, H, W]
        changes: [N, 2, 3], or None to hand the images through
        return: [N, C, H, W]
    Source: Jaderberg et al., arXiv:1506.02025, eq. 1.
    Example:
        >>> identity = torch.eye(2, 3).expand(1, 2, 3)
        >>> images = torch.randn(1, 3, 8, 10)
        >>> torch.testing.assert_close(apply_changes(images, identity), images, rtol=1e-4, atol=1e-5)
    """
    if changes is None:
        return images
    grid = affine_grid(changes.to(images), list(images.shape), align_corners=False)  # [N, H, W, 2]
    return grid_sample(images, grid, align_corners=False)
