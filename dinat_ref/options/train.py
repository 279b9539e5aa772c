"""What ``dinat-ref train`` takes."""

import argparse
from pathlib import Path

AUGMENTATIONS = ("none", "affine", "photo")
EXAMPLES = """examples:
  dinat-ref train --data digits --out runs/digits                      a nano DiNAT that reads digits, in a minute
  dinat-ref train --data far_match --model na_dina --out runs/far      two layers that see far
  dinat-ref train --data photos/ --model dinat_mini --out runs/photos  photos/CLASS/IMAGE, your own
  dinat-ref train --data digits --out runs/digits --resume             go on after an interruption
  dinat-ref train --data photos/ --model dinat_mini --init dinat_mini.pth --out runs/tuned      start from weights
  torchrun --nproc-per-node 2 -m dinat_ref train --data digits --batch-size 32 --out runs/digits
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train``.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> parser.parse_args(["--data", "digits", "--out", "runs/digits"]).held_out
        0.1
    """
    parser.epilog = EXAMPLES
    parser.add_argument("--data", required=True, help="digits, far_match, texture, or a folder with CLASS/IMAGE")
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="DIR",
        help="where checkpoints and metrics go; of several machines, a folder that all of them see",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="dinat_nano_digits, na_na, na_dina, dina_na, dina_dina, sa_sa, a published model, or a config.json "
        "(default: dinat_nano_digits for digits, na_dina for far_match and texture, dinat_mini for a folder)",
    )
    parser.add_argument(
        "--init",
        metavar="FILE",
        help="start from these weights: a file, a folder, or another run; a head for other classes stays random",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    parser.add_argument("--held-out", type=float, default=0.1, metavar="PART", help="part held out (default 0.1)")
    parser.add_argument("--test", action="store_true", help="at the end measure on the test part of digits, once")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side of a folder's images (default 224)")
    parser.add_argument("--images", type=int, default=8192, metavar="N", help="of far_match and texture (default 8192)")
    parser.add_argument("--device", help="cpu, cuda, mps (default: cuda where there is one)")
    settings = parser.add_argument_group("recipe", "defaults depend on the data; training.json tells them")
    settings.add_argument("--epochs", type=int)
    settings.add_argument("--batch-size", type=int, help="images of one step on each process")
    settings.add_argument("--learning-rate", type=float)
    settings.add_argument("--warm-up", type=float, metavar="PART", help="part of all steps")
    settings.add_argument("--weight-decay", type=float)
    settings.add_argument("--label-smoothing", type=float)
    settings.add_argument("--max-gradient-norm", type=float)
    settings.add_argument("--average-decay", type=float, help="of the moving average of the weights; 0: none")
    settings.add_argument("--augmentation", choices=AUGMENTATIONS)
    settings.add_argument("--bf16", action="store_true", default=None, help="compute in bfloat16 where autocast does")
    settings.add_argument("--seed", type=int)
