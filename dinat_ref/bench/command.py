"""The command ``dinat-ref bench``: one table of everybody, at chosen shapes."""

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinat_ref.bench import plan
from dinat_ref.bench.shapes import SHAPES
from dinat_ref.command import CommandError, check_writable, printable, whole_file

if TYPE_CHECKING:
    from dinat_ref.bench.measure import Settings

EXAMPLES = f"""examples:
  dinat-ref bench                                  the layers of a DiNAT, every formulation and installed peer
  dinat-ref bench --only tiled --plain             also in a process that does nothing else, as a script meets it
  dinat-ref bench --only "split form" "auto, bfloat16" --against auto --backward
  dinat-ref bench --only "layer, dropout" --against layer --backward
  dinat-ref bench --shapes scaling --only tiled    how time and memory grow from 64 x 64 to 512 x 512 tokens
  dinat-ref bench --shapes model --backward        whole models beside Swin and ConvNeXt, float32 and bfloat16
  dinat-ref bench --shapes parallel                two processes by halos, by heads, by gathering, against one
  dinat-ref bench --backward --json bench.json     the file is whole after every round: what is found so far

contenders: {"; ".join(plan.CONTENDERS)}
models: {"; ".join(plan.MODELS)}
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the benchmark.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> parser.parse_args(["--shapes", "tiny"]).rounds
        5
    """
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--shapes", choices=[*SHAPES, "model", "parallel"], default="dinat", help="which problems (default dinat)"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these contenders, or models")
    parser.add_argument("--against", default="limit", metavar="NAME", help="whose times are 1 (default limit)")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="runs of each, of which the median (default 5)"
    )
    parser.add_argument("--backward", action="store_true", help="also measure forward + backward")
    parser.add_argument(
        "--plain", action="store_true", help="also measure everybody in a fresh process that runs nothing else"
    )
    parser.add_argument("--no-memory", action="store_true", help="skip the peak memory, which takes a process each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to a file")


def run(args: argparse.Namespace) -> int:
    """Measure and print.

    Raises:
        CommandError: rounds below 1, an unknown name, or a file that cannot be written.
    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> run(parser.parse_args(["--rounds", "0"]))
        Traceback (most recent call last):
        dinat_ref.command.CommandError: --rounds must be at least 1, got 0
    """
    names = _check(args)
    if args.shapes == "parallel":
        from dinat_ref.parallel.benchmark import run as run_parallel

        return run_parallel(args.rounds, args.backward, args.json)
    from dinat_ref.bench.machine import describe, seconds_of_a_product
    from dinat_ref.bench.measure import Settings
    from dinat_ref.bench.table import model_table, side_by_side, table

    began, machine, product = time.monotonic(), describe(), seconds_of_a_product()
    print(f"on the CPU, medians of {args.rounds} rounds in which everybody runs in turn", *machine, sep="\n")
    settings = Settings(args.rounds, args.backward, not args.no_memory, args.plain, args.against)
    print(_plan(args.shapes, names, settings, product), flush=True)
    done: list[Any] = []
    tables = _model_tables(names, settings) if args.shapes == "model" else _tables(args.shapes, names, settings)
    for title, snapshots in tables:
        rows: Sequence[Any] = []
        for rows in snapshots:
            if args.json is not None:
                _write(args.json, machine, [*done, *rows])
        done += rows
        text = model_table(rows) if args.shapes == "model" else table(rows, args.against)
        print(f"\n{title}{text}", flush=True)
    if args.shapes == "model":
        print(f"\n{side_by_side(done)}")
    print(f"\nin all {plan.in_words(time.monotonic() - began)}")
    if args.json is not None:
        print(printable(args.json))
    return 0


def _check(args: argparse.Namespace) -> list[str]:
    """Check the arguments before any work: who takes part."""
    if args.rounds < 1:
        raise CommandError(f"--rounds must be at least 1, got {args.rounds}")
    known = plan.MODELS if args.shapes == "model" else plan.CONTENDERS
    for option, names in (("--only", args.only or []), ("--against", [args.against])):
        for name in names if args.shapes != "model" or option == "--only" else []:
            if name not in known:
                raise CommandError(f"{option} must be one of {', '.join(map(repr, known))}, got {name!r}")
    if args.json is not None:
        check_writable(args.json)
    if args.only is None:
        return list(known)
    return list(dict.fromkeys(args.only if args.shapes == "model" else [args.against, *args.only]))


def _plan(shapes: str, names: Sequence[str], settings: "Settings", product: float) -> str:
    """Say what is going to be done."""
    if shapes == "model":
        seconds = [plan.estimated_model_seconds(name, settings.rounds, settings.backward, product) for name in names]
        return plan.plan_line(len(names), 2, seconds)
    options = (settings.rounds, settings.backward, settings.memory, settings.plain, product)
    problems = SHAPES[shapes]
    seconds = [plan.estimated_seconds(problem, name, *options) for problem in problems for name in names]
    return plan.plan_line(len(names), len(problems), seconds)


def _tables(shapes: str, names: Sequence[str], settings: "Settings") -> Iterator[tuple[str, Iterable[list[Any]]]]:
    """A title and the growing rows of each problem."""
    from dinat_ref.bench.measure import measure

    for problem in SHAPES[shapes]:
        yield f"{problem}\n", measure(problem, names, settings)


def _model_tables(names: Sequence[str], settings: "Settings") -> Iterator[tuple[str, Iterable[list[Any]]]]:
    """The growing rows of each dtype."""
    from dinat_ref.bench.model import DTYPES, measure_models

    for dtype in DTYPES:
        yield "", measure_models(names, dtype, settings.rounds, settings.backward)


def _write(path: Path, machine: Sequence[str], rows: Sequence[Any]) -> None:
    """Write all rows, as far as they are known, or leave the file as it was."""
    text = json.dumps({"machine": "; ".join(machine), "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
