"""FlexAttention masks as kernels: windows read from the mask itself, and PyTorch's flex_attention for the numbers."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.ports.sendable import sendable
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.supports import Supports

Factory = Callable[..., Any]
PROVED_BY = 16  # of so many windows one is read from the numbers as well as from the mask


def windows_of_mask(kernel: Kernel, factory: Factory, problem: Problem) -> Tensor:
    """The weights that a mask says, the same for every key that it lets through: float32 [N, N]."""
    mask_mod = factory(problem.layout, **kernel.arguments(problem.but(scale=None)))
    tokens = torch.arange(problem.neighborhood.num_tokens, device=kernel.device)
    zero = torch.zeros((), dtype=torch.int64, device=kernel.device)
    mask = mask_mod(zero, zero, tokens[:, None], tokens[None, :]).expand(len(tokens), len(tokens))
    return (mask / mask.sum(1, keepdim=True).clamp(min=1)).float().cpu()


class MaskKernel(Kernel):
    """A FlexAttention mask as a kernel: its windows are read from the mask itself, without any numbers.

    Shapes:
        mask_mod(b, h, q_idx, kv_idx) -> bool, for row-major token numbers
    Raises:
        ValueError: as ``Kernel``.
    Source: torch.nn.attention.flex_attention.
    Example:
        >>> def centred(layout, kernel_size):
        ...     return lambda b, h, q, kv: (q - kv).abs() <= kernel_size[0] // 2
        >>> kernel = from_mask_mod(centred, Supports(ndim={1}, stride=False, dilation=False, causal=False))
        >>> (kernel.weights(Problem("1d 4 k3 d1 h1 e1 f32 seed0")) > 0).int()
        tensor([[1, 1, 0, 0],
                [1, 1, 1, 0],
                [0, 1, 1, 1],
                [0, 0, 1, 1]], dtype=torch.int32)
    """

    def _read_weights(self, problem: Problem) -> Tensor:
        return windows_of_mask(self, self.function, problem)


def from_mask_mod(factory: Factory, supports: Supports | None = None, device: str = "cpu") -> MaskKernel:
    """Verify the windows of a FlexAttention mask_mod, exhaustively.

    Shapes:
        factory(layout, kernel_size=..., stride=..., dilation=..., is_causal=...) -> mask_mod; undeclared ones left out
    Source: torch.nn.attention.flex_attention.
    Example:
        >>> from dinat_ref.testing import check_kernel
        >>> def right(layout, **arguments):
        ...     mask = Neighborhood(layout, **arguments).mask()
        ...     return lambda b, h, q, kv: mask[q, kv]
        >>> from dinat_ref import Neighborhood
        >>> check_kernel(from_mask_mod(right, Supports(ndim={1}))).passed
        True
    """
    return MaskKernel(factory, supports or Supports(), device=device, windows_only=True)


@dataclass
class FlexKernel(Kernel):
    """flex_attention under a mask: all windows are read from the mask, a few of them from the numbers as well.

    Args:
        factory: makes the mask_mod.
    Example:
        >>> from_flex(lambda layout, **arguments: None, Supports(ndim={1})).sparse
        6
    """

    factory: Factory | None = None

    def _read_weights(self, problem: Problem) -> Tensor:
        assert self.factory is not None
        if zlib.crc32(str(problem).encode()) % PROVED_BY == 0:
            return super()._read_weights(problem)
        return windows_of_mask(self, self.factory, problem)


def from_flex(factory: Factory, supports: Supports | None = None, device: str = "cpu") -> FlexKernel:
    """Verify a mask_mod together with PyTorch's flex_attention (uncompiled): all windows, and a sixth of the numbers.

    Shapes:
        factory as for ``from_mask_mod``
    Args:
        supports: what the mask takes; what flex_attention lacks (additional keys, and on a CPU gradients and other
            dtypes than float32) is taken out of it.
    Source: torch.nn.attention.flex_attention.
    Example:
        >>> from_flex(lambda layout, **arguments: None).supports.backward
        False
    """
    declared = supports or Supports()
    lacking: dict[str, Any] = {"extra_keys": False, "rpb": False, "empty_batch": False, "autocast": False}
    lacking["nan_outside"] = False  # 0 * NaN in its dense products
    lacking |= {"backward": False, "dtypes": ["float32"]} if device == "cpu" else {}
    lacking["max_tokens"] = min(declared.max_tokens or 1000, 1000)  # uncompiled, it has all scores in memory
    return FlexKernel(_flex(factory), replace(declared, **lacking), device=device, sparse=6, factory=factory)


@sendable
def _flex(factory: Factory) -> Callable[..., Any]:
    """flex_attention with the arguments and the layouts of a kernel."""

    def kernel(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kernel_size: Any,
        *,
        scale: float | None = None,
        return_lse: bool = False,
        **arguments: Any,
    ) -> Any:
        from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

        layout = tuple(query.shape[1:-2])
        fits = key.shape[:-2] == query.shape[:-2] and value.shape[:-1] == key.shape[:-1]
        if not (fits and query.dtype == key.dtype == value.dtype):
            raise ValueError("query, key and value must share batch, layout and dtype")  # flat, they might still fit
        tensors = [tensor.flatten(1, -3).transpose(1, 2) for tensor in (query, key, value)]  # [B, H, N, D]
        count = tensors[0].shape[2]
        mask_mod = factory(layout, kernel_size=kernel_size, **arguments)
        options: dict[str, Any] = {"scale": scale, "enable_gqa": query.shape[-2] != key.shape[-2]}
        options |= {"return_aux": AuxRequest(lse=True)} if return_lse else {}
        attend: Any = flex_attention
        with torch.compiler.set_stance("force_eager"):  # else dynamo compiles anew for every shape
            block_mask = create_block_mask(mask_mod, None, None, count, count, device=query.device.type)
            result = attend(*tensors, block_mask=block_mask, **options)
        output = result[0] if return_lse else result
        output = output.transpose(1, 2).unflatten(1, layout)
        return (output, result[1].lse.transpose(1, 2).unflatten(1, layout)) if return_lse else output

    kernel.__name__ = "flex_attention"
    return kernel
