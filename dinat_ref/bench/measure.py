"""Measuring: median times of rounds in which everybody takes a turn, and peak memory in a process of one's own.

A turn is one run to fill the caches and one that is measured, so that nobody pays for what the one before has left.
Nor for the memory: glibc keeps what is freed if larger pieces have been freed before, and what it does not keep costs
page faults. ``settle`` frees a large piece first, so that small problems find what they find in a process at work.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from dinat_ref.bench.contenders import CONTENDERS, Attention, CannotRunError
from dinat_ref.bench.shapes import Problem, square
from dinat_ref.command import show_progress

SLOW = 0.3  # seconds; whoever takes longer is not run twice


@dataclass
class Row:
    """What was measured of one contender at one shape; ``skipped`` says why nothing was.

    Example:
        >>> Row("tiny", "loops", skipped="too slow").milliseconds is None
        True
    """

    problem: str
    contender: str
    tokens: int = 0  # of the whole batch
    milliseconds: float | None = None
    ratio: float | None = None  # to the limit
    backward_ratio: float | None = None  # forward + backward to forward
    megabytes: float | None = None  # peak above the inputs
    query_sizes: float | None = None  # the same as a multiple of query
    skipped: str | None = None
    no_backward: str | None = None  # why forward + backward was not measured


def measure(
    problem: Problem, names: Sequence[str], rounds: int = 5, backward: bool = False, memory: bool = True
) -> list[Row]:
    """Measure contenders on one problem: in each round everybody runs once, so that ratios are of one time.

    Shapes:
        return: a Row per contender
    Raises:
        KeyError: an unknown contender.
    Example:
        >>> from dinat_ref.bench.shapes import SHAPES
        >>> rows = measure(SHAPES["tiny"][0], ["limit", "tiled"], rounds=1, memory=False)
        >>> rows[0].ratio, rows[1].milliseconds > 0
        (1.0, True)
    """
    settle()
    operands = problem.operands()
    rows = {name: Row(str(problem), name, problem.batch * problem.num_tokens) for name in names}
    ready: dict[str, Attention] = {}
    for name, row in rows.items():
        show_progress(f"{problem}: preparing {name}")
        try:
            ready[name] = CONTENDERS[name](problem)
            with torch.no_grad():
                ready[name](*operands)  # compiles, and shows who cannot run
        except Exception as error:  # a peer that does not run is a result, not the end of the benchmark
            row.skipped = _reason(error)
        if row.skipped:
            ready.pop(name, None)

    def forward(attend: Attention) -> None:
        with torch.no_grad():
            attend(*operands)

    leaves = [tensor.clone().requires_grad_() for tensor in operands]
    ones = torch.ones(2 * operands[0].numel())  # the limit's output is a little larger than the others'

    def both(attend: Attention) -> None:
        for leaf in leaves:
            leaf.grad = None  # to be made, not added to
        output = attend(*leaves)
        output.backward(ones[: output.numel()].view_as(output))

    for name, found in _rounds(problem, ready, forward, rounds).items():
        if isinstance(found, str):
            rows[name].skipped = found
        else:
            rows[name].milliseconds = 1e3 * statistics.median(found)
    if backward:
        able = {name: attend for name, attend in ready.items() if rows[name].skipped is None}
        for name, found in _rounds(problem, able, both, rounds).items():
            if isinstance(found, str):
                rows[name].no_backward = found
            else:
                rows[name].backward_ratio = 1e3 * statistics.median(found) / (rows[name].milliseconds or 1.0)
    best = rows["limit"].milliseconds if "limit" in rows else None
    for name, row in rows.items():
        if row.milliseconds is not None and best:
            row.ratio = row.milliseconds / best
        if memory and row.skipped is None and name != "limit":
            show_progress(f"{problem}: memory of {name}")
            row.megabytes = peak_megabytes(problem, name)
            if row.megabytes is not None:
                row.query_sizes = row.megabytes * 1e6 / (operands[0].nbytes)
    show_progress("")
    return list(rows.values())


def settle() -> None:
    """Make and free as large a piece of memory as glibc takes for a sign to keep others (just under 32 MB).

    Source: mallopt(3), M_MMAP_THRESHOLD.
    Example:
        >>> settle()
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)  # freed at once


def _rounds(
    problem: Problem, ready: dict[str, Attention], run: Callable[[Attention], None], rounds: int
) -> dict[str, list[float] | str]:
    """Give the times of everybody who runs, and the reason of everybody who does not."""
    times: dict[str, list[float]] = {name: [] for name in ready}
    reasons: dict[str, str] = {}
    for number in range(rounds + 1):  # the first round warms up
        for name, attend in ready.items():
            if name in reasons:
                continue
            show_progress(f"{problem}: round {number} of {rounds}, {name}")
            try:
                taken = _seconds(run, attend)
                if taken < SLOW:  # the caches still hold what the one before has left: once more
                    taken = _seconds(run, attend)
            except Exception as error:  # a peer without a backward pass is a result, too
                reasons[name] = _reason(error)
            else:
                times[name].append(taken)
    return {name: reasons.get(name, taken[1:]) for name, taken in times.items()}


def _reason(error: Exception) -> str:
    if isinstance(error, CannotRunError):
        return str(error)
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:90]}"


def _seconds(run: Callable[[Attention], None], attend: Attention) -> float:
    began = time.perf_counter()
    run(attend)
    return time.perf_counter() - began


def peak_megabytes(problem: Problem, name: str) -> float | None:
    """Measure the peak memory of one forward pass above the inputs, in a fresh process (Linux only, else None).

    Shapes:
        return: one number, in megabytes (10^6 bytes)
    Raises:
        Nothing: None where it cannot be measured.
    Source: VmHWM of /proc/self/status, reset by /proc/self/clear_refs.
    Example:
        >>> from dinat_ref.bench.shapes import SHAPES
        >>> peak = peak_megabytes(SHAPES["tiny"][0], "gather")
        >>> peak is None or peak >= 0
        True
    """
    if not Path("/proc/self/clear_refs").exists():
        return None
    asked = json.dumps({"problem": asdict(problem), "name": name, "threads": torch.get_num_threads()})
    command = [sys.executable, "-m", "dinat_ref.bench.measure", asked]
    gives_back = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}  # freed memory returns at once: count what is alive
    answer = subprocess.run(command, capture_output=True, encoding="ascii", check=False, env=gives_back)
    return float(answer.stdout) if answer.returncode == 0 else None


def _kilobytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


def _child(asked: str) -> None:
    """Run one contender and print its peak: everything that is made once is made before, on a small problem."""
    order = json.loads(asked)
    torch.set_num_threads(order["threads"])
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in order["problem"].items()}
    problem = Problem(**fields)  # type: ignore[arg-type]
    operands: list[Tensor] = problem.operands()
    with torch.no_grad():
        attend = CONTENDERS[order["name"]](problem)
        if "compiled" in order["name"]:
            attend(*operands)
        else:
            small = square(8, problem.heads, kernel_size=3)
            CONTENDERS[order["name"]](small)(*small.operands())
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _kilobytes("VmRSS")
        attend(*operands)
    print(max(0, _kilobytes("VmHWM") - before) * 1024 / 1e6)


if __name__ == "__main__":
    _child(sys.argv[1])
