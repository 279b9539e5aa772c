"""A mask for PyTorch's FlexAttention that is neighborhood attention exactly.

The masks in circulation clamp rows by the width of the map and take every kernel for odd. This one reads each
axis's windows from ``dinat_ref.window``, so it is right for layouts that are not square, for even kernels, dilation,
stride and causality::

    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    mask_mod = neighborhood_mask_mod((56, 40), kernel_size=7, dilation=4)
    mask = create_block_mask(mask_mod, None, None, 56 * 40, 56 * 40, device="cuda")
    output = torch.compile(flex_attention)(query, key, value, block_mask=mask)      # [B, H, 56 * 40, D]
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dinat_ref.neighborhood import Neighborhood

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def neighborhood_mask_mod(
    layout: Sequence[int],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
    device: torch.device | str | None = None,
) -> MaskMod:
    """Make a mask_mod that is True where a query attends a key; tokens are numbered row-major.

    Shapes:
        the mask_mod takes numbers (batch, head, query token, key token) and returns a bool, all tensors []
    Args:
        layout: number of tokens on each axis, one axis or more.
        kernel_size, stride, dilation, is_causal: as ``neighborhood_attention``.
        device: where the tables are read, that of the query.
    Raises:
        TypeError, ValueError: as ``Neighborhood``.
    Source: PyTorch's FlexAttention; windows: arXiv:2209.15001, eq. 1.
    Example:
        >>> attends = neighborhood_mask_mod((5,), kernel_size=3)
        >>> q, k = torch.arange(5)[:, None], torch.arange(5)
        >>> attends(0, 0, q, k).int()
        tensor([[1, 1, 1, 0, 0],
                [1, 1, 1, 0, 0],
                [0, 1, 1, 1, 0],
                [0, 0, 1, 1, 1],
                [0, 0, 1, 1, 1]], dtype=torch.int32)
    """
    neighborhood = Neighborhood(layout, kernel_size, stride, dilation, is_causal)
    firsts = [torch.tensor([keys[0] for keys in neighborhood.windows(n)], device=device) for n in range(len(layout))]
    lasts = [torch.tensor([keys[-1] for keys in neighborhood.windows(n)], device=device) for n in range(len(layout))]

    def mask_mod(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        attends = query >= 0  # True, in the shape of the query
        axes = list(zip(neighborhood.layout, neighborhood.dilation, firsts, lasts, strict=True))
        for length, step, first, last in reversed(axes):  # the last axis is the fastest
            i, j = query % length, key % length
            same_group = (j - i) % step == 0
            attends = attends & (j >= first[i]) & (j <= last[i]) & same_group
            query, key = query // length, key // length
        return attends

    return mask_mod
