"""A dense mask: full attention in which all but the neighbors are forbidden.

    mask [N, N]     row i is True at the keys of query i          (Neighborhood.mask)

The shortest formulation, and the one that ``scaled_dot_product_attention`` runs as it is; where every window is the
whole layout, nothing is forbidden, and there is no mask at all. But PyTorch's fused kernels have no second derivative,
no forward mode, do not tell the lse, and lose a query whose mask stands against nan or infinity. Where one of these is
or may be wanted, products and softmax are written out.

Memory: the N x N mask; where the softmax is written out, N x N scores for each batch and head. Above some 16,000 tokens
(1 GB each) use another formulation.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from dinat_ref.attention.bias import lookup_bias
from dinat_ref.attention.operands import Operands, inside_transform
from dinat_ref.attention.outside import known_finite, known_harmless, may_look, mix, pair_products
from dinat_ref.attention.softmax import softmax
from dinat_ref.neighborhood import Neighborhood


def masked_attention(operands: Operands, return_lse: bool = False) -> tuple[Tensor, Tensor | None]:
    """Attend through a dense mask over all pairs of tokens.

    Shapes:
        return: (output [B, *layout, H, Dv], lse [B, *layout, H] or None)
    Cost: O(N^2) time and memory, whatever the kernel size.
    Source: Vaswani et al., arXiv:1706.03762, eq. 1, with the mask of arXiv:2209.15001.
    Example:
        >>> from dinat_ref.attention.operands import prepare
        >>> x = torch.arange(5.).reshape(1, 5, 1, 1)
        >>> masked_attention(prepare(torch.zeros_like(x), x, x, Neighborhood((5,), 3)))[0].flatten()
        tensor([1., 1., 2., 3., 3.])
    """
    neighborhood, layout = operands.neighborhood, operands.neighborhood.layout
    query = operands.scale * operands.query.flatten(1, -3).transpose(1, 2)  # [B, H, N, D]
    key = operands.key.flatten(1, -3).transpose(1, 2)  # [B, Hkv, N, D]
    value = operands.value.flatten(1, -3).transpose(1, 2)  # [B, Hkv, N, Dv]
    bias = None if operands.rpb is None else dense_bias(operands.rpb, neighborhood)  # [H, N, N]
    allowed = None if neighborhood.is_full else neighborhood.mask(query.device)  # [N, N]; None: all of them
    if operands.key_mask is not None:
        kept = operands.key_mask.flatten(1)[:, None, None, :].expand(-1, -1, neighborhood.num_tokens, -1)
        allowed = kept if allowed is None else kept & allowed  # [B, 1, N, N]
    if operands.additional_keys is not None and operands.additional_values is not None:
        num_extra = operands.additional_keys.shape[1]
        key = torch.cat([key, operands.additional_keys.transpose(1, 2)], dim=2)  # [B, Hkv, N + M, D]
        value = torch.cat([value, operands.additional_values.transpose(1, 2)], dim=2)
        bias = None if bias is None else pad(bias, (0, num_extra))  # [H, N, N + M]
        allowed = None if allowed is None else pad(allowed, (0, num_extra), value=True)  # [..., N, N + M]

    no_mask = operands.key_mask is None  # with one, a query may have no key at all
    if no_mask and not return_lse and may_look(query) and not _may_differentiate(query, key, value, bias):
        output = _fused(query, key, value, bias, allowed)
        if known_finite(query, key, output):  # it makes zeros of a row of nan
            return output.transpose(1, 2).unflatten(1, layout), None

    key = key.repeat_interleave(operands.group_size, dim=1)  # [B, H, N + M, D]
    value = value.repeat_interleave(operands.group_size, dim=1)
    plain = no_mask and known_harmless(query, key, value, bias)
    scores = query @ key.mT if plain else pair_products(query, key)  # [B, H, N, N + M]
    scores = scores if bias is None else scores + bias
    scores = scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)
    weights, lse = (torch.softmax(scores, dim=-1), None) if plain and not return_lse else softmax(scores)
    output = weights @ value if plain else mix(weights, value, allowed)  # [B, H, N, Dv]
    lse = lse.transpose(1, 2).unflatten(1, layout) if return_lse and lse is not None else None
    return output.transpose(1, 2).unflatten(1, layout), lse


def dense_bias(rpb: Tensor, neighborhood: Neighborhood) -> Tensor:
    """Read the bias of all pairs of tokens: right at the neighbors, and some number of the table elsewhere.

    Shapes:
        rpb: [H, 2k-1, ...]
        return: [H, N, N]
    Source: Liu et al., arXiv:2103.14030, eq. 4.
    Example:
        >>> dense_bias(torch.tensor([[10., 20., 30.]]), Neighborhood((3,), 2))[0]
        tensor([[20., 30., 30.],
                [10., 20., 30.],
                [10., 10., 20.]])
    """
    index = []
    for length, kernel_size, _, dilation, _ in neighborhood.axes:
        i = torch.arange(length, device=rpb.device)
        steps = (i - i[:, None]).div(dilation, rounding_mode="floor")  # [L, L], of key j from query i
        index.append((steps + kernel_size - 1).clamp(0, 2 * kernel_size - 2))  # clamped only outside windows
    return lookup_bias(rpb, index).reshape(-1, *[neighborhood.num_tokens] * 2)


def _fused(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, allowed: Tensor | None) -> Tensor:
    """Leave it to PyTorch: [B, H, N, Dv]. Four dimensions for the mask: with three, it takes its slow path."""
    mask = None if bias is None else bias[None]  # [1, H, N, N + M]
    if allowed is not None:
        mask = query.new_zeros(()) if mask is None else mask
        mask = torch.where(allowed, mask, -torch.inf).reshape(1, -1, *allowed.shape)
    return scaled_dot_product_attention(query, key, value, mask, scale=1.0, enable_gqa=True)


def _may_differentiate(*tensors: Tensor | None) -> bool:
    """Whether somebody may take a derivative through these tensors, in reverse or forward mode."""
    reverse = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    return reverse or inside_transform()
