"""A kernel under examination: the session that all doors share.

It has the kernel in a process of its own and asks for one check after the other: a kernel that ends its process fails
the check that was asked for, and the next question starts another process.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from dinat_ref.testing.causes import is_base
from dinat_ref.testing.checks.behaviour import each_dtype
from dinat_ref.testing.checks.enumeration import window_problems
from dinat_ref.testing.checks.plain import plain_attention
from dinat_ref.testing.isolate import Apart, Died, Place
from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.registry import BUDGETS, CHECKS
from dinat_ref.testing.report.description import in_words
from dinat_ref.testing.report.diagnosis import by_words, diagnose
from dinat_ref.testing.report.results import Result
from dinat_ref.testing.runner import Terms, reduce, run_check, without

SURVIVES = "D10-survives"
DEATHS = ("ended the process", "hung and was ended")
LATE = 1.5  # times the seconds allowed, after which every check poses one problem only
FAST = {"quick": 20_000, "full": 60_000, "deep": 300_000}  # calls in the time allowed, at which no kernel is slow
CALLS = 3  # of the kernel for a random problem
ALL_DEATHS = 40  # processes that a kernel may end before no more are started


class Session:
    """A kernel under examination, and what is known of it already.

    Args:
        load: makes the kernel, where it is to be examined.
        device: of the kernel.
    Example:
        >>> from functools import partial
        >>> from dinat_ref import na1d
        >>> from dinat_ref.testing.supports import Supports
        >>> with Session(partial(Kernel, na1d, Supports(ndim={1}))) as session:
        ...     session.check("W02-own-query").verdict
        'passed'
    """

    def __init__(self, load: Callable[[], Kernel], device: str = "cpu") -> None:
        """Nothing is started yet."""
        self.apart = Apart(load, device)
        self.terms = Terms()
        self.deaths, self.first_death = 0, ""
        self.dtypes: tuple[str, ...] = ()
        self.deadline = math.inf

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *exception: object) -> None:
        self.apart.close()

    def start(self) -> "Facts":
        """Load the kernel and see that the device and the declaration work on a trusted one.

        Raises:
            ValueError: the kernel cannot be loaded, or its device or declaration cannot be used.
        """
        try:
            found: Facts = self.apart.ask(facts)
            self.dtypes = found.dtypes
            return found
        except Died as death:
            raise ValueError(f"the kernel cannot be loaded: importing it {death.words}") from None

    def hurry(self, ids: Sequence[str], budget: str, seed: int, seconds: float) -> int:
        """Set a time limit; a kernel that is too slow for it is posed one of every so many problems."""
        self.deadline = time.monotonic() + LATE * seconds
        try:
            step: int = self.apart.ask(_thinning, ids, budget, seed, seconds)
        except Died:
            step = 1  # that it dies is found in a moment
        self.terms = replace(self.terms, step=step)
        return step

    def check(self, id: str, budget: str = "quick", seed: int = 0, problems: Sequence[Problem] | None = None) -> Result:
        """Run one check; what it says of windows and of dtypes that end the process is remembered."""
        deadly: dict[int, str] = {}
        if self.terms.dead and set(self.terms.dead) == set(self.dtypes):
            return Result(id, CHECKS[id].title, "follows", reason=f"from {SURVIVES}: every dtype ends the process")
        while True:
            if self.deaths >= ALL_DEATHS:
                return Result(id, CHECKS[id].title, reason=f"the kernel has ended {self.deaths} processes")
            terms = replace(self.terms, deadly=deadly, seconds=self.deadline - time.monotonic())
            try:
                result: Result = self.apart.ask(_check, id, budget, seed, terms, problems)
                break
            except Died as death:
                if death.hung and self.apart.leave_fork(_check, id, budget, seed, terms, problems):
                    continue
                if death.number < 0:  # between problems: nothing is left to ask
                    return Result(id, CHECKS[id].title, "failed", message=f"the kernel {death.words}")
                deadly[death.number] = f"the kernel {death.words} instead of raising an error"
                self.deaths += 1
        if deadly and result.failing == len(deadly) and self.first_death and id[0] != "E":
            result.verdict, result.reason = "follows", f"from {self.first_death}"
        elif deadly:
            self.first_death = self.first_death or id
        self._remember(result)
        return result

    def _remember(self, result: Result) -> None:
        """What a failed check of windows or of dtypes explains from now on."""
        chief = result.id if result.verdict == "failed" else next(iter(result.origins), None)
        if chief is not None and is_base(result.id):
            self.terms = replace(self.terms, causes={**self.terms.causes, result.id: chief})
        if result.id == SURVIVES and result.verdict == "failed":
            dead = tuple(sorted({problem.dtype_name for problem in result.evidence[0]}))
            self.terms = replace(self.terms, dead=dead)

    def explain(self, result: Result, known: tuple[str, ...] = ()) -> Result:
        """Find the smallest problem that fails and say what the failure looks like, unless the kernel dies of it."""
        if any(words in result.message for words in DEATHS):
            result.looks_like = by_words(result) or ""  # nobody wants to see it die again
            return result
        try:
            found: Result = self.apart.ask(_explain, result, self.terms, known)
            return found
        except Died:
            return result

    def noticed(self) -> str:
        """The global settings that calls have changed, in words."""
        try:
            words: str = self.apart.ask(_noticed)
            return words
        except Died:
            return ""


@dataclass
class Facts:
    """What a report says of a kernel before any check."""

    restrictions: list[str]
    device: str
    dtypes: tuple[str, ...]


def fresh(kernel: Kernel) -> Kernel:
    """A kernel with nothing remembered of earlier runs.

    Example:
        >>> fresh(Kernel(print)).cache
        {}
    """
    return replace(kernel, cache={}, noticed=set())


def facts(kernel: Kernel, place: Place) -> Facts:
    """See that the device and the declaration work on a trusted kernel, plain PyTorch, so that no other is blamed.

    Shapes:
        return: the Facts
    Raises:
        ValueError: they do not.
    Example:
        >>> facts(Kernel(print, device="ipu"), [0, 0])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: device 'ipu' cannot be used with f32: plain PyTorch raises RuntimeError: ...
    """
    for problem in each_dtype(kernel.supports, "quick"):
        try:
            output, _ = plain_attention(problem, problem.inputs(kernel.device))
            assert bool(output.isfinite().all())
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            raise ValueError(
                f"device {kernel.device!r} cannot be used with {problem.dtype_name}: plain PyTorch raises "
                f"{type(error).__name__}: {text}"
            ) from None
    return Facts(kernel.supports.restrictions(), kernel.device, tuple(map(str, kernel.supports.dtypes)))


def _thinning(kernel: Kernel, place: Place, ids: Sequence[str], budget: str, seed: int, seconds: float) -> int:
    """One of how many problems can be posed in a time: by three calls of three shapes, as compilers see them."""
    paces = []
    for number, problem in enumerate(list(window_problems(None, kernel.supports, "quick"))[-3:]):
        place[0], begin = -2 - number, time.perf_counter()
        with suppress(Exception, SystemExit):
            kernel.weights(problem)
        paces.append(time.perf_counter() - begin)
    pace = sorted(paces)[len(paces) // 2] if paces else 0.0
    if pace * FAST[budget] < seconds:
        return 1
    asked = [CHECKS[id] for id in ids if CHECKS[id].skips(kernel) is None]
    read = {p for check in asked if check.enumerate for p in check.problems(kernel.supports, budget, seed)}
    drawn = sum(BUDGETS[budget] * check.effort for check in asked if not check.enumerate)
    return max(1, math.ceil(pace * (len(read) + CALLS * drawn) / seconds))


def _check(
    kernel: Kernel, place: Place, id: str, budget: str, seed: int, terms: Terms, problems: Sequence[Problem] | None
) -> Result:
    return run_check(kernel, CHECKS[id], budget, seed, terms=terms, problems=problems, place=place)


def _explain(kernel: Kernel, place: Place, result: Result, terms: Terms, known: tuple[str, ...]) -> Result:
    """Reduce and diagnose a failure."""
    place[1] = 120.0
    if result.verdict == "failed":
        kernel = without(kernel, terms.dead)
        reduce(kernel, CHECKS[result.id], result, terms)
        result.looks_like = diagnose(kernel, result, known) or ""
        result.seen = in_words(kernel, result)
    return result


def _noticed(kernel: Kernel, place: Place) -> str:
    changed = ", ".join(sorted(kernel.noticed))
    return f"a call changes {changed} (put back after each call)" if changed else ""
