"""A table of the keys of every query, made token by token in plain integers; then gather, softmax, gather."""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

Axes = tuple[tuple[int, int, int, int, bool], ...]  # length, kernel_size, stride, dilation, is_causal


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
    rpb: Tensor | None = None,
    return_lse: bool = False,
) -> Any:
    """Neighborhood attention by a table of keys.

    Shapes:
        query [B, *layout, H, D], key [B, *layout, Hkv, D], value [B, *layout, Hkv, Dv], rpb [H, 2k-1, ...]
        return [B, *layout, H, Dv]
    Raises:
        ValueError: illegal arguments.
    Example:
        >>> x = torch.arange(5.0).reshape(1, 5, 1, 1)
        >>> attend(torch.zeros_like(x), x, x, 3).flatten()
        tensor([1., 1., 2., 3., 3.])
    """
    layout = tuple(query.shape[1:-2])
    named = (kernel_size, stride, dilation, is_causal)
    lists = [list(entry) if isinstance(entry, (tuple, list)) else [entry] * len(layout) for entry in named]
    if any(len(entry) != len(layout) for entry in lists):
        raise ValueError("one entry for each axis")
    axes: Axes = tuple(zip(layout, *lists, strict=True))
    if any(min(k, s, d) < 1 or k * d > length or s > k for length, k, s, d, _ in axes):
        raise ValueError("illegal window")
    *tokens, heads, head_dim = query.shape
    *key_tokens, groups, key_dim = key.shape
    *value_tokens, value_groups, _ = value.shape
    if tokens != key_tokens or tokens != value_tokens:
        raise ValueError("unequal batch or layout")
    if head_dim != key_dim or groups != value_groups or heads % groups != 0:
        raise ValueError("heads that do not fit")
    if not query.dtype == key.dtype == value.dtype or not query.device == key.device == value.device:
        raise ValueError("unequal dtypes or devices")
    if additional_keys is None and additional_values is not None:
        raise ValueError("values without keys")
    if additional_values is None and additional_keys is not None:
        raise ValueError("keys without values")
    if additional_keys is not None and additional_values is not None:
        batch, count, *ends = additional_keys.shape
        if [batch, *ends] != [query.shape[0], groups, head_dim]:
            raise ValueError("additional keys that do not fit")
        if additional_values.shape != (batch, count, groups, value.shape[-1]):
            raise ValueError("additional values that do not fit")
    if rpb is not None and tuple(rpb.shape) != (heads, *(2 * axis[1] - 1 for axis in axes)):
        raise ValueError("a bias of another shape")

    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    keys, seen, offsets = (entry.to(query.device) for entry in tables(axes))  # [N, K] each
    factor = 1.0 / math.sqrt(head_dim) if scale is None else scale
    q = query.to(wide).flatten(1, -3).unflatten(2, (groups, -1)) if query.numel() else None
    if q is None:
        empty = query.new_zeros(*tokens, heads, value.shape[-1])
        return (empty, query.new_zeros(*tokens, heads, dtype=wide)) if return_lse else empty
    near = key.to(wide).flatten(1, -3)[:, keys]  # [B, N, K, g, D]
    scores = factor * torch.einsum("bngrd,bnkgd->bngrk", q, near)
    if rpb is not None:
        bias = rpb.to(wide).flatten(1)[:, offsets]  # [H, N, K]
        scores = scores + bias.transpose(0, 1).unflatten(1, (groups, -1))
    scores = scores.masked_fill(~seen[:, None, None], -math.inf)
    near = value.to(wide).flatten(1, -3)[:, keys]  # [B, N, K, g, Dv]
    count = keys.shape[1]
    if additional_keys is not None and additional_values is not None:
        more = factor * torch.einsum("bngrd,bmgd->bngrm", q, additional_keys.to(wide))
        scores = torch.cat([scores, more], dim=-1)
    weights = torch.softmax(scores, dim=-1)
    output = torch.einsum("bngrk,bnkgd->bngrd", weights[..., :count], near)
    if additional_values is not None:
        output = output + torch.einsum("bngrm,bmgd->bngrd", weights[..., count:], additional_values.to(wide))
    output = output.flatten(2, 3).unflatten(1, layout).to(query.dtype)  # [B, *layout, H, Dv]
    lse = torch.logsumexp(scores, dim=-1).flatten(2, 3).unflatten(1, layout)
    return (output, lse) if return_lse else output


@lru_cache(maxsize=256)
def tables(axes: Axes) -> tuple[Tensor, Tensor, Tensor]:
    """The keys of every query, which of them there are, and the place of each in a bias table: [N, K]."""
    keys, seen, offsets = [[0]], [[True]], [[0]]
    for axis in axes:
        lines = [line(i, *axis) for i in range(axis[0])]
        length, width = axis[0], 2 * axis[1] - 1
        keys = [[a * length + b for a in left for b, _, _ in right] for left in keys for right in lines]
        seen = [[a and b for a in left for _, b, _ in right] for left in seen for right in lines]
        offsets = [[a * width + b for a in left for _, _, b in right] for left in offsets for right in lines]
    return torch.tensor(keys), torch.tensor(seen), torch.tensor(offsets)


def line(i: int, length: int, k: int, s: int, d: int, causal: bool) -> list[tuple[int, bool, int]]:
    """For each of the k keys of a query on one axis: where it is, whether it is there, its place in the bias table."""
    group, place = i % d, i // d
    members = math.ceil((length - group) / d)
    if causal:
        lead = min(place // s * s + s - 1, members - 1)
        start = max(lead - k + 1, 0)
        last = place
    else:
        lead = min(place // s * s + s // 2, members - 1)
        start = min(max(lead - k // 2, 0), members - k)
        last = start + k - 1
    found = []
    for j in range(start, start + k):
        there = j <= last
        at = j if there else place
        found.append((group + at * d, there, at - place + k - 1))
    return found
