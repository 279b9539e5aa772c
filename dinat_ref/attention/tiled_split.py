"""The two halves of the operator, tile by tile: scores of every query's own keys, and sums of their values.

A tile of queries meets its whole slab of keys, S of them; each query owns K, in the slots of a table [T, K]::

    scores   products [T, S] = queries @ slab^T, of which each query picks its K slots
    sums     each query's K weights are put into their slots of S, zeros elsewhere; weights [T, S] @ slab

Both, and the gradients of both, are derivatives of one form, linear in each of its three operands::

    F(scores, queries, keys) = sum_ij scores_ij <q_i, k_j>          over every query i and its own keys j

    dF / dscores = the products <q_i, k_j>          dF / dqueries = sums of keys          dF / dkeys = sums of queries

so that the gradient of each is made of the other two, as often as one likes.
"""

from typing import Any

import torch
from torch import Tensor

from dinat_ref.attention.bias import read_bias
from dinat_ref.attention.boxes import whole
from dinat_ref.attention.chunks import Memory, Plan, chunk_allowed, chunks, to_matrices, to_rows
from dinat_ref.attention.operands import Operands
from dinat_ref.attention.outside import known_finite, mix
from dinat_ref.attention.tiles import TileBatch, cut_into_tiles
from dinat_ref.neighborhood import Neighborhood


def tiled_scores(operands: Operands) -> Tensor:
    """Compute the scores of every query: scale * q k + bias, -inf where a window has no key.

    Shapes:
        return: [B, *layout, H, K + M], the M additional keys last
    Cost: O(N K) time; the memory of the result, and a chunk of 4 MB.
    Source: arXiv:2209.15001, eq. 1.
    Example:
        >>> from dinat_ref.attention.operands import prepare
        >>> x = torch.arange(3.).reshape(1, 3, 1, 1)
        >>> tiled_scores(prepare(x, x, x, Neighborhood((3,), 2, is_causal=True)))[0, :, 0]
        tensor([[0., -inf],
                [0., 1.],
                [2., 4.]])
    """
    neighborhood, device = operands.neighborhood, operands.query.device
    query = operands.scale * operands.query
    plan = _plan(neighborhood, query)
    if neighborhood.is_full:
        scores = _scores_of_all(query, operands.key.flatten(1, -3))
    else:
        scores = derivative(plan, "scores", query.flatten(0, -3), operands.key.flatten(0, -3), operands.key.shape[-2])
        scores = scores.unflatten(0, (plan.batch, plan.num_queries))  # [B, N, H, K]
    if operands.rpb is not None:
        scores = scores + _bias_of_own_keys(plan, operands.rpb)  # [N, H, K]
    if any(neighborhood.is_causal):
        scores = scores.masked_fill(~neighborhood.valid(device)[:, None], -torch.inf)
    if operands.key_mask is not None:
        kept = operands.key_mask.flatten(1)[:, neighborhood.indices(device)]  # [B, N, K]
        scores = scores.masked_fill(~kept[:, :, None], -torch.inf)
    if operands.additional_keys is not None:
        scores = torch.cat([scores, _scores_of_all(query, operands.additional_keys)], dim=-1)  # [B, N, H, K + M]
    return scores.unflatten(1, neighborhood.layout)


def tiled_values(
    weights: Tensor, value: Tensor, neighborhood: Neighborhood, additional_values: Tensor | None = None
) -> Tensor:
    """Sum the values of every query's keys with the given weights.

    Shapes:
        weights: [B, *layout, H, K + M]
        value:   [B, *layout, Hkv, Dv]
        return:  [B, *layout, H, Dv]
    Cost: as ``tiled_scores``.
    Source: arXiv:2209.15001, eq. 3.
    Example:
        >>> value = torch.arange(4.).reshape(1, 4, 1, 1)
        >>> tiled_values(torch.ones(1, 4, 1, 3), value, Neighborhood((4,), 3)).flatten()
        tensor([3., 3., 6., 6.])
    """
    num_keys = neighborhood.num_keys
    if neighborhood.is_full:
        output = _sums_of_all(weights[..., :num_keys], value.flatten(1, -3))
    else:
        rows = weights[..., :num_keys].flatten(0, -3)  # [B N, H, K]
        output = derivative(_plan(neighborhood, value), "queries", rows, value.flatten(0, -3), value.shape[-2])
        output = output.reshape(*weights.shape[:-1], value.shape[-1])
    return output if additional_values is None else output + _sums_of_all(weights[..., num_keys:], additional_values)


def _scores_of_all(query: Tensor, key: Tensor) -> Tensor:
    """Multiply every query [B, *layout, H, D] with each of some keys [B, M, Hkv, D]: [B, N, H, M]."""
    by_head = query.flatten(1, -3).unflatten(2, (key.shape[2], -1))  # [B, N, Hkv, r, D]
    return torch.einsum("bngrd,bmgd->bngrm", by_head, key).flatten(2, 3)


def _sums_of_all(weights: Tensor, value: Tensor) -> Tensor:
    """Sum values [B, M, Hkv, Dv] with weights [B, *layout, H, M]: [B, *layout, H, Dv]."""
    by_head = weights.flatten(1, -3).unflatten(2, (value.shape[2], -1))  # [B, N, Hkv, r, M]
    return torch.einsum("bngrm,bmgd->bngrd", by_head, value).reshape(*weights.shape[:-1], value.shape[-1])


def _plan(neighborhood: Neighborhood, tensor: Tensor) -> Plan:
    """Cut the layout into tiles."""
    where = neighborhood, whole(neighborhood), cut_into_tiles(neighborhood, tensor.device)
    sizes = tensor.shape[0], neighborhood.num_tokens, neighborhood.num_tokens
    return Plan(*where, *sizes, num_extra=0, scale=1.0, return_lse=False)


