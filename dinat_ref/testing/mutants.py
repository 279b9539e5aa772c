"""Mutation testing of the kit itself: does every small bug in a right kernel fail some check?

Three right kernels of different styles are changed in one place at a time. A mutant is killed when a check of the quick
budget rejects it. One that survives is compared with its original by brute force: where they never differ it is no
bug; where they do, the kit has missed it, and it is listed with the line and an input on which it is wrong.

python -m dinat_ref.testing.mutants                    all of them, about an hour of one core
python -m dinat_ref.testing.mutants --sample 60        sixty, drawn from a seed
python -m dinat_ref.testing.mutants --only table       of one kernel
"""

import argparse
import importlib
import multiprocessing
import random
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from dinat_ref.command import CommandError, show_progress
from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.registry import Check, select
from dinat_ref.testing.runner import run_check
from dinat_ref.testing.sabotage.mutate import Mutant, mutants
from dinat_ref.testing.sabotage.witness import witness
from dinat_ref.testing.supports import Supports

SUBJECTS = {
    "slots": Supports(double_backward=True),
    "table": Supports(ndim={2}, double_backward=True, rpb=True),
    "blocks": Supports(ndim={1, 2}, max_tokens=1000, nan_outside=False),
}
SECONDS = 300.0  # a mutant that runs for longer is stuck in a loop, which nobody would overlook
GOAL = 0.995


@dataclass(frozen=True)
class Fate:
    """What became of a mutant: the check that killed it, or the input on which it is wrong, or neither: equivalent.

    Example:
        >>> Fate(mutants("slots")[0], "N01-float32", None).killed
        True
    """

    mutant: Mutant
    check: str | None
    wrong_on: str | None

    @property
    def killed(self) -> bool:
        """Whether a check rejected it."""
        return self.check is not None


def judge(mutant: Mutant, seed: int = 0) -> Fate:
    """Run the quick checks until one rejects the mutant; compare it with its original where none does.

    Example:
        >>> mutant = next(m for m in mutants("table") if m.change.startswith("math.ceil"))
        >>> judge(mutant).killed
        True
    """
    supports = SUBJECTS[mutant.subject]
    try:
        function = mutant.function()
    except Exception as error:
        return Fate(mutant, f"import: {type(error).__name__}", None)
    kernel = Kernel(function, supports)
    for check in by_speed():
        if run_check(kernel, check, "quick", seed, stop=True).verdict == "failed":
            return Fate(mutant, check.id, None)
    right = importlib.import_module(f"dinat_ref.testing.sabotage.subjects.{mutant.subject}").attend
    return Fate(mutant, None, witness(right, function, supports))


def by_speed() -> list[Check]:
    """The checks, those first that reject most for their time."""
    first = ("N01", "W17", "E", "G01", "N16")
    rank = {name: place for place, name in enumerate(first)}
    return sorted(select(None), key=lambda check: min((rank[n] for n in first if check.id.startswith(n)), default=9))


def _work(mutant: Mutant, seed: int, writing: Connection) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        fate = judge(mutant, seed)
        writing.send((fate.check, fate.wrong_on, None))
    except Exception as error:  # ours: whatever the mutant raises was caught
        writing.send((None, None, f"{type(error).__name__}: {error}"))


def judge_all(chosen: Sequence[Mutant], seed: int, jobs: int) -> Iterator[Fate]:
    """Judge many, each in a process of its own, since a mutant may loop for ever; in the order in which they end.

    Example:
        >>> [fate.killed for fate in judge_all(mutants("table")[-1:], seed=0, jobs=1)]
        [True]
    """
    start: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    waiting, running = list(reversed(chosen)), dict[Any, Any]()
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            reading, writing = start.Pipe(duplex=False)
            process = start.Process(target=_work, args=(mutant, seed, writing), daemon=True)
            process.start()
            writing.close()
            running[reading] = mutant, process, time.monotonic() + SECONDS
        ready = wait(list(running), timeout=1.0)
        for reading, (mutant, process, until) in list(running.items()):
            if reading not in ready and time.monotonic() < until:
                continue
            try:
                check, wrong_on, ours = reading.recv() if reading in ready else ("it hangs", None, None)
            except EOFError:
                check, wrong_on, ours = "it ends the process", None, None
            if ours is not None:
                raise RuntimeError(f"judging {mutant}: {ours}")
            process.kill()
            process.join()
            reading.close()
            del running[reading]
            yield Fate(mutant, check, wrong_on)


def main(argv: list[str] | None = None) -> int:
    """Print the mutation score and the survivors; exit status 1 when the score is below the goal."""
    parser = argparse.ArgumentParser(
        prog="python -m dinat_ref.testing.mutants",
        description="Change right kernels in one place at a time and count how many of the wrong ones the kit rejects.",
        epilog="example: python -m dinat_ref.testing.mutants --sample 60 --jobs 2",
    )
    parser.add_argument("--only", choices=tuple(SUBJECTS), help="the kernel to change (default: all three)")
    parser.add_argument("--sample", type=int, metavar="N", help="judge N of them, drawn from the seed (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of the checks (default 0)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at a time (default 1)")
    parser.add_argument("--list", action="store_true", help="list the mutants and judge none")
    parser.add_argument("--verbose", action="store_true", help="say of each mutant what became of it")
    args = parser.parse_args(argv)
    for name in ("sample", "jobs"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(args, name)}")
    chosen = [mutant for name in ([args.only] if args.only else SUBJECTS) for mutant in mutants(name)]
    if args.sample is not None and args.sample < len(chosen):
        chosen = random.Random(args.seed).sample(chosen, args.sample)
    if args.list:
        print("\n".join(map(str, chosen)))
        return 0
    torch.set_num_threads(1)
    begin, fates = time.perf_counter(), []
    for fate in judge_all(chosen, args.seed, args.jobs):
        fates.append(fate)
        missed = sum(f.wrong_on is not None for f in fates)
        seconds = time.perf_counter() - begin
        show_progress(f"mutants: {len(fates)} of {len(chosen)}, {missed} wrong ones survive, {seconds:.0f} s")
        if args.verbose:
            print(f"{fate.check or fate.wrong_on or 'equivalent':<24} {fate.mutant}", flush=True)
    show_progress("")
    return summary(fates, time.perf_counter() - begin)


def summary(fates: Sequence[Fate], seconds: float) -> int:
    """Print the score and who survived; the exit status.

    Example:
        >>> summary([Fate(mutants("slots")[0], "N01-float32", None)], 1.0)
        1 mutants in 1 s: 1 killed, 0 equivalent by brute force, 0 wrong ones survive
        mutation score 1/1 = 100.00 %
        0
    """
    killed = sum(fate.killed for fate in fates)
    survivors = [fate for fate in fates if fate.wrong_on is not None]
    equivalent = len(fates) - killed - len(survivors)
    wrong = killed + len(survivors)
    print(
        f"{len(fates)} mutants in {seconds:.0f} s: {killed} killed, {equivalent} equivalent by brute force, "
        f"{len(survivors)} wrong ones survive"
    )
    print(f"mutation score {killed}/{wrong} = {killed / max(wrong, 1):.2%}".replace("%", " %"))
    for fate in survivors:
        print(f"survives: {fate.mutant}\n    wrong on {fate.wrong_on}")
    return int(killed < GOAL * wrong)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandError as error:
        print(f"python -m dinat_ref.testing.mutants: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
