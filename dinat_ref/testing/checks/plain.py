"""Plain PyTorch: attention written out with a dense mask, in whatever dtype one asks for.

In float64 it is the oracle of all numbers and gradients. In the kernel's own dtype it says what error is fair: a
kernel may make twice the error that these few lines make (the rule of FlashAttention's tests).
"""

from functools import lru_cache

import torch
from torch import Tensor

from dinat_ref.neighborhood import Neighborhood
from dinat_ref.testing.problem import Inputs, Problem


@lru_cache(maxsize=4096)
def expected_mask(neighborhood: Neighborhood) -> Tensor:
    """Which key each query attends, by ``dinat_ref.window``: bool [N, N], computed once.

    Shapes:
        return: [N, N]
    Source: arXiv:2209.15001, eq. 1-3.
    Example:
        >>> expected_mask(Neighborhood((3,), 2)).int()
        tensor([[1, 1, 0],
                [1, 1, 0],
                [0, 1, 1]], dtype=torch.int32)
    """
    return neighborhood.mask()


@lru_cache(maxsize=1024)
def bias_positions(neighborhood: Neighborhood) -> Tensor:
    """The row-major position in a bias table for each query and key, 0 outside the window: int64 [N, N].

    Shapes:
        return: [N, N]
    Source: arXiv:2204.07143, eq. 1 (B(i, j)).
    Example:
        >>> bias_positions(Neighborhood((3,), 2))
        tensor([[1, 2, 0],
                [0, 1, 0],
                [0, 0, 1]])
    """
    tokens = torch.tensor(list(neighborhood.tokens()))  # [N, axes]
    steps = tokens[None] - tokens[:, None]  # [N, N, axes]: from query i to key j
    position = torch.zeros(steps.shape[:2], dtype=torch.int64)
    for axis, (_, kernel_size, _, dilation, _) in enumerate(neighborhood.axes):
        offset = steps[..., axis].div(dilation, rounding_mode="floor") + kernel_size - 1
        position = position * (2 * kernel_size - 1) + offset
    return position.masked_fill(~expected_mask(neighborhood), 0)


def plain_attention(problem: Problem, inputs: Inputs, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Attend with a dense mask, in the dtype of the inputs and nothing else: (output, lse).

    Shapes:
        return: [B, *layout, H, Dv], [B, *layout, H]
    Source: Vaswani et al., arXiv:1706.03762, eq. 1; arXiv:2209.15001, eq. 1-3.
    Example:
        >>> problem = Problem("1d 5 k3 d1 h1 e1 f64 seed0")
        >>> x = torch.arange(5.0, dtype=torch.float64).reshape(1, 5, 1, 1)
        >>> plain_attention(problem, Inputs(torch.zeros_like(x), x, x))[0].flatten()
        tensor([1., 1., 2., 3., 3.], dtype=torch.float64)
    """
    neighborhood, layout = problem.neighborhood, problem.layout
    query, device = inputs.query, inputs.query.device
    mask = (expected_mask(neighborhood) if mask is None else mask).to(device)
    scale = query.shape[-1] ** -0.5 if problem.scale is None else problem.scale
    group = query.shape[-2] // inputs.key.shape[-2]

    def heads_first(tensor: Tensor, repeats: int = 1) -> Tensor:
        return tensor.flatten(1, -3).transpose(1, 2).repeat_interleave(repeats, dim=1)  # [B, H, tokens, D]

    key, value = heads_first(inputs.key, group), heads_first(inputs.value, group)
    scores = heads_first(query) @ key.mT * scale  # [B, H, N, N]
    if inputs.rpb is not None:
        scores = scores + inputs.rpb.flatten(1)[:, bias_positions(neighborhood).to(device)]
    scores = scores.masked_fill(~mask, -torch.inf)
    if inputs.additional_keys is not None and inputs.additional_values is not None:
        extra = heads_first(query) @ heads_first(inputs.additional_keys, group).mT * scale
        scores = torch.cat([scores, extra], dim=-1)  # [B, H, N, N + M]
        value = torch.cat([value, heads_first(inputs.additional_values, group)], dim=2)
    output = torch.softmax(scores, dim=-1) @ value  # [B, H, N, Dv]
    lse = torch.logsumexp(scores, dim=-1)  # [B, H, N]
    return output.transpose(1, 2).unflatten(1, layout), lse.transpose(1, 2).unflatten(1, layout)
