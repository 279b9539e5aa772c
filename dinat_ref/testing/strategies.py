"""The door for pytest: a Hypothesis strategy of problems, and one test item for each check.

Hypothesis is imported here and nowhere else in the package.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from dinat_ref.command import printable
from dinat_ref.testing.checks.sampling import Wish, draw_problem
from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.registry import CHECKS, Check, select
from dinat_ref.testing.report.results import KernelFailure, Result
from dinat_ref.testing.runner import without
from dinat_ref.testing.session import SURVIVES, Session, fresh
from dinat_ref.testing.supports import Supports

NEEDED = "{} is needed for this: pip install 'dinat-ref[testing]'"


def _hypothesis() -> Any:
    try:
        import hypothesis
    except ImportError as error:
        raise ImportError(NEEDED.format("hypothesis")) from error
    return hypothesis


class HypothesisChooser:
    """Choices made by Hypothesis, so that it can shrink them.

    Raises:
        ImportError: Hypothesis is not installed.
    Example:
        >>> HypothesisChooser(lambda strategy: strategy.example).draw(type("S", (), {"example": 3}))
        3
    """

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        """Keep the function that draws from a strategy."""
        self.draw, self.strategies = draw, _hypothesis().strategies

    def integer(self, low: int, high: int) -> int:
        """An integer, both ends included; it shrinks to the lower one."""
        return int(self.draw(self.strategies.integers(low, high)))

    def among(self, options: Sequence[Any]) -> Any:
        """One of the options; it shrinks to the first."""
        return self.draw(self.strategies.sampled_from(list(options)))


def problems(supports: Supports | None = None, wish: Wish | None = None) -> Any:
    """A Hypothesis strategy of problems that a kernel is declared to take: a call and a seed, never floats.

    Shapes:
        draws: Problem
    Args:
        supports: what the kernel takes.
        wish: features that are demanded or forbidden.
    Raises:
        ImportError: Hypothesis is not installed.
    Source: https://hypothesis.readthedocs.io.
    Example:
        >>> from hypothesis import given, settings
        >>> @settings(max_examples=5, deadline=None, database=None)
        ... @given(problems(Supports(ndim={2}), Wish(causal=True)))
        ... def test(problem):
        ...     assert problem.ndim == 2 and any(problem.is_causal)
        >>> test()
    """
    hypothesis, supports = _hypothesis(), supports or Supports()

    @hypothesis.strategies.composite  # type: ignore[untyped-decorator]
    def draw_one(draw: Callable[[Any], Any]) -> Problem:
        problem = supports.fit(draw_problem(HypothesisChooser(draw), supports, wish))
        hypothesis.assume(supports.takes(problem) and (wish is None or wish.when is None or wish.when(problem)))
        return problem

    return draw_one()


class BoundCheck:
    """One check of one kernel, to be called in a test.

    Raises:
        KernelFailure: when called, and the kernel fails the check.
    Example:
        >>> from dinat_ref import na1d
        >>> from dinat_ref.testing.registry import CHECKS
        >>> BoundCheck(CHECKS["W12-even-kernels"], Bench(Kernel(na1d, Supports(ndim={1}))))()
    """

    def __init__(
        self, check: Check, bench: "Bench", reason: str | None = None, max_examples: int | None = None
    ) -> None:
        """Bind a check to a kernel; ``reason`` says why it is expected to fail."""
        self.check, self.bench, self.reason, self.max_examples = check, bench, reason, max_examples

    def __repr__(self) -> str:
        return self.check.id

    def __call__(self) -> None:
        """Run the check: skip where it does not apply or follows, fail with the smallest problem that shows why."""
        import pytest

        try:
            result = self._run()
            if result.verdict in ("skipped", "follows", "not run"):
                pytest.skip(f"{'follows ' if result.verdict == 'follows' else ''}{result.reason}")
            if result.verdict == "failed":
                raise KernelFailure(explain(self.bench.explain(result)))
        except KernelFailure as failure:
            if self.reason is None:
                raise
            pytest.xfail(f"{self.reason}: {failure}")
        if self.reason is not None:
            raise KernelFailure(f"{self.check.id} passed, but was expected to fail: {self.reason}")

    def _run(self) -> Result:
        skipped = self.check.skips(self.bench.kernel)
        if skipped is not None or self.check.enumerate is not None:
            return self.bench.check(self.check.id)
        hypothesis, verdicts, last = _hypothesis(), [], Result(self.check.id, self.check.title)
        options: dict[str, Any] = {"deadline": None, "suppress_health_check": list(hypothesis.HealthCheck)}
        if self.max_examples is not None:
            options["max_examples"] = self.max_examples

        @hypothesis.settings(**options)  # type: ignore[untyped-decorator]
        @hypothesis.given(hypothesis.strategies.data())  # type: ignore[untyped-decorator]
        def holds(data: Any) -> None:
            nonlocal last
            supports = self.bench.supports()
            problem = data.draw(problems(supports, self.check.wish), label="problem")
            last = self.bench.check(self.check.id, [problem])
            verdicts.append(last.verdict)
            if last.verdict == "failed":
                raise KernelFailure(explain(last))

        try:
            holds()
        except KernelFailure:
            return last  # Hypothesis ends with the smallest example
        if "passed" in verdicts:
            last.verdict = "passed"
        return last


class Bench:
    """A kernel and its session, shared by the items of a test; started by the first of them.

    Args:
        selected: ids of the items; only what one of them reports can explain the failure of another.
    Example:
        >>> from dinat_ref import na1d
        >>> Bench(Kernel(na1d, Supports(ndim={1}))).check("W02-own-query").verdict
        'passed'
    """

    def __init__(self, kernel: Kernel, selected: Sequence[str] = ()) -> None:
        """Nothing is started yet."""
        self.kernel, self.selected = kernel, tuple(selected)
        self.session: Session | None = None
        self.windows_read = False

    def supports(self) -> Supports:
        """What is still asked of the kernel: not the dtypes that end its process."""
        dead = self._session().terms.dead
        return without(self.kernel, dead).supports

    def check(self, id: str, problems: Sequence[Problem] | None = None) -> Result:
        """Run a check; where it fails, the checks of windows are run first, since they may explain it."""
        session = self._session()
        result = session.check(id, problems=problems)
        if result.verdict == "failed" and not self.windows_read and id[0] != "E":
            self.windows_read = True
            for other in self.selected:
                if other[0] == "W":
                    session.check(other)
            result = session.check(id, problems=problems)
        return result

    def explain(self, result: Result) -> Result:
        """Reduce and diagnose a failure."""
        return self._session().explain(result)

    def _session(self) -> Session:
        if self.session is None:
            self.session = Session(partial(fresh, self.kernel), self.kernel.device)
            self.session.start()
            if SURVIVES in self.selected:
                self.session.check(SURVIVES)
        return self.session


def explain(result: Result) -> str:
    """A failed check in words, with the line to paste and the drawing.

    Example:
        >>> print(explain(Result("W02-own-query", "every query attends itself", message="2 do not", problem="1d 3 k3")))
        W02-own-query: every query attends itself
        2 do not
        Problem("1d 3 k3")
    """
    lines = [f"{result.id}: {result.title}", result.message, f'Problem("{result.problem}")', result.drawing]
    lines += [f"seen: {result.seen}"] if result.seen else []
    lines += [f"looks like: {result.looks_like}"] if result.looks_like else []
    return "\n".join(printable(line) for text in lines for line in text.splitlines())


def parametrize_with_checks(
    fn: Callable[..., Any] | Kernel,
    supports: Supports | None = None,
    layout: str = "heads_last",
    device: str = "cpu",
    expected_failures: Mapping[str, str] | None = None,
    *,
    checks: Sequence[str] | None = None,
    max_examples: int | None = None,
) -> Any:
    """Make one pytest item of each check; the decorated test receives it as ``check`` and calls it.

    Shapes:
        as ``check_kernel``
    Args:
        fn, supports, layout, device, checks: as ``check_kernel``.
        expected_failures: ids of checks known to fail, each with the reason; one that passes fails.
        max_examples: problems for each random check; None for what the Hypothesis profile says.
    Returns:
        A decorator. Problems are drawn inside the test's body, so that Hypothesis shrinks them.
    Raises:
        ValueError: an id that no check has.
        ImportError: pytest or Hypothesis is not installed.
    Source: the form of scikit-learn's estimator checks.
    Example:
        >>> from dinat_ref import na2d
        >>> @parametrize_with_checks(na2d, supports=Supports(ndim={2}))
        ... def test_my_kernel(check):
        ...     check()
    """
    try:
        import pytest
    except ImportError as error:
        raise ImportError(NEEDED.format("pytest")) from error
    _hypothesis()
    expected = dict(expected_failures or {})
    for id in expected:
        if id not in CHECKS:
            raise ValueError(f"expected_failures names no check: {id!r}; the ids are {', '.join(sorted(CHECKS))}")
    kernel = fn if isinstance(fn, Kernel) else Kernel(fn, supports or Supports(), layout, device)
    bench = Bench(kernel, [check.id for check in select(checks)])
    bound = [BoundCheck(check, bench, expected.get(check.id), max_examples) for check in select(checks)]
    return pytest.mark.parametrize("check", bound, ids=repr)
