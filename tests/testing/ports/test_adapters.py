"""Kernels of other arrays."""

import numpy
import pytest
import torch

from dinat_ref import Neighborhood
from dinat_ref.testing import Supports, check_kernel
from dinat_ref.testing.ports.foreign import from_arrays


def mean_over_window(query, key, value, kernel_size):
    """A kernel of NumPy arrays: right windows, zero scores."""
    mask = Neighborhood(query.shape[1:-2], kernel_size).mask().numpy()
    return numpy.einsum("nm,bmhd->bnhd", (mask / mask.sum(1, keepdims=True)).astype(value.dtype), value)


@pytest.mark.parametrize("to", [None, torch.from_dlpack])
def test_kernels_of_other_arrays(to):
    def kernel(query, key, value, kernel_size):
        arrays = [array if to is None else array.numpy() for array in (query, key, value)]
        result = mean_over_window(*arrays, kernel_size)
        return result if to is None else torch.from_numpy(result)

    supports = Supports(ndim={1}, stride=False, dilation=False, causal=False, backward=False, dtypes=["float32"])
    report = check_kernel(from_arrays(kernel, to), supports=supports, checks=["W11", "W12", "N12", "N01"])
    assert [result.id for result in report.failures] == ["N01-float32"]
