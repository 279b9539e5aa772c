"""The safetensors format: the same bytes as the format's own package, and nothing that a header could talk us into."""

import json
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dinat_ref.command import CommandError
from dinat_ref.models.tensor_file import DTYPES, read_tensors, write_tensors
from dinat_ref.outside import MOST_BYTES

EXACT = {"rtol": 0, "atol": 0}


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Any dtype and shape, empty and zero-dimensional ones among them, some of them transposed."""
    state = {}
    for name in draw(
        st.lists(st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"), unique=True)
    ):
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        content = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
        state[name] = content.to(DTYPES[draw(st.sampled_from(sorted(DTYPES)))])
        if len(shape) == 2 and draw(st.booleans()):
            state[name] = state[name].T
    return state


def assert_same(computed, expected):
    assert computed.keys() == expected.keys()
    for name, tensor in expected.items():
        assert computed[name].dtype == tensor.dtype
        assert_close(computed[name].float(), tensor.float(), **EXACT)


@given(tensors())
def test_what_is_written_is_read_here_and_by_the_package(tmp_path_factory, state):
    package = pytest.importorskip("safetensors.torch", reason="safetensors is not installed: dinat-ref[testing]")
    path = tmp_path_factory.mktemp("tensors") / "model.safetensors"
    write_tensors(path, state, {"format": "pt"})
    assert_same(read_tensors(path), state)
    assert_same(package.load(path.read_bytes()), state)
    path.write_bytes(package.save({name: tensor.contiguous() for name, tensor in state.items()}))
    assert_same(read_tensors(path), state)


def test_the_bytes_are_those_of_the_package(tmp_path):
    package = pytest.importorskip("safetensors.torch", reason="safetensors is not installed: dinat-ref[testing]")
    state = {name: torch.randn(3, 5) for name in ("norm.weight", "head.bias", "a", "löwe")} | {
        "b": torch.tensor([True])
    }
    write_tensors(tmp_path / "model.safetensors", state, {"format": "pt"})
    assert (tmp_path / "model.safetensors").read_bytes() == package.save(state, {"format": "pt"})


def test_what_was_read_is_not_bound_to_the_file(tmp_path):
    """Where open files cannot be replaced, a checkpoint that was read can."""
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"bias": torch.zeros(3)})
    read = read_tensors(path)["bias"]
    write_tensors(path, {"bias": torch.ones(3)})
    assert_close(read, torch.zeros(3), **EXACT)
    read += 1
    assert_close(read_tensors(path)["bias"], torch.ones(3), **EXACT)


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry()}, 12, "its tensors must fill the file, 12 bytes, got 8"),
        ({"a": entry()}, 4, "its tensors must fill the file, 4 bytes, got 8"),
        ({"a": entry(offsets=(4, 12))}, 12, "'a' must begin where the tensor before it ends, 0, got 4"),
        ({"a": entry(), "b": entry()}, 8, "'b' must begin where the tensor before it ends, 8, got 0"),
        ({"a": entry(shape=(10**9, 512))}, 8, r"'a' must have the bytes of its shape \[1000000000, 512\], got 8"),
        ({"a": entry(shape=(2**62, 2**62, 4))}, 8, "'a' must have the bytes of its shape"),
        ({"a": entry(shape=(-2,), offsets=(8, 0))}, 8, "a known dtype, shape and offsets"),
        ({"a": entry(shape=(2.0,))}, 8, "a known dtype, shape and offsets"),
        ({"a": entry(shape=(True, 2))}, 8, "a known dtype, shape and offsets"),
        ({"a": entry(dtype="C64")}, 8, "a known dtype, shape and offsets"),
        ({"a": entry(dtype=["F32"])}, 8, "a known dtype, shape and offsets"),
        ({"a": [1, 2]}, 8, "a known dtype, shape and offsets"),
        ({"a": {"dtype": "F32"}}, 8, "a known dtype, shape and offsets"),
        ([], 0, r"its header must be an object, got \[\]"),
    ],
)
def test_headers_that_do_not_describe_the_file(tmp_path, header, data, message):
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(data))
    with pytest.raises(ValueError, match=message):
        read_tensors(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "its header must fit the file and 4,194,304 bytes, got 0"),
        (bytes(8), "its header is no JSON"),
        (b"\xff" * 64, "its header must fit the file and 4,194,304 bytes, got 18,446,744,073,709,551,615"),
        ((8 * 10**12).to_bytes(8, "little") + b"{}", "its header must fit the file"),
        ((4).to_bytes(8, "little") + b"\xff\xfe{}", "its header is no JSON"),
        ((200).to_bytes(8, "little") + b"[" * 200, "its header is no JSON: JSON must be nested at most 64 deep"),
        ((17).to_bytes(8, "little") + b'{"a": 1, "a": 2} ', "has the name 'a' twice"),
    ],
)
def test_headers_that_are_none(tmp_path, content, message):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_tensors(tmp_path / "model.safetensors")


def test_a_header_of_a_gigabyte_is_not_read(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes((MOST_BYTES + 1).to_bytes(8, "little"))
    os.truncate(path, 2 * MOST_BYTES)
    with pytest.raises(ValueError, match="its header must fit"):
        read_tensors(path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    resource = pytest.importorskip("resource", reason="limits of the size of files are POSIX's")
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"bias": torch.zeros(3)})
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(CommandError, match=f"^cannot write {path}: File too large$"):
            write_tensors(path, {"bias": torch.zeros(3000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
