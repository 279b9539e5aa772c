"""Mutation testing of the kit itself: does every small bug in a right kernel fail some check?

Three right kernels of different styles are changed in one place at a time. A mutant is killed when a check of the quick
budget rejects it. One that the checks which reject most let pass is compared with its original by brute force: where
they never differ it is no bug; where they do, all other checks are asked, and if they let it pass, too, the kit has
missed it, and it is listed with the line and an input on which it is wrong.

python -m dinat_ref.testing.mutants                                    all of them, about an hour of one core
python -m dinat_ref.testing.mutants --sample 60                        sixty, drawn from a seed
python -m dinat_ref.testing.mutants --only table                       of one kernel
python -m dinat_ref.testing.mutants --results fates.jsonl --seconds 240    a piece; the same command does the next one
"""

import argparse
import hashlib
import importlib
import json
import multiprocessing
import random
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from dinat_ref.command import CommandError, check_writable, show_progress
from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.registry import Check, select
from dinat_ref.testing.runner import run_check
from dinat_ref.testing.sabotage.mutate import Mutant, mutants
from dinat_ref.testing.sabotage.witness import References, references, witness
from dinat_ref.testing.supports import Supports

SUBJECTS = {
    "slots": Supports(double_backward=True),
    "table": Supports(ndim={2}, double_backward=True, rpb=True),
    "blocks": Supports(ndim={1, 2}, max_tokens=1000, nan_outside=False),
}
# the checks that reject most for their time
EARLY = ("N01", "E", "N16", "N02", "N03", "G01", "W17", "G02", "G03", "G05", "G06", "N20", "D11", "N05", "N31", "W19")
CPU_SECONDS = 120  # a mutant that computes for longer is stuck in a loop, which nobody would overlook
SECONDS = 600.0  # and so is one that waits
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


@cache
def original(subject: str) -> References:
    """What the right kernel answers to brute force: made once, before the processes that compare with it are forked."""
    module = importlib.import_module(f"dinat_ref.testing.sabotage.subjects.{subject}")
    return references(module.attend, SUBJECTS[subject])


def judge(mutant: Mutant, seed: int = 0) -> Fate:
    """Run the quick checks until one rejects the mutant; compare it with its original before the slower ones.

    Example:
        >>> mutant = next(m for m in mutants("table") if m.change.startswith("math.ceil"))
        >>> judge(mutant).killed
        True
    """
    try:
        kernel = Kernel(mutant.function(), SUBJECTS[mutant.subject])
    except Exception as error:
        return Fate(mutant, f"import: {type(error).__name__}", None)
    early, late = in_order()
    killed_by = first_failure(kernel, early, seed)
    wrong_on = witness(original(mutant.subject), kernel.function) if killed_by is None else None
    if wrong_on is not None:
        killed_by = first_failure(kernel, late, seed)
    return Fate(mutant, killed_by, wrong_on if killed_by is None else None)


def in_order() -> tuple[list[Check], list[Check]]:
    """The checks that reject most for their time, and the others."""
    early = [check for name in EARLY for check in select([name])]
    return early, [check for check in select(None) if check not in early]


def first_failure(kernel: Kernel, checks: Sequence[Check], seed: int) -> str | None:
    """The first of the checks that rejects a kernel."""
    failed = (check.id for check in checks if run_check(kernel, check, "quick", seed, stop=True).verdict == "failed")
    return next(failed, None)


def _work(mutant: Mutant, seed: int, writing: Connection) -> None:
    with suppress(ImportError):  # on Windows there is no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        fate = judge(mutant, seed)
        writing.send((fate.check, fate.wrong_on, None))
    except Exception as error:  # ours: whatever the mutant raises was caught
        writing.send((None, None, f"{type(error).__name__}: {error}"))


def judge_all(chosen: Sequence[Mutant], seed: int, jobs: int, seconds: float | None = None) -> Iterator[Fate]:
    """Judge many, each in a process of its own, since a mutant may loop for ever; in the order in which they end.

    Args:
        seconds: after which no more are begun.
    Example:
        >>> [fate.killed for fate in judge_all(mutants("table")[-1:], seed=0, jobs=1)]
        [True]
    """
    start: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    waiting, running = list(reversed(chosen)), dict[Any, Any]()
    begin = time.monotonic()
    while running or (waiting and (seconds is None or time.monotonic() - begin < seconds)):
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            if sys.platform == "linux":
                original(mutant.subject)
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
                check, wrong_on, ours = "it ends its process, or takes all its time", None, None
            if ours is not None:
                raise RuntimeError(f"judging {mutant}: {ours}")
            process.kill()
            process.join()
            reading.close()
            del running[reading]
            yield Fate(mutant, check, wrong_on)


