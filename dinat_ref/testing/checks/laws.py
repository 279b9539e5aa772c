"""X: cross-laws, which tie neighborhood attention to attention that everybody knows, and to itself."""

import itertools
import math

import torch
from torch.nn.functional import scaled_dot_product_attention

from dinat_ref.attention import merge_attentions
from dinat_ref.attention.operands import every
from dinat_ref.testing.checks.sampling import Wish
from dinat_ref.testing.checks.yardstick import Yardstick, run
from dinat_ref.testing.kernel import Kernel, Moot
from dinat_ref.testing.problem import Inputs, Problem
from dinat_ref.testing.registry import check

LAW = Wish(extra_keys=False, rpb=False, gqa=False)


def dense(inputs: Inputs, layout: tuple[int, ...], causal: bool = False) -> torch.Tensor:
    """Full attention over all tokens, by PyTorch."""
    query, key, value = (t.flatten(1, -3).transpose(1, 2) for t in (inputs.query, inputs.key, inputs.value))
    output = scaled_dot_product_attention(query, key, value, is_causal=causal)
    return output.transpose(1, 2).unflatten(1, layout)


def cut(inputs: Inputs, index: tuple[slice, ...]) -> Inputs:
    """A part of the layout."""
    return inputs.map(lambda tensor: tensor[(slice(None), *index)].contiguous())


@check("X01-dilation-subgrids", Wish(dilation=True, extra_keys=False, rpb=False))
def dilation_subgrids(kernel: Kernel, problem: Problem) -> float:
    """Dilated attention is plain neighborhood attention on each strided sub-grid."""
    inputs, worst = problem.inputs(kernel.device), 0.0
    whole, ruler = run(kernel, problem, inputs), Yardstick(problem, inputs)
    for group in itertools.product(*(range(d) for d in problem.dilation)):
        index = tuple(slice(g, None, d) for g, d in zip(group, problem.dilation, strict=True))
        layout = tuple(len(range(length)[part]) for length, part in zip(problem.layout, index, strict=True))
        part = problem.but(layout=layout, dilation=1)
        if not kernel.supports.takes(part):
            raise Moot("the law does not apply")
        got = whole[(slice(None), *index)]
        worst = max(worst, ruler.agree(f"on the sub-grid {group}", got, run(kernel, part, cut(inputs, index))))
    return worst


@check("X02-full-window", Wish(whole=True, causal=False, dilation=False, extra_keys=False, rpb=False, gqa=False))
def full_window(kernel: Kernel, problem: Problem) -> float:
    """A window as large as the layout is full attention, whatever the stride."""
    if problem.kernel_size != problem.layout or any(problem.is_causal) or problem.heads != problem.heads_kv:
        raise Moot("the law does not apply")
    inputs = problem.inputs(kernel.device)
    wanted = dense(inputs, problem.layout)
    return Yardstick(problem, inputs).agree("beside scaled_dot_product_attention", run(kernel, problem, inputs), wanted)


def on_one_axis(problem: Problem) -> bool:
    """One axis."""
    return problem.ndim == 1


@check(
    "X03-full-causal",
    Wish(whole=True, causal=True, dilation=False, extra_keys=False, rpb=False, gqa=False, when=on_one_axis),
)
def full_causal(kernel: Kernel, problem: Problem) -> float:
    """On one axis, a causal window as long as the axis is causal attention, whatever the stride."""
    if problem.ndim > 1 or problem.kernel_size != problem.layout or not all(problem.is_causal):
        raise Moot("the law does not apply")
    if problem.heads != problem.heads_kv:
        raise Moot("the law does not apply")
    inputs = problem.inputs(kernel.device)
    wanted = dense(inputs, problem.layout, causal=True)
    return Yardstick(problem, inputs).agree("beside causal attention", run(kernel, problem, inputs), wanted)


