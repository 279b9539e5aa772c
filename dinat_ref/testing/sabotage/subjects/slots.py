"""One key slot after the other, with a running maximum and a running sum, as a fused kernel visits its keys."""

import itertools
from typing import Any

import torch
from torch import Tensor


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
    """Neighborhood attention, slot by slot.

    Shapes:
        query [B, *layout, H, D], key [B, *layout, Hkv, D], value [B, *layout, Hkv, Dv] -> [B, *layout, H, Dv]
    Raises:
        ValueError: illegal arguments.
    Example:
        >>> x = torch.arange(5.0).reshape(1, 5, 1, 1)
        >>> attend(torch.zeros_like(x), x, x, 3).flatten()
        tensor([1., 1., 2., 3., 3.])
    """
    layout, heads, groups = query.shape[1:-2], query.shape[-2], key.shape[-2]
    sizes = per_axis(kernel_size, len(layout))
    strides = per_axis(stride, len(layout))
    steps = per_axis(dilation, len(layout))
    causal = per_axis(is_causal, len(layout))
    for length, k, s, d in zip(layout, sizes, strides, steps, strict=True):
        if k < 1 or d < 1 or s < 1:
            raise ValueError("kernel_size, stride and dilation must be at least 1")
        if k * d > length:
            raise ValueError("kernel_size * dilation must be at most the layout")
        if s > k:
            raise ValueError("stride must be at most kernel_size")
    if key.shape[:-2] != query.shape[:-2] or value.shape[:-2] != query.shape[:-2]:
        raise ValueError("query, key and value must have one batch and layout")
    if key.shape[-1] != query.shape[-1]:
        raise ValueError("query and key must have one head_dim")
    if value.shape[-2] != groups or heads % groups:
        raise ValueError("key and value must have one number of heads, which divides the query's")
    if key.dtype != query.dtype or value.dtype != query.dtype:
        raise ValueError("query, key and value must have one dtype")
    if key.device != query.device or value.device != query.device:
        raise ValueError("query, key and value must be on one device")
    if (additional_keys is None) != (additional_values is None):
        raise ValueError("additional keys and values come together")
    if additional_keys is not None and additional_values is not None:
        if additional_keys.shape[:-1] != additional_values.shape[:-1]:
            raise ValueError("as many additional values as keys")
        for given, like in ((additional_keys, key), (additional_values, value)):
            if given.shape[0] != like.shape[0] or given.shape[-2:] != like.shape[-2:]:
                raise ValueError("additional tokens in another shape than the others")

    work = torch.promote_types(query.dtype, torch.float32)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    queries = query.to(work).flatten(1, -3) * factor  # [B, N, H, D]
    keys = key.to(work).flatten(1, -3)  # [B, N, Hkv, D]
    values = value.to(work).flatten(1, -3)  # [B, N, Hkv, Dv]

    axes = [first_and_count(*axis) for axis in zip(layout, sizes, strides, steps, causal, strict=True)]
    peak = total = output = None
    for slot in itertools.product(*(range(k) for k in sizes)):
        token = torch.zeros(1, dtype=torch.int64)
        present = torch.ones(1, dtype=torch.bool)
        for (first, count), place, d, length in zip(axes, slot, steps, layout, strict=True):
            there = place < count
            position = torch.where(there, first + place * d, first)
            token = (token[:, None] * length + position).flatten()
            present = (present[:, None] & there).flatten()
        scores = dot(queries, keys[:, token.to(query.device)])  # [B, N, H]
        scores = scores.masked_fill(~present[:, None].to(query.device), -torch.inf)
        found = values[:, token.to(query.device)].repeat_interleave(heads // groups, dim=2)  # [B, N, H, Dv]
        peak, total, output = visit(peak, total, output, scores, found)
    if additional_keys is not None and additional_values is not None:
        more = additional_values.to(work).repeat_interleave(heads // groups, dim=2)  # [B, M, H, Dv]
        for m in range(additional_keys.shape[1]):
            scores = dot(queries, additional_keys[:, m : m + 1].to(work))
            peak, total, output = visit(peak, total, output, scores, more[:, m : m + 1])
    assert peak is not None
    assert total is not None
    assert output is not None
    lse = (peak + total.log()).unflatten(1, layout)
    output = (output / total[..., None]).to(query.dtype).unflatten(1, layout)
    return (output, lse) if return_lse else output


def per_axis(given: Any, axes: int) -> tuple[Any, ...]:
    """One entry for each axis."""
    if not isinstance(given, (tuple, list)):
        return (given,) * axes
    if len(given) != axes:
        raise ValueError("one entry for each axis, please")
    return tuple(given)


def first_and_count(length: int, k: int, s: int, d: int, causal: bool) -> tuple[Tensor, Tensor]:
    """Where the window of each query of an axis begins, and how many keys it has."""
    place = torch.arange(length) // d
    group = torch.arange(length) % d
    members = (length - group + d - 1) // d
    lead = place // s * s + (s - 1 if causal else s // 2)
    lead = torch.minimum(lead, members - 1)
    if causal:
        start = (lead - k + 1).clamp(min=0)
        return group + start * d, place - start + 1
    start = torch.minimum((lead - k // 2).clamp(min=0), members - k)
    return group + start * d, torch.full_like(start, k)


def dot(queries: Tensor, keys: Tensor) -> Tensor:
    """The scores of every head of the query with its key head: [B, N, H]."""
    grouped = queries.unflatten(2, (keys.shape[2], queries.shape[2] // keys.shape[2]))  # [B, N, Hkv, r, D]
    return (grouped * keys[..., None, :]).sum(-1).flatten(2, 3)


def visit(
    peak: Tensor | None, total: Tensor | None, output: Tensor | None, scores: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Take one more key into the running softmax."""
    if peak is None or total is None or output is None:
        higher = scores.detach()
        weight = (scores - higher).exp()
        return higher, weight, weight[..., None] * values
    higher = torch.maximum(peak, scores.detach())
    old = (peak - higher).exp()
    weight = (scores - higher).exp()
    return higher, total * old + weight, output * old[..., None] + weight[..., None] * values
