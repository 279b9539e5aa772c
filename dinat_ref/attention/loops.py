"""The definition, token by token: slow on purpose, and the oracle of all the other formulations.

    score(i, j)  = <scale * q_i, k_j> + bias(i, j)      for every j in window(i), then for every additional key
    weight(i, j) = exp(score(i, j) - max_j score(i, j))
    out_i        = sum_j weight(i, j) v_j / sum_j weight(i, j)
    lse_i        = max_j score(i, j) + log sum_j weight(i, j)

The highest score is subtracted first: so no weight exceeds one, and scores of any finite size do. A score of minus
infinity is no key; a query without any key left has output 0 and lse minus infinity.

Only the batch is vectorised. A layout of a thousand tokens takes a second; a photograph takes minutes.
"""

import torch
from torch import Tensor

from dinat_ref.attention.operands import Operands, every


def loops_attention(operands: Operands, return_lse: bool = False) -> tuple[Tensor, Tensor | None]:
    """Attend one token and one head at a time.

    Shapes:
        return: (output [B, *layout, H, Dv], lse [B, *layout, H] or None)
    Cost: O(N K) Python steps.
    Source: arXiv:2209.15001, eq. 1-3.
    Example:
        >>> from dinat_ref.attention.operands import prepare
        >>> from dinat_ref.neighborhood import Neighborhood
        >>> x = torch.arange(5.).reshape(1, 5, 1, 1)
        >>> loops_attention(prepare(torch.zeros_like(x), x, x, Neighborhood((5,), 3)))[0].flatten()
        tensor([1., 1., 2., 3., 3.])
    """
    batch, heads = operands.query.shape[0], operands.query.shape[-2]
    outputs, lses = [], []
    for token in operands.neighborhood.tokens():
        for head in range(heads):
            output, lse = _attend(operands, token, head)
            outputs.append(output)
            lses.append(lse)

    layout = operands.neighborhood.layout
    output = torch.stack(outputs, dim=1)  # [B, N H, Dv]
    output = output.reshape(batch, *layout, heads, operands.value.shape[-1])
    lse = torch.stack(lses, dim=1).reshape(batch, *layout, heads)
    return output, lse if return_lse else None


def _attend(operands: Operands, token: tuple[int, ...], head: int) -> tuple[Tensor, Tensor]:
    """Attend from one token and one head: its output [B, Dv] and its lse [B]."""
    head_kv = head // operands.group_size
    query = operands.scale * operands.query[every(*token, head)]  # [B, D]

    scores, values = [], []
    for neighbor in operands.neighborhood.neighbors(token):
        key = operands.key[every(*neighbor, head_kv)]  # [B, D]
        score = (query * key).sum(-1)  # [B]
        if operands.rpb is not None:
            score = score + _bias(operands, token, neighbor, head)
        if operands.key_mask is not None:
            score = score.masked_fill(~operands.key_mask[every(*neighbor)], -torch.inf)
        scores.append(score)
        values.append(operands.value[every(*neighbor, head_kv)])  # [B, Dv]
    if operands.additional_keys is not None and operands.additional_values is not None:
        for extra in range(operands.additional_keys.shape[1]):
            scores.append((query * operands.additional_keys[:, extra, head_kv]).sum(-1))
            values.append(operands.additional_values[:, extra, head_kv])

    score = torch.stack(scores, dim=-1)  # [B, keys]
    highest = score.detach().amax(-1, keepdim=True)  # [B, 1]
    no_key = highest == -torch.inf
    highest = highest.masked_fill(no_key, 0.0)
    weights = torch.exp(score - highest)  # [B, keys], 0 .. 1
    total = weights.sum(-1, keepdim=True).masked_fill(no_key, 1.0)  # [B, 1]
    output = (weights[..., None] * torch.stack(values, dim=1)).sum(1) / total  # [B, Dv]
    lse = (highest + torch.log(total)).masked_fill(no_key, -torch.inf).squeeze(-1)  # [B]
    return output, lse


def _bias(operands: Operands, token: tuple[int, ...], neighbor: tuple[int, ...], head: int) -> Tensor:
    """Read the relative positional bias of one query and one key: a number."""
    assert operands.rpb is not None
    neighborhood = operands.neighborhood
    steps = zip(token, neighbor, neighborhood.dilation, neighborhood.kernel_size, strict=True)
    offsets = [(j - i) // dilation + kernel_size - 1 for i, j, dilation, kernel_size in steps]
    return operands.rpb[(head, *offsets)]
