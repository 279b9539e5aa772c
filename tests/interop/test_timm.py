"""timm makes our models by name, and what its users do with a model works."""

import pytest
import torch
from torch.testing import assert_close

from dinat_ref.models import create_model, list_models
from dinat_ref.models.keys import to_huggingface

timm = pytest.importorskip("timm", reason="timm is not installed: dinat-ref[timm]")

from timm.data import create_transform, resolve_data_config  # noqa: E402
from timm.models import group_modules  # noqa: E402
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay  # noqa: E402

from dinat_ref.interop.timm import register  # noqa: E402

EXACT = {"rtol": 0, "atol": 0}
NARROW = {"embed_dim": 32, "num_heads": [1, 2, 4, 8]}
TINY = {**NARROW, "depths": [1, 1, 1, 1], "dilations": [[2], [1], [1], [1]], "kernel_size": 3}


@pytest.fixture(scope="module", autouse=True)
def names():
    return register()


def image(channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, 64, 96, generator=torch.Generator().manual_seed(0))


def test_it_registers_every_model_once(names):
    assert names in ([], list_models())  # the doctest may have been first
    assert register() == []
    assert set(list_models()) <= set(timm.list_models())
    assert timm.is_model("dinat_s_tiny")
    assert "dinat_mini" in timm.list_models(pretrained=True)
    assert "dinat_s_tiny" not in timm.list_models(pretrained=True)


@pytest.mark.parametrize("name", ["nat_mini", "dinat_s_tiny", "dinat_isotropic_small", "vitrpb_small"])
def test_it_makes_the_model_that_we_make(name):
    with torch.device("meta"):
        theirs, ours = timm.create_model(name, num_classes=10), create_model(name, num_classes=10)
    shapes = {key: tuple(x.shape) for key, x in ours.state_dict().items()}
    assert {key: tuple(x.shape) for key, x in theirs.state_dict().items()} == shapes


def test_settings_by_timms_names():
    model = timm.create_model(
        "dinat_mini", num_classes=7, in_chans=1, drop_rate=0.1, attn_drop_rate=0.2, drop_path_rate=0.3, **TINY
    )
    config = model.config
    dropped = (config.hidden_dropout_prob, config.attention_probs_dropout_prob, config.drop_path_rate)
    assert (config.num_labels, config.num_channels, dropped) == (7, 1, (0.1, 0.2, 0.3))
    assert model(image(1)).shape == (2, 7)
    with torch.device("meta"):
        full = timm.create_model("vitrpb_small", img_size=96, drop_rate=0.0)
    assert full.layers[0].attn.kernel_size == (6, 6)
    for wrong in ({"global_pool": "max"}, {"act_layer": "gelu"}):
        with pytest.raises((TypeError, ValueError)):
            timm.create_model("dinat_mini", **TINY, **wrong)


@pytest.mark.parametrize("indices", [None, (0, 2), (-1,), 2])
def test_features_only(indices):
    torch.manual_seed(0)
    model = timm.create_model("dinat_mini", **TINY)
    options = {} if indices is None else {"out_indices": indices}
    features = timm.create_model("dinat_mini", features_only=True, **options, **TINY).eval()
    prefix = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    features.load_state_dict({name: prefix[name] for name in features.state_dict()})
    expected = model.eval().forward_intermediates(image(), indices=indices, intermediates_only=True)
    maps = features(image())
    assert [x.shape[1] for x in maps] == features.feature_info.channels()
    assert [64 // x.shape[2] for x in maps] == features.feature_info.reduction()
    for mine, theirs in zip(expected, maps, strict=True):
        assert_close(theirs, mine, **EXACT)


def test_weights_from_a_file_in_either_spelling_with_other_classes_and_channels(tmp_path):
    torch.manual_seed(0)
    source = timm.create_model("dinat_mini", **TINY)
    for state in (source.state_dict(), to_huggingface(source.state_dict())):
        torch.save(state, tmp_path / "weights.pth")
        loaded = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(tmp_path / "weights.pth")}}
        again = timm.create_model("dinat_mini", **loaded, **TINY)
        assert_close(again.eval()(image()), source.eval()(image()), **EXACT)
        grey = timm.create_model("dinat_mini", num_classes=3, in_chans=1, **loaded, **TINY)
        assert grey.head.weight.shape == (3, 256)
        assert_close(grey.levels[3].blocks[0].attn.rpb, source.levels[3].blocks[0].attn.rpb, **EXACT)
        summed = source.patch_embed.proj[0].weight.sum(1, keepdim=True)
        assert_close(grey.patch_embed.proj[0].weight, summed, **EXACT)


def test_images_are_prepared_as_the_authors_did():
    with torch.device("meta"):
        models = {name: timm.create_model(name) for name in ("dinat_mini", "dinat_large_384")}
    settings = {name: resolve_data_config({}, model=model) for name, model in models.items()}
    assert (settings["dinat_mini"]["input_size"], settings["dinat_mini"]["crop_pct"]) == ((3, 224, 224), 0.875)
    assert (settings["dinat_large_384"]["input_size"], settings["dinat_large_384"]["crop_pct"]) == ((3, 384, 384), 1.0)
    assert len(create_transform(**settings["dinat_mini"]).transforms) == 4
    ours = resolve_data_config({}, model=create_model("dinat_mini", device="meta"))  # without register, too
    assert (ours["input_size"], ours["mean"], ours["crop_mode"]) == ((3, 224, 224), (0.485, 0.456, 0.406), "squash")


def test_groups_of_parameters_for_layer_wise_decay():
    model = create_model("dinat_mini", **TINY)
    groups = group_modules(model, model.group_matcher())
    flat = [name for _, names in sorted(groups.items()) for name in names] if isinstance(groups, dict) else groups
    assert flat
    decayed = param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.5)
    scale = {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in decayed:
        scale |= {names[id(parameter)]: group["lr_scale"] for parameter in group["params"]}
    assert scale["head.weight"] == 1
    order = ["patch_embed.proj.0.weight", *(f"levels.{n}.blocks.0.attn.qkv.weight" for n in range(4)), "head.weight"]
    assert sorted(order, key=scale.__getitem__) == order
    assert len({scale[name] for name in order}) == 6

    free, kept = param_groups_weight_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay())
    assert (free["weight_decay"], kept["weight_decay"]) == (0.0, 0.05)
    assert all(names[id(parameter)].endswith(("bias", "rpb")) or parameter.ndim == 1 for parameter in free["params"])
    assert all(parameter.ndim > 1 and not names[id(parameter)].endswith("rpb") for parameter in kept["params"])


def test_a_training_step_with_timms_tools():
    torch.manual_seed(0)
    model = timm.create_model("dinat_mini", num_classes=3, drop_path_rate=0.1, **TINY)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.8)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(image()), torch.tensor([0, 2]))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    model.reset_classifier(0)
    assert model(image()).shape == (2, 256)