@check("X04-gqa-repeat", Wish(gqa=True, rpb=False))
def gqa_repeat(kernel: Kernel, problem: Problem) -> float:
    """Grouped heads are heads repeated one by one (repeat_interleave)."""
    inputs, repeats = problem.inputs(kernel.device), problem.heads // problem.heads_kv
    names = ("key", "value", "additional_keys", "additional_values")
    repeated = inputs.but(**{n: t.repeat_interleave(repeats, -2) for n, t in inputs.named().items() if n in names})
    wanted = run(kernel, problem.but(heads_kv=problem.heads), repeated)
    return Yardstick(problem, inputs).agree("with grouped heads, the output", run(kernel, problem, inputs), wanted)


@check("X05-extra-keys", Wish(extra_keys=True, rpb=False))
def extra_keys(kernel: Kernel, problem: Problem) -> float:
    """Additional keys join the softmax of every query."""
    inputs = problem.inputs(kernel.device)
    return Yardstick(problem, inputs).output_is(run(kernel, problem, inputs), "the output with additional keys")


@check("X06-merge", Wish(extra_keys=True, rpb=False), needs=("lse",))
def merge(kernel: Kernel, problem: Problem) -> float:
    """Attention to the window, merged with attention to the additional keys, is attention to both."""
    inputs = problem.inputs(kernel.device)
    if inputs.additional_keys is None or inputs.additional_values is None:
        raise Moot("the law does not apply")
    alone = inputs.but(additional_keys=None, additional_values=None)
    with torch.no_grad():
        window, lse = kernel.attend(problem, alone, return_lse=True)
        repeats = problem.heads // problem.heads_kv
        keys = inputs.additional_keys.repeat_interleave(repeats, -2).to(lse.dtype)  # type: ignore[union-attr]
        values = inputs.additional_values.repeat_interleave(repeats, -2).to(keys.dtype)
        scale = problem.head_dim**-0.5 if problem.scale is None else problem.scale
        query = inputs.query.flatten(1, -3).to(keys.dtype)
        scores = scale * torch.einsum("bnhd,bmhd->bnhm", query, keys)
        extra = torch.einsum("bnhm,bmhd->bnhd", torch.softmax(scores, -1), values).unflatten(1, problem.layout)
        extra_lse = torch.logsumexp(scores, -1).unflatten(1, problem.layout)
        assert lse is not None
        merged, _ = merge_attentions([window.to(keys.dtype), extra], [lse, extra_lse])
    return Yardstick(problem, inputs).agree(
        "joint attention beside the merged parts", run(kernel, problem, inputs), merged
    )


@check("X07-axes-exchange", Wish(extra_keys=False, rpb=False, min_ndim=2))
def axes_exchange(kernel: Kernel, problem: Problem) -> float:
    """Exchanging axes together with their arguments exchanges the axes of the output."""
    if problem.ndim < 2:
        raise Moot("the law does not apply")
    names = ("layout", "kernel_size", "stride", "dilation", "is_causal")
    turned = problem.but(**{name: getattr(problem, name)[::-1] for name in names})
    if not kernel.supports.takes(turned):
        raise Moot("the law does not apply")
    order = (0, *reversed(range(1, problem.ndim + 1)), -2, -1)
    order = tuple(axis % (problem.ndim + 3) for axis in order)
    inputs = problem.inputs(kernel.device)
    got = run(kernel, turned, inputs.map(lambda tensor: tensor.permute(order).contiguous())).permute(order)
    return Yardstick(problem, inputs).agree("with axes exchanged, the output", got, run(kernel, problem, inputs))


@check("X08-mirror", Wish(even=False, stride=False, causal=False, extra_keys=False, rpb=False))
def mirror(kernel: Kernel, problem: Problem) -> float:
    """Odd kernels without stride or causality are mirror-symmetric."""
    odd = all(size % 2 for size in problem.kernel_size)
    if not odd or max(problem.stride) > 1 or any(problem.is_causal):
        raise Moot("the law does not apply")
    axes = tuple(range(1, problem.ndim + 1))
    inputs = problem.inputs(kernel.device)
    got = run(kernel, problem, inputs.map(lambda tensor: tensor.flip(axes))).flip(axes)
    return Yardstick(problem, inputs).agree("mirrored, the output", got, run(kernel, problem, inputs))


