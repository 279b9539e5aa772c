"""NATTEN 0.17.5, which stands for 0.17: one call with dilation where 0.21 has stride, causality, no padding."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dinat_ref.attention import merge_attentions as merge
from dinat_ref.attention import neighborhood_attention
from dinat_ref.interop.natten_autograd import behind_apply
from dinat_ref.interop.natten_layers import Layer, refuse_positional_true
from dinat_ref.interop.natten_legacy import CausalPerAxis, PerAxis, scores, weighted_values
from dinat_ref.interop.natten_utils import default


class _Layer(Layer):
    @refuse_positional_true(4, "is_causal", "bias")
    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel_size: int | Sequence[int],
        dilation: PerAxis = 1,
        is_causal: CausalPerAxis = False,
        rel_pos_bias: bool = False,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        use_experimental_ops: bool = False,
        *,
        bias: bool = False,
    ) -> None:
        where = (kernel_size, 1, dilation, is_causal)
        bias = rel_pos_bias or bias
        super().__init__(dim, num_heads, *where, qkv_bias, bias, qk_scale, attn_drop, proj_drop)


class NeighborhoodAttention1D(_Layer):
    """Neighborhood attention over sequences."""

    ndim = 1


class NeighborhoodAttention2D(_Layer):
    """Neighborhood attention over feature maps."""

    ndim = 2


class NeighborhoodAttention3D(_Layer):
    """Neighborhood attention over video and volumes."""

    ndim = 3


def merge_attentions(output_fna: Tensor, output_sdpa: Tensor, lse_fna: Tensor, lse_sdpa: Tensor) -> Tensor:
    """Merge the attention of windows and that of additional keys.

    Shapes:
        output_fna: [B, *layout, H, D]; lse_fna: [B, *layout, H]; output_sdpa: [B, N, H, D]; lse_sdpa: [B, H, N]
        return: as output_fna
    Source: NATTEN 0.17.5, natten.ops.
    Example:
        >>> import torch
        >>> ones, zeros = torch.ones(1, 2, 1, 1), torch.zeros(1, 2, 1)
        >>> merge_attentions(2 * ones, 6 * ones, zeros, zeros.transpose(1, 2)).flatten()
        tensor([4., 4.])
    """
    additional = output_sdpa.reshape(output_fna.shape), lse_sdpa.transpose(1, 2).reshape(lse_fna.shape)
    return merge([output_fna, additional[0]], [lse_fna, additional[1]])[0]


def _apply_qk(
    query: Tensor,
    key: Tensor,
    bias: Tensor | None,
    additional_key: Tensor | None,
    kernel_size_: int | Sequence[int],
    dilation_: PerAxis,
    is_causal_: CausalPerAxis,
) -> Tensor:
    return scores(query, key, kernel_size_, dilation_, additional_key, is_causal_, bias)


def _apply_av(
    attn: Tensor,
    value: Tensor,
    additional_value: Tensor | None,
    kernel_size_: int | Sequence[int],
    dilation_: PerAxis,
    is_causal_: CausalPerAxis,
) -> Tensor:
    return weighted_values(attn, value, kernel_size_, dilation_, additional_value, is_causal_)


def _apply_fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size_: int | Sequence[int],
    dilation_: PerAxis,
    is_causal_: CausalPerAxis,
    scale: float,
    tiling_config_: Any,
    tiling_config_backward_: Any,
) -> tuple[Tensor, Tensor]:
    where = (kernel_size_, 1, default(dilation_, 1), default(is_causal_, False))
    pair = neighborhood_attention(query, key, value, *where, scale, rpb=bias, return_lse=True)
    assert isinstance(pair, tuple)
    return pair


NeighborhoodAttention1DQKAutogradFunction = behind_apply("NeighborhoodAttention1DQKAutogradFunction", _apply_qk)
NeighborhoodAttention2DQKAutogradFunction = behind_apply("NeighborhoodAttention2DQKAutogradFunction", _apply_qk)
NeighborhoodAttention3DQKAutogradFunction = behind_apply("NeighborhoodAttention3DQKAutogradFunction", _apply_qk)
NeighborhoodAttention1DAVAutogradFunction = behind_apply("NeighborhoodAttention1DAVAutogradFunction", _apply_av)
NeighborhoodAttention2DAVAutogradFunction = behind_apply("NeighborhoodAttention2DAVAutogradFunction", _apply_av)
NeighborhoodAttention3DAVAutogradFunction = behind_apply("NeighborhoodAttention3DAVAutogradFunction", _apply_av)
FusedNeighborhoodAttention1D = behind_apply("FusedNeighborhoodAttention1D", _apply_fused)
FusedNeighborhoodAttention2D = behind_apply("FusedNeighborhoodAttention2D", _apply_fused)
FusedNeighborhoodAttention3D = behind_apply("FusedNeighborhoodAttention3D", _apply_fused)
