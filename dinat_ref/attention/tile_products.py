"""The arithmetic of a tile: the products and the softmax of attention, forwards and backwards, on small matrices.

With P the weights, S the scores, O the output and L the lse::

    S = Q K^T + bias        P = softmax(S)        O = P V
    dV = P^T dO        dP = dO V^T        dS = P * (dP - rowsum(dO * O) + dL)        dQ = dS K        dK = dS^T Q

Each product comes plain, and careful: the careful one keeps what lies in the slab but outside a window from mattering
(``outside.py``), at twice the price.
"""

import torch
from torch import Tensor

from dinat_ref.attention.outside import mix, pair_products
from dinat_ref.attention.softmax import softmax


def attend_tile(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, allowed: Tensor | None, careful: bool
) -> tuple[Tensor, Tensor]:
    """Attend from the queries of some tiles to their slabs of keys.

    Shapes:
        query: [tiles, heads, T, D], already scaled
        key, value: [tiles, heads, S, D], [tiles, heads, S, Dv]
        bias: [heads or 1, T, S], minus infinity where not allowed; None for zero
        allowed: bool, to broadcast with [tiles, heads, T, S]; None for all
        return: output [tiles, heads, T, Dv], lse [tiles, heads, T, 1]
    Source: arXiv:2209.15001, eq. 1-3.
    Example:
        >>> query, slab = torch.zeros(1, 1, 1, 2), torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> attend_tile(query, slab, slab, None, None, careful=False)
        (tensor([[[[1., 2.]]]]), tensor([[[[0.6931]]]]))
    """
    if careful:
        weights, lse = softmax(_careful_scores(query, key, bias, allowed))
        return mix(weights, value, allowed), lse[..., None]
    scores = _plain_scores(query, key, bias)
    return torch.softmax(scores, dim=-1) @ value, torch.logsumexp(scores, dim=-1, keepdim=True)


def backward_of_tile(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    allowed: Tensor | None,
    d_output: Tensor,
    shift: Tensor,
    careful: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give the gradients of ``attend_tile``, the weights computed once more.

    Shapes:
        query, key, value, bias, allowed: as there
        d_output: [tiles, heads, T, Dv]
        shift: rowsum(dO * O) - dL [tiles, heads, T, 1]
        return: gradients of query (scaled), key, value and the scores [tiles, heads, T, S]
    Source: FlashAttention, arXiv:2205.14135, section 3.
    Example:
        >>> query, slab = torch.zeros(1, 1, 1, 2), torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> d_output, shift = torch.ones(1, 1, 1, 2), torch.full((1, 1, 1, 1), 3.0)
        >>> backward_of_tile(query, slab, slab, None, None, d_output, shift, careful=False)[3]
        tensor([[[[-1.,  1.]]]])
    """
    if careful:
        scores = _careful_scores(query, key, bias, allowed)
        weights, _ = softmax(scores)
        d_scores = (weights * (pair_products(d_output, value) - shift)).masked_fill(scores == -torch.inf, 0.0)
        back = None if allowed is None else allowed.mT
        d_key, d_value = mix(d_scores.mT, query, back), mix(weights.mT, d_output, back)
        return mix(d_scores, key, allowed), d_key, d_value, d_scores
    weights = torch.softmax(_plain_scores(query, key, bias), dim=-1)
    flat, d_flat = weights.flatten(0, 1), d_output.flatten(0, 1)  # [tiles heads, T, S], [tiles heads, T, Dv]
    d_scores = torch.baddbmm(shift.flatten(0, 1).expand_as(flat), d_flat, value.flatten(0, 1).mT, beta=-1)
    d_scores = d_scores.mul_(flat).reshape(weights.shape)
    return d_scores @ key, d_scores.mT @ query, weights.mT @ d_output, d_scores


def _plain_scores(query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply queries and keys, add the bias: [tiles, heads, T, S]."""
    if bias is None:
        return query @ key.mT
    shape = (*query.shape[:-1], key.shape[-2])
    return torch.baddbmm(bias.expand(shape).flatten(0, 1), query.flatten(0, 1), key.flatten(0, 1).mT).reshape(shape)


def _careful_scores(query: Tensor, key: Tensor, bias: Tensor | None, allowed: Tensor | None) -> Tensor:
    """Do the same, with minus infinity for whatever is not allowed."""
    scores = pair_products(query, key)
    scores = scores if bias is None else scores + bias
    return scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)
