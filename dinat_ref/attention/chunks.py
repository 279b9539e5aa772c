"""Working off tiles in chunks: from rows of tokens to matrices of tiles, and back.

The operands are kept as rows, a token each. A chunk is some tiles of one geometry, so few that all that is made of
them stays in the cache: their queries and slabs of keys are copied into matrices, and what is found goes back to the
rows of the queries::

    rows      token 0 | token 1 | token 2 | ...           [B N, heads, D]
    matrices  tile 0: its tokens | tile 1: ...            [tiles, key heads, tokens, D]

Query heads that share a key head are more rows of the tile's matrix. Additional keys are more rows of every slab.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dinat_ref.attention.boxes import Boxes
from dinat_ref.attention.operands import Operands, inside_transform
from dinat_ref.attention.tiles import TileBatch, cut_into_tiles
from dinat_ref.neighborhood import Neighborhood

NUMBERS_PER_CHUNK = 2**20  # 4 MB in float32
NUMBERS_PER_TRACED_CHUNK = 2**24  # of an item of the batch, where all items go together


class Memory(NamedTuple):
    """The operands as rows of tokens: the tokens of the whole batch, one after another."""

    query: Tensor  # [B N, H, D]
    key: Tensor  # [B N + B M, Hkv, D], the additional keys last
    value: Tensor  # [B N + B M, Hkv, Dv]
    rpb: Tensor | None  # [H, 2k-1, ...]
    kept: Tensor | None = None  # bool [B N + B M], False for masked keys

    def widened(self) -> "Memory":
        """The same numbers in float32 at least."""
        dtype = torch.promote_types(self.query.dtype, torch.float32)
        rpb = None if self.rpb is None else self.rpb.to(dtype)
        return Memory(self.query.to(dtype), self.key.to(dtype), self.value.to(dtype), rpb, self.kept)


class Plan(NamedTuple):
    """What does not depend on the operands' values."""

    neighborhood: Neighborhood
    boxes: Boxes
    batches: tuple[TileBatch, ...]
    batch: int  # B
    num_queries: int  # N, of an item of the batch
    num_keys: int  # N, but where queries and keys are parts of a layout
    num_extra: int  # M
    scale: float
    return_lse: bool


class Chunk(NamedTuple):
    """The tokens of some tiles, as numbers of rows in memory."""

    queries: Tensor  # [tiles, T]
    keys: Tensor  # [tiles, S + M]


def lay_out(operands: Operands, return_lse: bool) -> tuple[Plan, Memory]:
    """Lay the operands out as rows and cut the layout into tiles.

    Shapes:
        return: a plan, and views of the operands where they allow it
    Example:
        >>> from dinat_ref.attention.operands import prepare
        >>> from dinat_ref.neighborhood import Neighborhood
        >>> x = torch.zeros(2, 5, 7, 4, 8)
        >>> lay_out(prepare(x, x, x, Neighborhood((5, 7), 3)), return_lse=False)[1].query.shape
        torch.Size([70, 4, 8])
    """
    query, scale = operands.query, operands.scale
    if isinstance(scale, Tensor):  # it may want a gradient of its own
        query, scale = scale * query, 1.0
    query, key, value = (x.flatten(0, -3) for x in (query, operands.key, operands.value))
    num_extra, kept = 0, None if operands.key_mask is None else operands.key_mask.flatten()
    if operands.additional_keys is not None and operands.additional_values is not None:
        num_extra = operands.additional_keys.shape[1]
        key = torch.cat([key, operands.additional_keys.flatten(0, 1)])
        value = torch.cat([value, operands.additional_values.flatten(0, 1)])
        if kept is not None:
            kept = torch.cat([kept, kept.new_ones(operands.additional_keys.shape[:2]).flatten()])
    # a view of rpb, so that no tensor in memory is an ancestor of another: the backward pass may differentiate by all
    rpb = None if operands.rpb is None else operands.rpb.view_as(operands.rpb)
    batches = cut_into_tiles(operands.neighborhood, query.device, operands.boxes)
    where = operands.neighborhood, operands.boxes, batches
    num_queries, num_keys = (math.prod(x.shape[1:-2]) for x in (operands.query, operands.key))
    plan = Plan(*where, operands.query.shape[0], num_queries, num_keys, num_extra, scale, return_lse)
    return plan, Memory(query, key, value, rpb, kept)


