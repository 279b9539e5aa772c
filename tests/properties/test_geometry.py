"""The laws that say which keys a query attends, on the numbers of every formulation."""

import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given
from torch import Tensor
from torch.testing import assert_close

from tests.oracle import group_of, nearest_window, stride_group_of
from tests.plain import full_attention, window_mask
from tests.strategies import IMPLS, Problem, problems

EXACT = {"rtol": 1e-12, "atol": 1e-12}
TOKENS = ("query", "key", "value")

every_impl = pytest.mark.parametrize("impl", IMPLS)


def part(tensors: dict[str, Tensor], *index: slice) -> dict[str, Tensor]:
    """The tensors of some of the tokens; rpb and additional keys stay as they are."""
    where = (slice(None), *index)
    return {name: tensor[where] if name in TOKENS else tensor for name, tensor in tensors.items()}


@every_impl
@given(problem=problems())
def test_a_mask_of_the_windows_is_the_operator(impl: str, problem: Problem) -> None:
    """Full attention, restricted to the windows; additional keys are concatenated to every window."""
    tensors = problem.tensors()
    expected = full_attention(problem, tensors, window_mask(problem))
    assert_close(problem.attend(impl, tensors), expected, **EXACT)


@every_impl
@given(problem=problems())
def test_dilation_is_plain_attention_on_every_sub_grid(impl: str, problem: Problem) -> None:
    tensors = problem.tensors()
    output, lse = problem.attend(impl, tensors)
    ones = (1,) * len(problem.layout)
    for group in itertools.product(*(range(dilation) for dilation in problem.dilation)):
        members = tuple(slice(g, None, dilation) for g, dilation in zip(group, problem.dilation, strict=True))
        grid_output, grid_lse = problem.attend(impl, part(tensors, *members), dilation=ones)
        assert_close(grid_output, output[(slice(None), *members)], **EXACT)
        assert_close(grid_lse, lse[(slice(None), *members)], **EXACT)


@every_impl
@given(problem=problems(), data=st.data())
def test_whole_layout_is_full_attention(impl: str, problem: Problem, data: st.DataObject) -> None:
    """k = L: full attention; on a causal axis plain causal attention, whatever the stride."""
    layout = tuple(min(length, 5) for length in problem.layout)
    stride = tuple(data.draw(st.integers(1, length)) for length in layout)
    ones = (1,) * len(layout)
    problem = problem.but(layout=layout, kernel_size=layout, stride=stride, dilation=ones)
    mask = torch.ones(1, 1, dtype=torch.bool)
    for length, is_causal in zip(layout, problem.is_causal, strict=True):
        axis = torch.ones(length, length, dtype=torch.bool)
        mask = torch.kron(mask, axis.tril() if is_causal else axis)
    tensors = problem.tensors()
    assert_close(problem.attend(impl, tensors), full_attention(problem, tensors, mask), **EXACT)


@every_impl
@given(problem=problems(is_causal=False), data=st.data())
def test_stride_of_a_kernel_is_blocked_attention(impl: str, problem: Problem, data: st.DataObject) -> None:
    """s = k, k | L: every block of k tokens is full attention on its own."""
    sizes = problem.kernel_size
    blocks = tuple(data.draw(st.integers(1, 3)) for _ in sizes)
    layout = tuple(size * number for size, number in zip(sizes, blocks, strict=True))
    problem = problem.but(layout=layout, stride=sizes, dilation=(1,) * len(sizes))
    tensors = problem.tensors()
    output, lse = problem.attend(impl, tensors)
    everything = torch.ones(math.prod(sizes), math.prod(sizes), dtype=torch.bool)
    for block in itertools.product(*(range(number) for number in blocks)):
        inside = tuple(slice(b * size, (b + 1) * size) for b, size in zip(block, sizes, strict=True))
        expected_output, expected_lse = full_attention(problem.but(layout=sizes), part(tensors, *inside), everything)
        assert_close(output[(slice(None), *inside)], expected_output, **EXACT)
        assert_close(lse[(slice(None), *inside)], expected_lse, **EXACT)


