"""Photographs as people have them: turned by the camera, of 16 bits, with a palette, enormous, or no photographs.

All commands open images here. A file is refused by the number of its pixels before any of them is decoded, and only
the formats of pictures are tried: Pillow knows others that start programs.
"""

import mmap
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dinat_ref.outside import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 64_000_000  # 200 MB when they are decoded; telephones take 50 million
MOST_DECODED = 16 * MOST_PIXELS  # a progressive JPEG is decoded once a scan: about ten of them, unless it means harm
ORIENTATION = 0x0112  # the tag of EXIF; 1 is upright
MARKER = re.compile(rb"\xff[^\x00\xff\x01\xd0-\xd8]")  # of a JPEG, those that stand alone left out
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


def open_photo(path: Path | str) -> "Image":
    """Read a photograph: upright, in red, green and blue of 8 bits.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no image, a damaged one, one with more than MOST_PIXELS, or more than MOST_DECODED in all scans.
    Source: EXIF 2.32 for the camera's orientation.
    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (6, 4), color=255).save(f"{folder}/white.png")
        ...     photo = open_photo(f"{folder}/white.png")
        >>> photo.size, photo.getpixel((0, 0))
        ((6, 4), (255, 255, 255))
    """
    return _open(path, decode=True)


def check_photo(path: Path | str) -> None:
    """Raise where a photograph cannot be read, as far as its first bytes tell.

    Raises:
        as ``open_photo``
    Example:
        >>> check_photo("no-such.jpg")
        Traceback (most recent call last):
        FileNotFoundError: image not found: no-such.jpg
    """
    _open(path, decode=False)


def _open(path: Path | str, decode: bool) -> "Image":
    """Open a file as an image, of which nothing is decoded yet, and convert it if asked."""
    from PIL import Image

    Image.init()
    try:
        if Path(path).is_dir():
            raise FileNotFoundError
        file = open_regular(path)
    except PermissionError:
        raise ValueError(f"image cannot be read, permission denied: {path}") from None
    except OSError:  # also a name that is longer than any file's
        raise FileNotFoundError(f"image not found: {path}") from None
    damaged = f"not an image, or a damaged one: {path}"
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about pixels that we count and metadata that we leave aside
        try:
            image: Image.Image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
        except Image.DecompressionBombError:
            raise ValueError(f"image must have at most {MOST_PIXELS:,} pixels: {path}") from None
        except Exception:  # Pillow's readers let out whatever a damaged file makes them stumble over
            raise ValueError(damaged) from None
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise ValueError(f"image must have at most {MOST_PIXELS:,} pixels, got {width} x {height}: {path}")
        scans = 1
        if image.format in ("JPEG", "MPO"):
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                scans = count_scans(content)
        if width * height * scans > MOST_DECODED:
            shape = f"{width} x {height} in {scans:,} scans"
            raise ValueError(f"image must take at most {MOST_DECODED:,} pixels to decode, got {shape}: {path}")
        try:
            return to_rgb(image) if decode else image
        except Exception:
            raise ValueError(damaged) from None


def count_scans(content: "bytes | mmap.mmap") -> int:
    """Count how often a JPEG has its pixels decoded: each scan goes over all of them, though it be of a few bytes.

    Source: ITU-T T.81, annex B: markers, segments with lengths, and FF00 where coded data has an FF.
    Example:
        >>> scan = bytes.fromhex("ffda 0003 01") + b"coded data"
        >>> count_scans(bytes.fromhex("ffd8") + 3 * scan + bytes.fromhex("ffd9") + scan)
        3
    """
    scans, position = 0, 2
    while found := MARKER.search(content, position):
        marker, position = content[found.start() + 1], found.end()
        if marker == END_OF_IMAGE:  # a telephone may have more to say behind it
            break
        scans += marker == START_OF_SCAN
        position += int.from_bytes(content[position : position + 2], "big")
    return scans


def to_rgb(image: "Image") -> "Image":
    """Turn an image upright as its camera says, and bring it to red, green and blue of 8 bits.

    Grey of more bits is scaled: 16 bits from 0 .. 65535, whole numbers of 32 bits likewise (that is how Pillow opens
    some images of 16), fractions from 0 .. 1. What is transparent shows the colour that it has.

    Example:
        >>> from PIL import Image
        >>> ramp = Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16))
        >>> [to_rgb(ramp).getpixel((column, 0))[0] for column in range(3)]
        [0, 1, 255]
    """
    from PIL import Image

    image.load()
    image = _upright(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray((np.nan_to_num(np.asarray(image)).clip(0, 1) * 255).round().astype(np.uint8))
    elif image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: "Image") -> "Image":
    """Follow the camera's note of how it was held; a note that cannot be read is none."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image
    except Exception:
        return image
