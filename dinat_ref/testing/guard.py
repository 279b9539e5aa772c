"""What a kernel must leave as it was: global settings and the terminal; and what must not end this process.

A change is noticed, put back at once and remembered, so that one call cannot spoil the next.
"""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from types import FrameType
from typing import Any

import torch

SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "the deterministic mode": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the precision of float32 products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
}

_keyboard = True  # whether a KeyboardInterrupt comes from there, for all that is known


@contextmanager
def settings_kept(noticed: set[str]) -> Iterator[None]:
    """Put PyTorch's global settings and its random numbers back after a call, and note what had changed.

    Example:
        >>> noticed = set()
        >>> with settings_kept(noticed):
        ...     torch.set_default_dtype(torch.float64)
        >>> noticed, torch.get_default_dtype()
        ({'the default dtype'}, torch.float32)
    """
    before = [get() for get, _ in SETTINGS.values()]
    random = torch.get_rng_state()
    try:
        yield
    finally:
        for (name, (get, put)), value in zip(SETTINGS.items(), before, strict=True):
            if get() != value:
                put(value)
                noticed.add(name)
        if bool((torch.get_rng_state() != random).any()):
            torch.set_rng_state(random)
            noticed.add("the state of the random numbers")


@contextmanager
def printing_noticed() -> Iterator[Callable[[], str]]:
    """Catch what is written to the standard output, by Python or below it; the function yielded gives it, in the end.

    Example:
        >>> with printing_noticed() as printed:
        ...     print("hello")
        >>> printed()
        'hello'
    """
    written: list[str] = []
    python = StringIO()
    sys.stdout.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            with redirect_stdout(python):
                yield lambda: " ".join("".join(written).split())[:80]
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            file.seek(0)
            written += [python.getvalue(), file.read().decode("utf-8", "replace")]


@contextmanager
def one_thread() -> Iterator[None]:
    """Small problems want one thread: many only wait for each other, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def no_exit() -> Iterator[None]:
    """Let calls that end the process at once raise SystemExit, which can be caught; and tell Ctrl-C from a kernel's.

    Example:
        >>> with no_exit():
        ...     os._exit(0)
        Traceback (most recent call last):
        SystemExit: os._exit(0)
    """
    global _keyboard

    here = os.getpid()

    def instead(name: str) -> Callable[..., None]:
        def refuse(*status: object) -> None:
            if os.getpid() != here:
                kept[name](*status)  # a process that the kernel has started may end as it likes
            raise SystemExit(f"os.{name}({', '.join(map(str, status))})")

        return refuse

    def interrupt(number: int, frame: FrameType | None) -> None:
        global _keyboard
        _keyboard = True
        raise KeyboardInterrupt

    kept = {name: getattr(os, name) for name in ("_exit", "abort")}
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    mine = main and handler is signal.default_int_handler
    try:
        for name in kept:
            setattr(os, name, instead(name))
        if mine:
            signal.signal(signal.SIGINT, interrupt)
            _keyboard = False
        yield
    finally:
        for name, function in kept.items():
            setattr(os, name, function)
        if mine:
            signal.signal(signal.SIGINT, handler)
        _keyboard = True


def ignore_keyboard() -> None:
    """In a process that is started to be judged, Ctrl-C is for the one that judges."""
    global _keyboard
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keyboard = False


@contextmanager
def interrupts_are_exits() -> Iterator[None]:
    """Take a KeyboardInterrupt that a kernel raises by itself for what it does, ending the process.

    Example:
        >>> with no_exit(), interrupts_are_exits():
        ...     raise KeyboardInterrupt
        Traceback (most recent call last):
        SystemExit: KeyboardInterrupt
    """
    try:
        yield
    except KeyboardInterrupt:
        if _keyboard:
            raise
        raise SystemExit("KeyboardInterrupt") from None
