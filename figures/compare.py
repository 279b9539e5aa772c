"""When two drawings are the same: to the byte, or but for what rounding on another processor may change."""

import re

import numpy as np

NUMBER = re.compile(rb"-?\d+\.\d+")
NAME = re.compile(rb'(id="|url\(#|href="#)[^")]*')  # names that matplotlib derives from the numbers


def same_drawing(mine: bytes, other: bytes) -> bool:
    """Compare two SVGs made by one version of matplotlib: the same text, and numbers within a thousandth of a point."""
    if mine == other:
        return True
    texts = [NAME.sub(b"", image) for image in (mine, other)]
    if NUMBER.sub(b"", texts[0]) != NUMBER.sub(b"", texts[1]):
        return False
    numbers = [np.array([float(number) for number in NUMBER.findall(text)]) for text in texts]
    return bool(np.abs(numbers[0] - numbers[1]).max(initial=0) <= 1e-3)
