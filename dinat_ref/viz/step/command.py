"""The command ``dinat-ref step``: run a formulation on a small problem and look at it line by line."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dinat_ref.command import CommandError, show_progress, whole_file

if TYPE_CHECKING:
    from dinat_ref.analysis.recording.problem import Problem

EXAMPLES = """examples:
  dinat-ref step                                             every formulation, two problems each
  dinat-ref step loops --out loops.html
  dinat-ref step gather --layout 6x7 --dilation 2 --query 0,3
  dinat-ref step window --layout 12 --kernel-size 4 --causal
  dinat-ref step loops --layout 4x5 --query 0,1 --text       in the terminal, without a browser
"""
NAMES = ("window", "loops", "gather", "unfold", "masked", "tiled")


def integers(text: str) -> tuple[int, ...]:
    """Read one integer for each axis.

    Raises:
        argparse.ArgumentTypeError: anything else, as argparse wants it.
    Example:
        >>> integers("4x5"), integers("1,2"), integers("3")
        ((4, 5), (1, 2), (3,))
    """
    try:
        return tuple(int(word) for word in text.replace("x", ",").split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"one integer, or one for each axis as in 4x5; got {text!r}") from None


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> parser.parse_args(["loops", "--layout", "4x5"]).layout
        (4, 5)
    """
    parser.epilog = EXAMPLES
    add: Callable[..., argparse.Action] = parser.add_argument
    add("formulation", nargs="?", choices=NAMES, metavar="FORMULATION", help=f"{', '.join(NAMES)}; all by default")
    add("--layout", type=integers, metavar="XxY", help="tokens on each axis; four examples by default")
    add("--kernel-size", type=integers, metavar="K", help="window width, one or one for each axis (default 3)")
    add("--dilation", type=integers, metavar="D", help="distance between keys (default 1)")
    add("--stride", type=integers, metavar="S", help="queries that share a window (default 1)")
    add("--causal", action="store_true", help="attend nothing behind the query, on every axis")
    add("--bias", action="store_true", help="with a relative positional bias")
    add("--seed", type=int, metavar="N", help="of the numbers in query, key and value (default 0)")
    add("--query", type=integers, metavar="I,J", help="the query to begin with; with --text, the only one to follow")
    add("--out", type=Path, default=Path("step.html"), help="the page to write (default step.html)")
    add("--text", action="store_true", help="print the run instead of writing a page")
    add("--every-line", action="store_true", help="with --text: fold no repetitions")


def run(args: argparse.Namespace) -> int:
    """Record, and print or write a page.

    Raises:
        CommandError: bad input, or a file that cannot be written.
    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> run(parser.parse_args(["loops", "--layout", "1000x1000"]))
        Traceback (most recent call last):
        dinat_ref.command.CommandError: layout must have at most 144 tokens, it is to be read; got 1000 x 1000 = 1000000
    """
    from dinat_ref.analysis.recording.problem import examples
    from dinat_ref.analysis.recording.run import record
    from dinat_ref.viz.step.text import trace_text

    if not args.text and args.out.suffix.lower() not in (".html", ".htm"):
        raise CommandError(f"the page is written as .html, got {args.out.name}")
    formulation = args.formulation or "loops"
    try:
        problem = _problem(args, formulation)
        query = None if args.query is None else (problem or examples(formulation)[0]).token_number(args.query)
    except ValueError as error:
        raise CommandError(str(error)) from None
    if args.text:
        print(trace_text(record(formulation, problem or examples(formulation)[0]), query, args.every_line))
        return 0
    names = [args.formulation, "window"] if args.formulation else [*NAMES[1:], "window"]
    runs = [
        (name, run)
        for name in dict.fromkeys(names)
        for run in ([problem] if problem else examples(name)[: None if args.formulation else 2])
    ]
    with whole_file(args.out) as temporary:  # before the work, so that a path that cannot be written is known at once
        temporary.write_text(_page(runs, query), encoding="utf-8")
    print(args.out)
    return 0


def _page(runs: "list[tuple[str, Problem]]", query: int | None) -> str:
    """Record some runs, with a line of progress, and make their page."""
    from dinat_ref.analysis.recording.run import record
    from dinat_ref.analysis.recording.values import Values
    from dinat_ref.viz.step.page import step_page

    values, recordings = Values(), []
    for number, (formulation, problem) in enumerate(runs, start=1):
        show_progress(f"{formulation}, {problem.name} ({number} of {len(runs)})")
        recordings.append(record(formulation, problem, values))
    page = step_page(recordings, query)
    show_progress("")
    return page


def _problem(args: argparse.Namespace, formulation: str) -> "Problem | None":
    """The problem that the arguments describe; None where they describe none."""
    from dinat_ref.analysis.recording.problem import Problem, check_readable
    from dinat_ref.neighborhood import Neighborhood

    given = (args.layout, args.kernel_size, args.dilation, args.stride, args.seed)
    if all(value is None for value in given) and not args.causal and not args.bias:
        return None
    kernel_size, dilation, stride = args.kernel_size or (3,), args.dilation or (1,), args.stride or (1,)
    smallest = max(kernel_size) * max(dilation)
    layout = args.layout or ((12, 12) if formulation == "tiled" else (max(4, smallest), max(5, smallest + 1)))
    check_readable(layout)
    kernel_size, stride, dilation = (
        value * len(layout) if len(value) == 1 else value for value in (kernel_size, stride, dilation)
    )
    return Problem(
        "chosen", Neighborhood(layout, kernel_size, stride, dilation, args.causal), args.bias, args.seed or 0
    )
