"""What PyTorch wraps around an operator: checkpointing, saved-tensor hooks, copies, functional calls, tracing."""

import copy

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from dinat_ref import NeighborhoodAttention2D
from tests.strategies import IMPLS, Problem

EXACT = {"rtol": 1e-12, "atol": 1e-12}
PROBLEM = Problem((9, 8), (3, 3), (1, 2), (2, 1), (False, True), heads=2, heads_kv=1, rpb=True, extra=1, seed=3)

every_impl = pytest.mark.parametrize("impl", IMPLS)


def gradients(impl: str, wrapped: bool = False, use_reentrant: bool = False) -> tuple[Tensor, ...]:
    """The gradients of all operands, through gradient checkpointing or without."""
    tensors = PROBLEM.tensors(requires_grad=True)

    def attend(*operands: Tensor) -> Tensor:
        output, lse = PROBLEM.attend(impl, dict(zip(tensors, operands, strict=True)))
        return output.sin().sum() + lse.sin().sum()

    loss = checkpoint(attend, *tensors.values(), use_reentrant=use_reentrant) if wrapped else attend(*tensors.values())
    loss.backward()
    return tuple(tensor.grad for tensor in tensors.values() if tensor.grad is not None)


@every_impl
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing(impl: str, use_reentrant: bool) -> None:
    """What was saved is given out a single time: reading it twice ended every model's training."""
    assert_close(gradients(impl, wrapped=True, use_reentrant=use_reentrant), gradients(impl), **EXACT)


@every_impl
def test_saved_tensor_hooks(impl: str) -> None:
    """As for offloading: everything saved leaves and comes back as a copy."""
    expected = gradients(impl)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.detach().clone(), lambda x: x):
        found = gradients(impl)
    with torch.autograd.graph.save_on_cpu():
        offloaded = gradients(impl)
    assert_close(found, expected, rtol=0, atol=0)
    assert_close(offloaded, expected, rtol=0, atol=0)


@every_impl
def test_copies_and_functional_calls_of_a_layer(impl: str) -> None:
    layer = NeighborhoodAttention2D(8, num_heads=2, kernel_size=3, rpb=True, impl=impl).double()
    x = torch.randn(2, 9, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for mode in (True, False):
        layer.train(mode)
        assert_close(copy.deepcopy(layer)(x), layer(x), rtol=0, atol=0)
    doubled = {name: 2 * parameter for name, parameter in layer.named_parameters()}
    other = copy.deepcopy(layer)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    assert_close(functional_call(layer, doubled, (x,)), other(x), rtol=0, atol=0)


@every_impl
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace.*:DeprecationWarning")
def test_a_jit_trace_is_right_or_refused(impl: str) -> None:
    """Traced with a batch of 1 and called with 8, ``tiled`` once gave wrong numbers in 27 % of the places."""
    small, large = (PROBLEM.but(batch=batch, rpb=False, extra=None).tensors() for batch in (1, 8))

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return PROBLEM.attend(impl, {"query": query, "key": key, "value": value})[0]

    if impl == "tiled":
        with pytest.raises(RuntimeError, match=r"torch\.jit\.trace.*torch\.export"):
            torch.jit.trace(attend, tuple(small.values()), check_trace=False)
        return
    traced = torch.jit.trace(attend, tuple(small.values()), check_trace=False)
    assert_close(traced(*large.values()), attend(*large.values()), **EXACT)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace.*:DeprecationWarning")
def test_auto_traces_rightly_at_any_size() -> None:
    """It takes a formulation that can be traced."""
    problem = Problem((40, 41), (3, 3), (1, 1), (2, 1), (False, False), batch=1)
    small, large = (problem.but(batch=batch).tensors() for batch in (1, 3))

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return problem.attend("auto", {"query": query, "key": key, "value": value})[0]

    traced = torch.jit.trace(attend, tuple(small.values()), check_trace=False)
    assert_close(traced(*large.values()), attend(*large.values()), **EXACT)
