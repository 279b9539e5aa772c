"""G: gradients to every input, through the output and the lse, against autograd of plain PyTorch in float64."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dinat_ref.testing.checks.plain import expected_mask, plain_attention
from dinat_ref.testing.checks.sampling import Wish
from dinat_ref.testing.checks.yardstick import Yardstick, demand
from dinat_ref.testing.kernel import Kernel, Wrong
from dinat_ref.testing.problem import Inputs, Problem
from dinat_ref.testing.registry import check

BACKWARD = ("backward",)


def leaves(inputs: Inputs) -> Inputs:
    """The inputs as leaves of a graph, their memory as it was."""
    return inputs.map(lambda tensor: tensor.detach().requires_grad_())


def cotangent(like: Tensor, seed: int) -> Tensor:
    """A gradient of the output: standard normal."""
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype).to(like.device)


def transposed(tensor: Tensor) -> Tensor:
    """The same numbers, the first axis of the layout and the last in exchanged memory."""
    return tensor.transpose(1, -1).contiguous().transpose(1, -1)


def attend(kernel: Kernel | None, problem: Problem, inputs: Inputs, lse: bool) -> tuple[Tensor, Tensor | None]:
    """Output and lse of the kernel, or of plain PyTorch."""
    return plain_attention(problem, inputs) if kernel is None else kernel.attend(problem, inputs, return_lse=lse)


def gradients(
    kernel: Kernel | None, problem: Problem, inputs: Inputs, part: str = "output", strided: bool = False
) -> dict[str, Tensor]:
    """Gradients to every input, of the output, or the lse, times a fixed cotangent."""
    inputs = leaves(inputs)
    output, lse = attend(kernel, problem, inputs, part == "lse")
    result = output if part == "output" else lse
    assert result is not None
    if not result.requires_grad:
        raise Wrong(f"the {part} does not depend on its inputs: no gradient can flow")
    grad = cotangent(result, problem.seed)
    grad = transposed(grad) if strided else grad
    named = inputs.named()
    found = torch.autograd.grad(result, list(named.values()), grad, allow_unused=True)
    return {
        name: torch.zeros_like(tensor) if given is None else given
        for (name, tensor), given in zip(named.items(), found, strict=True)
    }


def observe_gradients(kernel: Kernel, problem: Problem, inputs: Inputs) -> list[Tensor]:
    """All that a diagnosis compares: gradients of the output, by a strided cotangent, of the lse, and twice."""
    found = list(gradients(kernel, problem, inputs).values())
    found += gradients(kernel, problem, inputs, strided=True).values()
    if kernel.supports.lse:
        found += gradients(kernel, problem, inputs, "lse").values()
    if kernel.supports.double_backward:
        found += second(kernel, problem, inputs)
    return found + backward_again(kernel, problem, inputs)


def compare(
    kernel: Kernel, problem: Problem, names: Sequence[str], part: str = "output", strided: bool = False
) -> float:
    """Demand the exact gradients of some inputs."""
    inputs = problem.inputs(kernel.device)
    got = gradients(kernel, problem, inputs, part, strided)
    exact = gradients(None, problem, inputs.to(torch.float64).map(Tensor.cpu), part)
    fair = gradients(None, problem, inputs.map(Tensor.cpu), part)
    ruler = Yardstick(problem, inputs)
    worst = 0.0
    for name in names:
        if name in got:
            magnitude = max(float(tensor.abs().amax()) for tensor in exact.values()) * (1.0 + ruler.scores)
            budget = ruler.fair(fair[name], exact[name], inputs.query.dtype, 2.0 * magnitude)
            what = f"the gradient to {name}" + (" through the lse" if part == "lse" else "")
            worst = max(worst, demand(what, got[name], exact[name], budget))
    return worst


@check("G01-query", Wish(rpb=False), needs=BACKWARD)
def query(kernel: Kernel, problem: Problem) -> float:
    """The gradient to the query is right."""
    return compare(kernel, problem, ["query"])


@check("G02-key", Wish(rpb=False, gqa=False), needs=BACKWARD)
def key(kernel: Kernel, problem: Problem) -> float:
    """The gradient to the key is right: every query that attends a key adds to it."""
    return compare(kernel, problem, ["key"])


@check("G03-value", Wish(rpb=False, gqa=False), needs=BACKWARD)
def value(kernel: Kernel, problem: Problem) -> float:
    """The gradient to the value is right."""
    return compare(kernel, problem, ["value"])


@check("G04-rpb", Wish(rpb=True), needs=BACKWARD)
def rpb(kernel: Kernel, problem: Problem) -> float:
    """The gradient to the bias is right, at edges too."""
    return compare(kernel, problem, ["rpb"])


@check("G05-extra-keys", Wish(extra_keys=True, rpb=False), needs=BACKWARD)
def extra_keys(kernel: Kernel, problem: Problem) -> float:
    """The gradients to additional keys and values are right."""
    return compare(kernel, problem, ["additional_keys", "additional_values"])


@check("G06-lse", Wish(rpb=False), needs=("backward", "lse"))
def lse(kernel: Kernel, problem: Problem) -> float:
    """The gradient flows through the lse."""
    return compare(kernel, problem, ["query", "key", "additional_keys"], "lse")


@check("G07-ragged", Wish(rpb=False, dilation=True, min_slack=1), needs=BACKWARD)
def ragged(kernel: Kernel, problem: Problem) -> float:
    """On ragged layouts the gradients are finite and right."""
    return compare(kernel, problem, ["query", "key", "value"])


@check("G08-gqa-sum", Wish(gqa=True, rpb=False), needs=BACKWARD)
def gqa_sum(kernel: Kernel, problem: Problem) -> float:
    """With grouped heads, a key's gradient is the sum over the query heads of its group."""
    return compare(kernel, problem, ["key", "value"])


