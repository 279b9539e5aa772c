"""The command ``dinat-ref train``: images in, a trained model out."""

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from dinat_ref.command import CommandError, check_writable, printable, remove_leftovers, whole_file
from dinat_ref.models.schema import LONGEST_SIDE
from dinat_ref.models.weight_files import latest_checkpoint
from dinat_ref.training.checkpoint import remove_unfinished, resume
from dinat_ref.training.data import Examples, hold_out, load_digits
from dinat_ref.training.evaluate import evaluate
from dinat_ref.training.folder import load_folder
from dinat_ref.training.initial import start_from
from dinat_ref.training.loop import NonFiniteLossError, check_batch, clock, start, train
from dinat_ref.training.processes import join_processes
from dinat_ref.training.recipe import DIGITS, PHOTOS, TASK, Recipe
from dinat_ref.training.small_models import make_model
from dinat_ref.training.state import Row, State
from dinat_ref.training.synthetic import SYNTHETIC

MOST_IMAGES = 1_000_000  # of far_match and texture: 650 MB
METRICS = (
    "epoch",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "held_out_loss",
    "held_out_accuracy",
    "images_per_second",
)


def run(args: argparse.Namespace) -> int:
    """Train and report.

    Raises:
        CommandError: data, model, settings or a checkpoint that cannot be used; a loss that is not finite.
    Example:
        >>> from dinat_ref.options.train import configure
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> run(parser.parse_args(["--data", "digits", "--out", "runs/digits", "--epochs", "0"]))
        Traceback (most recent call last):
        dinat_ref.command.CommandError: epochs must be at least 1, got 0
    """
    with _bad_input_in_one_line():
        recipe = _recipe(args)
        last = _check(args)
    with _terminated_is_interrupted(), join_processes(args.device) as process:
        with _bad_input_in_one_line():
            examples, held_out = _data(args, recipe)
            name = args.model or _usual_model(args.data)
            model = make_model(name, examples, recipe.seed)
            began = start_from(model, args.init) if args.init and last is None else ""
            state = start(model.to(process.device), recipe)
            check_batch(examples, recipe, process)
            description = {"recipe": recipe.to_dict(), "data": args.data, "model": name, "held_out": args.held_out}
            description |= {"processes": process.count, "images": len(examples), "classes": list(examples.class_names)}
            if examples.images.dtype == torch.uint8:
                description["size"] = args.size
            if args.init:
                description["init"] = args.init
            if last is not None:
                resume(state, last, description)
        if process.is_first:
            count = sum(parameter.numel() for parameter in state.model.parameters())
            images = f"{len(examples):,} images to learn from, {len(held_out):,} held out"
            print(f"{printable(name)}: {count:,} parameters; {images}")
            if began:
                print(printable(began))
            if args.resume:
                print(f"going on after epoch {len(state.history)}" if last else "no checkpoint yet: starting anew")
        try:
            train(state, examples, held_out, recipe, args.out, description, process, partial(_report, args.out, state))
        except NonFiniteLossError as error:
            raise CommandError(f"{error}; {_kept(args.out)}; try a lower --learning-rate") from None
        except KeyboardInterrupt:
            if process.is_first:
                _remove_all_leftovers(args.out)  # a signal may come before a file's own clean-up is set up
                print(f"\n{printable(_kept(args.out))}; --resume goes on from there", file=sys.stderr)
            raise
        if args.test:
            test = load_digits("test")
            _, accuracy = evaluate(state.kept_model, test, process=process)
            if process.is_first:
                print(f"test part: {accuracy:.2%} of {len(test)} digits, {round((1 - accuracy) * len(test))} wrong")
    if process.is_first:
        written = f"{latest_checkpoint(args.out)}, {args.out / 'metrics.csv'} and {args.out / 'curves.svg'}"
        print(f"wrote {printable(written)}")
    return 0


