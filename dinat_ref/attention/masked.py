"""A dense mask: full attention in which all but the neighbors are forbidden.

    mask [N, N]     row i is True at the keys of query i          (Neighborhood.mask)

The shortest formulation, and the one that ``scaled_dot_product_attention`` runs as it is; where every window is the
whole layout, nothing is forbidden, and there is no mask at all. But PyTorch's fused kernels have no second derivative,
no forward mode and do not tell the lse, so where one of these is or may be wanted the softmax is written out.

Memory: the N x N mask; where the softmax is written out, N x N scores for each batch and head. Above some 16,000 tokens
(1 GB each) use another formulation.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from dinat_ref.attention.bias import lookup_bias
from dinat_ref.attention.operands import Operands, inside_transform


def masked_attention(operands: Operands, return_lse: bool = False) -> tuple[Tensor, Tensor | None]:
    """Attend through a dense mask over all pairs of tokens.

    Shapes:
        return: (output [B, *layout, H, Dv], lse [B, *layout, H] or None)
    Cost: O(N^2) time and memory, whatever the kernel size.
    Source: Vaswani et al., arXiv:1706.03762, eq. 1, with the mask of arXiv:2209.15001.
    Example:
        >>> from dinat_ref.attention.operands import prepare
        >>> from dinat_ref.neighborhood import Neighborhood
        >>> x = torch.arange(5.).reshape(1, 5, 1, 1)
        >>> masked_attention(prepare(torch.zeros_like(x), x, x, Neighborhood((5,), 3)))[0].flatten()
        tensor([1., 1., 2., 3., 3.])
    """
    layout = operands.neighborhood.layout
    query = operands.query.flatten(1, -3).transpose(1, 2)  # [B, H, N, D]
    key = operands.key.flatten(1, -3).transpose(1, 2)  # [B, Hkv, N, D]
    value = operands.value.flatten(1, -3).transpose(1, 2)  # [B, Hkv, N, Dv]
    bias = _dense_bias(operands)  # [H or 1, N, N]
    if operands.additional_keys is not None and operands.additional_values is not None:
        key = torch.cat([key, operands.additional_keys.transpose(1, 2)], dim=2)  # [B, Hkv, N + M, D]
        value = torch.cat([value, operands.additional_values.transpose(1, 2)], dim=2)
        if bias is not None:
            bias = torch.nn.functional.pad(bias, (0, operands.additional_keys.shape[1]))  # [H or 1, N, N + M]

    if return_lse or isinstance(operands.scale, Tensor) or _may_differentiate(query, key, value, bias):
        key = key.repeat_interleave(operands.group_size, dim=1)  # [B, H, N + M, D]
        value = value.repeat_interleave(operands.group_size, dim=1)
        scores = operands.scale * (query @ key.mT)  # [B, H, N, N + M]
        scores = scores if bias is None else scores + bias
        output = torch.softmax(scores, dim=-1) @ value  # [B, H, N, Dv]
        lse = torch.logsumexp(scores, dim=-1).transpose(1, 2).unflatten(1, layout) if return_lse else None
    else:
        mask = None if bias is None else bias[None]  # four dimensions: with three, PyTorch takes its slow path
        output = scaled_dot_product_attention(query, key, value, mask, scale=operands.scale, enable_gqa=True)
        lse = None
    return output.transpose(1, 2).unflatten(1, layout), lse


def _dense_bias(operands: Operands) -> Tensor | None:
    """What is added to the scores of all pairs: the bias at a neighbor, minus infinity elsewhere; [H or 1, N, N]."""
    neighborhood, device = operands.neighborhood, operands.query.device
    if operands.rpb is None and neighborhood.is_full:
        return None
    bias = torch.zeros((1, 1, 1), dtype=operands.query.dtype, device=device)
    if operands.rpb is not None:
        index = []
        for length, kernel_size, _, dilation, _ in neighborhood.axes:
            i = torch.arange(length, device=device)
            steps = (i - i[:, None]).div(dilation, rounding_mode="floor")  # [L, L], of key j from query i
            index.append((steps + kernel_size - 1).clamp(0, 2 * kernel_size - 2))  # clamped only outside windows
        bias = lookup_bias(operands.rpb, index).reshape(-1, *[neighborhood.num_tokens] * 2)  # [H, N, N]
    return bias if neighborhood.is_full else bias.masked_fill(~neighborhood.mask(device), -torch.inf)


def _may_differentiate(*tensors: Tensor | None) -> bool:
    """Whether somebody may take a derivative through these tensors, in reverse or forward mode."""
    reverse = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    return reverse or inside_transform()
