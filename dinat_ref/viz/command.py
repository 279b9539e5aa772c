"""The command ``dinat-ref draw``: windows, atlas, receptive fields, inverse neighborhoods, attention over a photo."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from dinat_ref.command import CommandError, check_writable, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dinat_ref.neighborhood import Neighborhood

EXAMPLES = """examples:
  dinat-ref draw windows --layout 12 12 --kernel-size 5 --token 0 0 --token 6 11 --out windows.png
  dinat-ref draw windows --layout 12 12 --kernel-size 3 --dilation 3 --token 0 5 --out dilated.svg
  dinat-ref draw inverse --layout 12 12 --kernel-size 5 --token 0 6 --out inverse.png
  dinat-ref draw atlas --out atlas.svg
  dinat-ref draw receptive-field --layout 56 56 --kernel-size 7 --dilations 1 8 1 --out field.png
  dinat-ref draw attention photo.jpg --kernel-size 13 --dilation 8 --token 180 250 --out attention.png
"""

KERNEL_SIZES = {"receptive-field": 7, "attention": 13}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every drawing.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> parser.parse_args(["atlas", "--out", "atlas.svg"]).out
        PosixPath('atlas.svg')
    """
    parser.epilog = EXAMPLES
    drawings = parser.add_subparsers(dest="drawing", metavar="DRAWING", required=True)
    summaries = {
        "windows": "which tokens some queries attend",
        "inverse": "which queries attend some tokens, and how often each token is attended",
        "atlas": "ten members of the family as matrices of queries and keys",
        "receptive-field": "how far one token sees after each of several layers",
        "attention": "what some pixels of a photo attend to, by the likeness of their patches",
    }
    for name, summary in summaries.items():
        examples = [line for line in EXAMPLES.splitlines() if f"draw {name} " in line]
        drawing = drawings.add_parser(
            name,
            help=summary,
            description=f"Draw {summary}.",
            epilog="\n".join(["examples:", *examples]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        drawing.add_argument("--out", type=Path, required=True, help="the file to write: .png, .svg or .pdf")
        if name == "atlas":
            drawing.add_argument("--length", type=int, default=16, help="tokens on the axis (default 16)")
            continue
        layout_default = {"receptive-field": [56, 56]}.get(name, [12, 12])
        if name == "attention":
            drawing.add_argument("image", nargs="?", help="a photo; the portrait that matplotlib ships by default")
            drawing.add_argument(
                "--strength", type=float, default=0.25, help="how unlike patches may be (default 0.25)"
            )
        else:
            words = f"tokens on each axis (default {' '.join(map(str, layout_default))})"
            drawing.add_argument("--layout", type=int, nargs="+", default=layout_default, metavar="N", help=words)
        words = f"window width, one or one per axis (default {KERNEL_SIZES.get(name, 5)})"
        drawing.add_argument("--kernel-size", type=int, nargs="+", metavar="K", help=words)
        words = "coordinates of a token; may be repeated (default: the middle)"
        drawing.add_argument("--token", type=int, nargs="+", action="append", metavar="I", help=words)
        if name == "receptive-field":
            drawing.add_argument("--dilations", type=int, nargs="+", metavar="D", help="one per layer (default 1 8 1)")
        else:
            words = "one or one per axis (default 1)" if name != "attention" else "one drawing for each (default 1 8)"
            drawing.add_argument("--dilation", type=int, nargs="+", metavar="D", help=f"dilation, {words}")
        if name in ("windows", "inverse"):
            drawing.add_argument("--stride", type=int, nargs="+", metavar="S", help="one or one per axis (default 1)")
            drawing.add_argument("--causal", action="store_true", help="attend nothing behind the query, on every axis")


def run(args: argparse.Namespace) -> int:
    """Draw and write one file.

    Raises:
        CommandError: bad input, or a file that cannot be read or written.
    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> run(parser.parse_args(["windows", "--token", "99", "0", "--out", "windows.png"]))
        Traceback (most recent call last):
        dinat_ref.command.CommandError: token must lie in the layout (12, 12), got (99, 0)
    """
    from dinat_ref.viz import plates
    from dinat_ref.viz.theme import save_figure

    check_writable(args.out)
    try:
        if args.drawing == "atlas":
            figure = plates.atlas_plate(args.length)
        elif args.drawing == "receptive-field":
            figure = _receptive_field(args)
        elif args.drawing == "attention":
            figure = _attention(args)
        else:
            neighborhood = _neighborhood(args, args.layout)
            tokens = [tuple(token) for token in args.token or [[length // 2 for length in args.layout]]]
            plate = plates.windows_plate if args.drawing == "windows" else plates.inverse_plate
            figure = plate(neighborhood, tokens)
    except (ValueError, FileNotFoundError) as error:
        raise CommandError(str(error)) from None
    print(printable(save_figure(figure, args.out)))
    return 0


def _neighborhood(args: argparse.Namespace, layout: list[int]) -> "Neighborhood":
    """The neighborhood that the arguments ask for."""
    from dinat_ref.neighborhood import Neighborhood

    def one_or_all(value: list[int] | None, default: int) -> int | tuple[int, ...]:
        return default if value is None else value[0] if len(value) == 1 else tuple(value)

    return Neighborhood(
        tuple(layout),
        one_or_all(args.kernel_size, 5),
        one_or_all(getattr(args, "stride", None), 1),
        one_or_all(getattr(args, "dilation", None), 1),
        getattr(args, "causal", False),
    )


def _receptive_field(args: argparse.Namespace) -> "Figure":
    from dinat_ref.neighborhood import Neighborhood
    from dinat_ref.viz import plates

    dilations = args.dilations or [1, 8, 1]
    sizes = args.kernel_size or [KERNEL_SIZES["receptive-field"]]
    kernel_size = sizes[0] if len(sizes) == 1 else tuple(sizes)
    layout = tuple(args.layout)
    stacks = {
        f"dilation 1, {len(dilations)} layers": [Neighborhood(layout, kernel_size)] * len(dilations),
        f"dilations {', '.join(map(str, dilations))}": [
            Neighborhood(layout, kernel_size, dilation=d) for d in dilations
        ],
    }
    if set(dilations) == {1}:
        stacks.popitem()
        stacks = {"dilation 1": [Neighborhood(layout, kernel_size)] * len(dilations)}
    tokens = args.token or [[length // 2 for length in layout]]
    if len(tokens) > 1:
        raise CommandError(f"a receptive field is drawn of one token, got {len(tokens)}")
    return plates.receptive_field_plate(stacks, tuple(tokens[0]))


def _attention(args: argparse.Namespace) -> "Figure":
    from dinat_ref.analysis.photo import load_photo
    from dinat_ref.viz import plates

    if not 0 < args.strength < math.inf:
        raise CommandError(f"--strength must be a positive number, got {args.strength}")
    photo = load_photo(args.image)
    kernel_size = (args.kernel_size or [KERNEL_SIZES["attention"]])[0]
    tokens = [tuple(token) for token in args.token or [[length // 2 for length in photo.shape[:2]]]]
    return plates.attention_plate(photo, tokens, kernel_size, args.dilation or [1, 8], args.strength)
