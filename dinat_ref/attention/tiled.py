"""Tiles of queries against slabs of keys: exact, linear in memory, and fast on a CPU.

A tile of queries and its slab of keys (``tiles.py`` draws them) are two small matrices, so that attention becomes
what a CPU does best::

    scores  [T, S] = queries [T, D]  @  slab of keys [S, D]^T  +  mask and bias [T, S]
    output  [T, Dv] = softmax(scores) @  slab of values [S, Dv]

Some scores are computed in vain, those that the mask then forbids; with dilation as large as it can be, or stride =
kernel_size, every window is its whole slab and there is no mask at all. The additional keys are more rows of
every slab. Heads that share a key head are more rows of the tile.

Memory: tiles are worked off in chunks whose scores fill 2 MB at most, so that they stay in the cache; beside them
four times the memory of ``query``. For the backward pass only the operands and the output are kept: it computes the
weights of a chunk once more. Where a second derivative is asked for (create_graph), and inside torch.func and
torch.compile, the same computation is left to autograd as it is, which keeps the weights of all chunks.

torch.compile pays for forward passes that keep their shape: at DiNAT's shapes they took 1.1 to 1.9 times less time
(``dinat-ref bench`` has a row for it), after some seconds of compiling for each shape.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dinat_ref.attention.operands import Operands, inside_transform
from dinat_ref.attention.tiles import TileBatch, cut_into_tiles

SCORES_PER_CHUNK = 2**19  # 2 MB in float32


class Memory(NamedTuple):
    """The operands as rows of tokens: the tokens of the whole batch, one after another."""

    query: Tensor  # [B N, H, D], scaled
    key: Tensor  # [B N + B M, Hkv, D], the additional keys last
    value: Tensor  # [B N + B M, Hkv, Dv]
    rpb: Tensor | None  # [H, 2k-1, ...]


class Plan(NamedTuple):
    """What does not depend on the operands' values."""

    batches: list[TileBatch]
    batch: int  # B
    num_tokens: int  # N
    num_extra: int  # M
    scores_per_chunk: int
    return_lse: bool


def tiled_attention(operands: Operands, return_lse: bool = False) -> tuple[Tensor, Tensor | None]:
    """Attend tile by tile.

    Shapes:
        return: (output [B, *layout, H, Dv], lse [B, *layout, H] or None)
    Raises:
        Nothing: the operands are already checked.
    Cost: O(N K) time, some (1 + tile / k)^n times the arithmetic that is needed; O(N) memory.
    Source: the operator: arXiv:2209.15001, eq. 1-3; tiles: arXiv:2403.04690; the backward pass: arXiv:2205.14135.
    Example:
        >>> from dinat_ref.attention.operands import prepare
        >>> from dinat_ref.neighborhood import Neighborhood
        >>> x = torch.arange(5.).reshape(1, 5, 1, 1)
        >>> tiled_attention(prepare(torch.zeros_like(x), x, x, Neighborhood((5,), 3)))[0].flatten()
        tensor([1., 1., 2., 3., 3.])
    """
    rows = operands.query.shape[:-1]  # B, *layout, H
    query = (operands.scale * operands.query).flatten(0, -3)
    key, value = operands.key.flatten(0, -3), operands.value.flatten(0, -3)
    num_extra = 0
    if operands.additional_keys is not None and operands.additional_values is not None:
        num_extra = operands.additional_keys.shape[1]
        key = torch.cat([key, operands.additional_keys.flatten(0, 1)])
        value = torch.cat([value, operands.additional_values.flatten(0, 1)])

    # a view of rpb, so that no tensor in memory is an ancestor of another: the backward pass may differentiate by all
    rpb = None if operands.rpb is None else operands.rpb.view_as(operands.rpb)
    memory = Memory(query, key, value, rpb)
    batches = list(cut_into_tiles(operands.neighborhood, query.device))
    scores = min(SCORES_PER_CHUNK, query.numel() // 2)  # less than query itself, so that small problems stay small
    plan = Plan(batches, rows[0], operands.neighborhood.num_tokens, num_extra, scores, return_lse)
    needs_gradient = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in memory)
    if needs_gradient and not inside_transform():
        output, lse = Recomputed.apply(plan, *memory)  # type: ignore[no-untyped-call]
    else:
        output, lse = attend(plan, memory)
    return output.reshape(*rows, value.shape[-1]), None if lse is None else lse.reshape(rows)


