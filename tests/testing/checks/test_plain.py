"""The oracle of all numbers."""

import pytest
import torch

from dinat_ref import neighborhood_attention
from dinat_ref.testing import Problem
from dinat_ref.testing.checks.plain import plain_attention


@pytest.mark.parametrize("seed", range(10))
def test_the_oracle_is_the_definition(seed):
    problem = Problem(f"2d 5x4 k3x2 s2x1 d1x2 causal0x1 h4 hkv2 e3 ev5 extra2 rpb f64 seed{seed}")
    inputs = problem.inputs()
    tensors = (inputs.query, inputs.key, inputs.value)
    where = (problem.kernel_size, problem.stride, problem.dilation, problem.is_causal, None)
    extra = (inputs.additional_keys, inputs.additional_values)
    wanted = neighborhood_attention(*tensors, *where, *extra, rpb=inputs.rpb, return_lse=True, impl="loops")
    for got, exact in zip(plain_attention(problem, inputs), wanted, strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-12)
