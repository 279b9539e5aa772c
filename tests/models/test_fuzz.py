"""Files damaged at random: each is read, or refused with our error; none gives more than it holds.

As many examples as the profile of Hypothesis says, times ten: in CI 200 of each kind. A longer run:
``DINAT_REF_PROFILE=deep python -m pytest tests/models/test_fuzz.py`` tries 5,000.
"""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dinat_ref.models import CheckpointError, DiNAT, DinatConfig, Isotropic, read_checkpoint, schema
from dinat_ref.models.image_processor import FILE, ImageProcessor
from dinat_ref.models.isotropic import CHECKS
from dinat_ref.models.tensor_file import read_tensors, write_tensors
from dinat_ref.training.checkpoint import load_training
from tests.models.tiny import tiny

MANY = settings(max_examples=10 * settings.default.max_examples, deadline=None)
STATE = {"norm.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.ones(3).half(), "empty": torch.empty(0)}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.integers(-3, 70),
    st.floats(allow_nan=False),
    st.sampled_from(["", "3", "no", "pad", "gelu", "stage1", "dinat", "nat", "dinat_isotropic", "\x1b[2J", "a" * 5000]),
    st.lists(st.integers(-2, 600), max_size=5),
    st.lists(st.lists(st.integers(-2, 600), max_size=4), max_size=4),
    st.dictionaries(
        st.sampled_from(["0", "1", "x", "height", "shortest_edge"]), st.integers(-5, 500) | st.text(max_size=3)
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One folder for all examples, since a folder for each takes longer than the test."""
    return tmp_path_factory.mktemp("fuzz")


def damages(content: bytes) -> st.SearchStrategy[bytes]:
    """Overwrite, insert, cut out or repeat a few bytes, or cut the end off."""

    @st.composite
    def damaged(draw: st.DrawFn) -> bytes:
        changed = bytearray(content)
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(changed)))
            few = draw(st.binary(max_size=6))
            match draw(st.sampled_from(["overwrite", "insert", "cut out", "repeat", "end"])):
                case "overwrite":
                    changed[at : at + len(few)] = few
                case "insert":
                    changed[at:at] = few
                case "cut out":
                    del changed[at : at + draw(st.integers(1, 60))]
                case "repeat":
                    changed[at:at] = changed[at : at + draw(st.integers(1, 60))]
                case "end":
                    del changed[at:]
        return bytes(changed)

    return damaged()


def saved(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def attempt(read: Callable[[], Any], *errors: type[Exception]) -> tuple[Any, str]:
    """What a reader gives, or the message of an error that it may raise: one line that can be shown."""
    try:
        return read(), ""
    except errors as error:
        message = str(error)
    assert "\x1b" not in message
    assert len(message) < 1000
    return None, message


def read_or_refused(path: Path) -> None:
    """Read weights: what comes of it is no larger than the file, and all that may be raised is our error."""
    state, message = attempt(lambda: read_checkpoint(path), CheckpointError)
    if state is None:
        assert str(path) in message
    else:
        assert all(tensor.numel() * tensor.dtype.itemsize <= path.stat().st_size for tensor in state.values())


# configurations


@given(st.dictionaries(st.sampled_from([*tiny().to_dict(), "model_type", "num_labels"]), ODD, min_size=1, max_size=4))
@MANY
def test_settings_of_any_type_and_size(folder, changes):
    (folder / "config.json").write_text(json.dumps(tiny().to_dict() | changes))
    config, message = attempt(lambda: DinatConfig.from_json(folder), ValueError)
    if config is None:
        assert message.startswith(str(folder))
    elif config.num_parameters < 10**6:
        with torch.device("meta"):
            DiNAT(config)


@given(st.dictionaries(st.sampled_from([*Isotropic(32, 1, depth=1).settings]), ODD, min_size=1, max_size=3))
@MANY
def test_arguments_of_isotropic_models(folder, changes):
    usual = Isotropic(32, 1, depth=1).settings | {"model_type": "dinat_isotropic"}
    (folder / "config.json").write_text(json.dumps(usual | changes))
    with torch.device("meta"):
        model, message = attempt(lambda: Isotropic.maker(folder, {})(), ValueError)
    if model is None:
        assert any(name in message for name in [*changes, "parameters", "kernel_size", "dilation"]), message
    else:
        assert {name: model.settings[name] for name in changes} == schema.check_settings(changes, CHECKS)


@given(damages(json.dumps(tiny().to_dict()).encode()))
@MANY
def test_bytes_of_a_configuration(folder, content):
    (folder / "config.json").write_bytes(content)
    config, message = attempt(lambda: DinatConfig.from_json(folder), ValueError)
    assert config is not None or message.startswith(str(folder))


@given(
    st.dictionaries(
        st.sampled_from(["size", "crop_size", "do_center_crop", "image_mean", "image_std", "resample"]), ODD
    )
)
@MANY
def test_settings_of_photographs(folder, settings):
    (folder / FILE).write_text(json.dumps(settings))
    processor, message = attempt(lambda: ImageProcessor.from_json(folder), ValueError)
    assert message.startswith(str(folder)) if processor is None else 1 <= processor.size <= 4096


@given(st.dictionaries(st.sampled_from(["history", "recipe", "data"]), ODD | st.lists(st.dictionaries(st.text(), ODD))))
@MANY
def test_training_json(folder, content):
    checkpoint = folder / "checkpoint-0002"
    checkpoint.mkdir(exist_ok=True)
    (checkpoint / "training.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"training\.json"):
        load_training(checkpoint)


# weights


NAMES = st.sampled_from(
    ["a.bin", "A.bin", "b.safetensors", "..", "", "/", "a/b.bin", "C:a.bin", "w.index.json", "\x1b.bin"]
)


@given(st.dictionaries(st.text(max_size=3), NAMES | ODD, max_size=4) | ODD)
@MANY
def test_indexes(folder, weight_map):
    (folder / "a.bin").write_bytes(WHOLE["archive"])
    path = folder / "w.index.json"
    path.write_text(json.dumps({"weight_map": weight_map}))
    state, message = attempt(lambda: read_checkpoint(path), CheckpointError, FileNotFoundError)
    if state is None:
        assert str(folder) in message
    else:
        assert set(state) == set(weight_map)
        assert set(weight_map.values()) == {"a.bin"}


def test_safetensors_files(folder):
    """Whatever is read here is read by the format's own package as well."""
    package = pytest.importorskip("safetensors.torch", reason="safetensors is not installed: dinat-ref[testing]")
    write_tensors(folder / "whole.safetensors", STATE)

    @given(damages((folder / "whole.safetensors").read_bytes()))
    @MANY
    def check(content):
        path = folder / "damaged.safetensors"
        path.write_bytes(content)
        read_or_refused(path)
        state, _ = attempt(lambda: read_tensors(path), ValueError)
        assert state is None or set(state) == set(package.load(content))

    check()


WHOLE = {
    "archive": saved(lambda file: torch.save({"model": STATE, "epoch": 3}, file)),
    "before 1.6": saved(lambda file: torch.save({"model": STATE}, file, _use_new_zipfile_serialization=False)),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_files_of_torch_save(folder, kind):
    @given(damages(WHOLE[kind]))
    @MANY
    def check(content):
        path = folder / "damaged.pth"
        path.write_bytes(content)
        read_or_refused(path)

    check()


def test_programs_in_a_whole_archive(folder):
    """The program alone is damaged, so that it is reached."""
    with zipfile.ZipFile(io.BytesIO(WHOLE["archive"])) as whole:
        entries = {entry.filename: whole.read(entry) for entry in whole.infolist()}
    name = next(name for name in entries if name.endswith("data.pkl"))

    @given(damages(entries[name]))
    @MANY
    def check(program):
        path = folder / "damaged.pth"
        with zipfile.ZipFile(path, "w") as changed:
            for other, content in entries.items():
                changed.writestr(other, program if other == name else content)
        read_or_refused(path)

    check()


class Runs:
    """Makes a file when it is unpickled without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_no_damage_makes_a_hostile_program_run(folder):
    marker = folder / "it-ran"

    @given(damages(pickle.dumps({"a": Runs(marker)}, protocol=2)))
    @MANY
    def check(program):
        path = folder / "hostile.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("last/data.pkl", program)
            archive.writestr("last/version", b"3\n")
        read_or_refused(path)
        assert not marker.exists()

    check()
