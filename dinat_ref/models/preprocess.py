"""From a photograph to the numbers a model was trained on: size, scale, mean and deviation.

"square"   the Hugging Face hub's way: resize to a square, whatever the shape, bicubic
"crop"     the original evaluation: resize the shorter side to size / crop_fraction, cut the centre out
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dinat_ref.images import MOST_PIXELS, to_rgb
from dinat_ref.models import schema

if TYPE_CHECKING:
    from PIL.Image import Image

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's red, green and blue
DEVIATION = (0.229, 0.224, 0.225)
BICUBIC = 3  # Pillow's number of this interpolation


def preprocess(
    image: "Image",
    size: int = 224,
    method: str = "square",
    crop_fraction: float = 0.875,
    mean: Sequence[float] = MEAN,
    deviation: Sequence[float] = DEVIATION,
    resample: int = BICUBIC,
) -> Tensor:
    """Resize, crop and normalise a photograph.

    Shapes:
        return: float32 [1, 3, size, size]
    Args:
        image: a PIL image of any mode and size; it is turned upright as its camera says.
        size: pixels of a side, what the model was made for.
        method: "square" or "crop", see the top of this module.
        crop_fraction: the part of the shorter side that "crop" keeps; 1 keeps all of it.
        mean, deviation: of the red, green and blue that the model was trained on, as numbers in 0 .. 1.
        resample: Pillow's number of the interpolation.
    Raises:
        ValueError: size outside 1 .. 4096, another method, or a fraction outside 0 < crop_fraction <= 1.
    Source: the hub's preprocessor_config.json; the original repository's evaluation.
    Example:
        >>> from PIL import Image
        >>> preprocess(Image.new("L", (640, 480), color=255), size=32)[0, :, 0, 0]
        tensor([2.2489, 2.4286, 2.6400])
    """
    size = schema.integer(1, schema.LONGEST_SIDE)("size", size)
    if not 0 < crop_fraction <= 1:
        raise ValueError(f"crop_fraction must be in 0 < crop_fraction <= 1, got {crop_fraction}")
    image = to_rgb(image)
    if method == "square":
        image = image.resize((size, size), resample)
    elif method == "crop":
        shorter = resized(size, crop_fraction)
        width, height = (max(int(shorter * side / min(image.size)), shorter) for side in image.size)
        if width * height > MOST_PIXELS:
            raise ValueError(
                f"the image is too narrow to be cropped: {shorter} pixels wide it would be {width} x {height}"
            )
        image = image.resize((width, height), resample)
        left, top = round((width - size) / 2), round((height - size) / 2)
        image = image.crop((left, top, left + size, top + size))
    else:
        raise ValueError(f"method must be 'square' or 'crop', got {method!r}")
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)) / 255  # [size, size, 3]
    return ((pixels - torch.tensor(mean)) / torch.tensor(deviation)).permute(2, 0, 1)[None]


def resized(size: int, crop_fraction: float) -> int:
    """The pixels of the shorter side before so much of it is cropped, rounded down.

    Example:
        >>> resized(224, 0.875), resized(224, 0.9), resized(93, 93 / 126)  # rounding would make it 125
        (256, 248, 126)
    """
    return int(size / crop_fraction + 1e-6)


def to_photo(image: Tensor) -> Tensor:
    """Take the normalisation back, to look at what the model sees.

    Shapes:
        image:  [1, 3, X, Y]
        return: [X, Y, 3], numbers in 0 .. 1
    Source: the inverse of ``preprocess``.
    Example:
        >>> from PIL import Image
        >>> to_photo(preprocess(Image.new("L", (640, 480), color=255), size=2))[0, 0]
        tensor([1., 1., 1.])
    """
    return (image[0].permute(1, 2, 0) * torch.tensor(DEVIATION) + torch.tensor(MEAN)).clamp(0, 1)