def _kept(out: Path) -> str:
    """Say what there is of a run that ends early."""
    kept = latest_checkpoint(out)
    return f"the last good checkpoint is {kept}" if kept else "there is no checkpoint yet"


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """Let SIGTERM, which batch systems send before they kill, end a run as Ctrl-C does: cleanly."""
    if threading.current_thread() is not threading.main_thread():  # elsewhere Python sets no handlers
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _bad_input_in_one_line() -> Iterator[None]:
    """Turn what bad data, models and settings raise into an error of the command."""
    try:
        yield
    except (ValueError, ImportError, TypeError, OSError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise CommandError(lines[0]) from None


def _check(args: argparse.Namespace) -> Path | None:
    """Check what can be checked before any work, and find the checkpoint to go on from."""
    if args.data not in ("digits", *SYNTHETIC) and not Path(args.data).is_dir():
        raise CommandError(f"--data must be digits, far_match, texture or a folder, got {args.data}")
    for name, value, least, most in (("size", args.size, 32, LONGEST_SIDE), ("images", args.images, 2, MOST_IMAGES)):
        if not least <= value <= most:
            limit = f"at least {least}" if value < least else f"at most {most}"
            raise CommandError(f"--{name} must be {limit}, got {value}")
    if args.test and args.data != "digits":
        raise CommandError(f"--test needs data with a test part, digits; got {args.data}")
    if args.device is not None:
        try:
            torch.zeros(1, device=args.device).item()  # which "meta" does not have
        except (RuntimeError, AssertionError, NotImplementedError):
            raise CommandError(f"--device {args.device} cannot be used on this machine") from None
    for name in ("metrics.csv", "curves.svg"):
        check_writable(args.out / name)
    last = latest_checkpoint(args.out)
    if last is not None and not args.resume:
        raise CommandError(f"{args.out} holds a run already: add --resume to go on, or choose another --out")
    _remove_all_leftovers(args.out)
    return last


def _remove_all_leftovers(out: Path) -> None:
    """Remove what was being written when a run ended."""
    remove_unfinished(out)
    for name in ("metrics.csv", "curves.svg"):
        remove_leftovers(out, name)


def _recipe(args: argparse.Namespace) -> Recipe:
    """Take the recipe of the data with what the user said otherwise."""
    usual = DIGITS if args.data == "digits" else TASK if args.data in SYNTHETIC else PHOTOS
    given = {name: getattr(args, name) for name in usual.to_dict() if getattr(args, name, None) is not None}
    return replace(usual, **given)


def _usual_model(data: str) -> str:
    """The model for the data where the user names none."""
    return "dinat_nano_digits" if data == "digits" else "na_dina" if data in SYNTHETIC else "dinat_mini"


def _data(args: argparse.Namespace, recipe: Recipe) -> tuple[Examples, Examples]:
    """Load the images to learn from and those held out."""
    if args.data == "digits":
        examples = load_digits("train")
    elif args.data in SYNTHETIC:
        examples = SYNTHETIC[args.data](args.images, recipe.seed)
    else:
        examples = load_folder(args.data, args.size)
    return hold_out(examples, args.held_out, recipe.seed)


def _report(out: Path, state: State, row: Row) -> None:
    """Print the metrics of the last epoch, and write those of all to metrics.csv and curves.svg."""
    from dinat_ref.viz.learning import draw_training
    from dinat_ref.viz.theme import new_figure, save_figure

    held_out = f"  held out {row['held_out_loss']:.3f} {row['held_out_accuracy']:.1%}" if "held_out_loss" in row else ""
    speed = f"{row['images_per_second']:.0f} images/s, {clock(row['seconds_left'])} left"
    train_part = f"loss {row['train_loss']:.3f}  accuracy {row['train_accuracy']:.1%}"
    print(f"epoch {row['epoch']:.0f}  {train_part}{held_out}  {speed}", flush=True)
    names = [name for name in METRICS if name in row]
    lines = [",".join(names), *(",".join(f"{entry[name]:.6g}" for name in names) for entry in state.history)]
    with whole_file(out / "metrics.csv") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    figure, grid = new_figure(1, 2, size=(9, 3.4))
    draw_training(state.history, grid[0, 0], "loss")
    draw_training(state.history, grid[0, 1], "accuracy")
    save_figure(figure, out / "curves.svg")
