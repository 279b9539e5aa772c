"""Sliding windows: each dilation group is unfolded into all windows it has, and every query picks one.

A group of n tokens has n - k + 1 windows of k consecutive tokens. ``Tensor.unfold`` shows them without a copy;
an interior query takes the one centred on it, an edge query re-uses the first or the last::

    group        0 1 2 3 4            k = 3
    windows      [0 1 2] [1 2 3] [2 3 4]
    query          0   1     2     3   4        start of its window: 0 0 1 2 2

A causal query takes the window that ends at its leader and masks what lies behind the query itself.

Memory: picking copies the windows, k^n times the memory of one dilation group of ``key`` and ``value``.
"""

import functools
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from dinat_ref.attention.bias import lookup_bias, spread
from dinat_ref.attention.operands import Operands, every
from dinat_ref.attention.softmax import softmax


def unfold_attention(operands: Operands, return_lse: bool = False) -> tuple[Tensor, Tensor | None]:
    """Attend one dilation group at a time, through sliding windows.

    Shapes:
        return: (output [B, *layout, H, Dv], lse [B, *layout, H] or None)
    Cost: O(N K) time, N K (D + Dv) / d^n numbers of memory per batch and head.
    Source: arXiv:2209.15001, section 3.2 (dilation groups); arXiv:2204.07143, eq. 1-3.
    Example:
        >>> from dinat_ref.attention.operands import prepare
        >>> from dinat_ref.neighborhood import Neighborhood
        >>> x = torch.arange(5.).reshape(1, 5, 1, 1)
        >>> unfold_attention(prepare(torch.zeros_like(x), x, x, Neighborhood((5,), 3)))[0].flatten()
        tensor([1., 1., 2., 3., 3.])
    """
    neighborhood, device = operands.neighborhood, operands.query.device
    layout = neighborhood.layout
    token_numbers = torch.arange(neighborhood.num_tokens, device=device).reshape(layout)

    outputs, lses, tokens = [], [], []
    for group in itertools.product(*(range(dilation) for dilation in neighborhood.dilation)):
        members = tuple(slice(g, None, d) for g, d in zip(group, neighborhood.dilation, strict=True))
        output, lse = _attend_group(operands, group, members)  # [B, n, H, Dv], [B, n, H]
        outputs.append(output)
        lses.append(lse)
        tokens.append(token_numbers[members].flatten())

    order = torch.cat(tokens).argsort()  # from group by group back to row-major
    output = torch.cat(outputs, dim=1)[:, order].unflatten(1, layout)
    lse = torch.cat(lses, dim=1)[:, order].unflatten(1, layout)
    return output, lse if return_lse else None


def _attend_group(operands: Operands, group: tuple[int, ...], members: tuple[slice, ...]) -> tuple[Tensor, Tensor]:
    """Attend inside one dilation group of n tokens: its output [B, n, H, Dv] and its lse [B, n, H]."""
    neighborhood, device = operands.neighborhood, operands.query.device
    sizes, group_size = neighborhood.kernel_size, operands.group_size
    starts, counts, own = _axis_tables(operands, group, device)

    query = operands.scale * operands.query[every(*members)].flatten(1, -3)  # [B, n, H, D]
    keys = _windows(operands.key[every(*members)], sizes, starts)  # [B, n, Hkv, D, K]
    values = _windows(operands.value[every(*members)], sizes, starts)  # [B, n, Hkv, Dv, K]
    slots = [torch.arange(size, device=device) for size in sizes]
    valid = None  # [n, 1, K]
    if any(neighborhood.is_causal):
        tables = [slot < count[:, None] for slot, count in zip(slots, counts, strict=True)]  # [n_axis, k_axis]
        spread_out = (spread(table, axis, neighborhood.ndim) for axis, table in enumerate(tables))
        valid = functools.reduce(torch.logical_and, spread_out).reshape(query.shape[1], 1, -1)
        # what lies behind the query must not matter, not even if it is infinite
        keys, values = (x.masked_fill(~valid[:, :, None], 0.0) for x in (keys, values))
    keys, values = keys.repeat_interleave(group_size, dim=2), values.repeat_interleave(group_size, dim=2)

    scores = torch.einsum("bnhd,bnhdk->bnhk", query, keys)
    if operands.rpb is not None:
        index = [start[:, None] + slot - i[:, None] for start, slot, i in zip(starts, slots, own, strict=True)]
        index = [offset + size - 1 for offset, size in zip(index, sizes, strict=True)]  # [n_axis, k_axis], 0 .. 2k-2
        bias = lookup_bias(operands.rpb, index)  # [H, n_1, n_2, ..., k_1, k_2, ...]
        scores = scores + bias.reshape(bias.shape[0], *scores.shape[1:2], -1).transpose(0, 1)  # [n, H, K]
    if valid is not None:
        scores = scores.masked_fill(~valid, -torch.inf)
    if operands.key_mask is not None:
        kept = operands.key_mask[..., None, None]  # [B, *layout, 1, 1]
        kept = _windows(kept[every(*members)], sizes, starts).squeeze(2)  # [B, n, 1, K]
        scores = scores.masked_fill(~kept, -torch.inf)

    if operands.additional_keys is not None and operands.additional_values is not None:
        additional_keys = operands.additional_keys.repeat_interleave(group_size, dim=2)  # [B, M, H, D]
        additional_values = operands.additional_values.repeat_interleave(group_size, dim=2)
        scores = torch.cat([scores, torch.einsum("bnhd,bmhd->bnhm", query, additional_keys)], dim=-1)
        extra = additional_values.permute(0, 2, 3, 1)[:, None].expand(-1, query.shape[1], -1, -1, -1)
        values = torch.cat([values, extra], dim=-1)  # [B, n, H, Dv, K + M]
    weights, lse = softmax(scores)
    return torch.einsum("bnhk,bnhdk->bnhd", weights, values), lse


def _axis_tables(
    operands: Operands, group: tuple[int, ...], device: torch.device
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """For each axis: the window's start, its number of keys and the query itself, in coordinates of the group."""
    starts, counts, own = [], [], []
    for axis, (g, dilation) in enumerate(zip(group, operands.neighborhood.dilation, strict=True)):
        members = range(g, operands.neighborhood.layout[axis], dilation)
        first, count = operands.neighborhood.window_bounds(axis, device, members)
        starts.append((first - g) // dilation)
        counts.append(count)
        own.append(torch.arange(len(members), device=device))
    return starts, counts, own


def _windows(tensor: Tensor, sizes: Sequence[int], starts: Sequence[Tensor]) -> Tensor:
    """Pick every query's window out of all windows of a group: [B, *group, Hkv, D] -> [B, n, Hkv, D, K]."""
    for axis, size in enumerate(sizes, start=1):
        tensor = tensor.unfold(axis, size, 1)  # shortens the axis to n - k + 1 windows, appends one of k tokens
    grid = torch.meshgrid(*starts, indexing="ij")
    picked = tensor[every(*grid)]  # [B, n_1, n_2, ..., Hkv, D, k_1, k_2, ...]
    return picked.flatten(1, len(sizes)).flatten(4)
