"""How large an error may be: at most twice what plain PyTorch makes in the same dtype, measured against float64.

An absolute tolerance says nothing: the output of a window of 2048 keys has an rms of 0.02, so that with a tolerance of
0.05 a kernel that returns zeros is right.
"""

import torch
from torch import Tensor

from dinat_ref.testing.checks.plain import plain_attention
from dinat_ref.testing.kernel import Kernel, Wrong
from dinat_ref.testing.problem import Inputs, Problem

FACTOR = 2.0  # times the error of plain PyTorch
ULPS = {True: 1.0, False: 1.0}  # beside it, roundings of the last place: float32 and float64, then half precision


def multiple_of(got: Tensor, wanted: Tensor, budget: float) -> float:
    """The largest difference as a multiple of a budget; infinite where a number is not finite.

    Shapes:
        got, wanted: any, the same
    Raises:
        Wrong: the shapes differ.
    Example:
        >>> multiple_of(torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0]), budget=0.25)
        2.0
    """
    if got.shape != wanted.shape:
        raise Wrong(f"expected the shape {tuple(wanted.shape)}, got {tuple(got.shape)}")
    if not got.numel():
        return 0.0
    difference = (got.detach().double().cpu() - wanted.detach().double().cpu()).abs().amax().item()
    return difference / budget if difference == difference else float("inf")


def demand(what: str, got: Tensor, wanted: Tensor, budget: float) -> float:
    """Raise unless all differences lie within the budget; return the largest as a multiple of it.

    Shapes:
        got, wanted: any, the same
    Raises:
        Wrong: with the place of the largest difference.
    Example:
        >>> demand("the output", torch.ones(3), torch.zeros(3), budget=0.5)
        Traceback (most recent call last):
        dinat_ref.testing.kernel.Wrong: the output is off by 2 times the budget: 1 at [0], expected 0 within 0.5
    """
    multiple = multiple_of(got, wanted, budget)
    if multiple <= 1.0:
        return multiple
    got, wanted = got.detach().double().cpu(), wanted.detach().double().cpu()
    bad = ~torch.isfinite(got)
    flat = int(bad.flatten().int().argmax()) if bool(bad.any()) else int((got - wanted).abs().flatten().argmax())
    place = [int(index) for index in torch.unravel_index(torch.tensor(flat), got.shape)]
    have, want = got.flatten()[flat].item(), wanted.flatten()[flat].item()
    size = f"{multiple:.3g} times the budget" if multiple < float("inf") else "more than can be said"
    raise Wrong(f"{what} is off by {size}: {have:.6g} at {place}, expected {want:.6g} within {budget:.3g}", multiple)


class Yardstick:
    """The exact numbers of a problem and the error that is fair for them.

    Shapes:
        output: [B, *layout, H, Dv], lse: [B, *layout, H], both float64
    Source: the rule of FlashAttention's tests (twice the error of PyTorch in the same dtype).
    Example:
        >>> problem = Problem("1d 5 k3 d1 h1 e4 f32 seed0")
        >>> ruler = Yardstick(problem, problem.inputs())
        >>> 0 < ruler.output_budget < 1e-5
        True
    """

    def __init__(self, problem: Problem, inputs: Inputs, dtype: torch.dtype | None = None) -> None:
        """Compute the exact numbers and those of plain PyTorch in the dtype."""
        dtype = dtype or inputs.query.dtype
        inputs = inputs.to(dtype).map(lambda tensor: tensor.cpu())
        self.output, self.lse = plain_attention(problem, inputs.to(torch.float64))
        output, lse = plain_attention(problem, inputs)
        self.scores = self._score_bound(problem, inputs)
        self.output_budget = self.fair(output, self.output, dtype, self._reach(inputs, dtype))
        self.lse_budget = self.fair(lse, self.lse, dtype, 1.0 + self.scores)

    def output_is(self, got: Tensor, what: str = "the output", factor: float = 1.0) -> float:
        """Demand the exact output."""
        return demand(what, got, self.output, self.output_budget * factor)

    def lse_is(self, got: Tensor, what: str = "the lse") -> float:
        """Demand the exact lse."""
        return demand(what, got, self.lse, self.lse_budget)

    def agree(self, what: str, got: Tensor, other: Tensor) -> float:
        """Demand that two outputs of the kernel agree: each may use its own budget."""
        return demand(what, got, other, 2 * self.output_budget)

    @staticmethod
    def fair(plain: Tensor, exact: Tensor, dtype: torch.dtype, magnitude: float) -> float:
        """The budget: twice the error of plain PyTorch, and the last places of numbers of a magnitude."""
        if not exact.numel():
            return 1.0
        error = (plain.double() - exact).abs().amax().item()
        return FACTOR * error + ULPS[dtype.itemsize >= 4] * torch.finfo(dtype).eps * magnitude

    def _reach(self, inputs: Inputs, dtype: torch.dtype) -> float:
        """The magnitude whose rounding is fair: in half precision that of the result, else that of its terms."""
        if not self.output.numel():
            return 1.0
        if dtype.itemsize < 4:
            return self.output.abs().amax().item()
        values = [inputs.value] + ([] if inputs.additional_values is None else [inputs.additional_values])
        return (1.0 + self.scores) * max(value.abs().amax().item() for value in values)

    @staticmethod
    def _score_bound(problem: Problem, inputs: Inputs) -> float:
        """No score is larger (Cauchy and Schwarz)."""
        if not inputs.query.numel():
            return 0.0
        scale = inputs.query.shape[-1] ** -0.5 if problem.scale is None else abs(problem.scale)
        keys = [inputs.key] + ([] if inputs.additional_keys is None else [inputs.additional_keys])
        longest = max(key.double().norm(dim=-1).amax().item() for key in keys)
        bias = 0.0 if inputs.rpb is None else inputs.rpb.abs().amax().item()
        return scale * inputs.query.double().norm(dim=-1).amax().item() * longest + bias


def run(kernel: Kernel, problem: Problem, inputs: Inputs) -> Tensor:
    """The kernel's output, without a graph.

    Shapes:
        return: [B, *layout, H, Dv]
    Raises:
        Wrong: the output has another shape.
    Example:
        >>> from dinat_ref import na1d
        >>> from dinat_ref.testing.kernel import Kernel
        >>> problem = Problem("1d 5 k3 d1 h1 e4 f32 seed0")
        >>> run(Kernel(na1d), problem, problem.inputs()).shape
        torch.Size([1, 5, 1, 4])
    """
    with torch.no_grad():
        return kernel.attend(problem, inputs)[0]
