"""Many small training runs side by side: one process for each core, one thread for each process."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

import torch

from dinat_ref.command import show_progress
from dinat_ref.training.loop import clock


@dataclass(frozen=True)
class Run:
    """One run: a function of this package, which trains and measures, and its arguments.

    Args:
        key: what the run is, in words: the keys of the table of results.
    Example:
        >>> Run(("twice", "3"), max, {"number": 3}).key
        ('twice', '3')
    """

    key: tuple[str, ...]
    function: Callable[..., Any] = field(repr=False)
    arguments: dict[str, Any]


def run_all(runs: Sequence[Run], workers: int) -> dict[tuple[str, ...], list[Any]]:
    """Do all runs and collect what they return, by key, in the order given.

    Args:
        workers: how many runs at a time; each has one thread, so that its result does not depend on the others.
    Raises:
        what a run raises
    Example:
        >>> run_all([Run(("a",), int, {}), Run(("a",), int, {})], workers=0)
        {('a',): [0, 0]}
    """
    results: dict[int, Any] = {}
    began = time.perf_counter()
    if workers == 0:  # here and now, as tests do
        results = {number: run.function(**run.arguments) for number, run in enumerate(runs)}
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            numbers = {pool.submit(run.function, **run.arguments): number for number, run in enumerate(runs)}
            for done, future in enumerate(as_completed(numbers), start=1):
                results[numbers[future]] = future.result()
                left = (time.perf_counter() - began) / done * (len(runs) - done)
                show_progress(f"run {done} of {len(runs)} done, {clock(left)} left")
        show_progress("")
    table: dict[tuple[str, ...], list[Any]] = {}
    for number, run in enumerate(runs):
        table.setdefault(run.key, []).append(results[number])
    return table