@check("G09-support", Wish(extra_keys=False, rpb=False), needs=BACKWARD)
def support(kernel: Kernel, problem: Problem) -> None:
    """One query's output sends gradients to exactly the values of its window."""
    inputs = leaves(problem.inputs(kernel.device))
    output, _ = kernel.attend(problem, inputs)
    expected = expected_mask(problem.neighborhood)
    if not output.requires_grad:
        raise Wrong("the output does not depend on its inputs: no gradient can flow")
    for row in {0, len(expected) // 2, len(expected) - 1}:
        grad = torch.zeros_like(output)
        grad.flatten(1, -3)[:, row] = 1.0
        (found,) = torch.autograd.grad(output, [inputs.value], grad, retain_graph=True)
        got = found.flatten(1, -3).abs().sum((0, 2, 3)).cpu() > 0
        if bool((got ^ expected[row]).any()):
            inside = f"{int((got & expected[row]).sum())} of the {int(expected[row].sum())}"
            counts = f"{int(got.sum())} values, {inside} in its window"
            raise Wrong(f"the gradient of query {row} reaches {counts}")


@check("G10-strided-gradient", Wish(rpb=False), needs=BACKWARD)
def strided_gradient(kernel: Kernel, problem: Problem) -> float:
    """A gradient that is not contiguous in memory is read right."""
    return compare(kernel, problem, ["query", "key", "value"], strided=True)


def second(kernel: Kernel | None, problem: Problem, inputs: Inputs) -> list[Tensor]:
    """Gradients of a fixed combination of the gradients."""
    inputs = leaves(inputs)
    output, _ = attend(kernel, problem, inputs, False)
    tensors = list(inputs.named().values())
    first = torch.autograd.grad(output, tensors, cotangent(output, problem.seed), create_graph=True, allow_unused=True)
    total = sum((grad * cotangent(grad, problem.seed + 7)).sum() for grad in first if grad is not None)
    if not isinstance(total, Tensor) or not total.requires_grad:
        raise Wrong("the first gradients have no graph: double backward is not there")
    found = torch.autograd.grad(total, tensors, allow_unused=True)
    return [torch.zeros_like(t) if grad is None else grad for t, grad in zip(tensors, found, strict=True)]


@check("G11-double-backward", Wish(rpb=False), needs=("backward", "double_backward"))
def double_backward(kernel: Kernel, problem: Problem) -> float:
    """The second derivative is right, and not silently zero."""
    inputs = problem.inputs(kernel.device)
    exact = second(None, problem, inputs.to(torch.float64).map(Tensor.cpu))
    fair = second(None, problem, inputs.map(Tensor.cpu))
    ruler, worst = Yardstick(problem, inputs), 0.0
    largest = max(float(tensor.abs().amax()) for tensor in inputs.named().values())
    terms = max(largest**2, *(float(tensor.abs().amax()) for tensor in exact))  # they may cancel, as for a lone key
    magnitude = 4.0 * terms * (1.0 + ruler.scores)
    for name, got, wanted, plain in zip(inputs.named(), second(kernel, problem, inputs), exact, fair, strict=True):
        budget = ruler.fair(plain, wanted, inputs.query.dtype, magnitude)
        worst = max(worst, demand(f"the second gradient to {name}", got, wanted, budget))
    return worst


@check("G12-causal-stride", Wish(causal=True, stride=True, rpb=False, extra_keys=False, gqa=False), needs=BACKWARD)
def causal_stride(kernel: Kernel, problem: Problem) -> float:
    """With causality and stride, keys and values gather their gradients from the right queries."""
    return compare(kernel, problem, ["key", "value"])


def backward_again(kernel: Kernel, problem: Problem, inputs: Inputs) -> list[Tensor]:
    """The gradients of a second backward pass through the same graph."""
    inputs = leaves(inputs)
    output, _ = kernel.attend(problem, inputs)
    tensors = list(inputs.named().values())
    grad = cotangent(output, problem.seed)
    torch.autograd.grad(output, tensors, grad, retain_graph=True, allow_unused=True)
    again = torch.autograd.grad(output, tensors, grad, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, again, strict=True)]


