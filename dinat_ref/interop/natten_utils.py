"""NATTEN's types, argument checks and small helpers, as far as programs import them."""

import enum
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dinat_ref.neighborhood import per_axis
from dinat_ref.window import check_integer

NoneType = type(None)
Dimension1DType, Dimension2DType, Dimension3DType = tuple[int], tuple[int, int], tuple[int, int, int]
CausalArg1DType, CausalArg2DType, CausalArg3DType = tuple[bool], tuple[bool, bool], tuple[bool, bool, bool]
DimensionType = Dimension1DType | Dimension2DType | Dimension3DType
CausalArgType = CausalArg1DType | CausalArg2DType | CausalArg3DType
Dimension1DTypeOrDed, Dimension2DTypeOrDed = int | Dimension1DType, int | Dimension2DType
Dimension3DTypeOrDed, DimensionTypeOrDed = int | Dimension3DType, int | DimensionType
CausalArg1DTypeOrDed, CausalArg2DTypeOrDed = bool | CausalArg1DType, bool | CausalArg2DType
CausalArg3DTypeOrDed, CausalArgTypeOrDed = bool | CausalArg3DType, bool | CausalArgType


class KernelSchedule(enum.Enum):
    """How NATTEN's Hopper kernels are scheduled; nothing here depends on it.

    Example:
        >>> KernelSchedule(2).name
        'WarpSpecializedPingpong'
    """

    NonPersistent = 0
    WarpSpecializedCooperative = 1
    WarpSpecializedPingpong = 2


def default(value: Any, instead: Any) -> Any:
    """What NATTEN makes of None.

    Example:
        >>> default(None, 1), default(0, 1)
        (1, 0)
    """
    return instead if value is None else value


def create_dim_from_int(na_dim: int, value: int) -> tuple[int, ...]:
    """Repeat a number for every axis.

    Example:
        >>> create_dim_from_int(2, 7)
        (7, 7)
    """
    return (value,) * na_dim


def create_causal_arg_from_bool(na_dim: int, value: bool) -> tuple[bool, ...]:
    """Repeat a truth value for every axis.

    Example:
        >>> create_causal_arg_from_bool(2, True)
        (True, True)
    """
    return (value,) * na_dim


def _check(na_dim: int, name: str, value: Any) -> tuple[int, ...]:
    """Give every axis its number; not a number is a ValueError, as in NATTEN."""
    try:
        return tuple(check_integer(name, entry) for entry in per_axis(name, value, (1,) * na_dim))
    except TypeError as error:
        raise ValueError(str(error)) from None


def check_input_size_arg(na_dim: int, input_size: Any) -> tuple[int, ...]:
    """Give every axis its length, as ``check_kernel_size_arg``.

    Example:
        >>> check_input_size_arg(2, [5, 7])
        (5, 7)
    """
    return _check(na_dim, "input_size", input_size)


def check_kernel_size_arg(na_dim: int, kernel_size: Any) -> tuple[int, ...]:
    """Give every axis its kernel size.

    Raises:
        ValueError: not integers, or not one per axis.
    Example:
        >>> check_kernel_size_arg(2, 7)
        (7, 7)
    """
    return _check(na_dim, "kernel_size", kernel_size)


def check_stride_arg(na_dim: int, stride: Any) -> tuple[int, ...]:
    """Give every axis its stride; None means 1.

    Example:
        >>> check_stride_arg(2, None)
        (1, 1)
    """
    return _check(na_dim, "stride", default(stride, 1))


def check_dilation_arg(na_dim: int, dilation: Any) -> tuple[int, ...]:
    """Give every axis its dilation; None means 1.

    Example:
        >>> check_dilation_arg(2, (1, 2))
        (1, 2)
    """
    return _check(na_dim, "dilation", default(dilation, 1))


def check_causal_arg(na_dim: int, is_causal: Any) -> tuple[bool, ...]:
    """Give every axis its causality; None means False.

    Raises:
        ValueError: not truth values, or not one per axis.
    Example:
        >>> check_causal_arg(2, None)
        (False, False)
    """
    causal = per_axis("is_causal", default(is_causal, False), (1,) * na_dim)
    if not all(isinstance(entry, bool) for entry in causal):
        raise ValueError(f"is_causal must be a bool or one per axis, got {is_causal!r}")
    return causal


