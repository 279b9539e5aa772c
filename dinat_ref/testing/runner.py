"""Running one check on one kernel: all its problems, what was found, and the smallest problem that shows it.

This is what happens where the kernel is (``session.py`` asks for it, from another process where that can be).
"""

import math
import time
from collections.abc import Iterable, Mapping, MutableSequence
from dataclasses import dataclass, field, replace

from dinat_ref.testing.causes import Causes, cause
from dinat_ref.testing.guard import interrupts_are_exits
from dinat_ref.testing.isolate import PATIENCE
from dinat_ref.testing.kernel import Kernel, Moot, Wrong
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.registry import Check
from dinat_ref.testing.report.description import what_it_takes, which_problems
from dinat_ref.testing.report.picture import draw_windows
from dinat_ref.testing.report.results import Result
from dinat_ref.testing.shrink import shrink

EVIDENCE = {1, 2, 3, 4, 5, 8, 13, 21, 34, 55, 89, 144, 233}  # of each outcome, the problems kept for the diagnosis
SHRINK_SECONDS = 2.0
FEW = 3  # failing problems, of which nothing is said in common
COMPILING = 300.0  # seconds that a transform may take beside
DEATHS = 4  # problems of one check that may end a process; those after the last are not posed


@dataclass(frozen=True)
class Terms:
    """How a check is run, beside its budget and seed.

    Args:
        step: of a slow kernel only every step-th problem is posed.
        seconds: after which no more problems are posed.
        deadly: numbers of problems that ended a process, with how they did.
        dead: dtypes that end the process, which are not tried again.
        causes: what has failed already and may explain a failure.
    Example:
        >>> Terms().step
        1
    """

    step: int = 1
    seconds: float = math.inf
    deadly: Mapping[int, str] = field(default_factory=dict)
    dead: tuple[str, ...] = ()
    causes: Causes = field(default_factory=dict)


def run_check(
    kernel: Kernel,
    check: Check,
    budget: str,
    seed: int,
    stop: bool = False,
    *,
    terms: Terms | None = None,
    problems: Iterable[Problem] | None = None,
    place: MutableSequence[float] | None = None,
) -> Result:
    """Run one check on all its problems, or on the ones given; ``stop`` ends it at the first failure.

    Whatever the kernel raises is a failure. ``place`` is told which problem is being posed, and how long it may take.

    Shapes:
        return: the Result: "passed", "failed", "skipped", or "follows" where all its failures follow from others
    Example:
        >>> from dinat_ref import na1d
        >>> from dinat_ref.testing.registry import CHECKS
        >>> from dinat_ref.testing.supports import Supports
        >>> run_check(Kernel(na1d, Supports(ndim={1})), CHECKS["W02-own-query"], "quick", 0).verdict
        'passed'
    """
    terms, result = terms or Terms(), Result(check.id, check.title)
    kernel = without(kernel, terms.dead)
    begin, place = time.perf_counter(), [-1.0, 0.0] if place is None else place
    skipped = check.skips(kernel)
    if skipped is not None:
        result.verdict, result.reason = "skipped", skipped
        return result
    first: tuple[Problem, Exception] | None = None
    failing, passing = result.evidence
    right: list[Problem] = []
    wrong: list[Problem] = []
    passed, moot = 0, "the declaration leaves no problem to pose"
    last = max(terms.deadly) if len(terms.deadly) >= DEATHS else math.inf
    for number, problem in enumerate(check.problems(kernel.supports, budget, seed) if problems is None else problems):
        late = time.perf_counter() - begin > terms.seconds and result.problems > 0
        if number > last or late:
            result.reason = "the time is up" if late else f"{DEATHS} problems have ended the process"
            result.reason += f": {result.problems} problems posed"
            break
        if number % (terms.step * (kernel.sparse if check.id[0] in "NGXDT" and check.wish is not None else 1)):
            continue
        place[0], place[1] = number, work(problem) / PATIENCE + (COMPILING if check.id[0] == "T" else 0.0)
        died = number in terms.deadly
        error, worst = (Wrong(terms.deadly[number]), None) if died else examine(kernel, check, problem)
        if isinstance(error, Moot):
            moot = str(error)
            continue
        result.problems += 1
        blind = error is None or died
        origin = None if blind else cause(kernel, check.id, problem, terms.causes)
        if worst is not None and origin is None:
            result.worst = max(result.worst or 0.0, worst)
        if error is None:
            right.append(problem)
            passed += 1
            passing += [problem] if passed in EVIDENCE else []
            continue
        if origin is not None:
            result.origins.setdefault(origin, 0)
            result.origins[origin] += 1
            continue
        wrong.append(problem)
        result.failing += 1
        failing += [problem] if result.failing in EVIDENCE else []
        first = first or (problem, error)
        if stop:
            break
    result.seconds = time.perf_counter() - begin
    if first is not None:
        result.verdict = "failed"
        write_down(result, *first)
        result.seen = which_problems(wrong, right) if result.problems > 1 else ""
    elif result.origins:
        result.verdict, origins = "passed" if passed else "follows", ", ".join(result.origins)
        aside = sum(result.origins.values())
        result.reason = f"{aside} problems follow from {origins}" if passed else f"from {origins}"
    elif result.problems:
        result.verdict = "passed"
    else:
        result.verdict, result.reason = "skipped", moot
    return result


