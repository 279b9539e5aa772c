"""NATTEN 0.21.7, which stands for 0.20 and 0.21: stride, grouped heads, the lse; heads are last throughout.

Arguments that only tune NATTEN's kernels are taken and ignored: the result does not depend on them.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dinat_ref.attention import merge_attentions as merge
from dinat_ref.attention import neighborhood_attention
from dinat_ref.interop import natten_flags, natten_utils
from dinat_ref.interop.natten_flags import get_configs, get_flex_configs
from dinat_ref.interop.natten_flops import counted
from dinat_ref.interop.natten_layers import Layer, refuse_positional_true
from dinat_ref.interop.natten_legacy import CausalPerAxis, PerAxis, of_axes
from dinat_ref.interop.natten_utils import default

__version__ = "0.21.7"


@counted(halves=2)
def neighborhood_attention_generic(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int | Sequence[int],
    stride: PerAxis = 1,
    dilation: PerAxis = 1,
    is_causal: CausalPerAxis = False,
    scale: float | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    attention_kwargs: dict[str, Any] | None = None,
    backend: str | None = None,
    q_tile_shape: Sequence[int] | None = None,
    kv_tile_shape: Sequence[int] | None = None,
    backward_q_tile_shape: Sequence[int] | None = None,
    backward_kv_tile_shape: Sequence[int] | None = None,
    backward_kv_splits: Sequence[int] | None = None,
    backward_use_pt_reduction: bool = False,
    run_persistent_kernel: bool = True,
    kernel_schedule: Any = None,
    torch_compile: bool = False,
    return_lse: bool = False,
    *,
    rpb: Tensor | None = None,
    impl: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Attend over any number of axes, called as NATTEN 0.21's functions: what na1d, na2d and na3d do.

    Shapes:
        query, key, value: [B, *layout, H, D]; additional_keys, additional_values: [B, M, H, D]
        return: [B, *layout, H, D], with return_lse a pair of it and the lse [B, *layout, H]
    Args:
        scale: None and, as in NATTEN, 0 mean D ** -0.5.
        rpb, impl: as ``dinat_ref.neighborhood_attention``.
        Others up to additional_values as there; what follows tunes NATTEN's kernels, and is ignored.
    Raises:
        TypeError, ValueError: as ``dinat_ref.neighborhood_attention``.
    Source: NATTEN 0.21.7.
    Example:
        >>> import torch
        >>> x = torch.arange(5.).reshape(1, 5, 1, 1)
        >>> neighborhood_attention_generic(torch.zeros_like(x), x, x, 3, backend="cutlass-fna").flatten()
        tensor([1., 1., 2., 3., 3.])
    """
    where, extra = (
        (kernel_size, default(stride, 1), default(dilation, 1), default(is_causal, False)),
        (additional_keys, additional_values),
    )
    return neighborhood_attention(
        query, key, value, *where, scale or None, *extra, rpb=rpb, return_lse=return_lse, impl=impl
    )


na1d, na2d, na3d = (of_axes(neighborhood_attention_generic, f"na{n}d", n) for n in (1, 2, 3))


def merge_attentions(
    outputs: Sequence[Tensor], lse_tensors: Sequence[Tensor], torch_compile: bool = True, use_autograd_fix: bool = True
) -> tuple[Tensor, Tensor]:
    """Merge attention outputs over disjoint keys.

    Shapes:
        outputs: [B, *layout, H, D] each; lse_tensors: [B, *layout, H] each
        return: (output, lse) of the same shapes
    Args:
        torch_compile, use_autograd_fix: ignored; the gradient is exact without them.
    Raises:
        ValueError: as ``dinat_ref.merge_attentions``.
    Source: NATTEN 0.21.7.
    Example:
        >>> import torch
        >>> ones = torch.ones(1, 1, 1, 1)
        >>> merge_attentions([2 * ones, 6 * ones], [torch.zeros(1, 1, 1)] * 2)[0].item()
        4.0
    """
    return merge(outputs, lse_tensors)


class _Layer(Layer):
    @refuse_positional_true(5, "is_causal", "rel_pos_bias or qkv_bias")
    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        kernel_size: int | Sequence[int],
        stride: PerAxis = 1,
        dilation: PerAxis = 1,
        is_causal: CausalPerAxis = False,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        proj_drop: float = 0.0,
        *,
        rel_pos_bias: bool = False,
        bias: bool = False,
        attn_drop: float = 0.0,
    ) -> None:
        where = (kernel_size, stride, dilation, is_causal)
        bias = rel_pos_bias or bias
        super().__init__(embed_dim, num_heads, *where, qkv_bias, bias, qk_scale, attn_drop, proj_drop)


class NeighborhoodAttention1D(_Layer):
    """Neighborhood attention over sequences."""

    ndim = 1


class NeighborhoodAttention2D(_Layer):
    """Neighborhood attention over feature maps."""

    ndim = 2


class NeighborhoodAttention3D(_Layer):
    """Neighborhood attention over video and volumes."""

    ndim = 3


get_configs_for_cutlass_fna = get_bwd_configs_for_cutlass_fna = get_configs
get_configs_for_cutlass_fmha = get_bwd_configs_for_cutlass_fmha = get_configs
get_configs_for_cutlass_hopper_fna = get_bwd_configs_for_cutlass_hopper_fna = get_configs
get_configs_for_cutlass_hopper_fmha = get_bwd_configs_for_cutlass_hopper_fmha = get_configs
get_configs_for_cutlass_blackwell_fna = get_bwd_configs_for_cutlass_blackwell_fna = get_configs
get_configs_for_cutlass_blackwell_fmha = get_bwd_configs_for_cutlass_blackwell_fmha = get_configs
get_configs_for_flex_fna = get_configs_for_flex_fmha = get_flex_configs


def check_all_args(
    na_dim: int, kernel_size: Any, stride: Any, dilation: Any, is_causal: Any
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[bool, ...]]:
    """Give every axis its own entry; None means the default.

    Raises:
        ValueError: a sequence of another length.
    Example:
        >>> check_all_args(2, 3, 1, None, (True, False))
        ((3, 3), (1, 1), (1, 1), (True, False))
    """
    sizes, steps, causal = natten_utils.check_all_args(na_dim, kernel_size, dilation, is_causal)
    return sizes, natten_utils.check_stride_arg(na_dim, stride), steps, causal


def get_device_cc(device: natten_flags.Device = None) -> int:
    """The compute capability of a CUDA device, 80 for 8.0; 0 where there is none.

    Example:
        >>> get_device_cc() >= 0
        True
    """
    return natten_flags.get_device_cc(device)
