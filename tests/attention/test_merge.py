"""merge_attentions: the softmax over a union of key sets, from its parts."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import vmap
from torch.testing import assert_close

from dinat_ref import merge_attentions, na1d

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def parts(number: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    outputs = [torch.randn(2, 3, 5, 2, 7, generator=generator, dtype=torch.float64).to(dtype) for _ in range(number)]
    lses = [3 * torch.randn(2, 3, 5, 2, generator=generator, dtype=torch.float64) for _ in range(number)]
    return outputs, lses


@given(number=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_is_the_softmax_over_the_union(number: int, seed: int) -> None:
    """From scores and values of single keys: a key's own output is its value, its lse its score."""
    outputs, lses = parts(number, seed)
    scores, values = torch.stack(lses, dim=-1), torch.stack(outputs, dim=-2)
    expected = (scores.softmax(-1)[..., None] * values).sum(-2)
    assert_close(merge_attentions(outputs, lses), (expected, scores.logsumexp(-1)), **EXACT)


@given(number=st.integers(2, 5), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_order_and_grouping_do_not_matter(number: int, seed: int, data: st.DataObject) -> None:
    outputs, lses = parts(number, seed)
    joint = merge_attentions(outputs, lses)
    order = data.draw(st.permutations(range(number)))
    assert_close(merge_attentions([outputs[i] for i in order], [lses[i] for i in order]), joint, **EXACT)
    cut = data.draw(st.integers(1, number - 1))
    halves = [merge_attentions(outputs[part], lses[part]) for part in (slice(None, cut), slice(cut, None))]
    assert_close(merge_attentions([o for o, _ in halves], [lse for _, lse in halves]), joint, **EXACT)


def test_one_part_comes_back() -> None:
    outputs, lses = parts(1, seed=0)
    assert_close(merge_attentions(outputs, lses), (outputs[0], lses[0]), **EXACT)


def test_a_part_without_weight_does_not_count() -> None:
    """An lse of minus infinity is an empty set of keys."""
    outputs, lses = parts(2, seed=0)
    nothing = torch.full_like(lses[1], -torch.inf)
    assert_close(merge_attentions(outputs, [lses[0], nothing]), (outputs[0], lses[0]), **EXACT)


def test_large_lses_stay_finite() -> None:
    outputs, lses = parts(3, seed=0)
    output, lse = merge_attentions(outputs, [lse + 1e4 for lse in lses])
    expected = merge_attentions(outputs, lses)
    assert_close((output, lse), (expected[0], expected[1] + 1e4), rtol=1e-9, atol=1e-9)


def test_derivatives() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(1, 2, 1, 2, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    lses = [torch.randn(1, 2, 1, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def merge(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return merge_attentions(tensors[:3], tensors[3:])

    assert gradcheck(merge, (*outputs, *lses), check_forward_ad=True)
    assert gradgradcheck(merge, (*outputs, *lses))


def test_backward_twice_and_arguments_untouched() -> None:
    outputs, lses = parts(2, seed=0)
    before = [tensor.clone() for tensor in (*outputs, *lses)]
    leaves = [tensor.requires_grad_() for tensor in (*outputs, *lses)]
    output, lse = merge_attentions(outputs, lses)
    loss = output.sin().sum() + lse.sin().sum()
    first, second = (torch.autograd.grad(loss, leaves, retain_graph=True) for _ in range(2))
    assert_close(first, second, rtol=0, atol=0)
    assert_close([leaf.detach() for leaf in leaves], before, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    """The outputs' own dtype comes back, summed in float32 and rounded once."""
    outputs, lses = parts(3, seed=0, dtype=dtype)
    lses = [lse.float() for lse in lses]
    output, lse = merge_attentions(outputs, lses)
    wide, _ = merge_attentions([output.float() for output in outputs], lses)
    assert (output.dtype, lse.dtype) == (dtype, torch.float32)
    assert_close(output, wide.to(dtype), rtol=0, atol=0)


def test_transforms() -> None:
    outputs, lses = parts(2, seed=0)
    expected = merge_attentions(outputs, lses)
    mapped = vmap(lambda *tensors: merge_attentions(tensors[:2], tensors[2:]))(*outputs, *lses)
    assert_close(mapped, expected, **EXACT)
    torch._dynamo.reset()
    compiled = torch.compile(merge_attentions, fullgraph=True, backend="aot_eager")
    assert_close(compiled(outputs, lses), expected, **EXACT)
    meta = merge_attentions([tensor.to("meta") for tensor in outputs], [tensor.to("meta") for tensor in lses])
    assert (meta[0].shape, meta[1].shape) == (expected[0].shape, expected[1].shape)


def test_two_neighborhoods_of_different_tensors() -> None:
    """Windows over two key sequences, merged: the same as the second sequence as more rows of one softmax."""
    generator = torch.Generator().manual_seed(0)
    query, one, two = (torch.randn(1, 4, 1, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    halves = [na1d(query, keys, keys, 4, return_lse=True) for keys in (one, two)]
    merged = merge_attentions([half[0] for half in halves], [half[1] for half in halves])
    assert_close(merged, na1d(query, one, one, 4, 1, 1, False, None, two, two, return_lse=True), **EXACT)


def test_errors() -> None:
    outputs, lses = parts(2, seed=0)
    with pytest.raises(ValueError, match=r"at least one, got 0 and 0$"):
        merge_attentions([], [])
    with pytest.raises(ValueError, match=r"equally many, .* got 2 and 1$"):
        merge_attentions(outputs, lses[:1])
    with pytest.raises(ValueError, match=r"^part 1 must have the shapes of the first, .*\(2, 3, 5, 2, 6\)"):
        merge_attentions([outputs[0], outputs[1][..., :6]], lses)
    with pytest.raises(ValueError, match=r"^part 0 must have .*got .*\(2, 3, 5, 1\)$"):
        merge_attentions(outputs, [lses[0][..., :1], lses[1]])
