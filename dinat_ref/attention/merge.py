"""Merging: the softmax over a union of key sets, from the softmax over each part."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dinat_ref.attention.softmax import softmax


def merge_attentions(outputs: Sequence[Tensor], lses: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Combine attention outputs over disjoint sets of keys into the output over all of them.

    Each part is a mean weighted by exp(score); its lse is the logarithm of the weights' sum. The union's output
    is therefore the mean of the parts, weighted by a softmax over their lses::

        lse = log sum_p exp(lse_p)          out = sum_p exp(lse_p - lse) out_p

    Shapes:
        outputs: tensors [B, *layout, H, Dv]
        lses:    tensors [B, *layout, H], natural logarithm
        return:  (output [B, *layout, H, Dv], lse [B, *layout, H])
    Returns:
        The output in the dtype of the outputs, the lse in float32 at least. Differentiable, twice, in all arguments.
    Raises:
        ValueError: no part, unequal numbers of outputs and lses, or unequal shapes.
    Source: FlashAttention, arXiv:2205.14135, section 3.1; NATTEN's merge_attentions.
    Example:
        >>> ones = torch.ones(1, 1, 1, 1)
        >>> merge_attentions([2 * ones, 6 * ones], [torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)])[0].item()
        4.0
    """
    if not outputs or len(outputs) != len(lses):
        raise ValueError(f"outputs and lses must be equally many, at least one, got {len(outputs)} and {len(lses)}")
    for part, (output, lse) in enumerate(zip(outputs, lses, strict=True)):
        if output.shape != outputs[0].shape or lse.shape != output.shape[:-1]:
            expected = f"{tuple(outputs[0].shape)} and {tuple(outputs[0].shape[:-1])}"
            got = f"{tuple(output.shape)} and {tuple(lse.shape)}"
            raise ValueError(f"part {part} must have the shapes of the first, {expected}, got {got}")

    dtype = torch.promote_types(outputs[0].dtype, torch.float32)
    parts = torch.stack([output.to(dtype) for output in outputs])  # [P, B, *layout, H, Dv]
    logs = torch.stack([lse.to(dtype) for lse in lses])  # [P, B, *layout, H]
    weights, merged_lse = softmax(logs.movedim(0, -1))  # [B, *layout, H, P], [B, *layout, H]
    merged = (weights.movedim(-1, 0)[..., None] * parts).sum(0)
    return merged.to(outputs[0].dtype), merged_lse
