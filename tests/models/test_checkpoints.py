"""Checkpoints: both spellings and all files are read, nothing hostile runs, and errors say what does not fit."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from dinat_ref.models import (
    CheckpointError,
    DiNAT,
    DinatBackbone,
    DinatForImageClassification,
    DinatModel,
    create_model,
    load_checkpoint,
    read_checkpoint,
)
from dinat_ref.models.dinat_s import DiNATs
from dinat_ref.models.isotropic import Isotropic
from dinat_ref.models.keys import spelling, to_huggingface, to_original
from dinat_ref.models.rpb import resize_rpb
from dinat_ref.models.weight_files import write_checkpoint
from tests.models.tiny import configs, image, tiny

EXACT = {"rtol": 0, "atol": 0}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter, biases and norms included, numbers of its own."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def assert_same_state(computed, expected):
    assert computed.keys() == expected.keys()
    for name, tensor in expected.items():
        assert_close(computed[name], tensor, **EXACT, msg=lambda text, name=name: f"{name}: {text}")


# spellings


@given(configs(), st.integers(0, 2**16))
@settings(max_examples=15, deadline=None)
def test_original_to_huggingface_and_back_is_the_identity_and_logits_agree(config, seed):
    model = randomised(DinatForImageClassification(config), seed)
    state = model.state_dict()
    respelt = to_huggingface(state)
    assert spelling(state) == "original"
    assert spelling(respelt) == "huggingface"
    assert_same_state(to_original(respelt), state)
    other = DiNAT(config).eval()
    load_checkpoint(other, respelt)
    x = image(seed, 1, 21, 34)
    assert_close(other(x), model(x).logits, **EXACT)


def test_names_of_a_classifier_are_hugging_faces():
    names = set(to_huggingface(DiNAT(tiny(layer_scale_init_value=0.1)).state_dict()))
    layer = "dinat.encoder.levels.1.layers.0."
    assert names >= {
        "dinat.embeddings.patch_embeddings.projection.1.weight",
        "dinat.embeddings.norm.bias",
        layer + "layernorm_before.weight",
        layer + "layernorm_after.bias",
        layer + "attention.self.query.weight",
        layer + "attention.self.value.bias",
        layer + "attention.self.rpb",
        layer + "attention.output.dense.weight",
        layer + "intermediate.dense.bias",
        layer + "output.dense.weight",
        layer + "layer_scale_parameters",
        "dinat.encoder.levels.1.downsample.reduction.weight",
        "dinat.encoder.levels.1.downsample.norm.weight",
        "dinat.layernorm.weight",
        "classifier.bias",
    }
    assert not {name for name in names if "qkv" in name or "gamma" in name or "blocks" in name}


def test_names_of_a_backbone_are_hugging_faces():
    model = DinatBackbone(tiny(out_features=["stem", "stage1", "stage3"]))
    names = set(to_huggingface(model.state_dict(), prefix=""))
    norms = {name for name in names if name.startswith("hidden_states_norms")}
    assert norms == {f"hidden_states_norms.{s}.{p}" for s in ("stem", "stage1", "stage3") for p in ("weight", "bias")}
    assert {name.split(".")[0] for name in names} == {"embeddings", "encoder", "hidden_states_norms"}
    assert_same_state(to_original(to_huggingface(model.state_dict(), prefix="")), model.state_dict())


def test_a_nat_of_hugging_face_is_read():
    model = randomised(DiNAT(tiny(dilations=[[1, 1], [1], [1, 1]])))
    theirs = {name.replace("dinat.", "nat.", 1): tensor for name, tensor in to_huggingface(model.state_dict()).items()}
    other = DiNAT(model.config).eval()
    load_checkpoint(other, theirs)
    assert_same_state(other.state_dict(), model.state_dict())


def test_a_query_without_its_key_is_refused():
    state = to_huggingface(DiNAT(tiny()).state_dict())
    del state["dinat.encoder.levels.0.layers.1.attention.self.key.bias"]
    with pytest.raises(CheckpointError, match=r"levels.0.blocks.1.attn.qkv.bias needs .* no key$"):
        load_checkpoint(DiNAT(tiny()), state)


# files


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_ema"])
def test_pickles_are_read_with_what_is_around_them(tmp_path, suffix, wrapper):
    model = randomised(DiNAT(tiny()))
    content = model.state_dict() if wrapper is None else {"epoch": 300, wrapper: dict(model.state_dict())}
    torch.save(content, tmp_path / f"model{suffix}")
    other = DiNAT(tiny())
    load_checkpoint(other, tmp_path / f"model{suffix}")
    assert_same_state(other.state_dict(), model.state_dict())


def test_a_detectors_file_gives_its_backbone(tmp_path):
    model = randomised(DinatBackbone(tiny(out_features=["stage1", "stage2", "stage3"])))
    state = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    state |= {"neck.lateral_convs.0.conv.weight": torch.zeros(3), "roi_head.bbox_head.0.fc_cls.bias": torch.zeros(2)}
    torch.save({"meta": {"epoch": 36}, "state_dict": state}, tmp_path / "mask_rcnn.pth")

    other = DinatBackbone(model.config)
    assert load_checkpoint(other, tmp_path / "mask_rcnn.pth").missing == ()
    assert_same_state(other.state_dict(), model.state_dict())
    fewer = DinatBackbone(tiny(out_features=["stage2"]))
    load_checkpoint(fewer, tmp_path / "mask_rcnn.pth")
    assert_close(fewer.eval()(image()).feature_maps[0], model(image()).feature_maps[1], **EXACT)


def test_data_parallel_prefixes_and_constant_buffers_go():
    model = randomised(Isotropic(32, 1, depth=2, image_size=64, full_attention=True, num_labels=3))
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    state["module.layers.0.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.int64)
    other = Isotropic(32, 1, depth=2, image_size=64, full_attention=True, num_labels=3)
    load_checkpoint(other, state)
    assert_same_state(other.state_dict(), model.state_dict())


def test_folders_shards_and_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed: dinat-ref[hub]")
    model = randomised(DiNAT(tiny()))
    state = to_huggingface(model.state_dict())
    names = sorted(state)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, members in shards.items():
        safetensors.save_file({name: state[name] for name in members}, str(tmp_path / shard))
    index = {"metadata": {}, "weight_map": {name: shard for shard, members in shards.items() for name in members}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same_state(read_checkpoint(tmp_path), state)
    other = DiNAT(tiny())
    load_checkpoint(other, tmp_path / "model.safetensors.index.json")
    assert_same_state(other.state_dict(), model.state_dict())


def test_pickled_shards(tmp_path):
    state = DiNAT(tiny()).state_dict()
    names = sorted(state)
    for number, members in enumerate([names[:20], names[20:]]):
        torch.save({name: state[name] for name in members}, tmp_path / f"pytorch_model-{number}.bin")
    weight_map = {name: f"pytorch_model-{int(number >= 20)}.bin" for number, name in enumerate(names)}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert_same_state(read_checkpoint(tmp_path), state)


@pytest.mark.parametrize("make", [DinatModel, DinatForImageClassification, DinatBackbone, DiNAT, DiNATs])
def test_save_and_load(tmp_path, make):
    scale = 0.0 if make is DiNATs else 0.5
    model = randomised(make(tiny(layer_scale_init_value=scale, small_input="clamp")))
    model.save_pretrained(tmp_path / "saved")
    again = make.from_pretrained(tmp_path / "saved")
    assert again.config == model.config
    assert not again.training
    assert_same_state(again.state_dict(), model.state_dict())


def test_isotropic_models_are_saved_with_their_arguments(tmp_path):
    model = randomised(Isotropic(12, 2, depth=2, image_size=64, full_attention=True, num_labels=3))
    model.save_pretrained(tmp_path)
    again = Isotropic.from_pretrained(tmp_path)
    assert again.settings == model.settings
    assert_same_state(again.state_dict(), model.state_dict())
    larger = Isotropic.from_pretrained(tmp_path, image_size=96, resize_rpb=True)
    assert larger.layers[0].attn.kernel_size == (6, 6)
    with pytest.raises(ValueError, match="model_type must be 'dinat', 'nat' or 'dinat_s', got 'dinat_isotropic'"):
        DiNAT.from_pretrained(tmp_path)
    tiny().to_json(tmp_path / "config.json")
    with pytest.raises(ValueError, match="model_type must be 'dinat_isotropic'"):
        Isotropic.from_pretrained(tmp_path)


def test_from_pretrained_overrides_settings(tmp_path):
    model = randomised(DinatForImageClassification(tiny(num_labels=None, id2label=dict(enumerate("abcde")))))
    model.config.to_json(tmp_path / "config.json")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    backbone = DinatBackbone.from_pretrained(tmp_path, out_features=["stage2"], small_input="raise")
    assert (backbone.out_features, backbone.config.small_input) == (["stage2"], "raise")
    assert DinatModel.from_pretrained(str(tmp_path)).config.id2label[4] == "e"
    renamed = DinatForImageClassification.from_pretrained(tmp_path, id2label=dict(enumerate("vwxyz")))
    assert renamed.config.label2id == {name: number for number, name in enumerate("vwxyz")}
    with pytest.raises(CheckpointError, match=r"2 misshapen: head.weight: \(5, 48\), \(3, 48\)"):
        DinatForImageClassification.from_pretrained(tmp_path, num_labels=3)
    for leave in ({"ignore_mismatched_sizes": True}, {"strict": False}):
        with pytest.warns(UserWarning, match=r"2 misshapen: head.weight: \(5, 48\), \(3, 48\)"):
            fresh_head = DinatForImageClassification.from_pretrained(tmp_path, num_labels=3, **leave)
        assert_close(fresh_head.norm.weight, model.norm.weight, **EXACT)
        assert 0.01 < fresh_head.head.weight.std() < 0.03, "drawn anew"
        assert not fresh_head.head.bias.any()
    new_norms = DinatBackbone.from_pretrained(tmp_path)
    assert_close(new_norms.norm2.weight, torch.ones(48), **EXACT)


def test_mismatched_sizes_do_not_excuse_missing_or_unexpected_names(tmp_path):
    model = DinatForImageClassification(tiny())
    model.config.to_json(tmp_path / "config.json")
    torch.save(model.state_dict() | {"extra": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="1 unexpected: extra; 2 misshapen"):
        DinatForImageClassification.from_pretrained(tmp_path, num_labels=3, ignore_mismatched_sizes=True)
    with pytest.warns(UserWarning, match="1 unexpected: extra$"):
        DinatForImageClassification.from_pretrained(tmp_path, strict=False)


@pytest.mark.parametrize(
    ("settings", "features"),
    [
        ({"out_features": ["stem", "stage2"]}, ["stem", "stage2"]),
        ({"out_indices": [1, 3]}, ["stage1", "stage3"]),
        ({"out_features": ["stage1"], "out_indices": [1]}, ["stage1"]),
        ({}, ["stage3"]),
    ],
)
def test_stages_asked_for_replace_those_of_the_file_by_name_and_by_number(tmp_path, settings, features):
    model = DinatBackbone(tiny(out_features=["stage3"], out_indices=[3]))  # transformers writes both
    model.config.to_json(tmp_path / "config.json")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert DinatBackbone.from_pretrained(tmp_path, **settings).out_features == features


def test_names_of_classes_by_number_or_by_name(tmp_path):
    model = DinatForImageClassification(tiny())
    model.config.to_json(tmp_path / "config.json")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    numbers = {name: number for number, name in enumerate("abcde")}
    for names in ({"label2id": numbers}, {"label2id": numbers, "id2label": dict(enumerate("abcde"))}):
        config = DinatForImageClassification.from_pretrained(tmp_path, num_labels=5, **names).config
        assert config.id2label == dict(enumerate("abcde"))
    with pytest.raises(ValueError, match="label2id and id2label must say the same"):
        DinatForImageClassification.from_pretrained(tmp_path, label2id=numbers, id2label=dict(enumerate("edcba")))
    with pytest.raises(TypeError, match=r"from_pretrained takes no num_label: it is no field of DinatConfig"):
        DinatForImageClassification.from_pretrained(tmp_path, num_label=5)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        ("float64", torch.float64),
        ("torch.float16", torch.float16),
        ("auto", torch.bfloat16),
    ],
)
def test_parameters_have_the_dtype_asked_for(tmp_path, asked, expected):
    model = randomised(DinatForImageClassification(tiny())).bfloat16()
    model.config.to_json(tmp_path / "config.json")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    again = DinatForImageClassification.from_pretrained(tmp_path, dtype=asked)
    assert {parameter.dtype for parameter in again.parameters()} == {expected}
    assert_close(again.norm.weight.float(), model.norm.weight.float(), **EXACT)
    for wrong in ("float31", "int32", torch.int64, "nn"):
        with pytest.raises(ValueError, match="dtype must be 'auto' or a floating point dtype"):
            DinatForImageClassification.from_pretrained(tmp_path, dtype=wrong)


# what is refused


class Hostile:
    """Unpickling it without care runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (subprocess.call, ([sys.executable, "-c", f"open({str(self.marker)!r}, 'w')"],))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "bare pickle"])
