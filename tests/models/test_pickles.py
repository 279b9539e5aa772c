"""Files of torch.save: honest ones of every age are read; none runs, hangs, or takes more memory than its size."""

import argparse
import io
import pickle
import random
import re
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dinat_ref.models import CheckpointError, read_checkpoint
from dinat_ref.models.pickle_scan import MOST_STEPS
from dinat_ref.models.pickles import read_pickle

HASH_BOMB = b"\x80\x02}q\x00)q\x01" + b"".join(b"h%c\x86q%c" % (n, n + 1) for n in range(1, 61)) + b"K\x01s."
HONEST = {
    "state_dict": OrderedDict(a=torch.arange(6.0).reshape(2, 3).T, b=torch.nn.Parameter(torch.ones(2))),
    "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "milestones": Counter({30: 1}), "lr": 1e-3},
    "half": torch.ones(2).bfloat16(),
    "empty": torch.empty(0, 3),
    "mask": torch.tensor([True, False]),
    "names": {"cat", "dog"},
    "size": torch.Size([2, 3]),
    "dtype": torch.float16,
    "random": random.Random(0).getstate(),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "before 1.6"])
def test_honest_files(tmp_path, zipped):
    torch.save(HONEST, tmp_path / "last.pth", _use_new_zipfile_serialization=zipped)
    read = read_pickle(tmp_path / "last.pth")
    assert read.keys() == HONEST.keys()
    for name, tensor in HONEST["state_dict"].items():
        assert_close(read["state_dict"][name], tensor, rtol=0, atol=0)
    assert [read[name] for name in ("optimizer", "names", "size", "dtype")][1:] == [
        HONEST[name] for name in ("names", "size", "dtype")
    ]
    assert_close(read["half"], HONEST["half"], rtol=0, atol=0)


def refusal(path) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        read_pickle(path)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text
    return text


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "before 1.6"])
@pytest.mark.parametrize(
    ("held", "named"),
    [
        ({"args": argparse.Namespace(lr=1e-3)}, ["argparse.Namespace"]),
        ({"best": np.float64(81.8), "epoch": np.int64(3)}, ["numpy._core.multiarray.scalar", "numpy.dtype"]),
        ({"args": argparse.Namespace(lr=np.float32(1))}, ["argparse.Namespace", "numpy._core.multiarray.scalar"]),
    ],
)
def test_the_lines_that_an_error_gives_do_what_it_says(tmp_path, monkeypatch, zipped, held, named):
    """Run as they stand, they leave a file that is read; ``--weights`` needs no more."""
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        named = [name.replace("_core", "core") for name in named]
    path = tmp_path / "it's best.pth"
    weights = {"head.bias": torch.arange(3.0)}
    torch.save({"state_dict": weights} | held, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    text = str(caught.value)
    assert all(name in text for name in named)
    assert "nothing in it was run; these lines allow just that" in text
    line = re.search(r'python -c "(.*)"$', text)[1]
    assert "weights_only=False" not in line
    monkeypatch.chdir(tmp_path)
    allowed = torch.serialization.get_safe_globals()
    try:
        exec(line, {})
    finally:  # take back what the line allows
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)
    assert_close(read_checkpoint(tmp_path / "weights.pth")["head.bias"], weights["head.bias"], rtol=0, atol=0)


def test_classes_of_pytorch_itself_are_named_as_well(tmp_path):
    torch.save(
        {"model": {"a": torch.zeros(1)}, "version": torch.torch_version.TorchVersion("2.6")}, tmp_path / "last.pth"
    )
    with pytest.raises(
        ValueError, match=r"it holds more than tensors \(torch.torch_version.TorchVersion\), and nothing"
    ):
        read_pickle(tmp_path / "last.pth")


def test_what_a_user_allowed_is_read(tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}, "args": argparse.Namespace(lr=1e-3)}, tmp_path / "last.pth")
    assert "argparse.Namespace" in refusal(tmp_path / "last.pth")
    with torch.serialization.safe_globals([argparse.Namespace]):
        assert read_pickle(tmp_path / "last.pth")["args"].lr == 1e-3


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R.", "it holds more than tensors"),
        (b"\x80\x02cos\x1b[2J\nsystem\nX\x02\x00\x00\x00ls\x85R.", r"it holds more than tensors (os\x1b[2J.system)"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "named in another way than torch.save does"),
        (b"\x80\x02" + b"]" * (MOST_STEPS + 1) + b".", f"takes more than {MOST_STEPS:,} steps"),
        (
            b"\x80\x02ctorch\nFloatTensor\n\x8a\x05\x00\x00\x00\x00\x10\x85R.",
            "it holds more than tensors (torch.FloatTensor)",
        ),
        (HASH_BOMB, "it holds tuples within tuples without end"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "it is damaged, or no file of torch.save"),
        (b"", "it is damaged, or no file of torch.save"),
    ],
    ids=[
        "a buffer of 68 GB",
        "an escape",
        "protocol 4",
        "a long program",
        "a tensor of 274 GB",
        "a key of 2**60 parts",
        "a cut text",
        "empty",
    ],
)
def test_programs(tmp_path, program, message):
    torch.save({"a": torch.zeros(4096)}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "last.pth", "w") as changed:
        for entry in whole.infolist():
            changed.writestr(entry.filename, program if entry.filename.endswith(".pkl") else whole.read(entry))
    assert message in refusal(tmp_path / "last.pth")


def test_a_tensor_that_is_larger_than_its_numbers(tmp_path):
    """One row that is shown 10**9 times: nobody may copy it, compare it or look for its infinities."""
    torch.save({"head.weight": torch.zeros(1, 512).expand(10**9, 512)}, tmp_path / "last.pth")
    assert (tmp_path / "last.pth").stat().st_size < 10_000
    assert refusal(tmp_path / "last.pth") == "it holds a tensor of shape (1000000000, 512), larger than the file"


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, 2).to_sparse(), torch.empty(3, device="meta")], ids=["sparse", "meta"]
)
def test_tensors_that_are_not_plain(tmp_path, tensor):
    torch.save({"a": tensor}, tmp_path / "last.pth")
    assert "a tensor that is not plain" in refusal(tmp_path / "last.pth")


def archive(path, entries: dict[str, bytes], **options) -> None:
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in entries.items():
            file.writestr(name, content)


def test_archives(tmp_path):
    path = tmp_path / "last.pth"
    program = pickle.dumps({}, protocol=2)
    archive(path, {"last/data.pkl": program, "last/data/0": bytes(10**7)}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 20_000
    assert refusal(path) == "it is a compressed archive, and torch.save makes none"
    archive(path, {"readme.txt": b"no checkpoint"})
    assert refusal(path) == "it is an archive, but none of torch.save"
    archive(path, {"last/data.pkl": b"." * (5 * 2**20)})
    assert refusal(path) == "it describes its tensors in more than 4,194,304 bytes"
    archive(path, {"last/data.pkl": program})
    whole = path.read_bytes()
    end = whole.rfind(b"PK\x05\x06")
    path.write_bytes(whole[:end] + b"PK\x06\x06" + bytes(28) + (10**6).to_bytes(8, "little") + whole[end:])
    assert refusal(path) == "it is an archive of more than 100,000 entries"


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "before 1.6"])
def test_files_that_are_cut_off(tmp_path, zipped):
    buffer = io.BytesIO()
    torch.save(HONEST["state_dict"], buffer, _use_new_zipfile_serialization=zipped)
    whole = buffer.getvalue()
    for length in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        (tmp_path / "last.pth").write_bytes(whole[:length])
        assert "damaged" in refusal(tmp_path / "last.pth")
