"""Neighborhood attention in a handful of large operations, for graphs that another runtime executes.

A graph has no loops: every tile of ``tiled`` would be nodes of its own, thousands of them, and each is to be converted,
loaded and launched. Here all tiles of a layer have the same size, and so have their slabs of keys, so that together
they are one batch of matrices::

    an axis of 7, kernel_size 3, tiles of 3     queries     keys: a slab of 3 + 3 - 1
        tile 0                                  0 1 2       0 1 2 3 4
        tile 1                                  3 4 5       2 3 4 5 6
        tile 2                                  6 6 6       2 3 4 5 6     the last query is repeated, and dropped

    scores [B, tiles, H, T, S] = queries @ slabs + bias        the bias forbids what lies outside a query's window

With dilation, each group has its tiles. Tables of integers say which tokens a tile takes; layers of one geometry share
them, and tiles that look alike share their rows: on one axis mostly the first, those of the interior, and the last.

The products meet whole slabs: a key or value that is not finite spoils every query of its tile.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class AxisBlocks(NamedTuple):
    """The tiles of one axis, as positions on it."""

    queries: Tensor  # [tiles, T]
    keys: Tensor  # [tiles, S]
    offset: Tensor  # [tiles, T, S], the place in a bias table [2k - 1]; -1 where the key lies outside the window
    tile: Tensor  # [L], of each position
    slot: Tensor  # [L], of each position in its tile


class Geometry(NamedTuple):
    """The arguments of a ``Neighborhood``, whose layout may have symbols."""

    layout: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    is_causal: tuple[bool, ...]


class Blocks(NamedTuple):
    """The tiles of a layout, as row-major token numbers."""

    queries: Tensor  # [tiles, T]
    keys: Tensor  # [tiles, S]
    place: Tensor  # [kinds, T, S], the place in a flattened bias table; one behind its end where it is forbidden
    kind: Tensor | None  # [tiles], the row of place; None: a row for each tile, or one for all
    back: Tensor  # [N], where each token's output is among those of all tiles
    places: int  # of the flattened bias table


def axis_blocks(
    axis: tuple[int, int, int, int, bool], size: int, device: torch.device | str | None = None
) -> AxisBlocks:
    """Cut each dilation group of one axis into tiles of equally many queries.

    The length may be a symbol of torch.export: nothing here makes a Python number of it.

    Shapes:
        return: as ``AxisBlocks``
    Args:
        axis: length, kernel_size, stride, dilation and is_causal, as ``Neighborhood.axes`` has them.
        size: T, a multiple of the stride.
    Example:
        >>> blocks = axis_blocks((7, 3, 1, 1, False), size=3)
        >>> blocks.queries, blocks.keys
        (tensor([[0, 1, 2],
                [3, 4, 5],
                [6, 6, 6]]), tensor([[0, 1, 2, 3, 4],
                [2, 3, 4, 5, 6],
                [2, 3, 4, 5, 6]]))
        >>> blocks.offset[1]
        tensor([[ 1,  2,  3, -1, -1],
                [-1,  1,  2,  3, -1],
                [-1, -1,  1,  2,  3]])
    """
    length, kernel_size, stride, dilation, is_causal = axis
    longest = (length + dilation - 1) // dilation  # tokens of a dilation group
    in_group = (longest + size - 1) // size  # tiles of a dilation group
    slab = size + kernel_size - 1
    if isinstance(length, torch.SymInt):
        in_group = in_group + 1  # two at least: whether there is more than one of something, a trace must know
    else:
        slab = min(slab, longest)
    g = torch.arange(dilation, device=device)[:, None, None]  # [d, 1, 1]
    n = (length - 1 - g) // dilation + 1  # [d, 1, 1], tokens of this group
    m = size * torch.arange(in_group, device=device)[:, None] + torch.arange(size, device=device)  # [in_group, T]
    m = torch.minimum(m, n - 1)  # [d, in_group, T]
    leader = torch.minimum(m // stride * stride + (stride - 1 if is_causal else stride // 2), n - 1)
    start = (
        leader - kernel_size + 1 if is_causal else torch.minimum(leader - kernel_size // 2, n - kernel_size)
    ).clamp(min=0)
    stop = m + 1 if is_causal else start + kernel_size
    key = torch.minimum(start[..., :1], (n - slab).clamp(min=0)) + torch.arange(slab, device=device)  # [d, in_group, S]
    outside = (key[..., None, :] < start[..., None]) | (key[..., None, :] >= stop[..., None])  # [d, in_group, T, S]
    offset = (key[..., None, :] - m[..., None] + kernel_size - 1).masked_fill(outside, -1)
    i = torch.arange(length, device=device)
    return AxisBlocks(
        (g + dilation * m).flatten(0, 1),
        (g + dilation * torch.minimum(key, n - 1)).flatten(0, 1),
        offset.flatten(0, 1),
        tile=i % dilation * in_group + i // dilation // size,
        slot=i // dilation % size,
    )


def cut_into_blocks(geometry: Geometry, device: torch.device | str | None = None, *, share: bool = True) -> Blocks:
    """Cut a layout into tiles, the product of those of its axes.

    Shapes:
        return: as ``Blocks``
    Args:
        share: keep one row of ``place`` for tiles that look alike; not where lengths are symbols.
    Example:
        >>> blocks = cut_into_blocks(Geometry((30, 40), (3, 3), (1, 1), (1, 1), (False, False)))
        >>> blocks.queries.shape, blocks.keys.shape, blocks.place.shape
        (torch.Size([60, 20]), torch.Size([60, 42]), torch.Size([9, 20, 42]))
    """
    layout, kernel_size, stride, dilation, _ = geometry
    sizes = [
        step * -(-tile_size(length, size, d) // step)
        for length, size, step, d in zip(layout, kernel_size, stride, dilation, strict=True)
    ]
    axes = [axis_blocks(axis, size, device) for axis, size in zip(zip(*geometry, strict=True), sizes, strict=True)]
    offsets, kinds = [axis.offset for axis in axes], None
    if share:
        found = [torch.unique(axis.offset, dim=0, return_inverse=True) for axis in axes]
        offsets = [offset for offset, _ in found]
        if any(len(offset) > 1 for offset in offsets):
            kinds = row_major([kind for _, kind in found], [len(offset) for offset in offsets])
    tile = row_major([axis.tile for axis in axes], [axis.queries.shape[0] for axis in axes])
    slot = row_major([axis.slot for axis in axes], sizes)
    return Blocks(
        row_major([axis.queries for axis in axes], layout),
        row_major([axis.keys for axis in axes], layout),
        _places(offsets, [2 * size - 1 for size in kernel_size]),
        kinds,
        tile * math.prod(sizes) + slot,
        math.prod(2 * size - 1 for size in kernel_size),
    )


def tile_size(length: int, kernel_size: int, dilation: int) -> int:
    """Choose T for one axis: whatever makes the fewest products, tiles of less than four queries aside.

    A group no longer than the kernel is one tile, which is its own slab.

    Example:
        >>> tile_size(56, 7, 1), tile_size(56, 7, 8)
        (4, 7)
    """
    if isinstance(length, torch.SymInt):
        return 8 if kernel_size > 4 else 4
    longest = -(-length // dilation)
    if longest <= kernel_size + 1:
        return longest
    sizes = {-(-longest // number) for number in range(1, longest + 1)}
    candidates = [size for size in sizes if size >= 4] or [longest]
    return min(candidates, key=lambda size: -(-longest // size) * (size + 4) * min(size + kernel_size - 1, longest))


def row_major(tables: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    """Number the product of the axes' tables: as many dimensions, each the product of theirs.

    Shapes:
        tables: one for each axis, all [tiles] or all [tiles, tokens]
        return: [product of tiles], or [product of tiles, product of tokens]
    Args:
        lengths: how many numbers there are on each axis.
    Example:
        >>> row_major([torch.tensor([[0, 1]]), torch.tensor([[0, 2]])], lengths=(4, 5))
        tensor([[0, 2, 5, 7]])
    """
    number = tables[0]
    for table, length in zip(tables[1:], lengths[1:], strict=True):
        if table.ndim == 1:
            number = (number[:, None] * length + table).flatten()
        else:
            number = number[:, None, :, None] * length + table[None, :, None, :]  # [tiles, tiles', T, T']
            number = number.flatten(2).flatten(0, 1)
    return number


def _places(offsets: Sequence[Tensor], sides: Sequence[int]) -> Tensor:
    """Combine the axes' places in a bias table: [kinds, T, S], the size of the table where any axis forbids."""
    place = offsets[0]
    for offset, side in zip(offsets[1:], sides[1:], strict=True):
        first, second = place[:, None, :, None, :, None], offset[None, :, None, :, None, :]
        place = torch.where((first < 0) | (second < 0), -1, first * side + second)  # [kinds, kinds', T, T', S, S']
        place = place.flatten(4).flatten(2, 3).flatten(0, 1)
    return torch.where(place < 0, math.prod(sides), place)


