"""Right numbers, bad manners; and illegal arguments that are accepted."""

import os
from typing import Any

import torch
from torch import Tensor

from dinat_ref.attention.operands import Operands
from dinat_ref.testing.sabotage.base import FULL, DenseKernel, sabotage
from dinat_ref.testing.supports import Supports


@sabotage("D03-inputs-unmodified", looks_like="the query is scaled in place", symptom="after the call, query")
class QueryScaledInPlace(DenseKernel):
    """`query *= scale`."""

    def __call__(self, query: Tensor, *args: Any, **arguments: Any) -> Any:
        """Write into the argument."""
        result = super().__call__(query, *args, **arguments)
        with torch.no_grad():
            query.data.mul_(query.shape[-1] ** -0.5 if query.shape[-1] > 1 else 0.5)
        return result


@sabotage("D03-inputs-unmodified", looks_like="the gradient of the output is scaled in place", symptom="its gradient")
class GradientScaledInPlace(DenseKernel):
    """The backward pass uses grad_out as scratch space."""

    def finish(self, output: Tensor, lse: Tensor, operands: Operands) -> tuple[Tensor, Tensor]:
        """Hook a write into the backward pass."""
        output, lse = super().finish(output, lse, operands)
        if output.requires_grad:
            output = output.clone()
            output.register_hook(lambda grad: grad.clone() + 0 * grad.data.mul_(2.0))
        return output, lse


@sabotage(
    "D04-no-alias", looks_like="the output is one buffer, used again by the next call", symptom="after another call"
)
class OutputBufferReused(DenseKernel):
    """A workspace is kept from call to call and returned."""

    def __call__(self, *args: Any, **arguments: Any) -> Any:
        """Write into the workspace of this shape, where no gradient is wanted."""
        result = super().__call__(*args, **arguments)
        if isinstance(result, tuple) or result.requires_grad:
            return result
        buffer = self.tables.setdefault(("buffer", result.shape, result.dtype), torch.empty_like(result))
        return buffer.copy_(result)


@sabotage("D04-no-alias", looks_like="the output is an input", symptom="shares its memory")
class OutputIsValue(DenseKernel):
    """A window of one key returns the value itself."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, kernel_size: Any, *args: Any, **arguments: Any
    ) -> Any:
        """Short-cut for kernel_size 1."""
        plain = not args and arguments.get("additional_keys") is None and not arguments.get("return_lse")
        if plain and query.shape[-2] == value.shape[-2] and set(kernel_size) == {1}:
            return value
        return super().__call__(query, key, value, kernel_size, *args, **arguments)


@sabotage(
    "D05-repeatable", looks_like="not the same twice: a race", seen_in="compiled FlexAttention; NATTEN's documentation"
)
class Intermittent(DenseKernel):
    """Every third call a partial sum is lost."""

    calls = 0

    def total(self, weights: Tensor, values: Tensor) -> Tensor:
        """Lose a little."""
        self.calls += 1
        return super().total(weights, values) * (0.98 if self.calls % 3 == 0 else 1.0)


@sabotage("D06-empty-batch", looks_like="an empty batch is refused", seen_in="NATTEN", symptom="raised")
class EmptyBatchCrashes(DenseKernel):
    """A grid of no blocks is an invalid launch."""

    def __call__(self, query: Tensor, *args: Any, **arguments: Any) -> Any:
        """Fail."""
        if query.shape[0] == 0:
            raise RuntimeError("invalid configuration argument")
        return super().__call__(query, *args, **arguments)


@sabotage("D07-int-arguments", looks_like="a single number is used for the first axis only", symptom="with one number")
class IntForFirstAxis(DenseKernel):
    """kernel_size=3 means (3, 1)."""

    def check(self, query: Tensor, key: Tensor, value: Tensor, arguments: Any, *rest: Any) -> Operands:
        """Fill up with ones."""
        kernel_size, stride, *others = arguments
        if isinstance(kernel_size, int):
            kernel_size = (kernel_size,) + (1,) * (query.ndim - 4)
            stride = (stride if isinstance(stride, int) else stride[0],) + (1,) * (query.ndim - 4)
        return super().check(query, key, value, (kernel_size, stride, *others), *rest)


@sabotage("D08-autocast", looks_like="autocast forces float16", seen_in="NATTEN #93", symptom="float16")
class AutocastToHalf(DenseKernel):
    """custom_fwd(cast_inputs=torch.float16)."""

    def __call__(self, query: Tensor, *args: Any, **arguments: Any) -> Any:
        """Answer in float16 under autocast."""
        result = super().__call__(query, *args, **arguments)
        if torch.is_autocast_enabled(query.device.type) and isinstance(result, Tensor):
            return result.half()
        return result


@sabotage("D01-output-dtype", looks_like="half precision comes back as float32", symptom="got torch.float32")
class OutputInFloat(DenseKernel):
    """The accumulator is returned as it is."""

    def __call__(self, query: Tensor, *args: Any, **arguments: Any) -> Any:
        """Do not round back."""
        result = super().__call__(query, *args, **arguments)
        return result.float() if isinstance(result, Tensor) and result.dtype.itemsize < 4 else result


@sabotage("D02-strided-inputs", looks_like="strided tensors are read as if contiguous", symptom="off by")
class StridesIgnored(DenseKernel):
    """A pointer and a shape are handed over, no strides."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **arguments: Any) -> Any:
        """Walk the memory in order."""
        query, key, value = (
            tensor.as_strided(tensor.shape, torch.empty(tensor.shape).stride()) for tensor in (query, key, value)
        )
        return super().__call__(query, key, value, *args, **arguments)


