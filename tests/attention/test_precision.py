"""Rounding: measured against float64, and held to twice what plain PyTorch makes in the same dtype.

An absolute tolerance says little: the output of a wide window is small, so much of it may be wrong and still pass.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dinat_ref import neighborhood_attention
from tests.plain import full_attention, window_mask
from tests.strategies import IMPLS, Problem

BUDGET = 2

PROBLEMS = {
    "1d": Problem((130,), (16,), (1,), (5,), (False,), head_dim=32, head_dim_v=24, seed=1),
    "1d causal stride": Problem((110,), (12,), (5,), (3,), (True,), heads_kv=1, head_dim=16, extra=3, seed=2),
    "2d bias": Problem((10, 11), (5, 3), (1, 1), (2, 3), (False, False), head_dim=32, head_dim_v=32, rpb=True, seed=3),
    "2d": Problem((9, 8), (4, 5), (3, 2), (2, 1), (False, True), heads_kv=1, head_dim=64, seed=4),
    "3d": Problem((5, 6, 7), (3, 4, 2), (1, 2, 1), (1, 1, 3), (True, False, False), head_dim=16, rpb=True, seed=5),
}

Attend = Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]


def results(attend: Attend, tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Output, lse and the gradients of all tensors, computed in a dtype and shown in float64."""
    inputs = {name: tensor.to(dtype).requires_grad_() for name, tensor in tensors.items()}
    output, lse = attend(inputs)
    generator = torch.Generator().manual_seed(0)
    incoming = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(torch.bfloat16)
    gradients = torch.autograd.grad(output, list(inputs.values()), incoming.to(output.dtype))
    named = {
        "output": output,
        "lse": lse,
        **{f"gradient of {name}": g for name, g in zip(inputs, gradients, strict=True)},
    }
    return {name: tensor.detach().double() for name, tensor in named.items()}


