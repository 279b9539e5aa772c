"""Wrong above a size, wrong where nobody looks: defaults, positions, one axis or one tensor of a rule."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from dinat_ref.attention.operands import Operands
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.testing.sabotage.base import DenseKernel, group_of, sabotage
from dinat_ref.testing.supports import Supports
from dinat_ref.window import window


class WrongAbove(DenseKernel):
    """Right, but for the values of problems above a size, which are taken double."""

    above: Callable[[Operands], Tensor | bool]

    def attend(self, operands: Operands, scale: float) -> tuple[Tensor, Tensor]:
        """Double the outputs that are above."""
        output, lse = super().attend(operands, scale)
        return output * (1 + torch.as_tensor(type(self).above(operands), device=output.device)), lse


def places(count: int, limit: int, axes: int) -> Tensor:
    """Which of ``count`` places lie above a limit, with so many axes behind."""
    return (torch.arange(count) >= limit).reshape(-1, *(1,) * axes)


@sabotage("N31-realistic-sizes", "G16-realistic-sizes", seen_in="epilogues for one tile")
class WrongAboveHeadDim64(WrongAbove):
    """A head_dim of more than 64 takes a second tile."""

    above = staticmethod(lambda operands: operands.query.shape[-1] > 64)


@sabotage("N31-realistic-sizes", seen_in="epilogues for one tile")
class ValueColumnsAbove128(WrongAbove):
    """Of values with more than 128 numbers, the rest."""

    above = staticmethod(lambda operands: places(operands.value.shape[-1], 128, 0))


@sabotage("N31-realistic-sizes", seen_in="launch grids")
class HeadsAbove8(WrongAbove):
    """The ninth head and those behind it."""

    above = staticmethod(lambda operands: places(operands.query.shape[-2], 8, 1))


@sabotage("N31-realistic-sizes", seen_in="launch grids")
class BatchAbove4(WrongAbove):
    """The fifth batch element and those behind it."""

    above = staticmethod(lambda operands: places(operands.query.shape[0], 4, operands.query.ndim - 1))


@sabotage("N31-realistic-sizes", seen_in="buffers of a fixed size")
class ExtraKeysAbove8(WrongAbove):
    """More than eight additional keys."""

    above = staticmethod(lambda o: o.additional_keys is not None and o.additional_keys.shape[1] > 8)


@sabotage("N31-realistic-sizes", seen_in="tiles of half precision")
class HalfAboveHeadDim64(DenseKernel):
    """bfloat16 and float16 above a head_dim of 64."""

    def __call__(self, query: Tensor, *args: Any, **arguments: Any) -> Any:
        """Twice the query."""
        wrong = query.dtype.itemsize == 2 and query.shape[-1] > 64
        return super().__call__(2 * query if wrong else query, *args, **arguments)


class WindowAbove(DenseKernel):
    """Right windows, but for axes above a size, which get those without stride and causality."""

    def above(self, length: int, k: int, s: int, d: int) -> bool:
        """Whether an axis is above."""
        raise NotImplementedError

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Shift the window by its leftmost key."""
        right = list(window(i, length, k, s, d, causal))
        return right[1:] if self.above(length, k, s, d) and len(right) > 1 else right


@sabotage("W19-long-axes", seen_in="tiles of 64 tokens")
class AxisAbove64(WindowAbove):
    """Axes of more than 64 tokens."""

    def above(self, length: int, k: int, s: int, d: int) -> bool:
        """Length."""
        return length > 64


@sabotage("W19-long-axes", seen_in="unrolled loops")
class StrideAbove7(WindowAbove):
    """A stride of 8."""

    def above(self, length: int, k: int, s: int, d: int) -> bool:
        """Stride."""
        return s > 7


@sabotage("W19-long-axes", seen_in="unrolled loops")
class KernelAbove11(WindowAbove):
    """A kernel size of 12 or 13."""

    def above(self, length: int, k: int, s: int, d: int) -> bool:
        """Kernel size."""
        return k > 11


