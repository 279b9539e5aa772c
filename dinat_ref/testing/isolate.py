"""A kernel in a process of its own: whatever it does there, the process that judges it lives on and says what happened.

The process is forked where that is safe, since then it is exactly the kernel that was given. It is not safe where
other threads are alive (they are missing in the fork, and whoever waits for them waits for ever), nor on Windows and
macOS: there a fresh interpreter imports the kernel. A kernel that cannot be imported (a function inside a function) is
then called here, with os._exit, os.abort and exit() turned into errors.
"""

import faulthandler
import multiprocessing
import os
import pickle
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any, cast

import torch

from dinat_ref.command import CommandError
from dinat_ref.testing.guard import ignore_keyboard, no_exit, one_thread
from dinat_ref.testing.kernel import Kernel

FRAMEWORKS = ("cupy", "jax", "mlx", "numba", "onnxruntime", "tensorflow", "tvm")  # they start threads of their own
SECONDS = 60.0  # a problem of a few tokens that takes longer hangs, on a busy machine and compiled anew, too
PATIENCE = 1e5  # multiplications of a query, a key and a value that even a loop in Python makes in a second

Place = Any  # [number of the problem, seconds it may take beyond SECONDS], shared with the process


class Died(Exception):  # noqa: N818 (a finding)
    """A kernel ended its process, or hung there.

    Example:
        >>> raise Died("ended the process with status 0", 3)
        Traceback (most recent call last):
        dinat_ref.testing.isolate.Died: ended the process with status 0
    """

    def __init__(self, words: str, number: int, hung: bool = False) -> None:
        """Keep the words, the number of the problem (-1: between problems), and whether it hung."""
        super().__init__(words)
        self.words, self.number, self.hung = words, number, hung


def is_quiet(device: str = "cpu") -> bool:
    """Whether this process can be split: no threads but those that NumPy and PyTorch keep, and no accelerator in use.

    Example:
        >>> is_quiet("mps")
        False
    """
    spare = 2 * ((os.cpu_count() or 1) - 1)  # OpenBLAS and OpenMP keep as many each, and survive being split
    tasks = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
    others = threading.active_count() > 1 or tasks > 1 + spare or any(name in sys.modules for name in FRAMEWORKS)
    idle = not (device.startswith("cuda") and torch.cuda.is_initialized())
    return not others and idle and device.startswith(("cpu", "cuda"))


def can_be_sent(value: Any) -> bool:
    """Whether a fresh interpreter can make the same value: by importing it, so not from a script or a notebook.

    Example:
        >>> can_be_sent(print), can_be_sent(lambda: 0)
        (True, False)
    """
    try:
        return b"__main__" not in pickle.dumps(value)
    except Exception:
        return False


def start_method(load: Callable[[], Kernel], device: str = "cpu") -> str | None:
    """How to start a process for a kernel: "fork", "forkserver", "spawn", or None for not at all.

    Example:
        >>> start_method(lambda: Kernel(print), device="mps") is None
        True
    """
    methods = multiprocessing.get_all_start_methods() if sys.platform == "linux" else ["spawn"]
    if "fork" in methods and is_quiet(device):
        return "fork"
    return None if not can_be_sent(load) else "forkserver" if "forkserver" in methods else "spawn"


