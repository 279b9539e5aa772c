"""Wrong gradients behind right outputs."""

from typing import Any

import torch
from torch import Tensor

from dinat_ref.attention.operands import Operands
from dinat_ref.testing.sabotage.base import FULL, DenseKernel, sabotage
from dinat_ref.testing.supports import Supports

ONCE = Supports(rpb=True)  # declared without double backward, as kernels with a backward of their own are


class ChangeGradient(torch.autograd.Function):
    """The identity, with a gradient changed by a function."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, change: Any) -> Tensor:
        """Pass the tensor on."""
        ctx.change = change
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Change its gradient."""
        return ctx.change(grad), None


def changed(tensor: Tensor, change: Any) -> Tensor:
    """The same tensor, its gradient changed on the way back."""
    found: Tensor = ChangeGradient.apply(tensor, change)  # type: ignore[no-untyped-call]
    return found


class ChangedInputs(DenseKernel):
    """A right kernel; subclasses change the gradient on its way to an input."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **arguments: Any) -> Any:
        """Let the inputs pass through."""
        query, key, value = self.inputs(query, key, value)
        return super().__call__(query, key, value, *args, **arguments)

    def inputs(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What reaches the right kernel."""
        return query, key, value


@sabotage("G01-query", looks_like="the query's gradient not scaled", supports=ONCE)
class QueryGradientNotScaled(ChangedInputs):
    """dQ = dS K without the scale."""

    def inputs(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Undo the scale in the gradient."""
        return changed(query, lambda grad: grad * query.shape[-1] ** 0.5), key, value


@sabotage("G02-key", looks_like="the key's gradient lacks the softmax's correction", supports=ONCE)
class KeyGradientOfExponent(DenseKernel):
    """dS = P * dP: the row sum of P * dP is not subtracted."""

    def normalise(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Treat the denominator as a constant on the way back."""
        return torch.exp(scores - torch.logsumexp(scores, dim=-1, keepdim=True).detach())


@sabotage("G07-ragged", looks_like="NaN in the value's gradient on partial tiles", seen_in="NATTEN #341", supports=ONCE)
class NanOnPartialTiles(ChangedInputs):
    """Rows of the last, partial tile of four are multiplied by uninitialised memory."""

    def inputs(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spoil the last token where four does not divide the length."""

        def spoil(grad: Tensor) -> Tensor:
            if grad.shape[1] % 4 == 0:
                return grad
            grad = grad.clone()
            grad[:, -1] = torch.nan
            return grad

        return query, key, changed(value, spoil)


@sabotage(
    "G08-gqa-sum", looks_like="gradients of grouped heads overwritten, not summed", seen_in="NATTEN #328", supports=ONCE
)
class GroupedGradientOverwritten(DenseKernel):
    """The last query head of a group writes its dK and dV over the others'."""

    def heads(self, tensor: Tensor, group_size: int) -> Tensor:
        """Cut all heads of a group but the last off the graph."""
        right = super().heads(tensor, group_size)
        if group_size == 1:
            return right
        last = torch.arange(right.shape[1]) % group_size == group_size - 1
        return torch.where(last[:, None, None], right, right.detach())


@sabotage("G06-lse", looks_like="gradient through the lse dropped", seen_in="NATTEN", supports=ONCE)
class LseGradientDropped(DenseKernel):
    """The backward takes the output's gradient alone."""

    def lse(self, scores: Tensor, tokens: int) -> Tensor:
        """Connected, with a gradient of zero."""
        return super().lse(scores.detach(), tokens) + 0.0 * scores.nan_to_num(neginf=0.0).sum(-1)


class NoSecondDerivative(torch.autograd.Function):
    """A product whose backward is opaque: its own derivative is silently zero."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, values: Tensor) -> Tensor:
        """Multiply."""
        ctx.save_for_backward(weights, values)
        return weights @ values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Right, but for the graph: the saved tensors are taken as constants."""
        weights, values = (tensor.detach() for tensor in ctx.saved_tensors)
        return grad @ values.mT, weights.mT @ grad


@sabotage("G11-double-backward", looks_like="second derivative silently zero", seen_in="NATTEN #191", supports=FULL)
class DoubleBackwardZero(DenseKernel):
    """The backward is a kernel that autograd does not see into."""

    def total(self, weights: Tensor, values: Tensor) -> Tensor:
        """Multiply without a second derivative."""
        found: Tensor = NoSecondDerivative.apply(weights, values)  # type: ignore[no-untyped-call]
        return found


class OtherMask(torch.autograd.Function):
    """The identity on weights, whose gradient is cut to another mask."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, mask: Tensor) -> Tensor:
        """Pass the weights on."""
        ctx.save_for_backward(mask)
        return weights.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Drop what the inverse window does not reach."""
        (mask,) = ctx.saved_tensors
        return grad * mask, None


@sabotage(
    "G12-causal-stride",
    looks_like="inverse window of causal stride groups not corrected",
    seen_in="a trap that NATTEN's comments warn of",
    supports=ONCE,
)
class InverseWindowUncorrected(DenseKernel):
    """dK and dV visit the queries of the inverse window without stride."""

    def attend(self, operands: Operands, scale: float) -> tuple[Tensor, Tensor]:
        """Remember the neighborhood without stride."""
        where = operands.neighborhood
        self.inverse = type(where)(where.layout, where.kernel_size, 1, where.dilation, where.is_causal).mask()
        self.applies = any(where.is_causal) and max(where.stride) > 1
        return super().attend(operands, scale)

    def total(self, weights: Tensor, values: Tensor) -> Tensor:
        """Cut values' gradient to the wrong inverse window."""
        right = weights @ values
        if not self.applies:
            return right
        reach = torch.nn.functional.pad(self.inverse, (0, weights.shape[-1] - len(self.inverse)), value=True)
        partial = (weights * reach).detach() @ values
        return right.detach() + (weights @ values.detach() - right.detach()) + (partial - partial.detach())


@sabotage(
    "G10-strided-gradient",
    looks_like="a gradient that is not contiguous is read as if it were",
    seen_in="NATTEN #284",
    supports=ONCE,
)
class StridedGradientMisread(DenseKernel):
    """The backward walks grad_out's memory in order."""

    def __call__(self, *args: Any, **arguments: Any) -> Any:
        """Misread the gradient of the output."""

        def misread(grad: Tensor) -> Tensor:
            if grad.is_contiguous() or 0 in grad.stride():
                return grad
            return grad.as_strided(grad.shape, torch.empty(grad.shape).stride())

        result = super().__call__(*args, **arguments)
        if isinstance(result, tuple):
            return changed(result[0], misread), result[1]
        return changed(result, misread)


@sabotage("G09-support", "G03-value", looks_like="the last key's gradient dropped", supports=ONCE)
class LastKeyDropped(ChangedInputs):
    """The loop over keys stops one early on the way back."""

    def inputs(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Zero the last token's gradient."""

        def drop(grad: Tensor) -> Tensor:
            grad = grad.clone()
            grad.flatten(1, -3)[:, -1] = 0.0
            return grad

        return query, changed(key, drop), changed(value, drop)


@sabotage("G04-rpb", looks_like="bias gradient missing at the edges", seen_in="NATTEN #97", supports=ONCE)
class BiasGradientMissing(DenseKernel):
    """Queries whose window is shifted add nothing to the bias's gradient."""

    def bias(self, operands: Operands, scale: float) -> Tensor | float:
        """Cut edge queries off the graph."""
        bias = super().bias(operands, scale)
        if not isinstance(bias, Tensor):
            return bias
        edge = []
        for token in operands.neighborhood.tokens():
            axes = zip(token, operands.neighborhood.axes, strict=True)
            edge.append(any(i < k // 2 * d or i >= length - k // 2 * d for i, (length, k, _, d, _) in axes))
        return torch.where(torch.tensor(edge)[:, None], bias.detach(), bias)


@sabotage("G05-extra-keys", looks_like="no gradient to additional keys", supports=ONCE)
class ExtraKeysNoGradient(DenseKernel):
    """They are taken as constants."""

    def extra_scores(self, scores: Tensor, query: Tensor, keys: Tensor) -> Tensor:
        """Cut the keys, not the query, off the graph."""
        return (
            scores.detach()
            + (query - query.detach()) @ keys.detach().mT * 0.0
            + self._through_query(scores, query, keys)
        )

    @staticmethod
    def _through_query(scores: Tensor, query: Tensor, keys: Tensor) -> Tensor:
        """A zero whose gradient is the query's."""
        product = query @ keys.detach().mT
        factor = (scores / product.where(product != 0, torch.ones_like(product))).detach()
        return factor * (product - product.detach())


class OverwritesSaved(torch.autograd.Function):
    """A product whose backward uses its saved tensor as scratch space."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, values: Tensor) -> Tensor:
        """Multiply."""
        ctx.scratch, ctx.values = weights.detach().clone(), values.detach()
        return weights @ values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Right the first time."""
        to_values = ctx.scratch.mT @ grad
        ctx.scratch.mul_(0.5)
        return grad @ ctx.values.mT, to_values


@sabotage("G13-backward-twice", looks_like="backward overwrites saved tensors", seen_in="NATTEN's merge", supports=ONCE)
class SavedTensorOverwritten(DenseKernel):
    """The first backward pass is right, the second is not."""

    def total(self, weights: Tensor, values: Tensor) -> Tensor:
        """Multiply, and spoil what was saved."""
        found: Tensor = OverwritesSaved.apply(weights, values)  # type: ignore[no-untyped-call]
        return found


@sabotage(
    "G01-query", looks_like="no gradient at all: the output is cut off the graph", symptom="no gradient", supports=ONCE
)
class OutputDetached(DenseKernel):
    """The result is built outside autograd."""

    def total(self, weights: Tensor, values: Tensor) -> Tensor:
        """Detach."""
        return super().total(weights, values).detach()
