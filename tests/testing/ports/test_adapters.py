"""Kernels of other arrays, and kernels that are sent to another process."""

import pickle
import threading

import numpy
import pytest
import torch

from dinat_ref import Neighborhood, na1d, neighborhood_av, neighborhood_qk
from dinat_ref.testing import Supports, check_kernel
from dinat_ref.testing.isolate import can_be_sent
from dinat_ref.testing.ports.adapters import by_axes, from_split
from dinat_ref.testing.ports.foreign import from_arrays
from dinat_ref.testing.ports.frameworks import from_onnx, from_triton
from dinat_ref.testing.ports.masks import from_flex


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


def averages(query, key, value, kernel_size):
    """A function of NumPy arrays."""
    return value.mean(1, keepdims=True) + 0 * value


def full_mask(layout, **arguments):
    """A mask_mod that masks nothing."""
    return lambda batch, head, query, key: query >= 0


@pytest.mark.parametrize(
    ("kernel", "fits"),
    [
        (by_axes({1: na1d}), True),
        (from_split(neighborhood_qk, neighborhood_av), True),
        (from_arrays(averages), True),
        (from_onnx(full_mask), True),
        (from_triton(na1d), True),
        (from_flex(full_mask).function, True),
        (by_axes({1: lambda *tensors: None}), False),
    ],
)
def test_an_adapted_kernel_can_be_sent_where_what_it_adapts_can_be_imported(kernel, fits):
    assert can_be_sent(kernel) is fits
    if fits:
        assert pickle.loads(pickle.dumps(kernel)).__name__ == kernel.__name__


def test_an_adapted_kernel_is_examined_apart_while_threads_are_alive():
    quit = threading.Event()
    thread = threading.Thread(target=quit.wait, daemon=True)
    thread.start()
    try:
        report = check_kernel(by_axes({1: na1d}), supports=Supports(ndim={1}), checks=["W11", "D12"])
    finally:
        quit.set()
        thread.join()
    assert report.passed
    assert report.notes == ["run in a fresh interpreter"]
    assert report["D12-by-position"].problems > 0  # the signature is that of the kernel