class Apart:
    """A kernel that is asked in a process of its own; when the process dies, the next question starts another.

    Example:
        >>> from dinat_ref import na1d
        >>> from functools import partial
        >>> with Apart(partial(Kernel, na1d)) as apart:
        ...     apart.ask(ndims)
        (1, 2, 3)
    """

    def __init__(self, load: Callable[[], Kernel], device: str = "cpu") -> None:
        """Keep the function that makes the kernel; it is called in the process."""
        self.load, self.method = load, start_method(load, device)
        self.process: Any = None
        self.connection: Any = None
        self.end: Any = None
        self.place: Place = [-1, 0]
        self.kernel: Kernel | None = None  # where there is no process

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def ask(self, task: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``task(kernel, place, *arguments)`` there and return what it returns.

        Raises:
            Died: the process ended, or nothing was heard of it for too long.
        """
        self.place[0], self.place[1] = -1, 0
        if self.method is None:
            with no_exit(), one_thread(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.kernel = self.load() if self.kernel is None else self.kernel
                return task(self.kernel, self.place, *arguments)
        if self.process is None and not self._start():
            return self.ask(task, *arguments)
        try:
            self.connection.send((task, arguments))
            return self._answer()
        except (EOFError, ConnectionError):
            raise self._death() from None

    def leave_fork(self, task: Callable[..., Any], *arguments: Any) -> bool:
        """After a forked process hung: whether another way is left to ask, since it may have waited for a lost thread.

        Where no fresh interpreter can have the kernel, the task is tried here, in a thread that nobody waits for.
        """
        if self.method != "fork":
            return False
        if can_be_sent(self.load):
            self.method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
            return True
        place: Place = [-1, 0]
        trial = threading.Thread(target=task, args=(self.load(), place, *arguments), daemon=True)
        trial.start()
        watch = Watch(place)
        while trial.is_alive() and not watch.is_stuck():
            trial.join(1.0)
        if not trial.is_alive():
            self.method = None
        return self.method is None

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process = None
            self.end()

    def _start(self) -> bool:
        """Start the process and wait until it has the kernel; say whether it can have it."""
        context: Any = multiprocessing.get_context(self.method)
        if self.method == "forkserver":
            context.set_forkserver_preload(["dinat_ref.testing"])
        self.place = context.RawArray("d", [-1.0, SECONDS])  # a framework may take long to import
        self.connection, theirs = context.Pipe()
        mine = self.connection if self.method == "fork" else None
        load = self.load if mine else pickle.dumps(self.load)
        self.process = context.Process(target=serve, args=(load, theirs, mine, self.place))
        with nullcontext() if mine else _no_main():
            self.process.start()
        theirs.close()
        self.end = weakref.finalize(self, _end, self.process, self.connection)  # at exit, too
        try:
            there = bool(self._answer())
        except (EOFError, ConnectionError):
            raise self._death() from None
        if not there:
            self.close()
            self.method = None
        return there

    def _answer(self) -> Any:
        """Wait for the answer, for as long as the process goes from problem to problem."""
        watch = Watch(self.place)
        while not self.connection.poll(1.0):
            if watch.is_stuck():
                self.process.kill()
                raise self._death(hung=True)
        answer = self.connection.recv()
        if isinstance(answer, _Raised):
            raise answer.error
        return answer

    def _death(self, hung: bool = False) -> Died:
        """Say how the process ended."""
        self.process.join(5.0)
        status, number = self.process.exitcode, int(self.place[0])
        self.close()
        if hung:
            return Died("hung and was ended", number, hung=True)
        how = f"by signal {-status}" if status is not None and status < 0 else f"with status {status}"
        return Died(f"ended the process {how}", number)


class Watch:
    """Whether something goes from problem to problem as it should."""

    def __init__(self, place: Place) -> None:
        """Look at the place for the first time."""
        self.place, self.seen, self.since = place, place[0], time.monotonic()

    def is_stuck(self) -> bool:
        """Whether the problem has been the same for longer than it may take."""
        if self.place[0] != self.seen:
            self.seen, self.since = self.place[0], time.monotonic()
        return time.monotonic() - self.since > SECONDS + self.place[1]


class _Raised:
    """An exception on its way from one process to the other."""

    def __init__(self, error: BaseException) -> None:
        known = type(error) in (CommandError, ValueError, TypeError)  # others may not survive the way
        self.error = error if known else RuntimeError(f"{type(error).__name__}: {error}")


def ndims(kernel: Kernel, place: Place) -> tuple[int, ...]:
    """The numbers of axes that a kernel is declared to take."""
    return tuple(kernel.supports.ndim)


def serve(load: Callable[[], Kernel] | bytes, connection: Any, other: Any, place: Place) -> None:
    """Load the kernel, say whether it could be found, and answer questions, in the process."""
    if other is not None:
        other.close()  # or this process would never see that end closed
    ignore_keyboard()
    faulthandler.disable()  # a crash is reported by the process that sees it
    silent = open(os.devnull, "r+", encoding="utf-8")  # noqa: SIM115 (for as long as the process lives)
    for number in (0, 1, 2):
        os.dup2(silent.fileno(), number)
    sys.stdin = sys.stdout = sys.stderr = silent
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        if isinstance(load, bytes):
            try:
                load = cast(Callable[[], Kernel], pickle.loads(load))  # of the process that started this one
            except (ImportError, AttributeError):  # its module is not where modules are looked for
                return connection.send(False)
        kernel = load()
        connection.send(True)
        while True:
            task, arguments = connection.recv()
            try:
                answer = task(kernel, place, *arguments)
            except BaseException as error:
                answer = _Raised(error)
            connection.send(answer)
    except (EOFError, ConnectionError):
        return
    except BaseException as error:
        connection.send(_Raised(error))


@contextmanager
def _no_main() -> Iterator[None]:
    """Hide the main script, which a fresh interpreter would run once more."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _end(process: Any, connection: Any) -> None:
    """Close the connection, which ends a process that is idle, and end one that is not."""
    connection.close()
    process.join(0.5)
    if process.is_alive():
        process.kill()
        process.join()
