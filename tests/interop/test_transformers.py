"""Hugging Face's own Dinat runs after ``enable_dinat()``, gives what it gave, and what ours gives."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from dinat_ref import Neighborhood
from dinat_ref.models import DinatBackbone, DinatConfig, DinatForImageClassification, DinatModel, load_checkpoint
from tests.models.golden import cases
from tests.models.tiny import TINY, image, tiny

transformers = pytest.importorskip("transformers", reason="transformers is not installed: dinat-ref[hf]")
pytest.importorskip("safetensors", reason="safetensors is not installed: dinat-ref[hf]")

from dinat_ref.interop import transformers as bridge  # noqa: E402
from dinat_ref.interop.natten import remove_natten  # noqa: E402

EXACT = {"rtol": 0, "atol": 0}
CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module", autouse=True)
def report():
    """What ``enable_dinat`` did; the stand-in goes away after these tests."""
    yield bridge.enable_dinat()
    remove_natten()


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def theirs(kind: str = "DinatForImageClassification", **settings) -> torch.nn.Module:
    return randomised(getattr(transformers, kind)(transformers.DinatConfig(**(TINY | settings))))


def test_it_says_what_it_did_and_does_it_once(report):
    assert "provided natten" in report
    assert bridge.enable_dinat() == []


def test_the_heads_are_repaired_only_where_they_are_split_wrongly(monkeypatch):
    dinat = transformers.models.dinat.modeling_dinat
    layer = dinat.NeighborhoodAttention
    assert bridge._attends_rightly(dinat)

    def wrong(self, hidden_states, output_attentions=False):  # as releases since 4.54 split them
        shape = (*hidden_states.shape[:-1], -1, self.attention_head_size)
        query, key, value = (
            part(hidden_states).view(shape).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        query = query / self.attention_head_size**0.5
        weights = dinat.natten2dqkrpb(query, key, self.rpb, self.kernel_size, self.dilation).softmax(-1)
        output = dinat.natten2dav(weights, value, self.kernel_size, self.dilation).permute(0, 2, 3, 1, 4)
        return (output.flatten(-2),)

    right = layer.forward
    monkeypatch.setattr(layer, "forward", wrong)
    assert bridge.enable_dinat() == ["replaced the forward of NeighborhoodAttention, which splits the heads wrongly"]
    assert layer.forward is bridge._forward

    def also_right(self, *arguments, **named):
        return right(self, *arguments, **named)

    monkeypatch.setattr(layer, "forward", also_right)
    assert bridge.enable_dinat() == []
    assert layer.forward is also_right


def made_explicit(monkeypatch):
    """Count the calls in which the repaired forward made weights."""
    calls = []
    make = bridge.neighborhood_weights
    monkeypatch.setattr(bridge, "neighborhood_weights", lambda *a, **k: calls.append(1) or make(*a, **k))
    return calls


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_weights_are_made_only_for_who_asks_and_for_dropout(monkeypatch, rate):
    calls, model = made_explicit(monkeypatch), theirs(attention_probs_dropout_prob=rate)
    if transformers.models.dinat.modeling_dinat.NeighborhoodAttention.forward is not bridge._forward:
        pytest.skip("this release's own forward is right, and makes weights in any case")
    plain = model(image()).logits
    assert not calls
    asked = model(image(), output_attentions=True)
    assert len(calls) == 5  # a layer each
    assert_close(asked.logits, plain, **CLOSE)
    for weights in asked.attentions:
        assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), **CLOSE)
    model.train()(image())
    assert len(calls) == (5 if rate == 0 else 10)


def test_gradients_reach_the_attentions_that_are_shown():
    output = theirs()(image(), output_attentions=True)
    for gradient in torch.autograd.grad(output.logits[:, 2].sum(), output.attentions):
        assert gradient.abs().max() > 0


def test_dropped_weights_are_those_that_are_shown():
    layer = theirs(attention_probs_dropout_prob=0.5).dinat.encoder.levels[0].layers[1].attention.self.train()
    x = image(seed=3).new_zeros(1, 9, 10, 12).normal_(generator=torch.Generator().manual_seed(4))
    torch.manual_seed(1)
    output, weights = layer(x, output_attentions=True)  # weights [B, H, X, Y, K]
    torch.manual_seed(1)
    assert_close(layer(x)[0], output, **EXACT)
    assert 0.4 < float((weights == 0).float().mean()) < 0.6
    value = layer.value(x).unflatten(-1, (2, 6))
    neighbors = Neighborhood((9, 10), 3, dilation=3).indices()  # [N, K]
    expected = torch.einsum("hnk,nkhd->nhd", weights[0].flatten(1, 2), value.flatten(1, 2)[0][neighbors])
    assert_close(output[0], expected.reshape(9, 10, 12), **CLOSE)


def test_a_dinat_that_was_imported_too_early_gets_the_functions(monkeypatch):
    dinat = transformers.models.dinat.modeling_dinat

    def placeholder(*arguments, **named):
        raise ImportError("no natten")

    placeholder.__module__ = bridge.MODULE
    for name in bridge.FUNCTIONS:
        monkeypatch.setattr(dinat, name, placeholder)
    assert bridge.enable_dinat() == ["replaced the placeholders of natten2dqkrpb and natten2dav"]
    assert dinat.natten2dav is bridge.FUNCTIONS["natten2dav"]


def test_a_natten_that_is_installed_is_lent_what_it_lacks(monkeypatch, tmp_path):
    remove_natten()
    (tmp_path / "natten").mkdir()
    (tmp_path / "natten" / "__init__.py").write_text("__version__ = '0.21.7'\n")
    (tmp_path / "natten" / "functional.py").write_text("def natten2dav(): return 'its own'\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert bridge.enable_dinat() == ["lent natten2dqkrpb to the NATTEN installed"]
        functional = sys.modules["natten.functional"]
        assert functional.natten2dqkrpb is bridge.FUNCTIONS["natten2dqkrpb"]
        assert functional.natten2dav() == "its own"
    finally:
        for name in ("natten", "natten.functional"):
            sys.modules.pop(name)
        monkeypatch.undo()
        bridge.enable_dinat()


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"case{case.number}")
def test_it_gives_what_it_gave_on_nattens_own_kernels(case):
    settings = {name: value for name, value in case.settings.items() if name != "size"}
    model = transformers.DinatForImageClassification(transformers.DinatConfig(**settings)).eval()
    model.load_state_dict(case.state)
    with torch.no_grad():
        output = model(case.image, output_hidden_states=True, output_attentions=True)
    assert_close(output.logits, case.array("logits"), rtol=0, atol=2e-5)
    for kind, values in (("hidden", output.hidden_states), ("attn", output.attentions)):
        for computed, recorded in zip(values, case.arrays_of(kind), strict=True):
            assert_close(computed, recorded, rtol=0, atol=2e-5)


@pytest.mark.parametrize("settings", [{}, {"layer_scale_init_value": 0.5, "qkv_bias": False, "kernel_size": 5}])
def test_logits_states_and_attentions_equal_ours(settings):
    hf, ours = theirs(**settings), DinatForImageClassification(tiny(**settings)).eval()
    load_checkpoint(ours, hf.state_dict())
    wanted = {"output_hidden_states": True, "output_attentions": True}
    labels = torch.tensor([1, 4])
    expected, output = hf(image(), labels=labels, **wanted), ours(image(), labels=labels, **wanted)
    assert list(output) == list(expected)
    assert_close(output.logits, expected.logits, **CLOSE)
    assert_close(output.loss, expected.loss, **CLOSE)
    for name in ("hidden_states", "reshaped_hidden_states", "attentions"):
        for mine, other in zip(output[name], expected[name], strict=True):
            assert_close(mine, other, **CLOSE)
    tuples = [model(image(), labels=labels, return_dict=False, **wanted) for model in (hf, ours)]
    assert [type(value) for value in tuples[0]] == [type(value) for value in tuples[1]]


def test_gradients_equal_ours():
    hf, ours = theirs(drop_path_rate=0.0), DinatForImageClassification(tiny(drop_path_rate=0.0))
    load_checkpoint(ours, hf.state_dict())
    for model in (hf.train(), ours.train()):
        model(image(), labels=torch.tensor([0, 3])).loss.backward()
    assert_close(
        ours.levels[0].blocks[1].attn.rpb.grad, hf.dinat.encoder.levels[0].layers[1].attention.self.rpb.grad, **CLOSE
    )
    assert_close(ours.head.weight.grad, hf.classifier.weight.grad, **CLOSE)
    assert_close(
        ours.patch_embed.proj[0].weight.grad,
        hf.dinat.embeddings.patch_embeddings.projection[0].weight.grad,
        rtol=1e-4,
        atol=1e-5,
    )


def test_the_classifier_goes_back_and_forth_through_files(tmp_path):
    hf = theirs(id2label=dict(enumerate("abcde")), label2id={name: number for number, name in enumerate("abcde")})
    hf.save_pretrained(tmp_path / "theirs")
    ours = DinatForImageClassification.from_pretrained(tmp_path / "theirs")
    assert ours.config.id2label == dict(enumerate("abcde"))
    ours.save_pretrained(tmp_path / "ours")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    assert isinstance(config, transformers.DinatConfig)
    assert config.id2label == dict(enumerate("abcde"))
    assert (config.hidden_size, config.dilations) == (48, TINY["dilations"])
    again, info = transformers.DinatForImageClassification.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, tensor in hf.state_dict().items():
        assert_close(again.state_dict()[name], tensor, **EXACT)
    assert_close(again.eval()(image()).logits, ours(image()).logits, **CLOSE)


@pytest.mark.parametrize(("kind", "make"), [("DinatModel", DinatModel), ("DinatBackbone", DinatBackbone)])
def test_model_and_backbone_go_back_and_forth_through_files(tmp_path, kind, make):
    stages = {"out_features": ["stem", "stage2", "stage3"]} if kind == "DinatBackbone" else {}
    hf = theirs(kind, **stages)
    hf.save_pretrained(tmp_path / "theirs")
    ours = make.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    again = getattr(transformers, kind).from_pretrained(tmp_path / "ours").eval()
    assert again.state_dict().keys() == hf.state_dict().keys()
    for mine, other in zip(ours(image()).to_tuple(), again(image()).to_tuple(), strict=True):
        for one, two in zip(
            *([value] if isinstance(value, torch.Tensor) else value for value in (mine, other)), strict=True
        ):
            assert_close(one, two, **CLOSE)


@pytest.mark.parametrize("asked", [{"out_features": ["stage1", "stage3"]}, {"out_indices": [1, 3]}])
def test_a_backbone_of_transformers_gives_other_stages_when_asked(tmp_path, asked):
    hf = theirs("DinatBackbone", out_features=["stage2", "stage3"])
    hf.save_pretrained(tmp_path)  # transformers writes out_features and out_indices
    model = DinatBackbone.from_pretrained(tmp_path, **asked)
    assert (model.out_features, model.channels) == (["stage1", "stage3"], [12, 48])
    _, kept = model(image()).feature_maps
    assert_close(kept, hf(image()).feature_maps[1], **CLOSE)


def test_auto_classes_find_dinat(tmp_path, monkeypatch):
    ours = randomised(DinatForImageClassification(tiny()))
    ours.save_pretrained(tmp_path)
    auto = transformers.AutoModelForImageClassification.from_pretrained(tmp_path)
    assert_close(auto.eval()(image()).logits, ours(image()).logits, **CLOSE)

    # AutoBackbone asks the hub whether it has the name before it looks at the disk: answer in its place
    factory = sys.modules["transformers.models.auto.auto_factory"]
    monkeypatch.setattr(factory, "hf_api", lambda: SimpleNamespace(repo_exists=lambda name: True), raising=False)
    monkeypatch.setattr(factory, "repo_exists", lambda name: True, raising=False)  # in releases before 5
    backbone = transformers.AutoBackbone.from_pretrained(str(tmp_path), out_indices=[1, 3]).eval()
    assert backbone.channels == [12, 48]
    mine = DinatBackbone.from_pretrained(tmp_path, out_indices=[1, 3])
    for one, two in zip(mine(image()).feature_maps, backbone(image()).feature_maps, strict=True):
        assert_close(one, two, **CLOSE)
    config = transformers.AutoConfig.from_pretrained(tmp_path, out_features=["stage2"])
    assert transformers.AutoBackbone.from_config(config).channels == [24]


def test_export():
    hf = theirs()
    exported = torch.export.export(hf, (image(),), strict=False).module()
    assert_close(exported(image()).logits, hf(image()).logits, **CLOSE)


def test_configurations_have_the_same_fields_and_defaults():
    hf, ours = transformers.DinatConfig().to_dict(), DinatConfig().to_dict()
    assert set(ours) - set(hf) <= {"small_input", "id2label", "label2id"}
    for name in set(ours) & set(hf) - {"out_features", "out_indices"}:  # ours leaves the last stage unsaid
        as_list = [list(value) if isinstance(value, tuple) else value for value in (ours[name], hf[name])]
        if name in ("id2label", "label2id"):
            as_list = [{str(key): str(value) for key, value in names.items()} for names in as_list]
        assert as_list[0] == as_list[1], name
    assert DinatConfig.from_dict(hf).to_dict() | {"out_features": None, "out_indices": None} == ours
