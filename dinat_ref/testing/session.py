"""Verifying a kernel: ``check_kernel``, the door for a REPL or a notebook, and the session that all doors share.

A session has the kernel in a process of its own, asks for one check after the other, and writes the verdicts here:
a kernel that ends its process fails the check that was asked for, and the next question starts another process.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from dinat_ref.command import show_progress
from dinat_ref.testing.causes import LSE, NUMBERS
from dinat_ref.testing.checks.behaviour import each_dtype
from dinat_ref.testing.checks.enumeration import window_problems
from dinat_ref.testing.checks.plain import plain_attention
from dinat_ref.testing.isolate import Apart, Died, Place
from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.registry import BUDGETS, CHECKS, select
from dinat_ref.testing.report.description import in_words
from dinat_ref.testing.report.diagnosis import by_words, diagnose
from dinat_ref.testing.report.results import Report, Result
from dinat_ref.testing.runner import Terms, reduce, run_check, without
from dinat_ref.testing.supports import Supports

SURVIVES = "D10-survives"
DEATHS = ("ended the process", "hung and was ended")
STATE = "D20-global-state"
ALLOWED = {"quick": 120.0, "full": 900.0, "deep": 3600.0}  # seconds
LATE = 1.5  # times the seconds allowed, after which every check poses one problem only
FAST = 20_000  # calls in the time allowed, at which no kernel is slow
CALLS = 3  # of the kernel for a random problem
ALL_DEATHS = 40  # processes that a kernel may end before no more are started
HOW = {
    "fork": "",
    "forkserver": "run in a fresh interpreter",
    "spawn": "run in a fresh interpreter",
    None: "run in this process, since no other can import it: a crash would end the verdict, too",
}


def check_kernel(
    fn: Callable[..., Any] | Kernel,
    supports: Supports | None = None,
    layout: str = "heads_last",
    device: str = "cpu",
    budget: str = "quick",
    seed: int = 0,
    expected_failures: Mapping[str, str] | None = None,
    *,
    checks: Sequence[str] | None = None,
    name: str | None = None,
    seconds: float | None = None,
) -> Report:
    """Verify a neighborhood-attention kernel: run every check that applies to it.

    Shapes:
        fn(query [B, *layout, H, D], key [B, *layout, Hkv, D], value [B, *layout, Hkv, Dv], kernel_size=..., ...)
        returns [B, *layout, H, Dv], and the pair with the lse [B, *layout, H] when called with return_lse=True
    Args:
        fn: the kernel, with the argument names of NATTEN 0.21; or a Kernel from ``dinat_ref.testing.ports``.
        supports: what the kernel takes; arguments that it lacks are never passed.
        layout: "heads_last" or "heads_first".
        device: where to run it.
        budget: "quick" (seconds), "full" or "deep".
        seed: of the random problems.
        expected_failures: ids of checks that are known to fail, each with the reason; if one passes, that fails.
        checks: ids, or beginnings of ids, to run; None for all.
        name: the kernel's name in the report.
        seconds: about how long the run may take; a slow kernel is posed fewer problems, and the report says so.
            None for what the budget allows.
    Returns:
        A report: ``report.passed``, ``report.failures``, ``report.raise_for_failures()``, ``print(report)``.
        Ctrl-C ends the run with a report of what has run.
    Raises:
        ValueError: an unknown budget, layout or check id; a device or a declaration that no kernel can work with.
    Source: the error budget of FlashAttention's tests, arXiv:2205.14135; windows by enumeration.
    Example:
        >>> from dinat_ref import na2d
        >>> report = check_kernel(na2d, supports=Supports(ndim={2}), checks=["W12"])
        >>> report.passed, report["W12-even-kernels"].problems > 10
        (True, True)
    """
    kernel = fn if isinstance(fn, Kernel) else Kernel(fn, supports or Supports(), layout, device)
    shown = name or str(getattr(kernel.function, "__name__", type(kernel.function).__name__))
    return verify(partial(fresh, kernel), shown, kernel.device, budget, seed, expected_failures, checks, seconds)


def verify(
    load: Callable[[], Kernel],
    name: str,
    device: str = "cpu",
    budget: str = "quick",
    seed: int = 0,
    expected_failures: Mapping[str, str] | None = None,
    checks: Sequence[str] | None = None,
    seconds: float | None = None,
) -> Report:
    """Verify the kernel that ``load`` makes, in the process where it is to be examined.

    Raises:
        ValueError: as ``check_kernel``.
    Example:
        >>> from dinat_ref import na1d
        >>> verify(partial(Kernel, na1d, Supports(ndim={1})), "na1d", checks=["W02"]).passed
        True
    """
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {', '.join(BUDGETS)}, got {budget!r}")
    check_device(device)
    seconds = ALLOWED[budget] if seconds is None else seconds
    if not seconds > 0:
        raise ValueError(f"seconds must be more than 0, got {seconds!r}")
    expected = dict(expected_failures or {})
    for id in expected:
        if id not in CHECKS:
            raise ValueError(f"expected_failures names no check: {id!r}; the ids are {', '.join(sorted(CHECKS))}")
    report = Report(name, budget, seed, device, torch.__version__, [])
    report.results = [Result(item.id, item.title) for item in select(checks)]
    begin = time.perf_counter()
    with Session(load, device) as session:
        try:
            show_progress(f"verify {name}: starting")
            facts = session.start()
            report.restrictions, report.device = facts.restrictions, facts.device
            report.notes += [HOW[session.apart.method]] if HOW[session.apart.method] else []
            step = session.hurry([result.id for result in report.results], budget, seed, seconds)
            if step > 1:
                report.notes.append(f"slow: one of every {step} problems is posed, to end within about {seconds:g} s")
            _run(session, report, name, begin)
        except KeyboardInterrupt:
            report.interrupted = True
    for result in report.results:
        judge(result, expected)
    show_progress("")
    report.seconds = time.perf_counter() - begin
    return report


def _run(session: "Session", report: Report, name: str, begin: float) -> None:
    """Run the checks of a report, those whose failures explain others first."""
    first = [result for result in report.results if result.id == SURVIVES]
    for number, result in enumerate(first + [result for result in report.results if result.id != SURVIVES]):
        done = f"{number} of {len(report.results)} checks"
        failed = f", {len(report.failures)} failed" if report.failures else ""
        show_progress(f"verify {name}: {done}{failed}, {time.perf_counter() - begin:.0f} s: {result.id}")
        vars(result).update(vars(session.check(result.id, report.budget, report.seed)))
    words = session.noticed()
    for result in report.results:
        if result.id == STATE and result.verdict == "passed" and words:
            result.verdict, result.failing, result.message = "failed", 1, words
    for result in report.failures:
        show_progress(f"verify {name}: what does {result.id} look like?")
        vars(result).update(vars(session.explain(result, tuple(report.diagnoses))))
    same_bug(report)


class Session:
    """A kernel under examination, and what is known of it already.

    Args:
        load: makes the kernel, where it is to be examined.
        device: of the kernel.
    Example:
        >>> from dinat_ref import na1d
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
        if chief is not None and (result.id[0] == "W" or result.id in (*NUMBERS.values(), LSE)):
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


