"""NATTEN's functions on any device, and a stand-in for the package where it is not installed.

The functions of this module have the names and argument order of NATTEN 0.21; those of 0.17 and before are in
``natten_legacy``, the layers of both in ``natten_layers``. Arguments that only tune NATTEN's kernels are taken and
ignored: the result does not depend on them. ``install_as_natten()`` makes ``import natten`` find all of them::

    from dinat_ref.interop.natten import install_as_natten
    install_as_natten()
    from natten.functional import natten2dqkrpb, natten2dav      # as transformers' Dinat does
    from natten import NeighborhoodAttention2D, na2d             # as code for NATTEN 0.21 does
"""

import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from dinat_ref.attention import merge_attentions as merge
from dinat_ref.attention import neighborhood_attention
from dinat_ref.interop import natten_legacy
from dinat_ref.interop.natten_layers import LAYERS_017, LAYERS_021
from dinat_ref.interop.stand_in import install, is_stand_in, remove

VERSIONS = {"0.21": "0.21.7", "0.17": "0.17.5"}  # the argument orders to choose from, and the version they stand for
TUNING = {
    *("backend", "kernel_schedule", "run_persistent_kernel", "torch_compile"),
    *("q_tile_shape", "kv_tile_shape", "backward_q_tile_shape", "backward_kv_tile_shape", "backward_kv_splits"),
    *("q_tile_size", "kv_tile_size", "backward_q_tile_size", "backward_kv_tile_size", "backward_use_pt_reduction"),
}


def _attend(
    ndim: int, query: Tensor, key: Tensor, value: Tensor, *arguments: Any, **named: Any
) -> Tensor | tuple[Tensor, Tensor]:
    """Attend over ndim axes; arguments as ``na2d``."""
    if query.ndim != ndim + 3:
        raise ValueError(f"na{ndim}d takes tensors of {ndim + 3} dimensions, got {tuple(query.shape)}")
    named.pop("attention_kwargs", None)
    _ignore_tuning(named, {"stride", "dilation", "is_causal", "scale", "additional_keys", "additional_values"})
    return neighborhood_attention(query, key, value, *arguments, **named)


def _ignore_tuning(named: dict[str, Any], known: set[str]) -> None:
    """Drop what tunes NATTEN's kernels; refuse what nobody knows."""
    for name in list(named):
        if name in TUNING:
            del named[name]
        elif name not in known | {"kernel_size", "rpb", "return_lse", "impl"}:
            raise TypeError(f"neighborhood attention has no argument {name!r}")


def na1d(query: Tensor, key: Tensor, value: Tensor, *arguments: Any, **named: Any) -> Tensor | tuple[Tensor, Tensor]:
    """Attend over one axis, called as NATTEN 0.21's na1d.

    Shapes:
        query, key, value: [B, X, H, D]
        return: [B, X, H, D], with return_lse a pair of it and the lse [B, X, H]
    Args:
        as ``na2d``
    Raises:
        TypeError, ValueError: as ``na2d``.
    Source: NATTEN 0.21.7.
    Example:
        >>> x = torch.arange(5.).reshape(1, 5, 1, 1)
        >>> na1d(torch.zeros_like(x), x, x, 3, backend="cutlass-fna").flatten()
        tensor([1., 1., 2., 3., 3.])
    """
    return _attend(1, query, key, value, *arguments, **named)


def na2d(query: Tensor, key: Tensor, value: Tensor, *arguments: Any, **named: Any) -> Tensor | tuple[Tensor, Tensor]:
    """Attend over two axes, called as NATTEN 0.21's na2d.

    Shapes:
        query, key, value: [B, X, Y, H, D]
        return: [B, X, Y, H, D], with return_lse a pair of it and the lse [B, X, Y, H]
    Args:
        arguments, named: kernel_size, stride, dilation, is_causal, scale, additional_keys, additional_values, in
            this order or by name; return_lse and rpb by name; what tunes NATTEN's kernels is ignored.
    Raises:
        TypeError: an argument that NATTEN does not have.
        ValueError: as ``neighborhood_attention``; tensors of another number of axes.
    Source: NATTEN 0.21.7.
    Example:
        >>> x = torch.randn(1, 5, 7, 2, 8)
        >>> na2d(x, x, x, kernel_size=(3, 5), dilation=1, q_tile_shape=(8, 8)).shape
        torch.Size([1, 5, 7, 2, 8])
    """
    return _attend(2, query, key, value, *arguments, **named)


