"""The operator in two halves: scores first, then values; and the softmax weights in between.

For looking at attention, and for whatever one wants to do to the weights. All three show the K keys of a query
row-major, then the additional keys; a causal window puts its valid keys first and fills up with -inf (weight 0).

They compute tile by tile (``tiled_split.py``), and through the index table of ``gather`` where PyTorch takes the call
apart (torch.func, forward mode, torch.compile): it has nothing to hide.
"""

from collections.abc import Sequence

import torch  # noqa: F401  # for the examples
from torch import Tensor

from dinat_ref.attention.distributed import on_shards
from dinat_ref.attention.functional import without_autocast
from dinat_ref.attention.gather import gather_scores, gather_values
from dinat_ref.attention.operands import Operands, check_layout, inside_transform, prepare
from dinat_ref.attention.softmax import weights_of
from dinat_ref.attention.tiled_split import tiled_scores, tiled_values
from dinat_ref.neighborhood import Neighborhood


@on_shards
def neighborhood_qk(
    query: Tensor,
    key: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
    scale: float | Tensor | None = None,
    additional_keys: Tensor | None = None,
    *,
    rpb: Tensor | None = None,
    key_mask: Tensor | None = None,
) -> Tensor:
    """Compute the scores of every query and its keys: scale * q k + rpb.

    Shapes:
        query:  [B, *layout, H, D]
        key:    [B, *layout, Hkv, D]
        additional_keys: [B, M, Hkv, D]
        rpb:    [H, 2 * kernel_size - 1, ...]
        key_mask: bool [B, *layout], False where a key may not be attended
        return: [B, *layout, H, K + M], K = the product of kernel_size
    Returns:
        The scores in query's dtype, -inf where a window has fewer than K keys.
    Raises:
        TypeError, ValueError: as ``neighborhood_attention``.
    Cost: O(N K) time; the memory of the result.
    Source: Hassani & Shi, arXiv:2209.15001, eq. 1.
    Example:
        >>> x = torch.arange(4.).reshape(1, 4, 1, 1)
        >>> neighborhood_qk(x, x, kernel_size=3)[0, :, 0]
        tensor([[0., 0., 0.],
                [0., 1., 2.],
                [2., 4., 6.],
                [3., 6., 9.]])
    """
    neighborhood = Neighborhood(check_layout(query), kernel_size, stride, dilation, is_causal)
    operands = prepare(query, key, key, neighborhood, scale, rpb, additional_keys, additional_keys, key_mask)
    with without_autocast(query):
        return _scores(operands).to(operands.dtype)


@on_shards
def neighborhood_weights(
    query: Tensor,
    key: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
    scale: float | Tensor | None = None,
    additional_keys: Tensor | None = None,
    *,
    rpb: Tensor | None = None,
    key_mask: Tensor | None = None,
) -> Tensor:
    """Compute the softmax weights of every query over its keys: what NATTEN no longer exposes.

    Shapes:
        as ``neighborhood_qk``; return: [B, *layout, H, K + M], each row sums to one
    Returns:
        The weights in query's dtype, 0 where a window has fewer than K keys.
    Raises:
        TypeError, ValueError: as ``neighborhood_attention``.
    Cost: O(N K) time; the memory of the result.
    Source: Hassani & Shi, arXiv:2209.15001, eq. 3.
    Example:
        >>> x = torch.zeros(1, 4, 1, 1)
        >>> neighborhood_weights(x, x, kernel_size=2, is_causal=True)[0, :, 0]
        tensor([[1.0000, 0.0000],
                [0.5000, 0.5000],
                [0.5000, 0.5000],
                [0.5000, 0.5000]])
    """
    neighborhood = Neighborhood(check_layout(query), kernel_size, stride, dilation, is_causal)
    operands = prepare(query, key, key, neighborhood, scale, rpb, additional_keys, additional_keys, key_mask)
    with without_autocast(query):
        return weights_of(_scores(operands)).to(operands.dtype)


@on_shards
def neighborhood_av(
    weights: Tensor,
    value: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
    additional_values: Tensor | None = None,
) -> Tensor:
    """Sum the values of every query's keys with the weights given.

    Shapes:
        weights: [B, *layout, H, K + M], as ``neighborhood_weights`` returns them
        value:   [B, *layout, Hkv, Dv]
        additional_values: [B, M, Hkv, Dv]
        return:  [B, *layout, H, Dv]
    Returns:
        The weighted sums in value's dtype; the weights need not sum to one.
    Raises:
        TypeError, ValueError: as ``neighborhood_attention``.
    Cost: O(N K) time; the memory of the weights.
    Source: Hassani & Shi, arXiv:2209.15001, eq. 3.
    Example:
        >>> value = torch.arange(4.).reshape(1, 4, 1, 1)
        >>> neighborhood_av(torch.ones(1, 4, 1, 3), value, kernel_size=3).flatten()
        tensor([3., 3., 6., 6.])
    """
    neighborhood = Neighborhood(check_layout(value, name="value"), kernel_size, stride, dilation, is_causal)
    operands = prepare(value, value, value, neighborhood, None, None, additional_values, additional_values)
    extra = 0 if additional_values is None else additional_values.shape[1]
    rows = (value.shape[0], *neighborhood.layout)
    if weights.shape[:-2] != rows or weights.shape[-1] != neighborhood.num_keys + extra:
        expected = f"{(*rows, 'heads', neighborhood.num_keys + extra)}"
        raise ValueError(f"weights must be [batch, *layout, heads, keys] = {expected}, got {tuple(weights.shape)}")
    if weights.shape[-2] % value.shape[-2]:
        raise ValueError(
            f"weights' heads must be a multiple of value's heads, got {weights.shape[-2]} and {value.shape[-2]}"
        )
    with without_autocast(value):
        sum_up = gather_values if inside_transform() else tiled_values
        weights = weights.to(operands.value.dtype)
        output = sum_up(weights, operands.value, neighborhood, operands.additional_values)
    return output.to(operands.dtype)


def _scores(operands: Operands) -> Tensor:
    """The scores [B, *layout, H, K + M], in the way that suits the call."""
    return gather_scores(operands) if inside_transform() else tiled_scores(operands)