def block_attention(
    query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, scale: float | None = None, rpb: Tensor | None = None
) -> Tensor:
    """Attend all tiles at once; the softmax is taken in float32 at least, the products in query's dtype.

    Shapes:
        query, key, value: [B, *layout, H, D], [B, *layout, H, D], [B, *layout, H, Dv]
        rpb: [H, 2k-1, ...]
        return: [B, *layout, H, Dv]
    Source: arXiv:2209.15001, eq. 1-3.
    Example:
        >>> x = torch.arange(5.0).reshape(1, 5, 1, 1)
        >>> blocks = cut_into_blocks(Geometry((5,), (3,), (1,), (1,), (False,)))
        >>> block_attention(torch.zeros_like(x), x, x, blocks).flatten()
        tensor([1., 1., 2., 3., 3.])
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    queries = _matrices(scale * query, blocks.queries)  # [B, tiles H, T, D]
    keys, values = _matrices(key, blocks.keys), _matrices(value, blocks.keys)  # [B, tiles H, S, D]
    scores = queries @ keys.mT  # [B, tiles H, T, S]
    precise = torch.float64 if query.dtype == torch.float64 else torch.float32
    weights = (_to(scores, precise) + _bias(blocks, rpb, query.shape[-2], precise)).softmax(-1)
    output = _to(weights, value.dtype) @ values  # [B, tiles H, T, Dv]
    rows = output.unflatten(1, (-1, query.shape[-2])).transpose(2, 3).flatten(1, 2)  # [B, tiles T, H, Dv]
    return rows.index_select(1, blocks.back).unflatten(1, query.shape[1:-2])


def _matrices(x: Tensor, tokens: Tensor) -> Tensor:
    """Copy the tokens of each tile, a matrix for each head: [B, *layout, H, D] -> [B, tiles H, tokens, D]."""
    rows = x.flatten(1, -3).index_select(1, tokens.flatten())
    return rows.unflatten(1, tokens.shape).transpose(2, 3).flatten(1, 2)


def _bias(blocks: Blocks, rpb: Tensor | None, heads: int, dtype: torch.dtype) -> Tensor:
    """Read the bias of every pair, minus infinity where it is forbidden: [tiles H, T, S]."""
    table = blocks.place.new_zeros((1, blocks.places), dtype=dtype) if rpb is None else _to(rpb.flatten(1), dtype)
    table = torch.nn.functional.pad(table, (0, 1), value=-torch.inf)  # [H or 1, places + 1]
    bias = table.index_select(1, blocks.place.flatten()).unflatten(1, blocks.place.shape).transpose(0, 1)
    bias = bias if blocks.kind is None else bias.index_select(0, blocks.kind)  # [tiles or 1, H or 1, T, S]
    return bias.expand(blocks.queries.shape[0], heads, -1, -1).flatten(0, 1)


def _to(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert what has another dtype; in a graph, ``to`` is three nodes even where it does nothing."""
    return x if x.dtype == dtype else x.to(dtype)
