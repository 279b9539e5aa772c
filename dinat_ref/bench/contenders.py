"""Who takes part: every formulation, PyTorch's own attention, and the peers that are installed.

A contender is a function of a problem that returns a callable (query, key, value) -> output, or raises
``CannotRunError`` with the reason why it cannot run.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from dinat_ref.attention import neighborhood_attention
from dinat_ref.attention.functional import FORMULATIONS
from dinat_ref.bench.shapes import Problem

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
MOST_BYTES = 6e9


class CannotRunError(Exception):
    """A contender cannot run, and why."""


def limit(problem: Problem) -> Attention:
    """The limit: as many queries with exactly K keys each, contiguous and unmasked, in PyTorch's own attention.

    Shapes:
        query, key, value: each regrouped once to [tokens / K, H, K, D], outside the measurement
    Source: the least that any kernel of K keys a query computes.
    Example:
        >>> from dinat_ref.bench.shapes import SHAPES
        >>> problem = SHAPES["tiny"][0]
        >>> limit(problem)(*problem.operands()).shape
        torch.Size([5, 2, 9, 32])
    """
    keys = problem.neighborhood.num_keys
    groups = -(-problem.batch * problem.num_tokens // keys)
    blocks = [torch.randn(groups, problem.heads, keys, problem.head_dim) for _ in range(3)]

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        for block in blocks:
            block.requires_grad_(query.requires_grad)  # forward + backward is measured on the blocks as well
            block.grad = None
        return scaled_dot_product_attention(blocks[0], blocks[1], blocks[2])

    return attend


def formulation(impl: str, problem: Problem) -> Attention:
    """One of ``dinat_ref``'s own."""
    neighborhood, tokens = problem.neighborhood, problem.batch * problem.num_tokens
    bytes_of = {
        "gather": 2 * 4 * tokens * neighborhood.num_keys * problem.heads * problem.head_dim,
        "unfold": 2 * 4 * tokens * neighborhood.num_keys * problem.heads * problem.head_dim,
        "masked": 2 * 4 * problem.batch * problem.heads * problem.num_tokens**2,
    }
    if impl == "loops" and tokens > 256:
        raise CannotRunError(f"{tokens:,} tokens one by one would take minutes")
    if bytes_of.get(impl, 0) > MOST_BYTES:
        raise CannotRunError(f"would need {bytes_of[impl] / 1e9:.0f} GB" + " with gradients" * (impl == "masked"))
    return partial(neighborhood_attention, kernel_size=problem.kernel_size, dilation=problem.dilations, impl=impl)  # type: ignore[return-value]


def dense(problem: Problem) -> Attention:
    """Full attention of all tokens: what neighborhood attention is there to avoid."""
    if problem.batch * problem.heads * problem.num_tokens**2 > 4e9:
        raise CannotRunError(f"{problem.num_tokens:,}^2 scores a head would take too long")

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = (tensor.flatten(1, -3).transpose(1, 2) for tensor in (query, key, value))  # [B, H, N, D]
        return scaled_dot_product_attention(query, key, value).transpose(1, 2)

    return attend


def flex(problem: Problem) -> Attention:
    """PyTorch's flex_attention, compiled, with the exact block mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    neighborhood = problem.neighborhood
    bounds = []
    for axis in range(neighborhood.ndim):
        windows = neighborhood.windows(axis)
        bounds.append((torch.tensor([keys.start for keys in windows]), torch.tensor([keys.stop for keys in windows])))

    def mask_mod(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        allowed = query == query
        for axis in reversed(range(neighborhood.ndim)):
            length, dilation = neighborhood.layout[axis], neighborhood.dilation[axis]
            i, j = query % length, key % length
            start, stop = bounds[axis]
            allowed = allowed & (j >= start[i]) & (j < stop[i]) & ((j - i) % dilation == 0)
            query, key = query // length, key // length
        return allowed

    tokens = problem.num_tokens
    if tokens > 70_000:
        raise CannotRunError("its block mask would take minutes to build")
    block_mask = create_block_mask(mask_mod, None, None, tokens, tokens, device="cpu")
    torch._dynamo.reset()
    compiled = torch.compile(flex_attention, fullgraph=True)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if query.requires_grad:
            raise CannotRunError("flex_attention has no backward pass on the CPU")
        query, key, value = (tensor.flatten(1, -3).transpose(1, 2).contiguous() for tensor in (query, key, value))
        return compiled(query, key, value, block_mask=block_mask).transpose(1, 2)

    return attend


def compiled(impl: str, problem: Problem) -> Attention:
    """A formulation under torch.compile."""
    eager = formulation(impl, problem)
    torch._dynamo.reset()  # a code of its own for every problem
    return torch.compile(eager, fullgraph=True)


def natten(problem: Problem) -> Attention:
    """NATTEN on the CPU, where it is installed: it runs flex_attention, eagerly."""
    try:
        import natten  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise CannotRunError("not installed: pip install --no-build-isolation natten==0.21.7") from None
    if problem.num_tokens > 10_000:
        raise CannotRunError("its eager flex_attention holds all scores")
    operator = {1: natten.na1d, 2: natten.na2d, 3: natten.na3d}[len(problem.layout)]

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if query.requires_grad:
            raise CannotRunError("natten has no backward pass on the CPU")
        return operator(query, key, value, kernel_size=problem.kernel_size, dilation=problem.dilations)

    return attend


CONTENDERS: dict[str, Callable[[Problem], Attention]] = {
    "limit": limit,
    **{impl: partial(formulation, impl) for impl in (*FORMULATIONS, "auto")},
    "dense attention": dense,
    "gather, compiled": partial(compiled, "gather"),
    "tiled, compiled": partial(compiled, "tiled"),
    "flex, compiled": flex,
    "natten": natten,
}
