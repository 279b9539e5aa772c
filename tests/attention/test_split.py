"""The operator in halves: scores, weights, values."""

import re

import pytest
import torch
from hypothesis import given
from torch.autograd import gradcheck
from torch.testing import assert_close

from dinat_ref import neighborhood_av, neighborhood_qk, neighborhood_weights
from tests.plain import token_list
from tests.strategies import Problem, problems

EXACT = {"rtol": 1e-12, "atol": 1e-12}


@given(problem=problems())
def test_halves_make_the_whole(problem: Problem) -> None:
    """Softmax of the scores, times the values: the output; logsumexp of the scores: the lse."""
    tensors = problem.tensors()
    value, additional_values = tensors.pop("value"), tensors.pop("additional_values", None)
    scores = neighborhood_qk(**tensors, **problem.where, scale=problem.scale)
    weights = neighborhood_weights(**tensors, **problem.where, scale=problem.scale)
    output = neighborhood_av(weights, value, **problem.where, additional_values=additional_values)
    tensors["value"] = value
    if additional_values is not None:
        tensors["additional_values"] = additional_values
    expected, lse = problem.attend("loops", tensors)
    assert_close(scores.softmax(-1), weights, **EXACT)
    assert_close(scores.logsumexp(-1), lse, **EXACT)
    assert_close(output, expected, **EXACT)


@given(problem=problems())
def test_scores_one_by_one(problem: Problem) -> None:
    """scale * <q_i, k_j> + rpb, keys in the order of ``indices``, -inf where a causal window has no key."""
    tensors = {name: tensor for name, tensor in problem.tensors().items() if "value" not in name}
    scores = neighborhood_qk(**tensors, **problem.where, scale=problem.scale).flatten(1, -3)  # [B, N, H, K + M]
    neighborhood = problem.neighborhood
    indices, valid, tokens = neighborhood.indices(), neighborhood.valid(), token_list(problem)
    num_keys, head = neighborhood.num_keys, problem.heads - 1
    scale = problem.head_dim**-0.5 if problem.scale is None else problem.scale
    query, key = tensors["query"].flatten(1, -3)[:, :, head], tensors["key"].flatten(1, -3)[:, :, -1]
    assert scores.shape == (problem.batch, len(tokens), problem.heads, num_keys + (problem.extra or 0))
    for i in {0, len(tokens) // 2, len(tokens) - 1}:
        for slot, j in enumerate(indices[i].tolist()):
            expected = scale * (query[:, i] * key[:, j]).sum(-1)
            if problem.rpb:
                axes = zip(tokens[i], tokens[j], problem.dilation, problem.kernel_size, strict=True)
                expected = expected + tensors["rpb"][(head, *((b - a) // d + k - 1 for a, b, d, k in axes))]
            if not valid[i, slot]:
                expected = torch.full_like(expected, -torch.inf)
            assert_close(scores[:, i, head, slot], expected, **EXACT)


@given(problem=problems())
def test_rows_of_weights_sum_to_one(problem: Problem) -> None:
    tensors = {name: tensor for name, tensor in problem.tensors().items() if "value" not in name}
    weights = neighborhood_weights(**tensors, **problem.where, scale=problem.scale)
    assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), **EXACT)
    assert bool((weights >= 0).all())


@given(problem=problems(plain=True))
def test_weights_need_not_sum_to_one(problem: Problem) -> None:
    """All ones: the plain sum over the window; linear in the weights."""
    tensors, num_keys = problem.tensors(), problem.neighborhood.num_keys
    generator = torch.Generator().manual_seed(problem.seed)
    shape = (problem.batch, *problem.layout, problem.heads, num_keys)
    one, two = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    sums = [neighborhood_av(weights, tensors["value"], **problem.where) for weights in (one, two, one - 3 * two)]
    assert_close(sums[2], sums[0] - 3 * sums[1], rtol=1e-11, atol=1e-11)


def test_derivatives() -> None:
    problem = Problem((4, 3), (2, 3), (1, 2), (2, 1), (True, False), 1, 2, 1, 2, 1, rpb=True, extra=1)
    tensors = problem.tensors(requires_grad=True)
    value, additional = tensors["value"], tensors["additional_values"]

    def weights(query: torch.Tensor, key: torch.Tensor, rpb: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
        return neighborhood_weights(query, key, **problem.where, additional_keys=extra, rpb=rpb)

    shown = [tensors[name] for name in ("query", "key", "rpb", "additional_keys")]
    assert gradcheck(weights, shown, fast_mode=True)
    fixed = weights(*shown).detach().requires_grad_()
    inputs = (fixed, value, additional)
    assert gradcheck(
        lambda w, v, a: neighborhood_av(w, v, **problem.where, additional_values=a), inputs, fast_mode=True
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    problem = Problem((5,), (3,), (1,), (1,), (True,))
    tensors = problem.tensors(dtype)
    weights = neighborhood_weights(tensors["query"], tensors["key"], **problem.where)
    assert weights.dtype == dtype
    assert neighborhood_qk(tensors["query"], tensors["key"], **problem.where).dtype == dtype
    assert neighborhood_av(weights, tensors["value"], **problem.where).dtype == dtype
    assert neighborhood_av(weights.float(), tensors["value"], **problem.where).dtype == dtype  # value's own


def test_errors() -> None:
    value = torch.zeros(2, 5, 7, 2, 3)
    for shape in ((2, 5, 7, 2, 8), (2, 7, 5, 2, 9), (1, 5, 7, 2, 9), (2, 5, 7, 9)):
        with pytest.raises(ValueError, match=f"^weights must be .*got {re.escape(str(shape))}$"):
            neighborhood_av(torch.zeros(shape), value, kernel_size=3)
    with pytest.raises(ValueError, match=r"^weights' heads must be a multiple of value's heads, got 3 and 2$"):
        neighborhood_av(torch.zeros(2, 5, 7, 3, 9), value, kernel_size=3)
    with pytest.raises(ValueError, match=r"^value must be \[batch"):
        neighborhood_av(torch.zeros(2, 5, 7, 2, 9), torch.zeros(2, 5, 3), kernel_size=3)
