"""The command ``dinat-ref tour``: neighborhood attention at work on a photograph, in three steps.

Step 2 is one neighborhood attention layer without any learned weight. Its queries and keys are 3 x 3 patches of a
noisy photo, its values are pixels: every pixel becomes a mean of the pixels around it that look alike, which is
non-local means (Buades, Coll & Morel 2005).
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dinat_ref.analysis.photo import load_photo, patch_operands, psnr
from dinat_ref.analysis.self_check import check_formulations, check_windows
from dinat_ref.attention import na2d
from dinat_ref.command import CommandError, check_writable, printable, show_progress
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.viz.plates import attention_plate, receptive_field_plate
from dinat_ref.viz.theme import save_figure
from dinat_ref.viz.tour_plates import photos_plate, window_grid_plate

KERNEL_SIZE = 13
NOISE = 0.1
STRENGTH = 4 * NOISE  # how different two noisy patches may be and still count as alike
MOST_PIXELS = 640 * 640
EXAMPLES = """examples:
  dinat-ref tour                              the photo that matplotlib ships; pictures go to ./tour
  dinat-ref tour cat.jpg --out pictures       your own photo
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the tour.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> parser.parse_args([]).out
        PosixPath('tour')
    """
    parser.epilog = EXAMPLES
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="a photo; by default the one that matplotlib ships")
    parser.add_argument(
        "--out", type=Path, default=Path("tour"), metavar="DIR", help="where pictures go (default tour)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise (default 0)")


def run(args: argparse.Namespace) -> int:
    """Take the tour.

    Raises:
        CommandError: the image cannot be read or is too small, or the directory cannot be written.
    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> run(parser.parse_args(["no such.jpg"]))
        Traceback (most recent call last):
        dinat_ref.command.CommandError: image not found: no such.jpg
    """
    photo = _load(args.image)
    check_writable(args.out / "denoised.png")

    print("1. Is it right?")
    show_progress("checking every window up to length 12 ...")
    windows = check_windows(longest=12)
    show_progress("")
    print(f"   {windows:,} windows hold their laws: every legal axis up to 12 tokens")
    show_progress("comparing the formulations ...")
    problems, worst = check_formulations(args.seed)
    show_progress("")
    print(f"   {problems:,} comparisons of the formulations with the definition: largest difference {worst:.1e}")

    rows, columns = photo.shape[:2]
    print(f"2. Denoise {rows * columns:,} tokens with one layer, kernel {KERNEL_SIZE} x {KERNEL_SIZE}, nothing learned")
    noisy = photo + NOISE * torch.randn(photo.shape, generator=torch.Generator().manual_seed(args.seed))
    show_progress("attending ...")
    denoised = denoise(noisy)
    show_progress("")
    print(f"   PSNR {psnr(noisy, photo):.1f} dB before, {psnr(denoised, photo):.1f} dB after{_peak_memory()}")

    print("3. Look")
    for name, figure in _figures(photo, noisy, denoised):
        print(f"   {printable(save_figure(figure, args.out / name))}", flush=True)
    return 0


def denoise(noisy: Tensor, kernel_size: int = KERNEL_SIZE, strength: float = STRENGTH) -> Tensor:
    """Replace every pixel by the mean of the pixels around it, weighted by how alike their 3 x 3 patches are.

    Shapes:
        noisy:  [X, Y, 3]
        return: [X, Y, 3]
    Args:
        kernel_size: how far to look, in pixels.
        strength: how different two patches may be and still count as alike; about four times the noise.
    Raises:
        ValueError: the photo is smaller than the kernel.
    Cost: a second and 0.6 GB for 600 x 512 pixels on two cores.
    Source: Buades, Coll & Morel, A non-local algorithm for image denoising, CVPR 2005.
    Example:
        >>> grey = 0.5 + 0.1 * torch.randn(20, 20, 3, generator=torch.Generator().manual_seed(0))
        >>> bool(denoise(grey).std() < grey.std() / 3)
        True
    """
    query, key = patch_operands(noisy, patch_size=3, strength=strength)
    with torch.no_grad():
        output = na2d(query, key, noisy[None, :, :, None], kernel_size, scale=1.0)  # [1, X, Y, 1, 3]
    assert isinstance(output, Tensor)
    return output[0, :, :, 0]


def _load(path: str | None) -> Tensor:
    """Read the photo, or say in one line what is wrong with it."""
    try:
        photo = load_photo(path)
    except (FileNotFoundError, ValueError) as error:
        raise CommandError(str(error)) from None
    rows, columns = photo.shape[:2]
    if min(rows, columns) < KERNEL_SIZE:
        window = f"{KERNEL_SIZE} x {KERNEL_SIZE}"
        raise CommandError(f"image has {rows} x {columns} pixels, fewer than the window of {window}: {path}")
    if rows * columns > MOST_PIXELS:
        factor = (MOST_PIXELS / (rows * columns)) ** 0.5
        size = (max(KERNEL_SIZE, int(rows * factor)), max(KERNEL_SIZE, int(columns * factor)))
        resized = torch.nn.functional.interpolate(photo.movedim(-1, 0)[None], size, mode="area")[0]
        photo = resized.movedim(0, -1).contiguous()
        print(f"The photo of {rows} x {columns} pixels is reduced to {size[0]} x {size[1]}.")
    return photo


def _figures(photo: Tensor, noisy: Tensor, denoised: Tensor) -> Iterator[tuple[str, Figure]]:
    """Make the pictures one after another, each with its file name."""
    rows, columns = photo.shape[:2]
    tokens = [(0, 0), (_varied_edge_row(photo), columns - 1), (2 * rows // 5, columns // 2)]
    largest = min(rows, columns) // KERNEL_SIZE
    dilation = max(1, min(8, largest))
    dilations = [max(1, round(largest ** (layer / 3))) for layer in range(4)]
    show_progress("drawing ...")
    yield (
        "denoised.png",
        photos_plate(
            {
                "the photo": photo,
                f"noisy: PSNR {psnr(noisy, photo):.1f} dB": noisy,
                f"denoised: PSNR {psnr(denoised, photo):.1f} dB": denoised,
            }
        ),
    )
    neighborhoods = [Neighborhood((rows, columns), KERNEL_SIZE, dilation=d) for d in sorted({1, dilation})]
    yield "windows.png", window_grid_plate(neighborhoods, tokens)
    yield "attention.png", attention_plate(photo, tokens, KERNEL_SIZE, sorted({1, dilation}), STRENGTH)
    stacks = {
        "4 layers, dilation 1": [Neighborhood((rows, columns), KERNEL_SIZE)] * 4,
        f"dilations {', '.join(map(str, dilations))}": [
            Neighborhood((rows, columns), KERNEL_SIZE, dilation=step) for step in dilations
        ],
    }
    yield "receptive_field.png", receptive_field_plate(stacks, tokens[2])
    show_progress("")


def _varied_edge_row(photo: Tensor) -> int:
    """The row whose query on the right edge has the most varied window, so that there is something to attend to."""
    strip = photo[:, -KERNEL_SIZE:].mean(-1).unfold(0, KERNEL_SIZE, 1)  # [windows, KERNEL_SIZE, KERNEL_SIZE]
    return int(strip.flatten(1).std(1).argmax()) + KERNEL_SIZE // 2


def _peak_memory() -> str:
    """Say how much memory this process has taken at most, where the system tells."""
    try:
        import resource
    except ImportError:
        return ""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return f"; peak memory of the process {kilobytes / 1e6:.1f} GB"