def test_a_hostile_pickle_is_refused_and_nothing_in_it_runs(tmp_path, zipped):
    marker, path = tmp_path / "it-ran", tmp_path / "pytorch_model.bin"
    content = {"head.bias": torch.zeros(2), "payload": Hostile(marker)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(
        CheckpointError, match=r"it holds more than tensors \(subprocess.call\), and nothing in it was run"
    ):
        read_checkpoint(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Hostile(marker)))  # and this is what it would have done
    assert marker.exists()


def test_an_index_may_not_name_files_elsewhere(tmp_path):
    (tmp_path / "folder").mkdir()
    torch.save({"a": torch.zeros(1)}, tmp_path / "secret.bin")
    index = tmp_path / "folder" / "pytorch_model.bin.index.json"
    for name in ("../secret.bin", str(tmp_path / "secret.bin"), 3):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(CheckpointError, match="must name files of weights in its own folder"):
            read_checkpoint(tmp_path / "folder")
    index.write_text('{"metadata": {}}')
    with pytest.raises(CheckpointError, match="is no index of shards"):
        read_checkpoint(tmp_path / "folder")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off", b"\x80\x02}q\x00."])
def test_damaged_files(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.pth"):
        read_checkpoint(path)


def test_damaged_safetensors(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(CheckpointError, match="cannot be read as a safetensors file"):
        read_checkpoint(tmp_path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "weights.pth")
    with pytest.raises(FileNotFoundError, match="no weights in"):
        read_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no such folder, and no name on the hub: \./dinat-mini"):
        DinatModel.from_pretrained("./dinat-mini")


def test_an_error_lists_at_most_ten_of_each_kind():
    model = DiNAT(tiny())
    state = model.state_dict()
    names = list(state)
    for name in names[:12]:
        del state[name]
    state |= {f"extra.{number}": torch.zeros(1) for number in range(11)}
    state["head.bias"] = torch.zeros(7)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, state)
    text = str(caught.value)
    assert f"12 missing: {', '.join(names[:10])} and 2 more;" in text
    assert "11 unexpected: extra.0, " in text
    assert "extra.9 and 1 more;" in text
    assert "1 misshapen: head.bias: (7,), (5,) (checkpoint, model); ignore_mismatched_sizes=True" in text


def test_a_refused_checkpoint_changes_nothing_and_a_lenient_one_loads_what_fits():
    source, model = randomised(DiNAT(tiny()), 1), randomised(DiNAT(tiny(num_labels=2)), 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="2 misshapen"):
        load_checkpoint(model, source.state_dict())
    assert_same_state(model.state_dict(), before)
    with pytest.warns(UserWarning, match="2 misshapen: head.weight"):
        report = load_checkpoint(model, source.state_dict(), strict=False)
    assert report.misshapen == ("head.weight: (5, 48), (2, 48)", "head.bias: (5,), (2,)")
    expected = source.state_dict() | {name: before[name] for name in ("head.weight", "head.bias")}
    assert_same_state(model.state_dict(), expected)


def test_a_checkpoint_of_another_family_does_not_fit():
    with pytest.raises(CheckpointError, match=r"missing: .*levels\.0.* unexpected: .*layers\.0"):
        load_checkpoint(DiNAT(tiny()), DiNATs(tiny()).state_dict())


# bias tables


def test_resizing_a_bias_table():
    table = torch.randn(2, 13, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    larger = resize_rpb(table, 11)
    assert larger.shape == (2, 21, 21)
    assert_close(larger[:, 10, 10], table[:, 6, 6], **CLOSE)  # the query itself stays in the middle
    assert_close(resize_rpb(table.flip(1), 11), larger.flip(1), **CLOSE)
    assert_close(resize_rpb(table.mT, (9, 4)), resize_rpb(table, (4, 9)).mT, **CLOSE)
    assert_close(resize_rpb(torch.full((1, 13, 13), 3.0), (4, 9)), torch.full((1, 7, 17), 3.0), **CLOSE)
    assert resize_rpb(table, 7) is table
    with pytest.raises(ValueError, match="kernel_size must be at least 1"):
        resize_rpb(table, 0)
    with pytest.raises(ValueError, match=r"rpb must be \[heads"):
        resize_rpb(table[0], 3)


def test_a_model_takes_a_checkpoint_of_another_kernel_size_when_asked():
    small, large = randomised(DiNAT(tiny())), DiNAT(tiny(kernel_size=[5, 4]))
    with pytest.raises(CheckpointError, match=r"5 misshapen: levels.0.blocks.0.attn.rpb: \(2, 5, 5\), \(2, 9, 7\)"):
        load_checkpoint(large, small.state_dict())
    load_checkpoint(large, small.state_dict(), resize_rpb=True)
    rpb = small.levels[1].blocks[0].attn.rpb
    assert_close(large.levels[1].blocks[0].attn.rpb, resize_rpb(rpb, (5, 4)), **EXACT)
    assert large.eval()(image()).isfinite().all()


def test_full_attention_goes_to_another_resolution_through_its_bias_table():
    small = randomised(Isotropic(32, 1, depth=2, image_size=64, full_attention=True))
    large = Isotropic(32, 1, depth=2, image_size=96, full_attention=True)
    load_checkpoint(large, small.state_dict(), resize_rpb=True)
    assert large.layers[0].attn.rpb.shape == (1, 11, 11)


def test_published_names_load_strictly_what_they_save():
    narrow = {"num_classes": 3, "embed_dim": 32, "num_heads": [1, 2, 4, 8]}
    model, other = create_model("dinat_s_tiny", **narrow), create_model("dinat_s_tiny", **narrow)
    assert load_checkpoint(other, model.state_dict()).missing == ()
    assert_same_state(other.state_dict(), model.state_dict())


# the hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this disk: ``hub(name, files)`` publishes, and what is downloaded is recorded."""
    import types

    class EntryNotFoundError(Exception):
        pass

    published: dict[str, Path] = {}
    fetched: list[str] = []

    def hf_hub_download(name, filename, revision=None, **options):
        fetched.append(filename)
        if not (published[name] / filename).exists():
            raise EntryNotFoundError(filename)
        return str(published[name] / filename)

    errors = types.SimpleNamespace(EntryNotFoundError=EntryNotFoundError)
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=hf_hub_download))
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return published, fetched


