"""All formulations are one operator: loops equals an oracle of the tests' own, the others equal loops."""

from collections.abc import Callable
from functools import lru_cache

import pytest
import torch
from hypothesis import example, given
from torch import Tensor
from torch.testing import assert_close

from tests import oracle
from tests.oracle import legal_axes
from tests.strategies import FAST_IMPLS, IMPLS, Problem, problems

EXACT = {"rtol": 1e-12, "atol": 1e-12}

Count = Callable[[str, int], None]


def by_oracle(problem: Problem, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The oracle's output and lse, in float64."""
    arrays = {name: tensor.detach().double().numpy() for name, tensor in tensors.items()}
    output, lse = oracle.attention(problem.axes, scale=problem.scale, **arrays)
    return torch.from_numpy(output), torch.from_numpy(lse)


@given(problem=problems())
def test_loops_equals_the_oracle(problem: Problem) -> None:
    tensors = problem.tensors()
    output, lse = problem.attend("loops", tensors)
    expected_output, expected_lse = by_oracle(problem, tensors)
    assert_close(output, expected_output, **EXACT)
    assert_close(lse, expected_lse, **EXACT)


@pytest.mark.parametrize("impl", FAST_IMPLS)
@given(problem=problems())
def test_equals_loops(impl: str, problem: Problem) -> None:
    tensors = problem.tensors()
    output, lse = problem.attend(impl, tensors)
    expected_output, expected_lse = problem.attend("loops", tensors)
    assert_close(output, expected_output, **EXACT)
    assert_close(lse, expected_lse, **EXACT)


@pytest.mark.parametrize("impl", FAST_IMPLS)
@given(problem=problems())
@example(problem=Problem((5,), (3,), (1,), (1,), (False,), batch=0))  # one formulation lost track of its inputs
def test_gradients_equal_those_of_loops(impl: str, problem: Problem) -> None:
    """First and second derivatives of output and lse, in every tensor."""
    first, second = gradients(problem, impl)
    expected_first, expected_second = gradients(problem, "loops")
    for name in expected_first:
        assert_close(first[name], expected_first[name], rtol=1e-11, atol=1e-11)
        assert_close(second[name], expected_second[name], rtol=1e-10, atol=1e-10)


@lru_cache(maxsize=256)  # derandomized, every formulation is given the same problems, and loops are slow
def gradients(problem: Problem, impl: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients of a nonlinear function of output and lse, and those of the sum of their squares."""
    tensors = problem.tensors(requires_grad=True)
    output, lse = problem.attend(impl, tensors)
    generator = torch.Generator().manual_seed(problem.seed)
    weights = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    loss = (weights * output.sin()).sum() + (weights.mean(-1) * lse.square()).sum()
    names, inputs = list(tensors), list(tensors.values())
    unused = {"allow_unused": True, "materialize_grads": True}  # no additional key at all is legal, and unused
    first = torch.autograd.grad(loss, inputs, create_graph=True, **unused)
    squares = sum((gradient.square().sum() for gradient in first), torch.zeros((), dtype=torch.float64))
    second = torch.autograd.grad(squares, inputs, **unused)
    detached = [gradient.detach() for gradient in first]
    return dict(zip(names, detached, strict=True)), dict(zip(names, second, strict=True))


@pytest.mark.parametrize("impl", IMPLS)
def test_every_small_axis(impl: str, count_cases: Count) -> None:
    """Every legal axis of up to 7 tokens, not a sample: some kernel bugs show in a handful of configurations only."""
    configurations = 0
    for length, kernel_size, stride, dilation, is_causal in legal_axes(7):
        problem = Problem(
            (length,), (kernel_size,), (stride,), (dilation,), (is_causal,), batch=1, heads=1, heads_kv=1, rpb=True
        )
        tensors = problem.tensors()
        output, lse = problem.attend(impl, tensors)
        expected_output, expected_lse = by_oracle(problem, tensors)
        assert_close(output, expected_output, **EXACT)
        assert_close(lse, expected_lse, **EXACT)
        configurations += 1
    count_cases("configurations", configurations)


@pytest.mark.parametrize("impl", FAST_IMPLS)
@pytest.mark.parametrize(
    "problem",
    [
        Problem((41, 23), (7, 4), (3, 1), (5, 2), (False, True), heads=4, heads_kv=2, extra=2, rpb=True, seed=1),
        Problem((300,), (13,), (5,), (7,), (False,), heads=2, heads_kv=1, extra=1, rpb=True, seed=2),
        Problem((11, 7, 13), (3, 2, 5), (2, 1, 3), (2, 3, 1), (True, False, False), heads=2, rpb=True, seed=3),
        Problem((2, 3, 5, 4), (2, 3, 2, 2), (1, 2, 1, 1), (1, 1, 2, 2), (False, True, False, False), rpb=True, seed=4),
    ],
    ids=["2d", "1d", "3d", "4d"],
)
def test_larger_problems(impl: str, problem: Problem) -> None:
    """Beyond the reach of the strategy: several hundred tokens, and a fourth axis."""
    tensors = problem.tensors()
    output, lse = problem.attend(impl, tensors)
    expected_output, expected_lse = problem.attend("loops", tensors)
    assert_close(output, expected_output, **EXACT)
    assert_close(lse, expected_lse, **EXACT)
