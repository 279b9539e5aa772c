"""The tour as a stranger takes it: what it prints, what it leaves behind, and what it says to bad input."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dinat_ref.analysis.denoising import denoise
from dinat_ref.analysis.photo import load_photo, patch_operands, psnr
from dinat_ref.analysis.self_check import broken_laws, check_windows
from dinat_ref.cli import main
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.tour import _peak_memory
from dinat_ref.window import window

PICTURES = ("attention.png", "denoised.png", "receptive_field.png", "windows.png")


@pytest.fixture
def photo_file(tmp_path: Path) -> Path:
    """A crop of the portrait, small enough to be quick."""
    pixels = (load_photo()[100:160, 200:250] * 255).round().to(torch.uint8).numpy()
    path = tmp_path / "crop.png"
    Image.fromarray(pixels).save(path)
    return path


def test_the_tour_prints_its_figures_and_writes_every_picture(photo_file, tmp_path, capsys):
    out = tmp_path / "pictures"
    assert main(["tour", str(photo_file), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "10,470 windows hold their laws" in printed
    before, after = map(float, re.search(r"PSNR ([\d.]+) dB before, ([\d.]+) dB after", printed).groups())
    assert before < 21
    assert after > before + 5
    assert sorted(path.name for path in out.iterdir()) == sorted(PICTURES)
    for name in PICTURES:
        assert str(out / name) in printed
        with Image.open(out / name) as picture:
            assert picture.format == "PNG"
            assert picture.width >= 900


def test_the_whole_portrait_reaches_the_promised_quality():
    photo = load_photo()
    assert photo.shape[0] * photo.shape[1] == 307_200
    noisy = photo + 0.1 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    assert psnr(noisy, photo) == pytest.approx(20.0, abs=0.05)
    assert psnr(denoise(noisy), photo) >= 29.5


def test_denoising_is_non_local_means_by_its_own_formula():
    noisy = torch.rand(15, 14, 3, generator=torch.Generator().manual_seed(1))
    patches = np.pad(noisy.numpy().astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode="reflect")
    patches = np.lib.stride_tricks.sliding_window_view(patches, (3, 3), axis=(0, 1)).reshape(15, 14, -1)
    neighborhood = Neighborhood((15, 14), 5)
    expected = np.zeros((15, 14, 3))
    for token in neighborhood.tokens():
        keys = neighborhood.neighbors(token)
        logits = np.array([-((patches[token] - patches[key]) ** 2).sum() / (2 * 0.4**2) for key in keys])
        weights = np.exp(logits - logits.max())
        expected[token] = sum(w * noisy.numpy()[key] for w, key in zip(weights / weights.sum(), keys, strict=True))
    denoised = denoise(noisy, kernel_size=5, strength=0.4)
    torch.testing.assert_close(denoised.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


def test_patch_operands_tell_squared_distances():
    image = torch.rand(6, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    query, key = patch_operands(image, strength=0.5)
    scores = torch.einsum("bxyhd,bijhd->xyij", query, key).reshape(42, 42)
    patches = query[0, :, :, 0, :-1].reshape(42, -1) * 0.5**2
    distances = torch.cdist(patches, patches).square()
    relative = scores - scores.diagonal()[:, None]
    torch.testing.assert_close(relative, -distances / (2 * 0.5**2), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rule", ["left out", "shifted by one", "wrapped"])
def test_the_check_of_the_windows_would_notice(rule, monkeypatch):
    def wrong(i, length, kernel_size, *others):
        keys = list(window(i, length, kernel_size, *others))
        if (i, length) != (0, 5):
            return keys
        return {"left out": keys[:-1], "shifted by one": [j + 1 for j in keys], "wrapped": [*keys[:-1], length - 1]}[
            rule
        ]

    assert broken_laws(0, (5, 3, 1, 1, False)) == []
    monkeypatch.setattr("dinat_ref.analysis.self_check.window", wrong)
    with pytest.raises(AssertionError, match="breaks"):
        check_windows(5)


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys):
    no_image = tmp_path / "notes.txt"
    no_image.write_text("not a picture")
    tiny = tmp_path / "tiny.png"
    Image.new("RGB", (30, 12)).save(tiny)
    out = tmp_path / "out"
    cases = {
        str(tmp_path / "missing.jpg"): "image not found",
        str(no_image): "not an image",
        str(tiny): "12 x 30 pixels, fewer than the window of 13 x 13",
    }
    for path, message in cases.items():
        assert main(["tour", path, "--out", str(out)]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("dinat-ref tour: error: ")
        assert message in printed.err
        assert printed.err.count("\n") == 1
        assert not out.exists()
    assert main(["tour", "--out", str(no_image / "below a file")]) == 2
    assert "cannot write " in capsys.readouterr().err


def test_a_system_that_does_not_tell_the_memory(monkeypatch):
    """Windows has no module resource."""
    monkeypatch.setitem(sys.modules, "resource", None)
    assert _peak_memory() == ""


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["tour", "--help"])
    assert stop.value.code == 0
    assert "examples:" in capsys.readouterr().out
