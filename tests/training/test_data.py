"""The data: what the labels mean, how parts are held out, and what a folder of images may contain."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dinat_ref.command import CommandError
from dinat_ref.models.preprocess import preprocess
from dinat_ref.training.augment import apply_changes, draw_changes
from dinat_ref.training.data import Examples, hold_out, load_digits
from dinat_ref.training.folder import load_folder
from dinat_ref.training.synthetic import far_match, texture

SEEDS = st.integers(0, 2**31 - 1)


@given(SEEDS, st.integers(3, 11), st.data())
def test_far_match_labels_are_what_the_pixels_say(seed, size, data):
    least = data.draw(st.integers(1, size - 1))
    largest = data.draw(st.integers(least, size - 1))
    examples = far_match(20, seed, size, (least, largest))
    for image, label in zip(examples.images, examples.labels, strict=True):
        markers = image.nonzero().tolist()  # [colour, row, column], in the order of colours
        assert len(markers) == 2
        (colour, row, column), (other_colour, other_row, other_column) = markers
        assert least <= max(abs(row - other_row), abs(column - other_column)) <= largest
        assert label == int(colour == other_colour)
    again = far_match(20, seed, size, (least, largest))
    torch.testing.assert_close(again.images, examples.images, rtol=0, atol=0)


def test_far_match_has_every_distance_and_colour_equally_often():
    examples = far_match(20_000, seed=0, size=9)
    places = examples.images.sum(1).nonzero()[:, 1:].reshape(-1, 2, 2)
    distances = (places[:, 0] - places[:, 1]).abs().amax(1)
    counts = distances.bincount(minlength=9)
    assert counts[:5].sum() == 0
    shares = torch.cat([counts[5:] / 20_000 * 4, examples.labels.bincount() / 20_000 * 2])
    torch.testing.assert_close(shares, torch.ones(6), rtol=0, atol=5 / 20_000**0.5)  # five standard deviations or more


@given(SEEDS, st.integers(2, 9))
def test_texture_is_made_of_equal_pairs(seed, size):
    examples = texture(20, seed, size)
    for image, label in zip(examples.images[:, 0], examples.labels, strict=True):
        rows = (image.mT if label else image).tolist()
        for row in rows:
            pairs_from = [all(row[i] == row[i + 1] for i in range(phase, size - 1, 2)) for phase in (0, 1)]
            assert any(pairs_from)
        assert {pixel for row in rows for pixel in row} <= {-1.0, 1.0}


def test_texture_differs_only_between_pixels_that_touch():
    """Seen two pixels apart, on either axis or both, the two classes are the same coin tosses."""
    examples = texture(20_000, seed=0, size=9)
    for label in (0, 1):
        images = examples.images[examples.labels == label, 0]
        for down, right in ((0, 2), (2, 0), (3, 0), (0, 3), (1, 1), (2, 1), (3, 3)):
            product = images[:, : 9 - down, : 9 - right] * images[:, down:, right:]
            torch.testing.assert_close(product.mean(), torch.tensor(0.0), rtol=0, atol=0.01)


@given(SEEDS, st.floats(0, 0.9), st.lists(st.integers(0, 2), min_size=1, max_size=40))
def test_hold_out_takes_the_same_part_of_every_class(seed, fraction, labels):
    images = torch.arange(len(labels)).reshape(-1, 1, 1, 1).float()
    examples = Examples(images, torch.tensor(labels), ("a", "b", "c"))
    stays, held_out = hold_out(examples, fraction, seed)
    assert sorted([*stays.images.flatten().tolist(), *held_out.images.flatten().tolist()]) == list(range(len(labels)))
    for label in range(3):
        assert (held_out.labels == label).sum() == round(fraction * labels.count(label))


def test_digits_are_split_as_promised():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed: dinat-ref[training]")
    train, test = load_digits("train"), load_digits("test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.shape[1:] == (1, 32, 32)
    assert 0 <= train.images.min() < train.images.max() <= 1
    scans = torch.nn.functional.avg_pool2d(torch.cat([train.images, test.images]), 4).flatten(1)
    whole = torch.from_numpy(datasets.load_digits().data).float() / 16
    nearest = torch.cdist(scans, whole).argmin(1)  # enlarged scans are still nearest to their own
    assert len(nearest.unique()) > 1780
    labels = torch.from_numpy(datasets.load_digits().target)[nearest]
    torch.testing.assert_close(labels, torch.cat([train.labels, test.labels]), rtol=0, atol=0)
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'validation'"):
        load_digits("validation")


def write_photo(path, seed: int = 0, size: tuple[int, int] = (50, 40)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def test_a_folder_is_read_as_the_models_were_trained(tmp_path):
    for number, name in enumerate(("dog/1.png", "cat/2.PNG", "cat/deeper/3.jpg")):
        write_photo(tmp_path / name, number)
    (tmp_path / "cat" / "notes.txt").write_text("no image, and not named like one")
    (tmp_path / ".cache").mkdir()
    examples = load_folder(tmp_path, size=32)
    assert examples.class_names == ("cat", "dog")
    assert examples.labels.tolist() == [0, 0, 1]
    image, label = examples.batch(torch.tensor([2]))
    expected = preprocess(Image.open(tmp_path / "dog/1.png"), size=32)
    torch.testing.assert_close(image, expected, rtol=1e-6, atol=1e-6)
    assert label.tolist() == [1]


def test_unreadable_images_are_named_and_counted(tmp_path, capsys):
    for name in ("cat/1.png", "dog/1.png", "dog/2.png"):
        write_photo(tmp_path / name)
    (tmp_path / "dog" / "broken.png").write_bytes((tmp_path / "dog" / "2.png").read_bytes()[:100])
    (tmp_path / "cat" / "text.jpg").write_text("not an image")
    examples = load_folder(tmp_path, size=32)
    assert len(examples) == 3
    message = capsys.readouterr().err
    assert f"skipped: {tmp_path / 'dog' / 'broken.png'}" in message
    assert f"skipped: {tmp_path / 'cat' / 'text.jpg'}" in message
    assert "2 of 5 images were skipped" in message


@pytest.mark.filterwarnings("error")
def test_a_decompression_bomb_is_skipped(tmp_path, monkeypatch, capsys):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        write_photo(tmp_path / name)
    write_photo(tmp_path / "cat" / "2.png", size=(90, 90))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    assert len(load_folder(tmp_path, size=32)) == 2
    assert "cat/2.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "must hold a folder for each of at least 2 classes, got 0"),
        (["cat/1.png"], "must hold a folder for each of at least 2 classes, got 1"),
        (["cat/1.png", "dog/text.txt"], "dog holds no image that can be read: 0 tried"),
    ],
)
def test_folders_that_are_no_data(tmp_path, names, message):
    for name in names:
        write_photo(tmp_path / name) if name.endswith(".png") else (
            (tmp_path / name).parent.mkdir(),
            (tmp_path / name).write_text(""),
        )
    with pytest.raises(CommandError, match=message):
        load_folder(tmp_path)


@given(SEEDS)
def test_augmented_images_stay_near_and_photos_are_mirrored_half_of_the_time(seed):
    generator = torch.Generator().manual_seed(seed)
    assert draw_changes("none", 10, generator) is None
    changes = draw_changes("photo", 400, generator)
    mirrored = changes[:, 0, 0] < 0
    assert 120 < mirrored.sum() < 280  # eight standard deviations
    grey = apply_changes(torch.ones(400, 1, 20, 20), changes)
    assert (grey[:, :, 6:14, 6:14] > 0.999).all()  # the centre is never pushed out
    assert grey.min() < 0.5  # the rim sometimes is


def test_a_shift_moves_the_image_by_as_many_pixels():
    image = torch.zeros(1, 1, 10, 10)
    image[0, 0, 4, 5] = 1
    shift = torch.tensor([[[1.0, 0, 0.2], [0, 1, -0.4]]])  # a side is 2 long: one pixel of ten is 0.2
    moved = apply_changes(image, shift)
    assert moved.argmax() == 6 * 10 + 4
    torch.testing.assert_close(moved.sum(), torch.tensor(1.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": torch.zeros(3, 8, 8)}, r"images must be \[N, C, H, W\]"),
        ({"labels": torch.zeros(2).long()}, r"labels \[N\], got \(3, 1, 8, 8\) and \(2,\)"),
        ({"labels": torch.tensor([0, 1, 2])}, "labels must be numbers of 2 classes"),
    ],
)
def test_examples_fit_together(arguments, message):
    usual = {"images": torch.zeros(3, 1, 8, 8), "labels": torch.zeros(3).long(), "class_names": ("a", "b")}
    with pytest.raises(ValueError, match=message):
        Examples(**{**usual, **arguments})
