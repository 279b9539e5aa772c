"""Rotary position embeddings on any number of axes: pairs of channels turn with the place of their token.

    (x_2i, x_2i+1)  ->  the same, turned by the angle  position * base ** (-i / pairs)

Each axis has its own pairs. A dot product of a turned query and a turned key depends on the offset of their tokens, not
on their places: what a relative positional bias learns per offset is given here, for offsets of any length.
"""

import torch
from torch import Tensor


def rotate(x: Tensor, base: float = 10000.0) -> Tensor:
    """Turn the channels of every token by its position.

    Axes share the channels evenly, in pairs; what is left over is not turned.

    Shapes:
        x and return: [B, *layout, H, D]
    Args:
        base: the slowest pair turns nearly base times more slowly than the fastest, which turns by 1 a token.
    Raises:
        ValueError: fewer than one pair of channels for each axis, or a base that is not above 0.
    Source: Su et al., arXiv:2104.09864, eq. 15; several axes: Heo et al., arXiv:2403.13298, section 3.1.
    Example:
        >>> x = torch.ones(1, 3, 1, 2)  # three tokens, one head, one pair
        >>> rotate(x)[0, :, 0]
        tensor([[ 1.0000,  1.0000],
                [-0.3012,  1.3818],
                [-1.3254,  0.4932]])
    """
    layout, pairs = x.shape[1:-2], check_rotary(x.shape[-1], x.ndim - 3, base)
    turned = []
    for axis, length in enumerate(layout):
        part = x[..., 2 * pairs * axis : 2 * pairs * (axis + 1)].unflatten(-1, (pairs, 2))  # [B, *layout, H, pairs, 2]
        dtype = torch.promote_types(x.dtype, torch.float32)
        speed = base ** (-torch.arange(pairs, device=x.device, dtype=dtype) / pairs)
        angle = torch.arange(length, device=x.device, dtype=dtype)[:, None] * speed  # [length, pairs]
        angle = angle.reshape(length, *[1] * (len(layout) - axis), pairs)  # [length, 1 ..., H = 1, pairs]
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        first, second = part.unbind(-1)  # each [B, *layout, H, pairs]
        turned.append(torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1).flatten(-2))
    return torch.cat([*turned, x[..., 2 * pairs * len(layout) :]], dim=-1)


def check_rotary(head_dim: int, ndim: int, base: float) -> int:
    """Give the number of channel pairs that each axis has.

    Raises:
        ValueError: as ``rotate``.
    Example:
        >>> check_rotary(head_dim=32, ndim=3, base=10000.0)
        5
    """
    if not base > 0:
        raise ValueError(f"rotary must be above 0, the base of the angles, got {base}")
    if head_dim < 2 * ndim:
        raise ValueError(f"head_dim must be at least {2 * ndim}, a pair of channels for each axis, got {head_dim}")
    return head_dim // (2 * ndim)
