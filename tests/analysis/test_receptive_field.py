"""Exact receptive fields against two other ways to find them: sets of n-D tokens, and gradients of the operator."""

from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from dinat_ref import Neighborhood, neighborhood_attention
from dinat_ref.analysis.growth import corner_width, interior_width, reachable_share
from dinat_ref.analysis.receptive_field import (
    FullAttention,
    Layer,
    WindowedAttention,
    axis_fields,
    coverage,
    layers_to_reach,
    receptive_field,
)


@st.composite
def stacks(draw: st.DrawFn) -> tuple[list[Neighborhood], tuple[int, ...]]:
    """One to three neighborhoods of one layout, and a token."""
    layout = tuple(draw(st.lists(st.integers(3, 9), min_size=1, max_size=2)))
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        kernel = tuple(draw(st.integers(1, length)) for length in layout)
        dilation = tuple(draw(st.integers(1, length // size)) for length, size in zip(layout, kernel, strict=True))
        stride = tuple(draw(st.integers(1, size)) for size in kernel)
        causal = tuple(draw(st.booleans()) for _ in layout)
        layers.append(Neighborhood(layout, kernel, stride, dilation, causal))
    return layers, tuple(draw(st.integers(0, length - 1)) for length in layout)


@given(stacks())
def test_equals_sets_of_tokens(stack: tuple[list[Neighborhood], tuple[int, ...]]) -> None:
    layers, token = stack
    field = {token}
    for layer in reversed(layers):  # from the output down to the input
        field = {neighbor for reached in field for neighbor in layer.neighbors(reached)}
    found = {tuple(place) for place in receptive_field(layers, token).nonzero().tolist()}
    assert found == field


@given(stacks())
def test_equals_nonzero_gradients(stack: tuple[list[Neighborhood], tuple[int, ...]]) -> None:
    layers, token = stack
    x = torch.zeros(1, *layers[0].layout, 1, 1, dtype=torch.float64, requires_grad=True)
    output = x
    for layer in layers:  # equal weights: every path counts and none cancels
        where = (layer.kernel_size, layer.stride, layer.dilation, layer.is_causal)
        attended = neighborhood_attention(torch.zeros_like(x), torch.zeros_like(x), output, *where)
        assert isinstance(attended, torch.Tensor)
        output = attended
    (gradient,) = torch.autograd.grad(output[(0, *token)].sum(), x)
    torch.testing.assert_close(gradient[0, ..., 0, 0] > 0, receptive_field(layers, token), rtol=0, atol=0)


@given(stacks())
def test_fields_only_grow(stack: tuple[list[Neighborhood], tuple[int, ...]]) -> None:
    layers, token = stack
    shares = coverage(layers, token)
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(1 / layers[0].num_tokens, rel=1e-12)
    reached = layers_to_reach(layers, token)
    for count in range(len(layers) + 1):
        assert int(((reached >= 0) & (reached <= count)).sum()) / layers[0].num_tokens == shares[count]


@pytest.mark.parametrize("kernel_size", range(1, 9))
@pytest.mark.parametrize("dilations", [[1], [1, 1, 1, 1], [2, 2, 2], [1, 3], [3, 1], [1, 2, 4]])
def test_interior_law(kernel_size: int, dilations: list[int]) -> None:
    width = interior_width(kernel_size, dilations)
    length = 2 * width + 2 * kernel_size * max(dilations) + 1
    layers = [Neighborhood((length,), kernel_size, dilation=d) for d in dilations]
    field = receptive_field(layers, (length // 2,)).nonzero().flatten()
    assert int(field[-1] - field[0]) + 1 == width


@pytest.mark.parametrize("num_layers", range(1, 6))
@pytest.mark.parametrize("kernel_size", range(1, 9))
def test_corner_law(kernel_size: int, num_layers: int) -> None:
    length = kernel_size * (num_layers + 1)
    fields = axis_fields([Neighborhood((length,), kernel_size)] * num_layers)
    for count in range(num_layers + 1):
        assert int(fields[count, 0].sum()) == corner_width(kernel_size, count)


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_growing_dilations_reach_exactly_the_power(kernel_size: int) -> None:
    num_layers = 3
    length = kernel_size**num_layers
    layers = [Neighborhood((length,), kernel_size, dilation=kernel_size**layer) for layer in range(num_layers)]
    widths = [int(field[length // 2].sum()) for field in axis_fields(layers)]
    assert widths == [kernel_size**count for count in range(num_layers + 1)]


@pytest.mark.parametrize("dilation", range(1, 7))
@pytest.mark.parametrize("length", [42, 43, 47])
def test_gridding_law(length: int, dilation: int) -> None:
    layers = [Neighborhood((length,), 7, dilation=dilation)] * length
    shares = axis_fields(layers)[-1].double().mean(1)
    expected = [reachable_share(length, [dilation], i) for i in range(length)]
    torch.testing.assert_close(shares, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_dilations_without_a_common_divisor_leave_no_hole() -> None:
    layers = [Neighborhood((56,), 7, dilation=d) for d in (1, 8, 1)]
    assert reachable_share(56, [1, 8, 1]) == 1.0
    assert bool(axis_fields(layers)[-1].all())


def test_full_attention_reaches_everything() -> None:
    assert bool(receptive_field([FullAttention((3, 5))], (2, 0)).all())
    assert coverage([FullAttention((3, 5))], (1, 1)) == [1 / 15, 1.0]


def test_window_attention_never_grows_and_shifting_helps() -> None:
    plain = [WindowedAttention((28, 28), 7)] * 4
    assert coverage(plain, (10, 20))[1:] == [49 / 784] * 4
    shifted = [WindowedAttention((28, 28), 7, shift) for shift in (0, 3, 0, 3)]
    widths = [int(field[14].sum()) for field in axis_fields(shifted)]
    assert widths == [1, 7, 14, 21, 28]  # one window a layer


@pytest.mark.parametrize("shift", range(4))
def test_shifted_windows_partition_the_axis(shift: int) -> None:
    windows = WindowedAttention((13,), 4, shift).windows(0)
    assert all(i in windows[i] for i in range(13))
    assert sorted(key for block in set(windows) for key in block) == list(range(13))


@pytest.mark.parametrize(
    ("layers", "token", "message"),
    [
        ([], (0,), "at least one layer"),
        ([Neighborhood((5,), 3), Neighborhood((6,), 3)], (0,), "layer 1 must have the layout of the first"),
        ([Neighborhood((5,), 3)], (5,), "token must lie in the layout"),
        ([WindowedAttention((5,), 3, 3)], (0,), "shift on axis 0 must be in 0 .. 2"),
        ([WindowedAttention((5,), 0)], (0,), "window_size on axis 0 must be at least 1"),
    ],
)
def test_refuses(layers: Sequence[Layer], token: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        receptive_field(layers, token)
