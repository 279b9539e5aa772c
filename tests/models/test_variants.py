"""Every published variant has exactly the parameters its authors' code has."""

import pytest
import torch

from dinat_ref.models import DiNAT, DinatConfig, create_model, list_models
from dinat_ref.models.variants import VARIANTS, variant_config

# counted with the original repository's code
PARAMETERS = {
    "nat_mini": 19_984_174,
    "dinat_mini": 19_984_174,
    "nat_tiny": 27_901_582,
    "dinat_tiny": 27_901_582,
    "nat_small": 50_743_297,
    "dinat_small": 50_719_681,
    "nat_base": 89_769_652,
    "dinat_base": 89_769_652,
    "dinat_large": 200_943_514,
    "dinat_large_384": 200_943_514,
    "dinat_large_384_11x11": 201_144_250,
    "dinat_s_tiny": 28_288_354,
    "dinat_s_small": 49_606_258,
    "dinat_s_base": 87_768_224,
    "dinat_s_large": 196_532_476,
    "dinat_s_large_384": 196_532_476,
    "nat_isotropic_small": 21_999_736,
    "dinat_isotropic_small": 21_999_736,
    "nat_isotropic_base": 86_465_800,
    "dinat_isotropic_base": 86_465_800,
    "vitrpb_small": 22_080_376,
    "vitrpb_base": 86_627_080,
}


def test_the_table_names_every_variant():
    assert list_models() == sorted(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    model = create_model(name, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    assert not list(model.buffers()), "the original files hold parameters only"


@pytest.mark.parametrize("name", [name for name in PARAMETERS if "isotropic" not in name and "vitrpb" not in name])
def test_heads_have_32_channels_and_windows_fit_the_maps(name):
    config, image_size = variant_config(name), VARIANTS[name].image_size
    assert config.num_labels == 1000
    for level, (dim, heads, dilations) in enumerate(zip(config.dims, config.num_heads, config.dilations, strict=True)):
        assert dim == 32 * heads
        length = image_size // 4 // 2**level
        assert config.kernel_size * max(dilations) <= length, "no published model pads at its own resolution"
        assert max(dilations) in (1, length // config.kernel_size), "the widest dilation is the widest that fits"


def test_list_models_filters_by_pattern():
    assert list_models("dinat_s_*") == [
        "dinat_s_base",
        "dinat_s_large",
        "dinat_s_large_384",
        "dinat_s_small",
        "dinat_s_tiny",
    ]
    assert list_models("swin*") == []


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="no model is called 'dinat_minni'; the nearest names are dinat_mini"):
        create_model("dinat_minni")


def test_settings_override_the_variant():
    model = create_model("dinat_mini", num_classes=3, kernel_size=(3, 5), small_input="raise", device="meta")
    assert model.head.out_features == 3
    assert model.levels[0].blocks[1].attn.rpb.shape == (2, 5, 9)
    assert model.levels[0].blocks[1].attn.dilation == (8, 8)
    assert {layer.attn.small_input for level in model.levels for layer in level.blocks} == {"raise"}


def test_dtype_and_device_are_those_asked_for():
    model = create_model("vitrpb_small", device="meta", dtype=torch.bfloat16)
    assert {(parameter.device.type, parameter.dtype) for parameter in model.parameters()} == {("meta", torch.bfloat16)}


@pytest.mark.parametrize("name", ["nat_isotropic_small", "vitrpb_base"])
def test_isotropic_models_have_no_levels_to_configure(name):
    with pytest.raises(ValueError, match=f"{name} is isotropic"):
        variant_config(name)


def test_drop_path_grows_linearly_over_all_layers():
    config = DinatConfig(
        embed_dim=8, depths=[2, 3], num_heads=[1, 1], dilations=[[1] * 2, [1] * 3], kernel_size=2, drop_path_rate=0.4
    )

    rates = [layer.drop_path.rate for level in DiNAT(config).levels for layer in level.blocks]
    assert rates == pytest.approx(torch.linspace(0, 0.4, 5).tolist(), abs=1e-7)
