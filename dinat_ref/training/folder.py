"""The user's own images: a folder with a folder for each class."""

import sys
from pathlib import Path

import numpy as np
import torch

from dinat_ref.command import CommandError, printable, show_progress
from dinat_ref.images import SUFFIXES, open_photo
from dinat_ref.training.data import Examples

MOST_BYTES = 16 * 10**9  # of pixels in memory: 100,000 images of 224 x 224


def load_folder(folder: Path | str, size: int = 224) -> Examples:
    """Read ``folder/CLASS/IMAGE`` for every class and image, resized to a square of ``size`` pixels.

    Files that cannot be read as images are named on stderr, skipped and counted. Other files and hidden ones are
    left alone.

    Shapes:
        images: uint8 [N, 3, size, size]; ``Examples.batch`` normalises them as the published models were trained
    Raises:
        CommandError: no such folder, fewer than two classes, a class without an image that can be read, or more images
            than memory is meant to hold.
    Source: the folder layout of torchvision's ImageFolder.
    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("cat", "dog"):
        ...         Path(folder, name).mkdir()
        ...         Image.new("RGB", (40, 30)).save(Path(folder, name, "1.png"))
        ...     examples = load_folder(folder, size=32)
        >>> examples.class_names, examples.images.shape
        (('cat', 'dog'), torch.Size([2, 3, 32, 32]))
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CommandError(f"no such folder of images: {folder}")
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(classes) < 2:
        raise CommandError(f"{folder} must hold a folder for each of at least 2 classes, got {len(classes)}")
    paths = [_image_files(entry) for entry in classes]
    count = sum(map(len, paths))
    if count * 3 * size**2 > MOST_BYTES:
        needed = f"{count:,} images of {size} x {size} pixels take {count * 3 * size**2 / 1e9:,.0f} GB"
        raise CommandError(f"{needed}, and at most {MOST_BYTES / 1e9:.0f} GB are held in memory: {folder}")
    images = torch.empty(count, 3, size, size, dtype=torch.uint8)
    labels: list[int] = []
    for label, (entry, members) in enumerate(zip(classes, paths, strict=True)):
        before = len(labels)
        for number, path in enumerate(members, start=1):
            show_progress(f"reading {entry.name}: {number} of {len(members)}")
            array = _read_square(path, size)
            if array is None:
                show_progress("")
                print(f"not an image, or a damaged one, skipped: {printable(path)}", file=sys.stderr)
            else:
                images[len(labels)] = torch.from_numpy(array).permute(2, 0, 1)  # [3, size, size]
                labels.append(label)
        show_progress("")
        if len(labels) == before:
            raise CommandError(f"{entry} holds no image that can be read: {len(members)} tried")
    if len(labels) < count:
        print(f"{count - len(labels)} of {count} images were skipped", file=sys.stderr)
    return Examples(images[: len(labels)], torch.tensor(labels), tuple(entry.name for entry in classes))


def _image_files(folder: Path) -> list[Path]:
    """List the images anywhere in a folder, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _read_square(path: Path, size: int) -> np.ndarray | None:
    """Read an image as uint8 [size, size, 3], resized as the Hugging Face hub does, or None where it cannot be read."""
    from PIL import Image

    try:
        return np.array(open_photo(path).resize((size, size), Image.Resampling.BICUBIC))
    except (ValueError, FileNotFoundError):
        return None
