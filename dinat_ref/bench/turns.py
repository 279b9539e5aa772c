"""Taking turns: in each round everybody runs once, so that ratios are of one time.

A turn is one run to fill the caches and one that is measured, so that nobody pays for what the one before has left.
Who has cost too much at a shape takes no further turns there.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dinat_ref.bench.plan import PATIENCE
from dinat_ref.command import printable, show_progress

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment,unused-ignore]

SLOW = 0.3  # seconds; who takes longer is not run twice


class CannotRunError(Exception):
    """A contender cannot run, and why."""


class Sample(NamedTuple):
    """What one run took."""

    seconds: float
    faults: int | None  # pages that the system had to hand out meanwhile; None where nobody counts them


Runs = Mapping[str, Callable[[], Sample]]


@dataclass
class Found:
    """What somebody's turns have given so far.

    Example:
        >>> found = Found([Sample(3.0, 9), Sample(1.0, 0), Sample(2.0, 0), Sample(1.5, 4)])
        >>> found.milliseconds, found.faults, found.rounds
        (1500.0, 0, 3)
    """

    samples: list[Sample] = field(default_factory=list)  # the first one warmed up
    reason: str | None = None  # why there are no more: it cannot run
    stopped: bool = False  # there are no more: it has cost too much

    @property
    def _measured(self) -> list[Sample]:
        return self.samples[1:] or self.samples  # who was stopped after warming up has that alone

    @property
    def rounds(self) -> int:
        """How many rounds were measured."""
        return len(self.samples[1:])

    @property
    def milliseconds(self) -> float | None:
        """The median, or None."""
        return 1e3 * statistics.median(sample.seconds for sample in self._measured) if self.samples else None

    @property
    def faults(self) -> int | None:
        """The median of page faults, or None."""
        counted = [sample.faults for sample in self._measured if sample.faults is not None]
        return statistics.median_low(counted) if counted else None


class Costs:
    """The seconds that everybody has cost at one shape.

    Example:
        >>> costs = Costs(patience=1.0)
        >>> costs.add("loops", 0.7), costs.too_high("loops"), costs.add("loops", 0.7), costs.too_high("loops")
        (None, False, None, True)
    """

    def __init__(self, patience: float | None = None) -> None:
        """Begin at nothing."""
        self.patience = PATIENCE if patience is None else patience
        self.seconds: dict[str, float] = defaultdict(float)

    def add(self, name: str, seconds: float) -> None:
        """Somebody has cost more."""
        self.seconds[name] += seconds

    def too_high(self, name: str) -> bool:
        """Whether somebody has cost enough."""
        return self.seconds[name] >= self.patience


def timed(run: Callable[[], object]) -> Sample:
    """Run once.

    Example:
        >>> timed(lambda: None).seconds < 1
        True
    """
    before, began = page_faults(), time.perf_counter()
    run()
    seconds, after = time.perf_counter() - began, page_faults()
    return Sample(seconds, None if before is None or after is None else after - before)


def page_faults() -> int | None:
    """How often this process was handed a page that it had not; None where nobody counts.

    Source: getrusage(2), ru_minflt.
    Example:
        >>> page_faults() == 0
        False
    """
    return None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def take_turns(runs: Runs, rounds: int, costs: Costs, title: str = "") -> Iterator[dict[str, Found]]:
    """Let everybody run in turn, and yield what was found so far after each round; the first one warms up.

    Example:
        >>> *_, last = take_turns({"nothing": lambda: timed(lambda: None)}, rounds=2, costs=Costs())
        >>> last["nothing"].rounds
        2
    """
    found = {name: Found() for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            mine = found[name]
            mine.stopped = mine.stopped or (number > 0 and mine.reason is None and costs.too_high(name))
            if mine.reason is not None or mine.stopped:
                continue
            show_progress(f"{title}: round {number} of {rounds}, {name}")
            try:
                sample = run()
                costs.add(name, sample.seconds)
                if sample.seconds < SLOW:  # the caches still hold what the one before has left: once more
                    sample = run()
                    costs.add(name, sample.seconds)
            except Exception as error:  # a peer that does not run is a result, not the end of the benchmark
                mine.reason = reason_of(error)
            else:
                mine.samples.append(sample)
        yield found


def reason_of(error: Exception) -> str:
    """Say in a line why somebody does not run.

    Example:
        >>> reason_of(ValueError("no such window"))
        'ValueError: no such window'
    """
    if isinstance(error, CannotRunError):
        return str(error)
    return printable(f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:90]}")