def test_a_name_on_the_hub(hub, tmp_path):
    published, fetched = hub
    model = randomised(DinatForImageClassification(tiny()))
    model.config.to_json(tmp_path / "config.json", hidden_size=123)
    torch.save(to_huggingface(model.state_dict()), tmp_path / "pytorch_model.bin")
    published["shi-labs/dinat-mini-in1k-224"] = tmp_path
    again = DinatForImageClassification.from_pretrained("shi-labs/dinat-mini-in1k-224")
    assert_same_state(again.state_dict(), model.state_dict())
    assert fetched[0] == "config.json"
    assert fetched[-1] == "pytorch_model.bin"


def test_a_name_without_weights(hub, tmp_path):
    published, _ = hub
    tiny().to_json(tmp_path / "config.json")
    published["somebody/empty"] = tmp_path
    with pytest.raises(FileNotFoundError, match="somebody/empty on the hub has no weights"):
        DinatModel.from_pretrained("somebody/empty")


def test_a_hub_name_without_the_hubs_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"huggingface_hub is needed for this: pip install 'dinat-ref\[hub\]'"):
        DinatModel.from_pretrained("shi-labs/dinat-mini-in1k-224")


def test_importing_the_models_imports_no_optional_package():
    optional = ["safetensors", "huggingface_hub", "transformers", "matplotlib", "PIL", "hypothesis"]
    code = f"import sys, dinat_ref.models, dinat_ref.interop.natten; print([n for n in {optional} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_written_checkpoint_is_whole_and_readable_by_all(tmp_path):
    (tmp_path / "plain").write_text("what any program writes")
    write_checkpoint(tmp_path / "model.safetensors", {"bias": torch.arange(3.0)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "plain"]
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert modes["model.safetensors"] == modes["plain"]
    torch.testing.assert_close(read_checkpoint(tmp_path)["bias"], torch.arange(3.0), rtol=0, atol=0)
