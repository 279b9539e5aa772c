"""First and second derivatives against finite differences: all tensors, output and lse, every formulation."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from tests.strategies import IMPLS, Problem

PROBLEMS = {
    "1d": Problem(
        (5,), (2,), (2,), (2,), (False,), 1, heads=2, heads_kv=1, head_dim=2, head_dim_v=1, rpb=True, extra=1
    ),
    "1d causal": Problem((5,), (3,), (2,), (1,), (True,), 2, heads=1, heads_kv=1, head_dim=1, head_dim_v=2, extra=2),
    "2d": Problem(
        (4, 2), (2, 2), (1, 2), (2, 1), (False, True), 1, heads=2, heads_kv=2, head_dim=1, head_dim_v=1, rpb=True
    ),
    "3d": Problem((2, 3, 2), (2, 2, 1), (2, 1, 1), (1, 1, 2), (True, False, False), 1, 1, 1, 1, 1, rpb=True),
}

every_problem = pytest.mark.parametrize("name", PROBLEMS)
every_impl = pytest.mark.parametrize("impl", IMPLS)


def function_and_inputs(name: str, impl: str, strided: bool = False) -> tuple[object, tuple[Tensor, ...]]:
    problem = PROBLEMS[name].but(strided=strided)
    tensors = problem.tensors(requires_grad=True)

    def function(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        return problem.attend(impl, dict(zip(tensors, inputs, strict=True)))

    return function, tuple(tensors.values())


@every_impl
@every_problem
def test_gradcheck(name: str, impl: str) -> None:
    """Reverse and forward mode, of the output and the lse."""
    function, inputs = function_and_inputs(name, impl)
    assert gradcheck(function, inputs, check_forward_ad=True)


@every_impl
@every_problem
def test_gradcheck_of_strided_tensors(name: str, impl: str) -> None:
    function, inputs = function_and_inputs(name, impl, strided=True)
    assert gradcheck(function, inputs, fast_mode=True)


@every_impl
@every_problem
def test_gradgradcheck(name: str, impl: str) -> None:
    """Along random directions; all second derivatives one by one are compared with loops in test_agreement."""
    function, inputs = function_and_inputs(name, impl)
    assert gradgradcheck(function, inputs, fast_mode=True)


@every_impl
def test_scale_may_be_learned(impl: str) -> None:
    problem = PROBLEMS["1d"]
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda scale: problem.attend(impl, problem.tensors(), scale=scale), (scale,))
    assert gradgradcheck(lambda scale: problem.attend(impl, problem.tensors(), scale=scale), (scale,))


@every_impl
def test_every_part_of_the_gradient_on_its_own(impl: str) -> None:
    """Only one tensor wants a gradient: the same one comes out as when all do."""
    problem = PROBLEMS["1d"]
    tensors = problem.tensors(requires_grad=True)
    output, lse = problem.attend(impl, tensors)
    together = torch.autograd.grad(output.sin().sum() + lse.sin().sum(), list(tensors.values()))
    for name, expected in zip(tensors, together, strict=True):
        alone = {other: tensor.detach() for other, tensor in tensors.items()}
        alone[name].requires_grad_()
        output, lse = problem.attend(impl, alone)
        (gradient,) = torch.autograd.grad(output.sin().sum() + lse.sin().sum(), alone[name])
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)
