"""What lies outside a window must not matter, whatever its bits: neither for outputs nor for gradients."""

import functools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from dinat_ref import neighborhood_attention
from dinat_ref.attention.outside import finite_part, known_harmless, mix, pair_products
from tests.strategies import IMPLS, Problem, problems

BITS = [float("nan"), float("inf"), -float("inf"), 3e38, -3e38]
SMALL = {"rtol": 2e-4, "atol": 2e-5}

every_impl = pytest.mark.parametrize("impl", IMPLS[1:])


def poisoned(problem: Problem, name: str, bits: float, place: float) -> dict[str, Tensor]:
    """The tensors of a problem in float32, one number of one of them replaced."""
    tensors = problem.tensors(torch.float32)
    flat = tensors[name].flatten(1, -3)  # a copy where the tensor is strided
    flat[0, int(place * (flat.shape[1] - 1)), 0, 0] = bits
    return tensors | {name: flat.unflatten(1, problem.layout)}


def untouched(problem: Problem, tensors: dict[str, Tensor]) -> Tensor:
    """Which outputs are the same to the last bit as without the odd number: bool [B, *layout, H]."""
    (output, lse), (clean, clean_lse) = (problem.attend("loops", x) for x in (tensors, problem.tensors(torch.float32)))
    return (output == clean).all(-1) & (lse == clean_lse)


def results(impl: str, problem: Problem, tensors: dict[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
    """Output with and without lse and graph, and the gradients of a loss of the chosen outputs."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
    output, lse = problem.attend(impl, leaves)
    loss = torch.where(chosen[..., None], output, 0.0).square().sum() + torch.where(chosen, lse, 0.0).square().sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)  # no extra key, no use
    alone = neighborhood_attention(**tensors, **problem.where, scale=problem.scale, impl=impl)
    assert isinstance(alone, Tensor)
    found = {"output": output.detach(), "lse": lse.detach(), "alone": alone}
    return found | {f"gradient of {name}": x for name, x in zip(tensors, gradients, strict=True)}


def assert_no_leak(expected: dict[str, Tensor], actual: dict[str, Tensor]) -> None:
    """What is finite by the definition is finite and equal; and results that it spoils are spoilt."""
    for name, reference in expected.items():
        finite = reference.isfinite()
        assert not (finite & ~actual[name].isfinite()).any(), f"{name} is spoilt by what it does not attend"
        if "gradient" not in name:  # where a result is spoilt, its gradient says nothing
            assert not (~finite & actual[name].isfinite()).any(), f"{name} does not show that it attends no number"
        assert_close(actual[name][finite], reference[finite], **SMALL)


@every_impl
@given(
    problem=problems(empty=False),
    bits=st.sampled_from(BITS),
    name=st.sampled_from(["query", "key", "value"]),
    place=st.floats(0, 1),
)
def test_bits_outside_the_window_change_nothing(
    impl: str, problem: Problem, bits: float, name: str, place: float
) -> None:
    tensors = poisoned(problem, name, bits, place)
    chosen = untouched(problem, tensors)
    assert_no_leak(results("loops", problem, tensors, chosen), results(impl, problem, tensors, chosen))


@functools.cache
def by_definition(problem: Problem, name: str, bits: float, place: float) -> tuple[Tensor, dict[str, Tensor]]:
    """What is untouched, and the results of ``loops``: once for all formulations."""
    tensors = poisoned(problem, name, bits, place)
    chosen = untouched(problem, tensors)
    return chosen, results("loops", problem, tensors, chosen)


REPORTED = {
    "3e38 outside overflows a score": Problem((40,), (3,), (1,), (1,), (False,), heads=1, heads_kv=1),
    "with dilation": Problem((40,), (3,), (1,), (3,), (False,), heads=1, heads_kv=1),
    "causal": Problem((17,), (5,), (2,), (1,), (True,), heads=2, heads_kv=1, extra=2),
    "an image": Problem((11, 9), (5, 3), (1, 2), (1, 2), (False, False), heads=1, heads_kv=1, rpb=True),
}


@every_impl
@pytest.mark.parametrize("name", ["query", "key", "value"])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("problem", REPORTED.values(), ids=REPORTED.keys())
def test_larger_layouts(
    impl: str, problem: Problem, bits: float, name: str, count_cases: Callable[[str, int], None]
) -> None:
    """With tiles of which some see the number and some do not; by a token in the middle, and by the last."""
    for place in (0.45, 1.0):
        tensors = poisoned(problem, name, bits, place)
        chosen, expected = by_definition(problem, name, bits, place)
        assert 0 < int(chosen.sum()) < chosen.numel()
        assert_no_leak(expected, results(impl, problem, tensors, chosen))
        count_cases("numbers outside a window", 1)


@every_impl
@pytest.mark.parametrize("bits", BITS)
def test_transforms_do_not_leak_either(impl: str, bits: float) -> None:
    """Under torch.func Python may not look at numbers: there the careful products are taken at once."""
    problem = REPORTED["with dilation"].but(rpb=True)
    tensors = poisoned(problem, "key", bits, 0.45)
    chosen, expected = by_definition(problem, "key", bits, 0.45)

    def loss(key: Tensor) -> tuple[Tensor, Tensor]:
        output, lse = problem.attend(impl, tensors | {"key": key})
        kept = torch.where(chosen[..., None], output, 0.0).square().sum() + torch.where(chosen, lse, 0.0).square().sum()
        return kept, output

    gradient, output = torch.func.grad(loss, has_aux=True)(tensors["key"])
    wanted = {name: expected[name] for name in ("output", "gradient of key")}
    assert_no_leak(wanted, {"output": output, "gradient of key": gradient})


def test_careful_products_are_the_plain_ones_of_finite_numbers() -> None:
    """Bit by bit, with their gradients; and they pass gradcheck."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.randn(2, n, 3, generator=generator).requires_grad_() for n in (4, 5))
    careful, plain = pair_products(rows, columns), rows @ columns.mT
    assert_close(careful, plain, rtol=0, atol=0)
    incoming = torch.randn(careful.shape, generator=generator)
    for one, other in zip(
        torch.autograd.grad(careful, (rows, columns), incoming),
        torch.autograd.grad(plain, (rows, columns), incoming),
        strict=True,
    ):
        assert_close(one, other, rtol=0, atol=0)
    allowed = torch.rand(2, 4, 5, generator=generator) > 0.3
    weights = (careful.detach() * allowed).double().requires_grad_()
    values = columns.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w, v: mix(w * allowed, v, allowed), (weights, values))
    assert_close(finite_part(columns), columns, rtol=0, atol=0)


def test_harmless_is_never_said_of_a_score_that_overflows() -> None:
    """The bound is by norms: it may be too careful, never too bold."""
    assert known_harmless(torch.ones(9), torch.ones(9), torch.ones(9), None)
    for size in (2e19, 1e25, float("nan"), float("inf")):
        x = torch.full((1, 2), size)
        assert not known_harmless(x, x, torch.ones(2), None)
    assert not known_harmless(torch.ones(2), torch.ones(2), torch.tensor([torch.inf]), None)
    assert not known_harmless(torch.ones(2), torch.ones(2), torch.ones(2), torch.tensor([-torch.inf]))
