"""``python -m dinat_ref.training.experiments NAME``: train many small models, write their numbers and their picture."""

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from dinat_ref.command import CommandError, check_writable, whole_file
from dinat_ref.training.checkpoint import provenance
from dinat_ref.training.experiments import digits, distance, patterns
from dinat_ref.training.experiments.runs import run_all
from dinat_ref.training.loop import clock
from dinat_ref.viz.experiment_plates import PLATES
from dinat_ref.viz.theme import save_figure

EXAMPLES = """experiments:
  patterns   NA-NA, NA-DiNA, DiNA-NA, DiNA-DiNA and SA-SA on a task that is far and one that is near
  distance   how far apart two markers may be, for windows of 3, 5 and 7, beside the receptive field
  digits     the accuracy of a nano DiNAT and a nano NAT on scanned digits, and with other dilations at test time

examples:
  python -m dinat_ref.training.experiments patterns
  python -m dinat_ref.training.experiments distance --seeds 2 --epochs 2 --out quick
"""


@dataclass(frozen=True)
class Experiment:
    """An experiment: its module, and how long its runs are.

    Example:
        >>> EXPERIMENTS["digits"].epochs
        60
    """

    module: ModuleType
    images: int
    epochs: int


EXPERIMENTS = {
    "patterns": Experiment(patterns, images=16384, epochs=5),
    "distance": Experiment(distance, images=16384, epochs=10),
    "digits": Experiment(digits, images=0, epochs=60),
}


def main(argv: list[str] | None = None) -> int:
    """Do one experiment: exit status 0 when it did its work, 2 when its input was bad.

    Raises:
        SystemExit: after --help or a usage error.
    Example:
        >>> main(["patterns", "--seeds", "0"])
        2
    """
    parser = argparse.ArgumentParser(
        prog="python -m dinat_ref.training.experiments",
        description="The papers' claims in miniature. Illustrations: two layers and toy tasks, not ImageNet.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=list(EXPERIMENTS), metavar="NAME", help=", ".join(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, default=5, help="runs of each model, seeds 0, 1, ... (default 5)")
    parser.add_argument("--epochs", type=int, help="of each run (default: the experiment's own)")
    parser.add_argument("--images", type=int, help="to learn from, of patterns and distance (default 16384)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time (default: all cores)")
    parser.add_argument("--out", type=Path, default=Path("experiments"), metavar="DIR", help="default: experiments")
    args = parser.parse_args(argv)
    try:
        return _run(args)
    except (CommandError, ImportError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{parser.prog}: stopped", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    """Train, then write NAME.json and NAME.svg."""
    experiment = EXPERIMENTS[args.name]
    images = experiment.images if args.images is None else args.images
    epochs = experiment.epochs if args.epochs is None else args.epochs
    for name, value, least in (("seeds", args.seeds, 1), ("epochs", epochs, 1), ("workers", args.workers, 0)):
        if value < least:
            raise CommandError(f"--{name} must be at least {least}, got {value}")
    if args.images is not None and args.images < 64:
        raise CommandError(f"--images must be at least 64, a batch, got {args.images}")
    check_writable(args.out / f"{args.name}.json")
    runs = experiment.module.runs(args.seeds, images, epochs)
    print(f"{len(runs)} runs of {epochs} epochs, {args.workers} at a time")
    began = time.perf_counter()
    numbers = experiment.module.summarise(run_all(runs, args.workers))
    settings = {"seeds": args.seeds, "images": images, "epochs": epochs}
    content = {"experiment": args.name, "settings": settings, **numbers, **provenance() | {"threads": 1}}
    with whole_file(args.out / f"{args.name}.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    save_figure(PLATES[args.name](content), args.out / f"{args.name}.svg")
    print("\n".join(experiment.module.lines(content)))
    print(f"wrote {args.out / args.name}.json and .svg after {clock(time.perf_counter() - began)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
