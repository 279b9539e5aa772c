"""What a caller may rely on beside the numbers, in every formulation."""

import pytest
import torch
from hypothesis import given
from torch.testing import assert_close

from dinat_ref import neighborhood_attention
from tests.strategies import IMPLS, Problem, problems, scattered

EXACT = {"rtol": 1e-12, "atol": 1e-12}
BITWISE = {"rtol": 0, "atol": 0}

every_impl = pytest.mark.parametrize("impl", IMPLS)


@every_impl
@given(problem=problems())
def test_shapes_and_dtypes(impl: str, problem: Problem) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        output, lse = problem.attend(impl, problem.tensors(dtype))
        assert output.shape == (problem.batch, *problem.layout, problem.heads, problem.head_dim_v)
        assert lse.shape == output.shape[:-1]
        assert output.dtype == dtype
        assert lse.dtype == torch.promote_types(dtype, torch.float32)
        assert bool(output.isfinite().all())
        assert bool(lse.isfinite().all())


@every_impl
@given(problem=problems())
def test_return_lse_does_not_change_the_output(impl: str, problem: Problem) -> None:
    for requires_grad in (False, True):
        tensors = problem.tensors(requires_grad=requires_grad)
        output, _ = problem.attend(impl, tensors)
        alone = neighborhood_attention(**tensors, **problem.where, scale=problem.scale, impl=impl)
        assert isinstance(alone, torch.Tensor)
        assert_close(alone, output, **EXACT)


@every_impl
@given(problem=problems())
def test_memory_order_does_not_matter(impl: str, problem: Problem) -> None:
    tensors = problem.but(strided=False).tensors()
    anyhow = {name: scattered(tensor) for name, tensor in tensors.items()}
    assert_close(problem.attend(impl, anyhow), problem.attend(impl, tensors), **EXACT, check_stride=False)


@every_impl
@given(problem=problems())
def test_twice_is_bitwise_equal(impl: str, problem: Problem) -> None:
    tensors = problem.tensors()
    assert_close(problem.attend(impl, tensors), problem.attend(impl, tensors), **BITWISE)


@every_impl
@given(problem=problems())
def test_backward_twice_is_bitwise_equal(impl: str, problem: Problem) -> None:
    tensors = problem.tensors(requires_grad=True)
    output, lse = problem.attend(impl, tensors)
    loss = output.square().sum() + lse.square().sum()
    inputs = [tensors["query"], tensors["key"], tensors["value"]]
    first, second = (torch.autograd.grad(loss, inputs, retain_graph=True) for _ in range(2))
    assert_close(first, second, **BITWISE)


@every_impl
@given(problem=problems())
def test_arguments_are_not_modified(impl: str, problem: Problem) -> None:
    tensors = problem.tensors()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    versions = {name: tensor._version for name, tensor in tensors.items()}
    sizes = {name: list(values) for name, values in problem.where.items()}
    problem.attend(impl, tensors, **sizes)
    for name, tensor in tensors.items():
        assert_close(tensor, before[name], **BITWISE, check_stride=False)
        assert tensor._version == versions[name]
    assert {name: tuple(values) for name, values in sizes.items()} == problem.where


@every_impl
@given(problem=problems(empty=False))
def test_results_share_no_memory_with_arguments(impl: str, problem: Problem) -> None:
    """Not even where the output equals the values, at kernel_size 1."""
    for sizes in (problem, problem.but(kernel_size=(1,) * len(problem.layout), stride=(1,) * len(problem.layout))):
        tensors = sizes.tensors()
        stores = {tensor.untyped_storage().data_ptr() for tensor in tensors.values() if tensor.numel()}
        for result in sizes.attend(impl, tensors):
            assert result.untyped_storage().data_ptr() not in stores


@every_impl
def test_kernel_of_one_returns_the_values(impl: str) -> None:
    problem = Problem((5, 7), (1, 1), (1, 1), (3, 2), (False, True))
    tensors = problem.tensors()
    output, _ = problem.attend(impl, tensors)
    assert_close(output, tensors["value"], **EXACT)


@every_impl
def test_large_scores_stay_finite(impl: str) -> None:
    """The softmax subtracts the highest score: scores of many thousands neither overflow nor vanish."""
    problem = Problem((9, 6), (3, 4), (1, 2), (2, 1), (True, False), rpb=True, extra=1)
    tensors = {name: tensor.requires_grad_() for name, tensor in problem.tensors().items()}
    for scale in (3e4, -3e4):
        output, lse = problem.attend(impl, tensors, scale=scale)
        gradients = torch.autograd.grad(output.sum() + lse.sum(), list(tensors.values()))
        for tensor in (output, lse, *gradients):
            assert bool(tensor.isfinite().all())
        assert_close((output, lse), problem.attend("loops", tensors, scale=scale), rtol=1e-9, atol=1e-9)


@every_impl
def test_empty_batch(impl: str) -> None:
    problem = Problem((5, 7), (3, 2), (1, 2), (1, 3), (True, False), batch=0, rpb=True, extra=2)
    tensors = problem.tensors(requires_grad=True)
    output, lse = problem.attend(impl, tensors)
    assert output.shape == (0, 5, 7, 2, 3)
    gradients = torch.autograd.grad(output.sum() + lse.sum(), list(tensors.values()))
    for gradient, tensor in zip(gradients, tensors.values(), strict=True):
        assert_close(gradient, torch.zeros_like(tensor), **BITWISE, check_stride=False)
