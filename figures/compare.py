"""When two drawings are the same: to the byte, or but for what rounding on another processor may change."""

import io
import re

import numpy as np
from PIL import Image

NUMBER = re.compile(rb"-?\d+\.\d+")
NAME = re.compile(rb'(id="|url\(#|href="#)[^")]*')  # names that matplotlib derives from the numbers


def same_drawing(mine: bytes, other: bytes, suffix: str) -> bool:
    """Compare two drawings made by one version of matplotlib.

    In an .svg the text must be the same, and numbers within a thousandth of a point; in a .png every pixel within 2
    of 255.
    """
    if mine == other:
        return True
    if suffix == ".png":
        pixels = [np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), dtype=np.int64) for image in (mine, other)]
        return pixels[0].shape == pixels[1].shape and int(np.abs(pixels[0] - pixels[1]).max()) <= 2
    texts = [NAME.sub(b"", image) for image in (mine, other)]
    if NUMBER.sub(b"", texts[0]) != NUMBER.sub(b"", texts[1]):
        return False
    numbers = [np.array([float(number) for number in NUMBER.findall(text)]) for text in texts]
    return bool(np.abs(numbers[0] - numbers[1]).max(initial=0) <= 1e-3)