@check("X09-causal-prefix", Wish(causal=True, stride=False, extra_keys=False, rpb=False, min_slack=1))
def causal_prefix(kernel: Kernel, problem: Problem) -> float:
    """Tokens appended behind a causal axis do not change what is before them."""
    lengths = []
    for length, k, stride, d, causal in problem.neighborhood.axes:
        lengths.append(length - 1 if causal and stride == 1 and length > k * d else length)
    shorter = problem.but(layout=tuple(lengths))
    if shorter.layout == problem.layout or not kernel.supports.takes(shorter):
        raise Moot("the law does not apply")
    inputs = problem.inputs(kernel.device)
    index = tuple(slice(0, length) for length in lengths)
    got = run(kernel, problem, inputs)[(slice(None), *index)]
    wanted = run(kernel, shorter, cut(inputs, index))
    return Yardstick(problem, inputs).agree("before the appended tokens, the output", got, wanted)


@check("X10-blocked", Wish(causal=False, dilation=False, stride=True, extra_keys=False, rpb=False, gqa=False))
def blocked(kernel: Kernel, problem: Problem) -> float:
    """A stride equal to a kernel size that divides the layout is attention in separate blocks."""
    blocks = 2 + problem.seed % 2 if problem.ndim < 3 else 2
    sizes = problem.kernel_size
    problem = problem.but(layout=tuple(blocks * size for size in sizes), stride=sizes, dilation=1, is_causal=False)
    if not kernel.supports.takes(problem) or problem.heads != problem.heads_kv or max(sizes) == 1:
        raise Moot("the law does not apply")
    inputs = problem.inputs(kernel.device)
    got, ruler, worst = run(kernel, problem, inputs), Yardstick(problem, inputs), 0.0
    for corner in itertools.product(*(range(blocks) for _ in sizes)):
        index = tuple(slice(c * size, (c + 1) * size) for c, size in zip(corner, sizes, strict=True))
        wanted = dense(cut(inputs, index), sizes)
        worst = max(worst, ruler.agree(f"in the block {corner}", got[(slice(None), *index)], wanted))
    return worst


@check("X11-translation", Wish(causal=False, extra_keys=False, rpb=False, min_slack=2, max_kernel=3))
def translation(kernel: Kernel, problem: Problem) -> float:
    """Deep inside, windows move with the tokens, by multiples of stride and dilation."""
    shifts = [math.prod(pair) for pair in zip(problem.stride, problem.dilation, strict=True)]
    longer = problem.but(layout=tuple(length + shift for length, shift in zip(problem.layout, shifts, strict=True)))
    if any(problem.is_causal) or not kernel.supports.takes(longer):
        raise Moot("the law does not apply")
    inputs = longer.inputs(kernel.device)
    front = tuple(slice(0, length) for length in problem.layout)
    back = tuple(slice(shift, None) for shift in shifts)
    one, other = (run(kernel, problem, cut(inputs, index)) for index in (front, back))
    first, second = problem.neighborhood, longer.neighborhood
    common: list[
        list[int]
    ] = []  # tokens of the back crop whose window in the whole layout is the crop's, moved; in both crops
    for axis, shift in enumerate(shifts):
        keep = []
        for i, keys in enumerate(first.windows(axis)):
            moved = i >= shift and [key + shift for key in first.windows(axis)[i - shift]] == list(keys)
            if moved and list(second.windows(axis)[i]) == list(keys):
                keep.append(i)
        common.append(keep)
    if not all(common):
        raise Moot("the law does not apply")
    here = torch.meshgrid(*(torch.tensor(keep) for keep in common), indexing="ij")
    there = [index - shift for index, shift in zip(here, shifts, strict=True)]
    got, wanted = one[every(*here)], other[every(*there)]
    return Yardstick(longer, inputs).agree("moved by a stride, the output", got, wanted)