def check_all_args(
    na_dim: int, kernel_size: Any, dilation: Any, is_causal: Any
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[bool, ...]]:
    """Give every axis its own entry; None means the default.

    Raises:
        ValueError: a sequence of another length.
    Example:
        >>> check_all_args(2, 3, None, (True, False))
        ((3, 3), (1, 1), (True, False))
    """
    sizes, steps = check_kernel_size_arg(na_dim, kernel_size), check_dilation_arg(na_dim, dilation)
    return sizes, steps, check_causal_arg(na_dim, is_causal)


def get_num_na_weights(kernel_size: Sequence[int]) -> int:
    """Count the keys of a query.

    Example:
        >>> get_num_na_weights((3, 5))
        15
    """
    return int(torch.Size(kernel_size).numel())


def make_attn_tensor_from_input(input_tensor: Tensor, attention_dim: int) -> Tensor:
    """Make an empty tensor for scores.

    Shapes:
        input_tensor: [B, H, *layout, D]; return: [B, H, *layout, attention_dim]
    Example:
        >>> make_attn_tensor_from_input(torch.zeros(1, 2, 5, 8), 3).shape
        torch.Size([1, 2, 5, 3])
    """
    return input_tensor.new_empty((*input_tensor.shape[:-1], attention_dim))


def check_additional_keys(input_tensor: Tensor, additional_keys: Tensor | None) -> int:
    """Count the additional keys [B, H, M, D] of a query [B, H, *layout, D].

    Shapes:
        return: M, 0 for None
    Raises:
        ValueError: they do not fit.
    Example:
        >>> check_additional_keys(torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 3, 8))
        3
    """
    if additional_keys is None:
        return 0
    shape = tuple(input_tensor.shape)
    if additional_keys.ndim != 4 or tuple(additional_keys.shape) != (*shape[:2], additional_keys.shape[2], shape[-1]):
        raise ValueError(f"additional_keys must be [B, H, M, D] for {shape}, got {tuple(additional_keys.shape)}")
    return additional_keys.shape[2]


def check_additional_values(
    attn_tensor: Tensor, additional_values: Tensor | None, value: Tensor, expected_attn_weights: int
) -> int:
    """Count the additional values [B, H, M, D] of weights [B, H, *layout, K + M].

    Shapes:
        value: [B, H, *layout, D]; return: M, 0 for None
    Raises:
        ValueError: they do not fit.
    Example:
        >>> weights, value = torch.zeros(1, 2, 5, 3 + 4), torch.zeros(1, 2, 5, 8)
        >>> check_additional_values(weights, torch.zeros(1, 2, 4, 8), value, 3)
        4
    """
    count = check_additional_keys(value, additional_values)
    if attn_tensor.shape[-1] != expected_attn_weights + count:
        raise ValueError(f"expected {expected_attn_weights + count} weights a token, got {attn_tensor.shape[-1]}")
    return count


def qk_cross_forward(query: Tensor, key: Tensor, out: Tensor) -> None:
    """Write the scores of all queries and additional keys into ``out``.

    Shapes:
        query: [B, H, *layout, D]; key: [B, H, M, D]; out: [B, H, *layout, M]
    Example:
        >>> out = torch.empty(1, 1, 2, 3)
        >>> qk_cross_forward(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 3, 4), out)
        >>> out[0, 0, 0]
        tensor([4., 4., 4.])
    """
    out.copy_(torch.einsum("bh...d,bhmd->bh...m", query, key))


def av_cross_forward(attn: Tensor, value: Tensor, output: Tensor) -> None:
    """Write the sums of additional values into ``output``.

    Shapes:
        attn: [B, H, *layout, M]; value: [B, H, M, D]; output: [B, H, *layout, D]
    Example:
        >>> output = torch.empty(1, 1, 2, 4)
        >>> av_cross_forward(torch.ones(1, 1, 2, 3), torch.ones(1, 1, 3, 4), output)
        >>> output[0, 0, 0]
        tensor([3., 3., 3., 3.])
    """
    output.copy_(torch.einsum("bh...m,bhmd->bh...d", attn, value))


def is_cuda(device: torch.device) -> bool:
    """Whether a device is one of CUDA.

    Example:
        >>> is_cuda(torch.device("cpu"))
        False
    """
    return device.type == "cuda"


def is_cpu(device: torch.device) -> bool:
    """Whether a device is the CPU.

    Example:
        >>> is_cpu(torch.device("cpu"))
        True
    """
    return device.type == "cpu"


def get_logger(name: str) -> logging.Logger:
    """Find the logger of a name.

    Example:
        >>> get_logger("natten").name
        'natten'
    """
    return logging.getLogger(name)
