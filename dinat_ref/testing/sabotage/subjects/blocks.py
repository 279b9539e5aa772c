"""Tiles of queries against tiles of keys under a mask that is a formula, and a backward pass written by hand."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

TILE = 32


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: Any,
    stride: Any = 1,
    dilation: Any = 1,
    is_causal: Any = False,
    scale: float | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    return_lse: bool = False,
) -> Any:
    """Neighborhood attention in tiles.

    Shapes:
        query [B, *layout, H, D], key [B, *layout, Hkv, D], value [B, *layout, Hkv, Dv] -> [B, *layout, H, Dv]
    Raises:
        ValueError: illegal arguments.
    Example:
        >>> x = torch.arange(5.0).reshape(1, 5, 1, 1)
        >>> attend(torch.zeros_like(x), x, x, 3).flatten()
        tensor([1., 1., 2., 3., 3.])
    """
    layout = query.shape[1:-2]
    given = [kernel_size, stride, dilation, is_causal]
    for n, entry in enumerate(given):
        given[n] = tuple(entry) if isinstance(entry, (tuple, list)) else len(layout) * (entry,)
        if len(given[n]) != len(layout):
            raise ValueError("each axis wants its own entry")
    for length, k, s, d, _ in zip(layout, *given, strict=True):
        if not (k >= 1 and d >= 1 and 1 <= s <= k and k * d <= length):
            raise ValueError("no such window")
    same = [key.shape[:-2] == query.shape[:-2], value.shape[:-2] == query.shape[:-2]]
    same += [key.shape[-1] == query.shape[-1], key.shape[-2] == value.shape[-2]]
    same += [query.dtype == key.dtype, query.dtype == value.dtype]
    same += [query.device == key.device, query.device == value.device]
    if not all(same) or query.shape[-2] % key.shape[-2] > 0:
        raise ValueError("tensors that do not fit each other")
    if (additional_keys is None) ^ (additional_values is None):
        raise ValueError("a half of the additional tokens")
    if additional_keys is not None and additional_values is not None:
        count = additional_keys.shape[1]
        fits = additional_keys.shape == (key.shape[0], count, *key.shape[-2:])
        if not fits or additional_values.shape != (value.shape[0], count, *value.shape[-2:]):
            raise ValueError("additional tokens of another shape")

    q, k, v = (tensor.flatten(1, -3).transpose(1, 2) for tensor in (query, key, value))  # [B, H, N, D]
    count = k.shape[2]
    if additional_keys is not None and additional_values is not None:
        k = torch.cat([k, additional_keys.transpose(1, 2)], dim=2)
        v = torch.cat([v, additional_values.transpose(1, 2)], dim=2)
    axes = tuple(zip(layout, *given, strict=True))
    run: Any = Tiles.apply
    output, lse = run(q, k, v, axes, count, q.shape[-1] ** -0.5 if scale is None else scale)
    output, lse = (tensor.transpose(1, 2).unflatten(1, layout) for tensor in (output, lse))
    return (output, lse) if return_lse else output


def attends(query: Tensor, key: Tensor, axes: Any, count: int) -> Tensor:
    """Whether a query attends a key, both by number; numbers from count on are additional keys."""
    extra = key >= count
    near = torch.ones_like(query + key, dtype=torch.bool)
    for length, k, s, d, causal in reversed(axes):
        i, j = query % length, key % length
        query, key = query // length, key // length
        group, place, other = i % d, i // d, j // d
        members = (length - 1 - group) // d + 1
        if causal:
            lead = torch.minimum((place // s + 1) * s, members) - 1
            first = lead - k + 1
            near = near & (other >= first) & (j <= i)
        else:
            lead = torch.minimum(place // s * s + s // 2, members - 1)
            first = torch.minimum((lead - k // 2).clamp(min=0), members - k)
            near = near & (other >= first) & (other < first + k)
        near = near & (j % d == group)
    return near | extra


def tiles(q: Tensor, k: Tensor, axes: Any, count: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Every pair of tiles in which somebody attends somebody: queries, keys, and the mask."""
    for top in range(0, q.shape[2], TILE):
        rows = slice(top, min(top + TILE, q.shape[2]))
        for left in range(0, k.shape[2], TILE):
            columns = slice(left, min(left + TILE, k.shape[2]))
            i = torch.arange(rows.start, rows.stop, device=q.device)
            j = torch.arange(columns.start, columns.stop, device=q.device)
            mask = attends(i[:, None], j[None, :], axes, count)
            if bool(mask.any()):
                yield rows, columns, mask


