"""Rotary embeddings: complex numbers as the oracle, and the laws that make them positions."""

import cmath

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dinat_ref.attention import na2d
from dinat_ref.rotary import rotate

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("layout", "head_dim"), [((11,), 6), ((5, 7), 8), ((5, 7), 11), ((3, 4, 5), 14)])
def test_pairs_are_complex_numbers_that_turn(layout, head_dim):
    x = tokens(2, *layout, 3, head_dim)
    pairs = head_dim // (2 * len(layout))
    expected = x.clone()
    for place in torch.cartesian_prod(*(torch.arange(length) for length in layout)).reshape(-1, len(layout)).tolist():
        where = (slice(None), *place)
        for axis, position in enumerate(place):
            for pair in range(pairs):
                channel = 2 * (axis * pairs + pair)
                number = torch.complex(x[where][..., channel], x[where][..., channel + 1])
                turned = number * cmath.exp(1j * position * 50.0 ** (-pair / pairs))
                expected[where][..., channel], expected[where][..., channel + 1] = turned.real, turned.imag
    assert_close(rotate(x, base=50.0), expected, **EXACT)


@given(st.integers(0, 3), st.integers(0, 4), st.integers(0, 2**16))
def test_scores_depend_on_offsets_alone(rows, columns, seed):
    query, key = tokens(8, seed=seed), tokens(8, seed=seed + 1)
    turned = [rotate(x.expand(1, 7, 9, 1, 8))[0, :, :, 0] for x in (query, key)]  # [7, 9, 8]
    here = turned[0][0, 0] @ turned[1][2, 3]
    there = turned[0][rows, columns] @ turned[1][rows + 2, columns + 3]
    assert_close(there, here, **EXACT)


def test_lengths_stay_and_axes_are_told_apart():
    x = tokens(1, 4, 4, 2, 12)
    assert_close(rotate(x).norm(dim=-1), x.norm(dim=-1), **EXACT)
    same = rotate(tokens(12).expand(1, 4, 4, 1, 12))[0, :, :, 0]
    assert (same[1, 2] - same[2, 1]).abs().max() > 0.1
    assert_close(same[0, 0], tokens(12), **EXACT)


def test_interior_windows_of_a_constant_image_attend_alike():
    """With rotary embeddings and equal tokens, all queries whose windows are not shifted have the same weights."""
    x = rotate(tokens(8).expand(1, 9, 10, 1, 8))
    value = tokens(1, 9, 10, 1, 4, seed=2)
    lse = na2d(x, x, value, kernel_size=5, return_lse=True)[1][0, 2:-2, 2:-2, 0]
    assert_close(lse, lse[:1, :1].expand_as(lse), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_angles_are_exact_enough_far_from_the_origin(dtype):
    x = tokens(1, 4096, 1, 4).to(dtype)
    assert rotate(x).dtype == dtype
    assert_close(rotate(x).double(), rotate(x.double()), rtol=0, atol=0.002 if dtype == torch.float32 else 0.05)


def test_gradients():
    assert torch.autograd.gradcheck(rotate, (tokens(1, 3, 2, 1, 5).requires_grad_(),))


def test_bad_arguments():
    with pytest.raises(ValueError, match="head_dim must be at least 4, a pair of channels for each axis, got 3"):
        rotate(tokens(1, 2, 2, 1, 3))
    with pytest.raises(ValueError, match="rotary must be above 0"):
        rotate(tokens(1, 2, 1, 2), base=-1.0)