@every_impl
@given(problem=problems(ndim=1))
def test_interior_windows_translate(impl: str, problem: Problem) -> None:
    """The axis is cut out twice, one stride group apart: queries away from the ends do not notice."""
    (kernel_size,), (stride,), (dilation,), (is_causal,) = problem.where.values()
    step = stride * dilation
    length = dilation * (kernel_size + 2 * stride + 2)
    tensors = problem.but(layout=(length + step,)).tensors()
    here, here_lse = problem.attend(impl, part(tensors, slice(0, length)))
    there, there_lse = problem.attend(impl, part(tensors, slice(step, length + step)))
    axis = (length, kernel_size, stride, dilation, is_causal)
    interior = []
    for i in range(length - step):
        group, complete = (
            group_of(i, length, dilation),
            len(stride_group_of(i + step, length, stride, dilation)) == stride,
        )
        touches_end = not complete if is_causal else nearest_window(i + step, *axis)[-1] == group[-1]
        if nearest_window(i, *axis)[0] > group[0] and not touches_end:
            interior.append(i)
    assert interior
    shifted = [i + step for i in interior]
    assert_close(here[:, shifted], there[:, interior], **EXACT)
    assert_close(here_lse[:, shifted], there_lse[:, interior], **EXACT)


@st.composite
def mirror_problems(draw: st.DrawFn) -> Problem:
    """Odd kernels with stride 1, or with an odd stride that divides the length of every dilation group."""
    problem = draw(problems(is_causal=False))
    sizes = tuple(size - 1 + size % 2 for size in problem.kernel_size)
    layout, stride = list(problem.layout), [1] * len(sizes)
    for axis, (size, dilation) in enumerate(zip(sizes, problem.dilation, strict=True)):
        stride[axis] = draw(st.sampled_from([1, *range(3, size + 1, 2)]))
        if stride[axis] > 1:
            layout[axis] = dilation * stride[axis] * (-(-size // stride[axis]) + draw(st.integers(0, 1)))
    return problem.but(layout=tuple(layout), kernel_size=sizes, stride=tuple(stride))


@every_impl
@given(problem=mirror_problems())
def test_mirror_symmetry(impl: str, problem: Problem) -> None:
    """Turn the layout round on all axes, the bias table too: the output turns round."""
    ndim = len(problem.layout)
    spatial = tuple(range(1, ndim + 1))
    tensors = problem.tensors()
    turned = {name: tensor.flip(spatial) if name in (*TOKENS, "rpb") else tensor for name, tensor in tensors.items()}
    output, lse = problem.attend(impl, tensors)
    turned_output, turned_lse = problem.attend(impl, turned)
    assert_close(turned_output.flip(spatial), output, **EXACT)
    assert_close(turned_lse.flip(spatial), lse, **EXACT)


@every_impl
@given(problem=problems(), more=st.integers(1, 3))
def test_causal_prefix(impl: str, problem: Problem, more: int) -> None:
    """Appending tokens on a causal axis changes no query of a complete stride group."""
    problem = problem.but(is_causal=(True, *problem.is_causal[1:]))
    length, stride, dilation = problem.layout[0], problem.stride[0], problem.dilation[0]
    complete = [i for i in range(length) if len(stride_group_of(i, length, stride, dilation)) == stride]
    assume(complete)
    longer = problem.but(layout=(length + more, *problem.layout[1:]))
    tensors = longer.tensors()
    output, lse = longer.attend(impl, tensors)
    short_output, short_lse = problem.attend(impl, part(tensors, slice(0, length)))
    assert_close(short_output[:, complete], output[:, complete], **EXACT)
    assert_close(short_lse[:, complete], lse[:, complete], **EXACT)


@every_impl
@given(problem=st.sampled_from([2, 3]).flatmap(lambda ndim: problems(ndim=ndim)), data=st.data())
def test_swapping_axes_with_their_arguments(impl: str, problem: Problem, data: st.DataObject) -> None:
    ndim = len(problem.layout)
    order = data.draw(st.permutations(range(ndim)))
    swapped = [0, *(axis + 1 for axis in order)]
    tensors = problem.tensors()
    turned = {
        name: tensor.permute(*swapped, *range(ndim + 1, tensor.ndim)) if name in (*TOKENS, "rpb") else tensor
        for name, tensor in tensors.items()
    }
    changes = {name: tuple(values[axis] for axis in order) for name, values in problem.where.items()}
    output, lse = problem.attend(impl, tensors)
    turned_output, turned_lse = problem.attend(impl, turned, **changes)
    assert_close(turned_output, output.permute(*swapped, ndim + 1, ndim + 2), **EXACT)
    assert_close(turned_lse, lse.permute(*swapped, ndim + 1), **EXACT)
