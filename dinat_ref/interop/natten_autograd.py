"""NATTEN's autograd functions, which some programs import: here PyTorch finds the gradients itself."""

from collections.abc import Callable
from typing import Any


class AutogradFunction:
    """Stands where NATTEN has a subclass of ``torch.autograd.Function``: ``apply`` computes, and is differentiable.

    Example:
        >>> behind_apply("Double", lambda x: 2 * x).apply(21)
        42
    """

    apply: Callable[..., Any]


def behind_apply(name: str, function: Callable[..., Any]) -> type[AutogradFunction]:
    """Make the class whose ``apply`` is a function.

    Example:
        >>> behind_apply("Double", lambda x: 2 * x).__name__
        'Double'
    """
    return type(name, (AutogradFunction,), {"apply": staticmethod(function), "__doc__": f"{name}.apply(...)"})
