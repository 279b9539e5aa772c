"""Standing in for a package that is not installed: ``import`` finds it, and so does whoever asks for its version."""

import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MARK = "__dinat_ref_stand_in__"


def install(
    name: str, version: str, contents: Mapping[str, Mapping[str, Any]], advice: str = "", file: str = __file__
) -> ModuleType:
    """Make a package importable in this process: its modules, by their full names, and what is in each.

    Args:
        advice: what the AttributeError of a name that is missing says besides.
        file: what the ImportError of such a name points to.
    Source: Python's import system, PEP 451 and PEP 562.
    Example:
        >>> package = install("no_such_package", "1.2.3", {"no_such_package.sub": {"answer": 42}}, "Ask elsewhere.")
        >>> from no_such_package.sub import answer
        >>> answer, importlib.metadata.version("no_such_package")
        (42, '1.2.3')
        >>> package.question
        Traceback (most recent call last):
        AttributeError: module 'no_such_package' has no attribute 'question'. Ask elsewhere.
        >>> remove("no_such_package")
    """
    remove(name)
    names = {name, *contents}
    names |= {module.rpartition(".")[0] for module in names} - {""}
    for module_name in sorted(names):  # a package before what is in it
        is_package = any(other.startswith(f"{module_name}.") for other in names)
        module = _module(module_name, advice, file, is_package)
        vars(module).update(contents.get(module_name, {}))
        vars(module)["__all__"] = sorted(contents.get(module_name, {}))
        parent, _, own_name = module_name.rpartition(".")
        if parent and own_name not in contents.get(parent, {}):  # natten.na2d: a module once, a function now
            vars(sys.modules[parent])[own_name] = module
    package = sys.modules[name]
    vars(package)["__version__"] = version
    if not any(isinstance(finder, _Metadata) for finder in sys.meta_path):
        sys.meta_path.append(_Metadata())
    return package


def is_stand_in(name: str) -> bool:
    """Whether a package is one that ``install`` made.

    Example:
        >>> is_stand_in("torch")
        False
    """
    return MARK in vars(sys.modules.get(name, sys))


def remove(name: str) -> None:
    """Take back ``install``; a real package is left alone.

    Example:
        >>> remove("torch")  # not ours
        >>> "torch" in sys.modules
        True
    """
    if is_stand_in(name):
        for module in [module for module in sys.modules if module == name or module.startswith(name + ".")]:
            del sys.modules[module]


def _module(name: str, advice: str, file: str, is_package: bool) -> ModuleType:
    """Make an empty module that ``import`` and ``importlib.util.find_spec`` find."""
    module = ModuleType(name, "Provided by dinat_ref.")
    module.__spec__ = ModuleSpec(name, None, origin=__name__, is_package=is_package)
    module.__file__ = file
    if is_package:
        module.__path__ = []
    vars(module)[MARK] = True
    vars(module)["__getattr__"] = _refuse(name, advice)
    sys.modules[name] = module
    return module


def _refuse(module: str, advice: str) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a module: what it has not got is an AttributeError that says where to look."""

    def __getattr__(name: str) -> Any:  # noqa: N807
        raise AttributeError(f"module {module!r} has no attribute {name!r}. {advice}".rstrip(), name=name)

    return __getattr__


class _Distribution(importlib.metadata.Distribution):
    """What ``importlib.metadata.version`` reads."""

    def __init__(self, name: str) -> None:
        self._stand_in = name

    def read_text(self, filename: str) -> str | None:
        version = sys.modules[self._stand_in].__version__
        text = f"Metadata-Version: 2.1\nName: {self._stand_in}\nVersion: {version}\n"
        return text if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        return __file__


class _Metadata(importlib.metadata.DistributionFinder):
    """Finds the versions of stand-ins, and no modules."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        return None

    def find_distributions(self, context: Any = None) -> Iterable[importlib.metadata.Distribution]:
        wanted = getattr(context, "name", None)
        names = [name for name in list(sys.modules) if "." not in name and is_stand_in(name)]
        return [_Distribution(name) for name in names if wanted in (None, name)]
