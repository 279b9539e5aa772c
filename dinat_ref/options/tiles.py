"""What ``dinat-ref tiles`` takes."""

import argparse
from pathlib import Path

from dinat_ref.analysis.tile_shapes import PRESETS

TILINGS = ("static", "dynamic")
EXAMPLES = """examples:
  dinat-ref tiles 30x48x80 18x24x24 --q-tile 4x8x8 --kv-tile 2x8x8             what a sliding window wastes
  dinat-ref tiles 30x48x80 18x24x24 --stride 16x8x8 --q-tile 4x8x8 --kv-tile 2x8x8 --share .607 --full-steps 15/50
  dinat-ref tiles 256x256 80x80 --preset blackwell --search --draw tiles.png   the strides worth having, drawn
  dinat-ref tiles 24x44x80 allx12x24 --stride 1x4x8 --preset hopper            a whole axis of time
  dinat-ref tiles 30x48x80 --search --sparsity .9 --at-least 8x16x16           windows, too
  dinat-ref tiles 64x64 24x24 --preset flex --flat                             what FlexAttention does without permuting

A speedup is a bound: that of a kernel that spends its time on visited tiles alone and waits for its busiest tile of
queries. Waste is the share of all visited tiles that no query attends.

presets (tiles of queries and of keys; the first shape of each on three axes):
""" + "\n".join(
    f"  {preset.name:<12}{'x'.join(map(str, preset.shapes[3][0][0]))}, {'x'.join(map(str, preset.shapes[3][0][1]))}"
    f"{'':3}{preset.what}, {preset.tiling} tiles ({preset.source})"
    for preset in PRESETS.values()
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> parser.parse_args(["64x64", "8x8"]).preset
        'blackwell'
    """
    parser.epilog = EXAMPLES
    parser.add_argument("layout", help="tokens on each axis: 30x48x80")
    parser.add_argument("window", nargs="?", help="keys on each axis, 18x24x24; all for a whole axis")
    parser.add_argument("--stride", default="1", help="queries that share a window, one number or one per axis")
    parser.add_argument("--dilation", default="1", help="distance of neighbouring keys, one number or one per axis")
    parser.add_argument("--causal", type=int, nargs="*", metavar="AXIS", help="causal axes, by number; none for all")
    parser.add_argument(
        "--additional-keys", type=int, default=0, metavar="M", help="keys that every query attends, too"
    )
    parser.add_argument("--q-tile", help="tile of queries: 4x8x8")
    parser.add_argument("--kv-tile", help="tile of keys: 2x8x8")
    parser.add_argument(
        "--preset", choices=list(PRESETS), default="blackwell", help="tiles of a known kernel (default blackwell)"
    )
    parser.add_argument("--tiling", choices=TILINGS, help="where tiles of keys begin (default: as the preset does)")
    parser.add_argument(
        "--flat", action="store_true", help="also count tiles of flattened tokens, as a kernel for sequences cuts them"
    )
    parser.add_argument("--search", action="store_true", help="list the strides that are worth having")
    parser.add_argument("--sparsity", type=float, help="with --search: try all windows of at least this sparsity")
    parser.add_argument("--at-least", default="1", metavar="WINDOW", help="with --sparsity: no narrower windows")
    parser.add_argument("--share", type=float, metavar="F", help="share of attention in a run, for its speedup: .607")
    parser.add_argument("--full-steps", default="0", metavar="A/B", help="steps that keep full attention: 15/50 or .3")
    parser.add_argument("--json", action="store_true", help="print JSON instead of words")
    parser.add_argument("--draw", type=Path, metavar="OUT", help="also draw to a .png, .svg or .pdf")