def attend(plan: Plan, memory: Memory) -> tuple[Tensor, Tensor | None]:
    """Attend all tiles: output [B N, H, Dv] and lse [B N, H] or None."""
    heads, heads_kv = memory.query.shape[1], memory.key.shape[1]
    outputs, lses, order = [], [], []
    for tiles in plan.batches:
        bias = tiles.bias(memory.rpb, memory.query.dtype)
        for query_rows, key_rows in chunks(plan, tiles, heads):
            query = to_matrices(memory.query, query_rows, heads_kv)
            scores = score(query, to_matrices(memory.key, key_rows, heads_kv), bias, heads_kv)
            output = torch.bmm(torch.softmax(scores, dim=-1), to_matrices(memory.value, key_rows, heads_kv))
            outputs.append(to_rows(output, query_rows, heads))
            if plan.return_lse:
                lses.append(to_rows(torch.logsumexp(scores, dim=-1, keepdim=True), query_rows, heads).squeeze(-1))
            order.append(query_rows.flatten())
    rows = torch.cat(order)
    position = torch.empty_like(rows).scatter(0, rows, torch.arange(len(rows), device=rows.device))
    output = torch.cat(outputs).index_select(0, position)  # from tile by tile back to row-major
    return output, torch.cat(lses).index_select(0, position) if plan.return_lse else None


