"""The door for pytest: a Hypothesis strategy of problems, and one test item for each check.

Hypothesis is imported here and nowhere else in the package.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dinat_ref.testing.checks.sampling import Wish, draw_problem
from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.registry import CHECKS, Check, select
from dinat_ref.testing.report.results import KernelFailure, Result
from dinat_ref.testing.runner import describe, examine, run_check
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
        problem = draw_problem(HypothesisChooser(draw), supports, wish)
        hypothesis.assume(supports.takes(problem) and (wish is None or wish.when is None or wish.when(problem)))
        return problem

    return draw_one()


class BoundCheck:
    """One check of one kernel, to be called in a test.

    Raises:
        KernelFailure: when called, and the kernel fails the check.
    Example:
        >>> from dinat_ref import na1d
        >>> BoundCheck(CHECKS["W12-even-kernels"], Kernel(na1d, Supports(ndim={1})))()
    """

    def __init__(
        self, check: Check, kernel: Kernel, reason: str | None = None, max_examples: int | None = None
    ) -> None:
        """Bind a check to a kernel; ``reason`` says why it is expected to fail."""
        self.check, self.kernel, self.reason, self.max_examples = check, kernel, reason, max_examples

    def __repr__(self) -> str:
        return self.check.id

    def __call__(self) -> None:
        """Run the check: skip where it does not apply, fail with the smallest problem that shows why."""
        import pytest

        skipped = self.check.skips(self.kernel)
        if skipped is not None:
            pytest.skip(skipped)
        try:
            self._run()
        except KernelFailure as failure:
            if self.reason is None:
                raise
            pytest.xfail(f"{self.reason}: {failure}")
        if self.reason is not None:
            raise KernelFailure(f"{self.check.id} passed, but was expected to fail: {self.reason}")

    def _run(self) -> None:
        if self.check.enumerate is not None:
            result = run_check(self.kernel, self.check, "quick", seed=0)
            if result.verdict == "failed":
                raise KernelFailure(explain(result))
            return
        hypothesis = _hypothesis()
        health = list(hypothesis.HealthCheck)
        options: dict[str, Any] = {"deadline": None, "suppress_health_check": health}
        if self.max_examples is not None:
            options["max_examples"] = self.max_examples

        @hypothesis.settings(**options)  # type: ignore[untyped-decorator]
        @hypothesis.given(hypothesis.strategies.data())  # type: ignore[untyped-decorator]
        def holds(data: Any) -> None:
            problem = data.draw(problems(self.kernel.supports, self.check.wish), label="problem")
            error, _ = examine(self.kernel, self.check, problem)
            if error is not None and not isinstance(error, self.moot):
                result = Result(self.check.id, self.check.title)
                describe(self.kernel, self.check, result, problem, error, shrinking=False)
                raise KernelFailure(explain(result)) from error

        holds()

    @property
    def moot(self) -> type[Exception]:
        """What a check raises on a problem that its law says nothing about."""
        from dinat_ref.testing.kernel import Moot

        return Moot


def explain(result: Result) -> str:
    """A failed check in words, with the line to paste and the drawing.

    Example:
        >>> print(explain(Result("W02-own-query", "every query attends itself", message="2 do not", problem="1d 3 k3")))
        W02-own-query: every query attends itself
        2 do not
        Problem("1d 3 k3")
    """
    lines = [f"{result.id}: {result.title}", result.message, f'Problem("{result.problem}")', result.drawing]
    return "\n".join(line for line in lines if line)


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
    bound = [BoundCheck(check, kernel, expected.get(check.id), max_examples) for check in select(checks)]
    return pytest.mark.parametrize("check", bound, ids=repr)
