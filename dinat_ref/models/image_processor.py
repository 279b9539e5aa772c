"""How a model wants its photographs: what the ``preprocessor_config.json`` beside its weights says."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from dinat_ref.command import whole_file
from dinat_ref.models import schema
from dinat_ref.models.preprocess import BICUBIC, DEVIATION, MEAN, preprocess, resized
from dinat_ref.outside import brief, read_json

if TYPE_CHECKING:
    from PIL.Image import Image

FILE = "preprocessor_config.json"
CHECKS: dict[str, schema.Check] = {
    **dict.fromkeys(("do_resize", "do_rescale", "do_normalize", "do_center_crop"), schema.optional(schema.truth)),
    "rescale_factor": schema.number(0, 1),
    "resample": schema.integer(0, 5),  # Pillow's, from NEAREST to HAMMING
    "image_mean": schema.listed(schema.number(-100, 100), most=3),
    "image_std": schema.listed(schema.number(1e-6, 100), most=3),
}


@dataclass(frozen=True)
class ImageProcessor:
    """``preprocess`` with a model's own numbers; reads and writes the file of transformers' image processors.

    Shapes:
        return: float32 [1, 3, size, size]
    Args:
        size: pixels of a side.
        crop_fraction: the part of the resized shorter side that is kept; None resizes to a square, whatever the shape.
        mean, deviation: of each channel, of numbers in 0 .. 1.
        resample: Pillow's number of the interpolation, 3 is bicubic.
    Source: transformers' ViTImageProcessor, with a crop its BitImageProcessor.
    Example:
        >>> from PIL import Image
        >>> ImageProcessor(size=32, mean=(0.5, 0.5, 0.5))(Image.new("L", (640, 480), color=255))[0, :, 0, 0]
        tensor([2.1834, 2.2321, 2.2222])
    """

    size: int = 224
    crop_fraction: float | None = None
    mean: Sequence[float] = MEAN
    deviation: Sequence[float] = DEVIATION
    resample: int = BICUBIC

    def __call__(self, photo: "Image") -> Tensor:
        """Resize, crop and normalise a photograph."""
        method, fraction = ("square", 1.0) if self.crop_fraction is None else ("crop", self.crop_fraction)
        return preprocess(photo, self.size, method, fraction, self.mean, self.deviation, self.resample)

    @property
    def shorter_side(self) -> int:
        """Pixels of the image's shorter side before it is cropped; of all sides where it is not."""
        return self.size if self.crop_fraction is None else resized(self.size, self.crop_fraction)

    @classmethod
    def from_json(cls, path: Path | str) -> Self:
        """Read a ``preprocessor_config.json``, or the one in a folder.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is no JSON object, or describes what ``preprocess`` does not do.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        settings = read_json(path)
        try:
            return cls(**_understood(settings))
        except KeyError as error:
            raise ValueError(f"{path} cannot be followed: it lacks {error}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} cannot be followed: {error}") from None

    def to_json(self, path: Path | str) -> None:
        """Write a ``preprocessor_config.json`` that this package and transformers read."""
        square = {"height": self.size, "width": self.size}
        settings: dict[str, Any] = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": square,
            "resample": self.resample,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.deviation),
        }
        if self.crop_fraction is not None:
            settings |= {"size": {"shortest_edge": self.shorter_side}, "do_center_crop": True, "crop_size": square}
            settings["image_processor_type"] = "BitImageProcessor"  # the same with a crop, in older releases, too
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _understood(settings: dict[str, Any]) -> dict[str, Any]:
    """Translate the settings of a file, those of published models where it has none; other steps are refused."""
    settings = settings | schema.check_settings(settings, CHECKS)
    for step in ("do_resize", "do_rescale"):
        if not settings.get(step, True):
            raise ValueError(f"{step} must be true, got {settings[step]}")
    if abs(settings.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise ValueError(f"rescale_factor must be 1/255, got {settings['rescale_factor']}")
    known: dict[str, Any] = {"resample": settings.get("resample", BICUBIC)}
    if not settings.get("do_normalize", True):
        known |= {"mean": (0.0, 0.0, 0.0), "deviation": (1.0, 1.0, 1.0)}
    else:
        known |= {"mean": tuple(settings.get("image_mean", MEAN))}
        known |= {"deviation": tuple(settings.get("image_std", DEVIATION))}
        if {len(known["mean"]), len(known["deviation"])} != {3}:
            raise ValueError(f"image_mean and image_std must have 3 numbers, got {known['mean']}")
    size = settings.get("size", 224)
    if not settings.get("do_center_crop", False):
        return known | {"size": _side(size, "size")}
    cropped = _side(settings["crop_size"], "crop_size")
    shorter = size.get("shortest_edge") if isinstance(size, dict) else size
    if type(shorter) is not int or not cropped <= shorter <= schema.LONGEST_SIDE:
        limits = f"{cropped} .. {schema.LONGEST_SIDE}"
        raise ValueError(
            f"size must give a shortest_edge within {limits}, crop_size being {cropped}, got {brief(size)}"
        )
    return known | {"size": cropped, "crop_fraction": cropped / shorter}


def _side(size: Any, name: str) -> int:
    """Read the side of a square, given as a number or as height and width."""
    height, width = (size["height"], size["width"]) if isinstance(size, dict) else (size, size)
    side: int = schema.integer(1, schema.LONGEST_SIDE)(name, height)
    if width != side:
        raise ValueError(f"{name} must be a square, got {brief(size)}")
    return side
