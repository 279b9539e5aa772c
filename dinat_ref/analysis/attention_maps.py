"""Attention weights put back where their keys lie, and what can be read off them.

The operator shows a query's weights as K numbers in the order of its keys. A map scatters them over the layout, so
that they can be laid over the picture they came from. Weights of additional keys belong to no token: they are
left out of maps, so such a map sums to less than one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dinat_ref.attention.bias import bias_index
from dinat_ref.attention.operands import check_layout, every, prepare
from dinat_ref.neighborhood import Neighborhood


def scatter_weights(weights: Tensor, neighborhood: Neighborhood) -> Tensor:
    """Scatter the weights of all queries over the layout: a dense matrix per batch and head.

    Shapes:
        weights: [B, *layout, H, K] or with M additional keys [B, *layout, H, K + M], as ``neighborhood_weights`` gives
        return:  [B, H, N, N], rows are queries; additional keys are left out
    Raises:
        ValueError: the weights do not have the neighborhood's layout, or fewer keys than it.
    Cost: N * N numbers per batch and head; for a photograph use ``attention_map``.
    Source: arXiv:2209.15001, eq. 3, written as a sparse matrix.
    Example:
        >>> from dinat_ref import neighborhood_weights
        >>> weights = neighborhood_weights(torch.zeros(1, 4, 1, 1), torch.zeros(1, 4, 1, 1), kernel_size=2)
        >>> scatter_weights(weights, Neighborhood((4,), 2))[0, 0]
        tensor([[0.5000, 0.5000, 0.0000, 0.0000],
                [0.5000, 0.5000, 0.0000, 0.0000],
                [0.0000, 0.5000, 0.5000, 0.0000],
                [0.0000, 0.0000, 0.5000, 0.5000]])
    """
    rows = _rows(weights, neighborhood)  # [B, N, H, K]
    indices, valid = neighborhood.indices(weights.device), neighborhood.valid(weights.device)  # [N, K]
    rows = torch.where(valid[:, None], rows, 0).transpose(1, 2)  # [B, H, N, K]
    dense = rows.new_zeros(*rows.shape[:3], neighborhood.num_tokens)
    return dense.scatter_add(-1, indices.expand_as(rows), rows)


def attention_map(
    query: Tensor,
    key: Tensor,
    token: Sequence[int],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
    scale: float | Tensor | None = None,
    *,
    rpb: Tensor | None = None,
) -> Tensor:
    """Compute the weights of one query, scattered over the layout; cheap on a layout of any size.

    Shapes:
        query:  [B, *layout, H, D]
        key:    [B, *layout, Hkv, D]
        token:  one coordinate per axis
        return: [B, H, *layout], zero outside the token's window; each map sums to one
    Raises:
        TypeError, ValueError: as ``neighborhood_attention``; the token lies outside the layout.
    Cost: K dot products, and one number per token of the layout.
    Source: arXiv:2209.15001, eq. 1 and 3.
    Example:
        >>> x = torch.arange(4.).reshape(1, 4, 1, 1)
        >>> attention_map(x, x, (0,), kernel_size=3)  # q = 0: equal weights, and the window is shifted
        tensor([[[0.3333, 0.3333, 0.3333, 0.0000]]])
    """
    neighborhood = Neighborhood(check_layout(query), kernel_size, stride, dilation, is_causal)
    check_token(neighborhood, token)
    operands = prepare(query, key, key, neighborhood, scale, rpb)
    neighbors = neighborhood.neighbors(token)
    where = torch.tensor(neighbors, device=key.device).unbind(1)  # ndim tensors [K]
    one_query = operands.query[every(*token)].unflatten(1, (key.shape[-2], operands.group_size))  # [B, Hkv, r, D]
    keys = operands.key[every(*where)]  # [B, K, Hkv, D]
    scores = operands.scale * torch.einsum("bgrd,bkgd->bgrk", one_query, keys).flatten(1, 2)  # [B, H, K]
    if operands.rpb is not None:
        steps = [
            (w - i).div(d, rounding_mode="floor") for w, i, d in zip(where, token, neighborhood.dilation, strict=True)
        ]
        index = [step + size - 1 for step, size in zip(steps, neighborhood.kernel_size, strict=True)]
        scores = scores + operands.rpb[every(*index)]
    weights = torch.softmax(scores, dim=-1)
    maps = weights.new_zeros(*weights.shape[:2], neighborhood.num_tokens)
    numbers = torch.tensor([neighborhood.number(neighbor) for neighbor in neighbors], device=key.device)
    maps[..., numbers] = weights
    return maps.unflatten(-1, neighborhood.layout).to(query.dtype)


def entropy(weights: Tensor) -> Tensor:
    """Compute the entropy of attention weights: 0 when all weight is on one key, log K when all keys weigh the same.

    Shapes:
        weights: [..., K]
        return:  [...], in nats; its exponential is the effective number of keys
    Source: Shannon (1948); as a measure of attention heads: Clark et al., arXiv:1906.04341, section 3.3.
    Example:
        >>> entropy(torch.tensor([[0.25, 0.25, 0.25, 0.25], [1., 0., 0., 0.]])).exp()
        tensor([4., 1.])
    """
    return torch.special.entr(weights).sum(-1)


def reach(weights: Tensor, neighborhood: Neighborhood) -> Tensor:
    """Compute the mean distance between a query and what it attends, weighted by its attention.

    Shapes:
        weights: [B, *layout, H, K]
        return:  [B, *layout, H], Euclidean, in tokens
    Raises:
        ValueError: the weights do not have the neighborhood's layout, or fewer keys than it.
    Source: mean attention distance, Dosovitskiy et al., arXiv:2010.11929, section 4.5.
    Example:
        >>> from dinat_ref import neighborhood_weights
        >>> zeros = torch.zeros(1, 9, 1, 1)
        >>> reach(neighborhood_weights(zeros, zeros, 3, dilation=3), Neighborhood((9,), 3, dilation=3)).flatten()
        tensor([3., 3., 3., 2., 2., 2., 3., 3., 3.])
    """
    rows = _rows(weights, neighborhood)  # [B, N, H, K]
    squares = torch.zeros((), dtype=rows.dtype, device=rows.device)
    for steps, dilation, size in zip(
        bias_index(neighborhood, rows.device), neighborhood.dilation, neighborhood.kernel_size, strict=True
    ):
        squares = squares + ((steps - size + 1) * dilation).square()  # [N, K]
    distance = squares.to(rows.dtype).sqrt()[:, None]  # [N, 1, K]
    return (rows * distance).sum(-1).unflatten(1, neighborhood.layout)


def rollout(weights: Sequence[Tensor], neighborhoods: Sequence[Neighborhood], residual: float = 0.5) -> Tensor:
    """Follow attention through a stack of layers: how much each input token counts for each output token.

    Every layer mixes by the mean of its heads and by its residual connection, and layers multiply, last layer first::

        A_l = (1 - residual) * mean over heads of weights_l + residual * I          rollout = A_l ... A_2 A_1

    Shapes:
        weights: one tensor [B, *layout, H, K] per layer
        return:  [B, N, N], rows are output tokens and sum to one
    Args:
        residual: share of the residual connection; 0.5 in the source, 0 to follow attention alone.
    Raises:
        ValueError: no layer, or weights and neighborhoods that do not fit together.
    Cost: each layer is a sparse matrix of N * K entries; the product is dense, N * N numbers.
    Source: Abnar & Zuidema, Quantifying attention flow, arXiv:2005.00928, section 3.
    Example:
        >>> from dinat_ref import neighborhood_weights
        >>> zeros = torch.zeros(1, 5, 1, 1)
        >>> layer = neighborhood_weights(zeros, zeros, 3)
        >>> rollout([layer, layer], [Neighborhood((5,), 3)] * 2, residual=0)[0, 0]
        tensor([0.2222, 0.3333, 0.3333, 0.1111, 0.0000])
    """
    if not weights or len(weights) != len(neighborhoods):
        counts = f"{len(weights)} and {len(neighborhoods)}"
        raise ValueError(f"weights and neighborhoods must be equally many, at least one, got {counts}")
    if not 0 <= residual <= 1:
        raise ValueError(f"residual must be in 0 .. 1, got {residual}")
    batch, tokens = weights[0].shape[0], neighborhoods[0].num_tokens
    total = torch.eye(tokens, dtype=weights[0].dtype, device=weights[0].device).repeat(batch, 1, 1)  # [B, N, N]
    for layer, neighborhood in zip(weights, neighborhoods, strict=True):
        rows = _rows(layer, neighborhood).mean(2)  # [B, N, K]
        rows = rows / rows.sum(-1, keepdim=True)  # where additional keys took their share
        mixed = [_sparse(matrix, neighborhood) @ before for matrix, before in zip(rows, total, strict=True)]
        total = (1 - residual) * torch.stack(mixed) + residual * total
    return total


def check_token(neighborhood: Neighborhood, token: Sequence[int]) -> None:
    """Raise unless a token lies in the layout.

    Shapes:
        return: None.
    Raises:
        ValueError: not one coordinate per axis, or a coordinate outside its axis.
    Example:
        >>> check_token(Neighborhood((4, 5), 3), (1, 5))
        Traceback (most recent call last):
        ValueError: token must lie in the layout (4, 5), got (1, 5)
    """
    layout = neighborhood.layout
    if len(token) != len(layout) or not all(0 <= i < length for i, length in zip(token, layout, strict=True)):
        raise ValueError(f"token must lie in the layout {layout}, got {tuple(token)}")


def _rows(weights: Tensor, neighborhood: Neighborhood) -> Tensor:
    """Check weights against a neighborhood, drop additional keys and flatten the layout: [B, N, H, K]."""
    if tuple(weights.shape[1:-2]) != neighborhood.layout or weights.shape[-1] < neighborhood.num_keys:
        expected = f"[B, {', '.join(map(str, neighborhood.layout))}, H, {neighborhood.num_keys} or more]"
        raise ValueError(f"weights must be {expected}, got {tuple(weights.shape)}")
    return weights[..., : neighborhood.num_keys].reshape(
        weights.shape[0], neighborhood.num_tokens, weights.shape[-2], neighborhood.num_keys
    )


def _sparse(rows: Tensor, neighborhood: Neighborhood) -> Tensor:
    """Write one layer's weights [N, K] as a sparse matrix [N, N]."""
    indices, valid = neighborhood.indices(rows.device), neighborhood.valid(rows.device)
    queries = torch.arange(len(rows), device=rows.device)[:, None].expand_as(indices)
    where = torch.stack([queries[valid], indices[valid]])  # [2, entries]
    size = (neighborhood.num_tokens, neighborhood.num_tokens)
    return torch.sparse_coo_tensor(where, rows[valid], size, check_invariants=True)