@check("G13-backward-twice", Wish(rpb=False), needs=BACKWARD)
def backward_twice(kernel: Kernel, problem: Problem) -> float:
    """A second backward pass through the same graph gives the same: no saved tensor is overwritten."""
    inputs = problem.inputs(kernel.device)
    once = gradients(kernel, problem, inputs)
    worst = 0.0
    for (name, first), again in zip(once.items(), backward_again(kernel, problem, inputs), strict=True):
        budget = 16 * torch.finfo(first.dtype).eps * (float(first.abs().amax()) + 1e-3)
        worst = max(worst, demand(f"in the second pass, the gradient to {name}", again, first, budget))
    return worst


@check("G14-key-sum", Wish(causal=False, extra_keys=False, rpb=False), needs=BACKWARD)
def key_sum(kernel: Kernel, problem: Problem) -> float:
    """The key gradients sum to zero: a vector added to all keys changes nothing."""
    inputs = problem.inputs(kernel.device)
    found = gradients(kernel, problem, inputs)["key"]
    total = found.flatten(1, -3).double().sum(1)
    terms = found.flatten(1, -3).double().abs().sum(1).amax().item()
    scores = Yardstick(problem, inputs).scores
    budget = 32 * torch.finfo(found.dtype).eps * (terms + 0.1) * (1.0 + scores)
    return demand("the sum of the key gradients", total, torch.zeros_like(total), budget)


@check("G15-low-precision", Wish(rpb=False), needs=BACKWARD)
def low_precision(kernel: Kernel, problem: Problem) -> float | None:
    """In half precision the gradients err at most twice as much as plain PyTorch's."""
    worst = None
    for dtype in ("bf16", "f16"):
        half = problem.but(dtype_name=dtype)
        if kernel.supports.takes(half):
            worst = max(worst or 0.0, compare(kernel, half, ["query", "key", "value"]))
    return worst
