"""A mask for PyTorch's FlexAttention that is neighborhood attention exactly.

The masks in circulation clamp rows by the width of the map and take every kernel for odd. This one reads each
axis's windows from ``dinat_ref.window``, so it is right for layouts that are not square, for even kernels, dilation,
stride and causality::

    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    mask_mod = neighborhood_mask_mod((56, 40), kernel_size=7, dilation=4)
    mask = create_block_mask(mask_mod, None, None, 56 * 40, 56 * 40, device="cuda")
    output = torch.compile(flex_attention)(query, key, value, block_mask=mask)      # [B, H, 56 * 40, D]

FlexAttention cuts sequences into blocks of 128 tokens: strips of a row-major layout, which touch many blocks of keys.
``tile_permutation`` brings the tokens of a tile of any shape together, so that a block is a tile::

    order, place = tile_permutation((56, 40), tile=(8, 16))
    mask_mod = permuted_mask_mod(mask_mod, order, order)
    mask = create_block_mask(mask_mod, None, None, len(order), len(order), device="cuda")
    output = flex_attention(*(x[:, :, order.clamp(min=0)] for x in (query, key, value)), block_mask=mask)[:, :, place]

``dinat_ref.analysis.kernel_tiles`` counts what either way visits.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dinat_ref.neighborhood import Neighborhood, per_axis
from dinat_ref.window import check_integer

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
    firsts, lasts = [], []
    for axis, step in enumerate(neighborhood.dilation):
        first, count = neighborhood.window_bounds(axis, device)  # [L]
        firsts.append(first)
        lasts.append(first + step * (count - 1))

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


def tile_permutation(
    layout: Sequence[int],
    tile: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """Order tokens by dilation group, then by tile: which token each slot takes, and in which slot each token is.

    Groups, tiles and the tokens of a tile are each in row-major order. Where a tile reaches over the end of its group,
    its slots are empty, so that every tile fills its block.

    Shapes:
        order: int64 [slots], the row-major number of a token, -1 for an empty slot
        place: int64 [tokens], so that order[place] is 0, 1, 2 ..
    Args:
        layout: number of tokens on each axis.
        tile: tokens of a tile on each axis; their product is the block size.
        dilation: that of the window; queries and keys of a window are in one group.
    Raises:
        TypeError, ValueError: an argument is no integer of at least 1 for each axis, or dilation exceeds an axis.
    Source: token permutation, arXiv:2504.16922, section 3.3.
    Example:
        >>> order, place = tile_permutation((2, 4), tile=(2, 2))
        >>> order
        tensor([0, 1, 4, 5, 2, 3, 6, 7])
        >>> tile_permutation((5,), tile=2, dilation=2)[0]
        tensor([ 0,  2,  4, -1,  1,  3])
    """
    axes = Neighborhood(layout, 1, 1, dilation)
    sizes = [
        check_integer(f"tile on axis {axis}", size) for axis, size in enumerate(per_axis("tile", tile, axes.layout))
    ]
    if min(sizes) < 1:
        raise ValueError(f"tile must be at least 1 on each axis, got {tuple(sizes)}")
    tokens = torch.arange(axes.num_tokens, device=device).reshape(axes.layout)
    blocks = []
    for group in itertools.product(*map(range, axes.dilation)):
        members = tokens[tuple(slice(first, None, step) for first, step in zip(group, axes.dilation, strict=True))]
        missing = [(-length) % size for length, size in zip(members.shape, sizes, strict=True)]
        padding = [amount for own in reversed(missing) for amount in (0, own)]
        padded = torch.nn.functional.pad(members, padding, value=-1)
        cut = [part for length, size in zip(padded.shape, sizes, strict=True) for part in (length // size, size)]
        tiles = padded.reshape(cut)  # [tiles of axis 0, places of axis 0, tiles of axis 1, ..]
        blocks.append(tiles.permute(*range(0, 2 * axes.ndim, 2), *range(1, 2 * axes.ndim, 2)).flatten())
    order = torch.cat(blocks)
    filled = (order >= 0).nonzero().flatten()
    place = torch.empty(axes.num_tokens, dtype=torch.int64, device=device)
    place[order[filled]] = filled
    return order, place


def permuted_mask_mod(mask_mod: MaskMod, query_order: Tensor, key_order: Tensor) -> MaskMod:
    """Make the mask_mod of tokens that lie in another order; empty slots attend nothing and are not attended.

    Shapes:
        query_order, key_order: int64 [slots], as ``tile_permutation`` makes them; they may differ in their tiles
    Example:
        >>> order, _ = tile_permutation((3,), tile=2)
        >>> attends = permuted_mask_mod(neighborhood_mask_mod((3,), kernel_size=3), order, order)
        >>> attends(0, 0, torch.arange(4)[:, None], torch.arange(4)).int()
        tensor([[1, 1, 1, 0],
                [1, 1, 1, 0],
                [1, 1, 1, 0],
                [0, 0, 0, 0]], dtype=torch.int32)
    """

    def permuted(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        query, key = query_order[query], key_order[key]
        return (query >= 0) & (key >= 0) & mask_mod(batch, head, query.clamp(min=0), key.clamp(min=0))

    return permuted
