"""The softmax of rows of scores, where a score of minus infinity means that there is no such key."""

import torch
from torch import Tensor


def softmax(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Give the weights of every row of scores, and the logarithm of what they were divided by.

    The highest score is subtracted before anything is exponentiated, so scores of any finite size do. A row without
    any key has weights 0, lse minus infinity and gradients 0.

    Shapes:
        scores: [..., keys]
        return: weights [..., keys], lse [...]
    Example:
        >>> softmax(torch.tensor([[6e4, 6e4], [0.0, -torch.inf], [-torch.inf, -torch.inf]]))
        (tensor([[0.5000, 0.5000],
                [1.0000, 0.0000],
                [0.0000, 0.0000]]), tensor([60000.6914,     0.0000,       -inf]))
    """
    no_key = (scores == -torch.inf).all(-1)  # [...]
    lse = torch.logsumexp(scores.masked_fill(no_key[..., None], 0.0), dim=-1)
    return weights_of(scores), lse.masked_fill(no_key, -torch.inf)


def weights_of(scores: Tensor) -> Tensor:
    """Give the weights alone.

    Shapes:
        scores: [..., keys]
        return: [..., keys]
    Example:
        >>> weights_of(torch.tensor([0.0, -torch.inf, 0.0]))
        tensor([0.5000, 0.0000, 0.5000])
    """
    absent = scores == -torch.inf
    no_key = absent.all(-1, keepdim=True)  # [..., 1]
    weights = torch.softmax(scores.masked_fill(no_key, 0.0), dim=-1)
    return weights.masked_fill(absent, 0.0)  # in a row that nan spoils, too
