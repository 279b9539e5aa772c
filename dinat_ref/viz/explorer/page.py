"""The page of ``dinat-ref explore``: one file, which needs no network.

Python computes the windows, the query, key and value of every token, and the bias; the page looks them up. What it
does itself is the arithmetic of one query, which a test compares with the operator.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dinat_ref.analysis.photo import patch_operands
from dinat_ref.viz.explorer.stops import presets, tour_stops
from dinat_ref.viz.explorer.tables import MOST_LAYERS, OPTIONS, axis_tables

HERE = Path(__file__).parent
PARTS = ("explorer.css", "windows.js", "picture.js", "numbers.js", "explorer.js")
FEWEST = 6  # tokens on the shorter axis: fewer would leave no room for a dilation
HEAD_DIM = 8
STRENGTH = 0.8  # how unlike two patches may be and still count as alike
NEARNESS = 18.0  # the bias is -steps^2 / NEARNESS on each axis


def explorer_page(photo: Tensor, tokens: int = 56) -> str:
    """Make the page for a photo.

    Shapes:
        photo: [X, Y, 3], numbers in 0 .. 1
    Args:
        tokens: tokens on the longer axis; the photo is averaged over each.
    Returns:
        HTML, complete with the photo.
    Raises:
        ValueError: tokens exceeds the photo's longer side, or the shorter side has fewer than 6 tokens.
    Example:
        >>> page = explorer_page(torch.rand(30, 40, 3), tokens=12)
        >>> page.startswith("<!doctype html>"), '"layout":[9,12]' in page
        (True, True)
    """
    longest = max(photo.shape[:2])
    if tokens > longest:
        raise ValueError(f"tokens must be at most {longest}, the photo's longer side, got {tokens}")
    layout = (round(photo.shape[0] * tokens / longest), round(photo.shape[1] * tokens / longest))
    if min(layout) < FEWEST:
        raise ValueError(f"the photo is too narrow: {layout} tokens, and no axis may have fewer than {FEWEST}")
    small = torch.nn.functional.interpolate(photo.movedim(-1, 0)[None], layout, mode="area")[0].movedim(0, -1)
    query, key = operands(small)
    data: dict[str, Any] = {
        "layout": layout,
        "options": OPTIONS,
        "most_layers": MOST_LAYERS,
        "presets": presets(layout),
        "stops": tour_stops(layout),
        "tables": {length: axis_tables(length) for length in sorted(set(layout))},
        "query": packed(query),
        "key": packed(key),
        "value": packed(small),
        "bias": [-(steps**2) / NEARNESS for steps in range(max(layout))],
        "photo": _data_url(photo),
        "ramp": _ramp(),
    }
    page = HERE.joinpath("explorer.html").read_text(encoding="utf-8")
    for name in PARTS:
        page = page.replace(f"/*{name}*/", HERE.joinpath(name).read_text(encoding="utf-8"))
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")  # no script may end inside of it
    return page.replace("/*DATA*/", text)


def operands(image: Tensor) -> tuple[Tensor, Tensor]:
    """Make a short query and key of every token, such that attention goes to the tokens that look alike.

    The patches of ``patch_operands`` in their seven main directions, and an eighth number for the key's own length.

    Shapes:
        image:  [X, Y, C]
        return: query and key, each [X, Y, D]
    Example:
        >>> query, key = operands(torch.rand(6, 7, 3, generator=torch.Generator().manual_seed(0)))
        >>> scores = (query[2, 3] * key).sum(-1)  # [X, Y]
        >>> divmod(int(scores.argmax()), 7)  # a token is most like itself
        (2, 3)
    """
    patches = patch_operands(image)[1][0, :, :, 0, :-1].flatten(0, 1)  # [N, 9 C]
    centred = patches - patches.mean(0)
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[: HEAD_DIM - 1]
    features = (centred @ directions.T).unflatten(0, image.shape[:2])  # [X, Y, D - 1]
    length = features.square().sum(-1, keepdim=True)
    query = torch.cat([features, torch.ones_like(length)], dim=-1) / STRENGTH**2
    return query, torch.cat([features, -length / 2], dim=-1)


def packed(tensor: Tensor) -> str:
    """Write a tensor's numbers as the page reads them: float32, little-endian, in base64.

    Example:
        >>> packed(torch.tensor([1.0]))
        'AACAPw=='
    """
    return base64.b64encode(tensor.numpy().astype("<f4").tobytes()).decode()


def square(photo: Tensor) -> Tensor:
    """Cut the square out of a photo's middle, as a classifier sees it.

    Shapes:
        photo:  [X, Y, C]
        return: [S, S, C], S the shorter side
    Example:
        >>> square(torch.rand(30, 41, 3)).shape
        torch.Size([30, 30, 3])
    """
    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    return photo[top : top + side, left : left + side]


def _data_url(photo: Tensor, longest: int = 720) -> str:
    """Pack a photo into the page."""
    from PIL import Image

    picture = Image.fromarray((photo.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    picture.thumbnail((longest, longest))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _ramp(steps: int = 64) -> list[str]:
    """The colours of amounts, as the drawings have them."""
    import matplotlib
    from matplotlib.colors import to_hex

    from dinat_ref.viz.theme import WEIGHTS

    return [to_hex(matplotlib.colormaps[WEIGHTS](np.float64(step / (steps - 1)))) for step in range(steps)]
