"""Running the checks: ``check_kernel``, the door for a REPL or a notebook."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from dinat_ref.command import show_progress
from dinat_ref.testing.isolate import examine_apart
from dinat_ref.testing.kernel import Kernel, Moot, Wrong
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.registry import BUDGETS, CHECKS, Check, select
from dinat_ref.testing.report.picture import draw_windows
from dinat_ref.testing.report.results import Report, Result
from dinat_ref.testing.shrink import shrink
from dinat_ref.testing.supports import Supports

EVIDENCE = {1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233}  # of each outcome, the problems kept for the diagnosis
SHRINK_SECONDS = 2.0


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
) -> Report:
    """Verify a neighborhood-attention kernel: run every check that applies to it.

    Shapes:
        fn(query [B, *layout, H, D], key [B, *layout, Hkv, D], value [B, *layout, Hkv, Dv], kernel_size=..., ...)
        returns [B, *layout, H, Dv], and the pair with the lse [B, *layout, H] when called with return_lse=True
    Args:
        fn: the kernel, with the argument names of NATTEN 0.21; or a Kernel from ``dinat_ref.testing.ports.adapters``.
        supports: what the kernel takes; arguments that it lacks are never passed.
        layout: "heads_last" or "heads_first".
        device: where to run it.
        budget: "quick" (seconds), "full" or "deep".
        seed: of the random problems.
        expected_failures: ids of checks that are known to fail, each with the reason; if one passes, that fails.
        checks: ids, or beginnings of ids, to run; None for all.
        name: the kernel's name in the report.
    Returns:
        A report: ``report.passed``, ``report.failures``, ``report.raise_for_failures()``, ``print(report)``.
        Ctrl-C ends the run with a report of what has run.
    Raises:
        ValueError: an unknown budget, layout or check id.
    Source: the error budget of FlashAttention's tests, arXiv:2205.14135; windows by enumeration.
    Example:
        >>> from dinat_ref import na2d
        >>> report = check_kernel(na2d, supports=Supports(ndim={2}), checks=["W12"])
        >>> report.passed, report["W12-even-kernels"].problems > 10
        (True, True)
    """
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {', '.join(BUDGETS)}, got {budget!r}")
    expected = dict(expected_failures or {})
    for id in expected:
        if id not in CHECKS:
            raise ValueError(f"expected_failures names no check: {id!r}; the ids are {', '.join(sorted(CHECKS))}")
    kernel = fn if isinstance(fn, Kernel) else Kernel(fn, supports or Supports(), layout, device)
    kernel.cache.clear()
    shown = name or str(getattr(kernel.function, "__name__", type(kernel.function).__name__))
    report = Report(shown, budget, seed, kernel.device, torch.__version__, kernel.supports.restrictions())
    report.results = [Result(item.id, item.title) for item in select(checks)]
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            kernel = survivor(kernel, report)
            for number, result in enumerate(report.results):
                done = f"{number} of {len(report.results)} checks"
                failed = f", {len(report.failures)} failed" if report.failures else ""
                show_progress(f"verify {shown}: {done}{failed}, {time.perf_counter() - begin:.0f} s: {result.id}")
                check = CHECKS[result.id]
                whole = check.id[0] == "E" or (check.id[0] == "W" and check.id < "W11")
                asked = kernel if whole else narrowed(kernel, report)
                if result.verdict == "not run":
                    run_check(asked, check, budget, seed, result)
                if result.verdict == "skipped" and asked is not kernel and applies(kernel, check, budget, seed):
                    result.reason = f"left out, wrong already: {', '.join(report.narrowed.values())}"
                judge(result, expected)
            _diagnose(kernel, report, shown)
        except KeyboardInterrupt:
            report.interrupted = True
    show_progress("")
    report.seconds = time.perf_counter() - begin
    kernel.cache.clear()
    return report


def survivor(kernel: Kernel, report: Report) -> Kernel:
    """Try every dtype once in a process of its own, and give up those that end it: this process must live on.

    Shapes:
        return: the Kernel, without the dtypes that end a process
    Example:
        >>> survivor(Kernel(print), Report("print", "quick", 0, "cpu", "2.13.0", [])).supports.dtypes
        ('f32', 'f64', 'bf16', 'f16')
    """
    check = CHECKS["D10-survives"]
    if kernel.windows_only:
        return kernel
    tried = run_check(kernel, check, "quick", 0)
    dead = {problem.dtype_name for problem in tried.evidence[0]}
    for name in sorted(dead):
        report.narrowed[name] = check.id
    alive = [name for name in kernel.supports.dtypes if name not in dead]
    if not dead or not alive:
        return kernel
    for result in report.results:  # the check itself is not run again
        if result.id == check.id:
            result.__dict__.update(tried.__dict__)
    return replace(kernel, supports=replace(kernel.supports, dtypes=alive), declared=kernel.supports)


def applies(kernel: Kernel, check: Check, budget: str, seed: int) -> bool:
    """Whether a check has a problem to pose to a kernel.

    Example:
        >>> applies(Kernel(print, Supports(ndim={2})), CHECKS["W18-three-axes"], "quick", 0)
        False
    """
    return check.skips(kernel) is None and next(check.problems(kernel.supports, budget, seed), None) is not None


def narrowed(kernel: Kernel, report: Report) -> Kernel:
    """Take out of the problems what is known to be wrong, so that one bug does not fail all other checks.

    A kernel with wrong windows for even kernel sizes has wrong numbers there, too; the numbers are then checked for
    odd ones, and the report says so. A dtype that ends the process is not tried again.

    Shapes:
        return: a Kernel that shares the windows read
    Example:
        >>> report = check_kernel(print, checks=["W12"])
        >>> narrowed(Kernel(print), report).supports.even
        False
    """
    failed = {result.id: result for result in report.results if result.verdict in ("failed", "expected failure")}
    supports, narrow = kernel.supports, {}
    for id, name in (("W12-even-kernels", "even"), ("W13-dilation", "dilation"), ("W14-stride", "stride")):
        if id in failed and getattr(supports, name):
            narrow[name] = False
            report.narrowed[name] = id
    if "W15-causal" in failed and supports.causal:
        narrow["causal"] = False
        report.narrowed["causal"] = "W15-causal"
    elif "W16-causal-stride" in failed:
        report.narrowed["causal with stride"] = "W16-causal-stride"
        accepts = supports.accepts

        def without(problem: Problem) -> bool:
            both = any(causal and stride > 1 for causal, stride in zip(problem.is_causal, problem.stride, strict=True))
            return not both and (accepts is None or accepts(problem))

        narrow["accepts"] = without  # type: ignore[assignment]
    if not narrow:
        return kernel
    declared = kernel.declared or supports
    return replace(kernel, supports=replace(supports, **narrow), declared=declared)  # type: ignore[arg-type]


def run_check(
    kernel: Kernel, check: Check, budget: str, seed: int, result: Result | None = None, stop: bool = False
) -> Result:
    """Run one check on all its problems; ``stop`` ends it at the first failure, unshrunk.

    Shapes:
        return: the Result, "passed", "failed" or "skipped"
    Raises:
        Nothing that the kernel raises: that is a failure.
    Example:
        >>> from dinat_ref import na1d
        >>> run_check(Kernel(na1d, Supports(ndim={1})), CHECKS["W02-own-query"], "quick", 0).verdict
        'passed'
    """
    result = Result(check.id, check.title) if result is None else result
    begin = time.perf_counter()
    skipped = check.skips(kernel)
    if skipped is not None:
        result.verdict, result.reason = "skipped", skipped
        return result
    first: tuple[Problem, Exception] | None = None
    failing, passing = result.evidence
    passed, moot = 0, "the declaration leaves no problem to pose"
    try:
        for problem in check.problems(kernel.supports, budget, seed):
            error, worst = examine(kernel, check, problem)
            if isinstance(error, Moot):
                moot = str(error)
                continue
            result.problems += 1
            if worst is not None:
                result.worst = max(result.worst or 0.0, worst)
            if error is None:
                passed += 1
                passing += [problem] if passed in EVIDENCE else []
                continue
            result.failing += 1
            failing += [problem] if result.failing in EVIDENCE else []
            first = first or (problem, error)
            if stop:
                break
    finally:
        result.seconds = time.perf_counter() - begin
    if first is not None:
        result.verdict = "failed"
        describe(kernel, check, result, *first, shrinking=not stop)
    elif result.problems:
        result.verdict = "passed"
    else:
        result.verdict, result.reason = "skipped", moot
    result.seconds = time.perf_counter() - begin
    return result


def examine(kernel: Kernel, check: Check, problem: Problem) -> tuple[Exception | None, float | None]:
    """Examine one problem: what was found, and the worst error as a multiple of the budget.

    Example:
        >>> from dinat_ref import na1d
        >>> examine(Kernel(na1d), CHECKS["W02-own-query"], Problem("1d 4 k3 d1 h1 e1 f32 seed0"))
        (None, None)
    """
    try:
        if check.isolated:
            return examine_apart(check, kernel, problem), None
        return None, check.examine(kernel, problem)
    except Wrong as error:
        return error, error.multiple
    except Exception as error:
        return error, None


def describe(
    kernel: Kernel, check: Check, result: Result, problem: Problem, error: Exception, shrinking: bool = True
) -> None:
    """Write into the result what was found, on the smallest problem that shows it.

    Example:
        >>> result = Result("W02-own-query", "every query attends itself")
        >>> problem = Problem("1d 4 k3 d1 h1 e1 f32 seed0")
        >>> describe(Kernel(print), CHECKS["W02-own-query"], result, problem, Wrong("alas"), shrinking=False)
        >>> result.message
        'alas'
    """
    found = {problem: error}
    if shrinking and check.enumerate is None and not check.isolated:
        until = time.perf_counter() + SHRINK_SECONDS

        def fails(candidate: Problem) -> bool:
            if time.perf_counter() > until or not kernel.supports.takes(candidate):
                return False
            again, _ = examine(kernel, check, candidate)
            if type(again) is not type(error):
                return False
            found[candidate] = again
            return True

        problem = shrink(problem, fails)
        error = found[problem]
        if problem not in result.evidence[0]:
            result.evidence[0].insert(0, problem)
    result.problem = str(problem)
    text = " ".join(str(error).split())
    result.message = text if isinstance(error, Wrong) else f"raised {type(error).__name__}: {text[:300]}"
    if isinstance(error, Wrong) and error.expected is not None and len(error.expected) <= 256:
        result.drawing = draw_windows(problem, error.expected, error.got)


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
    if result.verdict in ("failed", "passed"):
        result.verdict = "expected failure" if result.verdict == "failed" else "unexpected pass"
        result.reason = expected_failures[result.id]


def _diagnose(kernel: Kernel, report: Report, shown: str) -> None:
    """Say what each failure looks like."""
    from dinat_ref.testing.report.diagnosis import (
        diagnose,  # imports the corpus, which a kernel that passes never needs
    )

    for result in report.results:
        if result.verdict in ("failed", "expected failure"):
            show_progress(f"verify {shown}: what does {result.id} look like?")
            result.looks_like = diagnose(kernel, result) or ""
