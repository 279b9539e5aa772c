"""The diagnosis: which known bug does what this kernel does?

Every wrong kernel of the corpus is run on problems where a check failed, and on some where it passed. The one that
does the same on most of them, and on the smallest that failed, names the bug.
"""

from typing import Any

import torch
from torch import Tensor

from dinat_ref.testing.checks.gradients import observe_gradients
from dinat_ref.testing.kernel import Kernel, Wrong
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.report.results import Result

FAILING = 0.7  # share of the failing problems on which a known bug must do the same, to be named

LONG = 500  # tokens above which only the bugs are tried that the check is there to find


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
    except Exception as error:
        return type(error).__name__


def same(one: Any, other: Any) -> bool:
    """Whether two observations agree to within rounding.

    Example:
        >>> same([torch.ones(3)], [torch.ones(3) + 1e-6]), same([torch.ones(3)], "ValueError")
        (True, False)
    """
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and isinstance(other, str) and one == other
    if len(one) != len(other):
        return False
    for a, b in zip(one, other, strict=True):
        if a.shape != b.shape:
            return False
        a, b = a.detach().double().cpu(), b.detach().double().cpu()
        finite = torch.isfinite(a)
        if bool((finite != torch.isfinite(b)).any()):
            return False
        difference = (a - b)[finite].abs()
        allowed = 1e-3 + 1e-3 * a[finite].abs()
        if bool((difference > allowed).any()):
            return False
    return True


def diagnose(kernel: Kernel, result: Result) -> str | None:
    """Name the known bug that explains a failed check, or None when none does.

    Shapes:
        return: a text such as "even kernel leans right (seen in ports)"
    Example:
        >>> from dinat_ref.testing.runner import check_kernel
        >>> from dinat_ref.testing.sabotage import CORPUS
        >>> report = check_kernel(CORPUS["even_kernel_leans_right"].kernel(), checks=["W12"])
        >>> report["W12-even-kernels"].looks_like
        'even kernel leans right (seen in ports)'
    """
    from dinat_ref.testing.sabotage import CORPUS

    kind = result.id[0]
    if kind in "DET":  # what these find does not show in an output: their own words name the bug
        fitting = [entry for entry in CORPUS.values() if entry.looks_like and result.id == entry.found_by[0]]
        fitting = [entry for entry in fitting if entry.explains(result.message)]
        return max(fitting, key=lambda entry: len(entry.symptom)).diagnosis if fitting else None
    failing, passing = result.evidence
    mine: dict[Problem, Any] = {problem: observe(kernel, problem, kind) for problem in failing + passing}
    long = any(problem.neighborhood.num_tokens > LONG for problem in mine)
    best: tuple[float, str] | None = None
    for entry in CORPUS.values():
        if not entry.looks_like or not (result.id in entry.found_by or entry.found_by[0][0] == kind):
            continue
        if long and entry.found_by[0] != result.id:
            continue  # dense masks of thousands of tokens
        suspect = Kernel(entry.function, kernel.supports, device=kernel.device)
        suspect.cache = entry.cache  # its windows, remembered from one diagnosis to the next
        if failing and not same(mine[failing[0]], observe(suspect, failing[0], kind)):
            continue  # the smallest failure decides
        fit = _share(suspect, failing, mine, kind)
        if fit < FAILING:
            continue
        fit += 0.5 * _share(suspect, passing, mine, kind)
        fit += 0.25 * (result.id == entry.found_by[0])  # of two that fit, the one this check is there to find
        if best is None or fit > best[0]:
            best = (fit, entry.diagnosis)
    return best[1] if best else None


def _share(suspect: Kernel, problems: list[Problem], seen: dict[Problem, Any], kind: str) -> float:
    """On what share of the problems a known bug does what was seen; all, where there are none."""
    agree = [same(seen[problem], observe(suspect, problem, kind)) for problem in problems]
    return sum(agree) / len(agree) if agree else 1.0
