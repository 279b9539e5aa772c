"""The effective receptive field: how much each input matters, where the exact one says only whether it can."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dinat_ref.attention.operands import every


def effective_receptive_field(
    operator: Callable[[Tensor], Tensor], x: Tensor, token: Sequence[int], channels_last: bool = True
) -> Tensor:
    """Measure how strongly one output token depends on every input position, by gradients.

    The output token's channels are summed with random signs, as many times as there are samples in the batch, and the
    squared gradients are averaged; a real model on a real photo gives a bell, not a box.

    Shapes:
        operator: from x to [B, *layout, C']
        x:        [B, *places, C], or with channels_last=False [B, C, *places]
        token:    one coordinate per axis of the output's layout
        return:   [*places], non-negative
    Raises:
        ValueError: token has not one coordinate per axis of the output's layout.
    Source: Luo et al., Understanding the effective receptive field, arXiv:1701.04128.
    Example:
        >>> from dinat_ref import na1d
        >>> mean = lambda x: na1d(0 * x[:, :, None], 0 * x[:, :, None], x[:, :, None], kernel_size=3)[:, :, 0]
        >>> effective_receptive_field(lambda x: mean(mean(x)), torch.zeros(1, 7, 1), (3,)).sqrt() * 9
        tensor([0.0000, 1.0000, 2.0000, 3.0000, 2.0000, 1.0000, 0.0000])
    """
    x = x.detach().requires_grad_()
    output = operator(x)
    if len(token) != output.ndim - 2:
        raise ValueError(
            f"token must have {output.ndim - 2} coordinates for outputs {tuple(output.shape)}, got {token}"
        )
    features = output[every(*token)]  # [B, C']
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, features.shape, generator=generator).to(features) * 2 - 1
    (gradient,) = torch.autograd.grad((features * signs).sum(), x)
    return gradient.square().sum(-1 if channels_last else 1).mean(0)
