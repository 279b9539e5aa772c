"""Tiles of queries against slabs of keys: exact, linear in memory, and fast on a CPU.

A tile of queries and its slab of keys (``tiles.py`` draws them) are two small matrices, so that attention becomes
what a CPU does best::

    scores  [T, S] = queries [T, D]  @  slab of keys [S, D]^T  +  mask and bias [T, S]
    output  [T, Dv] = softmax(scores) @  slab of values [S, Dv]

Some scores are computed in vain, those that the mask then forbids; with dilation as large as it can be, or stride =
kernel_size, every window is its whole slab and there is no mask at all.

Memory: tiles are worked off in chunks (``chunks.py``) of 4 MB at most, which stay in the cache and whose memory is
used again for the next; beside them there is the output alone. For the backward pass only the operands and the output
are kept: it computes the weights of a chunk once more.

The forward pass leaves each chunk to ``scaled_dot_product_attention``. PyTorch's fused kernel behind it has no second
derivative, no forward mode and does not tell the lse. So where the lse is asked for, or a derivative of the derivative
(create_graph), and inside torch.func and torch.compile, products and softmax are written out (``tile_products.py``);
the last three are left to autograd as they are, which keeps the weights of all chunks.

These products meet keys of the slab that lie outside a query's window. If one of them could be nan, or have an infinite
score, everything is computed by careful products, which such keys cannot spoil (``outside.py``). Finding out reads the
operands once: a twentieth of the time, a tenth or two on small maps. In a trace, where Python may not look at numbers,
careful ones are taken at once; on an accelerator, where it should not, tiles go by large steps (``large_steps.py``).

bfloat16 stays what it is on a processor that multiplies it and sums in float32, in the forward pass and where no lse is
asked for; all else is computed in float32 and rounded once. (Seen on such a processor, forward: 0.65 to 1.0 times
the time of float32; in float16 nothing is gained, and it is taken to float32.)

torch.compile(fullgraph=True) takes it whole, but hardly pays on a CPU: at DiNAT's shapes the compiled code was 0.8 to
1.2 times as fast (``dinat-ref bench`` has a row for it), after up to half a minute of compiling.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from dinat_ref.attention import large_steps
from dinat_ref.attention.chunks import (
    Chunk,
    Memory,
    Plan,
    among_kept,
    chunk_allowed,
    chunk_bias,
    chunks,
    lay_out,
    to_matrices,
    to_rows,
)
from dinat_ref.attention.operands import Operands, inside_transform
from dinat_ref.attention.outside import known_finite, known_harmless
from dinat_ref.attention.tile_products import attend_tile, backward_of_tile


def tiled_attention(operands: Operands, return_lse: bool = False) -> tuple[Tensor, Tensor | None]:
    """Attend tile by tile.

    Shapes:
        return: (output [B, *layout, H, Dv], lse [B, *layout, H] or None)
    Raises:
        RuntimeError: inside torch.jit.trace, which would keep the batch size as it is.
    Cost: O(N K) time, some (1 + tile / k)^n times the arithmetic that is needed; O(N) memory.
    Source: the operator: arXiv:2209.15001, eq. 1-3; tiles: arXiv:2403.04690; the backward pass: arXiv:2205.14135.
    Example:
        >>> from dinat_ref.attention.operands import prepare
        >>> from dinat_ref.neighborhood import Neighborhood
        >>> x = torch.arange(5.).reshape(1, 5, 1, 1)
        >>> tiled_attention(prepare(torch.zeros_like(x), x, x, Neighborhood((5,), 3)))[0].flatten()
        tensor([1., 1., 2., 3., 3.])
    """
    if torch._C._get_tracing_state() is not None:
        raise RuntimeError("tiled fixes the batch size under torch.jit.trace: use torch.export, or impl='gather'")
    plan, memory = lay_out(operands, return_lse)
    if inside_transform():
        output, lse = attend_traceably(plan, memory)
    elif torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in memory):
        output, lse = Recomputed.apply(plan, *memory)  # type: ignore[no-untyped-call]
    else:
        output, lse = attend(plan, *made_safe(plan, memory))
    rows = operands.query.shape[:-1]  # B, *layout, H
    return output.reshape(*rows, output.shape[-1]), None if lse is None else lse.reshape(rows)


def multiplies_in_half(operands: Operands, return_lse: bool) -> bool:
    """Say whether bfloat16 operands may stay what they are: PyTorch's fused attention sums their products in float32.

    On a processor without such products they would be slower than those of float32, and so are those of float16.

    Shapes:
        operands: as the caller gave them
    Source: measured with ``dinat-ref bench``.
    Example:
        >>> from dinat_ref.attention.operands import prepare
        >>> from dinat_ref.neighborhood import Neighborhood
        >>> x = torch.zeros(1, 5, 1, 1)
        >>> multiplies_in_half(prepare(x, x, x, Neighborhood((5,), 3), widen=False), return_lse=False)
        False
    """
    if operands.dtype != torch.bfloat16 or return_lse or operands.key_mask is not None:
        return False
    on_cpu = operands.query.device.type == "cpu" and not inside_transform()
    return on_cpu and not isinstance(operands.scale, Tensor) and torch.cpu._is_avx512_bf16_supported()


def attend(plan: Plan, memory: Memory, careful: bool) -> tuple[Tensor, Tensor | None]:
    """Attend all tiles, without a graph: output [B N, H, Dv] and lse [B N, H] or None."""
    if large_steps.suit(memory.query):
        output, lse = large_steps.attend_in_steps(plan, memory)
        return output, lse if plan.return_lse else None
    output = memory.query.new_empty(*memory.query.shape[:2], memory.value.shape[-1])
    lse = memory.query.new_empty(memory.query.shape[:2] if plan.return_lse else 0)
    for queries, found, found_lse in attend_chunks(plan, memory, careful, fused=not (careful or plan.return_lse)):
        output.index_copy_(0, queries, found)
        if found_lse is not None:
            lse.index_copy_(0, queries, found_lse)
    return output, lse if plan.return_lse else None


def made_safe(plan: Plan, memory: Memory) -> tuple[Memory, bool]:
    """Give the operands as they may be used, in float32 where products must be careful, and whether they must.

    They must where a query may have no key, or a slab a score or value that is not finite, outside somebody's window.
    """
    value = None if all(tiles.allows_all for tiles in plan.batches) else memory.value  # all of a slab is attended
    if memory.kept is None and known_harmless(memory.query, memory.key, value, memory.rpb, plan.scale):
        return memory, False
    return memory.widened(), True


def attend_traceably(plan: Plan, memory: Memory) -> tuple[Tensor, Tensor | None]:
    """Do the same by operations that nothing is hidden in: autograd, torch.func and torch.compile take them apart."""
    parts = list(attend_chunks(plan, memory, careful=True, fused=False))
    rows = torch.cat([queries for queries, _, _ in parts])  # [B N]
    position = torch.empty_like(rows).scatter(0, rows, torch.arange(rows.shape[0], device=rows.device))
    output = torch.cat([found for _, found, _ in parts]).index_select(0, position)  # back to row-major
    lses = [found_lse for _, _, found_lse in parts if found_lse is not None]
    return output, torch.cat(lses).index_select(0, position) if lses else None


def attend_chunks(
    plan: Plan, memory: Memory, careful: bool, fused: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Yield the rows of some queries [rows], their output [rows, H, Dv] and, if it is asked for, lse [rows, H]."""
    for tiles in plan.batches:
        bias, allowed = chunk_bias(plan, memory, tiles), chunk_allowed(plan, memory, tiles) if careful else None
        for chunk in chunks(plan, memory, tiles, scores_alive=0 if fused else 2):
            yield chunk.queries.flatten(), *attend_chunk(plan, memory, chunk, bias, allowed, careful, fused)