def chunks(plan: Plan, memory: Memory, tiles: TileBatch, scores_alive: int) -> Iterator[Chunk]:
    """Yield the tiles of one geometry, of all items of the batch, by chunks.

    Shapes:
        yields: numbers of rows, queries [tiles, T] and keys [tiles, S + M]
    Args:
        scores_alive: how many matrices of scores [T, S + M] a head needs at the same time.
    Example:
        >>> from dinat_ref.attention.operands import prepare
        >>> from dinat_ref.neighborhood import Neighborhood
        >>> x = torch.zeros(2, 40, 1, 1)
        >>> plan, memory = lay_out(prepare(x, x, x, Neighborhood((40,), 3)), return_lse=False)
        >>> next(chunks(plan, memory, plan.batches[0], scores_alive=0)).queries.shape
        torch.Size([2, 17])
    """
    num_queries, num_keys, device = len(tiles.queries), len(tiles.keys) + plan.num_extra, tiles.queries.device
    heads, heads_kv, dims = memory.query.shape[1], memory.key.shape[1], memory.key.shape[2] + memory.value.shape[2]
    numbers = (heads * num_queries + heads_kv * num_keys) * dims + scores_alive * heads * num_queries * num_keys
    item = torch.arange(plan.batch, device=device)[:, None]  # [B, 1]
    first_queries = plan.num_queries * item + tiles.first_queries  # [B, tiles]
    first_keys = plan.num_keys * item + tiles.first_keys  # [B, tiles]
    extras = None
    if plan.num_extra:
        extra = plan.batch * plan.num_keys + torch.arange(plan.num_extra, device=device) + plan.num_extra * item
        extras = extra[:, None].expand(-1, tiles.first_keys.shape[0], -1)  # [B, tiles, M]

    def rows(queries: Tensor, keys: Tensor, extra: Tensor | None) -> Chunk:
        queries, keys = queries[:, None] + tiles.queries, keys[:, None] + tiles.keys  # [tiles, T], [tiles, S]
        return Chunk(queries, keys if extra is None else torch.cat([keys, extra], dim=1))

    if inside_transform():  # the size of the batch may be a symbol, which no Python loop can run over
        per_chunk = max(1, NUMBERS_PER_TRACED_CHUNK // max(1, numbers))
        for begin in range(0, tiles.first_queries.shape[0], per_chunk):
            part = slice(begin, begin + per_chunk)
            own_extra = None if extras is None else extras[:, part].flatten(0, 1)
            yield rows(first_queries[:, part].flatten(), first_keys[:, part].flatten(), own_extra)
        return
    most = min(NUMBERS_PER_CHUNK, 4 * memory.query.numel())  # small problems stay small
    per_chunk = max(1, most // max(1, numbers))
    first_queries, first_keys = first_queries.flatten(), first_keys.flatten()  # [B tiles]
    extras = None if extras is None else extras.flatten(0, 1)  # [B tiles, M]
    for begin in range(0, max(1, len(first_queries)), per_chunk):  # one empty chunk for an empty batch
        part = slice(begin, begin + per_chunk)
        yield rows(first_queries[part], first_keys[part], None if extras is None else extras[part])


def chunk_bias(plan: Plan, memory: Memory, tiles: TileBatch) -> Tensor | None:
    """Give what is added to the scores of each tile: mask and bias, zero for additional keys; None for zero.

    Shapes:
        return: [Hkv, r T, S + M] with a bias, [1, r T, S + M] with a mask alone
    Source: arXiv:2209.15001, eq. 1.
    Example:
        >>> from dinat_ref.attention.operands import prepare
        >>> from dinat_ref.neighborhood import Neighborhood
        >>> x = torch.zeros(1, 4, 1, 1)
        >>> plan, memory = lay_out(prepare(x, x, x, Neighborhood((4,), 3)), return_lse=False)
        >>> chunk_bias(plan, memory, plan.batches[0])
        tensor([[[0., 0., 0., -inf],
                 [0., 0., 0., -inf],
                 [-inf, 0., 0., 0.],
                 [-inf, 0., 0., 0.]]])
    """
    bias = tiles.bias(memory.rpb, memory.query.dtype)  # [H or 1, T, S]
    if bias is None:
        return None
    if plan.num_extra:
        bias = torch.nn.functional.pad(bias, (0, plan.num_extra))
    if memory.rpb is not None:
        return bias.reshape(memory.key.shape[1], -1, bias.shape[-1])
    group_size = memory.query.shape[1] // memory.key.shape[1]  # not by a property: PyTorch 2.8 could not trace that
    return bias if group_size == 1 else bias.repeat(1, group_size, 1)


def chunk_allowed(plan: Plan, memory: Memory, tiles: TileBatch) -> Tensor | None:
    """Give which rows of each slab each query may attend, or None for all.

    Shapes:
        return: bool [r T, S + M]
    Example:
        >>> from dinat_ref.attention.operands import prepare
        >>> from dinat_ref.neighborhood import Neighborhood
        >>> x = torch.zeros(1, 3, 1, 1)
        >>> plan, memory = lay_out(prepare(x, x, x, Neighborhood((3,), 2)), return_lse=False)
        >>> chunk_allowed(plan, memory, plan.batches[0])
        tensor([[ True,  True, False],
                [ True,  True, False],
                [False,  True,  True]])
    """
    if tiles.allows_all:
        return None
    allowed = tiles.mask() if tiles.kept_mask is None else tiles.kept_mask  # [T, S]
    return torch.nn.functional.pad(allowed, (0, plan.num_extra), value=True).repeat(
        memory.query.shape[1] // memory.key.shape[1], 1
    )


def among_kept(allowed: Tensor | None, memory: Memory, keys: Tensor, num_rows: int) -> Tensor | None:
    """Narrow what is allowed to the keys that are not masked.

    Shapes:
        allowed: bool [r T, S + M]
        keys: [tiles, S + M]
        return: bool [tiles, 1, r T, S + M], or allowed where no key is masked
    Example:
        >>> x = torch.zeros(3, 1, 1)
        >>> memory = Memory(x, x, x, None, kept=torch.tensor([True, False, True]))
        >>> among_kept(None, memory, torch.tensor([[0, 1], [1, 2]]), num_rows=1).flatten(1)
        tensor([[ True, False],
                [False,  True]])
    """
    if memory.kept is None:
        return allowed
    kept = (
        memory.kept.index_select(0, keys.flatten())
        .reshape(keys.shape[0], 1, 1, keys.shape[1])
        .expand(-1, -1, num_rows, -1)
    )
    return kept if allowed is None else kept & allowed


def to_matrices(memory: Tensor, rows: Tensor, heads_kv: int) -> Tensor:
    """Copy rows of memory into a matrix for each tile and key head.

    Shapes:
        memory: [*, heads, D]
        rows: [tiles, tokens]
        return: [tiles, Hkv, r tokens, D], not contiguous
    Raises:
        IndexError: a row behind the end of memory.
    Example:
        >>> memory = torch.arange(8.).reshape(4, 2, 1)
        >>> to_matrices(memory, torch.tensor([[0, 1, 2]]), heads_kv=2)[0, ..., 0]
        tensor([[0., 2., 4.],
                [1., 3., 5.]])
        >>> to_matrices(memory, torch.tensor([[0, 1, 2]]), heads_kv=1)[0, ..., 0]
        tensor([[0., 2., 4., 1., 3., 5.]])
    """
    (tiles, tokens), (heads, dim) = rows.shape, memory.shape[1:]
    picked = memory.index_select(0, rows.flatten())  # [tiles tokens, heads, D]
    picked = picked.reshape(tiles, tokens, heads_kv, heads // heads_kv, dim).permute(0, 2, 3, 1, 4)
    return picked.reshape(tiles, heads_kv, heads // heads_kv * tokens, dim)


def to_rows(matrices: Tensor, rows: Tensor, heads: int) -> Tensor:
    """Undo ``to_matrices``: one row for each token of each tile.

    Shapes:
        matrices: [tiles, Hkv, r tokens, D], or their first two dimensions as one
        rows: [tiles, tokens]
        return: [tiles tokens, heads, D]
    Example:
        >>> memory, rows = torch.randn(4, 2, 1), torch.tensor([[0, 1, 2]])
        >>> torch.testing.assert_close(to_rows(to_matrices(memory, rows, 1), rows, 2), memory[:3], rtol=0, atol=0)
    """
    by_head = matrices.reshape(rows.shape[0], heads, rows.shape[1], matrices.shape[-1])
    return by_head.transpose(1, 2).flatten(0, 1)
