"""Packages that are only needed for some things."""

import importlib
from types import ModuleType


def need(module: str, extra: str) -> ModuleType:
    """Import an optional package, or say how to install it.

    Raises:
        ImportError: the package is missing.
    Example:
        >>> need("no_such_package", "hub")
        Traceback (most recent call last):
        ImportError: no_such_package is needed for this: pip install 'dinat-ref[hub]'
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise ImportError(f"{package} is needed for this: pip install 'dinat-ref[{extra}]'") from None
