"""Wrong numbers: scale, softmax, heads, lse, additional keys, bias."""

import math
from typing import Any

import torch
from torch import Tensor

from dinat_ref.attention import neighborhood_attention
from dinat_ref.attention.operands import Operands
from dinat_ref.testing.sabotage.base import DenseKernel, sabotage


@sabotage("N17-lse-same-output", looks_like="scale applied twice when the lse is asked for", seen_in="natten-mlx")
class ScaleTwiceWithLse(DenseKernel):
    """The path that returns the lse scales the query, then the scores."""

    def scale(self, scale: float | None, head_dim: int, return_lse: bool) -> float:
        """Square it."""
        right = super().scale(scale, head_dim, return_lse)
        return right * right if return_lse else right


@sabotage("N19-scale-zero", looks_like="scale 0.0 taken for None", seen_in="NATTEN")
class ScaleZeroIsNone(DenseKernel):
    """`scale or head_dim ** -0.5`."""

    def scale(self, scale: float | None, head_dim: int, return_lse: bool) -> float:
        """Fall back to the usual scale for a scale that is false."""
        return scale or head_dim**-0.5


@sabotage("N01-float32", looks_like="scale left out")
class ScaleDropped(DenseKernel):
    """Scores are bare dot products."""

    def scale(self, scale: float | None, head_dim: int, return_lse: bool) -> float:
        """Always one."""
        return 1.0


@sabotage("N18-scale", looks_like="a given scale is ignored")
class ScaleIgnored(DenseKernel):
    """head_dim ** -0.5, whatever is asked for."""

    def scale(self, scale: float | None, head_dim: int, return_lse: bool) -> float:
        """The usual scale."""
        return head_dim**-0.5


@sabotage("N01-float32", looks_like="scale by head_dim, not by its root")
class ScaleByHeadDim(DenseKernel):
    """1 / head_dim."""

    def scale(self, scale: float | None, head_dim: int, return_lse: bool) -> float:
        """Forget the root."""
        return 1.0 / head_dim if scale is None else scale


