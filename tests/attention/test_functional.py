"""The front door: names and order of arguments, one door per number of axes, and the rule of "auto"."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from dinat_ref import na1d, na2d, na3d, neighborhood_attention
from dinat_ref.attention.functional import FORMULATIONS, choose
from dinat_ref.attention.operands import prepare
from dinat_ref.neighborhood import Neighborhood
from tests.strategies import IMPLS, Problem

DOORS: dict[int, Callable[..., Any]] = {1: na1d, 2: na2d, 3: na3d}
PROBLEMS = {
    1: Problem((7,), (3,), (2,), (2,), (True,), heads_kv=1, extra=2, rpb=True),
    2: Problem((5, 7), (3, 2), (2, 1), (1, 3), (True, False), heads_kv=1, extra=2, rpb=True),
    3: Problem((3, 4, 5), (3, 2, 2), (2, 1, 2), (1, 2, 1), (True, False, False), heads_kv=1, extra=2, rpb=True),
}


@pytest.mark.parametrize("ndim", DOORS)
@pytest.mark.parametrize("impl", IMPLS)
def test_doors_lead_to_the_operator(ndim: int, impl: str) -> None:
    problem = PROBLEMS[ndim]
    tensors = problem.tensors()
    result = DOORS[ndim](**tensors, **problem.where, return_lse=True, impl=impl)
    assert_close(result, problem.attend(impl, tensors), rtol=0, atol=0)


@pytest.mark.parametrize("ndim", DOORS)
def test_a_call_written_for_natten_runs_unchanged(ndim: int) -> None:
    """Positional arguments in NATTEN 0.21's order."""
    problem = PROBLEMS[ndim].but(rpb=False)
    tensors = problem.tensors()
    keyword = DOORS[ndim](**tensors, **problem.where, scale=0.3)
    positional = DOORS[ndim](
        tensors["query"],
        tensors["key"],
        tensors["value"],
        problem.kernel_size,
        problem.stride,
        problem.dilation,
        problem.is_causal,
        0.3,
        tensors["additional_keys"],
        tensors["additional_values"],
    )
    assert_close(positional, keyword, rtol=0, atol=0)


def test_all_doors_have_one_signature() -> None:
    signatures = {str(inspect.signature(door)) for door in (*DOORS.values(), neighborhood_attention)}
    assert len(signatures) == 1
    names = list(inspect.signature(na2d).parameters)
    assert names[:7] == ["query", "key", "value", "kernel_size", "stride", "dilation", "is_causal"]
    assert names[7:] == ["scale", "additional_keys", "additional_values", "rpb", "key_mask", "return_lse", "impl"]


@pytest.mark.parametrize("ndim", DOORS)
def test_a_door_refuses_another_number_of_axes(ndim: int) -> None:
    for other, problem in PROBLEMS.items():
        if other != ndim:
            with pytest.raises(ValueError, match=rf"^query must be .* with {ndim} axes, got \("):
                DOORS[ndim](**problem.tensors(), **problem.where)


@pytest.mark.parametrize("ndim", DOORS)
def test_one_number_stands_for_every_axis(ndim: int) -> None:
    problem = PROBLEMS[ndim].but(rpb=False)
    tensors = problem.tensors()
    one = DOORS[ndim](**tensors, kernel_size=2, stride=2, dilation=1, is_causal=True)
    each = DOORS[ndim](
        **tensors, kernel_size=[2] * ndim, stride=[2] * ndim, dilation=[1] * ndim, is_causal=[True] * ndim
    )
    assert_close(one, each, rtol=0, atol=0)


def test_examples_of_the_contract() -> None:
    """Zero queries average the window: at the edges of 0 1 2 3 4 the windows are shifted."""
    x = torch.arange(5.0).reshape(1, 5, 1, 1)
    for impl in IMPLS:
        output = na1d(torch.zeros_like(x), x, x, kernel_size=3, impl=impl)
        assert_close(output.flatten(), torch.tensor([1.0, 1.0, 2.0, 3.0, 3.0]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", [(1,), (4, 4), (100,), (17, 16), (130, 130), (20_000,), (40, 30, 20)])
def test_auto_never_takes_much_memory_or_time(layout: tuple[int, ...]) -> None:
    """It names a formulation, never the slow definition, and the dense mask on small problems only."""
    query = torch.zeros(1, *layout, 1, 1)
    name = choose(prepare(query, query, query, Neighborhood(layout, 1)))
    assert name in FORMULATIONS
    assert name != "loops"
    assert name != "masked" or query.numel() <= 16_000


def test_auto_takes_full_attention_for_what_it_is() -> None:
    """Where every window is the whole layout there is nothing to tile, unless its scores would fill the memory."""
    query = torch.zeros(8, 7, 7, 16, 1)
    assert choose(prepare(query, query, query, Neighborhood((7, 7), 7))) == "masked"
    assert choose(prepare(query, query, query, Neighborhood((7, 7), 5))) == "tiled"
    query = torch.zeros(1, 64, 64, 1, 1)
    assert choose(prepare(query, query, query, Neighborhood((64, 64), 64))) == "tiled"
