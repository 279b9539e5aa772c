"""Photographs: upright, of any depth and mode, and never more of them in memory than can be meant."""

import contextlib
import io
import os
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.testing import assert_close

from dinat_ref.analysis.photo import load_photo
from dinat_ref.images import MOST_PIXELS, check_photo, count_scans, open_photo, to_rgb
from dinat_ref.models.preprocess import preprocess, to_photo
from dinat_ref.training.folder import load_folder

EXACT = {"rtol": 0, "atol": 0}
RAMP = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (32, 1))  # from black to white


def phone(orientation: int, format: str = "PNG") -> bytes:
    """A picture with a red top left, a green top right and a blue rest, as a camera stores it that was turned."""
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[:, :, 2] = 255
    pixels[:10, :15], pixels[:10, 15:] = (255, 0, 0), (0, 255, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_upright_everywhere(tmp_path, orientation):
    """All readers agree with Pillow's own turning, and turn once."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(phone(orientation))
    path = tmp_path / "a" / "1.png"
    upright = ImageOps.exif_transpose(Image.open(path))
    assert upright.size == ((20, 30) if orientation > 4 else (30, 20))
    expected = torch.from_numpy(np.array(upright))
    assert_close(torch.from_numpy(np.array(open_photo(path))), expected, **EXACT)
    assert_close((load_photo(path) * 255).round().to(torch.uint8), expected, **EXACT)
    seen = preprocess(upright, size=10)
    assert_close(preprocess(Image.open(path), size=10), seen, **EXACT)
    assert_close(preprocess(open_photo(path), size=10), seen, **EXACT)
    read = load_folder(tmp_path, 10).images[0]
    assert_close(read, (to_photo(seen).permute(2, 0, 1) * 255).round().to(torch.uint8), **EXACT)


def test_16_bits_are_scaled_not_cut(tmp_path):
    """A ramp keeps its mean of one half; cut at 255 it would be white."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(RAMP).save(tmp_path / name / "1.png")
    path = tmp_path / "a" / "1.png"
    assert float(load_photo(path)[..., 0].mean()) == pytest.approx(0.5, abs=0.01)
    assert float(to_photo(preprocess(Image.fromarray(RAMP), size=32))[16, :, 0].mean()) == pytest.approx(0.5, abs=0.01)
    assert float(load_folder(tmp_path, 32).images.float().mean()) == pytest.approx(127.5, abs=1)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(RAMP),
        Image.fromarray(RAMP.astype(">u2")),
        Image.fromarray(RAMP.astype(np.int32)),
        Image.fromarray((RAMP / 65535).astype(np.float32)),
    ],
    ids=lambda image: image.mode,
)
def test_grey_of_many_bits(image):
    expected = torch.from_numpy((RAMP / 257).round().astype(np.uint8))
    grey = torch.from_numpy(np.array(to_rgb(image)))
    for channel in range(3):
        assert_close(grey[..., channel].int(), expected.int(), rtol=0, atol=1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_mode(mode):
    image = Image.new("RGB", (4, 3), (200, 30, 40))
    try:
        image = image.convert(mode)
    except ValueError:  # Pillow converts from this mode, but not to it
        image = Image.new(mode, (4, 3))
    assert (to_rgb(image).mode, to_rgb(image).size) == ("RGB", (4, 3))


def test_a_palette_whose_colours_are_transparent_in_part():
    image = Image.new("P", (4, 3))
    image.info["transparency"] = bytes([0, 128, 255])
    assert to_rgb(image).mode == "RGB"


def test_a_damaged_note_of_the_camera_is_none(tmp_path):
    content = phone(6, "JPEG")
    place = content.index(b"\x01\x12", content.index(b"Exif"))
    (tmp_path / "photo.jpg").write_bytes(content[: place + 2] + b"\xff\xff\xff\xff\xff\xff" + content[place + 8 :])
    assert open_photo(tmp_path / "photo.jpg").size == (30, 20)


def blank_png(width: int, height: int) -> bytes:
    """A small file of enormous size: black and white, one bit a pixel, all of them black."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    row = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(13300, 13300), (8001, 8000), (10**6, 65)])
def test_pixels_are_counted_before_any_is_decoded(tmp_path, width, height):
    path = tmp_path / "blank.png"
    path.write_bytes(blank_png(width, height))
    assert path.stat().st_size < 40_000
    tracemalloc.start()
    try:
        for read in (check_photo, open_photo, load_photo):
            with pytest.raises(ValueError, match=f"at most {MOST_PIXELS:,} pixels, got {width} x {height}: {path}"):
                read(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_thread_of_pixels_cannot_be_cropped():
    with pytest.raises(ValueError, match="too narrow to be cropped: 256 pixels wide it would be 256 x 2560000"):
        preprocess(Image.new("RGB", (1, 10_000)), method="crop")


def test_only_pictures_are_tried(tmp_path):
    """Pillow opens PostScript by starting a program."""
    path = tmp_path / "photo.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(ValueError, match=f"^not an image, or a damaged one: {path}$"):
        open_photo(path)


def with_scans(size: tuple[int, int], more: int) -> bytes:
    """A progressive JPEG whose last scan comes again, as often as wished: few bytes that cost all pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last = content.rindex(b"\xff\xc4")  # its code table, then the scan itself
    return content[:-2] + more * content[last:-2] + content[-2:]


def test_scans_are_counted_as_they_are_decoded(tmp_path):
    """Not those of a thumbnail in the metadata, and not what a telephone adds behind the end."""
    once = with_scans((64, 48), more=0)
    plain = count_scans(once)
    assert 1 < plain <= 14
    assert count_scans(with_scans((64, 48), more=7)) == plain + 7
    thumbnail = b"\xff\xe1" + (2 + len(once)).to_bytes(2, "big") + once
    assert count_scans(once[:2] + thumbnail + once[2:] + once) == plain
    path = tmp_path / "photo.jpg"
    for options in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
        noise = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, "JPEG", quality=95, **options)
        assert count_scans(path.read_bytes()) == (plain if "progressive" in options else 1)
        assert open_photo(path).size == (70, 90)


def test_a_small_file_with_many_scans_is_refused(tmp_path):
    """400 kB like this once took minutes, 2 MB an hour."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(with_scans((4000, 4000), more=100))
    for read in (open_photo, check_photo):
        with pytest.raises(ValueError, match=f"got 4000 x 4000 in 1[01][0-9] scans: {path}$"):
            read(path)
    path.write_bytes(with_scans((400, 300), more=100))  # a small one may have as many as it likes
    assert open_photo(path).size == (400, 300)


def test_what_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "no.png", tmp_path / ("n" * 300 + ".png"), tmp_path / "no.png" / "no.png"):
        for read in (check_photo, open_photo, load_photo):
            with pytest.raises(FileNotFoundError, match=f"^image not found: {path}$"):
                read(path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(ValueError, match="is no regular file"):
            open_photo(tmp_path / "pipe.png")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_files_cut_off_at_any_byte_are_read_or_refused(tmp_path, format):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(buffer, format)
    whole = buffer.getvalue()
    path = tmp_path / "photo"
    path.write_bytes(whole)
    assert open_photo(path).size == (30, 20)
    for length in range(0, len(whole) - 3, max(1, len(whole) // 30)):
        path.write_bytes(whole[:length])
        if format in ("GIF", "TIFF", "WEBP") and length > len(whole) // 2:  # Pillow may read what is there
            with contextlib.suppress(ValueError):
                assert open_photo(path).size == (30, 20)
        else:
            with pytest.raises(ValueError, match=f"^not an image, or a damaged one: {path}$"):
                open_photo(path)
