"""The configuration: Hugging Face's fields and defaults, checked, and its file."""

import json

import pytest
from hypothesis import given

from dinat_ref.models import DinatConfig
from tests.models.tiny import configs, tiny


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
        ({"kernel_size": [3, 3, 3]}, "one number or one per axis"),
        ({"small_input": "crop"}, "small_input must be one of pad, raise, clamp"),
        ({"problem_type": "ranking"}, "problem_type must be one of"),
        ({"id2label": {0: "cat"}}, "id2label must name every class: num_labels 5, got 1"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


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
