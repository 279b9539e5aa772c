"""One bug, one finding: which failures follow from windows, or from numbers, that are wrong already.

A kernel whose even windows lean to the wrong side has wrong numbers and gradients for even kernel sizes, too. Such a
problem is set aside where the kernel is seen to go wrong on it in a simpler way: its window is not the definition's
and the check of such windows has failed, or its plain output is wrong and the check of plain outputs has failed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from dinat_ref.testing.checks.enumeration import FILLERS, Axis, combine, family
from dinat_ref.testing.checks.plain import expected_mask
from dinat_ref.testing.checks.yardstick import Yardstick, run
from dinat_ref.testing.kernel import Kernel, Moot, Wrong
from dinat_ref.testing.problem import Inputs, Problem
from dinat_ref.testing.registry import CHECKS
from dinat_ref.testing.supports import Supports

EXACT = {  # the exact comparison of each family of windows, the simplest first
    "odd": "W11-odd-kernels",
    "even": "W12-even-kernels",
    "dilation": "W13-dilation",
    "stride": "W14-stride",
    "causal": "W15-causal",
    "causal stride": "W16-causal-stride",
}
COMBINED = ("W17-two-axes", "W18-three-axes")
NUMBERS = {"f32": "N01-float32", "f64": "N02-float64", "bf16": "N03-bfloat16", "f16": "N04-float16"}
LSE, LARGE = "N16-lse", "N31-realistic-sizes"
EXACTLY = ("D08", "D11", "D12", "D13", "T04")  # they compare with exact numbers, their like with the kernel itself
THRESHOLD = 1e-6  # of a weight that counts as attended: the smallest true weight read is 1 / 500
READABLE = 500  # tokens up to which a window is read again

Causes = Mapping[str, str]  # a check that failed already, and the one that it follows from: itself, if from none


def cause(kernel: Kernel, id: str, problem: Problem, causes: Causes) -> str | None:
    """The failed check that a failure follows from, or None where it is a finding of its own.

    Example:
        >>> cause(Kernel(print), "N01-float32", Problem("1d 4 k2 d1 h1 e1 f32 seed0"), {})
    """
    if not causes or id[0] == "E" or (id[0] == "W" and id < "W12"):
        return None
    if id[0] == "W":
        for law in (other for other in causes if other < "W11" <= id):  # the law says more than the comparison
            if fails(kernel, law, problem):
                return causes[law]
        for simpler in ancestors(problem, kernel.supports):
            found = [causes[check] for check in checks_of(simpler) if check in causes and check < id]
            if found and has_wrong_window(kernel, simpler):
                return found[-1]
        return None
    combined = COMBINED if problem.ndim > 1 else ()
    found = [causes[check] for check in (*checks_of(problem), *combined) if check in causes]
    if found and (problem.neighborhood.num_tokens > READABLE or has_wrong_window(kernel, problem)):
        return found[0]
    simple = _cause_in_numbers(kernel, id, problem, causes)
    if simple is not None or id[0] != "G":
        return simple
    return next((causes[other] for other in causes if is_base(other) and fails(kernel, other, problem)), None)


def is_base(id: str) -> bool:
    """Whether a failure of windows, plain numbers or gradients can explain that of another check."""
    return id[0] in "WG" or id in (*NUMBERS.values(), LSE, LARGE)


def fails(kernel: Kernel, id: str, problem: Problem) -> bool:
    """Whether a check rejects what a kernel does on a problem."""
    try:
        CHECKS[id].examine(kernel, problem)
    except Moot:
        return False
    except (Exception, SystemExit):
        return True
    return False


def _cause_in_numbers(kernel: Kernel, id: str, problem: Problem, causes: Causes) -> str | None:
    """The check of plain outputs that failed, where the plain output of this problem is wrong, too."""
    main, own = kernel.supports.main_dtype, NUMBERS[problem.dtype_name]
    if id in NUMBERS.values():  # the other dtypes follow from the first
        problem, own = problem.but(dtype_name=main), NUMBERS[main]
    with_lse = LSE in causes and id != LSE and "lse" in CHECKS[id].needs
    if own == id or not (own in causes or with_lse) or problem.neighborhood.num_tokens > READABLE:
        return None
    problem = problem.but(scale=None, strided=False, rpb=False)
    inputs = problem.inputs(kernel.device)
    try:
        if with_lse:
            return causes[LSE] if _has_wrong_lse(kernel, problem, inputs) else None
        output = run(kernel, problem, inputs)
        if id[0] in "DT" and id[:3] not in EXACTLY and bool(output.isfinite().all()):
            return None  # they compare the kernel with itself
        Yardstick(problem, inputs).output_is(output)
    except (Exception, SystemExit):
        return causes[own]
    return None


def _has_wrong_lse(kernel: Kernel, problem: Problem, inputs: Inputs) -> bool:
    """Whether the lse of a problem is wrong."""
    with torch.no_grad():
        _, lse = kernel.attend(problem, inputs, return_lse=True)
    assert lse is not None
    try:
        Yardstick(problem, inputs).lse_is(lse)
    except Wrong:
        return True
    return False


def checks_of(problem: Problem) -> list[str]:
    """The exact comparisons that a problem's axes fall under, the simplest first."""
    families = {family(axis) for axis in problem.neighborhood.axes}
    return [id for name, id in EXACT.items() if name in families]


