"""Tiles in few large steps, for accelerators: all tiles of a geometry at once.

A processor computes chunks that fit its cache, one after another. An accelerator has no use for that: each operation
costs some microseconds before it begins, so that thousands of small ones leave it idle. Here a geometry (``tiles.py``)
is one step: a dozen operations for all its tiles, heads and items of the batch, whatever their number::

    queries [Hkv B tiles, r T, D]  @  slabs of keys [Hkv B tiles, S, D]^T   ->  scores [Hkv B tiles, r T, S]  ->  ...

Nothing waits for the accelerator to finish, so nothing here may depend on a number that it computes: what lies outside
a window is kept from mattering without looking. Scores are overwritten with minus infinity, not added to it; what is
not finite is taken out of the other products, and spoils in the end the queries whose windows hold it (``spread.py``).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dinat_ref.attention import spread
from dinat_ref.attention.bias import read_bias
from dinat_ref.attention.chunks import Memory, Plan
from dinat_ref.attention.outside import finite_part

NUMBERS_PER_STEP = 2**26  # 256 MB in float32, or
QUERIES_PER_STEP = 16  # this many times the query, whichever is more, so that a larger batch has no more steps


class Step(NamedTuple):
    """Some tiles of one geometry: the rows that they read, and what they may not attend."""

    queries: Tensor  # [tiles r T]
    keys: Tensor  # [tiles (S + M)]
    num_queries: int  # r T
    num_keys: int  # S + M
    forbidden: Tensor | None  # bool [r T, S + M]
    bias: Tensor | None  # [Hkv, 1, r T, S + M]


def suit(tensor: Tensor) -> bool:
    """Say whether large steps are faster than small chunks where a tensor is: everywhere but on a CPU.

    Example:
        >>> suit(torch.zeros(1)), suit(torch.zeros(1, device="meta"))
        (False, True)
    """
    return tensor.device.type != "cpu"


def attend_in_steps(plan: Plan, memory: Memory) -> tuple[Tensor, Tensor]:
    """Attend all tiles, without a graph.

    Shapes:
        return: output [B N, H, Dv], lse [B N, H]
    Source: arXiv:2209.15001, eq. 1-3.
    Example:
        >>> from dinat_ref.attention.chunks import lay_out
        >>> from dinat_ref.attention.operands import prepare
        >>> from dinat_ref.neighborhood import Neighborhood
        >>> x = torch.arange(5.0).reshape(1, 5, 1, 1)
        >>> attend_in_steps(*lay_out(prepare(torch.zeros_like(x), x, x, Neighborhood((5,), 3)), False))[0].flatten()
        tensor([1., 1., 2., 3., 3.])
    """
    query, key, value = _queries(plan, memory, memory.query), _keys(plan, memory.key), _keys(plan, memory.value)
    query, finite_value = plan.scale * query, finite_part(value)
    output, lse = query.new_empty(*query.shape[:3], value.shape[3]), query.new_empty(query.shape[:3])
    for step in steps(plan, memory):
        scores = scores_of(plan, memory, step, query, key)
        lse.index_copy_(2, step.queries, torch.logsumexp(scores, -1).view(*lse.shape[:2], len(step.queries)))
        found = torch.bmm(torch.softmax(scores, -1), take(finite_value, step.keys, step.num_keys))
        output.index_copy_(2, step.queries, _back(found, output, step.queries))
    output, lse = _from_queries(plan, output), _from_queries(plan, lse[..., None]).squeeze(-1)
    output = output.masked_fill((lse == -torch.inf)[..., None], 0.0)  # a query without any key
    return output.masked_fill(attend_a_mark(plan, memory, ~value.isfinite()), torch.nan), lse


def backward_in_steps(plan: Plan, memory: Memory, d_output: Tensor, shift: Tensor) -> tuple[Tensor | None, ...]:
    """Give the gradients of query, key, value and rpb; the formulas are those of ``tile_products.py``.

    Shapes:
        d_output: [B N, H, Dv]
        shift: rowsum(dO * O) - dL [B N, H]
        return: as the operands in memory, and None for the key mask
    Source: FlashAttention, arXiv:2205.14135, section 3.
    """
    query, key, value = _queries(plan, memory, memory.query), _keys(plan, memory.key), _keys(plan, memory.value)
    d_out, shift = _queries(plan, memory, d_output), _queries(plan, memory, shift[..., None])
    query = plan.scale * query
    d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
    finite_query, finite_key, finite_value, finite_d_out = map(finite_part, (query, key, value, d_out))
    rpb = None if memory.rpb is None else memory.rpb.detach().requires_grad_()
    d_rpb = None if rpb is None else torch.zeros_like(rpb)
    with torch.enable_grad():  # a bias is a function of rpb: autograd leads its gradient back
        all_steps = list(steps(plan, memory._replace(rpb=rpb)))
    for step in all_steps:
        scores = scores_of(plan, memory, step, query, key)
        no_pair = scores == -torch.inf
        weights = torch.softmax(scores, -1).masked_fill_(no_pair, 0.0)
        own_d_out = take(finite_d_out, step.queries, step.num_queries)
        d_scores = torch.bmm(own_d_out, take(finite_value, step.keys, step.num_keys).mT)
        d_scores = d_scores.sub_(take(shift, step.queries, step.num_queries)).mul_(weights).masked_fill_(no_pair, 0.0)
        found = torch.bmm(d_scores, take(finite_key, step.keys, step.num_keys))
        d_query.index_copy_(2, step.queries, _back(found, d_query, step.queries))
        found = torch.bmm(d_scores.mT, take(finite_query, step.queries, step.num_queries))
        d_key.index_add_(2, step.keys, _back(found, d_key, step.keys))
        d_value.index_add_(2, step.keys, _back(torch.bmm(weights.mT, own_d_out), d_value, step.keys))
        if rpb is not None and d_rpb is not None and step.bias is not None:
            d_bias = d_scores.view(query.shape[0], -1, *d_scores.shape[1:]).sum(1, keepdim=True)
            d_rpb += torch.autograd.grad(step.bias, rpb, d_bias, retain_graph=True)[0]  # steps may share a bias
    d_value = d_value.masked_fill(attended_by_a_mark(plan, memory, ~d_output.isfinite()), torch.nan)
    return plan.scale * _from_queries(plan, d_query), *(_from_keys(plan, x) for x in (d_key, d_value)), d_rpb, None


def steps(plan: Plan, memory: Memory) -> Iterator[Step]:
    """Yield the tiles of each geometry, all at once or, where that would be too much, by parts.

    Example:
        >>> from dinat_ref.attention.chunks import lay_out
        >>> from dinat_ref.attention.operands import prepare
        >>> from dinat_ref.neighborhood import Neighborhood
        >>> x = torch.zeros(64, 40, 2, 8)
        >>> for step in steps(*lay_out(prepare(x, x, x, Neighborhood((40,), 3)), False)):
        ...     print(len(step.queries), step.num_queries, step.num_keys)
        17 17 18
        16 16 18
        7 7 8
    """
    heads, heads_kv, dims = memory.query.shape[1], memory.key.shape[1], memory.key.shape[2] + memory.value.shape[2]
    group_size, device = heads // heads_kv, memory.query.device
    extra = plan.num_keys + torch.arange(plan.num_extra, device=device)  # [M]
    most = max(NUMBERS_PER_STEP, QUERIES_PER_STEP * memory.query.numel())
    for tiles in plan.batches:
        num_queries, num_keys = group_size * len(tiles.queries), len(tiles.keys) + plan.num_extra
        forbidden, bias = None, None
        if not tiles.allows_all:
            forbidden = ~(tiles.mask() if tiles.kept_mask is None else tiles.kept_mask)
            if plan.num_extra or group_size > 1:
                forbidden = torch.nn.functional.pad(forbidden, (0, plan.num_extra)).repeat(group_size, 1)
        if memory.rpb is not None:
            bias = read_bias(memory.rpb, tiles.bias_place() if tiles.kept_place is None else tiles.kept_place)
            bias = torch.nn.functional.pad(bias, (0, plan.num_extra)).reshape(heads_kv, 1, num_queries, num_keys)
        numbers = heads_kv * (num_queries + num_keys) * dims + 2 * heads_kv * num_queries * num_keys
        queries, keys = tiles.rows() if tiles.kept_rows is None else tiles.kept_rows  # [tiles, T], [tiles, S]
        if group_size > 1:
            offsets = plan.num_queries * torch.arange(group_size, device=device)[:, None]  # [r, 1]
            queries = (queries[:, None] + offsets).flatten(1)  # [tiles, r T]
        if plan.num_extra:
            keys = torch.cat([keys, extra.expand(len(keys), -1)], dim=1)  # [tiles, S + M]
        per_step = max(1, most // max(1, plan.batch * numbers))
        fits = per_step >= len(queries)  # usually: then nothing is split
        parts = [(queries, keys)] if fits else zip(queries.split(per_step), keys.split(per_step), strict=True)
        for own_queries, own_keys in parts:
            yield Step(own_queries.flatten(), own_keys.flatten(), num_queries, num_keys, forbidden, bias)


def scores_of(plan: Plan, memory: Memory, step: Step, query: Tensor, key: Tensor) -> Tensor:
    """Give the scores of some tiles, minus infinity for what is not attended.

    Shapes:
        query, key: [Hkv, B, rows, D]
        return: [Hkv B tiles, r T, S + M]
    """
    scores = torch.bmm(take(query, step.queries, step.num_queries), take(key, step.keys, step.num_keys).mT)
    if step.bias is not None:
        scores = (scores.view(len(query), -1, *scores.shape[1:]) + step.bias).view(scores.shape)
    if step.forbidden is not None:
        scores = scores.masked_fill_(step.forbidden, -torch.inf)
    if memory.kept is not None:
        kept = _keys(plan, memory.kept[:, None, None])[0].index_select(1, step.keys)  # [B, tiles (S + M), 1]
        by_head = scores.view(len(query), -1, *scores.shape[1:])  # [Hkv, B tiles, r T, S + M]
        by_head.masked_fill_(~kept.view(by_head.shape[1], 1, step.num_keys), -torch.inf)
    return scores


def take(memory: Tensor, rows: Tensor, rows_per_tile: int) -> Tensor:
    """Copy rows into a matrix for each key head, item of the batch and tile.

    Shapes:
        memory: [Hkv, B, rows, D]
        return: [Hkv B tiles, rows_per_tile, D]
    Example:
        >>> take(torch.arange(3.0).reshape(1, 1, 3, 1), torch.tensor([0, 1, 1, 2]), 2).flatten(1)
        tensor([[0., 1.],
                [1., 2.]])
    """
    heads, batch, _, dim = memory.shape
    return memory.index_select(2, rows).view(heads * batch * (len(rows) // rows_per_tile), rows_per_tile, dim)


def attend_a_mark(plan: Plan, memory: Memory, marks: Tensor) -> Tensor:
    """Spread marks of values [Hkv, B, N + M, Dv] to the outputs whose sums contain them: bool [B N, H, Dv]."""
    of_tokens, of_extra = marks.permute(1, 2, 0, 3).split([plan.num_keys, plan.num_extra], dim=1)  # [B, N, Hkv, Dv]
    of_tokens = of_tokens.unflatten(1, plan.boxes.key_layout)
    found = spread.to_queries(of_tokens, plan.neighborhood, plan.boxes).flatten(1, -3)
    if plan.num_extra:
        found = found | of_extra.any(1, keepdim=True)
    return found.flatten(0, 1).repeat_interleave(memory.query.shape[1] // memory.key.shape[1], dim=1)


def attended_by_a_mark(plan: Plan, memory: Memory, marks: Tensor) -> Tensor:
    """Spread marks of outputs [B N, H, Dv] to the values that are in their sums: bool [Hkv, B, N + M, Dv]."""
    marks = marks.unflatten(1, (memory.key.shape[1], -1)).any(2)  # [B N, Hkv, Dv]
    marks = marks.unflatten(0, (plan.batch, *plan.boxes.query_layout))
    found = spread.to_keys(marks, plan.neighborhood, plan.boxes).flatten(1, -3)  # [B, N, Hkv, Dv]
    if plan.num_extra:
        of_extra = marks.flatten(1, -3).any(1, keepdim=True).expand(-1, plan.num_extra, -1, -1)
        found = torch.cat([found, of_extra], dim=1)
    return found.permute(2, 0, 1, 3)


def _queries(plan: Plan, memory: Memory, rows: Tensor) -> Tensor:
    """Put heads first: from [B N, H, D] to [Hkv, B, r N, D], those that share a key head one after another."""
    by_head = rows.unflatten(0, (plan.batch, plan.num_queries)).unflatten(2, (memory.key.shape[1], -1))
    return by_head.permute(2, 0, 3, 1, 4).flatten(2, 3)  # a copy with grouped heads; `take` copies anyhow


def _from_queries(plan: Plan, by_head: Tensor) -> Tensor:
    """Undo ``_queries``."""
    by_group = by_head.unflatten(2, (-1, plan.num_queries))  # [Hkv, B, r, N, D]
    return by_group.permute(1, 3, 0, 2, 4).flatten(2, 3).flatten(0, 1)


def _keys(plan: Plan, rows: Tensor) -> Tensor:
    """Put heads first, and additional keys behind the others of their item: from [B N + B M, Hkv, D]."""
    tokens = rows[: plan.batch * plan.num_keys].unflatten(0, (plan.batch, plan.num_keys))
    if plan.num_extra:
        extra = rows[plan.batch * plan.num_keys :].unflatten(0, (plan.batch, plan.num_extra))
        tokens = torch.cat([tokens, extra], dim=1)
    return tokens.permute(2, 0, 1, 3)  # [Hkv, B, N + M, D]


def _from_keys(plan: Plan, by_head: Tensor) -> Tensor:
    """Undo ``_keys``."""
    parts = by_head.permute(1, 2, 0, 3).split([plan.num_keys, plan.num_extra], dim=1)
    return torch.cat([part.flatten(0, 1) for part in parts]) if plan.num_extra else parts[0].flatten(0, 1)


def _back(matrices: Tensor, memory: Tensor, rows: Tensor) -> Tensor:
    """Undo ``take``: [Hkv, B, rows, D]."""
    return matrices.view(*memory.shape[:2], len(rows), memory.shape[3])
