"""Scores at the limits of their dtype: from subnormal to 1e38, all equal, all but one absent; against exact rationals.

Queries and keys are small integers times powers of two, so that scores carry no rounding error of their own, however
large they are: what is left is the softmax's.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import example, given
from torch import Tensor
from torch.testing import assert_close

from dinat_ref import merge_attentions, neighborhood_attention
from dinat_ref.attention.split import neighborhood_weights
from tests import oracle
from tests.plain import token_list
from tests.strategies import IMPLS, Problem, problems

EXPONENTS = {
    torch.float64: (-1060, 500),
    torch.float32: (-140, 60),
    torch.bfloat16: (-130, 60),
    torch.float16: (-14, 12),
}

every_impl = pytest.mark.parametrize("impl", IMPLS)


@dataclass(frozen=True)
class Limits:
    """A problem and the powers of two of its tokens: one number means that all tokens share it."""

    problem: Problem
    dtype: torch.dtype
    query: int | None
    key: int | None

    def tensors(self) -> dict[str, Tensor]:
        """Integers from -3 to 3, times 2 ** exponent; values are integers."""
        generator = torch.Generator().manual_seed(self.problem.seed)
        tensors = {}
        for name, shape in self.problem.shapes().items():
            tensor = torch.randint(-3, 4, shape, generator=generator).double()
            if name != "value":
                shared = self.query if name == "query" else self.key
                drawn = torch.randint(*EXPONENTS[self.dtype], (*shape[:-1], 1), generator=generator)
                tensor = torch.ldexp(tensor, drawn if shared is None else torch.tensor(shared))
            tensors[name] = tensor.to(self.dtype).requires_grad_()
        return tensors


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    problem = draw(problems(plain=True, empty=False)).but(batch=1, scale=1.0, strided=False)
    dtype = draw(st.sampled_from(list(EXPONENTS)))
    exponent = st.none() | st.sampled_from(EXPONENTS[dtype]) | st.integers(*EXPONENTS[dtype])
    return Limits(problem, dtype, draw(exponent), draw(exponent))


def exactly(case: Limits, tensors: dict[str, Tensor], incoming: Tensor) -> dict[str, Tensor]:
    """Output, lse and gradients of sum(output * incoming) in float64, from scores that are exact fractions."""
    problem = case.problem
    query, key, value, d_out = (
        x.detach().double().flatten(1, -3)[0] for x in (*tensors.values(), incoming)
    )  # [N, H, D]
    number = {token: n for n, token in enumerate(token_list(problem))}
    repeats = problem.heads // problem.heads_kv
    output, lse = torch.zeros(d_out.shape, dtype=torch.float64), torch.zeros(d_out.shape[:-1], dtype=torch.float64)
    d_query, d_key, d_value = (torch.zeros_like(x) for x in (query, key, value))
    for token, n in number.items():
        keys = [number[neighbor] for neighbor in oracle.neighbors(token, problem.axes)]
        for h in range(problem.heads):
            q, k, v = query[n, h], key[keys, h // repeats], value[keys, h // repeats]
            scores = [
                sum(Fraction(a) * Fraction(b) for a, b in zip(q.tolist(), row, strict=True)) for row in k.tolist()
            ]
            highest = max(scores)
            weights = torch.tensor([math.exp(max(score - highest, -10_000)) for score in scores], dtype=torch.float64)
            lse[n, h] = float(highest + Fraction(math.log(weights.sum())))
            weights /= weights.sum()
            output[n, h] = weights @ v
            d_weights = v @ d_out[n, h]
            d_scores = weights * (d_weights - weights @ d_weights)
            d_query[n, h] = d_scores @ k
            d_key.index_put_((torch.tensor(keys), torch.tensor(h // repeats)), d_scores[:, None] * q, accumulate=True)
            d_value.index_put_(
                (torch.tensor(keys), torch.tensor(h // repeats)), weights[:, None] * d_out[n, h], accumulate=True
            )
    return {"output": output, "lse": lse, "query": d_query, "key": d_key, "value": d_value}


PLAIN = Problem((7,), (3,), (1,), (1,), (False,), batch=1, heads=1, heads_kv=1, head_dim=2, scale=1.0)


@every_impl
@given(case=limits())
@example(Limits(PLAIN, torch.float32, 60, 60))  # scores of 1e37
@example(Limits(PLAIN, torch.float32, 8, 8))  # a lse rounded to whole numbers once gave weights of 5
@example(Limits(PLAIN, torch.float32, -140, 60))
@example(Limits(PLAIN, torch.float64, 500, 500))
def test_scores_of_any_size_give_the_exact_softmax(impl: str, case: Limits) -> None:
    """Forward, lse and gradients; the bound of a gradient's error is that of the sum it comes from."""
    tensors = case.tensors()
    output, lse = case.problem.attend(impl, tensors)
    incoming = torch.randint(-3, 4, output.shape, generator=torch.Generator().manual_seed(1)).to(case.dtype)
    gradients = torch.autograd.grad(output, list(tensors.values()), incoming)
    without_lse = neighborhood_attention(
        **{name: tensor.detach() for name, tensor in tensors.items()}, **case.problem.where, scale=1.0, impl=impl
    )
    exact = exactly(case, tensors, incoming)
    found = {"output": output, "lse": lse, **dict(zip(tensors, gradients, strict=True))}
    found = {
        name: tensor.detach().double().flatten(1, -3 if name != "lse" else -2)[0] for name, tensor in found.items()
    }
    largest = {name: float(tensor.detach().double().abs().max()) for name, tensor in tensors.items()}
    sums = case.problem.neighborhood.num_tokens * 3 * case.problem.head_dim_v
    size = {
        "output": 3.0,
        "lse": 1.0,
        "value": sums,
        "query": 6 * sums * largest["key"],
        "key": 6 * sums * largest["query"],
    }
    info = torch.finfo(case.dtype)
    rounding, smallest = 8 * info.eps, sums * info.tiny * info.eps
    for name, reference in exact.items():
        eps, actual = rounding if name != "lse" else 8 * torch.finfo(lse.dtype).eps, found[name]
        if name != "lse":  # a gradient may exceed what its dtype holds
            reference, actual = reference.clamp(info.min, info.max), actual.clamp(info.min, info.max)
        assert_close(actual, reference, rtol=eps, atol=eps * size[name] + smallest, msg=f"{impl}: {name}")
    assert_close(without_lse.double().flatten(1, -3)[0], exact["output"], rtol=rounding, atol=3 * rounding)


