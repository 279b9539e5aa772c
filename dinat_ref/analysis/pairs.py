"""Which pairs of tokens meet: are there tokens, after a stack of layers, whose receptive field holds both?

Where none does, whatever is read off the sum of all tokens is f(one) + g(other): the network cannot compare them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dinat_ref.analysis.receptive_field import Layer, axis_fields, check_stack


def pairs_that_meet(layers: Sequence[Layer]) -> tuple[Tensor, ...]:
    """Find the pairs of positions that the receptive field of some token holds both, on each axis.

    Receptive fields are products of their axes, so two tokens meet where their positions meet on every axis.

    Shapes:
        return: for each axis bool [L, L], symmetric
    Raises:
        ValueError: no layers, or of different layouts.
    Source: the receptive field is that of ``dinat_ref.analysis.receptive_field``.
    Example:
        >>> from dinat_ref import Neighborhood
        >>> local, dilated = Neighborhood((9,), 3), Neighborhood((9,), 3, dilation=3)
        >>> for name, layers in {"NA-NA": [local] * 2, "DiNA-DiNA": [dilated] * 2, "NA-DiNA": [local, dilated]}.items():
        ...     print(name, pairs_that_meet(layers)[0][0].nonzero().flatten().tolist())
        NA-NA [0, 1, 2, 3, 4]
        DiNA-DiNA [0, 3, 6]
        NA-DiNA [0, 1, 2, 3, 4, 5, 6, 7, 8]
    """
    meet = []
    for axis in range(len(check_stack(layers))):
        field = axis_fields(layers, axis)[-1].to(torch.float32)  # [tokens, what they see]
        meet.append((field.mT @ field) > 0)
    return tuple(meet)


def share_that_meets(layers: Sequence[Layer], first: Tensor, second: Tensor) -> float:
    """Measure the part of some pairs of tokens that meet.

    Shapes:
        first, second: int64 [pairs, axes], the positions of the two tokens of each pair
    Raises:
        ValueError: no layers, or of different layouts.
    Example:
        >>> from dinat_ref import Neighborhood
        >>> corner, others = torch.tensor([[0, 0], [0, 0]]), torch.tensor([[4, 4], [4, 5]])
        >>> share_that_meets([Neighborhood((9, 9), 3)] * 2, corner, others)
        0.5
    """
    together = torch.ones(len(first), dtype=torch.bool)
    for axis, meet in enumerate(pairs_that_meet(layers)):
        together &= meet[first[:, axis], second[:, axis]]
    return together.float().mean().item()
