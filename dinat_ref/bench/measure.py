"""Measuring the operator: times in turn, in this process and in plain ones, and peak memory.

This process is one at work: ``settle`` frees a large piece of memory first, and glibc then keeps what is freed.
Otherwise small problems would be as slow as what ran before them happens to have left.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from dinat_ref.bench.contenders import CONTENDERS, Attention, forward, forward_backward
from dinat_ref.bench.processes import peak_megabytes, plain_process
from dinat_ref.bench.shapes import Problem
from dinat_ref.bench.turns import Costs, Found, Runs, reason_of, take_turns, timed
from dinat_ref.command import show_progress


@dataclass(frozen=True)
class Settings:
    """What is measured of everybody.

    Example:
        >>> Settings(rounds=3).against
        'limit'
    """

    rounds: int = 5
    backward: bool = False  # forward + backward, too
    memory: bool = True  # the peak, too
    plain: bool = False  # the times in a plain process, too
    against: str = "limit"  # whose times all others are divided by


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
    rounds: int = 0  # of which milliseconds are the median
    milliseconds: float | None = None
    ratio: float | None = None  # to whom all are measured against
    faults: int | None = None  # pages that the system had to hand out
    backward_milliseconds: float | None = None  # forward + backward
    backward_against: float | None = None  # to the same of whom all are measured against
    backward_ratio: float | None = None  # forward + backward to forward
    plain_milliseconds: float | None = None  # forward, in a plain process
    plain_ratio: float | None = None
    plain_faults: int | None = None
    megabytes: float | None = None  # peak above the inputs
    query_sizes: float | None = None  # the same as a multiple of query
    weight_sizes: float | None = None  # the same as a multiple of all weights
    backward_megabytes: float | None = None
    skipped: str | None = None
    note: str | None = None  # what was not measured, and why


def measure(problem: Problem, names: Sequence[str], settings: Settings) -> Iterator[list[Row]]:
    """Measure contenders on one problem, and yield all rows, as far as they are known, whenever something was found.

    Raises:
        KeyError: an unknown contender.
    Example:
        >>> from dinat_ref.bench.shapes import SHAPES
        >>> *_, rows = measure(SHAPES["tiny"][0], ["limit", "tiled"], Settings(rounds=1, memory=False))
        >>> rows[0].ratio, rows[1].milliseconds > 0
        (1.0, True)
    """
    settle()
    title, costs = str(problem), Costs()
    rows = {name: Row(title, name, problem.batch * problem.num_tokens) for name in names}
    problems = {name: replace(problem, dtype=CONTENDERS[name].dtype) for name in names}
    operands = {dtype: replace(problem, dtype=dtype).operands() for dtype in {x.dtype for x in problems.values()}}
    inputs = {name: operands[problems[name].dtype] for name in names}
    ready: dict[str, Attention] = {}
    for name, row in rows.items():
        show_progress(f"{title}: preparing {name}")
        try:
            costs.add(name, timed(partial(_prepare, ready, name, problems[name], inputs[name])).seconds)
        except Exception as error:  # a peer that does not run is a result, not the end of the benchmark
            row.skipped = reason_of(error)
            ready.pop(name, None)

    runs: Runs = {name: partial(timed, partial(forward, attend, inputs[name])) for name, attend in ready.items()}
    for found in take_turns(runs, settings.rounds, costs, title):
        _fill_forward(rows, found, settings)
        yield list(rows.values())
    able = {name: attend for name, attend in ready.items() if rows[name].skipped is None}
    if settings.backward:
        leaves = {dtype: [x.clone().requires_grad_() for x in tensors] for dtype, tensors in operands.items()}
        ones = {dtype: torch.ones(2 * x[0].numel(), dtype=x[0].dtype) for dtype, x in operands.items()}
        runs = {
            name: partial(timed, partial(forward_backward, attend, leaves[dtype], ones[dtype]))
            for name, attend in able.items()
            for dtype in [problems[name].dtype]
        }
        for found in take_turns(runs, settings.rounds, costs, f"{title}, forward + backward"):
            _fill_backward(rows, found, settings)
            yield list(rows.values())
    if settings.plain:
        with ExitStack() as stack:
            started = {name: stack.enter_context(plain_process(problems[name], name)) for name in able}
            runs = {name: process.run for name, process in started.items()}
            for found in take_turns(runs, settings.rounds, Costs(), f"{title}, plain processes"):
                _fill_plain(rows, found, settings)
                yield list(rows.values())
    for name in able if settings.memory else ():
        if not name.startswith("limit") and not costs.too_high(name):
            show_progress(f"{title}: memory of {name}")
            _fill_memory(rows[name], problems[name], inputs[name][0], settings)
            yield list(rows.values())
    show_progress("")


def settle() -> None:
    """Make and free as large a piece of memory as glibc takes for a sign to keep others (just under 32 MB).

    Source: mallopt(3), M_MMAP_THRESHOLD.
    Example:
        >>> settle()
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)  # freed at once


def _prepare(ready: dict[str, Attention], name: str, problem: Problem, operands: list[Tensor]) -> None:
    """Make a contender and run it once: it compiles, and shows whether it can."""
    ready[name] = CONTENDERS[name].make(problem)
    forward(ready[name], operands)


def _against(settings: Settings, found: Mapping[str, Found], milliseconds: float | None) -> float | None:
    """A time as a multiple of the yardstick's of the same rounds."""
    yardstick = found[settings.against].milliseconds if settings.against in found else None
    return milliseconds / yardstick if milliseconds and yardstick else None


def _fill_forward(rows: Mapping[str, Row], found: Mapping[str, Found], settings: Settings) -> None:
    for name, mine in found.items():
        row = rows[name]
        row.skipped, row.rounds, row.faults = mine.reason, mine.rounds, mine.faults
        row.milliseconds, row.note = mine.milliseconds, _stopped(mine, settings, "forward")
        row.ratio = _against(settings, found, row.milliseconds)


def _fill_backward(rows: Mapping[str, Row], found: Mapping[str, Found], settings: Settings) -> None:
    for name, mine in found.items():
        row = rows[name]
        row.backward_milliseconds = mine.milliseconds
        row.backward_against = _against(settings, found, row.backward_milliseconds)
        if row.backward_milliseconds and row.milliseconds:
            row.backward_ratio = row.backward_milliseconds / row.milliseconds
        row.note = mine.reason or row.note or _stopped(mine, settings, "forward + backward")


def _fill_plain(rows: Mapping[str, Row], found: Mapping[str, Found], settings: Settings) -> None:
    for name, mine in found.items():
        row = rows[name]
        row.plain_milliseconds, row.plain_faults = mine.milliseconds, mine.faults
        row.plain_ratio = _against(settings, found, row.plain_milliseconds)
        row.note = row.note or mine.reason or _stopped(mine, settings, "plain process")


def _fill_memory(row: Row, problem: Problem, query: Tensor, settings: Settings) -> None:
    row.megabytes, row.backward_megabytes = peak_megabytes(problem, row.contender, settings.backward)
    if row.megabytes is not None:
        row.query_sizes = row.megabytes * 1e6 / query.nbytes
        weights = row.tokens * problem.heads * problem.num_keys * query.element_size()
        row.weight_sizes = row.megabytes * 1e6 / weights


def _stopped(found: Found, settings: Settings, what: str) -> str | None:
    return f"stopped after {found.rounds} of {settings.rounds} rounds, {what}" if found.stopped else None