def chunks(plan: Plan, tiles: TileBatch, heads: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows of queries [tiles, T] and keys [tiles, S + M], so few tiles that their scores fit the cache."""
    count, num_queries = tiles.queries.shape
    num_keys = tiles.keys.shape[1] + plan.num_extra
    per_chunk = max(1, plan.scores_per_chunk // (heads * num_queries * num_keys))
    device = tiles.queries.device
    extra = plan.batch * plan.num_tokens + torch.arange(plan.num_extra, device=device)  # [M]
    for begin in range(0, max(1, plan.batch * count), per_chunk):  # one empty chunk for an empty batch
        pair = torch.arange(begin, min(begin + per_chunk, plan.batch * count), device=device)
        item, tile = (pair // count)[:, None], pair % count
        key_rows = tiles.keys.index_select(0, tile) + item * plan.num_tokens
        if plan.num_extra:
            key_rows = torch.cat([key_rows, extra + item * plan.num_extra], dim=1)
        yield tiles.queries.index_select(0, tile) + item * plan.num_tokens, key_rows


def to_matrices(memory: Tensor, rows: Tensor, heads_kv: int) -> Tensor:
    """Copy tokens of memory [*, heads, D] into a matrix for each tile and key head: [tiles Hkv, r tokens, D]."""
    (tiles, tokens), (heads, dim) = rows.shape, memory.shape[1:]
    group_size = heads // heads_kv
    picked = memory.index_select(0, rows.flatten())  # [tiles tokens, heads, D]
    picked = picked.reshape(tiles, tokens, heads_kv, group_size, dim).permute(0, 2, 3, 1, 4)
    return picked.reshape(tiles * heads_kv, group_size * tokens, dim)


def to_rows(matrices: Tensor, rows: Tensor, heads: int) -> Tensor:
    """The inverse: one row for each token of each tile, [tiles tokens, heads, D]."""
    by_head = matrices.reshape(rows.shape[0], heads, rows.shape[1], matrices.shape[-1])
    return by_head.transpose(1, 2).flatten(0, 1)


def score(query: Tensor, key: Tensor, bias: Tensor | None, heads_kv: int) -> Tensor:
    """Multiply queries [tiles Hkv, r T, D] and keys [tiles Hkv, S + M, D], add the bias: [tiles Hkv, r T, S + M]."""
    if bias is None:
        return torch.bmm(query, key.mT)
    tiles, rows, columns = query.shape[0] // heads_kv, query.shape[1], key.shape[1]
    bias = torch.nn.functional.pad(bias, (0, columns - bias.shape[-1]))  # additional keys have none
    if rows > bias.shape[1]:  # the r heads of a key head are rows of one matrix
        bias = bias.expand(heads_kv * rows // bias.shape[1], -1, -1).reshape(heads_kv, rows, columns)
    bias = bias.expand(tiles, heads_kv, rows, columns).reshape(tiles * heads_kv, rows, columns)
    return torch.baddbmm(bias, query, key.mT)


class Recomputed(torch.autograd.Function):
    """Attention that keeps no weights for the backward pass, but computes those of each chunk anew.

    With P the weights of a chunk, S its scores, O its output and L its lse::

        dV = P^T dO        dP = dO V^T        dS = P * (dP - rowsum(dO * O) + dL)        dQ = dS K        dK = dS^T Q
    """

    @staticmethod
    def forward(ctx: Any, plan: Plan, *memory: Tensor) -> tuple[Tensor, Tensor | None]:
        """Attend all tiles, without a graph."""
        output, lse = attend(plan, Memory(*memory))
        ctx.plan = plan
        ctx.save_for_backward(output, *memory)
        return output, lse

    @staticmethod
    def backward(ctx: Any, d_output: Tensor, d_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        """Give the gradients of query, key, value and rpb."""
        output, memory = ctx.saved_tensors[0], Memory(*ctx.saved_tensors[1:])
        if not torch.is_grad_enabled():
            return None, *backward_by_chunks(ctx.plan, memory, output, d_output, d_lse)
        results = [
            x for x in attend(ctx.plan, memory) if x is not None
        ]  # for a second derivative: leave it to autograd
        upstream = [x for x in (d_output, d_lse) if x is not None]
        wanted = [x for x in memory if x is not None and x.requires_grad]
        found = iter(torch.autograd.grad(results, wanted, upstream, create_graph=True))
        return None, *(next(found) if x is not None and x.requires_grad else None for x in memory)


def backward_by_chunks(
    plan: Plan, memory: Memory, output: Tensor, d_output: Tensor, d_lse: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Add up the gradients of all chunks in the rows that they belong to."""
    heads, heads_kv = memory.query.shape[1], memory.key.shape[1]
    d_query, d_key, d_value = (torch.zeros_like(rows) for rows in memory[:3])
    rpb = None if memory.rpb is None else memory.rpb.detach().requires_grad_()
    d_rpb = None if rpb is None else torch.zeros_like(rpb)
    shift = (d_output * output).sum(-1, keepdim=True)  # [B N, H, 1]
    shift = shift if d_lse is None else shift - d_lse[..., None]
    for tiles in plan.batches:
        with torch.enable_grad():
            bias = tiles.bias(rpb, memory.query.dtype)  # a function of rpb: autograd leads its gradient back
        d_bias = None if rpb is None or bias is None else torch.zeros_like(bias)
        for query_rows, key_rows in chunks(plan, tiles, heads):
            query = to_matrices(memory.query, query_rows, heads_kv)
            key, value = (to_matrices(x, key_rows, heads_kv) for x in (memory.key, memory.value))
            d_out = to_matrices(d_output, query_rows, heads_kv)
            weights = torch.softmax(score(query, key, None if bias is None else bias.detach(), heads_kv), dim=-1)
            d_scores = torch.bmm(d_out, value.mT).sub_(to_matrices(shift, query_rows, heads_kv)).mul_(weights)

            d_query.index_copy_(0, query_rows.flatten(), to_rows(torch.bmm(d_scores, key), query_rows, heads))
            d_key.index_add_(0, key_rows.flatten(), to_rows(torch.bmm(d_scores.mT, query), key_rows, heads_kv))
            d_value.index_add_(0, key_rows.flatten(), to_rows(torch.bmm(weights.mT, d_out), key_rows, heads_kv))
            if d_bias is not None:
                of_heads = d_scores.reshape(len(query_rows), heads, query_rows.shape[1], key_rows.shape[1])
                d_bias += of_heads[..., : d_bias.shape[-1]].sum(0)
        if rpb is not None and d_rpb is not None and bias is not None and d_bias is not None:
            d_rpb += torch.autograd.grad(bias, rpb, d_bias)[0]
    return d_query, d_key, d_value, d_rpb
