"""The interface Hugging Face documents: outputs and options of the model, the classifier and the backbone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss
from torch.testing import assert_close

from dinat_ref.attention import neighborhood_av
from dinat_ref.models import DiNAT, DinatBackbone, DinatForImageClassification, DinatModel
from dinat_ref.models.backbone import align_stages
from tests.models.tiny import configs, image, tiny

EXACT = {"rtol": 0, "atol": 0}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
MAPS = [(10, 13, 12), (5, 7, 24), (3, 4, 48), (3, 4, 48)]  # of a 40 x 52 image: embeddings, then after each level


def test_shapes_of_every_output():
    output = DinatModel(tiny()).eval()(image(), output_hidden_states=True, output_attentions=True)
    assert output.last_hidden_state.shape == (2, 3, 4, 48)
    assert output.pooler_output.shape == (2, 48)
    assert [tuple(x.shape[1:]) for x in output.hidden_states] == MAPS
    assert [tuple(x.shape) for x in output.reshaped_hidden_states] == [(2, c, x, y) for x, y, c in MAPS]
    assert [tuple(x.shape) for x in output.attentions] == [(2, 2, 10, 13, 9), (2, 3, 6, 7, 9), (2, 4, 3, 4, 9)]


def test_outputs_by_name_by_number_and_as_a_tuple():
    model = DinatForImageClassification(tiny()).eval()
    output = model(image(), output_hidden_states=True)
    assert list(output) == ["logits", "hidden_states", "reshaped_hidden_states"]
    assert output[0] is output["logits"] is output.logits
    assert output.attentions is None
    assert output.loss is None
    with pytest.raises(KeyError):
        output["loss"]
    as_tuple = model(image(), output_hidden_states=True, return_dict=False)
    assert [type(value) for value in as_tuple] == [torch.Tensor, tuple]
    assert_close(as_tuple[0], output.logits, **EXACT)
    with_loss = model(image(), labels=torch.tensor([0, 4]), return_dict=False)
    assert with_loss[0].ndim == 0
    assert [value.ndim for value in DinatModel(tiny())(image(), return_dict=False)] == [4, 2]
    assert DinatModel(tiny(), add_pooling_layer=False)(image()).pooler_output is None


def test_the_configuration_sets_the_defaults_of_the_options():
    config = tiny(output_hidden_states=True, output_attentions=True, return_dict=False)
    assert [type(value) for value in DinatModel(config)(image())] == [torch.Tensor, torch.Tensor, tuple, tuple]
    assert len(DinatModel(config)(image(), output_attentions=False)) == 3


def test_attentions_of_every_layer_sum_to_one_and_are_what_the_layer_uses():
    model = DinatModel(tiny()).eval()
    with torch.no_grad():
        every = model(image(), return_all_attentions=True).attentions
        last = model(image(), output_attentions=True).attentions
    assert [weights.shape[1] for weights in every] == [2, 2, 3, 4, 4]
    for weights in every:
        assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), **CLOSE)
    for weights, of_level in zip([every[1], every[2], every[4]], last, strict=True):
        assert_close(weights, of_level, **CLOSE)  # layers whose weights are kept round otherwise

    layer = model.levels[0].blocks[1]
    x = layer.norm1(torch.randn(2, 10, 13, 12, generator=torch.Generator().manual_seed(3)))
    value = layer.attn.qkv(x).unflatten(-1, (3, 2, 6))[..., 2, :, :]
    mixed = neighborhood_av(layer.attn.attention_weights(x), value, 3, dilation=3)
    assert_close(layer.attn.proj(mixed.flatten(-2)), layer.attn(x), **CLOSE)


def test_gradients_reach_the_attentions_that_are_returned():
    """Explanations by attention multiply weights with their gradients: what is returned is what made the output."""
    model = DinatForImageClassification(tiny()).eval()
    output = model(image(), output_attentions=True)
    gradients = torch.autograd.grad(output.logits[:, 2].sum(), output.attentions)
    for gradient, weights in zip(gradients, output.attentions, strict=True):
        assert gradient.shape == weights.shape
        assert gradient.abs().max() > 0


def test_attentions_that_are_returned_in_training_are_those_left_by_dropout():
    model = DinatModel(tiny(attention_probs_dropout_prob=0.5)).train()
    torch.manual_seed(0)
    for weights in model(image(), return_all_attentions=True).attentions:
        assert 0.4 < float((weights == 0).float().mean()) < 0.6


@pytest.mark.parametrize("make", [DiNAT, DinatModel, DinatForImageClassification, DinatBackbone])
def test_what_is_no_image_is_refused(make):
    model = make(tiny())
    with pytest.raises(ValueError, match=r"with 3 channels, got \(1, 4, 32, 32\)"):
        model(torch.zeros(1, 4, 32, 32))
    if make is not DiNAT:
        with pytest.raises(ValueError, match="pixel_values must be given"):
            model()


@pytest.mark.parametrize(
    ("num_labels", "labels", "expected"),
    [
        (5, torch.tensor([0, 4]), lambda logits, labels: cross_entropy(logits, labels)),
        (5, torch.tensor([[0.0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]), binary_cross_entropy_with_logits),
        (1, torch.tensor([0.5, -2.0]), lambda logits, labels: mse_loss(logits[:, 0], labels)),
    ],
)
def test_the_loss_follows_from_the_labels(num_labels, labels, expected):
    model = DinatForImageClassification(tiny(num_labels=num_labels)).eval()
    output = model(image(), labels=labels)
    assert_close(output.loss, expected(output.logits, labels), **CLOSE)
    output.loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


def test_initialisation():
    model = DiNAT(tiny(embed_dim=96, layer_scale_init_value=0.25))
    for name, parameter in model.named_parameters():
        if "gamma" in name:
            assert parameter.unique().tolist() == [0.25]
        elif "norm" in name:
            assert parameter.unique().tolist() == [1.0 if name.endswith("weight") else 0.0]
        elif name.endswith("bias") and "patch_embed" not in name:
            assert not parameter.any()
        elif "rpb" in name or (parameter.ndim == 2 and parameter.numel() > 1000):
            assert parameter.mean().abs() < 0.02
            assert 0.01 < parameter.std() < 0.03
    wide = DiNAT(tiny(embed_dim=96, initializer_range=0.2)).levels[0].blocks[0].mlp.fc1.weight
    assert 0.18 < wide.std() < 0.22


def test_drop_path_drops_whole_branches_in_training_alone():
    torch.manual_seed(0)
    model = DiNAT(tiny(drop_path_rate=0.9))
    layer = model.levels[2].blocks[1]
    x = torch.randn(64, 3, 3, 48)
    changed = (layer(x) != x).flatten(1).any(1)
    assert 0 < changed.sum() < 40, "each branch is kept with probability 0.1"
    assert (layer.eval()(x) != x).flatten(1).any(1).all()


def test_dropout_of_weights_keeps_the_mean():
    torch.manual_seed(0)
    model = DiNAT(tiny(attention_probs_dropout_prob=0.5))
    layer = model.levels[0].blocks[1].attn
    x = torch.randn(1, 9, 9, 12).expand(300, -1, -1, -1)  # each sample drops weights of its own
    dropped = layer(x)
    deviation = dropped.std(0).max().item() / 300**0.5
    assert deviation > 0
    assert_close(dropped.mean(0), layer.eval()(x)[0], rtol=0, atol=6 * deviation)


def test_train_and_eval_agree_without_dropout():
    model = DiNAT(tiny(drop_path_rate=0.0))
    assert_close(model.train()(image()), model.eval()(image()), **EXACT)


@given(configs(), st.integers(0, 2**16))
@settings(max_examples=15, deadline=None)
def test_any_small_configuration_runs(config, seed):
    torch.manual_seed(seed)
    output = DinatForImageClassification(config).eval()(image(seed, 1, 21, 34), output_hidden_states=True)
    assert output.logits.shape == (1, config.num_labels or config.hidden_size)
    assert [x.shape[-1] for x in output.hidden_states] == [config.embed_dim, *config.dims[1:], config.hidden_size]
    assert output.logits.isfinite().all()


def test_small_inputs_are_padded_refused_or_get_a_smaller_dilation():
    torch.manual_seed(0)
    padded, refusing, clamped = (DiNAT(tiny(small_input=way)).eval() for way in ("pad", "raise", "clamp"))
    for model in (refusing, clamped):
        model.load_state_dict(padded.state_dict())
    large = image(height=104, width=108)  # 26 x 27 tokens, and 7 x 7 on the last level: nothing is too small
    assert_close(refusing(large), padded(large), **EXACT)
    assert_close(clamped(large), padded(large), **EXACT)

    small = image()  # level 2 has 5 rows for 3 * 2
    with pytest.raises(ValueError, match=r"kernel_size \* dilation on axis 0 .* 3 \* 2 = 6 > 5"):
        refusing(small)
    undilated = tiny(small_input="raise", dilations=[[1, 3], [1], [1, 1]])
    by_hand = DiNAT(undilated).eval()
    by_hand.load_state_dict(padded.state_dict())
    x = torch.randn(1, 5, 5, 24)
    assert_close(clamped.levels[1].blocks[0](x), by_hand.levels[1].blocks[0](x), **EXACT)
    with pytest.raises(ValueError, match=r"kernel_size \* dilation on axis 0 must be at most"):
        clamped(image(height=8, width=52))
    assert padded(image(height=8, width=52)).isfinite().all()


def test_per_axis_and_even_kernels_clamp_each_axis_by_itself():
    model = DinatModel(tiny(kernel_size=[4, 3], small_input="clamp", dilations=[[1, 3], [2], [1, 1]])).eval()
    output = model(image(height=64, width=96), return_all_attentions=True)
    assert [weights.shape[-1] for weights in output.attentions] == [12] * 5


def test_batches_are_independent():
    model = DiNAT(tiny()).eval()
    x = image(batch=3)
    assert_close(model(x)[1:2], model(x[1:2]), **CLOSE)


# the backbone


def test_backbone_returns_the_last_stage_by_default():
    model = DinatBackbone(tiny()).eval()
    assert (model.out_features, model.out_indices, model.channels) == (["stage3"], [3], [48])
    assert [tuple(x.shape) for x in model(image()).feature_maps] == [(2, 48, 3, 4)]


def test_backbone_normalises_each_stage_before_downsampling():
    config = tiny(out_features=["stem", "stage1", "stage2", "stage3"])
    model = DinatBackbone(config).eval()
    output = model(image(), output_hidden_states=True, output_attentions=True)
    assert model.channels == [12, 12, 24, 48]
    assert [tuple(x.shape) for x in output.feature_maps] == [
        (2, 12, 10, 13),
        (2, 12, 10, 13),
        (2, 24, 5, 7),
        (2, 48, 3, 4),
    ]
    for feature_map, hidden in zip(output.feature_maps, output.hidden_states, strict=True):
        normalised = torch.nn.functional.layer_norm(hidden, hidden.shape[-1:])
        assert_close(feature_map, normalised.permute(0, 3, 1, 2), **CLOSE)
    assert len(output.attentions) == 3
    assert [len(value) for value in model(image(), output_hidden_states=True, return_dict=False)] == [4, 4]


@pytest.mark.parametrize(
    ("features", "indices", "expected"),
    [
        (None, None, (["stage2"], [2])),
        (["stem", "stage2"], None, (["stem", "stage2"], [0, 2])),
        (None, [-3, -1], (["stem", "stage2"], [0, 2])),
        (["stage1"], [1], (["stage1"], [1])),
    ],
)
def test_stages_by_name_and_by_number(features, indices, expected):
    assert align_stages(["stem", "stage1", "stage2"], features, indices) == expected


@pytest.mark.parametrize(
    ("features", "indices", "message"),
    [
        (["stage5"], None, "out_features must be some of"),
        (None, [3], r"out_indices must be in -3 .. 2, got \[3\]"),
        (["stage1"], [2], "must mean the same stages"),
        (["stage2", "stem"], None, "stages must be in order"),
        (None, [1, 1], "each once"),
        ([], None, "at least one"),
    ],
)
def test_stages_that_contradict_are_refused(features, indices, message):
    with pytest.raises(ValueError, match=message):
        align_stages(["stem", "stage1", "stage2"], features, indices)


# transforms


@pytest.mark.parametrize("make", [DinatModel, DinatForImageClassification, DinatBackbone])
def test_export(make):
    model = make(tiny()).eval()
    exported = torch.export.export(model, (image(),), {"output_hidden_states": True}, strict=False)
    ours = model(image(), output_hidden_states=True)
    theirs = exported.module()(image(), output_hidden_states=True)
    assert type(theirs) is type(ours)
    for name, value in ours.items():
        assert_close(theirs[name], value, **CLOSE)


def test_bfloat16_weights():
    model = DiNAT(tiny()).eval()
    full = model(image())
    half = model.bfloat16()(image().bfloat16())
    assert half.dtype == torch.bfloat16
    assert_close(half.float(), full, rtol=0, atol=0.05)