def name_of(mutant: Mutant, seed: int) -> str:
    """The name of a mutant in a file of results: of its source, so that no other is taken for it.

    Example:
        >>> len(name_of(mutants("table")[0], seed=0))
        16
    """
    return hashlib.sha256(f"{mutant.subject} {seed} {mutant.source}".encode()).hexdigest()[:16]


def remembered(path: Path, chosen: Sequence[Mutant], seed: int) -> list[Fate]:
    """The fates that a file holds, of the chosen mutants.

    Raises:
        CommandError: the file holds something else.
    Example:
        >>> remembered(Path("no-such-file"), mutants("table"), seed=0)
        []
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    found: dict[str, tuple[str | None, str | None]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            found[entry["name"]] = entry["check"], entry["wrong_on"]
        except (ValueError, KeyError, TypeError):
            raise CommandError(f"{path} line {number} is no fate of a mutant: remove the line, or the file") from None
    names = {name_of(mutant, seed): mutant for mutant in chosen}
    return [Fate(names[name], *fate) for name, fate in found.items() if name in names]


def configure() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m dinat_ref.testing.mutants",
        description="Change right kernels in one place at a time and count how many of the wrong ones the kit rejects.",
        epilog="example: python -m dinat_ref.testing.mutants --sample 60 --jobs 2",
    )
    parser.add_argument("--only", choices=tuple(SUBJECTS), help="the kernel to change (default: all three)")
    parser.add_argument("--sample", type=int, metavar="N", help="judge N of them, drawn from the seed (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of the checks (default 0)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at a time (default 1)")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="write each fate there, and judge only those that it lacks"
    )
    parser.add_argument("--seconds", type=float, metavar="S", help="begin no more after so long (default: no limit)")
    parser.add_argument("--list", action="store_true", help="list the mutants and judge none")
    parser.add_argument("--verbose", action="store_true", help="say of each mutant what became of it")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print the mutation score and the survivors; exit status 1 when the score is below the goal."""
    parser = configure()
    args = parser.parse_args(argv)
    for name in ("sample", "jobs", "seconds"):
        value = getattr(args, name)
        if value is not None and not value >= (0 if name == "seconds" else 1):
            parser.error(f"--{name} must be at least {0 if name == 'seconds' else 1}, got {value}")
    chosen = [mutant for name in ([args.only] if args.only else SUBJECTS) for mutant in mutants(name)]
    chosen = random.Random(args.seed).sample(chosen, min(args.sample or len(chosen), len(chosen)))  # a part is a sample
    if args.list:
        print("\n".join(map(str, chosen)))
        return 0
    if args.results is not None:
        check_writable(args.results)
    fates = [] if args.results is None else remembered(args.results, chosen, args.seed)
    known = {fate.mutant for fate in fates}
    left = [mutant for mutant in chosen if mutant not in known]
    torch.set_num_threads(1)
    begin = time.perf_counter()
    for count, fate in enumerate(judge_all(left, args.seed, args.jobs, args.seconds), start=1):
        fates.append(fate)
        if args.results is not None:
            entry = {"name": name_of(fate.mutant, args.seed), "check": fate.check, "wrong_on": fate.wrong_on}
            with args.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry | {"mutant": str(fate.mutant)}) + "\n")
        missed = sum(f.wrong_on is not None for f in fates)
        seconds = time.perf_counter() - begin
        show_progress(
            f"mutants: {len(fates)} of {len(chosen)}, {missed} wrong ones survive, {seconds:.0f} s, "
            f"about {seconds / count * (len(left) - count):.0f} s left"
        )
        if args.verbose:
            print(f"{fate.check or fate.wrong_on or 'equivalent':<24} {fate.mutant}", flush=True)
    show_progress("")
    return summary(fates, len(chosen), time.perf_counter() - begin)


def summary(fates: Sequence[Fate], chosen: int, seconds: float) -> int:
    """Print the score and who survived; the exit status.

    Example:
        >>> summary([Fate(mutants("slots")[0], "N01-float32", None)], 1, 1.0)
        1 of 1 mutants in 1 s: 1 killed, 0 equivalent by brute force, 0 wrong ones survive
        mutation score 1/1 = 100.00 %
        0
    """
    killed = sum(fate.killed for fate in fates)
    survivors = [fate for fate in fates if fate.wrong_on is not None]
    equivalent = len(fates) - killed - len(survivors)
    wrong = killed + len(survivors)
    print(
        f"{len(fates)} of {chosen} mutants in {seconds:.0f} s: {killed} killed, "
        f"{equivalent} equivalent by brute force, {len(survivors)} wrong ones survive"
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