def attend_chunk(
    plan: Plan,
    memory: Memory,
    chunk: Chunk,
    bias: Tensor | None,
    allowed: Tensor | None,
    careful: bool,
    fused: bool,
) -> tuple[Tensor, Tensor | None]:
    """Attend some tiles: output [rows, H, Dv] and lse [rows, H] or None."""
    heads, heads_kv = memory.query.shape[1], memory.key.shape[1]
    query = to_matrices(memory.query, chunk.queries, heads_kv)  # [tiles, Hkv, r T, D]
    key, value = (to_matrices(x, chunk.keys, heads_kv) for x in (memory.key, memory.value))  # [tiles, Hkv, S + M, D]
    if fused:
        mask = None if bias is None else bias[None]
        output = scaled_dot_product_attention(query, key, value, mask, scale=plan.scale)
        return to_rows(output, chunk.queries, heads), None
    query, key, value = (x.contiguous() for x in (query, key, value))
    allowed = among_kept(allowed, memory, chunk.keys, query.shape[-2])
    output, lse = attend_tile(plan.scale * query, key, value, bias, allowed, careful)
    output = to_rows(output, chunk.queries, heads)
    return output, to_rows(lse, chunk.queries, heads).squeeze(-1) if plan.return_lse else None


class Recomputed(torch.autograd.Function):
    """Attention that keeps no weights for the backward pass, but computes those of each chunk anew."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *memory: Tensor) -> tuple[Tensor, Tensor | None]:
        """Attend all tiles, without a graph."""
        ctx.plan = plan
        safe, ctx.careful = made_safe(plan, Memory(*memory))
        output, lse = attend(plan, safe, ctx.careful)
        ctx.save_for_backward(output, *memory)
        return output, lse

    @staticmethod
    def backward(ctx: Any, d_output: Tensor, d_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        """Give the gradients of query, key, value and rpb."""
        output, *saved = ctx.saved_tensors  # read once: gradient checkpointing gives them out a single time
        given = Memory(*saved)
        memory = given.widened()
        output, d_output = output.to(memory.query.dtype), d_output.to(memory.query.dtype)
        if not torch.is_grad_enabled():
            shift = (output * d_output).sum(-1)  # [B N, H]
            shift = shift if d_lse is None else shift - d_lse
            if large_steps.suit(memory.query):
                found = large_steps.backward_in_steps(ctx.plan, memory, d_output, shift)
            else:
                careful = ctx.careful or not known_finite(d_output, shift)
                found = backward_by_chunks(ctx.plan, memory, d_output, shift, careful)
            return None, *(
                None if x is None or own is None else x.to(own.dtype) for x, own in zip(found, given, strict=True)
            )
        # for a second derivative: leave it to autograd
        results = [x for x in attend_traceably(ctx.plan, memory) if x is not None]
        upstream = [x for x in (d_output, d_lse) if x is not None]
        wanted = [x for x in given if x is not None and x.requires_grad]
        gradients = iter(torch.autograd.grad(results, wanted, upstream, create_graph=True))
        return None, *(next(gradients) if x is not None and x.requires_grad else None for x in given)


def backward_by_chunks(
    plan: Plan, memory: Memory, d_output: Tensor, shift: Tensor, careful: bool
) -> tuple[Tensor | None, ...]:
    """Add up the gradients of all chunks in the rows that they belong to."""
    d_query = torch.empty_like(memory.query)
    d_key, d_value = torch.zeros_like(memory.key), torch.zeros_like(memory.value)
    rpb = None if memory.rpb is None else memory.rpb.detach().requires_grad_()
    d_rpb = None if rpb is None else torch.zeros_like(rpb)
    heads, heads_kv = memory.query.shape[1], memory.key.shape[1]
    for tiles in plan.batches:
        with torch.enable_grad():
            bias = chunk_bias(plan, memory._replace(rpb=rpb), tiles)  # a function of rpb: autograd leads d_bias back
        allowed = chunk_allowed(plan, memory, tiles) if careful else None
        d_bias = None if rpb is None or bias is None else torch.zeros_like(bias)
        for queries, keys in chunks(plan, memory, tiles, scores_alive=2):
            at_queries = [to_matrices(x, queries, heads_kv) for x in (memory.query, d_output, shift[..., None])]
            at_keys = [to_matrices(x, keys, heads_kv) for x in (memory.key, memory.value)]
            query, d_out, own_shift, key, value = (x.contiguous() for x in (*at_queries, *at_keys))  # copies
            fixed_bias, own = (
                None if bias is None else bias.detach(),
                among_kept(allowed, memory, keys, query.shape[-2]),
            )
            *found, d_scores = backward_of_tile(
                query.mul_(plan.scale), key, value, fixed_bias, own, d_out, own_shift, careful
            )
            if d_bias is not None:
                d_bias += d_scores.sum(0) if len(d_bias) > 1 else d_scores.sum((0, 1))
            d_query.index_copy_(0, queries.flatten(), to_rows(found[0].mul_(plan.scale), queries, heads))
            d_key.index_add_(0, keys.flatten(), to_rows(found[1], keys, heads_kv))
            d_value.index_add_(0, keys.flatten(), to_rows(found[2], keys, heads_kv))
        if rpb is not None and d_rpb is not None and bias is not None and d_bias is not None:
            d_rpb += torch.autograd.grad(bias, rpb, d_bias)[0]
    return d_query, d_key, d_value, d_rpb, None
