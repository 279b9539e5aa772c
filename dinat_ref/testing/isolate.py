"""Examining a problem in a process of its own, for calls that may end the process."""

import multiprocessing
import os
import pickle
import select
import signal
import sys
import time
import warnings

import torch

from dinat_ref.testing.kernel import Kernel, Wrong
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.registry import Check

SECONDS = 30.0  # a call on a few tokens that takes longer hangs


def can_fork(kernel: Kernel) -> bool:
    """Whether a process can be split here: not on Windows, and not once an accelerator is in use.

    Example:
        >>> can_fork(Kernel(print, device="cuda"))
        False
    """
    return "fork" in multiprocessing.get_all_start_methods() and kernel.device == "cpu" and sys.platform == "linux"


def examine_apart(check: Check, kernel: Kernel, problem: Problem) -> Exception | None:
    """Run a check on one problem in a forked process and say what it found; a process that dies is a finding.

    Example:
        >>> from dinat_ref import na1d
        >>> from dinat_ref.testing.registry import CHECKS
        >>> examine_apart(CHECKS["W02-own-query"], Kernel(na1d), Problem("1d 4 k3 d1 h1 e1 f32 seed0"))
    """
    if not can_fork(kernel):
        return _examine(check, kernel, problem)
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of threads; the child uses one thread of its own
        child = os.fork()
    if child == 0:
        status = 3
        try:
            os.close(reading)
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 1)
            os.dup2(devnull, 2)
            torch.set_num_threads(1)
            found = _examine(check, kernel, problem)
            text = None if found is None else (type(found).__name__, str(found)[:2000])
            os.write(writing, pickle.dumps(text))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    return _listen(child, reading)


def _examine(check: Check, kernel: Kernel, problem: Problem) -> Exception | None:
    try:
        check.examine(kernel, problem)
    except Exception as error:
        return error
    except SystemExit:
        return Wrong("the kernel ended the process with exit() instead of raising an error")
    return None


def _listen(child: int, reading: int) -> Exception | None:
    """Read what the child found; end it when it hangs."""
    data, until = b"", time.monotonic() + SECONDS
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while time.monotonic() < until:
            ready, _, _ = select.select([pipe], [], [], 1.0)
            part = pipe.read(65536) if ready else None
            if part == b"":
                break
            data += part or b""
        else:
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not data:
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            end = "hung and was ended" if number == signal.SIGKILL else f"ended the process by signal {number}"
        else:
            end = f"ended the process with status {os.WEXITSTATUS(status)}"
        return Wrong(f"the kernel {end} instead of raising an error")
    found = pickle.loads(data)  # written by our own child a moment ago
    if found is None:
        return None
    name, text = found
    return Wrong(text if name == "Wrong" else f"raised {name}: {text}")
