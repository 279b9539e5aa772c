"""D20 and on: what a call must leave as it was, outside its own tensors."""

import torch

from dinat_ref.testing.checks.behaviour import each_dtype
from dinat_ref.testing.guard import printing_noticed, settings_kept
from dinat_ref.testing.kernel import Kernel, Wrong
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.registry import check


def forward_and_backward(kernel: Kernel, problem: Problem) -> None:
    """One call, with its backward pass where there is one."""
    inputs = problem.inputs(kernel.device)
    backward = kernel.supports.backward
    inputs = inputs.map(lambda tensor: tensor.detach().requires_grad_(backward))
    output, _ = kernel.attend(problem, inputs)
    if output.requires_grad:
        torch.autograd.grad(output.sum(), list(inputs.named().values()), allow_unused=True)


@check("D20-global-state", enumerate=each_dtype)
def global_state(kernel: Kernel, problem: Problem) -> None:
    """No call changes PyTorch's settings: default dtype, random numbers, gradient mode, threads, determinism."""
    with settings_kept(kernel.noticed):
        forward_and_backward(kernel, problem)
    if kernel.noticed:
        raise Wrong(f"a call changes {', '.join(sorted(kernel.noticed))} (put back after each call)")


@check("D21-silent", enumerate=each_dtype)
def silent(kernel: Kernel, problem: Problem) -> None:
    """A call prints nothing to the standard output."""
    with printing_noticed() as printed:
        forward_and_backward(kernel, problem)
    if printed():
        raise Wrong(f"a call prints {printed()!r}")