@sabotage("N10-constant-value", looks_like="softmax over the queries instead of the keys")
class SoftmaxOverQueries(DenseKernel):
    """The wrong axis: columns sum to one instead of rows."""

    def normalise(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Take dim -2."""
        return torch.softmax(scores, dim=-2)


@sabotage("N10-constant-value", looks_like="mask applied after the softmax, weights not renormalised")
class MaskAfterSoftmax(DenseKernel):
    """The softmax runs over all tokens; what lies outside the window is then dropped."""

    def window_scores(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Forbid nothing."""
        return scores

    def normalise(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Mask the weights."""
        extra = scores.shape[-1] - mask.shape[-1]
        return torch.softmax(scores, dim=-1) * torch.nn.functional.pad(mask, (0, extra), value=True)


@sabotage("N23-large-scores", looks_like="softmax without subtracting the maximum")
class SoftmaxOverflows(DenseKernel):
    """exp(score) / sum exp(score), which overflows at scores of 89."""

    def normalise(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Do not subtract the maximum."""
        weights = torch.exp(scores.float()).to(scores.dtype)
        return weights / weights.sum(-1, keepdim=True)


@sabotage(
    "N14-outside-key", looks_like="mask by a large negative number that large scores outgrow", seen_in="masks of -100"
)
class MaskTooSmall(DenseKernel):
    """Scores outside the window are lowered by 30 instead of forbidden."""

    def window_scores(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Subtract 30."""
        return torch.where(mask, scores, scores - 30.0)


@sabotage("N05-long-windows", looks_like="sums kept in half precision", seen_in="NATTEN, half accumulation")
class HalfAccumulation(DenseKernel):
    """In half precision the weighted sum is added up key by key in half precision."""

    def finish(self, output: Tensor, lse: Tensor, operands: Operands) -> tuple[Tensor, Tensor]:
        """As before."""
        return super().finish(output, lse, operands)

    def __call__(self, query: Tensor, *args: Any, **arguments: Any) -> Any:
        """Remember the dtype that the operands come in."""
        self.half = query.dtype if query.dtype.itemsize < 4 else None
        return super().__call__(query, *args, **arguments)

    def total(self, weights: Tensor, values: Tensor) -> Tensor:
        """Add one key after the other, rounding each time."""
        if self.half is None:
            return weights @ values
        total = torch.zeros(*weights.shape[:-1], values.shape[-1], dtype=self.half)
        for key in range(weights.shape[-1]):
            total = total + (weights[..., key, None] * values[..., None, key, :]).to(self.half)
        return total.to(weights.dtype)


@sabotage("N01-float32", looks_like="dot products in bfloat16 (or TF32) for float32 tensors")
class ScoresInBfloat16(DenseKernel):
    """Query and key are rounded before they are multiplied."""

    def dot(self, query: Tensor, key: Tensor, scale: float) -> Tensor:
        """Round both."""
        return super().dot(query.bfloat16().to(query.dtype), key.bfloat16().to(key.dtype), scale)


@sabotage("N02-float64", looks_like="float64 computed in float32")
class DoubleInFloat(DenseKernel):
    """The dot products of float64 tensors are taken in float32."""

    def dot(self, query: Tensor, key: Tensor, scale: float) -> Tensor:
        """Round both."""
        return super().dot(query.float(), key.float(), scale).to(query.dtype)


@sabotage("N15-not-constant", looks_like="output all zeros", seen_in="KernelBench")
class AllZeros(DenseKernel):
    """Nothing is computed; an absolute tolerance lets it pass."""

    def total(self, weights: Tensor, values: Tensor) -> Tensor:
        """Nothing times the sum."""
        return 0.0 * super().total(weights, values)


@sabotage("N15-not-constant", looks_like="the mean of all values for every query", seen_in="KernelBench")
class MeanOfAll(DenseKernel):
    """Close to right for long windows of random values."""

    def total(self, weights: Tensor, values: Tensor) -> Tensor:
        """Equal weights."""
        return torch.full_like(weights, 1 / weights.shape[-1]) @ values


@sabotage("N30-long-axis", looks_like="token numbers overflow on long layouts", seen_in="NATTEN #347 (at 32 bits)")
class TokenNumberOverflows(DenseKernel):
    """Numbers of 12 bits: everything is right up to 4096 tokens."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **arguments: Any) -> Any:
        """Let the values behind the 4096th token come from the front."""
        tokens = math.prod(query.shape[1:-2])
        if tokens <= 4096:
            return super().__call__(query, key, value, *args, **arguments)
        numbers = torch.arange(tokens) % 4096
        value = value.flatten(1, -3)[:, numbers].unflatten(1, query.shape[1:-2])
        return neighborhood_attention(query, key, value, *args, impl="unfold", **arguments)


@sabotage("X04-gqa-repeat", looks_like="grouped heads mapped by modulo instead of repeated one by one")
class GroupedHeadsModulo(DenseKernel):
    """Query head h reads key head h mod Hkv."""

    def heads(self, tensor: Tensor, group_size: int) -> Tensor:
        """Use repeat instead of repeat_interleave."""
        return tensor.transpose(1, 2).repeat(1, group_size, 1, 1)


@sabotage("X04-gqa-repeat", looks_like="all query heads read the first key head")
class FirstKeyHead(DenseKernel):
    """Grouped heads are treated as multi-query attention."""

    def heads(self, tensor: Tensor, group_size: int) -> Tensor:
        """Expand the first head."""
        right = super().heads(tensor, group_size)
        return right if group_size == 1 else right[:, :1].expand_as(right)


@sabotage("N22-batch-and-heads", looks_like="keys of the first batch element read for all")
class FirstBatch(DenseKernel):
    """A batch stride of zero for keys and values."""

    def heads(self, tensor: Tensor, group_size: int) -> Tensor:
        """Expand the first element."""
        right = super().heads(tensor, group_size)
        return right[:1].expand_as(right)


@sabotage("N16-lse", looks_like="lse in base 2", seen_in="FlashAttention-style epilogues")
class LseBaseTwo(DenseKernel):
    """The kernel computes with exp2 and returns log2."""

    def lse(self, scores: Tensor, tokens: int) -> Tensor:
        """Divide by log 2."""
        return super().lse(scores, tokens) / math.log(2)


@sabotage("N16-lse", looks_like="lse without the additional keys")
class LseWithoutExtraKeys(DenseKernel):
    """The lse covers the window alone."""

    def lse(self, scores: Tensor, tokens: int) -> Tensor:
        """Cut the additional keys off."""
        return super().lse(scores[..., :tokens], tokens)


@sabotage("N16-lse", looks_like="lse is the maximum, its sum forgotten")
class LseIsMaximum(DenseKernel):
    """The row maximum of the online softmax is returned."""

    def lse(self, scores: Tensor, tokens: int) -> Tensor:
        """The largest score."""
        return scores.amax(-1)


@sabotage("N16-lse", looks_like="lse heads-first", symptom="lse must be")
class LseHeadsFirst(DenseKernel):
    """[B, H, *layout] instead of [B, *layout, H]."""

    def finish(self, output: Tensor, lse: Tensor, operands: Operands) -> tuple[Tensor, Tensor]:
        """Leave the heads where they are."""
        return super().finish(output, lse, operands)[0], lse.unflatten(2, operands.neighborhood.layout)


@sabotage("X05-extra-keys", looks_like="additional keys ignored")
class ExtraKeysIgnored(DenseKernel):
    """The arguments are taken and not used."""

    def extra_scores(self, scores: Tensor, query: Tensor, keys: Tensor) -> Tensor:
        """Forbid them."""
        return torch.full_like(scores, -torch.inf)


@sabotage("X05-extra-keys", looks_like="additional keys not scaled")
class ExtraKeysNotScaled(DenseKernel):
    """Their scores are bare dot products."""

    def extra_scores(self, scores: Tensor, query: Tensor, keys: Tensor) -> Tensor:
        """Multiply again, without scale."""
        return query @ keys.mT


@sabotage("X05-extra-keys", looks_like="only the first additional key is attended")
class FirstExtraKeyOnly(DenseKernel):
    """The others fall behind a tile's end."""

    def extra_scores(self, scores: Tensor, query: Tensor, keys: Tensor) -> Tensor:
        """Forbid the rest."""
        return torch.cat([scores[..., :1], torch.full_like(scores[..., 1:], -torch.inf)], dim=-1)


@sabotage("N20-rpb-offsets", looks_like="bias mirrored: read by query minus key", seen_in="NATTEN #58, #61")
class BiasMirrored(DenseKernel):
    """The offset has the wrong sign."""

    def bias_offset(self, i: int, j: int, k: int, d: int, length: int) -> int:
        """Swap i and j."""
        return (i - j) // d + k - 1


@sabotage("N20-rpb-offsets", looks_like="bias not shifted at the edges", seen_in="NATTEN #58, #165")
class BiasNotShifted(DenseKernel):
    """Slot t of every window reads entry t of the table's centre, as if no window were shifted."""

    def bias_offset(self, i: int, j: int, k: int, d: int, length: int) -> int:
        """Offset of the slot, not of the key."""
        start = min(max(i // d - k // 2, 0), -(-(length - i % d) // d) - k)
        return j // d - start + k - 1 - k // 2


@sabotage("N20-rpb-offsets", looks_like="bias read with the dilation in the offset")
class BiasByTokens(DenseKernel):
    """j - i instead of (j - i) / d."""

    def bias_offset(self, i: int, j: int, k: int, d: int, length: int) -> int:
        """Do not divide."""
        return min(max(j - i + k - 1, 0), 2 * k - 2)


@sabotage("N21-rpb-numbers", looks_like="bias scaled together with the scores")
class BiasScaled(DenseKernel):
    """scale * (q k + bias)."""

    def bias(self, operands: Operands, scale: float) -> Tensor | float:
        """Scale it."""
        return scale * super().bias(operands, scale)


@sabotage("N21-rpb-numbers", looks_like="bias of the first head used for all heads")
class BiasOfFirstHead(DenseKernel):
    """A head stride of zero."""

    def bias(self, operands: Operands, scale: float) -> Tensor | float:
        """Expand the first head."""
        bias = super().bias(operands, scale)
        return bias[:1] if isinstance(bias, Tensor) else bias
