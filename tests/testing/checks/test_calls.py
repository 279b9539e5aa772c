"""Kernels that are right but for one way to call them; each is rejected by the check of that way."""

import pytest
import torch

from dinat_ref import na1d
from dinat_ref.testing import Supports, check_kernel

ONE = Supports(ndim={1}, dtypes=["float32", "bfloat16"], backward=False)


def none_is_one(query, key, value, kernel_size, stride=1, dilation=1, is_causal=False, scale="usual", **more):
    scale = None if scale == "usual" else 1.0 if scale is None else scale
    return na1d(query, key, value, kernel_size, stride, dilation, is_causal, scale, **more)


def false_is_true(query, key, value, kernel_size, *where, return_lse=None, **more):
    return na1d(query, key, value, kernel_size, *where, return_lse=return_lse is not None, **more)


def values_first(
    query, key, value, kernel_size, stride=1, dilation=1, is_causal=False, scale=None,
    additional_values=None, additional_keys=None, **more,
):  # fmt: skip
    where = (kernel_size, stride, dilation, is_causal, scale, additional_keys, additional_values)
    return na1d(query, key, value, *where, **more)


def spreads_a_query_of_one(query, key, value, kernel_size, **more):
    return na1d(query.expand(*query.shape[:-1], max(query.shape[-1], key.shape[-1])), key, value, kernel_size, **more)


def repeats_a_batch_of_one(query, key, value, kernel_size, **more):
    if len(key) == len(value) == 1:
        key, value = (tensor.expand(len(query), *tensor.shape[1:]) for tensor in (key, value))
    return na1d(query, key, value, kernel_size, **more)


def widens_beside_additional_keys(query, key, value, kernel_size, additional_keys=None, **more):
    result = na1d(query, key, value, kernel_size, additional_keys=additional_keys, **more)
    return result.float() if additional_keys is not None and isinstance(result, torch.Tensor) else result


def rounds_its_lse(query, key, value, kernel_size, return_lse=False, **more):
    result = na1d(query, key, value, kernel_size, return_lse=return_lse, **more)
    return (result[0], result[1].to(query.dtype).float()) if return_lse else result


def clamps_its_query(query, key, value, kernel_size, **more):
    return na1d(query.clamp(-1e4, 1e4), key, value, kernel_size, **more)


@pytest.mark.parametrize(
    ("kernel", "id"),
    [
        (none_is_one, "D11-defaults"),
        (false_is_true, "D11-defaults"),
        (values_first, "D12-by-position"),
        (spreads_a_query_of_one, "E12-head-dim"),
        (repeats_a_batch_of_one, "E11-batch"),
        (widens_beside_additional_keys, "D01-output-dtype"),
        (rounds_its_lse, "N24-lse-dtype"),
        (clamps_its_query, "N27-extreme-scores"),
    ],
)
def test_a_kernel_that_is_wrong_in_one_way_to_call_it(kernel, id):
    report = check_kernel(kernel, supports=ONE, checks=["W11", id])
    assert [result.id for result in report.failures] == [id], str(report)
    assert check_kernel(na1d, supports=ONE, checks=[id]).passed
