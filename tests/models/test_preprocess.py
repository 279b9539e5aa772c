"""Photographs become what the models were trained on, the hub's way or the original evaluation's."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from dinat_ref.models.preprocess import DEVIATION, MEAN, preprocess, to_photo

CLOSE = {"rtol": 0, "atol": 1e-6}


def photo(width: int = 90, height: int = 60) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def normalised(image: Image.Image) -> torch.Tensor:
    pixels = np.asarray(image).astype(np.float64) / 255
    return torch.from_numpy((pixels - MEAN) / DEVIATION).float().permute(2, 0, 1)[None]


def test_square_is_a_direct_bicubic_resize():
    expected = normalised(photo().resize((32, 32), Image.Resampling.BICUBIC))
    assert_close(preprocess(photo(), size=32), expected, **CLOSE)


@pytest.mark.parametrize(("width", "height", "resized"), [(90, 60, (54, 36)), (61, 122, (36, 72)), (50, 50, (36, 36))])
def test_crop_resizes_the_shorter_side_and_cuts_the_centre(width, height, resized):
    larger = photo(width, height).resize(resized, Image.Resampling.BICUBIC)  # 36 = int(32 / 0.875)
    left, top = round((resized[0] - 32) / 2), round((resized[1] - 32) / 2)
    expected = normalised(larger.crop((left, top, left + 32, top + 32)))
    assert_close(preprocess(photo(width, height), size=32, method="crop"), expected, **CLOSE)


def test_crop_of_everything_keeps_the_shorter_side_whole():
    image = preprocess(photo(64, 32), size=32, method="crop", crop_fraction=1.0)
    assert_close(image, normalised(photo(64, 32).crop((16, 0, 48, 32))), **CLOSE)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_any_mode_becomes_red_green_and_blue(mode):
    image = preprocess(photo().convert(mode), size=32)
    assert image.shape == (1, 3, 32, 32)
    assert image.dtype == torch.float32


def test_the_hubs_own_processor_does_the_same():
    pytest.importorskip("transformers", reason="transformers is not installed: dinat-ref[hf]")
    from transformers import ViTImageProcessorPil

    processor = ViTImageProcessorPil(
        size={"height": 32, "width": 32}, resample=3, image_mean=list(MEAN), image_std=list(DEVIATION)
    )
    theirs = processor(photo(), return_tensors="pt")["pixel_values"]
    assert_close(preprocess(photo(), size=32), theirs, rtol=0, atol=1e-5)


def test_what_the_model_sees_can_be_looked_at():
    seen = to_photo(preprocess(photo(32, 32), size=32))
    assert_close(seen, torch.from_numpy(np.asarray(photo(32, 32)).astype(np.float32) / 255), **CLOSE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be at least 1"),
        ({"method": "stretch"}, "method must be 'square' or 'crop', got 'stretch'"),
        ({"crop_fraction": 0.0}, "crop_fraction must be in 0 < crop_fraction <= 1"),
    ],
)
def test_illegal_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        preprocess(photo(), **arguments)
