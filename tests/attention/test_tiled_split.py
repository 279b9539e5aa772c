"""The two halves on tiles against the two halves by index table, and their gradients of any order."""

import pytest
import torch
from hypothesis import example, given
from torch import Tensor
from torch.testing import assert_close

from dinat_ref.attention import chunks
from dinat_ref.attention.gather import gather_scores, gather_values
from dinat_ref.attention.operands import prepare
from dinat_ref.attention.split import neighborhood_av, neighborhood_qk
from dinat_ref.attention.tiled_split import tiled_scores, tiled_values
from tests.strategies import Problem, problems

EXACT = {"rtol": 1e-12, "atol": 1e-12}
IMAGE = Problem((23, 21), (5, 3), (1, 2), (2, 1), (False, True), heads=4, heads_kv=2, rpb=True, extra=2, seed=7)


def both_ways(problem: Problem, dtype: torch.dtype = torch.float64) -> dict[str, list[Tensor]]:
    """Scores, sums and the gradients of both, by tiles and by the index table."""
    found = {}
    for name, scores_of, sum_up in (("tiles", tiled_scores, tiled_values), ("table", gather_scores, gather_values)):
        tensors = problem.tensors(dtype, requires_grad=True)
        operands = prepare(neighborhood=problem.neighborhood, scale=problem.scale, **tensors)
        scores = scores_of(operands)
        weights = scores.softmax(-1)
        output = sum_up(weights, operands.value, operands.neighborhood, operands.additional_values)
        shown = scores.masked_fill(scores == -torch.inf, 0.0)
        gradients = torch.autograd.grad(
            shown.sin().sum() + output.sin().sum(), list(tensors.values()), materialize_grads=True
        )
        found[name] = [scores, output, *gradients]
    return found


@given(problem=problems())
@example(IMAGE)
@example(IMAGE.but(dilation=(4, 7), stride=(1, 1)))  # windows that are their whole slabs
def test_tiles_give_what_the_index_table_gives(problem: Problem) -> None:
    found = both_ways(problem)
    assert_close(found["tiles"], found["table"], **EXACT)


@pytest.mark.parametrize("numbers", [1, 700])
def test_chunks_of_any_size(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "NUMBERS_PER_CHUNK", numbers)
    found = both_ways(IMAGE)
    assert_close(found["tiles"], found["table"], **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_lower_dtypes_are_computed_in_float32(dtype: torch.dtype) -> None:
    """Both sum in float32; they differ by the order of sums."""
    tensors = IMAGE.but(rpb=False, extra=None).tensors(dtype)
    scores = neighborhood_qk(tensors["query"], tensors["key"], **IMAGE.where)
    wide = neighborhood_qk(tensors["query"].double(), tensors["key"].double(), **IMAGE.where)
    assert scores.dtype == dtype
    rounding = torch.finfo(dtype).eps
    assert_close(scores, wide.to(dtype), rtol=2 * rounding, atol=8 * torch.finfo(torch.float32).eps)
    weights = wide.softmax(-1).to(dtype)
    sums = neighborhood_av(weights, tensors["value"], **IMAGE.where)
    exact = neighborhood_av(weights.double(), tensors["value"].double(), **IMAGE.where)
    assert_close(sums, exact.to(dtype), rtol=2 * rounding, atol=8 * torch.finfo(torch.float32).eps)


def test_gradients_of_first_and_second_order() -> None:
    """Against finite differences: the three derivatives of one form are each other's gradients."""
    problem = Problem((7,), (3,), (2,), (2,), (True,), batch=1, heads=2, heads_kv=1, head_dim=2, head_dim_v=2)
    tensors = problem.tensors(requires_grad=True)

    def halves(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return neighborhood_av(neighborhood_qk(query, key, **problem.where).softmax(-1), value, **problem.where)

    assert torch.autograd.gradcheck(halves, tuple(tensors.values()))
    assert torch.autograd.gradgradcheck(halves, tuple(tensors.values()))


@pytest.mark.parametrize("bits", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_what_lies_outside_a_window_does_not_matter(name: str, bits: float) -> None:
    """Outputs and gradients of the queries that do not attend the odd number are those of clean tensors."""
    problem = Problem((40,), (3,), (1,), (3,), (False,), heads=1, heads_kv=1, seed=2)
    results = []
    for poisoned in (False, True):
        tensors = problem.tensors(torch.float32)
        if poisoned:
            tensors[name][0, 20] = bits
        leaves = {key: tensor.requires_grad_() for key, tensor in tensors.items()}
        weights = neighborhood_qk(leaves["query"], leaves["key"], **problem.where).softmax(-1)
        output = neighborhood_av(weights, leaves["value"], **problem.where)
        far = [n for n in range(40) if abs(n - 20) > 6]  # beyond the windows of 20 and of its neighbors
        loss = output[:, far].square().sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        very_far = [n for n in range(40) if abs(n - 20) > 12]
        results.append([output[:, far].detach(), *(gradient[:, very_far] for gradient in gradients)])
    assert_close(results[1], results[0], rtol=1e-6, atol=1e-6)
