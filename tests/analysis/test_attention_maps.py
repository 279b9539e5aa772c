"""Maps hold the same numbers as the operator: P V is its output, and P^T dO its gradient."""

from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from dinat_ref import Neighborhood, neighborhood_attention, neighborhood_weights
from dinat_ref.analysis.attention_maps import attention_map, entropy, reach, rollout, scatter_weights


@dataclass(frozen=True)
class Problem:
    """A neighborhood, and a seed for tensors with grouped heads, a bias and some additional keys."""

    neighborhood: Neighborhood
    extra: int
    seed: int

    def tensors(self) -> dict[str, Tensor]:
        layout, kernel, extra = self.neighborhood.layout, self.neighborhood.kernel_size, self.extra
        shapes = {
            "query": (2, *layout, 4, 3),
            "key": (2, *layout, 2, 3),
            "value": (2, *layout, 2, 5),
            "rpb": (4, *(2 * size - 1 for size in kernel)),
            "additional_keys": (2, extra, 2, 3),
        }
        generator = torch.Generator().manual_seed(self.seed)
        return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    layout = tuple(draw(st.lists(st.integers(2, 7), min_size=1, max_size=2)))
    kernel = tuple(draw(st.integers(1, length)) for length in layout)
    dilation = tuple(draw(st.integers(1, length // size)) for length, size in zip(layout, kernel, strict=True))
    stride = tuple(draw(st.integers(1, size)) for size in kernel)
    causal = tuple(draw(st.booleans()) for _ in layout)
    return Problem(
        Neighborhood(layout, kernel, stride, dilation, causal), draw(st.integers(0, 2)), draw(st.integers(0, 999))
    )


def arguments(neighborhood: Neighborhood) -> tuple[tuple[int, ...], ...]:
    return neighborhood.kernel_size, neighborhood.stride, neighborhood.dilation, neighborhood.is_causal


@given(problems())
def test_scattered_weights_times_values_are_the_output(problem: Problem) -> None:
    neighborhood, tensors = problem.neighborhood, problem.tensors()
    query, key, value, rpb = (tensors[name] for name in ("query", "key", "value", "rpb"))
    weights = neighborhood_weights(query, key, *arguments(neighborhood), rpb=rpb)
    matrix = scatter_weights(weights, neighborhood)  # [B, H, N, N]
    values = value.flatten(1, -3).repeat_interleave(2, dim=2).transpose(1, 2)  # [B, H, N, Dv]
    expected = neighborhood_attention(query, key, value, *arguments(neighborhood), rpb=rpb)
    output = (matrix @ values).transpose(1, 2).unflatten(1, neighborhood.layout)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(matrix != 0, neighborhood.mask().expand_as(matrix), rtol=0, atol=0)


@given(problems())
def test_additional_keys_are_left_out_of_maps(problem: Problem) -> None:
    neighborhood, tensors = problem.neighborhood, problem.tensors()
    weights = neighborhood_weights(
        tensors["query"], tensors["key"], *arguments(neighborhood), additional_keys=tensors["additional_keys"]
    )
    sums = scatter_weights(weights, neighborhood).sum(-1)  # [B, H, N]
    taken = weights[..., neighborhood.num_keys :].sum(-1).flatten(1, -2).transpose(1, 2)
    torch.testing.assert_close(sums, 1 - taken, rtol=1e-12, atol=1e-12)
    assert weights.shape[-1] == neighborhood.num_keys + problem.extra


@given(problems())
def test_one_query_is_one_row(problem: Problem) -> None:
    neighborhood, tensors = problem.neighborhood, problem.tensors()
    query, key, rpb = (tensors[name] for name in ("query", "key", "rpb"))
    matrix = scatter_weights(neighborhood_weights(query, key, *arguments(neighborhood), rpb=rpb), neighborhood)
    for token in neighborhood.tokens():
        row = attention_map(query, key, token, *arguments(neighborhood), rpb=rpb).flatten(2)
        torch.testing.assert_close(row, matrix[:, :, neighborhood.number(token)], rtol=1e-12, atol=1e-14)


@given(problems())
def test_entropy_and_reach_from_the_dense_matrix(problem: Problem) -> None:
    neighborhood, tensors = problem.neighborhood, problem.tensors()
    weights = neighborhood_weights(tensors["query"], tensors["key"], *arguments(neighborhood))
    matrix = scatter_weights(weights, neighborhood)
    places = torch.tensor(list(neighborhood.tokens()), dtype=torch.float64)  # [N, ndim]
    distances = (places[:, None] - places).norm(dim=-1)  # [N, N]
    expected = (matrix * distances).sum(-1).transpose(1, 2).unflatten(1, neighborhood.layout)
    torch.testing.assert_close(reach(weights, neighborhood), expected, rtol=1e-12, atol=1e-12)
    nats = torch.distributions.Categorical(probs=matrix).entropy().transpose(1, 2).unflatten(1, neighborhood.layout)
    torch.testing.assert_close(entropy(weights), nats, rtol=1e-9, atol=1e-9)
    assert bool((entropy(weights) <= torch.tensor(neighborhood.num_keys).log() + 1e-12).all())


@given(problems(), st.sampled_from([0.0, 0.5, 0.9]))
def test_rollout_is_the_dense_product(problem: Problem, residual: float) -> None:
    neighborhood, tensors = problem.neighborhood, problem.tensors()
    first = neighborhood_weights(tensors["query"], tensors["key"], *arguments(neighborhood))
    second = neighborhood_weights(-tensors["query"], tensors["key"], *arguments(neighborhood))
    eye = torch.eye(neighborhood.num_tokens, dtype=torch.float64)
    dense = [(1 - residual) * scatter_weights(w, neighborhood).mean(1) + residual * eye for w in (first, second)]
    total = rollout([first, second], [neighborhood, neighborhood], residual)
    torch.testing.assert_close(total, dense[1] @ dense[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(total.sum(-1), torch.ones_like(total[..., 0]), rtol=1e-12, atol=1e-12)


@given(problems())
def test_backward_is_the_transpose(problem: Problem) -> None:
    neighborhood, tensors = problem.neighborhood, problem.tensors()
    query, key = tensors["query"], tensors["key"]
    value = tensors["value"].clone().requires_grad_()
    output = neighborhood_attention(query, key, value, *arguments(neighborhood))
    assert isinstance(output, Tensor)
    upstream = torch.sin(torch.arange(output.numel(), dtype=torch.float64)).reshape(output.shape)
    (gradient,) = torch.autograd.grad(output, value, upstream)
    matrix = scatter_weights(neighborhood_weights(query, key, *arguments(neighborhood)), neighborhood)
    per_head = matrix.mT @ upstream.flatten(1, -3).transpose(1, 2)  # [B, H, N, Dv]
    expected = per_head.unflatten(1, (2, 2)).sum(2).transpose(1, 2).unflatten(1, neighborhood.layout)
    torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-12)


def test_refuses_what_does_not_fit() -> None:
    neighborhood, zeros = Neighborhood((5,), 3), torch.zeros(1, 5, 1, 1)
    weights = neighborhood_weights(zeros, zeros, 3)
    with pytest.raises(ValueError, match=r"weights must be \[B, 5, H, 3 or more\]"):
        scatter_weights(weights[..., :2], neighborhood)
    with pytest.raises(ValueError, match="token must lie in the layout"):
        attention_map(zeros, zeros, (5,), 3)
    with pytest.raises(ValueError, match="equally many"):
        rollout([weights], [])
    with pytest.raises(ValueError, match="residual must be in 0"):
        rollout([weights], [neighborhood], residual=2)