@lru_cache
def yardsticks(name: str, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Attention over all pairs under a mask, on the same rounded numbers: in float64, and its error in ``dtype``."""
    problem = PROBLEMS[name]
    mask, tensors = window_mask(problem), problem.tensors(dtype)
    exact = results(lambda inputs: full_attention(problem, inputs, mask), tensors, torch.float64)
    plain = results(lambda inputs: full_attention(problem, inputs, mask), tensors, dtype)
    return exact, {what: plain[what] - reference for what, reference in exact.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_error_is_within_twice_that_of_plain_pytorch(name: str, impl: str, dtype: torch.dtype) -> None:
    """The typical error; in half precision, where a formulation rounds less often than plain PyTorch, the worst too.

    In float32 both round equally often, and which of many thousand sums ends worst depends on their order alone.
    """
    problem = PROBLEMS[name]
    exact, plain_error = yardsticks(name, dtype)
    actual = results(lambda inputs: problem.attend(impl, inputs), problem.tensors(dtype), dtype)
    for what, reference in exact.items():
        assert float(reference.abs().max()) > 0.1, f"{what} is too small to tell a result from zeros"
        for measure in (typical,) if dtype == torch.float32 else (typical, worst):
            error, allowed = measure(actual[what] - reference), BUDGET * measure(plain_error[what])
            assert error <= allowed, f"{what}: {measure.__name__} error {error:.3g}, budget {allowed:.3g}"


def worst(error: Tensor) -> float:
    return float(error.abs().max())


def typical(error: Tensor) -> float:
    return float(error.square().mean().sqrt())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("impl", IMPLS)
def test_half_precision_is_float32_rounded_once(impl: str, dtype: torch.dtype) -> None:
    """Scores and softmax are taken in float32: the output is the float32 one, rounded; the lse is the same."""
    for problem in PROBLEMS.values():
        tensors = problem.tensors(dtype)
        output, lse = problem.attend(impl, tensors)
        wide_output, wide_lse = problem.attend(impl, {name: tensor.float() for name, tensor in tensors.items()})
        assert_close(output, wide_output.to(dtype), rtol=0, atol=0)
        assert_close(lse, wide_lse, rtol=0, atol=0)


@pytest.mark.parametrize("impl", IMPLS)
def test_bias_may_stay_float32_beside_bfloat16(impl: str) -> None:
    """A parameter is often kept in float32: it is used as it is, and its gradient comes back in float32."""
    problem = PROBLEMS["3d"]
    tensors = problem.tensors(torch.bfloat16)
    tensors["rpb"] = problem.tensors(torch.float32)["rpb"].requires_grad_()
    output, _ = problem.attend(impl, tensors)
    wide, _ = problem.attend(impl, {name: tensor.float() for name, tensor in tensors.items()})
    assert_close(output, wide.bfloat16(), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(output.float().sum(), tensors["rpb"])
    assert gradient.dtype == torch.float32


@pytest.fixture
def products_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """A processor that multiplies bfloat16 numbers and sums in float32, or one whose libraries do; the dtypes used."""
    seen = []

    def spy(query: Tensor, *others: Any, **options: Any) -> Tensor:
        seen.append(query.dtype)
        return torch.nn.functional.scaled_dot_product_attention(query, *others, **options)

    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr("dinat_ref.attention.tiled.scaled_dot_product_attention", spy)
    return seen


@pytest.mark.parametrize("name", PROBLEMS)
def test_products_of_bfloat16_keep_within_the_same_budget(name: str, products_of_bfloat16: list[torch.dtype]) -> None:
    """Without lse, tiles are left to PyTorch's fused attention as they are; gradients are taken in float32."""
    problem, dtype = PROBLEMS[name], torch.bfloat16

    def attend(inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        output = neighborhood_attention(**inputs, **problem.where, scale=problem.scale, impl="tiled")
        assert isinstance(output, Tensor)
        return output, torch.ones(())

    exact, plain_error = yardsticks(name, dtype)
    actual = results(attend, problem.tensors(dtype), dtype)
    for what in exact.keys() - {"lse"}:
        for measure in (typical, worst):
            error, allowed = measure(actual[what] - exact[what]), BUDGET * measure(plain_error[what])
            assert error <= allowed, f"{what}: {measure.__name__} error {error:.3g}, budget {allowed:.3g}"
    assert set(products_of_bfloat16) == {dtype}


@pytest.mark.usefixtures("products_of_bfloat16")
@pytest.mark.parametrize("bits", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("name", ["query", "key", "value"])
@pytest.mark.parametrize("problem", ["1d", "1d causal stride", "2d bias"])
def test_products_of_bfloat16_do_not_leak(problem: str, name: str, bits: float) -> None:
    """What is not finite, or makes a score overflow, spoils those that attend it and nobody else, backwards too."""
    found = {}
    for impl in ("tiled", "gather"):
        tensors = PROBLEMS[problem].tensors(torch.bfloat16)
        tensors[name].flatten(1, -3)[0, 40, :, 0] = bits
        leaves = {name: x.requires_grad_() for name, x in tensors.items()}
        where = PROBLEMS[problem].where
        output = neighborhood_attention(**leaves, **where, impl=impl)
        assert isinstance(output, Tensor)
        untouched = torch.where(output.isfinite(), output, 0.0)[:, :20]
        found[impl] = output, torch.autograd.grad(untouched.float().sum(), leaves["value"])[0]
    for actual, expected in zip(found["tiled"], found["gather"], strict=True):
        finite = expected.isfinite()
        assert_close(actual[finite], expected[finite])
    assert not (found["tiled"][0].isfinite() & ~found["gather"][0].isfinite()).any()


def test_other_processors_take_bfloat16_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    problem = PROBLEMS["1d"]
    tensors = problem.tensors(torch.bfloat16)
    output = neighborhood_attention(**tensors, **problem.where, impl="tiled")
    assert isinstance(output, Tensor)
    wide = neighborhood_attention(**{name: x.float() for name, x in tensors.items()}, **problem.where, impl="tiled")
    assert isinstance(wide, Tensor)
    assert_close(output, wide.bfloat16(), rtol=0, atol=0)
