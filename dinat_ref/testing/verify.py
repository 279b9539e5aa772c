"""Verifying a kernel: ``check_kernel``, the door for a REPL or a notebook; the verdicts are written here.

The kernel is somewhere else (``session.py``): nothing that it does can keep a report from being whole or make it green.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from dinat_ref.command import show_progress
from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.registry import BUDGETS, CHECKS, select
from dinat_ref.testing.report.results import Report, Result
from dinat_ref.testing.session import SURVIVES, Session, fresh
from dinat_ref.testing.supports import Supports

STATE = "D20-global-state"
ALLOWED = {"quick": 120.0, "full": 600.0, "deep": 600.0}  # seconds, unless others are asked for
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
        budget: "quick" (seconds), "full" (minutes), or "deep", for a release: ten minutes for a kernel like gather.
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


def _run(session: Session, report: Report, name: str, begin: float) -> None:
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
