"""Options of loading: the formulation of all layers, the averaged weights, another configuration."""

import pytest
import torch
from torch.testing import assert_close

from dinat_ref.layers import NeighborhoodAttention
from dinat_ref.models import DinatForImageClassification, Isotropic, create_model
from tests.models.tiny import image, tiny


def formulations(model):
    return {part.impl for part in model.modules() if isinstance(part, NeighborhoodAttention)}


def test_one_formulation_for_all_layers(tmp_path):
    DinatForImageClassification(tiny()).save_pretrained(tmp_path)
    models = {
        impl: DinatForImageClassification.from_pretrained(tmp_path, impl=impl) for impl in ("auto", "gather", "masked")
    }
    for impl, model in models.items():
        assert formulations(model) == {impl}
        assert_close(model(image()).logits, models["auto"](image()).logits)
    assert formulations(create_model("dinat_s_tiny", device="meta", impl="unfold")) == {"unfold"}
    assert formulations(create_model("vitrpb_small", device="meta", impl="masked")) == {"masked"}
    with pytest.raises(ValueError, match="impl must be 'auto' or one of"):
        create_model("dinat_mini", device="meta", impl="fastest")


@pytest.mark.parametrize("ema", [True, False])
def test_which_weights_are_taken(ema, tmp_path):
    model = DinatForImageClassification(tiny())
    model.config.to_json(tmp_path / "config.json")
    state = model.state_dict()
    average = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": average}, tmp_path / "pytorch_model.bin")
    loaded = DinatForImageClassification.from_pretrained(tmp_path, ema=ema)
    assert_close(dict(loaded.state_dict()), dict(average if ema else state), rtol=0, atol=0)


def test_another_configuration(tmp_path):
    model = DinatForImageClassification(tiny())
    model.save_pretrained(tmp_path)
    config = tiny(dilations=[[1, 1], [1], [1, 1]])
    loaded = DinatForImageClassification.from_pretrained(tmp_path, config=config, small_input="raise")
    assert loaded.config.dilations == [[1, 1], [1], [1, 1]]
    assert loaded.config.small_input == "raise"
    with pytest.raises(TypeError, match="config must be a DinatConfig, got dict"):
        DinatForImageClassification.from_pretrained(tmp_path, config={})
    Isotropic(32, 1, depth=1, kernel_size=3).save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="config must be None"):
        Isotropic.from_pretrained(tmp_path, config=config)