def work(problem: Problem) -> float:
    """Roughly, the multiplications of a problem.

    Example:
        >>> work(Problem("1d 9 k3 d1 h2 e4 f32 seed0"))
        432.0
    """
    keys = math.prod(problem.kernel_size) + problem.extra_keys
    tokens = math.prod(problem.layout) * problem.batch * problem.heads
    return float(tokens * keys * (problem.head_dim + problem.head_dim_v))


def without(kernel: Kernel, dtypes: tuple[str, ...]) -> Kernel:
    """The same kernel, with some dtypes no longer asked of it.

    Example:
        >>> without(Kernel(print), ("f16",)).supports.dtypes
        ('f32', 'f64', 'bf16')
    """
    alive = [name for name in kernel.supports.dtypes if name not in dtypes]
    if len(alive) == len(kernel.supports.dtypes) or not alive:
        return kernel
    declared = kernel.declared or kernel.supports
    return replace(kernel, supports=replace(kernel.supports, dtypes=alive), declared=declared)


def examine(kernel: Kernel, check: Check, problem: Problem) -> tuple[Exception | None, float | None]:
    """Examine one problem: what was found, and the worst error as a multiple of the budget.

    Example:
        >>> from dinat_ref import na1d
        >>> from dinat_ref.testing.registry import CHECKS
        >>> examine(Kernel(na1d), CHECKS["W02-own-query"], Problem("1d 4 k3 d1 h1 e1 f32 seed0"))
        (None, None)
    """
    try:
        with interrupts_are_exits():
            return None, check.examine(kernel, problem)
    except Wrong as error:
        return error, error.multiple
    except SystemExit as error:
        return Wrong(f"the kernel ended the process with exit({error}) instead of raising an error"), None
    except Exception as error:
        return error, None


def write_down(result: Result, problem: Problem, error: Exception) -> None:
    """Write into a result what was found on a problem.

    Example:
        >>> result = Result("W02-own-query", "every query attends itself")
        >>> write_down(result, Problem("1d 4 k3 d1 h1 e1 f32 seed0"), Wrong("alas"))
        >>> result.message
        'alas'
    """
    result.problem, text = str(problem), " ".join(str(error).split())
    result.message = text if isinstance(error, Wrong) else f"raised {type(error).__name__}: {text[:300]}"
    if isinstance(error, Wrong) and error.expected is not None and len(error.expected) <= 256:
        result.drawing = draw_windows(problem, error.expected, error.got)


def reduce(kernel: Kernel, check: Check, result: Result, terms: Terms) -> Result:
    """Describe a failed check on the smallest problem near the first that shows it; windows are listed smallest first.

    Shapes:
        return: the result, which is changed
    """
    if not check.shrinks or not result.problem or terms.deadly:
        return result
    problem = Problem(result.problem)
    kind, until = result.message.partition(":")[0], time.perf_counter() + SHRINK_SECONDS
    found: dict[Problem, Exception] = {}
    right: set[Problem] = set()

    def fails(candidate: Problem) -> bool:
        if time.perf_counter() > until or not kernel.supports.takes(candidate):
            return False
        again, _ = examine(kernel, check, candidate)
        if again is None:
            right.add(candidate)
        if again is None or isinstance(again, Moot) or cause(kernel, check.id, candidate, terms.causes):
            return False
        found[candidate] = again
        raised = "" if isinstance(again, Wrong) else f"raised {type(again).__name__}"
        return raised == kind if kind.startswith("raised ") else not raised

    smallest = shrink(problem, fails)
    if smallest in found and smallest != problem:
        write_down(result, smallest, found[smallest])
        result.evidence[0].insert(0, smallest)
    if check.enumerate is not None or result.failing < FEW:  # they differ in much: what they share may be chance
        result.seen = what_it_takes(smallest, right)
    return result
