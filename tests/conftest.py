"""Hypothesis profiles, and the count of cases that closes every run."""

import functools
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from dinat_ref.command import Progress
from dinat_ref.interop.natten import is_natten_installed

# too_slow measures the machine, not the code; nothing in these tests depends on time
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=15, **COMMON)
settings.register_profile("ci", max_examples=20, derandomize=True, database=None, print_blob=True, **COMMON)
settings.register_profile("deep", max_examples=500, **COMMON)
settings.load_profile(os.environ.get("DINAT_REF_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell that starts a run in the background has it ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which some tests send to the processes that they start

torch.set_num_threads(1)  # the problems are small, and pytest runs several processes

CASES: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def no_progress_in_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a command took ten seconds and told so is no matter of these tests, which read what it prints."""
    monkeypatch.setattr(Progress, "seconds", float("inf"))


@pytest.fixture
def count_cases() -> Callable[[str, int], None]:
    """Count enumerated cases: a test calls ``count_cases("windows", 28474)`` once it has checked that many."""

    def count(kind: str, number: int) -> None:
        CASES[kind] += number

    return count


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let every Hypothesis test count the examples it completes; spare a real NATTEN the example that replaces it."""
    for item in items:
        if item.name == "dinat_ref.interop.natten.install_as_natten" and is_natten_installed():
            item.add_marker(pytest.mark.skip(reason="the real NATTEN is installed: it is left alone"))
        handle = getattr(item.obj, "hypothesis", None) if isinstance(item, pytest.Function) else None
        if handle is not None and not hasattr(handle.inner_test, "counts_examples"):
            handle.inner_test = _counting(handle.inner_test)


def _counting(test: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(test)
    def counted(*args: Any, **kwargs: Any) -> None:
        test(*args, **kwargs)
        CASES["Hypothesis examples"] += 1

    counted.counts_examples = True  # type: ignore[attr-defined]
    return counted


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the counts of a worker process to the process that started it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["cases"] = dict(CASES)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add up what a worker process counted."""
    CASES.update(getattr(node, "workeroutput", {}).get("cases", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many cases the run consisted of, and what it skipped and why."""
    parts = " + ".join(f"{number:,} {kind}" for kind, number in sorted(CASES.items()))
    terminalreporter.write_line(f"cases: {sum(CASES.values()):,} = {parts or 'none enumerated'}")
    reasons = Counter(_reasons(terminalreporter))
    terminalreporter.write_line(f"skipped: {sum(reasons.values())}")
    for reason, number in sorted(reasons.items()):
        terminalreporter.write_line(f"  {number} x {reason}")


def _reasons(terminalreporter: pytest.TerminalReporter) -> Iterator[str]:
    for report in terminalreporter.stats.get("skipped", []):
        yield report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
