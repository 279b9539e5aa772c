"""The laws of the gradients, in every formulation; second derivatives are in attention/test_gradients.py."""

import itertools

import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from tests.properties.test_numbers import neighbor_numbers, weights_matrix
from tests.strategies import IMPLS, Problem, problems, scattered

EXACT = {"rtol": 1e-11, "atol": 1e-11}

every_impl = pytest.mark.parametrize("impl", IMPLS)


def output_gradient(output: Tensor) -> Tensor:
    return torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=output.dtype)


@every_impl
@given(problem=problems(plain=True))
def test_key_gradients_of_a_dilation_group_sum_to_zero(impl: str, problem: Problem) -> None:
    """A vector added to all keys of a group changes no output, per key head."""
    tensors = problem.tensors(requires_grad=True)
    output, _ = problem.attend(impl, tensors)
    (gradient,) = torch.autograd.grad(output, tensors["key"], output_gradient(output))
    for group in itertools.product(*(range(dilation) for dilation in problem.dilation)):
        members = tuple(slice(g, None, dilation) for g, dilation in zip(group, problem.dilation, strict=True))
        total = gradient[(slice(None), *members)].flatten(1, -3).sum(1)  # [B, Hkv, D]
        assert_close(total, torch.zeros_like(total), **EXACT)


@every_impl
@given(problem=problems())
def test_key_gradients_and_additional_ones_sum_to_zero(impl: str, problem: Problem) -> None:
    problem = problem.but(extra=2)
    tensors = problem.tensors(requires_grad=True)
    output, _ = problem.attend(impl, tensors)
    keys = [tensors["key"], tensors["additional_keys"]]
    gradient, additional = torch.autograd.grad(output, keys, output_gradient(output))
    total = gradient.flatten(1, -3).sum(1) + additional.sum(1)
    assert_close(total, torch.zeros_like(total), **EXACT)


@every_impl
@given(problem=problems())
def test_gradient_of_the_lse(impl: str, problem: Problem) -> None:
    """d lse / d q is the scaled mean key, so it needs no more than attention with the keys as values."""
    tensors = problem.tensors(requires_grad=True)
    _, lse = problem.attend(impl, tensors)
    (gradient,) = torch.autograd.grad(lse.sum(), tensors["query"])
    keys_as_values = {**tensors, "value": tensors["key"]}
    if problem.extra is not None:
        keys_as_values["additional_values"] = tensors["additional_keys"]
    mean_key, _ = problem.attend(impl, keys_as_values)
    scale = problem.head_dim**-0.5 if problem.scale is None else problem.scale
    assert_close(gradient, scale * mean_key, **EXACT, check_stride=False)


@every_impl
@given(problem=problems(empty=False))
def test_value_gradient_is_the_transposed_weights(impl: str, problem: Problem) -> None:
    """dV = P^T dO, summed over the query heads of a key head; the gradient may come in any memory order."""
    tensors = problem.tensors()
    weights = weights_matrix(problem, tensors, impl)  # [B, N, H, N + M]
    for name in tensors:
        tensors[name] = tensors[name].requires_grad_()
    output, _ = problem.attend(impl, tensors)
    incoming = scattered(output_gradient(output.detach()))
    names = ["value"] + (["additional_values"] if problem.extra else [])
    gradients = torch.autograd.grad(output, [tensors[name] for name in names], incoming)
    expected = torch.einsum("bnhm,bnhd->bmhd", weights, incoming.flatten(1, -3))
    expected = expected.unflatten(2, (problem.heads_kv, -1)).sum(3)  # [B, N + M, Hkv, Dv]
    actual = torch.cat([gradients[0].flatten(1, -3), *gradients[1:]], dim=1)
    assert_close(actual, expected, **EXACT)


@every_impl
@given(problem=problems(empty=False))
def test_gradients_reach_the_window_and_nothing_else(impl: str, problem: Problem) -> None:
    """A gradient at one query alone: keys and values of its window get one, all others get exactly zero."""
    problem = problem.but(scale=0.5, head_dim=3, head_dim_v=2)
    tensors = problem.tensors(requires_grad=True)
    output, _ = problem.attend(impl, tensors)
    numbers = neighbor_numbers(problem)
    for query in {0, len(numbers) // 2, len(numbers) - 1}:
        incoming = torch.zeros_like(output)
        incoming.flatten(1, -3)[:, query] = 1.0
        wanted = [tensors["query"], tensors["key"], tensors["value"]]
        own, keys, values = torch.autograd.grad(output, wanted, incoming, retain_graph=True)
        others = [number for number in range(len(numbers)) if number not in numbers[query]]
        assert int(own.flatten(1, -3)[:, [n for n in range(len(numbers)) if n != query]].count_nonzero()) == 0
        assert int(keys.flatten(1, -3)[:, others].count_nonzero()) == 0
        assert int(values.flatten(1, -3)[:, others].count_nonzero()) == 0
        assert bool((values.flatten(1, -3)[:, numbers[query]] != 0).all())
        if len(numbers[query]) + (problem.extra or 0) > 1:
            assert bool((keys.flatten(1, -3)[:, numbers[query]] != 0).all())
