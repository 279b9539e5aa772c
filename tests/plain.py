"""Attention as everybody writes it in PyTorch: all pairs of tokens, a mask, a softmax, in the dtype of the tensors."""

import itertools
import math

import torch
from torch import Tensor

from tests import oracle
from tests.strategies import Problem


def token_list(problem: Problem) -> list[tuple[int, ...]]:
    """All tokens, row-major."""
    return list(itertools.product(*(range(length) for length in problem.layout)))


def window_mask(problem: Problem) -> Tensor:
    """Which key each query attends, by the oracle: bool [N, N]."""
    number = {token: n for n, token in enumerate(token_list(problem))}
    mask = torch.zeros(len(number), len(number), dtype=torch.bool)
    for token, n in number.items():
        mask[n, [number[neighbor] for neighbor in oracle.neighbors(token, problem.axes)]] = True
    return mask


def full_attention(problem: Problem, tensors: dict[str, Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
    """The output and the lse of attention over all tokens that the mask [N, N] allows, and over additional keys."""
    query, key, value = (tensors[name].flatten(1, -3) for name in ("query", "key", "value"))  # [B, N, H, D]
    bias = torch.zeros(mask.shape, dtype=query.dtype).masked_fill(~mask, -math.inf)  # [N, N]
    if problem.rpb:
        bias = bias + _bias(problem, tensors["rpb"].to(query.dtype))  # [H, N, N]
    if problem.extra is not None:
        key = torch.cat([key, tensors["additional_keys"]], dim=1)
        value = torch.cat([value, tensors["additional_values"]], dim=1)
        bias = torch.nn.functional.pad(bias, (0, problem.extra))
    repeats = problem.heads // problem.heads_kv
    key, value = key.repeat_interleave(repeats, dim=2), value.repeat_interleave(repeats, dim=2)
    scale = 1 / math.sqrt(problem.head_dim) if problem.scale is None else problem.scale
    scores = scale * torch.einsum("bihd,bjhd->bhij", query, key) + bias
    output = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), value)
    lse = scores.logsumexp(-1).transpose(1, 2)  # [B, N, H]
    return output.unflatten(1, problem.layout), lse.unflatten(1, problem.layout)


def _bias(problem: Problem, rpb: Tensor) -> Tensor:
    """The bias of all pairs [H, N, N]; what lies outside the table lies outside every window too."""
    tokens = torch.tensor(token_list(problem))  # [N, axes]
    steps = (tokens - tokens[:, None]) // torch.tensor(problem.dilation)  # [N, N, axes], of key j from query i
    largest = torch.tensor(problem.kernel_size) - 1
    index = (steps + largest).clamp(torch.zeros_like(largest), 2 * largest)
    return rpb[(slice(None), *index.unbind(-1))]
