"""Gradient checkpointing in training: what is dropped at random is dropped again when it is computed once more."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from dinat_ref import NeighborhoodAttention2D
from dinat_ref.models import DiNAT, DinatConfig

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def layer() -> nn.Module:
    drops = {"attn_drop": 0.3, "proj_drop": 0.2}
    return NeighborhoodAttention2D(12, num_heads=2, kernel_size=3, dilation=2, rpb=True, **drops).double()


def model() -> nn.Module:
    """With all there is at random: attention dropout, dropout, stochastic depth."""
    drops = {"attention_probs_dropout_prob": 0.2, "hidden_dropout_prob": 0.1, "drop_path_rate": 0.4}
    shape = {"embed_dim": 8, "depths": [1, 3], "num_heads": [1, 2], "kernel_size": 3, "dilations": [[2], [1, 2, 1]]}
    return DiNAT(DinatConfig(num_labels=3, **shape, **drops)).double()


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "layer": (layer, (4, 7, 8, 12)),
    "model": (model, (4, 3, 40, 36)),
}


def step(module: nn.Module, x: Tensor, wrapped: bool, seed: int = 1, **options: bool) -> tuple[Tensor, ...]:
    """The output and all gradients of a step of training."""
    module.zero_grad()
    x = x.detach().requires_grad_()
    torch.manual_seed(seed)
    output = checkpoint(module, x, **options) if wrapped else module(x)
    output.sin().mean().backward()
    assert x.grad is not None
    return output.detach(), x.grad, *(p.grad.clone() for p in module.parameters() if p.grad is not None)


def made(name: str) -> tuple[nn.Module, Tensor]:
    make, shape = CASES[name]
    torch.manual_seed(0)
    return make().train(), torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_what_is_dropped_is_dropped_again(name: str, use_reentrant: bool) -> None:
    """From one seed, checkpointed and plain agree in everything, whatever is drawn between forward and backward."""
    module, x = made(name)
    plain = step(module, x, wrapped=False)
    assert_close(step(module, x, wrapped=True, use_reentrant=use_reentrant), plain, **EXACT)


@pytest.mark.parametrize("name", CASES)
def test_two_seeds_drop_other_things(name: str) -> None:
    """A difference between two runs without a seed is that of the draws, not of checkpointing."""
    module, x = made(name)
    one, other = (step(module, x, wrapped=False, seed=seed)[0] for seed in (1, 2))
    assert (one - other).abs().max() > 1e-6
    module.eval()
    assert_close(step(module, x, wrapped=True, seed=1, use_reentrant=False), step(module, x, False, seed=2), **EXACT)


@pytest.mark.parametrize("name", CASES)
def test_without_the_generators_state_it_would_be_wrong(name: str) -> None:
    """What the tests above would see: ``preserve_rng_state=False`` draws anew, and gradients are of another network."""
    module, x = made(name)
    plain = step(module, x, wrapped=False)
    anew = step(module, x, wrapped=True, use_reentrant=False, preserve_rng_state=False)
    assert_close(anew[0], plain[0], **EXACT)
    with pytest.raises(AssertionError):
        assert_close(anew[1:], plain[1:], **EXACT)


def test_layers_of_a_model_that_compute_again_drop_again() -> None:
    """The models' own switch."""
    module, x = made("model")
    assert isinstance(module, DiNAT)
    plain = step(module, x, wrapped=False)
    module.set_grad_checkpointing()
    assert_close(step(module, x, wrapped=False), plain, **EXACT)
