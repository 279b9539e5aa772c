"""DiNAT_s, the isotropic models and ViT-rpb against plain formulas written here."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import layer_norm
from torch.testing import assert_close

from dinat_ref.attention.functional import FORMULATIONS
from dinat_ref.models import DiNAT, DiNATs, Isotropic, create_model
from dinat_ref.models.dinat_s import PatchMerging, PatchTokenizer
from tests.models.test_checkpoints import randomised
from tests.models.tiny import image, tiny

EXACT = {"rtol": 0, "atol": 0}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def test_patch_merging_concatenates_rows_before_columns():
    merging = randomised(PatchMerging(3))
    x = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    padded = torch.zeros(2, 6, 4, 3)
    padded[:, :5] = x
    expected = torch.empty(2, 3, 2, 6)
    for row, column in itertools.product(range(3), range(2)):
        tokens = [padded[:, 2 * row + down, 2 * column + right] for down, right in ((0, 0), (1, 0), (0, 1), (1, 1))]
        normalised = layer_norm(torch.cat(tokens, -1), (12,), merging.norm.weight, merging.norm.bias)
        expected[:, row, column] = normalised @ merging.reduction.weight.T
    assert_close(merging(x), expected, **CLOSE)


def test_patches_are_linear_maps_of_their_pixels():
    tokenizer = randomised(PatchTokenizer(3, 8, patch_size=4))
    x = image(height=10, width=7)  # padded to 12 x 8
    padded = torch.zeros(2, 3, 12, 8)
    padded[:, :, :10, :7] = x
    tokens = tokenizer(x)
    assert tokens.shape == (2, 3, 2, 8)
    for row, column in itertools.product(range(3), range(2)):
        pixels = padded[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten(1)
        projected = pixels @ tokenizer.proj.weight.flatten(1).T + tokenizer.proj.bias
        expected = layer_norm(projected, (8,), tokenizer.norm.weight, tokenizer.norm.bias)
        assert_close(tokens[:, row, column], expected, **CLOSE)


def full_attention(attention: nn.Module, x: torch.Tensor, length: int) -> torch.Tensor:
    """Attention of all pairs of length x length tokens, its bias looked up by the difference of their coordinates."""
    heads = attention.num_heads
    qkv = attention.qkv(x.flatten(1, 2)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # [3, B, H, N, D]
    query, key, value = qkv
    scores = query * query.shape[-1] ** -0.5 @ key.mT
    coordinates = list(itertools.product(range(length), range(length)))
    for (i, (row, column)), (j, (key_row, key_column)) in itertools.product(enumerate(coordinates), repeat=2):
        scores[:, :, i, j] += attention.rpb[:, key_row - row + length - 1, key_column - column + length - 1]
    output = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
    return attention.proj(output).unflatten(1, (length, length))


def test_vit_rpb_attends_everything_with_the_bias_of_offsets():
    model = randomised(Isotropic(12, 2, depth=1, image_size=64, full_attention=True))
    attention = model.layers[0].attn
    assert attention.rpb.shape == (2, 7, 7)
    x = torch.randn(2, 4, 4, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert_close(attention(x), full_attention(attention, x, 4), **CLOSE)


def test_full_attention_takes_the_size_it_was_made_for():
    model = Isotropic(12, 2, depth=1, image_size=64, full_attention=True, num_labels=3)
    assert model(image(height=64, width=64)).shape == (2, 3)
    for height, width in ((80, 64), (64, 48)):
        with pytest.raises(ValueError, match=r"image must give \(4, 4\) tokens to full attention"):
            model(image(height=height, width=width))


def test_a_layer_is_two_branches():
    layer = randomised(Isotropic(12, 2, depth=1, image_size=64, full_attention=True)).layers[0]
    x = torch.randn(2, 4, 4, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first = layer_norm(x, (12,), layer.norm1.weight, layer.norm1.bias)
        middle = x + full_attention(layer.attn, first, 4)
        second = layer_norm(middle, (12,), layer.norm2.weight, layer.norm2.bias)
        hidden = second @ layer.mlp.fc1.weight.T + layer.mlp.fc1.bias
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))  # exact GELU
        assert_close(layer(x), middle + hidden @ layer.mlp.fc2.weight.T + layer.mlp.fc2.bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "dilations"), [("nat_isotropic_small", [1] * 12), ("dinat_isotropic_base", [1, 2] * 6)]
)
def test_isotropic_dilations_alternate(name, dilations):
    model = create_model(name, device="meta")
    assert [layer.attn.dilation for layer in model.layers] == [(dilation, dilation) for dilation in dilations]


@pytest.mark.parametrize("impl", FORMULATIONS)
def test_every_formulation_gives_the_same_dinat_s(impl):
    model = randomised(DiNATs(tiny()))
    with torch.no_grad():
        expected = model(image(batch=1))
        for level in model.layers:
            for layer in level.blocks:
                layer.attn.impl = impl
        assert_close(model(image(batch=1)), expected, **CLOSE)


def test_stages_of_every_family():
    for model, count in ((DiNAT(tiny()), 5), (DiNATs(tiny()), 5), (Isotropic(12, 2, depth=3, kernel_size=3), 3)):
        with torch.no_grad():
            every, last = (model.eval().encode(image(height=64, width=96), which) for which in ("all", "last"))
        assert len(every.attentions) == count
        assert len(last.attentions) == len(last.before) == len(last.after)
        assert_close(every.attentions[-1], last.attentions[-1], **CLOSE)  # layers that keep weights round otherwise
        with pytest.raises(ValueError, match="attentions must be 'none', 'last' or 'all', got 'first'"):
            model.encode(image(), "first")


def test_dinat_s_has_no_layer_scale():
    with pytest.raises(ValueError, match=r"layer_scale_init_value must be 0 in a DiNAT_s, got 0\.1"):
        DiNATs(tiny(layer_scale_init_value=0.1))


def test_compiled_whole():
    model = DiNAT(tiny(depths=[1, 1], num_heads=[2, 3], dilations=[[2], [1]])).eval()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert_close(compiled(image()), model(image()), **CLOSE)


def test_gradients_reach_every_parameter_of_every_family():
    for model in (DiNAT(tiny(layer_scale_init_value=0.5)), DiNATs(tiny()), Isotropic(12, 2, depth=2, kernel_size=3)):
        model.eval()(image(batch=1, height=64, width=64)).square().mean().backward()
        unreached = [name for name, parameter in model.named_parameters() if not parameter.grad.any()]
        assert unreached == []
