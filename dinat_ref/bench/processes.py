"""Measuring in a process of one's own: the times of a plain script, and peak memory.

A script that makes its tensors and calls the operator is another place than a process at work: nothing large was freed
before, so glibc hands large pieces back to the system at once, and each new one costs a page fault every 4 kB.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dinat_ref.bench.contenders import CONTENDERS, forward, forward_backward
from dinat_ref.bench.shapes import Problem, square
from dinat_ref.bench.turns import CannotRunError, Sample, reason_of, timed


class PlainProcess:
    """A contender alone in a fresh process, which runs whenever it is told to.

    Example:
        >>> from dinat_ref.bench.shapes import SHAPES
        >>> with plain_process(SHAPES["tiny"][0], "gather") as process:
        ...     process.run().seconds > 0
        True
    """

    def __init__(self, problem: Problem, name: str) -> None:
        """Start it; it gets ready while others start."""
        command = [sys.executable, "-m", "dinat_ref.bench.processes", _order("times", problem, name)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="ascii"
        )

    def run(self) -> Sample:
        """Let it run once.

        Raises:
            CannotRunError: it cannot, or its process has ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            raise CannotRunError("its process ended") from None
        if "reason" in answer:
            raise CannotRunError(answer["reason"])
        return Sample(**answer)


@contextmanager
def plain_process(problem: Problem, name: str) -> Iterator[PlainProcess]:
    """Start a process for one contender, and end it with the block.

    Example:
        >>> from dinat_ref.bench.shapes import SHAPES
        >>> with plain_process(SHAPES["tiny"][0], "gather") as process:
        ...     process.process.poll() is None
        True
    """
    plain = PlainProcess(problem, name)
    try:
        yield plain
    finally:
        plain.process.kill()
        plain.process.communicate()


def peak_megabytes(problem: Problem, name: str, backward: bool = False) -> tuple[float | None, float | None]:
    """Measure the peak memory above the inputs in a fresh process: forward, and forward + backward (Linux only).

    Returns:
        Two numbers in megabytes (10^6 bytes); None for what was not asked for or cannot be measured.
    Source: VmHWM of /proc/self/status, reset by /proc/self/clear_refs.
    Example:
        >>> from dinat_ref.bench.shapes import SHAPES
        >>> peak, _ = peak_megabytes(SHAPES["tiny"][0], "gather")
        >>> peak is None or peak >= 0
        True
    """
    if not Path("/proc/self/clear_refs").exists():
        return None, None
    command = [sys.executable, "-m", "dinat_ref.bench.processes", _order("memory", problem, name, backward)]
    gives_back = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}  # freed memory returns at once: count what is alive
    answer = subprocess.run(command, capture_output=True, encoding="ascii", check=False, env=gives_back)
    if answer.returncode != 0:
        return None, None
    megabytes, backward_megabytes = json.loads(answer.stdout)
    return megabytes, backward_megabytes


def _order(what: str, problem: Problem, name: str, backward: bool = False) -> str:
    """What a process is told to do."""
    order = {"what": what, "problem": asdict(problem), "name": name, "backward": backward}
    return json.dumps({**order, "threads": torch.get_num_threads()})


def _times(problem: Problem, name: str) -> None:
    """Run once for each line that comes in, and answer what it took.

    As in a loop that says ``output = attend(...)``, an output is freed when the next one is there: its memory cannot
    be that one's.
    """
    try:
        attend, operands = CONTENDERS[name].make(problem), problem.operands()
        outputs: list[Tensor] = []
        for _ in sys.stdin:
            print(json.dumps(timed(lambda: outputs.append(forward(attend, operands)))._asdict()), flush=True)
            del outputs[:-1]
    except Exception as error:  # who cannot run says why, to each who asks
        print(json.dumps({"reason": reason_of(error)}), flush=True)


def _memory(problem: Problem, name: str, backward: bool) -> None:
    """Run once and print the peak: everything that is made once is made before, on a small problem."""
    operands, attend = problem.operands(), CONTENDERS[name].make(problem)
    small = square(8, problem.heads, kernel_size=3, dtype=problem.dtype)
    others, warm_up = small.operands(), attend if "compiled" in name else CONTENDERS[name].make(small)
    if "compiled" in name:
        others = operands
    forward(warm_up, others)
    peaks: list[float | None] = [_peak(partial(forward, attend, operands))]
    if backward:
        ones = torch.ones(2 * max(x[0].numel() for x in (operands, others)), dtype=operands[0].dtype)
        for operand in (*others, *operands):
            operand.requires_grad_()
        try:
            forward_backward(warm_up, others, ones)
            peaks.append(_peak(partial(forward_backward, attend, operands, ones)))
        except Exception:  # no backward pass, as is said where it was to be timed
            peaks.append(None)
    print(json.dumps([*peaks, None][:2]))


def _peak(run: Callable[[], object]) -> float:
    """Run once: the megabytes that it took beyond what there was."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _kilobytes("VmRSS")
    run()
    return max(0, _kilobytes("VmHWM") - before) * 1024 / 1e6


def _kilobytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


def _child(text: str) -> None:
    """Do what an order says."""
    order = json.loads(text)
    torch.set_num_threads(order["threads"])
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in order["problem"].items()}
    problem = Problem(**fields)  # type: ignore[arg-type]
    if order["what"] == "times":
        _times(problem, order["name"])
    else:
        _memory(problem, order["name"], order["backward"])


if __name__ == "__main__":
    _child(sys.argv[1])
