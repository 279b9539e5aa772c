"""NATTEN 0.14.4, which stands for the releases up to it: the size of a kernel is read off tensors.

Layers take kernel_size before num_heads, and always learn a relative positional bias.
"""

from typing import Any

from torch import Tensor

from dinat_ref.interop.natten_autograd import behind_apply
from dinat_ref.interop.natten_layers import PaddedLayer
from dinat_ref.interop.natten_legacy import PerAxis, of_axes, scores, weighted_values


class _Layer(PaddedLayer):
    def __init__(
        self,
        dim: int,
        kernel_size: int,
        num_heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        dilation: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        self.fits_dilation = isinstance(dilation, str)
        step = 1 if self.fits_dilation else dilation
        super().__init__(dim, num_heads, kernel_size, 1, step, False, qkv_bias, bias, qk_scale, attn_drop, proj_drop)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # NATTEN's layers take no mask
        """Attend; a dilation given as a word is as large as the map allows."""
        if self.fits_dilation:
            self.dilation = max(min(x.shape[1:-1]) // self.kernel_size, 1)
        return super().forward(x)


class NeighborhoodAttention1D(_Layer):
    """Neighborhood attention over sequences."""

    ndim = 1


class NeighborhoodAttention2D(_Layer):
    """Neighborhood attention over feature maps."""

    ndim = 2


NeighborhoodAttention = NeighborhoodAttention2D


def _qkrpb(query: Tensor, key: Tensor, rpb: Tensor, dilation: PerAxis) -> Tensor:
    """Compute raw scores with relative positional bias, for any number of axes; its table tells the kernel size."""
    return scores(query, key, (rpb.shape[-1] + 1) // 2, dilation, rpb=rpb)


def _av(attn: Tensor, value: Tensor, dilation: PerAxis) -> Tensor:
    """Sum values with weights, for any number of axes; the number of weights tells the kernel size."""
    return weighted_values(attn, value, round(attn.shape[-1] ** (1 / (attn.ndim - 3))), dilation)


natten1dqkrpb, natten2dqkrpb = (of_axes(_qkrpb, f"natten{n}dqkrpb", n) for n in (1, 2))
natten1dav, natten2dav = (of_axes(_av, f"natten{n}dav", n) for n in (1, 2))

NATTEN1DQKRPBFunction = behind_apply("NATTEN1DQKRPBFunction", natten1dqkrpb)
NATTEN2DQKRPBFunction = behind_apply("NATTEN2DQKRPBFunction", natten2dqkrpb)
NATTEN1DAVFunction = behind_apply("NATTEN1DAVFunction", natten1dav)
NATTEN2DAVFunction = behind_apply("NATTEN2DAVFunction", natten2dav)
