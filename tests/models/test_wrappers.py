"""Checkpoints as people have them: weights twice in one file, prefixes in any nesting, layouts of other families."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from dinat_ref.models import (
    CheckpointError,
    DiNAT,
    DinatBackbone,
    DinatForImageClassification,
    DiNATs,
    Isotropic,
    load_checkpoint,
    read_checkpoint,
)
from dinat_ref.models.keys import to_huggingface, to_original
from dinat_ref.models.wrappers import LAYOUTS, describe_layout, find_state
from tests.models.tiny import tiny

EXACT = {"rtol": 0, "atol": 0}
TRANSPARENT = ("module.", "_orig_mod.", "model.", "_fsdp_wrapped_module.", "net.")


def filled(model: nn.Module, number: float) -> nn.Module:
    """Give every parameter the same number, to see whose it is."""
    for parameter in model.parameters():
        nn.init.constant_(parameter, number)
    return model


def head(state) -> float:
    return float(state["head.weight"][0, 0])


# the same weights twice


@pytest.mark.parametrize("average", ["state_dict_ema", "model_ema"])
@pytest.mark.parametrize("latest", ["state_dict", "model"])
def test_the_average_is_taken_unless_somebody_asks_for_the_others(tmp_path, average, latest):
    """As timm's load_checkpoint does; the report says which."""
    ones, twos = (dict(filled(DiNAT(tiny()), number).state_dict()) for number in (1.0, 2.0))
    content = {"epoch": 3, "arch": "dinat_mini", latest: ones, average: twos}
    torch.save(content, tmp_path / "last.pth")
    for source in (tmp_path / "last.pth", content):
        model = DiNAT(tiny())
        assert load_checkpoint(model, source).taken == average
        assert head(model.state_dict()) == 2
        assert load_checkpoint(model, source, ema=False).taken == latest
        assert head(model.state_dict()) == 1
    assert head(read_checkpoint(tmp_path / "last.pth")) == 2
    assert head(read_checkpoint(tmp_path / "last.pth", ema=False)) == 1


@pytest.mark.parametrize("ema", [True, False])
def test_where_there_is_one_it_is_taken(ema):
    state = {"head.bias": torch.ones(2)}
    assert find_state({"state_dict_ema": state, "epoch": torch.tensor(3)}, ema) == (state, "state_dict_ema")
    assert find_state({"state_dict": state, "state_dict_ema": None}, ema) == (state, "state_dict")
    assert find_state({"model": {"state_dict": state}}, ema) == (state, "model.state_dict")
    assert find_state(state, ema) == (state, "")


def test_a_whole_module_counts_as_its_weights():
    """What torch.load(weights_only=False) gives of a file that holds the model itself."""
    model = filled(DiNAT(tiny()), 3.0)
    other = DiNAT(tiny())
    assert load_checkpoint(other, {"model": model, "epoch": 3}).taken == "model"
    assert head(other.state_dict()) == 3


def test_no_tensors_and_a_mapping_of_itself():
    endless = {"epoch": 3}
    endless["model"] = endless
    for content in (endless, {}, {"model": {}}, [torch.zeros(2)], {"state_dict": {"lr": 0.1}}):
        with pytest.raises(ValueError, match="it holds no tensors by name"):
            find_state(content)


# prefixes


@given(st.lists(st.sampled_from(TRANSPARENT), max_size=5).map("".join), st.booleans())
def test_prefixes_in_any_nesting(prefix, respelt):
    """Whatever stands before the names, in both spellings, for a classifier."""
    model = filled(DinatForImageClassification(tiny()), 0.5)
    state = to_huggingface(model.state_dict()) if respelt else model.state_dict()
    wrapped = {prefix + name: tensor for name, tensor in state.items()}
    assert list(to_original(wrapped)) == list(to_original(state))
    load_checkpoint(DinatForImageClassification(tiny()), wrapped)


@pytest.mark.parametrize("path", ["backbone.", "model.backbone.", "module.backbone.body.", "encoder."])
@pytest.mark.parametrize("compiled", ["", "_orig_mod."])
def test_what_is_around_a_backbone_is_left_aside(path, compiled):
    backbone = filled(DinatBackbone(tiny(out_features=["stage1", "stage2", "stage3"])), 0.5)
    state = {f"{compiled}{path}{name}": tensor for name, tensor in backbone.state_dict().items()}
    state |= {f"{compiled}neck.conv.weight": torch.zeros(3), f"{compiled}head.cls.bias": torch.zeros(2)}
    other = DinatBackbone(backbone.config)
    assert load_checkpoint(other, state).missing == ()
    assert other.norm2.weight[0].item() == 0.5


def test_the_backbone_of_oneformer_and_mask2former():
    """As transformers names it there, among everything else that such a model has."""
    backbone = filled(DinatBackbone(tiny(out_features=["stage1", "stage2", "stage3"])), 0.5)
    path = "model.pixel_level_module.encoder."
    state = {path + name: tensor for name, tensor in to_huggingface(backbone.state_dict(), prefix="").items()}
    state |= {"model.pixel_level_module.decoder.input_projections.0.0.weight": torch.zeros(2)}
    state |= {"model.transformer_module.decoder.layers.0.norm.weight": torch.zeros(2)}
    state |= {"model.text_mapper.text_encoder.embeddings.weight": torch.zeros(2)}
    other = DinatBackbone(backbone.config)
    assert load_checkpoint(other, state).missing == ()
    assert other.patch_embed.norm.weight[0].item() == 0.5


