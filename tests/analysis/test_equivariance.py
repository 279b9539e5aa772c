"""The two-crop test, by windows and by running operators; both must tell the same tokens apart."""

import pytest
import torch
from torch import Tensor

from dinat_ref import Neighborhood, neighborhood_attention
from dinat_ref.analysis.equivariance import two_crops, unchanged_share
from dinat_ref.analysis.receptive_field import WindowedAttention

SHARED = 48


@pytest.mark.parametrize("shift", [1, 2, 3, 5, 6, 8])
@pytest.mark.parametrize(("kernel_size", "stride", "dilation"), [(7, 1, 1), (7, 1, 3), (7, 3, 1), (4, 4, 1), (6, 1, 2)])
def test_running_the_operator_agrees_with_windows(kernel_size: int, stride: int, dilation: int, shift: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, SHARED + 2 * shift, 2, 3, generator=generator, dtype=torch.float64)

    def attend(x: Tensor) -> Tensor:
        output = neighborhood_attention(x, x, x, kernel_size, stride, dilation, impl="gather")
        assert isinstance(output, Tensor)
        return output.flatten(-2)

    difference = two_crops(attend, image.flatten(-2).unflatten(-1, (2, 3)), shift)
    measured = float((difference == 0).double().mean())
    expected = unchanged_share(lambda layout: Neighborhood(layout, kernel_size, stride, dilation), SHARED, shift)
    assert measured == expected


@pytest.mark.parametrize("shift", range(3, 24))
def test_neighborhood_attention_moves_with_its_input(shift: int) -> None:
    assert unchanged_share(lambda layout: Neighborhood(layout, 7), SHARED, shift) == (SHARED - 6) / SHARED


@pytest.mark.parametrize("shift", range(1, 24))
def test_window_attention_moves_only_by_its_window(shift: int) -> None:
    share = unchanged_share(lambda layout: WindowedAttention(layout, 8), SHARED, shift)
    assert (share == 1.0) == (shift % 8 == 0)
    assert share == 1.0 or share < 0.2


@pytest.mark.parametrize("stride", [2, 3, 5])
def test_stride_moves_only_by_its_multiples(stride: int) -> None:
    shares = [unchanged_share(lambda layout: Neighborhood(layout, 7, stride), SHARED, shift) for shift in range(1, 24)]
    best = [shift for shift, share in enumerate(shares, start=1) if share >= (SHARED - 7 - stride) / SHARED]
    assert best == [shift for shift in range(1, 24) if shift % stride == 0]


def test_refuses_shifts_that_leave_nothing() -> None:
    with pytest.raises(ValueError, match=r"shift must be in 0 \.\. 4"):
        two_crops(lambda x: x, torch.zeros(1, 9, 1), 5)
    with pytest.raises(ValueError, match="shared must be at least 1"):
        unchanged_share(lambda layout: Neighborhood(layout, 1), 0, 1)