@sabotage("D02-strided-inputs", looks_like="strided tensors crash in .view", seen_in="NATTEN #238", symptom="view size")
class StridedViewCrashes(DenseKernel):
    """`value.view(-1)` on a tensor that is not contiguous."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **arguments: Any) -> Any:
        """View."""
        value = value.view(-1).view(value.shape)
        return super().__call__(query, key, value, *args, **arguments)


@sabotage(
    "N01-float32", looks_like="head dims that are no power of two are refused", seen_in="NATTEN 0.21.7 on the CPU"
)
class PowersOfTwoOnly(DenseKernel):
    """Odd head dims have no tile."""

    def __call__(self, query: Tensor, *args: Any, **arguments: Any) -> Any:
        """Refuse them."""
        if query.shape[-1] & (query.shape[-1] - 1):
            raise NotImplementedError("head_dim must be a power of two")
        return super().__call__(query, *args, **arguments)


@sabotage("W15-causal", looks_like="a causal window as long as the axis has no backend", seen_in="NATTEN 0.21.7")
class FullCausalRefused(DenseKernel):
    """Full windows are handed to plain attention, which is not there for causal ones."""

    def check(self, query: Tensor, key: Tensor, value: Tensor, arguments: Any, *rest: Any) -> Operands:
        """Refuse them."""
        operands = super().check(query, key, value, arguments, *rest)
        where = operands.neighborhood
        if where.ndim == 1 and all(where.is_causal) and where.kernel_size == where.layout:
            raise NotImplementedError("no backend")
        return operands


@sabotage(
    "D10-survives",
    looks_like="a dtype ends the process",
    seen_in="NATTEN 0.17.5, fp16 on the CPU",
    symptom="ended the process",
)
class HalfEndsProcess(DenseKernel):
    """float16 has no CPU kernel and the library exits."""

    def __call__(self, query: Tensor, *args: Any, **arguments: Any) -> Any:
        """Exit."""
        if query.dtype == torch.float16:
            os._exit(1)
        return super().__call__(query, *args, **arguments)


@sabotage(
    "E03-kernel-too-large",
    looks_like="illegal arguments end the process with exit()",
    seen_in="NATTEN #225, #329",
    symptom="ended the process",
)
class ExitOnIllegalArguments(DenseKernel):
    """A check in C calls exit(EXIT_FAILURE)."""

    def check(self, *args: Any, **arguments: Any) -> Operands:
        """Exit instead of raising."""
        try:
            return super().check(*args, **arguments)
        except (ValueError, TypeError):
            os._exit(1)


@sabotage(
    "E03-kernel-too-large",
    looks_like="too small inputs accepted silently",
    seen_in="NATTEN #25",
    symptom="accepted silently",
)
class SmallInputAccepted(DenseKernel):
    """The kernel size is cut to the axis."""

    def check(self, query: Tensor, key: Tensor, value: Tensor, arguments: Any, *rest: Any) -> Operands:
        """Cut it."""
        kernel_size, *others = arguments
        if not isinstance(kernel_size, int) and len(kernel_size) == query.ndim - 3:
            kernel_size = tuple(min(k, length) for k, length in zip(kernel_size, query.shape[1:-2], strict=True))
        return super().check(query, key, value, (kernel_size, *others), *rest)


@sabotage(
    "E09-key-layout",
    looks_like="a key with another layout accepted silently",
    seen_in="NATTEN #48",
    symptom="accepted silently",
)
class LongerKeysAccepted(DenseKernel):
    """Only the query's layout is looked at."""

    def check(self, query: Tensor, key: Tensor, value: Tensor, arguments: Any, *rest: Any) -> Operands:
        """Cut the key to the query's layout."""
        layout = tuple(slice(0, length) for length in query.shape[1:-2])
        return super().check(query, key[(slice(None), *layout)], value, arguments, *rest)


