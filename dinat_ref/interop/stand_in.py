"""Standing in for a package that is not installed: ``import`` finds it, and so does whoever asks for its version."""

import importlib.metadata
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MARK = "__dinat_ref_stand_in__"


def install(name: str, version: str, contents: Mapping[str, Any], submodules: Sequence[str] = ()) -> ModuleType:
    """Make a package importable in this process; it and its submodules all have the same contents.

    Source: Python's import system, PEP 451.
    Example:
        >>> package = install("no_such_package", "1.2.3", {"answer": 42}, submodules=("sub",))
        >>> from no_such_package.sub import answer
        >>> answer, importlib.metadata.version("no_such_package")
        (42, '1.2.3')
        >>> remove("no_such_package")
    """
    package = _module(name, is_package=True)
    for submodule in submodules:
        vars(package)[submodule] = _module(f"{name}.{submodule}")
    for module in (package, *(vars(package)[submodule] for submodule in submodules)):
        vars(module).update(contents)
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
    return hasattr(sys.modules.get(name), MARK)


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


def _module(name: str, is_package: bool = False) -> ModuleType:
    """Make an empty module that ``import`` and ``importlib.util.find_spec`` find."""
    module = ModuleType(name, "Provided by dinat_ref.")
    module.__spec__ = ModuleSpec(name, None, origin=__name__, is_package=is_package)
    module.__file__ = __file__
    if is_package:
        module.__path__ = []
    vars(module)[MARK] = True
    sys.modules[name] = module
    return module


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
