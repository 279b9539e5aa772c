"""One operator, written several ways, a file each, all equal."""

from dinat_ref.attention.functional import na1d, na2d, na3d, neighborhood_attention
from dinat_ref.attention.merge import merge_attentions
from dinat_ref.attention.part import neighborhood_attention_part
from dinat_ref.attention.split import neighborhood_av, neighborhood_qk, neighborhood_weights

__all__ = [
    "merge_attentions",
    "na1d",
    "na2d",
    "na3d",
    "neighborhood_attention",
    "neighborhood_attention_part",
    "neighborhood_av",
    "neighborhood_qk",
    "neighborhood_weights",
]
