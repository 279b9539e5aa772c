"""An explicit index table: look up the keys of every query, multiply, softmax, look up the values.

    indices [N, K]      row-major number of each query's K keys          (Neighborhood.indices)
    keys    [B, N, K, Hkv, D] = key[:, indices]                          every key is copied K times

The subscripts of the einsum are the letters of the equation: b batch, n query token, k key slot, g key head,
r query heads of a key head, d head dimension.

Memory: the gathered keys take K times the memory of ``key``, and so do the values.
"""

import torch
from torch import Tensor

from dinat_ref.attention.bias import bias_index
from dinat_ref.attention.operands import Operands, every
from dinat_ref.attention.softmax import softmax
from dinat_ref.neighborhood import Neighborhood


def gather_attention(operands: Operands, return_lse: bool = False) -> tuple[Tensor, Tensor | None]:
    """Attend through an explicit index table.

    Shapes:
        return: (output [B, *layout, H, Dv], lse [B, *layout, H] or None)
    Cost: O(N K) time, N K (D + Dv) numbers of memory per batch and key head.
    Source: arXiv:2209.15001, eq. 1-3.
    Example:
        >>> from dinat_ref.attention.operands import prepare
        >>> x = torch.arange(5.).reshape(1, 5, 1, 1)
        >>> gather_attention(prepare(torch.zeros_like(x), x, x, Neighborhood((5,), 3)))[0].flatten()
        tensor([1., 1., 2., 3., 3.])
    """
    weights, lse = softmax(gather_scores(operands))  # [B, *layout, H, K + M], [B, *layout, H]
    output = gather_values(weights, operands.value, operands.neighborhood, operands.additional_values)
    return output, lse if return_lse else None


def gather_scores(operands: Operands) -> Tensor:
    """Compute the scores of every query: scale * q k + bias, -inf where a window has no key.

    Shapes:
        return: [B, *layout, H, K + M], the M additional keys last
    Source: arXiv:2209.15001, eq. 1.
    Example:
        >>> from dinat_ref.attention.operands import prepare
        >>> x = torch.arange(3.).reshape(1, 3, 1, 1)
        >>> gather_scores(prepare(x, x, x, Neighborhood((3,), 2, is_causal=True)))[0, :, 0]
        tensor([[0., -inf],
                [0., 1.],
                [2., 4.]])
    """
    neighborhood, device = operands.neighborhood, operands.query.device
    heads_kv = operands.key.shape[-2]
    query = operands.scale * operands.query.flatten(1, -3)  # [B, N, H, D]
    query = query.unflatten(2, (heads_kv, operands.group_size))  # [B, N, Hkv, r, D]
    key = operands.key.flatten(1, -3)  # [B, N, Hkv, D]

    neighbors = key[:, neighborhood.indices(device)]  # [B, N, K, Hkv, D]
    scores = torch.einsum("bngrd,bnkgd->bngrk", query, neighbors)
    if operands.rpb is not None:
        bias = operands.rpb[every(*bias_index(neighborhood, device))]  # [H, N, K]
        scores = scores + bias.transpose(0, 1).unflatten(1, (heads_kv, operands.group_size))  # [N, Hkv, r, K]
    if any(neighborhood.is_causal):
        scores = scores.masked_fill(~neighborhood.valid(device)[:, None, None, :], -torch.inf)
    if operands.key_mask is not None:
        kept = operands.key_mask.flatten(1)[:, neighborhood.indices(device)]  # [B, N, K]
        scores = scores.masked_fill(~kept[:, :, None, None, :], -torch.inf)
    if operands.additional_keys is not None:
        extra = torch.einsum("bngrd,bmgd->bngrm", query, operands.additional_keys)
        scores = torch.cat([scores, extra], dim=-1)  # [B, N, Hkv, r, K + M]
    return scores.flatten(2, 3).unflatten(1, neighborhood.layout)


def gather_values(
    weights: Tensor, value: Tensor, neighborhood: Neighborhood, additional_values: Tensor | None = None
) -> Tensor:
    """Sum the values of every query's keys with the given weights.

    Shapes:
        weights: [B, *layout, H, K + M]
        value:   [B, *layout, Hkv, Dv]
        return:  [B, *layout, H, Dv]
    Source: arXiv:2209.15001, eq. 3.
    Example:
        >>> value = torch.arange(4.).reshape(1, 4, 1, 1)
        >>> gather_values(torch.ones(1, 4, 1, 3), value, Neighborhood((4,), 3)).flatten()
        tensor([3., 3., 6., 6.])
    """
    heads, heads_kv, num_keys = weights.shape[-2], value.shape[-2], neighborhood.num_keys
    weights = weights.flatten(1, -3).unflatten(2, (heads_kv, heads // heads_kv))  # [B, N, Hkv, r, K + M]
    neighbors = value.flatten(1, -3)[:, neighborhood.indices(value.device)]  # [B, N, K, Hkv, Dv]
    output = torch.einsum("bngrk,bnkgd->bngrd", weights[..., :num_keys], neighbors)
    if additional_values is not None:
        output = output + torch.einsum("bngrm,bmgd->bngrd", weights[..., num_keys:], additional_values)
    return output.flatten(2, 3).unflatten(1, neighborhood.layout)  # [B, *layout, H, Dv]
