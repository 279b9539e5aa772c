"""Neighborhood attention on one axis in Triton, forward and backward; on a CPU under TRITON_INTERPRET=1."""

import torch
import triton
import triton.language as tl


@triton.jit
def forward(
    q, k, v, out, lse, scale, length, heads, dim, dim_v, size: tl.constexpr, lean: tl.constexpr, tile: tl.constexpr
):
    """One program a query and a head: all keys of its window at once."""
    row = tl.program_id(0)  # (batch * length + query) * heads + head
    head = row % heads
    query = row // heads % length
    batch = row // heads // length
    start = tl.minimum(tl.maximum(query - (size - lean) // 2, 0), length - size)
    columns = tl.arange(0, tile)
    has = columns < dim
    has_v = columns < dim_v
    mine = tl.load(q + row * dim + columns, mask=has, other=0.0)
    top = -float("inf")
    total = 0.0
    sums = tl.zeros([tile], dtype=tl.float32)
    for step in range(size):
        other = (batch * length + start + step) * heads + head
        key = tl.load(k + other * dim + columns, mask=has, other=0.0)
        value = tl.load(v + other * dim_v + columns, mask=has_v, other=0.0)
        score = tl.sum(mine * key, axis=0) * scale
        higher = tl.maximum(top, score)
        old = tl.exp(top - higher)
        weight = tl.exp(score - higher)
        total = total * old + weight
        sums = sums * old + weight * value
        top = higher
    tl.store(out + row * dim_v + columns, sums / total, mask=has_v)
    tl.store(lse + row, top + tl.log(total))


@triton.jit
def backward(
    q,
    k,
    v,
    out,
    lse,
    d_out,
    d_lse,
    d_q,
    d_k,
    d_v,
    scale,
    length,
    heads,
    dim,
    dim_v,
    size: tl.constexpr,
    tile: tl.constexpr,
):
    """One program a query and a head; keys and values gather by atomic additions."""
    row = tl.program_id(0)
    head = row % heads
    query = row // heads % length
    batch = row // heads // length
    start = tl.minimum(tl.maximum(query - size // 2, 0), length - size)
    columns = tl.arange(0, tile)
    has = columns < dim
    has_v = columns < dim_v
    mine = tl.load(q + row * dim + columns, mask=has, other=0.0)
    above = tl.load(d_out + row * dim_v + columns, mask=has_v, other=0.0)
    result = tl.load(out + row * dim_v + columns, mask=has_v, other=0.0)
    centre = tl.sum(above * result, axis=0) - tl.load(d_lse + row)
    sums = tl.zeros([tile], dtype=tl.float32)
    for step in range(size):
        other = (batch * length + start + step) * heads + head
        key = tl.load(k + other * dim + columns, mask=has, other=0.0)
        value = tl.load(v + other * dim_v + columns, mask=has_v, other=0.0)
        weight = tl.exp(tl.sum(mine * key, axis=0) * scale - tl.load(lse + row))
        change = weight * (tl.sum(above * value, axis=0) - centre) * scale
        sums += change * key
        tl.atomic_add(d_k + other * dim + columns, change * mine, mask=has)
        tl.atomic_add(d_v + other * dim_v + columns, weight * above, mask=has_v)
    tl.store(d_q + row * dim + columns, sums, mask=has)


class Attention(torch.autograd.Function):
    """The two kernels as one function: (output, lse)."""

    @staticmethod
    def forward(ctx, query, key, value, kernel_size, scale, lean):
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        batch, length, heads, dim = query.shape
        output = torch.empty(*query.shape[:-1], value.shape[-1])
        lse = torch.empty(query.shape[:-1])
        ctx.sizes = (scale, length, heads, dim, value.shape[-1])
        ctx.tile = triton.next_power_of_2(max(dim, value.shape[-1]))
        grid = (batch * length * heads,)
        forward[grid](query, key, value, output, lse, *ctx.sizes, size=kernel_size, lean=lean, tile=ctx.tile)
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.kernel_size = kernel_size
        return output, lse

    @staticmethod
    def backward(ctx, d_output, d_lse):
        query, key, value, output, lse = ctx.saved_tensors
        d_query, d_key, d_value = (torch.zeros_like(tensor) for tensor in (query, key, value))
        grid = (lse.numel(),)
        tensors = (query, key, value, output, lse, d_output.contiguous(), d_lse.contiguous(), d_query, d_key, d_value)
        backward[grid](*tensors, *ctx.sizes, size=ctx.kernel_size, tile=ctx.tile)
        return d_query, d_key, d_value, None, None, None


def attend(query, key, value, kernel_size, scale=None, return_lse=False, lean=0):
    """The right kernel."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    output, lse = Attention.apply(query, key, value, kernel_size[0], scale, lean)
    return (output, lse) if return_lse else output


def leaning(query, key, value, kernel_size, scale=None, return_lse=False):
    """Even windows lean to the right."""
    return attend(query, key, value, kernel_size, scale, return_lse, lean=1)
