"""What users of timm call on a model, without timm: its parts, another head, feature maps, groups, recomputation."""

import re

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dinat_ref.models import (
    DiNAT,
    DinatBackbone,
    DinatForImageClassification,
    DinatModel,
    DiNATs,
    Isotropic,
    create_model,
)
from dinat_ref.models.layers import Layer
from tests.models.tiny import image, tiny

EXACT = {"rtol": 0, "atol": 0}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def isotropic() -> Isotropic:
    return Isotropic(12, 2, depth=3, kernel_size=3, patch_size=8, num_labels=5, drop_path_rate=0.0)


MAKE = {
    "DiNAT": lambda **settings: DiNAT(tiny(**settings)),
    "DiNATs": lambda **settings: DiNATs(tiny(**settings)),
    "DinatForImageClassification": lambda **settings: DinatForImageClassification(tiny(**settings)),
    "Isotropic": lambda **settings: isotropic(),
}
each_kind = pytest.mark.parametrize("kind", MAKE)


def made(kind: str, **settings) -> nn.Module:
    torch.manual_seed(0)
    return MAKE[kind](**settings).eval()


def logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    output = model(x)
    return output if isinstance(output, torch.Tensor) else output.logits


@each_kind
def test_forward_is_features_then_head(kind):
    model = made(kind)
    features = model.forward_features(image())
    assert features.shape[0] == 2
    assert features.ndim == 4
    assert features.shape[-1] == model.num_features == model.head_hidden_size
    pooled = model.forward_head(features, pre_logits=True)
    assert_close(pooled, features.mean((1, 2)), **EXACT)
    assert_close(model.get_classifier()(pooled), logits(model, image()), **EXACT)
    assert_close(model.forward_head(features), logits(model, image()), **EXACT)
    assert (model.num_classes, model.in_chans, model.output_fmt) == (5, 3, "NHWC")


@each_kind
def test_another_head(kind, tmp_path):
    model = made(kind)
    before = logits(model, image())
    model.reset_classifier(7)
    assert logits(model, image()).shape == (2, 7)
    assert model.num_classes == 7
    assert 0.005 < model.head.weight.std() < 0.04
    assert not model.head.bias.any()
    pytest.importorskip("safetensors", reason="safetensors is not installed: dinat-ref[hub]")
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert_close(logits(again, image()), logits(model, image()), **EXACT)

    model.reset_classifier(0, global_pool="avg")
    assert_close(logits(model, image()), model.forward_features(image()).mean((1, 2)), **EXACT)
    assert before.shape == (2, 5)
    half = made(kind).bfloat16()
    half.reset_classifier(3)
    assert half.head.weight.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="num_classes must be at least 0, got -1"):
        model.reset_classifier(-1)
    with pytest.raises(ValueError, match="global_pool must be 'avg', got 'max'"):
        model.reset_classifier(2, global_pool="max")


def test_names_of_classes_go_with_their_head():
    model = DinatForImageClassification(tiny(num_labels=None, id2label=dict(enumerate("abcde"))))
    model.reset_classifier(3)
    assert (model.config.num_labels, model.config.id2label) == (3, None)


