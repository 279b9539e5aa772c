"""The readable reference for neighborhood attention (NA), dilated neighborhood attention (DiNA) and DiNAT.

``import dinat_ref`` is light: PyTorch is imported with the first name that needs it.
"""

import importlib
import warnings

# `python -m dinat_ref.window` imports this package first and would warn that window is already imported
warnings.filterwarnings("ignore", message=r"'dinat_ref\.window' found in sys\.modules", category=RuntimeWarning)

from dinat_ref.window import window  # noqa: E402  # now: a later import of the module would take the function's name

TYPE_CHECKING = False  # as in typing, whose import would take longer than this package's
if TYPE_CHECKING:
    from dinat_ref.attention import (
        merge_attentions,
        na1d,
        na2d,
        na3d,
        neighborhood_attention,
        neighborhood_attention_part,
        neighborhood_av,
        neighborhood_qk,
        neighborhood_weights,
    )
    from dinat_ref.layers import (
        NeighborhoodAttention1D,
        NeighborhoodAttention2D,
        NeighborhoodAttention3D,
    )
    from dinat_ref.neighborhood import Neighborhood

__version__ = "0.1.0"

__all__ = [
    "Neighborhood",
    "NeighborhoodAttention1D",
    "NeighborhoodAttention2D",
    "NeighborhoodAttention3D",
    "merge_attentions",
    "na1d",
    "na2d",
    "na3d",
    "neighborhood_attention",
    "neighborhood_attention_part",
    "neighborhood_av",
    "neighborhood_qk",
    "neighborhood_weights",
    "window",
]
ROOMS = ("neighborhood", "attention", "layers")  # where these names live, from the lowest floor up


if not TYPE_CHECKING:  # a type checker is to know every name, and that there are no others

    def __getattr__(name: str) -> object:
        """Import what is asked for: a public name, or one of the rooms."""
        if name in ROOMS:
            return importlib.import_module(f"dinat_ref.{name}")
        if name in __all__:
            modules = (importlib.import_module(f"dinat_ref.{room}") for room in ROOMS)
            home = next(module for module in modules if hasattr(module, name))
            globals()[name] = value = getattr(home, name)  # the next time it is found at once
            return value
        raise AttributeError(f"module 'dinat_ref' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
