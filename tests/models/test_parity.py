"""Our models give what Hugging Face's gave while they ran on NATTEN's own kernels, to 2e-5 in every number."""

import pytest
import torch
from torch.testing import assert_close

from dinat_ref.attention.functional import FORMULATIONS
from dinat_ref.models import DiNAT, DinatBackbone, DinatForImageClassification, DinatModel, load_checkpoint
from dinat_ref.models.keys import to_huggingface, to_original
from tests.models.golden import cases

EXACT = {"rtol": 0, "atol": 0}
CLOSE = {"rtol": 0, "atol": 2e-5}

pytestmark = pytest.mark.parametrize("case", cases(), ids=lambda case: f"case{case.number}")


def test_every_output_of_the_classifier(case):
    model = DinatForImageClassification(case.config).eval()
    load_checkpoint(model, case.state)
    with torch.no_grad():
        output = model(case.image, output_hidden_states=True, output_attentions=True)
    assert_close(output.logits, case.array("logits"), **CLOSE)
    for ours, theirs in (
        (output.hidden_states, case.arrays_of("hidden")),
        (output.reshaped_hidden_states, case.arrays_of("reshaped")),
        (output.attentions, case.arrays_of("attn")),
    ):
        assert len(ours) == len(theirs) > 0
        for computed, recorded in zip(ours, theirs, strict=True):
            assert_close(computed, recorded, **CLOSE)


def test_every_feature_map_of_the_backbone(case):
    recorded = case.arrays_of("fmap")
    case.config.out_indices = list(range(len(recorded)))
    model = DinatBackbone(case.config).eval()
    report = load_checkpoint(model, case.state)  # a classifier's file has no LayerNorms for stages: ours stay new
    assert set(report.missing) == {name for name in model.state_dict() if name.startswith("norm")}
    with torch.no_grad():
        feature_maps = model(case.image).feature_maps
    for computed, theirs in zip(feature_maps, recorded, strict=True):
        assert_close(computed, theirs, **CLOSE)


def test_the_plain_models_agree_with_the_classifier(case):
    classifier, plain, headless = DinatForImageClassification(case.config), DiNAT(case.config), DinatModel(case.config)
    for model in (classifier, plain, headless):
        load_checkpoint(model.eval(), case.state)
    with torch.no_grad():
        expected = classifier(case.image, output_hidden_states=True)
        assert_close(plain(case.image), expected.logits, **EXACT)
        output = headless(case.image)
        assert_close(plain.head(output.pooler_output), expected.logits, **EXACT)
        assert_close(headless.norm(expected.hidden_states[-1]), output.last_hidden_state, **EXACT)


def test_small_maps_are_what_is_padded(case):
    # case 0: dilation 2 needs 6 rows, the map has 5; case 1: both levels are too small somewhere
    maps = [tuple(x.shape[1:3]) for x in case.arrays_of("hidden")]
    attended = [tuple(x.shape[2:4]) for x in case.arrays_of("attn")]
    assert attended != maps[: len(attended)], "the recorded case pads"


def test_keys_there_and_back_are_the_identity(case):
    again = to_huggingface(to_original(case.state))
    assert again.keys() == case.state.keys()
    for name, tensor in case.state.items():
        assert_close(again[name], tensor, **EXACT)


@pytest.mark.parametrize("impl", FORMULATIONS)
def test_every_formulation_gives_the_recorded_logits(case, impl):
    model = DiNAT(case.config).eval()
    load_checkpoint(model, case.state)
    for level in model.levels:
        for layer in level.blocks:
            layer.attn.impl = impl
    with torch.no_grad():
        assert_close(model(case.image), case.array("logits"), **CLOSE)
