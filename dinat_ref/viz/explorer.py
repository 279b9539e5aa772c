"""The command ``dinat-ref explore``: a page in which one points at a photo and sees windows, attention and fields.

The page is one file and needs no network. It looks windows up in tables that ``dinat_ref.window`` filled, so that it
holds no second definition of a neighborhood.
"""

import argparse
import base64
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dinat_ref.analysis.photo import load_photo, patch_operands
from dinat_ref.command import CommandError, check_writable, printable, whole_file
from dinat_ref.neighborhood import Neighborhood

OPTIONS = {"k": [1, 2, 3, 4, 5, 7, 9, 11], "d": [1, 2, 3, 4, 6, 8], "s": [1, 2, 3, 5, 7], "l": [1, 2, 3, 4]}
START = {"k": "7", "d": "1", "s": "1", "l": "3", "c": "0", "mode": "window"}
STRENGTH = 0.5


def window_tables(layout: tuple[int, int]) -> dict[str, list[list[list[int]]]]:
    """List the windows of both axes for every legal choice of the page's settings.

    Shapes:
        return: by "kernel_size,dilation,stride,causal", for each axis and position the first key and the number of keys
    Raises:
        Nothing: settings that are not legal on both axes are left out.
    Source: ``dinat_ref.window``.
    Example:
        >>> window_tables((5, 6))["3,1,1,0"][0]
        [[0, 3], [0, 3], [1, 3], [2, 3], [2, 3]]
    """
    tables = {}
    for k, d, s, causal in itertools.product(OPTIONS["k"], OPTIONS["d"], OPTIONS["s"], (False, True)):
        if k * d <= min(layout) and s <= k:
            both = [Neighborhood((length,), k, s, d, causal).windows(0) for length in layout]
            tables[f"{k},{d},{s},{int(causal)}"] = [[[keys.start, len(keys)] for keys in axis] for axis in both]
    return tables


def explorer_page(photo: Tensor, tokens: int = 40) -> str:
    """Make the page for a photo.

    Shapes:
        photo: [X, Y, 3], numbers in 0 .. 1
    Args:
        tokens: tokens on the longer axis; the photo is averaged over each.
    Returns:
        HTML, complete with the photo.
    Raises:
        ValueError: tokens is below 8 or above the photo's longer side, or the shorter side has fewer than 4 tokens.
    Example:
        >>> page = explorer_page(torch.rand(30, 40, 3), tokens=12)
        >>> page.startswith("<!doctype html>"), '"layout": [9, 12]' in page
        (True, True)
    """
    longest = max(photo.shape[:2])
    if not 8 <= tokens <= longest:
        raise ValueError(f"tokens must be in 8 .. {longest}, the photo's longer side, got {tokens}")
    layout = tuple(max(1, round(length * tokens / longest)) for length in photo.shape[:2])
    if min(layout) < 4:
        raise ValueError(f"the photo is too narrow: {layout} tokens, and no axis may have fewer than 4")
    small = torch.nn.functional.interpolate(photo.movedim(-1, 0)[None], layout, mode="area")[0].movedim(0, -1)
    features = patch_operands(small)[1][0, :, :, 0, :-1]  # [X, Y, 27], a patch of 3 x 3 pixels
    data: dict[str, Any] = {
        "layout": list(layout),
        "options": OPTIONS,
        "start": START,
        "strength": STRENGTH,
        "tables": window_tables((layout[0], layout[1])),
        "features": base64.b64encode(quantised(features).tobytes()).decode(),
        "photo": _data_url(photo),
        "ramp": _ramp(),
    }
    template = Path(__file__).with_name("explorer.html").read_text(encoding="utf-8")
    return template.replace("/*DATA*/", json.dumps(data))


def quantised(features: Tensor) -> np.ndarray:
    """Round numbers in 0 .. 1 to bytes, as the page keeps them.

    Shapes:
        return: uint8, of the same shape
    Example:
        >>> quantised(torch.tensor([0.0, 0.5, 1.0]))
        array([  0, 128, 255], dtype=uint8)
    """
    array: np.ndarray = (features.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return array


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> parser.parse_args([]).tokens
        40
    """
    parser.epilog = "examples:\n  dinat-ref explore\n  dinat-ref explore cat.jpg --tokens 56 --out cat.html\n"
    parser.add_argument("image", nargs="?", help="a photo; the portrait that matplotlib ships by default")
    parser.add_argument("--out", type=Path, default=Path("explorer.html"), help="file to write (default explorer.html)")
    parser.add_argument("--tokens", type=int, default=40, help="tokens on the longer axis (default 40)")


def run(args: argparse.Namespace) -> int:
    """Write the page.

    Raises:
        CommandError: bad input, or a file that cannot be read or written.
    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> run(parser.parse_args(["--tokens", "3"]))
        Traceback (most recent call last):
        dinat_ref.command.CommandError: tokens must be in 8 .. 600, the photo's longer side, got 3
    """
    if args.out.suffix.lower() not in (".html", ".htm"):
        raise CommandError(f"the page is written as .html, got {args.out.name}")
    check_writable(args.out)
    try:
        page = explorer_page(load_photo(args.image), args.tokens)
    except (ValueError, FileNotFoundError) as error:
        raise CommandError(str(error)) from None
    with whole_file(args.out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(printable(args.out))
    return 0


def _data_url(photo: Tensor, longest: int = 640) -> str:
    """Pack a photo into the page."""
    from PIL import Image

    picture = Image.fromarray(quantised(photo))
    picture.thumbnail((longest, longest))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _ramp(steps: int = 64) -> list[str]:
    """The colours of amounts, as the drawings have them."""
    import matplotlib
    from matplotlib.colors import to_hex

    from dinat_ref.viz.theme import WEIGHTS

    return [to_hex(matplotlib.colormaps[WEIGHTS](step / (steps - 1))) for step in range(steps)]
