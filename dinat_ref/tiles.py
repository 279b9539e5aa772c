"""The command ``dinat-ref tiles``: which window and stride a blocked kernel likes, in words, a table and a drawing."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from dinat_ref.analysis.flat_tiles import count_flat_tiles
from dinat_ref.analysis.kernel_tiles import count_tiles, end_to_end
from dinat_ref.analysis.tile_report import as_json, by, table, words
from dinat_ref.analysis.tile_search import Choice, stride_front, window_front
from dinat_ref.analysis.tile_shapes import PRESETS, Pair
from dinat_ref.command import CommandError
from dinat_ref.neighborhood import Neighborhood, per_axis


def run(args: argparse.Namespace) -> int:
    """Count, print and draw.

    Raises:
        CommandError: bad input, or a file that cannot be written.
    Example:
        >>> from dinat_ref.options.tiles import configure
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> run(parser.parse_args(["64x64"]))
        Traceback (most recent call last):
        dinat_ref.command.CommandError: give a window, such as 8x8, or --search --sparsity .9 to find one
    """
    try:
        return _run(args)
    except ValueError as error:
        raise CommandError(str(error)) from None


def _run(args: argparse.Namespace) -> int:
    layout = sizes("layout", args.layout)
    full_steps = fraction("--full-steps", args.full_steps)
    end_to_end(1.0, args.share or 0.0, full_steps)  # so that bad shares are refused before any work
    _check_options(args)
    tiles, tiling = _tiles(args, layout)
    options = (tiling, args.additional_keys)
    chosen, front, flat = None, [], []
    if args.window is not None:
        window = _neighborhood(args, layout)
        counted = [Choice(window, *pair, count_tiles(window, *pair, *options)) for pair in tiles]
        chosen = max(counted, key=lambda choice: choice.count.speedup)  # the first of several
        front = stride_front(window, tiles, *options)
        if args.flat:
            queries, keys = math.prod(chosen.query_tile), math.prod(chosen.key_tile)
            flat = [Choice(window, (queries,), (keys,), count_flat_tiles(window, queries, keys, args.additional_keys))]
    found = front
    if args.sparsity is not None:
        dilation = per_axis("dilation", one_or_all(sizes("--dilation", args.dilation)), layout)
        at_least = one_or_all(sizes("--at-least", args.at_least))
        found = window_front(layout, args.sparsity, tiles, tiling, dilation, at_least, args.additional_keys)

    shown = flat + ([] if chosen is None else [chosen]) + (found if args.search else [])
    if args.draw is not None:
        _draw(args.draw, chosen or found[0], tiling, found, chosen)
    if args.json:
        print(as_json(shown, tiling, args.share, full_steps))
        return 0
    whose = f", {len(tiles)} shapes of {args.preset}" if args.q_tile is None else ""
    print(f"layout {by(layout)}: {math.prod(layout):,} tokens; {tiling} tiles{whose}\n")
    print(table(shown, args.share, full_steps))
    if chosen is not None:
        print("\n" + words(chosen, front, flat))
    if args.draw is not None:
        print(f"\n{args.draw}")
    return 0


def sizes(name: str, text: str, layout: Sequence[int] = ()) -> tuple[int, ...]:
    """Read sizes that are joined by x; ``all`` is the whole axis.

    Raises:
        CommandError: no such sizes.
    Example:
        >>> sizes("window", "allx12", layout=(24, 44))
        (24, 12)
    """
    parts = text.lower().replace("all", "*").split("x")
    if layout and len(parts) == len(layout):
        parts = [str(length) if part in ("*", "-1") else part for part, length in zip(parts, layout, strict=True)]
    if not all(part.isdecimal() for part in parts):
        raise CommandError(f"{name} must be numbers joined by x, such as 30x48x80, got {text!r}")
    return tuple(map(int, parts))


def fraction(name: str, text: str) -> float:
    """Read a share: a decimal number or a quotient of two.

    Raises:
        CommandError: no such number.
    Example:
        >>> fraction("--full-steps", "15/50")
        0.3
    """
    try:
        above, _, below = text.partition("/")
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise CommandError(f"{name} must be a share such as 15/50 or .3, got {text!r}") from None


def one_or_all(numbers: tuple[int, ...]) -> int | tuple[int, ...]:
    """Let one number stand for every axis.

    Example:
        >>> one_or_all((4,)), one_or_all((4, 8))
        (4, (4, 8))
    """
    return numbers[0] if len(numbers) == 1 else numbers


def _check_options(args: argparse.Namespace) -> None:
    if (args.q_tile is None) != (args.kv_tile is None):
        raise CommandError("--q-tile and --kv-tile go together")
    if args.sparsity is not None and not args.search:
        raise CommandError("--sparsity goes with --search")
    if args.window is None and args.sparsity is None:
        raise CommandError("give a window, such as 8x8, or --search --sparsity .9 to find one")
    if args.flat and args.window is None:
        raise CommandError("--flat counts a window: give one, such as 8x8")


def _tiles(args: argparse.Namespace, layout: tuple[int, ...]) -> tuple[list[Pair], str]:
    """The pairs of tiles to count with, and where tiles of keys begin."""
    preset = PRESETS[args.preset]
    if args.q_tile is not None:
        given = {"--q-tile": args.q_tile, "--kv-tile": args.kv_tile}
        query_tile, key_tile = (per_axis(name, one_or_all(sizes(name, text)), layout) for name, text in given.items())
        return [(query_tile, key_tile)], args.tiling or "static"
    if len(layout) not in preset.shapes:
        raise CommandError(f"presets have tiles of one to three axes, not {len(layout)}; give --q-tile and --kv-tile")
    return list(preset.shapes[len(layout)]), args.tiling or preset.tiling


def _neighborhood(args: argparse.Namespace, layout: tuple[int, ...]) -> Neighborhood:
    window, ndim = sizes("window", args.window, layout), len(layout)
    stride, dilation = sizes("--stride", args.stride), sizes("--dilation", args.dilation)
    causal_axes = range(ndim) if args.causal == [] else args.causal or []
    if not all(0 <= axis < ndim for axis in causal_axes):
        raise CommandError(f"--causal takes axes in 0 .. {ndim - 1}, got {' '.join(map(str, causal_axes))}")
    is_causal = tuple(axis in causal_axes for axis in range(ndim))
    return Neighborhood(layout, one_or_all(window), one_or_all(stride), one_or_all(dilation), is_causal)


def _draw(path: Path, drawn: Choice, tiling: str, front: Sequence[Choice], chosen: Choice | None) -> None:
    from dinat_ref.viz.kernel_tiles import tile_plate
    from dinat_ref.viz.theme import save_figure

    save_figure(tile_plate(drawn.neighborhood, drawn.query_tile, drawn.key_tile, tiling, front, chosen), path)
