"""The console script ``dinat-ref``: one line for each command, each in the room that it belongs to.

A command is a module with ``configure(parser)``, which adds its arguments, and ``run(args)``, which returns the
exit status. Where the module needs PyTorch, ``configure`` stands in ``dinat_ref.options``. Bad input is raised as
``CommandError``. Only the command that was asked for is imported.
"""

import argparse
import importlib
import io
import os
import sys
from typing import Any

import dinat_ref
from dinat_ref.command import DISK_FULL, CommandError, Progress

COMMANDS = {
    "tour": ("dinat_ref.tour", "see neighborhood attention at work on a photograph"),
    "bench": ("dinat_ref.bench.command", "measure every formulation and installed peer in one table"),
    "draw": ("dinat_ref.viz.command", "draw windows, patterns, receptive fields and attention maps"),
    "tiles": ("dinat_ref.tiles", "count the tiles that a kernel visits for a window, and choose a stride"),
    "explore": ("dinat_ref.viz.explorer.command", "write a page to explore windows, attention and fields on a photo"),
    "step": ("dinat_ref.viz.step.command", "step through a formulation, line by line, as a page or as text"),
    "classify": ("dinat_ref.classify", "name what a photograph shows, with any published model"),
    "export": ("dinat_ref.export.command", "write a model as one file for ONNX Runtime, torch.export or AOTInductor"),
    "train": ("dinat_ref.training.command", "train a small DiNAT on digits, a synthetic task or your own images"),
    "run": ("dinat_ref.run", "run a program that needs NATTEN, unedited, with a stand-in for it"),
    "verify": ("dinat_ref.testing.command", "find what is wrong with a neighborhood-attention kernel"),
}
WITHOUT_PYTORCH = ("tiles", "classify", "train", "verify")  # whose arguments are known before the rest is


def main(argv: list[str] | None = None) -> int:
    """Run one command: exit status 0 when it did its work, 2 when its input was bad or its output went nowhere.

    Raises:
        SystemExit: after --help, --version or a usage error.
    Example:
        >>> main([])
        Traceback (most recent call last):
        SystemExit: 2
    """
    speaker = "dinat-ref"
    try:
        argv = sys.argv[1:] if argv is None else argv
        speaker = " ".join(["dinat-ref", *(name for name in argv[:1] if name in COMMANDS)])
        _prepare_streams()
        Progress.since = None  # ten seconds of this command, not of one before it in the same process
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # here, where a failure can still be told
    except CommandError as error:
        print(f"{speaker}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{speaker}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has seen enough, as ``head`` does
        _discard_output()
        return 141
    except OSError as error:
        if error.errno not in DISK_FULL and not _output_fails():
            raise
        _discard_output()
        print(f"{speaker}: error: cannot write: {error.strerror}", file=sys.stderr)
        return 2


class Parser(argparse.ArgumentParser):
    """A parser whose --help and --version say so when they cannot be printed; argparse passes over that.

    Example:
        >>> Parser(prog="dinat-ref", add_help=False).print_help()
        usage: dinat-ref
    """

    def _print_message(self, message: str, file: Any = None) -> None:
        if message and file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)


def _run(argv: list[str]) -> int:
    """Parse the arguments and run the command."""
    parser = Parser(
        prog="dinat-ref",
        description="The readable reference for neighborhood attention, dilated neighborhood attention and DiNAT.",
    )
    parser.add_argument("--version", action="version", version=f"dinat-ref {dinat_ref.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module_name, summary) in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if argv[:1] == [name]:
            room = f"dinat_ref.options.{name}" if name in WITHOUT_PYTORCH else module_name
            importlib.import_module(room).configure(command)
    args = parser.parse_args(argv)
    return int(importlib.import_module(COMMANDS[args.command][0]).run(args))


def _prepare_streams() -> None:
    """Let print succeed: a closed stream swallows the text, one that lacks a character (ASCII, cp1252) escapes it."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _output_fails() -> bool:
    """Whether it is the standard output that cannot be written."""
    try:
        print(flush=True)
    except OSError:
        return True
    return False


def _discard_output() -> None:
    """Leave nothing to be flushed, and to fail, at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