def has_wrong_window(kernel: Kernel, problem: Problem) -> bool:
    """Whether zero queries show a window that is not the definition's; no window at all is a matter of numbers."""
    plain = problem.but(extra_keys=0, rpb=False, scale=None, strided=False, dtype_name=kernel.supports.main_dtype)
    plain = plain.but(batch=1, heads=1, heads_kv=1, head_dim=1, head_dim_v=1, seed=0)
    try:
        attended = kernel.weights(plain).abs() > THRESHOLD
    except (Exception, SystemExit):
        return True
    return bool(attended.any(1).all()) and bool((attended ^ expected_mask(problem.neighborhood)).any())


def ancestors(problem: Problem, supports: Supports) -> Iterator[Problem]:
    """The same windows with one feature less: every axis without its dilation, stride, causality, evenness; alone.

    Example:
        >>> list(ancestors(Problem("1d 8 k3 s2 d1 causal h1 e1 f32 seed0"), Supports()))
        [Problem("1d 8 k3 d1 causal h1 e1 f32 seed0"), Problem("1d 8 k3 s2 d1 h1 e1 f32 seed0")]
    """
    axes, asked = list(problem.neighborhood.axes), replace(supports, min_layout=1, accepts=None)
    for index, axis in enumerate(axes):
        options = [[*axes[:index], plainer, *axes[index + 1 :]] for plainer in _plainer(axis)]
        if len(axes) > 1:
            fillers = [FILLERS[other % 2] for other in range(len(axes) - 1)]
            options.append([*fillers[:index], axis, *fillers[index:]])
        for option in options:
            found = combine(tuple(option), asked) if option != axes else None
            if found is not None and supports.takes(supports.fit(found)):
                yield supports.fit(found)


def _plainer(axis: Axis) -> Iterator[Axis]:
    """One feature less on one axis."""
    length, kernel_size, stride, dilation, is_causal = axis
    if dilation > 1:
        yield max(length // dilation, kernel_size), kernel_size, stride, 1, is_causal
        yield max(-(-length // dilation), kernel_size), kernel_size, stride, 1, is_causal  # groups differ by one
    if stride > 1:
        yield length, kernel_size, 1, dilation, is_causal
    if is_causal:
        yield length, kernel_size, stride, dilation, False
    if kernel_size % 2 == 0:
        yield length, kernel_size - 1, min(stride, kernel_size - 1), dilation, is_causal
