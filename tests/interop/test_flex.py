"""The mask for FlexAttention is the neighborhood, and FlexAttention with it is the operator."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention
from torch.testing import assert_close

import dinat_ref
from dinat_ref.interop.flex import neighborhood_mask_mod
from dinat_ref.neighborhood import Neighborhood
from tests.strategies import problems


def dense(mask_mod, tokens: int) -> torch.Tensor:
    numbers = torch.arange(tokens)
    return mask_mod(torch.tensor(0), torch.tensor(0), numbers[:, None], numbers)


def test_every_axis_up_to_length_nine():
    count = 0
    for length, kernel_size, dilation, is_causal in itertools.product(range(1, 10), range(1, 10), (1, 2, 3), (0, 1)):
        if kernel_size * dilation > length:
            continue
        for stride in range(1, kernel_size + 1):
            arguments = ((length,), kernel_size, stride, dilation, bool(is_causal))
            expected = Neighborhood(*arguments).mask()
            assert_close(dense(neighborhood_mask_mod(*arguments), length), expected, rtol=0, atol=0)
            count += 1
    assert count == 2 * sum(
        kernel_size
        for length in range(1, 10)
        for kernel_size in range(1, length + 1)
        for dilation in (1, 2, 3)
        if kernel_size * dilation <= length
    )


@given(problems())
@settings(max_examples=40, deadline=None)
def test_any_layout_of_up_to_three_axes(problem):
    neighborhood = problem.neighborhood
    mask_mod = neighborhood_mask_mod(problem.layout, **problem.where)
    assert_close(dense(mask_mod, neighborhood.num_tokens), neighborhood.mask(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("layout", "arguments"),
    [
        ((4, 9), {"kernel_size": (3, 4), "dilation": (1, 2)}),
        ((17,), {"kernel_size": 4, "stride": 3, "is_causal": True}),
        ((3, 5, 4), {"kernel_size": 2, "is_causal": (True, False, False)}),
    ],
)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_with_it_is_the_operator(layout, arguments):
    tokens = torch.Size(layout).numel()
    query, key, value = torch.randn(3, 2, 3, tokens, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    mask_mod = neighborhood_mask_mod(layout, **arguments)
    blocks = create_block_mask(mask_mod, None, None, tokens, tokens, device="cpu", BLOCK_SIZE=16)
    assert_close(
        create_mask(mask_mod, 1, 1, tokens, tokens, device="cpu")[0, 0], dense(mask_mod, tokens), rtol=0, atol=0
    )
    output = flex_attention(query, key, value, block_mask=blocks)  # [B, H, N, D]
    heads_last = [tensor.transpose(1, 2).unflatten(1, layout) for tensor in (query, key, value)]
    expected = dinat_ref.neighborhood_attention(*heads_last, **arguments)
    assert_close(output.transpose(1, 2).unflatten(1, layout), expected, rtol=1e-5, atol=1e-6)


def test_illegal_arguments_are_refused():
    with pytest.raises(ValueError, match=r"kernel_size \* dilation on axis 1 must be at most"):
        neighborhood_mask_mod((8, 5), 3, dilation=2)
