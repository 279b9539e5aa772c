"""Maps in files, band by band, equal the whole; interrupted runs go on; bad files are refused."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dinat_ref import NeighborhoodAttention2D
from dinat_ref.models import DinatBackbone, DinatConfig
from dinat_ref.models.dinat import DiNAT
from dinat_ref.parallel import bands as bands_module
from dinat_ref.parallel.rowfile import RowFile, create, spool
from dinat_ref.parallel.stream import stream

EXACT = {"rtol": 1e-12, "atol": 1e-12}
SMALL = 110_000  # bytes, so that a backbone takes some bands a step
STAGES = ["stem", "stage1", "stage2"]


def a_map(rows: int, columns: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, columns, channels))


def a_layer(**window: Any) -> NeighborhoodAttention2D:
    torch.manual_seed(0)
    return NeighborhoodAttention2D(8, num_heads=2, rpb=True, **window).double()


def a_backbone(**changes: Any) -> DinatBackbone:
    torch.manual_seed(0)
    sizes = {"embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "kernel_size": 3, "dilations": [[1, 4], [1, 2]]}
    return DinatBackbone(DinatConfig(**{**sizes, **changes}, out_features=STAGES)).double().eval()


def bands_of(module: Any, source: np.ndarray, folder: Path, memory: int) -> tuple[list[np.ndarray], int]:
    """Stream it; what comes out, and the number of bands that it took."""
    np.save(folder / "source.npy", source)
    counted: list[int] = []
    note = bands_module.Streaming._note

    def counting(self: Any, steps: int, bands: int) -> None:
        counted.append(bands)
        note(self, steps, bands)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands_module.Streaming, "_note", counting)
        paths = stream(module, folder / "source.npy", folder / "out.npy", memory=memory)
    assert not list(folder.glob(".*")), "nothing is left behind"
    return [np.load(path) for path in paths], sum(band > 0 for band in counted)


@pytest.mark.parametrize(
    ("window", "bands"),
    [
        ({"kernel_size": 3}, 6),
        ({"kernel_size": (4, 3), "dilation": (5, 2)}, 6),
        ({"kernel_size": (5, 2), "stride": (3, 1), "dilation": (2, 1), "is_causal": (True, False)}, 6),
        ({"kernel_size": 3, "dilation": (8, 3)}, 8),  # as far as it goes
    ],
)
def test_a_layer_in_bands_is_the_layer(window: dict, bands: int, tmp_path: Path) -> None:
    layer, source = a_layer(**window), a_map(26, 9, 8)
    kernel_size = window["kernel_size"][0] if isinstance(window["kernel_size"], tuple) else window["kernel_size"]
    memory = 8 * 9 * 8 * (10 * kernel_size + 5 * 16)  # five rows
    (found,), count = bands_of(layer, source, tmp_path, memory)
    with torch.no_grad():
        assert_close(torch.from_numpy(found), layer(torch.from_numpy(source)[None])[0], **EXACT)
    assert count == bands


@pytest.mark.parametrize(
    ("changes", "rows"),
    [({}, 75), ({"kernel_size": 5}, 61), ({"kernel_size": 5, "small_input": "clamp"}, 61), ({"mlp_ratio": 2.0}, 64)],
)
def test_a_backbone_in_bands_is_the_backbone(changes: dict, rows: int, tmp_path: Path) -> None:
    """With maps that are filled up to the window, too."""
    model, source = a_backbone(**changes), a_map(rows, 53, 3)
    found, count = bands_of(model, source, tmp_path, SMALL)
    with torch.no_grad():
        expected = model(torch.from_numpy(source).movedim(-1, 0)[None]).feature_maps
    assert count > 24
    assert len(found) == len(STAGES)
    for got, maps in zip(found, expected, strict=True):
        assert_close(torch.from_numpy(got), maps[0].movedim(0, -1), **EXACT)


@pytest.mark.parametrize("stop_at", [1, 9, 24])
def test_an_interrupted_run_goes_on_at_its_band(stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, source = a_backbone(), a_map(75, 53, 3)
    whole, count = bands_of(model, source, tmp_path, SMALL)
    note, made = bands_module.Streaming._note, []

    def stopping(self: Any, steps: int, bands: int) -> None:
        note(self, steps, bands)
        made.append(bands)
        if sum(band > 0 for band in made) == stop_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bands_module.Streaming, "_note", stopping)
        with pytest.raises(KeyboardInterrupt):
            stream(model, tmp_path / "source.npy", tmp_path / "again", memory=SMALL)
    assert not list((tmp_path / "again").glob("*.npy")), "nothing half-written"
    made.clear()
    stop_at = -1
    monkeypatch.setattr(bands_module.Streaming, "_note", stopping)
    paths = stream(model, tmp_path / "source.npy", tmp_path / "again", memory=SMALL)
    assert [path.name for path in paths] == [f"{stage}.npy" for stage in STAGES]
    for path, expected in zip(paths, whole, strict=True):
        np.testing.assert_array_equal(np.load(path), expected)
    assert 0 < sum(band > 0 for band in made) < count
    assert not list(tmp_path.glob(".*"))


def test_another_run_does_not_go_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters that have changed since make another run."""
    source = a_map(26, 9, 8)
    np.save(tmp_path / "source.npy", source)
    layer = a_layer(kernel_size=3)

    def stop(text: str) -> None:
        if "3 of" in text:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bands_module, "show_progress", stop)
        with pytest.raises(KeyboardInterrupt):
            stream(layer, tmp_path / "source.npy", tmp_path / "out.npy", memory=80_000)
    with torch.no_grad():
        layer.proj.bias += 1
        (path,) = stream(layer, tmp_path / "source.npy", tmp_path / "out.npy", memory=80_000)
        assert_close(torch.from_numpy(np.load(path)), layer(torch.from_numpy(source)[None])[0], **EXACT)