def check_device(device: str) -> None:
    """Refuse what is no device, or none that computes.

    Raises:
        ValueError: it is not.
    Example:
        >>> check_device("meta")
        Traceback (most recent call last):
        ValueError: device 'meta' cannot be used: tensors there have no numbers
    """
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"device must be one that PyTorch knows, such as cpu or cuda, got {device!r}") from None
    if kind == "meta":
        raise ValueError(f"device {device!r} cannot be used: tensors there have no numbers")


def facts(kernel: Kernel, place: Place) -> Facts:
    """See that the device and the declaration work on a trusted kernel, plain PyTorch, so that no other is blamed.

    Shapes:
        return: the Facts
    Raises:
        ValueError: they do not.
    Example:
        >>> facts(Kernel(print, Supports(ndim={1}), device="ipu"), [0, 0])  # doctest: +ELLIPSIS
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
    if pace * FAST < seconds:
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


def same_bug(report: Report) -> None:
    """Of several failures that one known bug explains, keep the one that names it; the rest follow.

    Example:
        >>> report = Report("kernel", "quick", 0, "cpu", "2.13.0", [])
        >>> report.results = [Result(id, "", "failed", looks_like="scale left out") for id in ("N01", "N02")]
        >>> same_bug(report)
        >>> report["N02"].verdict, report["N02"].reason
        ('follows', 'the same bug as N01')
    """
    from dinat_ref.testing.sabotage import CORPUS

    for words, ids in report.diagnoses.items():
        named = [entry.found_by[0] for entry in CORPUS.values() if entry.diagnosis == words]
        chief = next((id for id in ids if id in named), ids[0])
        for id in ids:
            if id != chief and report[id].verdict == "failed":
                report[id].verdict, report[id].reason = "follows", f"the same bug as {chief}"


def judge(result: Result, expected_failures: Mapping[str, str]) -> None:
    """Set a verdict against what was expected of it.

    Example:
        >>> result = Result("W02-own-query", "", "passed")
        >>> judge(result, {"W02-own-query": "known"})
        >>> result.verdict
        'unexpected pass'
    """
    if result.id not in expected_failures:
        return
    if result.verdict in ("failed", "passed", "follows"):
        result.verdict = "unexpected pass" if result.verdict == "passed" else "expected failure"
        result.reason = expected_failures[result.id]
