"""The verification kit: find what is wrong with a neighborhood-attention kernel, in words, on the smallest case.

from dinat_ref.testing import Supports, check_kernel
print(check_kernel(my_kernel, supports=Supports(ndim={2}, stride=False)))
"""

from dinat_ref.testing.checks import (  # noqa: F401  (they enter themselves into the registry)
    behaviour,
    calls,
    errors,
    gradients,
    laws,
    limits,
    numbers,
    sizes,
    state,
    transforms,
    windows,
)
from dinat_ref.testing.kernel import Kernel, Wrong
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.report.results import KernelFailure, Report, Result
from dinat_ref.testing.strategies import parametrize_with_checks, problems
from dinat_ref.testing.supports import Supports
from dinat_ref.testing.verify import check_kernel

__all__ = [
    "Kernel",
    "KernelFailure",
    "Problem",
    "Report",
    "Result",
    "Supports",
    "Wrong",
    "check_kernel",
    "parametrize_with_checks",
    "problems",
]