def test_any_source_of_rows_will_do(tmp_path: Path) -> None:
    """A memory map, bands from a generator, whole numbers with a function that makes an input of them."""
    layer = a_layer(kernel_size=3).float()
    numbers = np.random.default_rng(0).integers(0, 256, (14, 6, 8), dtype=np.uint8)
    np.save(tmp_path / "source.npy", numbers)

    def prepare(rows: Tensor) -> Tensor:
        return rows.float() / 255

    with torch.no_grad():
        expected = layer(prepare(torch.from_numpy(numbers))[None])[0].numpy()
    sources = [np.load(tmp_path / "source.npy", mmap_mode="r"), (numbers[i : i + 4] for i in range(0, 14, 4)), numbers]
    for number, source in enumerate(sources):
        (path,) = stream(layer, source, tmp_path / f"{number}.npy", prepare=prepare, memory=30_000)
        np.testing.assert_allclose(np.load(path), expected, rtol=1e-6, atol=1e-6)


def test_the_progress_line_counts_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    for module in (bands_module, sys.modules["dinat_ref.parallel.stream"]):
        monkeypatch.setattr(module, "show_progress", lines.append)
    np.save(tmp_path / "source.npy", a_map(26, 9, 8))
    stream(a_layer(kernel_size=3), tmp_path / "source.npy", tmp_path / "out.npy", memory=80_000)
    assert lines[0].startswith("step 1: 0 of ")
    assert lines[-1] == ""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"no numbers", "is no .npy file"),
        (np.zeros((3, 4)), r"must hold numbers \[rows, columns, channels\], row by row, got float64 \(3, 4\)"),
        (np.asfortranarray(np.zeros((3, 4, 5))), "column by column"),
        (np.array([[["text"]]]), "must hold numbers"),
        (np.zeros((2, 4, 8)), r"kernel_size \* dilation on axis 0 must be at most"),
        (np.zeros((9, 4, 7)), r"input must be \[batch, 2 axes, 8\]"),
    ],
)
def test_bad_files_are_refused(source: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "source.npy"
    if isinstance(source, bytes):
        path.write_bytes(source)
    else:
        np.save(path, source)
    with pytest.raises(ValueError, match=message):
        stream(a_layer(kernel_size=3), path, tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists()


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "source.npy", np.array([[[{}]]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="must hold numbers"):
        RowFile(tmp_path / "source.npy")


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "source.npy", np.zeros((3, 4, 5)))
    content = (tmp_path / "source.npy").read_bytes()
    (tmp_path / "source.npy").write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"is shorter than its header says, \(3, 4, 5\)"):
        RowFile(tmp_path / "source.npy")


def test_what_cannot_be_streamed_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "source.npy", a_map(9, 9, 8))
    arguments = (tmp_path / "source.npy", tmp_path / "out.npy")
    with pytest.raises(ValueError, match="module must be a NeighborhoodAttention2D or a DinatBackbone, got DiNAT"):
        stream(DiNAT(DinatConfig(embed_dim=8, depths=[1], num_heads=[1], dilations=[[1]], kernel_size=3)), *arguments)
    with pytest.raises(ValueError, match="module must not be rotary"):
        stream(NeighborhoodAttention2D(8, 1, 3, rotary=100.0), *arguments)
    with pytest.raises(ValueError, match="float16, float32 or float64"):
        stream(a_layer(kernel_size=3).bfloat16(), *arguments)
    with pytest.raises(ValueError, match=re.escape("bytes for a row, got 1,000")):
        stream(a_layer(kernel_size=3), *arguments, memory=1000)


def test_rows_of_a_file(tmp_path: Path) -> None:
    file = create(tmp_path / "map.npy", (7, 2, 3), np.float32)
    np.testing.assert_array_equal(np.load(file.path), np.zeros((7, 2, 3), np.float32))
    expected = np.zeros((7, 2, 3), np.float32)
    for rows in (range(1, 4), range(0, 7, 3), range(5, 5)):
        values = np.random.default_rng(rows.start).normal(size=(len(rows), 2, 3)).astype(np.float32)
        file.write(rows, values)
        expected[rows.start : rows.stop : rows.step] = values
        np.testing.assert_array_equal(file.read(rows), values)
    np.testing.assert_array_equal(np.load(file.path), expected)
    with pytest.raises(ValueError, match=r"values must be \(1, 2, 3\), got \(2, 3\)"):
        file.write(range(1), np.zeros((2, 3)))


def test_bands_that_do_not_fit_each_other(tmp_path: Path) -> None:
    for bands, message in [
        ([], "bands must hold rows, got none"),
        ([np.zeros((1, 2, 3)), np.zeros((1, 2, 4))], r"like the first, got \(1, 2, 4\)"),
        ([np.zeros((2, 3))], r"like the first, got \(2, 3\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            spool(bands, tmp_path / "map.npy")
