"""The configuration: Hugging Face's fields and defaults, checked, and its file."""

import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given

from dinat_ref.models import DiNAT, DinatConfig, Isotropic
from dinat_ref.models.config import ACTIVATION_NAMES
from dinat_ref.models.layers import ACTIVATIONS
from tests.models.tiny import configs, tiny


def test_settings_as_text_are_those_of_the_file(tmp_path):
    tiny().to_json(tmp_path / "config.json")
    assert tiny().to_json_string() + "\n" == (tmp_path / "config.json").read_text()


def test_defaults_are_dinat_mini_with_two_classes():
    config = DinatConfig()
    assert (config.embed_dim, config.depths, config.num_heads) == (64, [3, 4, 6, 5], [2, 4, 8, 16])
    assert config.dilations == [[1, 8, 1], [1, 4, 1, 4], [1, 2, 1, 2, 1, 2], [1, 1, 1, 1, 1]]
    assert (config.kernel_size, config.mlp_ratio, config.drop_path_rate) == (7, 3.0, 0.1)
    assert (config.num_labels, config.hidden_size, config.num_layers) == (2, 512, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size": 8}, "patch_size must be 4"),
        ({"dilations": [[1, 3], [2], [1]]}, "dilations must have one entry per layer"),
        ({"dilations": None}, "dilations must be given"),
        ({"dilations": [[1, 0], [2], [1, 1]]}, "dilations must be at least 1"),
        ({"num_heads": [2, 3]}, "num_heads must have one entry per level"),
        ({"num_heads": [5, 3, 4]}, "num_heads on level 0 must divide its 12 channels, got 5"),
        ({"num_channels": 0}, "num_channels must be at least 1"),
        ({"kernel_size": 0}, "kernel_size must be at least 1"),
        ({"kernel_size": [3, 3, 3]}, "kernel_size must have at most 2 entries, got 3"),
        ({"kernel_size": []}, "one number or one per axis"),
        ({"small_input": "crop"}, "small_input must be one of pad, raise, clamp"),
        ({"problem_type": "ranking"}, "problem_type must be one of"),
        ({"id2label": {0: "cat"}}, "id2label must name every class: num_labels 5, got 1"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


def test_every_activation_can_be_named():
    assert set(ACTIVATION_NAMES) == set(ACTIVATIONS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embed_dim": 10**30}, "embed_dim must be at most 65536, got 10{30}"),
        ({"embed_dim": 10**6000}, "embed_dim must be at most 65536, got a number of 19932 bits"),
        ({"embed_dim": "64"}, "embed_dim must be an integer, got '64'"),
        ({"embed_dim": 64.0}, "embed_dim must be an integer, got 64.0"),
        ({"embed_dim": True}, "embed_dim must be an integer, got True"),
        ({"embed_dim": None}, "embed_dim must be an integer, got None"),
        ({"depths": "212"}, "depths must be a list, got '212'"),
        ({"depths": [[2], 1, 2]}, r"depths must be an integer, got \[2\]"),
        ({"depths": {"0": 2}}, "depths must be a list"),
        ({"depths": [1] * 100_000}, "depths must have at most 12 entries, got 100000"),
        ({"depths": [10**8]}, "depths must be at most 512, got 100000000"),
        ({"dilations": [["1"], [2], [1, 1]]}, "dilations must be an integer, got '1'"),
        ({"dilations": [[1, 3], [400], [1, 1]]}, r"kernel_size \* dilation must be at most 1024 tokens, got 1200"),
        ({"mlp_ratio": "3"}, "mlp_ratio must be a number, got '3'"),
        ({"mlp_ratio": False}, "mlp_ratio must be a number, got False"),
        ({"mlp_ratio": -1.0}, "mlp_ratio must be at least 0, got -1.0"),
        ({"drop_path_rate": "a"}, "drop_path_rate must be a number, got 'a'"),
        ({"drop_path_rate": math.nan}, "drop_path_rate must be a finite number, got nan"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob must be at most 1, got 1.5"),
        ({"layer_norm_eps": math.nan}, "layer_norm_eps must be a finite number, got nan"),
        ({"layer_norm_eps": 10**400}, "layer_norm_eps must be a finite number, got inf"),
        ({"qkv_bias": "no"}, "qkv_bias must be true or false, got 'no'"),
        ({"qkv_bias": 0}, "qkv_bias must be true or false, got 0"),
        ({"num_labels": 10**7}, "num_labels must be at most 1000000, got 10000000"),
        ({"id2label": ["cat"] * 5}, "id2label must be an object from class numbers to names, got "),
        ({"id2label": {"0": "cat", "2": "dog"}}, "id2label must name every class from 0 to 1, got no name of 1"),
        ({"id2label": {"cat": "0"}}, "id2label must name every class from 0 to 0, got no name of 0"),
        ({"id2label": {0: 7}}, "id2label must be text, got 7"),
        ({"out_features": "stage1"}, "out_features must be a list, got 'stage1'"),
        ({"hidden_act": 3}, "hidden_act must be one of gelu, relu, silu, swish, got 3"),
        ({"mlp_ratio": 0.05}, "mlp_ratio must give an MLP of 12 channels at least one hidden one, got 0.05"),
        ({"kernel_size": [3]}, r"kernel_size must be one number or one per axis, got \[3\]"),
        ({"drop_path_rate": 1}, "drop_path_rate must be at most 0.999"),
        ({"problem_type": ["regression"]}, "problem_type must be one of regression, "),
        ({"embed_dim": 60_000}, r"a model may have at most 2,147,483,648 parameters, got \d{12}"),
        ({"depths": [400, 400, 1]}, "dilations must have one entry per layer"),
        ({"depths": [300, 300], "num_heads": [2, 2], "dilations": [[1] * 300] * 2}, "at most 512 layers, got 600"),
    ],
)
def test_types_limits_and_totals(settings, message):
    """Whoever wrote the configuration gets a line that names the setting, the value and the limit."""
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        tiny(**settings)
    assert len(str(caught.value)) < 200


def test_numpys_numbers_count_as_numbers():
    settings = {"embed_dim": np.int64(12), "mlp_ratio": np.float32(2.0), "qkv_bias": np.True_}
    config = tiny(**settings, depths=np.array([2, 1, 2]), kernel_size=np.array([3, 5]))
    assert config == tiny(kernel_size=[3, 5])
    json.dumps(config.to_dict())


@given(configs())
def test_parameters_are_counted_without_making_them(config):
    with torch.device("meta"):
        model = DiNAT(config)
    assert config.num_parameters == sum(parameter.numel() for parameter in model.parameters())


def test_a_file_is_named_by_its_error(tmp_path):
    path = tmp_path / "config.json"
    for content, message in (
        ("[3]", f"{path} must hold one JSON object, got list"),
        ('{"depths": [10]', f"{path} is no JSON: Expecting ',' delimiter: line 1 column 16 (char 15)"),
        ('{"mlp_ratio": "3"}', f"{path}: mlp_ratio must be a number, got '3'"),
        ('{"model_type": "nat", "depths": [100000000]}', f"{path}: depths must be at most 512, got 100000000"),
        ('{"model_type": ["nat"]}', f"{path}: model_type must be 'dinat', 'nat' or 'dinat_s', got ['nat']"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=re.escape(message)):
            DinatConfig.from_json(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 10**8}, "depth must be at most 512, got 100000000"),
        ({"patch_size": 0}, "patch_size must be at least 1, got 0"),
        ({"embed_dim": 2**15}, "at most 2,147,483,648 parameters"),
        (
            {"image_size": 4096, "patch_size": 1, "full_attention": True},
            r"must be within 1 .. 1024 tokens, got 4096 \*",
        ),
        ({"full_attention": "yes"}, "full_attention must be true or false, got 'yes'"),
        ({"dilation": [1, 2, 3]}, "dilation must be one number or one per layer: depth 12"),
    ],
)
def test_isotropic_models_are_checked_in_the_same_way(settings, message, tmp_path):
    usual = {"embed_dim": 32, "num_heads": 1}
    with pytest.raises((TypeError, ValueError), match=message):
        Isotropic(**usual | settings)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinat_isotropic", **usual, **settings}))
    with pytest.raises((TypeError, ValueError), match=message):
        Isotropic.maker(tmp_path, {})()


@given(configs())
def test_the_file_gives_back_the_configuration(config):
    assert DinatConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_file_names_classes(tmp_path):
    config = tiny(num_labels=None, id2label={0: "cat", 1: "dog", 2: "emu"})
    config.to_json(tmp_path / "config.json", architectures=["DinatModel"])
    again = DinatConfig.from_json(tmp_path)
    assert again == config
    assert (again.num_labels, again.label2id["emu"]) == (3, 2)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["DinatModel"]


def test_a_published_file_is_read_in_spite_of_its_wrong_hidden_size():
    assert DinatConfig.from_dict({"model_type": "dinat", "hidden_size": 768, "transformers_version": "4.22"}) == (
        DinatConfig()
    )


def test_a_nat_is_a_dinat_without_dilation():
    config = DinatConfig.from_dict({"model_type": "nat", "depths": [2, 1], "num_heads": [2, 4], "embed_dim": 64})
    assert config.dilations == [[1, 1], [1]]
    with pytest.raises(ValueError, match="model_type must be 'dinat', 'nat' or 'dinat_s', got 'swin'"):
        DinatConfig.from_dict({"model_type": "swin"})
