"""Realistic sizes: what a kernel does above the sizes of small problems, where its tiles and its epilogues begin.

Small problems find wrong windows and wrong formulas. They say nothing about a kernel that is wrong above a head_dim of
64, eight heads or one tile of tokens, so a few problems are posed here that exceed every such limit at least twice.
What a kernel does not take is taken out of a problem, not the problem out of the list.
"""

import itertools
from collections.abc import Iterator

import torch

from dinat_ref.testing.checks.gradients import BACKWARD, compare
from dinat_ref.testing.checks.windows import exact
from dinat_ref.testing.checks.yardstick import Yardstick, demand
from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.problem import DTYPES, Problem
from dinat_ref.testing.registry import check
from dinat_ref.testing.supports import Supports

FEW = {1: "7 k3", 2: "4x3 k3x2", 3: "3x2x3 k2x1x3"}  # tokens, for the shapes
SHAPES = (  # batch, heads and head dims: each limit of a tile is passed by two of them
    "h9 e64 ev32 extra5",
    "h16 hkv2 e32 ev80 extra17",
    "b5 h2 e17 ev128 f64",
    "h20 hkv10 e256 ev64",
    "h8 hkv1 e80 ev256 extra33",
    "b3 h10 hkv2 e128 ev48 extra9 f16",
    "h3 e160 ev129 bf16",
    "b6 h6 hkv3 e33 ev17 f64",
)
AXES = {  # layouts that pass one tile by one token, long windows, wide strides and dilations
    1: ("65 k13 s8", "129 k11 d8", "17 k5 s4 d3 causal", "80 k9 s5 d8 causal", "33 k7", "72 k12 s7 d5", "65 k3 d2"),
    2: ("17x9 k7x5", "9x33 k3x13 s3x8", "35x10 k5x3 d7x1", "6x65 k5x6 s1x6 d1x8 causal0x1", "65x5 k9x4 s4x3 d4x1"),
    3: (
        "3x5x17 k3x2x7",
        "4x17x3 k1x7x3 s1x4x1 d3x2x1",
        "17x3x4 k9x3x2 s5x1x1 causal1x0x0",
        "2x4x33 k2x3x4 d1x1x8 causal0x0x1",
    ),
}
LONG = {  # for windows alone
    1: (
        "129 k7",
        "65 k12",
        "33 k13 s8",
        "65 k8 s5 d8",
        "64 k7 d9",
        "129 k6 d5",
        "33 k11 s6 causal",
        "65 k9 s8 d7 causal",
    ),
    2: (
        "33x3 k9x2",
        "4x33 k3x8 s1x8",
        "5x32 k2x4 s2x3 d1x8",
        "40x4 k5x3 d7x1",
        "17x9 k13x7 s6x5",
        "33x4 k6x3 s6x2 d5x1 causal1x0",
    ),
    3: ("2x3x33 k2x2x9 s1x1x8", "3x2x33 k2x1x5 causal0x0x1", "17x2x3 k4x2x3 d4x1x1", "2x17x3 k1x13x2 causal0x1x0"),
}
MORE = ("257 k13", "200 k16 s16", "255 k7 d31", "160 k13 s7 d12 causal", "131 k64", "300 k5 s5 d60")  # beyond quick


def adapted(problem: Problem, supports: Supports) -> Problem | None:
    """The problem without what a kernel does not take; None where too little is left of it.

    Example:
        >>> supports = Supports(even=False, gqa=False, head_dims={8, 64})
        >>> adapted(Problem("1d 65 k12 s8 h16 hkv2 e32 ev80 extra17 f32"), supports)
        Problem("1d 65 k11 s8 d1 h16 e64 extra17 f32 seed0")
    """
    kernel, stride, dilation, causal = problem.kernel_size, problem.stride, problem.dilation, problem.is_causal
    if not supports.per_axis:
        kernel, dilation = (min(kernel),) * problem.ndim, (min(dilation),) * problem.ndim
        stride, causal = (min(stride),) * problem.ndim, (all(causal),) * problem.ndim
    if supports.causal_rows:
        causal = (causal[0], *(False for _ in causal[1:]))
    if not supports.even:
        kernel = tuple(k - 1 + k % 2 for k in kernel)
    dims = [problem.head_dim, problem.head_dim_v if supports.head_dim_v else problem.head_dim]
    if supports.head_dims is not None:
        declared = sorted(supports.head_dims)
        dims = [next((size for size in declared if size >= dim), declared[-1]) for dim in dims]
        dims[1] = dims[1] if supports.head_dim_v else dims[0]
    plain = (1,) * problem.ndim
    found = problem.but(
        kernel_size=kernel,
        stride=tuple(min(s, k) for s, k in zip(stride, kernel, strict=True)) if supports.stride else plain,
        dilation=dilation if supports.dilation else plain,
        is_causal=causal if supports.causal else False,
        heads_kv=problem.heads_kv if supports.gqa else problem.heads,
        head_dim=dims[0],
        head_dim_v=dims[1],
        extra_keys=problem.extra_keys if supports.extra_keys else 0,
        dtype_name=problem.dtype_name if supports.has(problem.dtype_name) else supports.main_dtype,
    )
    return found if supports.takes(found) else None