def na3d(query: Tensor, key: Tensor, value: Tensor, *arguments: Any, **named: Any) -> Tensor | tuple[Tensor, Tensor]:
    """Attend over three axes, called as NATTEN 0.21's na3d.

    Shapes:
        query, key, value: [B, X, Y, Z, H, D]
        return: [B, X, Y, Z, H, D], with return_lse a pair of it and the lse [B, X, Y, Z, H]
    Args:
        as ``na2d``
    Raises:
        TypeError, ValueError: as ``na2d``.
    Source: NATTEN 0.21.7.
    Example:
        >>> x = torch.randn(1, 4, 5, 6, 2, 8)
        >>> na3d(x, x, x, 3, 1, 1, (True, False, False)).shape
        torch.Size([1, 4, 5, 6, 2, 8])
    """
    return _attend(3, query, key, value, *arguments, **named)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    return_lse: bool = False,
    **tuning: Any,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attend all keys, called as NATTEN 0.21's attention; query and key may have different lengths.

    Shapes:
        query: [B, N, H, D]; key: [B, M, Hkv, D]; value: [B, M, Hkv, Dv]
        return: [B, N, H, Dv], with return_lse a pair of it and the lse [B, N, H]
    Args:
        is_causal: attend nothing behind the query; needs N = M.
        scale: None means D ** -0.5.
    Raises:
        TypeError: an argument that is not known here, such as the lengths of packed sequences.
        ValueError: causal attention between different lengths.
    Source: NATTEN 0.21.7; Vaswani et al., arXiv:1706.03762, eq. 1.
    Example:
        >>> attention(torch.randn(1, 5, 4, 8), torch.randn(1, 9, 2, 8), torch.randn(1, 9, 2, 6)).shape
        torch.Size([1, 5, 4, 6])
    """
    _ignore_tuning(tuning, set())
    if is_causal and query.shape[1] != key.shape[1]:
        raise ValueError(f"causal attention needs as many queries as keys, got {query.shape[1]} and {key.shape[1]}")
    if is_causal:  # plain causal attention is neighborhood attention with a window as long as the axis
        return neighborhood_attention(
            query, key, value, query.shape[1], is_causal=True, scale=scale, return_lse=return_lse
        )
    dtype = torch.promote_types(query.dtype, torch.float32)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    group = query.shape[2] // key.shape[2]
    keys, values = (tensor.to(dtype).repeat_interleave(group, dim=2) for tensor in (key, value))  # [B, M, H, D]
    scores = scale * torch.einsum("bnhd,bmhd->bnhm", query.to(dtype), keys)
    output = torch.einsum("bnhm,bmhd->bnhd", scores.softmax(-1), values).to(query.dtype)
    return (output, scores.logsumexp(-1)) if return_lse else output


def merge_attentions(
    outputs: Sequence[Tensor], lse_tensors: Sequence[Tensor], torch_compile: bool = True, use_autograd_fix: bool = True
) -> tuple[Tensor, Tensor]:
    """Merge attention outputs over disjoint keys, called as NATTEN 0.21's merge_attentions.

    Shapes:
        outputs: [B, *layout, H, D] each; lse_tensors: [B, *layout, H] each
        return: (output, lse) of the same shapes
    Args:
        torch_compile, use_autograd_fix: ignored; the gradient is exact without them.
    Raises:
        ValueError: as ``dinat_ref.merge_attentions``.
    Source: NATTEN 0.21.7.
    Example:
        >>> ones = torch.ones(1, 1, 1, 1)
        >>> merge_attentions([2 * ones, 6 * ones], [torch.zeros(1, 1, 1)] * 2)[0].item()
        4.0
    """
    return merge(outputs, lse_tensors)


def is_natten_installed() -> bool:
    """Whether the real NATTEN can be imported (the stand-in of ``install_as_natten`` does not count).

    Example:
        >>> isinstance(is_natten_installed(), bool)
        True
    """
    return not is_stand_in("natten") and importlib.util.find_spec("natten") is not None


def install_as_natten(version: str = "0.21") -> ModuleType:
    """Let ``import natten`` find this package's functions, in this process, where no NATTEN is installed.

    The names of 0.17 and before that 0.21 has no more are there in either case. na1d, na2d, na3d and the layers exist
    in both, with different arguments: ``version`` says whose. Calling it again changes the version.

    Args:
        version: "0.21" (stride, then dilation) or "0.17" (dilation, then is_causal, rpb and scale).
    Returns:
        The module that ``import natten`` gives.
    Raises:
        ImportError: the real NATTEN is installed: it is left alone.
        ValueError: another version.
    Example:
        >>> install_as_natten().__version__
        '0.21.7'
        >>> from natten.functional import natten2dqkrpb
        >>> remove_natten()
    """
    if version not in VERSIONS:
        raise ValueError(f"version must be one of {', '.join(VERSIONS)}, got {version!r}")
    if is_natten_installed():
        raise ImportError("NATTEN is installed here: it is left as it is; import dinat_ref.interop.natten instead")
    is_old = version == "0.17"
    fused = natten_legacy if is_old else sys.modules[__name__]
    functions = {
        **natten_legacy.SPLIT,
        **{name: getattr(fused, name) for name in ("na1d", "na2d", "na3d")},
        **{layer.__name__: layer for layer in (LAYERS_017 if is_old else LAYERS_021)},
        "attention": attention,
        "merge_attentions": merge_attentions,
    }
    return install("natten", VERSIONS[version], functions, submodules=("functional",))


def remove_natten() -> None:
    """Take back ``install_as_natten``; a real NATTEN is left alone.

    Example:
        >>> remove_natten()
    """
    remove("natten")
