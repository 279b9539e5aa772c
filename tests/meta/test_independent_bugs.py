"""Bugs written once more, in other code than the corpus: the diagnosis knows them all the same."""

import pytest
import torch

from dinat_ref import Neighborhood, neighborhood_attention
from dinat_ref.testing import Supports, check_kernel
from dinat_ref.testing.ports.masks import from_mask_mod

NARROW = Supports(
    ndim={2}, even=False, stride=False, causal=False, lse=False, gqa=False, extra_keys=False, dtypes=["float32"]
)


def zero_padded(query, key, value, kernel_size, dilation, scale=None):
    """A port by torch.nn.functional.unfold, which pads with zeros."""
    batch, height, width, heads, head_dim = query.shape
    padding = [d * (k // 2) for k, d in zip(kernel_size, dilation, strict=True)]

    def windows(tensor):
        image = tensor.permute(0, 3, 4, 1, 2).flatten(0, 1)
        columns = torch.nn.functional.unfold(image, kernel_size, dilation, padding)
        return columns.unflatten(1, (tensor.shape[-1], -1)).unflatten(0, (batch, heads))  # [B, H, D, K, N]

    scores = torch.einsum("bnhd,bhdkn->bhnk", query.flatten(1, 2), windows(key))
    weights = (scores * (head_dim**-0.5 if scale is None else scale)).softmax(-1)
    return torch.einsum("bhnk,bhdkn->bnhd", weights, windows(value)).unflatten(1, (height, width))


def test_zero_padding_is_named_by_a_port_that_pads_with_unfold():
    report = check_kernel(zero_padded, supports=NARROW, checks=["W"])
    assert report["W03-key-count"].looks_like.startswith("edges zero-padded")
    assert report["W11-odd-kernels"].looks_like.startswith("edges zero-padded")


def test_downsampling_is_named_and_only_stride_fails():
    def downsamples(query, key, value, kernel_size, stride, **arguments):
        output = neighborhood_attention(query, key, value, kernel_size, **arguments)
        picked = tuple(slice(None, None, s) for s in stride)
        if isinstance(output, tuple):
            return tuple(part[(slice(None), *picked)] for part in output)
        return output[(slice(None), *picked)]

    report = check_kernel(downsamples, supports=Supports(ndim={1, 2}, dtypes=["float32"]))
    assert "stride downsamples" in report["W01-output-shape"].looks_like
    failed = {result.id for result in report.failures}
    loose = {"D07-int-arguments", "E07-stride-above-kernel", "E08-axes-of-kernel"}  # it takes no int and any stride
    assert failed == {"W01-output-shape"} | loose
    assert report["W14-stride"].reason == "from W01-output-shape"
    assert report["X10-blocked"].reason == "from W01-output-shape"


def test_swapped_sides_of_a_mask_mod_are_named():
    def clamps_rows_by_the_width(layout, kernel_size):
        (height, width), (kernel_h, kernel_w) = layout, kernel_size

        def mask_mod(b, h, query, key):
            row = (query // width).clamp(kernel_w // 2, width - 1 - kernel_w // 2)
            column = (query % width).clamp(kernel_h // 2, height - 1 - kernel_h // 2)
            return ((key // width - row).abs() <= kernel_w // 2) & ((key % width - column).abs() <= kernel_h // 2)

        return mask_mod

    supports = Supports(ndim={2}, even=False, stride=False, dilation=False, causal=False)
    report = check_kernel(from_mask_mod(clamps_rows_by_the_width, supports))
    assert "height and width swapped" in report["W11-odd-kernels"].looks_like
    assert report["N01-float32"].verdict == "skipped"


@pytest.mark.parametrize(("wrong", "words"), [(-1, "mirrored"), (0, "first head")])
def test_bias_bugs_are_named(wrong, words):
    def kernel(query, key, value, kernel_size, rpb=None, **arguments):
        if rpb is not None and wrong == -1:
            rpb = rpb.flip(tuple(range(1, rpb.ndim)))
        elif rpb is not None:
            rpb = rpb[:1].expand_as(rpb)
        return neighborhood_attention(query, key, value, kernel_size, rpb=rpb, **arguments)

    report = check_kernel(kernel, supports=Supports(ndim={1, 2}, rpb=True), checks=["N20", "N21"])
    assert not report.passed
    assert any(words in result.looks_like for result in report.failures)


def test_a_right_mask_mod_passes():
    def right(layout, **arguments):
        mask = Neighborhood(layout, **arguments).mask()
        return lambda b, h, query, key: mask[query, key]

    assert check_kernel(from_mask_mod(right)).passed
