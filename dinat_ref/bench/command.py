"""The command ``dinat-ref bench``: one table of everybody, at chosen shapes."""

import argparse
import json
import platform
from dataclasses import asdict
from pathlib import Path

import torch

from dinat_ref.bench.contenders import CONTENDERS
from dinat_ref.bench.measure import Row, measure
from dinat_ref.bench.model import DTYPES, ModelRow, measure_models, model_table
from dinat_ref.bench.shapes import SHAPES
from dinat_ref.command import CommandError, check_writable, whole_file

EXAMPLES = """examples:
  dinat-ref bench                                  the layers of a DiNAT, every formulation and installed peer
  dinat-ref bench --shapes scaling --only tiled    how time and memory grow from 64 x 64 to 512 x 512 tokens
  dinat-ref bench --shapes model --backward        whole models beside Swin and ConvNeXt, float32 and bfloat16
  dinat-ref bench --backward --json bench.json
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
    parser.add_argument("--shapes", choices=[*SHAPES, "model"], default="dinat", help="which problems (default dinat)")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), metavar="NAME", help="only these contenders")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="runs of each, of which the median (default 5)"
    )
    parser.add_argument("--backward", action="store_true", help="also measure forward + backward")
    parser.add_argument("--no-memory", action="store_true", help="skip the peak memory, which takes a process each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to a file")


def run(args: argparse.Namespace) -> int:
    """Measure and print.

    Raises:
        CommandError: rounds below 1, or a file that cannot be written.
    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> run(parser.parse_args(["--rounds", "0"]))
        Traceback (most recent call last):
        dinat_ref.command.CommandError: --rounds must be at least 1, got 0
    """
    if args.rounds < 1:
        raise CommandError(f"--rounds must be at least 1, got {args.rounds}")
    if args.json is not None:
        check_writable(args.json)
    machine = f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}"
    print(f"on the CPU, median of {args.rounds} runs in turn; {machine}")
    rows: list[Row | ModelRow] = []
    if args.shapes == "model":
        for dtype in DTYPES:
            models = measure_models(args.rounds, dtypes=[dtype], backward=args.backward)
            rows += models
            print(f"\n{model_table(models)}", flush=True)
    else:
        names = list(CONTENDERS) if args.only is None else ["limit", *(name for name in args.only if name != "limit")]
        for problem in SHAPES[args.shapes]:
            found = measure(problem, names, args.rounds, args.backward, not args.no_memory)
            rows += found
            print(f"\n{problem}\n{table(found)}", flush=True)
    if args.json is not None:
        with whole_file(args.json) as temporary:
            text = json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
            temporary.write_text(text, encoding="utf-8")
        print(f"\n{args.json}")
    return 0


def table(rows: list[Row]) -> str:
    """Set rows as an aligned table.

    Shapes:
        return: a line for the head and one per row
    Example:
        >>> print(table([Row("tiny", "tiled", 42, 1.25, 2.0), Row("tiny", "loops", skipped="too slow")]))
        contender                 ms  / limit  fwd+bwd / fwd  peak MB  / query
        tiled                   1.25     2.00
        loops             too slow
    """
    lines = [f"{'contender':<18}{'ms':>10}{'/ limit':>9}{'fwd+bwd / fwd':>15}{'peak MB':>9}{'/ query':>9}"]
    for row in rows:
        if row.skipped is not None:
            lines.append(f"{row.contender:<18}{row.skipped}")
            continue
        cells = (
            (row.milliseconds, 10),
            (row.ratio, 9),
            (row.backward_ratio, 15),
            (row.megabytes, 9),
            (row.query_sizes, 9),
        )
        text = "".join(" " * width if value is None else f"{value:>{width}.2f}" for value, width in cells)
        why = "" if row.no_backward is None else f"  {row.no_backward}"
        lines.append(f"{row.contender:<18}{text}".rstrip() + why)
    return "\n".join(lines)