class Tiles(torch.autograd.Function):
    """Forward keeps the output and the lse; backward computes the weights again."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, axes: Any, count: int, scale: float
    ) -> tuple[Tensor, Tensor]:
        """[B, H, N, D] -> output [B, H, N, Dv], lse [B, H, N]."""
        work = torch.float64 if q.dtype == torch.float64 else torch.float32
        group = q.shape[1] // k.shape[1]
        wide_k = k.to(work).repeat_interleave(group, dim=1)
        wide_v = v.to(work).repeat_interleave(group, dim=1)
        peak = torch.full(q.shape[:3], -torch.inf, dtype=work, device=q.device)
        total = torch.zeros(q.shape[:3], dtype=work, device=q.device)
        output = torch.zeros(*q.shape[:3], v.shape[3], dtype=work, device=q.device)
        for rows, columns, mask in tiles(q, k, axes, count):
            scores = scale * (q[:, :, rows].to(work) @ wide_k[:, :, columns].mT)
            scores = scores.masked_fill(~mask, -torch.inf)
            higher = torch.maximum(peak[:, :, rows], scores.amax(-1))
            safe = torch.where(higher == -torch.inf, 0.0, higher)
            old = (peak[:, :, rows] - safe).exp()
            weights = (scores - safe[..., None]).exp()
            part = weights @ wide_v[:, :, columns]
            output[:, :, rows] = output[:, :, rows] * old[..., None] + part
            total[:, :, rows] = total[:, :, rows] * old + weights.sum(-1)
            peak[:, :, rows] = higher
        output = output / total[..., None]
        lse = peak + total.log()
        ctx.save_for_backward(q, k, v, output, peak, total)
        ctx.rest = axes, count, scale, group, work
        return output.to(q.dtype), lse

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, grad_lse: Tensor) -> Any:
        """The gradients to q, k and v, from those of the output and of the lse."""
        q, k, v, output, peak, total = ctx.saved_tensors
        axes, count, scale, group, work = ctx.rest
        wide_k = k.to(work).repeat_interleave(group, dim=1)
        wide_v = v.to(work).repeat_interleave(group, dim=1)
        grad_output = grad_output.to(work)
        centre = (grad_output * output).sum(-1) - grad_lse  # [B, H, N]
        grad_q = torch.zeros_like(q, dtype=work)
        grad_k = torch.zeros_like(wide_k)
        grad_v = torch.zeros_like(wide_v)
        for rows, columns, mask in tiles(q, k, axes, count):
            scores = scale * (q[:, :, rows].to(work) @ wide_k[:, :, columns].mT)
            scores = scores.masked_fill(~mask, -torch.inf)
            weights = (scores - peak[:, :, rows, None]).exp() / total[:, :, rows, None]
            above = grad_output[:, :, rows]
            grad_v[:, :, columns] += weights.mT @ above
            grad_scores = weights * (above @ wide_v[:, :, columns].mT - centre[:, :, rows, None])
            grad_q[:, :, rows] += scale * (grad_scores @ wide_k[:, :, columns])
            grad_k[:, :, columns] += scale * (grad_scores.mT @ q[:, :, rows].to(work))
        grad_k = grad_k.unflatten(1, (-1, group)).sum(2)
        grad_v = grad_v.unflatten(1, (-1, group)).sum(2)
        return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype), None, None, None