def test_blocks_that_were_compiled_one_by_one():
    state = filled(DiNAT(tiny()), 0.5).state_dict()
    compiled = {name.replace("blocks.1.", "blocks.1._orig_mod."): tensor for name, tensor in state.items()}
    assert compiled.keys() != state.keys()
    assert to_original(compiled).keys() == state.keys()


def test_an_averaged_model_of_pytorch():
    model = filled(DiNAT(tiny()), 0.5)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    assert "n_averaged" in averaged.state_dict()
    load_checkpoint(DiNAT(tiny()), averaged.state_dict())


def test_a_part_of_a_model():
    assert list(to_original({"module.backbone.norm0.bias": torch.zeros(2), "module.neck.bias": torch.zeros(2)})) == [
        "norm0.bias"
    ]


def test_two_models_in_one_file_are_nobodys_guess():
    names = itertools.product(("student.backbone.", "teacher.backbone."), DiNAT(tiny()).state_dict())
    with pytest.raises(CheckpointError, match=r"holds 2 models, under 'student.backbone.', 'teacher.backbone.': pass"):
        load_checkpoint(DiNAT(tiny()), {"".join(pair): torch.zeros(1) for pair in names})


def test_what_is_beside_a_classifier_is_said():
    state = {f"model.{name}": tensor for name, tensor in DiNAT(tiny()).state_dict().items()}
    with pytest.raises(CheckpointError, match=r"1 unexpected: criterion\.weight"):
        load_checkpoint(DiNAT(tiny()), state | {"criterion.weight": torch.zeros(5)})


def test_a_name_is_shown_no_longer_than_it_can_be_read():
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(DiNAT(tiny()), dict(DiNAT(tiny()).state_dict()) | {"x" * 10**6: torch.zeros(1)})
    assert len(str(caught.value)) < 400


# layouts


@pytest.mark.parametrize(
    ("make", "layout"),
    [
        (lambda: DiNAT(tiny()), "NAT and DiNAT"),
        (lambda: DiNATs(tiny()), "DiNAT_s"),
        (lambda: Isotropic(32, 1, depth=2, kernel_size=3), "the isotropic models"),
    ],
)
def test_typical_names_are_names_of_the_models(make, layout):
    names = make().state_dict()
    assert describe_layout(names) == f"of {layout}"
    for typical in LAYOUTS[layout]:
        assert any(typical.replace("N", number) in names or typical.replace("N", "0") in names for number in "01"), (
            typical
        )


def test_typical_names_of_hugging_face():
    names = to_huggingface(DiNAT(tiny()).state_dict(), prefix="")
    assert describe_layout(names) == "of Hugging Face's Dinat"
    assert {typical.replace("N", "0") for typical in LAYOUTS["Hugging Face's Dinat"]} <= names.keys()


def test_an_error_compares_layouts():
    with pytest.raises(CheckpointError, match=r"; its layout is of DiNAT_s; the model's of NAT and DiNAT$"):
        load_checkpoint(DiNAT(tiny()), DiNATs(tiny()).state_dict())
    state = {name.replace("levels", "stages"): tensor for name, tensor in DiNAT(tiny()).state_dict().items()}
    with pytest.raises(CheckpointError, match=r"its layout is unknown, nearest to that of NAT and DiNAT: levels\.N.*"):
        load_checkpoint(DiNAT(tiny()), state)


# numbers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensor: tensor.to(torch.int8),
            "weights must be dense floating point numbers, got torch.int8 in head.bias",
        ),
        (lambda tensor: tensor > 0, "got torch.bool in head.bias"),
        (lambda tensor: tensor.to(torch.complex64), "got torch.complex64 in head.bias"),
        (lambda tensor: tensor.to_sparse(), "got torch.sparse_coo in head.bias"),
        (lambda tensor: tensor * torch.nan, "weights must be finite, got infinity or NaN in head.bias"),
        (lambda tensor: (tensor + torch.inf).half(), "weights must be finite, got infinity or NaN in head.bias"),
        (lambda tensor: (tensor * torch.nan).to(torch.float8_e5m2), "weights must be finite"),
    ],
)
def test_weights_are_finite_floating_point_numbers(change, message):
    state = filled(DiNAT(tiny()), 0.5).state_dict()
    model = filled(DiNAT(tiny()), 1.0)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, state | {"head.bias": change(state["head.bias"])})
    assert head(model.state_dict()) == 1, "nothing was loaded"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_any_precision_is_converted(dtype):
    model = DiNAT(tiny())
    load_checkpoint(model, {name: t.to(dtype) for name, t in filled(DiNAT(tiny()), 0.5).state_dict().items()})
    assert_close(model.head.weight, torch.full((5, 48), 0.5), **EXACT)


def test_other_numbers_are_loaded_where_somebody_asks_for_it():
    state = filled(DiNAT(tiny()), 0.5).state_dict() | {"head.bias": torch.arange(5, dtype=torch.int8)}
    model = DiNAT(tiny())
    load_checkpoint(model, state, check_numbers=False)
    assert_close(model.head.bias, torch.arange(5.0), **EXACT)
