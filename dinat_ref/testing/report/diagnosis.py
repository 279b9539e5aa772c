"""The diagnosis: which known bug does what this kernel does?

Every wrong kernel of the corpus is run on problems where a check failed, and on some where it passed. One that does
the same on all of them names the bug. A wrong name is worse than none: where none fits, ``description.py`` says what is
seen.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dinat_ref.testing.checks.gradients import observe_gradients
from dinat_ref.testing.kernel import Kernel, Wrong
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.registry import CHECKS
from dinat_ref.testing.report.results import Result
from dinat_ref.testing.runner import examine

LIKENESS = 0.1  # of the error: how far a known bug's output may be from the kernel's, to be the same mistake
KINDS = {"W": "WN", "N": "NX", "G": "GNX", "X": "NXW"}  # bugs of which kinds a failure may show
LONG = 500  # tokens above which only the bugs are tried that the check is there to find


class Raised(str):
    """The name of an exception, where a kernel raised one."""


def observe(kernel: Kernel, problem: Problem, kind: str) -> list[Tensor] | str:
    """What a kernel does on a problem: tensors, or in words how it failed.

    Shapes:
        W: weights [N, N]; G: the gradients; otherwise output and lse
    Example:
        >>> from dinat_ref import na1d
        >>> observe(Kernel(na1d), Problem("1d 3 k3 d1 h1 e1 f32 seed0"), "W")[0].shape
        torch.Size([3, 3])
    """
    try:
        if kind == "W":
            return [kernel.weights(problem)]
        inputs = problem.inputs(kernel.device)
        if kind != "G":
            output, lse = kernel.attend(problem, inputs, return_lse=kernel.supports.lse)
            return [output, *([lse] if lse is not None else [])]
        return observe_gradients(kernel, problem, inputs)
    except Wrong as error:
        return str(error)
    except (Exception, SystemExit) as error:
        return Raised(type(error).__name__)


def same(one: Any, other: Any, right: Any = None) -> bool:
    """Whether two observations agree to within rounding, or make the same mistake beside a right one.

    Example:
        >>> same([torch.ones(3)], [torch.ones(3) + 1e-6]), same([torch.ones(3)], "ValueError")
        (True, False)
        >>> same([torch.ones(3)], [torch.ones(3) + 0.01], right=[torch.zeros(3)])
        True
    """
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and isinstance(other, str) and one == other
    shapes = [tensor.shape for tensor in one]
    if shapes != [tensor.shape for tensor in other]:
        return False
    if isinstance(right, str) or right is None or shapes != [tensor.shape for tensor in right]:
        right = one
    for tensors in zip(one, other, right, strict=True):
        a, b, exact = (tensor.detach().double().cpu() for tensor in tensors)
        finite = torch.isfinite(a)
        if bool((finite != torch.isfinite(b)).any()):
            return False
        a, b, exact = a[finite], b[finite], exact[finite].nan_to_num()
        if not a.numel():
            continue
        rounding = 64 * torch.finfo(tensors[0].dtype).eps * (1.0 + float(exact.abs().amax()))
        if float((a - b).abs().amax()) > max(rounding, LIKENESS * float((a - exact).abs().amax())):
            return False
    return True


def diagnose(kernel: Kernel, result: Result, known: Sequence[str] = ()) -> str | None:
    """Name the known bug that explains all the evidence of a failed check, or None when none does.

    Args:
        known: diagnoses of other checks; of several that fit, one bug for both is the likelier.

    Shapes:
        return: a text such as "even kernel leans right (seen in ports)"
    Example:
        >>> from dinat_ref.testing.verify import check_kernel
        >>> from dinat_ref.testing.sabotage import CORPUS
        >>> report = check_kernel(CORPUS["even_kernel_leans_right"].kernel(), checks=["W12"])
        >>> report["W12-even-kernels"].looks_like
        'even kernel leans right (seen in ports)'
    """
    from dinat_ref.testing.sabotage import CORPUS, DenseKernel

    kind = result.id[0]
    failing, passing = result.evidence
    if kind in "DET":  # what these find may not show in an output: their own words and their own check name the bug
        return by_words(result, lambda entry: _behaves(entry, kernel, result))
    right = Kernel(DenseKernel(), kernel.supports, device=kernel.device)
    seen: dict[Problem, Any] = {problem: observe(kernel, problem, kind) for problem in failing + passing}
    exact: dict[Problem, Any] = {problem: observe(right, problem, kind) for problem in seen}
    if not passing and len(set(map(str, seen.values()))) == 1 and isinstance(seen[failing[0]], Raised):
        return None  # whatever is wrong, the kernel was not heard
    long = any(problem.neighborhood.num_tokens > LONG for problem in seen)
    best: tuple[bool, bool, str] | None = None
    for entry in CORPUS.values():
        if not entry.looks_like or not (result.id in entry.found_by or entry.found_by[0][0] in KINDS[kind]):
            continue
        if long and entry.found_by[0] != result.id:
            continue  # dense masks of thousands of tokens
        suspect = Kernel(entry.function, kernel.supports, device=kernel.device)
        suspect.cache = entry.cache  # its windows, remembered from one diagnosis to the next
        if all(same(seen[problem], observe(suspect, problem, kind), exact[problem]) for problem in seen):
            rank = (entry.diagnosis in known, result.id == entry.found_by[0], entry.diagnosis)
            if (best is None or rank[:2] > best[:2]) and (kind == "W" or _verdicts(kernel, suspect, result)):
                best = rank
    return best[-1] if best else None


def _verdicts(kernel: Kernel, suspect: Kernel, result: Result) -> bool:
    """Whether a known bug passes and fails a check where the kernel does, by errors of the same size."""
    check, (failing, passing) = CHECKS[result.id], result.evidence
    for problem in failing:
        mine, theirs = (examine(each, check, problem) for each in (kernel, suspect))
        if theirs[0] is None or not 1 - LIKENESS <= _ratio(mine[1], theirs[1]) <= 1 + LIKENESS:
            return False
    return all(examine(suspect, check, problem)[0] is None for problem in passing)


def _ratio(one: float | None, other: float | None) -> float:
    """How much larger one error is than another; 1 where both or neither can be measured."""
    one, other = (math.inf if error is None else error for error in (one, other))
    return 1.0 if one == other else one / other


def by_words(result: Result, behaves: Callable[[Any], bool] = bool) -> str | None:
    """Name the known bug that fits the words of a finding; the most special of several.

    Example:
        >>> by_words(Result("D10-survives", "", message="the kernel ended the process with status 1"))
        'a dtype ends the process (seen in NATTEN 0.17.5, fp16 on the CPU)'
    """
    from dinat_ref.testing.sabotage import CORPUS

    fitting = [entry for entry in CORPUS.values() if entry.looks_like and result.id == entry.found_by[0]]
    fitting = [entry for entry in fitting if entry.explains(result.message) and behaves(entry)]
    return max(fitting, key=lambda entry: len(entry.symptom)).diagnosis if fitting else None


def _behaves(entry: Any, kernel: Kernel, result: Result) -> bool:
    """Whether a known bug passes and fails a check where the kernel does, with numbers where the kernel has some."""
    suspect = Kernel(entry.function, kernel.supports, device=kernel.device)
    for problem in (problem for problems in result.evidence for problem in problems):
        mine, theirs = observe(kernel, problem, "N"), observe(suspect, problem, "N")
        if isinstance(mine, str) or isinstance(theirs, str):
            if str(mine) != str(theirs):
                return False
        elif _finite(mine) != _finite(theirs):
            return False
    return _verdicts(kernel, suspect, result)


def _finite(tensors: list[Tensor]) -> bool:
    """Whether all numbers are."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