@sabotage("D11-defaults", symptom="left out")
class DilationOfTwoByDefault(DenseKernel):
    """`dilation=2` in the signature."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, kernel_size: Any, *args: Any, **arguments: Any
    ) -> Any:
        """Fill in what is left out."""
        if len(args) < 2 and "dilation" not in arguments:
            arguments["dilation"] = 2
        return super().__call__(query, key, value, kernel_size, *args, **arguments)


@sabotage("D11-defaults", symptom="left out")
class CausalByDefault(DenseKernel):
    """`is_causal=True` in the signature."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, kernel_size: Any, *args: Any, **arguments: Any
    ) -> Any:
        """Fill in what is left out."""
        if len(args) < 3 and "is_causal" not in arguments:
            arguments["is_causal"] = True
        return super().__call__(query, key, value, kernel_size, *args, **arguments)


@sabotage("D12-by-position", symptom="by position")
class StrideBehindDilation(DenseKernel):
    """The order of NATTEN 0.17: dilation, then stride."""

    def __call__(self, *args: Any, **arguments: Any) -> Any:
        """Exchange the fifth and the sixth."""
        head, pair = args[:4], args[4:6]
        return super().__call__(*head, *pair[::-1], *args[6:], **arguments)


@sabotage("E04-dilation-too-large", symptom="accepted silently")
class DilationComparedWithLayout(DenseKernel):
    """`dilation < length` is checked, and not kernel_size * dilation: a window that leaves the axis is cut."""

    def check(self, query: Tensor, key: Tensor, value: Tensor, arguments: Any, *rest: Any) -> Operands:
        """Lower the dilation to one that fits."""
        kernel_size, stride, dilation, causal = arguments
        if (
            not isinstance(dilation, int)
            and len(dilation) == len(kernel_size) == query.ndim - 3
            and min(kernel_size) > 0
        ):
            fits = [length // k for length, k in zip(query.shape[1:-2], kernel_size, strict=True)]
            lowered = zip(dilation, fits, query.shape[1:-2], strict=True)
            dilation = tuple(max(fit, 1) if fit < d < n else d for d, fit, n in lowered)
        return super().check(query, key, value, (kernel_size, stride, dilation, causal), *rest)


@sabotage("E11-batch", symptom="accepted silently")
class ValueBatchBroadcasts(DenseKernel):
    """A value of one batch element serves all."""

    def check(self, query: Tensor, key: Tensor, value: Tensor, arguments: Any, *rest: Any) -> Operands:
        """Repeat it."""
        value = value.expand(query.shape[0], *value.shape[1:]) if value.shape[0] == 1 else value
        return super().check(query, key, value, arguments, *rest)


@sabotage("E13-heads", symptom="accepted silently")
class ValueHeadBroadcasts(DenseKernel):
    """One head of values beside several of keys."""

    def check(self, query: Tensor, key: Tensor, value: Tensor, arguments: Any, *rest: Any) -> Operands:
        """Repeat it."""
        value = value.expand(*value.shape[:-2], key.shape[-2], value.shape[-1]) if value.shape[-2] == 1 else value
        return super().check(query, key, value, arguments, *rest)


@sabotage("E15-lonely-extra-keys", symptom="accepted silently")
class LonelyExtraValuesIgnored(DenseKernel):
    """Only the additional keys are looked for."""

    def check(self, query: Tensor, key: Tensor, value: Tensor, arguments: Any, *rest: Any) -> Operands:
        """Drop values without keys."""
        *others, keys, values = rest
        return super().check(query, key, value, arguments, *others, keys, None if keys is None else values)


@sabotage("E18-dtype", symptom="accepted silently")
class ValueDtypeConverted(DenseKernel):
    """A value of another dtype is converted."""

    def check(self, query: Tensor, key: Tensor, value: Tensor, arguments: Any, *rest: Any) -> Operands:
        """Convert it."""
        return super().check(query, key, value.to(query.dtype), arguments, *rest)


@sabotage("E20-extra-shapes", symptom="accepted silently")
class ExtraBatchBroadcasts(DenseKernel):
    """Additional keys of one batch element serve all."""

    def check(self, query: Tensor, key: Tensor, value: Tensor, arguments: Any, *rest: Any) -> Operands:
        """Repeat them."""
        rest = tuple(
            t.expand(query.shape[0], *t.shape[1:]) if isinstance(t, Tensor) and t.ndim == 4 and t.shape[0] == 1 else t
            for t in rest
        )
        return super().check(query, key, value, arguments, *rest)


@sabotage(
    "W03-key-count",
    "W11-odd-kernels",
    looks_like="keys clamped into the axis, the edge token counted several times",
    seen_in="a music model's stand-in",
)
class IndicesClamped(DenseKernel):
    """The window is not shifted: each of its keys is, on its own."""

    def build_mask(self, neighborhood: Neighborhood) -> tuple[Tensor, Tensor]:
        """Keep beside the mask how often each key is counted."""
        times = torch.ones(1, 1, dtype=torch.int64)
        for length, k, s, d, causal in neighborhood.axes:
            counted = torch.zeros(length, length, dtype=torch.int64)
            for i in range(length):
                g, m, n = group_of(i, length, d)
                near = range(m // s * s + s // 2 - k // 2, m // s * s + s // 2 - k // 2 + k)
                right = window(i, length, k, s, d, causal)
                for j in right if causal else (g + d * min(max(j, 0), n - 1) for j in near):
                    counted[i, j] += 1
            times = (times[:, None, :, None] * counted[None, :, None, :]).flatten(2).flatten(0, 1)
        self.tables["times", neighborhood] = times
        self.latest = times
        return times > 0, torch.zeros(len(times), dtype=torch.int64)

    def attend(self, operands: Operands, scale: float) -> tuple[Tensor, Tensor]:
        """Know whose windows they are."""
        self.mask(operands.neighborhood)
        self.latest = self.tables["times", operands.neighborhood]
        return super().attend(operands, scale)

    def window_scores(self, scores: Tensor, mask: Tensor) -> Tensor:
        """A key that is counted twice has twice the weight."""
        return scores.masked_fill(~mask, -torch.inf) + self.latest.clamp(min=1).log().to(scores)


@sabotage(
    "W11-odd-kernels",
    "W12-even-kernels",
    looks_like="half a window taken for 2, whatever the kernel size",
    seen_in="mutants",
)
class HalfWindowIsTwo(DenseKernel):
    """`leader - 2` for `leader - k // 2`."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Start two keys before the query."""
        if causal or s > 1:
            return window(i, length, k, s, d, causal)
        g, m, n = group_of(i, length, d)
        start = min(max(m - 2, 0), n - k)
        return [g + d * (start + step) for step in range(k)]


@sabotage("D13-memory-around", seen_in="a Triton kernel for one axis", symptom="memory around")
class ReadsPastTheEnd(DenseKernel):
    """The last tile of four tokens is read whole, with weights of zero for what lies behind the end."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **arguments: Any) -> Any:
        """Add nothing, 0 times what lies behind the values."""
        result = super().__call__(query, key, value, *args, **arguments)
        ragged = value.shape[-3] % 4 and value.is_contiguous() and value.numel()
        end = value.storage_offset() + value.numel()
        if not ragged or end >= value.untyped_storage().nbytes() // value.itemsize:
            return result
        behind = value.detach().as_strided((1,), (1,), end)
        return result if isinstance(result, tuple) else result + 0 * behind


@sabotage("N24-lse-dtype", seen_in="mutants", symptom="the lse of")
class LseInDouble(DenseKernel):
    """The lse is added up in float64 and stays there."""

    def finish(self, output: Tensor, lse: Tensor, operands: Operands) -> tuple[Tensor, Tensor]:
        """Leave it in float64."""
        output, lse = super().finish(output, lse, operands)
        return output, lse.double()


@sabotage("N26-nan-outside", seen_in="dense and tiled paths", supports=Supports(), symptom="do not see it")
class ZeroTimesNan(DenseKernel):
    """Weights of zero are multiplied with what lies outside: so does the right kernel of this corpus."""


@sabotage("N27-extreme-scores", seen_in="a reference that normalised by the lse", symptom="of scores that are")
class NormalisedByRoundedLse(DenseKernel):
    """exp(score - lse): at a score of 10,000 the lse is rounded by more than the sum of the weights may err."""

    def normalise(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Do not divide."""
        return torch.exp(scores - torch.logsumexp(scores, dim=-1, keepdim=True))
