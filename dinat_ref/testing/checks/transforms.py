"""T: transforms of PyTorch, for kernels that opt in."""

from collections.abc import Iterator

import torch

from dinat_ref.testing.checks.behaviour import each_dtype
from dinat_ref.testing.checks.sampling import Wish
from dinat_ref.testing.checks.yardstick import Yardstick, demand, run
from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.problem import Inputs, Problem
from dinat_ref.testing.registry import check
from dinat_ref.testing.supports import Supports


def main_dtype_only(supports: Supports, budget: str) -> Iterator[Problem]:
    """One small problem for each number of axes."""
    return (problem for problem in each_dtype(supports, budget) if problem.dtype_name == supports.main_dtype)


@check("T01-compile", enumerate=main_dtype_only, needs=("compile",))
def compile(kernel: Kernel, problem: Problem) -> float:
    """torch.compile(fullgraph=True) traces the kernel without a break and gives the same output."""
    inputs, arguments = problem.inputs(kernel.device), kernel.arguments(problem)

    def call(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return kernel.call(Inputs(query, key, value), arguments)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    output = compiled(inputs.query, inputs.key, inputs.value)
    return Yardstick(problem, inputs).agree("compiled, the output", output, run(kernel, problem, inputs))


@check("T02-vmap", Wish(extra_keys=False, rpb=False), needs=("vmap",), effort=0.5)
def vmap(kernel: Kernel, problem: Problem) -> float:
    """torch.func.vmap over a new axis is the loop over it."""
    inputs, arguments = problem.inputs(kernel.device), kernel.arguments(problem)
    stacked = [torch.stack([tensor, 2 * tensor]) for tensor in (inputs.query, inputs.key, inputs.value)]
    output = torch.func.vmap(lambda q, k, v: kernel.call(Inputs(q, k, v), arguments))(*stacked)
    worst = 0.0
    for factor in (1, 2):
        one = inputs.map(lambda tensor, factor=factor: factor * tensor)
        wanted, ruler = run(kernel, problem, one), Yardstick(problem, one)
        worst = max(worst, ruler.agree(f"under vmap, element {factor - 1} of the output", output[factor - 1], wanted))
    return worst


@check("T03-opcheck", enumerate=main_dtype_only, needs=("opcheck",))
def opcheck(kernel: Kernel, problem: Problem) -> None:
    """torch.library.opcheck accepts the operator: schema, fake tensors, autograd registration."""
    assert kernel.supports.opcheck is not None
    operator, arguments = kernel.supports.opcheck(problem)
    torch.library.opcheck(operator, arguments)  # type: ignore[arg-type]


@check("T04-forward-mode", Wish(extra_keys=False, rpb=False), needs=("vmap",), effort=0.5)
def forward_mode(kernel: Kernel, problem: Problem) -> float:
    """torch.func.jvp: the derivative in the direction of the values is the output of that direction."""
    inputs, arguments = problem.inputs(kernel.device), kernel.arguments(problem)
    direction = inputs.value.flip(0, 1)

    def call(value: torch.Tensor) -> torch.Tensor:
        return kernel.call(inputs.but(value=value), arguments)

    tangent = torch.func.jvp(call, (inputs.value,), (direction,))[1]
    other = inputs.but(value=direction)
    ruler = Yardstick(problem, other)
    return demand("the forward-mode derivative", tangent, ruler.output, 2 * ruler.output_budget)
