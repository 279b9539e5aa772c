"""NATTEN 0.14.6: kernel_size behind num_heads and in every function; layers have ``bias=True`` in fifth place."""

from dinat_ref.interop.natten_autograd import behind_apply
from dinat_ref.interop.natten_layers import PaddedLayer
from dinat_ref.interop.natten_legacy import natten1dav, natten1dqkrpb, natten2dav, natten2dqkrpb


class _Layer(PaddedLayer):
    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel_size: int,
        dilation: int | None = 1,
        bias: bool = True,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        where = (kernel_size, 1, dilation)
        super().__init__(dim, num_heads, *where, False, qkv_bias, bias, qk_scale, attn_drop, proj_drop)


class NeighborhoodAttention1D(_Layer):
    """Neighborhood attention over sequences."""

    ndim = 1


class NeighborhoodAttention2D(_Layer):
    """Neighborhood attention over feature maps."""

    ndim = 2


NATTEN1DQKRPBFunction = behind_apply("NATTEN1DQKRPBFunction", natten1dqkrpb)
NATTEN2DQKRPBFunction = behind_apply("NATTEN2DQKRPBFunction", natten2dqkrpb)
NATTEN1DAVFunction = behind_apply("NATTEN1DAVFunction", natten1dav)
NATTEN2DAVFunction = behind_apply("NATTEN2DAVFunction", natten2dav)
