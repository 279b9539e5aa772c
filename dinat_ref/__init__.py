"""The readable reference for neighborhood attention (NA), dilated neighborhood attention (DiNA) and DiNAT."""

import warnings

# `python -m dinat_ref.window` imports this package first and would warn that window is already imported
warnings.filterwarnings("ignore", message=r"'dinat_ref\.window' found in sys\.modules", category=RuntimeWarning)

from dinat_ref.attention import (  # noqa: E402
    merge_attentions,
    na1d,
    na2d,
    na3d,
    neighborhood_attention,
    neighborhood_av,
    neighborhood_qk,
    neighborhood_weights,
)
from dinat_ref.layers import (  # noqa: E402
    NeighborhoodAttention1D,
    NeighborhoodAttention2D,
    NeighborhoodAttention3D,
)
from dinat_ref.neighborhood import Neighborhood  # noqa: E402
from dinat_ref.window import window  # noqa: E402

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
    "neighborhood_av",
    "neighborhood_qk",
    "neighborhood_weights",
    "window",
]