def posed(lines: Iterator[str], supports: Supports) -> Iterator[Problem]:
    """The problems of lines, as a kernel takes them, each once."""
    seen = set()
    for seed, line in enumerate(lines):
        words = line if any(word in DTYPES for word in line.split()) else f"{line} {supports.main_dtype}"
        problem = adapted(Problem(f"{words} seed{seed}"), supports)
        if problem is not None and problem.but(seed=0) not in seen:
            seen.add(problem.but(seed=0))
            yield problem


def realistic(supports: Supports, budget: str) -> Iterator[Problem]:
    """Large shapes on few tokens, and many tokens in small shapes; in the fuller budgets every shape on all of them."""

    def lines() -> Iterator[str]:
        for ndim in (ndim for ndim in supports.ndim if ndim in FEW):
            yield from (f"{FEW[ndim]} {shape}" for shape in SHAPES)
            yield from (f"{axes} h2 e4" for axes in AXES[ndim])
            yield from (f"{AXES[ndim][0]} h2 e4 {dtype}" for dtype in ("bf16", "f16"))  # sums over many queries
            if budget != "quick":
                yield from (f"{axes} {shape}" for axes, shape in itertools.product(AXES[ndim], SHAPES))
            if budget == "deep":
                small = "x".join(["2"] * (ndim - 1))
                layout, sizes = (f"{small}x{length}" if small else length for length in ("2000", "31"))
                yield f"{layout} k{sizes} h2 e64"

    return posed(lines(), supports)


def long_axes(supports: Supports, budget: str) -> Iterator[Problem]:
    """Long axes beside short ones, without numbers."""

    def lines() -> Iterator[str]:
        for ndim in supports.ndim:
            yield from (f"{line} h1 e1" for line in LONG.get(ndim, ()))
            yield from (f"{line} h1 e1" for line in (MORE if ndim == 1 and budget != "quick" else ()))

    return posed(lines(), supports)


@check("W19-long-axes", enumerate=long_axes, shrinks=True)
def windows_of_long_axes(kernel: Kernel, problem: Problem) -> None:
    """Exact windows: layouts past one tile, windows up to 13, strides and dilations up to 9."""
    exact(kernel, problem)


@check("N31-realistic-sizes", enumerate=realistic, shrinks=True)
def realistic_sizes(kernel: Kernel, problem: Problem) -> float:
    """Head dims up to 256, sixteen heads, batch 6, 33 additional keys, layouts past one tile: output and lse."""
    inputs = problem.inputs(kernel.device)
    ruler = Yardstick(problem, inputs)
    with torch.no_grad():
        output, lse = kernel.attend(problem, inputs, return_lse=kernel.supports.lse)
        worst = ruler.output_is(output)
        return worst if lse is None else max(worst, ruler.lse_is(lse))


@check("G16-realistic-sizes", enumerate=realistic, needs=BACKWARD, shrinks=True)
def realistic_gradients(kernel: Kernel, problem: Problem) -> float:
    """The gradients at those sizes, through output and lse."""
    names = ["query", "key", "value", "additional_keys", "additional_values"]
    worst = compare(kernel, problem, names)
    return max(worst, compare(kernel, problem, names, "lse")) if kernel.supports.lse else worst


def far_apart(supports: Supports, budget: str) -> Iterator[Problem]:
    """Two batch elements; only the deep budget has them, since they need 2**31 numbers of address space."""
    for ndim in supports.ndim if budget == "deep" and supports.strided else ():
        head_dim = 4 if supports.head_dims is None else min(supports.head_dims)
        dtype = min(supports.dtypes, key=lambda name: DTYPES[str(name)].itemsize)
        layout = tuple(5 + axis for axis in range(ndim))
        problem = Problem(layout=layout, kernel_size=3, batch=2, head_dim=head_dim, dtype_name=dtype)
        if supports.takes(problem):
            yield problem


@check("N32-far-strides", enumerate=far_apart)
def far_strides(kernel: Kernel, problem: Problem) -> float:
    """Batch elements 2**31 numbers apart: an offset does not fit into 32 bits."""
    inputs = problem.inputs(kernel.device)
    ruler = Yardstick(problem, inputs)

    def far(tensor: torch.Tensor) -> torch.Tensor:
        memory = torch.empty(2**31 + tensor[0].numel(), dtype=tensor.dtype, device=tensor.device)  # touched at its ends
        view = memory.as_strided(tensor.shape, (2**31, *tensor[0].stride()))
        return view.copy_(tensor)

    with torch.no_grad():
        output, _ = kernel.attend(problem, inputs.map(far))
    return demand("of strides of 2**31 numbers, the output", output, ruler.output, ruler.output_budget)