@every_impl
@pytest.mark.parametrize("size", [1e3, 6e4, 1e9, 1e18])
def test_equal_scores_give_the_mean(impl: str, size: float) -> None:
    """The report: ``q = full(1000.)`` and values of one came back as 1.1157, at 6e4 as 5."""
    query = torch.full((1, 60, 1, 8), size)
    value = torch.ones(1, 60, 1, 8)
    for return_lse in (False, True):
        result = neighborhood_attention(query, query, value, 5, impl=impl, return_lse=return_lse)
        output = result[0] if isinstance(result, tuple) else result
        assert_close(output, value, rtol=1e-6, atol=0)
    weights = neighborhood_weights(query, query, 5)
    assert_close(weights, torch.full_like(weights, 0.2), rtol=1e-6, atol=0)


@every_impl
def test_scores_of_minus_infinity(impl: str) -> None:
    """A score of minus infinity is no key; without any key the output is 0, the lse minus infinity, gradients 0."""
    problem = Problem((9,), (3,), (1,), (1,), (False,), heads=1, heads_kv=1, rpb=True, seed=3)
    tensors = problem.tensors(torch.float32)
    tensors["rpb"] = torch.tensor([[0.0, -torch.inf, 0.0, -torch.inf, -torch.inf]])  # of -2 .. 2 steps
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
    output, lse = problem.attend(impl, leaves)
    last = neighborhood_attention(**tensors, **problem.where, impl=impl)
    # in the interior only the query itself is left, at the right edge that and the token two steps back
    assert_close(output[:, :8], tensors["value"][:, :8], rtol=1e-6, atol=1e-6)
    key, value = tensors["key"][:, [6, 8], 0], tensors["value"][:, [6, 8], 0]  # [B, 2, D]
    weights = (torch.einsum("bd,bkd->bk", tensors["query"][:, 8, 0], key) * 3**-0.5).softmax(-1)
    assert_close(output[:, 8, 0], torch.einsum("bk,bkd->bd", weights, value), rtol=1e-5, atol=1e-6)
    assert_close(output.detach(), last, rtol=1e-6, atol=1e-6)
    none = tensors | {"rpb": torch.full((1, 5), -torch.inf)}
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in none.items()}
    output, lse = problem.attend(impl, leaves)
    assert_close(output.detach(), torch.zeros_like(output), rtol=0, atol=0)
    assert_close(lse.detach(), torch.full_like(lse, -torch.inf), rtol=0, atol=0)
    gradients = torch.autograd.grad(output.sum(), list(leaves.values()))
    for gradient in gradients:
        assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=0)


def test_merging_takes_parts_of_any_size() -> None:
    """The lse of a part that is far above the others decides alone; a part without keys counts nothing."""
    outputs = [torch.full((1, 1, 1, 2), float(n)) for n in range(4)]
    lses = [torch.full((1, 1, 1), size) for size in (-3e38, 3e38, -torch.inf, 3e38)]
    output, lse = merge_attentions(outputs, lses)
    assert_close(output, torch.full((1, 1, 1, 2), 2.0), rtol=1e-6, atol=0)
    assert_close(lse, torch.full((1, 1, 1), 3e38), rtol=1e-6, atol=0)
    output, lse = merge_attentions(outputs[:2], [torch.full((1, 1, 1), -torch.inf)] * 2)
    assert_close((output, lse), (torch.zeros(1, 1, 1, 2), torch.full((1, 1, 1), -torch.inf)), rtol=0, atol=0)
