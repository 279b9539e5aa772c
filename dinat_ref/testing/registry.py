"""The registry: every check by its id, in the order of the report.

An id never changes its meaning and is never given to another check: ``expected_failures`` and old reports rely on it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from dinat_ref.testing.checks.sampling import Wish, random_problems
from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.supports import Supports

BUDGETS = {"quick": 20, "full": 100, "deep": 1000}  # random problems of a check
KINDS = {
    "W": "windows",
    "N": "numbers",
    "G": "gradients",
    "D": "behaviour",
    "E": "illegal arguments",
    "X": "cross-laws",
    "T": "transforms",
}

Examine = Callable[[Kernel, Problem], float | None]
Enumerate = Callable[[Supports, str], Iterator[Problem]]


@dataclass(frozen=True)
class Check:
    """One small named check: what it says, which problems it wants, and how it examines one.

    Args:
        id: a letter for the kind, a number, and words.
        title: the law, in one line.
        examine: raises Wrong, or returns the worst error as a multiple of the budget (None: nothing was measured).
        wish: what random problems it wants; or
        enumerate: the problems, all of them.
        needs: names of Supports that must be declared.
        effort: how many times the usual number of problems.
        shrinks: a failing problem may be reduced: not where an enumeration has the smallest ones first.
    Example:
        >>> CHECKS["W02-own-query"].title
        'every query attends itself'
    """

    id: str
    title: str
    examine: Examine
    wish: Wish | None = None
    enumerate: Enumerate | None = None
    needs: tuple[str, ...] = ()
    effort: float = 1.0
    shrinks: bool = True

    def skips(self, kernel: Kernel) -> str | None:
        """Why the check does not apply to a kernel, or None when it does."""
        if kernel.windows_only and self.id[0] != "W":
            return "only windows can be read from a mask"
        if self.id[0] == "E" and not kernel.supports.errors:
            return "the kernel is declared without errors"
        for name in self.needs:
            if not getattr(kernel.supports, name):
                return f"the kernel is declared without {name}"
        return self.wish.possible(kernel.supports) if self.wish is not None else None

    def problems(self, supports: Supports, budget: str, seed: int) -> Iterator[Problem]:
        """The problems to examine: all of an enumeration, or as many random ones as the budget allows."""
        asked = supports if supports.min_layout == 1 else replace(supports, min_layout=1, accepts=None)
        if self.enumerate is not None:
            found = self.enumerate(asked, budget)
        else:
            count = max(1, round(BUDGETS[budget] * self.effort))
            found = random_problems(seed, self.id, asked, self.wish or Wish(), count)
        if asked is supports:
            return found
        longer = dict.fromkeys(supports.fit(problem) for problem in found)  # many become the same
        return iter([problem for problem in longer if supports.takes(problem)])


CHECKS: dict[str, Check] = {}


def check(
    id: str,
    wish: Wish | None = None,
    *,
    enumerate: Enumerate | None = None,
    needs: tuple[str, ...] = (),
    effort: float = 1.0,
    shrinks: bool | None = None,
) -> Callable[[Examine], Examine]:
    """Enter a function into the registry; its docstring is the title.

    Shapes:
        return: a decorator that returns the function itself
    Raises:
        ValueError: the id is taken, or starts with no known kind.
    Example:
        >>> check("Q01-unknown")
        Traceback (most recent call last):
        ValueError: a check's id starts with one of W, N, G, D, E, X, T, got 'Q01-unknown'
    """
    if id[:1] not in KINDS:
        raise ValueError(f"a check's id starts with one of {', '.join(KINDS)}, got {id!r}")

    def enter(examine: Examine) -> Examine:
        if id in CHECKS:
            raise ValueError(f"a check named {id} exists already")
        title = (examine.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        reduced = enumerate is None if shrinks is None else shrinks
        CHECKS[id] = Check(id, title[:1].lower() + title[1:], examine, wish, enumerate, needs, effort, reduced)
        return examine

    return enter


def select(names: Sequence[str] | None) -> list[Check]:
    """The checks whose ids are, or start with, one of the names; all of them for None, in the order of the report.

    Shapes:
        return: a list of Checks
    Raises:
        ValueError: a name that fits no check.
    Example:
        >>> [check.id for check in select(["W02"])]
        ['W02-own-query']
    """
    ordered = sorted(CHECKS.values(), key=lambda item: (list(KINDS).index(item.id[0]), item.id))
    if names is None:
        return ordered
    for name in names:
        if not any(item.id.startswith(name) for item in ordered):
            raise ValueError(f"no check is named {name!r}; the ids are {', '.join(item.id for item in ordered)}")
    return [item for item in ordered if any(item.id.startswith(name) for name in names)]
