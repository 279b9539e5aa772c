"""The corpus of wrong kernels: who watches the watchmen.

Every one of them is a right kernel with one small change, named after a bug that somebody shipped or that comments in
kernel code warn of. The checks must reject each, by the check that names it; the diagnosis compares with them.
"""

from dinat_ref.testing.sabotage import axes, behaviour, gradients, limits, numbers, windows  # noqa: F401  (they enter themselves)
from dinat_ref.testing.sabotage.base import CORPUS, DenseKernel, Sabotage

__all__ = ["CORPUS", "DenseKernel", "Sabotage"]