@each_kind
def test_intermediates_are_the_maps_before_downsampling(kind):
    model = made(kind)
    before = model.encode(image()).before
    last, maps = model.forward_intermediates(image())
    assert_close(last, model.forward_features(image()), **EXACT)
    assert [info["num_chs"] for info in model.feature_info] == [x.shape[1] for x in maps]
    for x, expected, info in zip(maps, before, model.feature_info, strict=True):
        assert_close(x, expected.permute(0, 3, 1, 2), **EXACT)
        assert x.shape[2] == -(-40 // info["reduction"])
        assert model.get_submodule(info["module"]) is not None
    (only,) = model.forward_intermediates(image(), indices=1, norm=True, output_fmt="NHWC", intermediates_only=True)
    assert_close(only, model.forward_features(image()), **EXACT)
    with pytest.raises(ValueError, match="indices must name some of"):
        model.forward_intermediates(image(), indices=[7])
    with pytest.raises(ValueError, match="output_fmt must be"):
        model.forward_intermediates(image(), output_fmt="NLC")


@each_kind
def test_pruning_keeps_the_maps_that_are_left(kind):
    model = made(kind)
    number = len(model.feature_info)
    wanted = list(range(number - 1)) or [0]
    expected = model.forward_intermediates(image(), indices=wanted, intermediates_only=True)
    parameters = sum(x.numel() for x in model.parameters())
    assert model.prune_intermediate_layers([index - number for index in wanted], prune_norm=True) == wanted
    assert sum(x.numel() for x in model.parameters()) < parameters
    pruned = model.forward_intermediates(image(), indices=wanted, intermediates_only=True)
    for x, y in zip(pruned, expected, strict=True):
        assert_close(x, y, **EXACT)


@each_kind
def test_bias_tables_are_spared_weight_decay(kind):
    model = made(kind)
    layers = sum(isinstance(part, Layer) for part in model.modules())
    spared = model.no_weight_decay()
    assert len(spared) == layers
    assert spared == {name for name, parameter in model.named_parameters() if parameter.ndim == 3}


@each_kind
@pytest.mark.parametrize("coarse", [False, True])
def test_groups_go_from_the_image_to_the_head(kind, coarse):
    """Every parameter but the head's is in a group, and the groups come in the order of the computation."""
    model = made(kind)
    matcher = model.group_matcher(coarse)
    blocks = matcher["blocks"]
    patterns = [(blocks, None)] if isinstance(blocks, str) else blocks

    def rank(name):
        if re.match(matcher["stem"], name):
            return (-1.0,)
        for pattern, suffix in patterns:
            if found := re.match(pattern, name):
                return tuple(map(float, (*found.groups(), *(suffix or ()))))
        return (float("inf"),)

    ranks = [rank(name) for name, _ in model.named_parameters()]
    assert ranks == sorted(ranks)
    outside = {name.partition(".")[0] for name, _ in model.named_parameters() if rank(name) == (float("inf"),)}
    assert outside <= ({"head", "norm"} if coarse else {"head"})
    layers = sum(isinstance(part, Layer) for part in model.modules())
    assert len(set(ranks)) >= (3 if coarse else layers + 3)


def test_what_timm_keeps_beside_a_model():
    model = create_model("dinat_large_384", num_classes=10, in_chans=1, device="meta")
    assert model.default_cfg == model.pretrained_cfg
    assert model.pretrained_cfg["input_size"] == (1, 224, 224)  # nobody knows how this one's grey images are made
    cfg = create_model("dinat_large_384", device="meta").pretrained_cfg
    assert (cfg["input_size"], cfg["num_classes"], cfg["crop_mode"]) == ((3, 384, 384), 1000, "squash")
    assert (cfg["first_conv"], cfg["classifier"]) == ("patch_embed.proj.0", "head")
    assert made("DiNATs").pretrained_cfg["first_conv"] == "patch_embed.proj"
    assert create_model("dinat_nano_digits", device="meta").in_chans == 1


ALL = {**MAKE, "DinatModel": lambda **s: DinatModel(tiny(**s)), "DinatBackbone": lambda **s: DinatBackbone(tiny(**s))}


def first(output):
    while not isinstance(output, torch.Tensor):
        output = output[0]
    return output


@pytest.mark.parametrize("kind", ALL)
def test_computing_again_gives_the_same_gradients_and_keeps_less(kind):
    def run(enable):
        torch.manual_seed(0)
        model = ALL[kind](drop_path_rate=0.3, hidden_dropout_prob=0.1).train()
        enable(model)
        kept = []
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
            loss = first(model(image())).square().sum()
        loss.backward()
        return loss, [parameter.grad for parameter in model.parameters() if parameter.grad is not None], sum(kept)

    loss, gradients, kept = run(lambda model: None)
    enables = [
        lambda model: model.set_grad_checkpointing(),
        lambda model: model.gradient_checkpointing_enable({"use_reentrant": False}),
        lambda model: model.activation_checkpointing_enable(every_n_layers=2),
    ]
    for enable in enables:
        again, same, less = run(enable)
        assert_close(again, loss, **EXACT)
        for one, other in zip(same, gradients, strict=True):
            assert_close(one, other, rtol=1e-6, atol=1e-7)
        assert less < 0.8 * kept


def test_it_is_switched_on_and_off_and_idle_in_evaluation(monkeypatch):
    model = made("DiNAT")
    assert not model.is_gradient_checkpointing
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    calls = []
    checkpoint = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr("dinat_ref.models.layers.checkpoint", lambda *a, **k: calls.append(1) or checkpoint(*a, **k))
    model(image())
    with torch.no_grad():
        model.train()(image())
    assert not calls
    model(image())
    assert len(calls) == 5
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing
    with pytest.raises(ValueError, match="every_n_layers must be at least 1, got 0"):
        model.gradient_checkpointing_enable(every_n_layers=0)
    with pytest.raises(ValueError, match="offload must be False"):
        model.activation_checkpointing_enable(offload=True)
