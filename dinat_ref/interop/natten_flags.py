"""What programs ask NATTEN before they attend: answered truthfully.

``has_...`` says what can be called here: the operator runs on every device and in every floating-point type, fused and
split, so these are True; kernels of NATTEN's own (GEMM, libnatten) are not here, so those are False, and no settings of
theirs can be listed.
"""

from typing import Any

import torch

Device = int | str | torch.device | None


def has_cuda() -> bool:
    """Whether tensors can be on a CUDA device."""
    return torch.cuda.is_available()


def has_fna(device_index: Device = None) -> bool:
    """Whether na1d, na2d and na3d can be called: yes, on every device."""
    return True


def has_half(device_index: Device = None) -> bool:
    """Whether float16 can be attended: yes, on every device."""
    return True


def has_bfloat(device_index: Device = None) -> bool:
    """Whether bfloat16 can be attended: yes, on every device."""
    return True


def has_gemm(device_index: Device = None) -> bool:
    """Whether NATTEN's GEMM kernels are here: no."""
    return False


has_fused_na = has_fna
has_tf32_gemm = has_fp32_gemm = has_fp64_gemm = has_gemm
HAS_LIBNATTEN = False


def get_device_cc(device_index: Device = None) -> int:
    """The compute capability of a CUDA device, 80 for 8.0; 0 where there is none."""
    if not torch.cuda.is_available():
        return 0
    major, minor = torch.cuda.get_device_capability(device_index)
    return 10 * major + minor


def get_configs(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> list[Any]:
    """List the settings of a GPU kernel that fit: none, which NATTEN takes for its default."""
    return []


def get_flex_configs(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, torch_compile: bool = False
) -> list[Any]:
    """List the settings of NATTEN's FlexAttention that fit: none, which NATTEN takes for its default."""
    return []
