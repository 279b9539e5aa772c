"""Adapters whose kernels another process can have: a closure cannot be sent there, but what it was made of can."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, ParamSpec

Function = Callable[..., Any]
P = ParamSpec("P")


class Sendable:
    """A kernel that travels as the adapter that made it and its arguments, and is made again on arrival.

    Args:
        make: the adapter, by the name under which it is imported, with its arguments.
        kernel: what it made here.
    Example:
        >>> import pickle
        >>> from dinat_ref import na1d
        >>> from dinat_ref.testing.ports.adapters import by_axes
        >>> pickle.loads(pickle.dumps(by_axes({1: na1d}))).__name__
        'na1d'
    """

    def __init__(self, make: "partial[Sendable]", kernel: Function) -> None:
        """Keep both."""
        self.make, self.__wrapped__ = make, kernel  # whoever reads the signature reads the kernel's
        self.__name__ = str(getattr(kernel, "__name__", type(kernel).__name__))

    def __call__(self, *given: Any, **arguments: Any) -> Any:
        """Call the kernel."""
        return self.__wrapped__(*given, **arguments)

    def __reduce__(self) -> tuple["partial[Sendable]", tuple[()]]:
        return self.make, ()


def sendable(adapter: Callable[P, Function]) -> Callable[P, Sendable]:
    """Let the kernels of an adapter be sent to another process, where all that they are made of can be imported.

    Example:
        >>> from dinat_ref.testing.isolate import can_be_sent
        >>> from dinat_ref.testing.ports.foreign import from_arrays
        >>> can_be_sent(from_arrays(sum)), can_be_sent(from_arrays(lambda query: query))
        (True, False)
    """

    @wraps(adapter)
    def make(*given: P.args, **named: P.kwargs) -> Sendable:
        return Sendable(partial(make, *given, **named), adapter(*given, **named))

    return make
