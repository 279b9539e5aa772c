"""Masked keys: as if they lay outside every window, whatever their bits."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from dinat_ref import na1d, neighborhood_attention
from dinat_ref.attention.split import neighborhood_av, neighborhood_weights
from tests.plain import full_attention, window_mask
from tests.strategies import IMPLS, Problem, problems

EXACT = {"rtol": 1e-11, "atol": 1e-11}
every_impl = pytest.mark.parametrize("impl", IMPLS)


def drawn_mask(problem: Problem, share: float) -> Tensor:
    """Bool [B, *layout], some tokens of each item masked."""
    generator = torch.Generator().manual_seed(problem.seed + 1)
    return torch.rand(problem.batch, *problem.layout, generator=generator) >= share


def by_plain_attention(problem: Problem, tensors: dict[str, Tensor], key_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Item by item: attention over all pairs that both masks allow; zero where there is none."""
    outputs, lses = [], []
    for b in range(problem.batch):
        item = {name: tensor if name == "rpb" else tensor[b : b + 1] for name, tensor in tensors.items()}
        mask = window_mask(problem) & key_mask[b].flatten()
        has_key = mask.any(-1) | bool(problem.extra)  # [N]
        output, lse = full_attention(problem, item, mask | ~has_key[:, None])
        shown = has_key.reshape(1, *problem.layout, 1)
        outputs.append(torch.where(shown[..., None], output, 0.0))
        lses.append(torch.where(shown, lse, -torch.inf))
    return torch.cat(outputs), torch.cat(lses)


@every_impl
@given(problem=problems(empty=False), share=st.sampled_from([0.0, 0.3, 0.8, 1.0]))
@example(Problem((40,), (5,), (1,), (2,), (False,), heads_kv=1, extra=2, seed=4), 0.6)
@example(Problem((15, 14), (5, 3), (1, 2), (1, 2), (False, True), rpb=True, seed=5), 0.6)
def test_a_masked_key_lies_outside_every_window(impl: str, problem: Problem, share: float) -> None:
    """Output, lse and all gradients, against plain attention over the pairs that are left."""
    key_mask = drawn_mask(problem, share)
    found = []
    for attend in (
        lambda x: problem.attend(impl, x, key_mask=key_mask),
        lambda x: by_plain_attention(problem, x, key_mask),
    ):
        tensors = problem.tensors(requires_grad=True)
        output, lse = attend(tensors)
        loss = output.sin().sum() + torch.where(lse.isfinite(), lse, 0.0).sin().sum()
        gradients = torch.autograd.grad(loss, list(tensors.values()), materialize_grads=True)
        found.append([output, lse, *gradients])
    assert_close(found[0], found[1], **EXACT)


@every_impl
@pytest.mark.parametrize("bits", [float("nan"), float("inf"), -3e38])
def test_the_bits_of_a_masked_key_do_not_matter(impl: str, bits: float) -> None:
    """And their gradients are zero."""
    problem = Problem((11,), (3,), (1,), (2,), (False,), rpb=True, seed=6)
    key_mask = drawn_mask(problem, 0.4)
    results = []
    for fill in (0.0, bits):
        tensors = problem.tensors()
        for name in ("key", "value"):
            tensors[name][~key_mask] = fill
        leaves = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
        output, lse = problem.attend(impl, leaves, key_mask=key_mask)
        loss = output.square().sum() + torch.where(lse.isfinite(), lse, 0.0).sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        for gradient in gradients[1:3]:
            assert_close(gradient[~key_mask], torch.zeros_like(gradient[~key_mask]), rtol=0, atol=0)
        results.append([output, lse, *gradients])
    assert_close(results[1], results[0], rtol=0, atol=0)


@every_impl
def test_gradients_of_both_orders(impl: str) -> None:
    """With a query that has no key left."""
    problem = Problem((6,), (2,), (1,), (1,), (False,), batch=1, heads=1, heads_kv=1, head_dim=2, head_dim_v=2)
    key_mask = torch.tensor([[False, False, True, True, False, True]])

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output, lse = problem.attend(impl, {"query": query, "key": key, "value": value}, key_mask=key_mask)
        return output + torch.where(lse.isfinite(), lse, 0.0)[..., None]

    tensors = tuple(problem.tensors(requires_grad=True).values())
    assert torch.autograd.gradcheck(attend, tensors)
    assert torch.autograd.gradgradcheck(attend, tensors)


def test_exposed_weights_have_none_for_a_masked_key() -> None:
    problem = Problem((9, 8), (3, 3), (1, 1), (2, 1), (False, True), seed=7)
    key_mask, tensors = drawn_mask(problem, 0.5), problem.tensors()
    weights = neighborhood_weights(tensors["query"], tensors["key"], **problem.where, key_mask=key_mask)
    kept = key_mask.flatten(1)[:, problem.neighborhood.indices()].reshape(2, 9, 8, 1, -1).expand_as(weights)
    assert_close(weights[~kept], torch.zeros_like(weights[~kept]), rtol=0, atol=0)
    output = neighborhood_av(weights, tensors["value"], **problem.where)
    assert_close(output, problem.attend("loops", tensors, key_mask=key_mask)[0], **EXACT)


def test_sequences_of_unequal_length_in_one_batch() -> None:
    """The usual reason: padding. The padded batch gives real tokens what masked attention over them gives."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 12, 1, 4, generator=generator, dtype=torch.float64).unbind(0)
    real = torch.arange(12) < 9
    allowed = Problem((12,), (5,), (1,), (1,), (False,)).neighborhood.mask() & real
    scores = (query[0, :, 0] @ key[0, :, 0].T / 2).masked_fill(~allowed, -torch.inf)
    wanted = (scores.softmax(-1) @ value[0, :, 0])[real]
    assert_close(na1d(query, key, value, 5, key_mask=real[None])[0, real, 0], wanted, **EXACT)


def test_what_is_no_key_mask_is_refused() -> None:
    x = torch.zeros(2, 5, 1, 1)
    with pytest.raises(TypeError, match=r"key_mask must be a bool tensor.*got torch\.float32"):
        neighborhood_attention(x, x, x, 3, key_mask=torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"key_mask must have query's batch and layout: expected \(2, 5\), got \(5,\)"):
        neighborhood_attention(x, x, x, 3, key_mask=torch.ones(5, dtype=torch.bool))
