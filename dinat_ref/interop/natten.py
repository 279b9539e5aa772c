"""NATTEN's names on any device, and a stand-in for the package where it is not installed.

``install_as_natten()`` makes ``import natten`` find them, for the release that a program was written for::

    from dinat_ref.interop.natten import install_as_natten
    install_as_natten("0.17")
    from natten import NeighborhoodAttention2D, has_fused_na
    from natten.functional import na2d_av, na2d_qk

``dinat-ref run`` does so for a program that is not to be edited. What each release offers stands in ``natten_surface``;
what is its own in ``natten_releases``; this module has the functions of the newest.
"""

import importlib
import importlib.util
import os
from types import ModuleType
from typing import Any

from dinat_ref.interop import (
    natten_attention,
    natten_context,
    natten_flags,
    natten_flops,
    natten_legacy,
    natten_startup,
    natten_surface,
    natten_utils,
)
from dinat_ref.interop.natten_attention import attention as attention
from dinat_ref.interop.natten_releases.v0_21_7 import merge_attentions as merge_attentions
from dinat_ref.interop.natten_releases.v0_21_7 import na1d as na1d
from dinat_ref.interop.natten_releases.v0_21_7 import na2d as na2d
from dinat_ref.interop.natten_releases.v0_21_7 import na3d as na3d
from dinat_ref.interop.natten_surface import SURFACES, find_release, read_surface
from dinat_ref.interop.stand_in import install, is_stand_in, remove

# the same in all releases
SHARED = (natten_legacy, natten_flags, natten_context, natten_utils, natten_flops, natten_attention)


def is_natten_installed() -> bool:
    """Whether the real NATTEN can be imported (the stand-in of ``install_as_natten`` does not count).

    Example:
        >>> isinstance(is_natten_installed(), bool)
        True
    """
    spec = None if is_stand_in("natten") else importlib.util.find_spec("natten")
    return spec is not None and not hasattr(spec.loader, "stands_in")  # natten_startup's, which waits to be imported


def offered(version: str) -> dict[str, dict[str, Any]]:
    """Collect what a release offers, module by module, with what releases before it offered and it dropped.

    Raises:
        ValueError: another version.
    Example:
        >>> offered("0.21")["natten.functional"]["natten2dqkrpb"].__name__  # lent from 0.15.1
        'natten2dqkrpb'
        >>> "natten.context" in offered("0.15")  # programs ask, to tell 0.17
        False
    """
    contents: dict[str, dict[str, Any]] = {}
    for release in list(SURFACES)[: list(SURFACES).index(find_release(version)) + 1]:
        own = importlib.import_module(f"dinat_ref.interop.natten_releases.v{release.replace('.', '_')}")
        for module, names in read_surface(release).items():
            found = {name: next(getattr(m, name) for m in (own, *SHARED) if hasattr(m, name)) for name in names}
            contents.setdefault(module, {}).update(found)
    return contents


def install_as_natten(version: str = "0.21", *, children: bool = False) -> ModuleType:
    """Let ``import natten`` find this package's functions, in this process, where no NATTEN is installed.

    ``version`` says which release a program was written for: orders of arguments and defaults are that release's.
    Names that older releases had, and no longer this one, are there too. Calling it again changes the release.

    Args:
        version: a release, such as "0.14.4" or "0.17.1", or a series: "0.14", "0.15", "0.17", "0.20", "0.21".
        children: let Python processes that this one starts find it as well, such as spawned workers, by two variables
            of the environment.
    Returns:
        The module that ``import natten`` gives.
    Raises:
        ImportError: the real NATTEN is installed: it is left alone.
        ValueError: another version.
    Example:
        >>> install_as_natten("0.17").__version__
        '0.17.5'
        >>> from natten.functional import na2d_qk
        >>> remove_natten()
    """
    contents = offered(version)
    if is_natten_installed():
        raise ImportError("NATTEN is installed here: it is left as it is; import dinat_ref.interop.natten instead")
    if children:
        os.environ.update(natten_startup.child_environment(version, os.environ))
    release = find_release(version)
    advice = f"dinat_ref stands in for NATTEN {release}; what it serves: tutorials/site/natten.md"
    return install("natten", release, contents, advice, natten_surface.__file__)


def remove_natten() -> None:
    """Take back ``install_as_natten``; a real NATTEN is left alone.

    Example:
        >>> remove_natten()
    """
    if is_stand_in("natten"):
        os.environ.pop(natten_startup.VARIABLE, None)
    remove("natten")
