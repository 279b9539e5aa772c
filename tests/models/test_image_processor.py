"""A folder says how its model wants photographs, and transformers and this package read the same from it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from dinat_ref.models import DinatForImageClassification, Isotropic, create_model
from dinat_ref.models.image_processor import FILE, ImageProcessor
from dinat_ref.models.preprocess import DEVIATION, MEAN, preprocess
from tests.models.tiny import tiny

PROCESSORS = [
    ImageProcessor(),
    ImageProcessor(size=32, crop_fraction=0.875),
    ImageProcessor(size=93, crop_fraction=93 / 126),
    ImageProcessor(size=40, mean=(0.5, 0.4, 0.3), deviation=(0.1, 0.2, 0.5), resample=2),
    ImageProcessor(size=40, crop_fraction=1.0),
]
each_processor = pytest.mark.parametrize("processor", PROCESSORS, ids=range(len(PROCESSORS)))


def photo(width: int = 190, height: int = 150) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@each_processor
def test_what_is_written_is_read(tmp_path, processor):
    processor.to_json(tmp_path / FILE)
    again = ImageProcessor.from_json(tmp_path)
    assert (again.size, again.mean, again.deviation, again.resample) == (
        processor.size,
        processor.mean,
        processor.deviation,
        processor.resample,
    )
    assert_close(again(photo()), processor(photo()), rtol=0, atol=0)


@each_processor
def test_transformers_reads_the_same(tmp_path, processor):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: dinat-ref[hf]")
    (tmp_path / "config.json").write_text('{"model_type": "dinat"}')
    processor.to_json(tmp_path / FILE)
    options = {"backend": "pil"} if int(transformers.__version__.partition(".")[0]) > 4 else {"use_fast": False}
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, **options)
    assert_close(theirs(photo(), return_tensors="pt")["pixel_values"], processor(photo()), rtol=0, atol=1e-5)
    theirs.save_pretrained(tmp_path)
    assert_close(ImageProcessor.from_json(tmp_path)(photo()), processor(photo()), rtol=0, atol=0)


def test_every_shorter_side_survives_the_fraction():
    """A crop is kept as a fraction of two integers, and rounding must give the second one back."""
    wrong = [
        (size, shorter)
        for size in range(16, 520)
        for shorter in range(size, 700)
        if ImageProcessor(size=size, crop_fraction=size / shorter).shorter_side != shorter
    ]
    assert wrong == []


def test_it_is_what_preprocess_does():
    assert_close(ImageProcessor(size=32)(photo()), preprocess(photo(), 32), rtol=0, atol=0)
    cropped = preprocess(photo(), 32, "crop", 0.5)
    assert_close(ImageProcessor(size=32, crop_fraction=0.5)(photo()), cropped, rtol=0, atol=0)
    other = ImageProcessor(size=32, mean=(0, 0, 0), deviation=(0.5, 0.5, 0.5))(photo())
    expected = preprocess(photo(), 32) * torch.tensor(DEVIATION)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    assert_close(other, 2 * expected, rtol=1e-5, atol=1e-6)


def written(**changes) -> dict:
    settings = {"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1]}
    return {**settings, **changes}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ImageProcessor()),
        ({"size": 384}, ImageProcessor(size=384)),
        (written(do_normalize=False), ImageProcessor(size=32, mean=(0.0, 0.0, 0.0), deviation=(1.0, 1.0, 1.0))),
        (written(), ImageProcessor(size=32, mean=(0.5, 0.5, 0.5), deviation=(1, 1, 1))),
        ({"do_center_crop": True, "size": 256, "crop_size": 224}, ImageProcessor(size=224, crop_fraction=0.875)),
    ],
)
def test_files_as_people_have_them(tmp_path, settings, expected):
    (tmp_path / FILE).write_text(json.dumps(settings))
    assert ImageProcessor.from_json(tmp_path) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "must hold one JSON object, got list"),
        (written(size={"height": 32, "width": 48}), "size must be a square"),
        (written(size={"shortest_edge": 32}), "it lacks 'height'"),
        (written(size="32"), "size must be an integer, got '32'"),
        (written(size=0), "size must be at least 1, got 0"),
        (written(size=-5), "size must be at least 1, got -5"),
        (written(size=10**6), "size must be at most 4096, got 1000000"),
        (written(size={"height": 10**400, "width": 10**400}), "size must be at most 4096, got a number of 1329 bits"),
        (written(image_std=[0, 1, 1]), "image_std must be at least 1e-06, got 0"),
        (written(image_mean=["a", 0, 0]), "image_mean must be a number, got 'a'"),
        (written(resample="bicubic"), "resample must be an integer, got 'bicubic'"),
        (written(do_resize="no"), "do_resize must be true or false, got 'no'"),
        (written(do_resize=False), "do_resize must be true, got False"),
        (written(rescale_factor=1.0), "rescale_factor must be 1/255, got 1.0"),
        (written(image_mean=[0.5]), "must have 3 numbers"),
        (
            written(do_center_crop=True, size={"shortest_edge": 32}, crop_size=48),
            "shortest_edge within 48 .. 4096, crop_size being 48, got",
        ),
    ],
)
def test_files_that_cannot_be_followed_are_refused(tmp_path, settings, message):
    (tmp_path / FILE).write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=rf"{FILE} .*{message}"):
        ImageProcessor.from_json(tmp_path)


def test_models_keep_it_beside_their_weights(tmp_path):
    assert create_model("dinat_large_384", device="meta").image_processor == ImageProcessor(size=384)
    DinatForImageClassification(tiny()).save_pretrained(tmp_path)
    assert ImageProcessor.from_json(tmp_path) == ImageProcessor()
    model = DinatForImageClassification.from_pretrained(tmp_path)
    model.image_processor = ImageProcessor(size=48, crop_fraction=0.75)
    model.save_pretrained(tmp_path)
    again = DinatForImageClassification.from_pretrained(tmp_path).image_processor
    assert (again.size, again.crop_fraction) == (48, 0.75)
    Isotropic(12, 2, depth=1, image_size=64, full_attention=True).save_pretrained(tmp_path / "isotropic")
    assert ImageProcessor.from_json(tmp_path / "isotropic").size == 64
    DinatForImageClassification(tiny(num_channels=1)).save_pretrained(tmp_path / "grey")
    assert not (tmp_path / "grey" / FILE).exists()  # nobody knows how a grey image becomes numbers
