"""Who takes part: every formulation, PyTorch's own attention, and the peers that are installed.

A contender is a function of a problem that returns a callable (query, key, value) -> output, or raises
``CannotRunError`` with the reason why it cannot run.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from dinat_ref.attention import neighborhood_attention, neighborhood_av, neighborhood_qk
from dinat_ref.attention.functional import FORMULATIONS
from dinat_ref.bench.shapes import Problem
from dinat_ref.bench.turns import CannotRunError
from dinat_ref.interop.flex import neighborhood_mask_mod
from dinat_ref.layers import NeighborhoodAttention1D, NeighborhoodAttention2D, NeighborhoodAttention3D

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
MOST_BYTES = 6e9
HALF = ("bfloat16", "float16")


class Contender(NamedTuple):
    """Somebody who takes part.

    Example:
        >>> from dinat_ref.bench.shapes import SHAPES
        >>> problem = SHAPES["tiny"][0]
        >>> CONTENDERS["gather"].make(problem)(*problem.operands()).shape
        torch.Size([1, 6, 7, 2, 32])
    """

    make: Callable[[Problem], Attention]
    dtype: str = "float32"  # of the operands that it is given


def forward(attend: Attention, operands: Sequence[Tensor]) -> Tensor:
    """Run a forward pass.

    Shapes:
        operands: query, key and value
        return: the output
    Example:
        >>> forward(lambda query, key, value: value, torch.ones(3, 1))
        tensor([1.])
    """
    with torch.no_grad():
        return attend(*operands)


def forward_backward(attend: Attention, leaves: Sequence[Tensor], ones: Tensor) -> None:
    """Run a forward and a backward pass.

    Shapes:
        leaves: query, key and value, which want gradients
        ones: the gradient of the output, in one row, at least as many as the output has numbers
    Example:
        >>> leaves = [torch.ones(2, requires_grad=True) for _ in range(3)]
        >>> forward_backward(lambda query, key, value: query * key * value, leaves, torch.ones(4))
        >>> leaves[0].grad
        tensor([1., 1.])
    """
    for leaf in leaves:
        leaf.grad = None  # to be made, not added to
    output = attend(*leaves)
    output.backward(ones[: output.numel()].view_as(output))


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
    keys, dtype = problem.num_keys, getattr(torch, problem.dtype)
    groups = -(-problem.batch * problem.num_tokens // keys)
    blocks = [torch.randn(groups, problem.heads, keys, problem.head_dim).to(dtype) for _ in range(3)]

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


def split_form(problem: Problem) -> Attention:
    """Scores, softmax, sums of values: what NATTEN's old functions and exposed weights go through."""
    where = {"kernel_size": problem.kernel_size, "dilation": problem.dilations}

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return neighborhood_av(torch.softmax(neighborhood_qk(query, key, **where), dim=-1), value, **where)  # type: ignore[arg-type]

    return attend


def layer(attn_drop: float, problem: Problem) -> Attention:
    """A layer in training, its projections included, with attention dropout or without; its tokens are the query."""
    kinds = {1: NeighborhoodAttention1D, 2: NeighborhoodAttention2D, 3: NeighborhoodAttention3D}
    kind, embed_dim = kinds[len(problem.layout)], problem.heads * problem.head_dim
    module = kind(embed_dim, problem.heads, problem.kernel_size, dilation=problem.dilations, attn_drop=attn_drop)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        module.zero_grad()
        return module(query.flatten(-2))  # [B, *layout, H D]

    return attend


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

    tokens = problem.num_tokens
    if tokens > 70_000:
        raise CannotRunError("its block mask would take minutes to build")
    mask_mod = neighborhood_mask_mod(problem.layout, problem.kernel_size, dilation=problem.dilations)
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


CONTENDERS: dict[str, Contender] = {
    "limit": Contender(limit),
    **{impl: Contender(partial(formulation, impl)) for impl in (*FORMULATIONS, "auto")},
    "split form": Contender(split_form),
    "layer": Contender(partial(layer, 0.0)),
    "layer, dropout": Contender(partial(layer, 0.1)),
    **{f"limit, {dtype}": Contender(limit, dtype) for dtype in HALF},
    **{f"auto, {dtype}": Contender(partial(formulation, "auto"), dtype) for dtype in HALF},
    "dense attention": Contender(dense),
    "gather, compiled": Contender(partial(compiled, "gather")),
    "tiled, compiled": Contender(partial(compiled, "tiled")),
    "flex, compiled": Contender(flex),
    "natten": Contender(natten),
}
