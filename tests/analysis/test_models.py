"""What analysis says about whole models, against facts that it does not compute itself."""

import pytest
import torch

from dinat_ref import Neighborhood
from dinat_ref.analysis.attention_maps import reach, scatter_weights
from dinat_ref.analysis.effective_field import effective_receptive_field
from dinat_ref.analysis.levels import level_coverage, level_layers
from dinat_ref.analysis.model_attention import model_attention
from dinat_ref.analysis.receptive_field import receptive_field
from dinat_ref.models import (
    DiNAT,
    DinatBackbone,
    DinatConfig,
    DinatForImageClassification,
    DinatModel,
    create_model,
    list_models,
)


@pytest.mark.parametrize("name", list_models())
def test_every_published_model_has_legal_layers(name: str) -> None:
    levels = level_layers(name)
    for shares in level_coverage(name):
        assert shares == sorted(shares)
        assert 0 < shares[-1] <= 1
    blocks = [module for module in create_model(name, device="meta").modules() if hasattr(module, "attention_weights")]
    assert sum(len(level) for level in levels) == len([block for block in blocks if hasattr(block, "mlp")])


@pytest.mark.parametrize(("name", "percent"), [("nat_tiny", 31), ("dinat_tiny", 100), ("dinat_s_tiny", 86)])
def test_first_level_covers_what_the_papers_say(name: str, percent: int) -> None:
    assert round(100 * level_coverage(name)[0][-1]) == percent


def small_model() -> DiNAT:
    config = DinatConfig(embed_dim=32, depths=[2, 1], num_heads=[1, 2], dilations=[[1, 2], [1]], kernel_size=3)
    torch.manual_seed(0)
    return DiNAT(config).eval()


def test_model_attention_is_what_the_layers_use() -> None:
    model, image = small_model(), torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    layers = model_attention(model, image)
    assert [layer.name for layer in layers] == ["levels.0.blocks.0", "levels.0.blocks.1", "levels.1.blocks.0"]
    assert [layer.neighborhood.layout for layer in layers] == [(12, 16), (12, 16), (6, 8)]
    with torch.no_grad():
        expected = model.encode(image, attentions="all").attentions  # [B, heads, X, Y, K] each
    for layer, weights in zip(layers, expected, strict=True):
        torch.testing.assert_close(layer.weights, weights.movedim(1, -2), rtol=1e-5, atol=1e-6)
        rows = scatter_weights(layer.weights, layer.neighborhood).sum(-1)
        torch.testing.assert_close(rows, torch.ones_like(rows), rtol=1e-5, atol=1e-5)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("kind", [DinatModel, DinatForImageClassification, DinatBackbone])
def test_every_kind_of_model_shows_its_attention(kind: type[torch.nn.Module]) -> None:
    model = kind(small_model().config).eval()
    layers = model_attention(model, torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(1)))
    assert [layer.neighborhood.dilation for layer in layers] == [(1, 1), (2, 2), (1, 1)]
    for layer in layers:
        reached = reach(layer.weights, layer.neighborhood)
        assert bool((reached > 0).all())
        assert reached.shape[1:3] == layer.neighborhood.layout


def test_effective_field_of_a_layer_lies_in_the_exact_one() -> None:
    model = small_model().double()
    level = model.levels[0]
    x = torch.randn(4, 12, 16, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    measured = effective_receptive_field(lambda tokens: level(tokens)[0], x, (5, 9))
    layers = [Neighborhood((12, 16), 3, dilation=dilation) for dilation in (1, 2)]
    torch.testing.assert_close(measured > 0, receptive_field(layers, (5, 9)), rtol=0, atol=0)


def test_refuses_models_without_layers() -> None:
    with pytest.raises(ValueError, match="must have attention layers"):
        model_attention(torch.nn.Linear(3, 3), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="token must have 2 coordinates"):
        effective_receptive_field(lambda x: x, torch.zeros(1, 5, 5, 2), (1,))
