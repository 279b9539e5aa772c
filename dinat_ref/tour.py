"""The command ``dinat-ref tour``: neighborhood attention at work on a photograph, in three steps.

Step 2 is one neighborhood attention layer without any learned weight (``dinat_ref.analysis.denoising``).
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dinat_ref.command import CommandError, check_writable, printable, show_progress

if TYPE_CHECKING:
    from torch import Tensor

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
    import torch

    from dinat_ref.analysis.denoising import KERNEL_SIZE, NOISE, denoise
    from dinat_ref.analysis.photo import psnr
    from dinat_ref.analysis.self_check import check_formulations, check_windows
    from dinat_ref.viz.theme import save_figure
    from dinat_ref.viz.tour_plates import tour_plates

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
    show_progress("drawing ...")
    for name, figure in tour_plates(photo, noisy, denoised):
        print(f"   {printable(save_figure(figure, args.out / name))}", flush=True)
    show_progress("")
    return 0


def _load(path: str | None) -> "Tensor":
    """Read the photo, or say in one line what is wrong with it."""
    import torch

    from dinat_ref.analysis.denoising import KERNEL_SIZE
    from dinat_ref.analysis.photo import load_photo

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


def _peak_memory() -> str:
    """Say how much memory this process has taken at most, where the system tells."""
    try:
        import resource
    except ImportError:
        return ""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return f"; peak memory of the process {kilobytes / 1e6:.1f} GB"
