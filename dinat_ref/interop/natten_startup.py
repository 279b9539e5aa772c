"""What a Python process does at its start to find a stand-in for NATTEN later: nothing is imported before natten is.

Where the variable DINAT_REF_NATTEN names a release, ``import natten`` installs the stand-in for it, unless the real
NATTEN is found first; and when transformers' Dinat gets imported, ``enable_dinat()`` looks after it. ``dinat-ref run``
lets every process find this file through ``startup/sitecustomize.py``, ``dinat-ref run --always`` through a .pth file.
It is run by its path and needs the standard library alone, for it runs before any program.
"""

import importlib.metadata
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

VARIABLE = "DINAT_REF_NATTEN"
RUN_NAME = "dinat_ref_natten_startup"  # the __name__ under which this file starts something
HERE = os.path.dirname(os.path.abspath(__file__))
DINAT = "transformers.models.dinat.modeling_dinat"


class NattenFinder(importlib.metadata.DistributionFinder, Loader):
    """Asked last for modules: installs the stand-in when natten is imported, and knows its version before.

    Example:
        >>> NattenFinder("0.17").find_spec("natten").name
        'natten'
        >>> NattenFinder("0.17").find_spec("numpy") is None
        True
    """

    stands_in = True  # how ``is_natten_installed`` tells it from the real NATTEN

    def __init__(self, version: str) -> None:
        """Remember the release that is wanted."""
        self.version = version

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find natten; what is inside it is there once it is imported."""
        return ModuleSpec(fullname, self, origin=__file__, is_package=True) if fullname == "natten" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Install the stand-in."""
        from dinat_ref.interop.natten import install_as_natten

        return install_as_natten(self.version)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to do."""

    def find_distributions(self, context: Any = None) -> Iterable[importlib.metadata.Distribution]:
        """Find the version, for whoever asks before natten is imported."""
        wanted = getattr(context, "name", None)
        return [NattenDistribution(self.version)] if wanted in (None, "natten") and "natten" not in sys.modules else []


class NattenDistribution(importlib.metadata.Distribution):
    """What ``importlib.metadata.version("natten")`` reads.

    Example:
        >>> NattenDistribution("0.17").version
        '0.17.5'
    """

    name = "natten"

    def __init__(self, version: str) -> None:
        """Remember the release that is wanted."""
        self._wanted = version

    def read_text(self, filename: str) -> str | None:
        """Make up the metadata."""
        if filename != "METADATA":
            return None
        spec = importlib.util.spec_from_file_location("_natten_surface", os.path.join(HERE, "natten_surface.py"))
        assert spec is not None
        assert spec.loader is not None
        surface = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(surface)  # by its path: importing dinat_ref would import torch
        return f"Metadata-Version: 2.1\nName: natten\nVersion: {surface.find_release(self._wanted)}\n"

    def locate_file(self, path: Any) -> Any:
        """There is no file."""
        return __file__


class DinatFinder(MetaPathFinder):
    """Asked first for modules: lets ``enable_dinat()`` follow the import of transformers' Dinat.

    Example:
        >>> DinatFinder().find_spec("numpy") is None
        True
    """

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Find Dinat as everybody else does, and append to how it is executed."""
        if fullname != DINAT:
            return None
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_enable(module: ModuleType) -> None:
                execute(module)
                _enable(module)

            spec.loader.exec_module = execute_and_enable  # type: ignore[method-assign]
        return spec


def _enable(dinat: ModuleType) -> None:
    """Look after transformers' Dinat; the program goes on in any case."""
    try:
        from dinat_ref.interop import natten_legacy
        from dinat_ref.interop.stand_in import is_stand_in
        from dinat_ref.interop.transformers import enable_dinat

        if is_stand_in("natten"):  # in the order that Dinat uses, whatever release the program is for
            dinat.__dict__.update({name: getattr(natten_legacy, name) for name in ("natten2dqkrpb", "natten2dav")})
        enable_dinat()
    except Exception as error:
        warnings.warn(f"transformers' Dinat could not be enabled: {type(error).__name__}: {error}", stacklevel=2)


def child_environment(version: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The two variables by which Python processes find the stand-in, added to what an environment has.

    Example:
        >>> child_environment("0.17", {"HOME": "/home/me"})["DINAT_REF_NATTEN"]
        '0.17'
    """
    folder = os.path.join(HERE, "startup")
    path = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry and entry != folder]
    return {VARIABLE: version, "PYTHONPATH": os.pathsep.join([folder, *path])}


def start() -> None:
    """Let this process find the stand-in that DINAT_REF_NATTEN names, if it names one.

    Example:
        >>> start()  # without the variable: nothing
    """
    version = os.environ.get(VARIABLE)
    if not version or any(getattr(finder, "stands_in", False) for finder in sys.meta_path):
        return
    if importlib.util.find_spec("dinat_ref") is None:  # run from a folder that is not installed
        sys.path.append(os.path.dirname(os.path.dirname(HERE)))
    sys.meta_path.append(NattenFinder(version))
    sys.meta_path.insert(0, DinatFinder())


if __name__ == RUN_NAME:
    start()