def own_slots(tiles: TileBatch) -> Tensor | None:
    """Say in which slots of its slab each query's keys lie; None where every query owns the whole slab, in order.

    Shapes:
        return: int64 [T, K]
    Example:
        >>> [tiles] = cut_into_tiles(Neighborhood((4,), kernel_size=3))
        >>> own_slots(tiles)
        tensor([[0, 1, 2],
                [0, 1, 2],
                [1, 2, 3],
                [1, 2, 3]])
    """
    if tiles.allows_all and len(tiles.keys) == tiles.axes[0].neighborhood.num_keys:
        return None
    return tiles.slots() if tiles.kept_slots is None else tiles.kept_slots


def _bias_of_own_keys(plan: Plan, rpb: Tensor) -> Tensor:
    """Read the bias of every query and each of its keys: [N, H, K]."""
    numbers, found = [], []
    for tiles in plan.batches:
        place, slots = tiles.bias_place() if tiles.kept_place is None else tiles.kept_place, own_slots(tiles)
        place = place if slots is None else place.gather(1, slots)  # [T, K]
        bias = read_bias(rpb, place).transpose(0, 1)  # [T, H, K]
        numbers.append((tiles.first_queries[:, None] + tiles.queries).flatten())
        found.append(bias.expand(len(tiles.first_queries), *bias.shape).flatten(0, 1))  # [tiles T, H, K]
    return torch.cat(found).index_select(0, torch.cat(numbers).argsort())


def derivative(plan: Plan, of: str, first: Tensor, second: Tensor, heads_kv: int) -> Tensor:
    """Derive F by one of its operands, "scores", "queries" or "keys", at the other two in that order.

    Shapes:
        scores:  [B N, H, K]
        queries: [B N, H, D]
        keys:    [B N, Hkv, D]
    Example:
        >>> plan = _plan(Neighborhood((3,), 2), torch.zeros(1, 3, 1, 1))
        >>> x = torch.arange(3.0).reshape(3, 1, 1)
        >>> derivative(plan, "scores", x, x, heads_kv=1).squeeze(1)
        tensor([[0., 0.],
                [0., 1.],
                [2., 4.]])
    """
    return Derivative.apply(plan, of, first, second, heads_kv)  # type: ignore[no-untyped-call]


class Derivative(torch.autograd.Function):
    """One of the three derivatives of F; its gradients are the other two."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, of: str, first: Tensor, second: Tensor, heads_kv: int) -> Tensor:
        """Compute it chunk by chunk."""
        ctx.plan, ctx.of, ctx.heads_kv = plan, of, heads_kv
        ctx.save_for_backward(first, second)
        return derive_by_chunks(plan, of, first, second, heads_kv)

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        """Put the incoming gradient in the place of the operand that was derived by."""
        operands = [name for name in ("scores", "queries", "keys") if name != ctx.of]
        given = dict(zip(operands, ctx.saved_tensors, strict=True)) | {ctx.of: incoming}
        found: list[Tensor | None] = []
        for wanted, needed in zip(operands, ctx.needs_input_grad[2:4], strict=True):
            first, second = (given[name] for name in ("scores", "queries", "keys") if name != wanted)
            found.append(derivative(ctx.plan, wanted, first, second, ctx.heads_kv) if needed else None)
        return None, None, *found, None


def derive_by_chunks(plan: Plan, of: str, first: Tensor, second: Tensor, heads_kv: int) -> Tensor:
    """Do the work of ``derivative``, without a graph."""
    heads, dim, num_rows = first.shape[1], second.shape[2], plan.batch * plan.num_queries
    if of == "keys":
        result = first.new_zeros(num_rows, heads_kv, dim)
    else:
        num_keys = plan.neighborhood.num_keys
        result = first.new_empty(num_rows, heads, num_keys if of == "scores" else dim)

    of_query, of_key = (first.new_empty(1).expand(num_rows, n, dim) for n in (heads, heads_kv))
    sizes = Memory(of_query, of_key, of_key, rpb=None)  # nothing but sizes
    careful = not known_finite(first, second)
    for tiles in plan.batches:
        allowed = chunk_allowed(plan, sizes, tiles) if careful else None  # [r T, S]
        slots = own_slots(tiles)
        slots = None if slots is None else slots.repeat(heads // heads_kv, 1)  # [r T, K]
        for queries, keys in chunks(plan, sizes, tiles, scores_alive=2):
            if of == "scores":
                products = to_matrices(first, queries, heads_kv) @ to_matrices(second, keys, heads_kv).mT
                own = products if slots is None else products.gather(-1, slots.expand(*products.shape[:2], -1, -1))
                result.index_copy_(0, queries.flatten(), to_rows(own, queries, heads))
                continue
            own = to_matrices(first, queries, heads_kv)  # [tiles, Hkv, r T, K]
            in_slots = own  # [tiles, Hkv, r T, S]
            if slots is not None:
                in_slots = own.new_zeros(*own.shape[:-1], len(tiles.keys)).scatter_add_(-1, slots.expand_as(own), own)
            if of == "queries":
                sums = mix(in_slots, to_matrices(second, keys, heads_kv), allowed)
                result.index_copy_(0, queries.flatten(), to_rows(sums, queries, heads))
            else:
                back = None if allowed is None else allowed.mT  # [S, r T]
                sums = mix(in_slots.mT, to_matrices(second, queries, heads_kv), back)
                result.index_add_(0, keys.flatten(), to_rows(sums, keys, heads_kv))
    return result