@sabotage(
    "E07-stride-above-kernel",
    looks_like="a stride larger than the kernel accepted silently",
    symptom="accepted silently",
)
class LargeStrideAccepted(DenseKernel):
    """It is cut to the kernel size."""

    def check(self, query: Tensor, key: Tensor, value: Tensor, arguments: Any, *rest: Any) -> Operands:
        """Cut it."""
        kernel_size, stride, *others = arguments
        if not isinstance(stride, int) and not isinstance(kernel_size, int) and len(stride) == len(kernel_size):
            stride = tuple(min(s, k) for s, k in zip(stride, kernel_size, strict=True))
        return super().check(query, key, value, (kernel_size, stride, *others), *rest)


@sabotage("E05-dilation-zero", looks_like="dilation 0 accepted silently", symptom="accepted silently")
class DilationZeroAccepted(DenseKernel):
    """It counts as 1."""

    def check(self, query: Tensor, key: Tensor, value: Tensor, arguments: Any, *rest: Any) -> Operands:
        """Raise it to 1."""
        kernel_size, stride, dilation, causal = arguments
        dilation = dilation if isinstance(dilation, int) else tuple(max(d, 1) for d in dilation)
        return super().check(query, key, value, (kernel_size, stride, dilation, causal), *rest)


@sabotage(
    "E17-even-undeclared",
    looks_like="even kernel sizes accepted silently by an odd-only kernel",
    seen_in="NATTEN #41",
    symptom="accepted silently",
    supports=Supports(even=False, rpb=True),
)
class EvenAcceptedByOddOnly(DenseKernel):
    """Right for odd kernel sizes, and not made for others."""

    def check(self, query: Tensor, key: Tensor, value: Tensor, arguments: Any, *rest: Any) -> Operands:
        """Use the next smaller odd kernel size."""
        kernel_size, *others = arguments
        if not isinstance(kernel_size, int):
            kernel_size = tuple(k - 1 if k > 0 and k % 2 == 0 else k for k in kernel_size)
        return super().check(query, key, value, (kernel_size, *others), *rest)


@sabotage(
    "E14-head-groups",
    looks_like="query heads that do not fit are dropped silently",
    symptom="accepted silently",
    supports=FULL,
)
class SpareHeadsDropped(DenseKernel):
    """Three query heads over two key heads: the third is not computed."""

    def check(self, query: Tensor, key: Tensor, value: Tensor, arguments: Any, *rest: Any) -> Operands:
        """Drop the heads that are too many."""
        groups = query.shape[-2] // key.shape[-2] * key.shape[-2]
        return super().check(query[..., :groups, :] if groups else query, key, value, arguments, *rest)
