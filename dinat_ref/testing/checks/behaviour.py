"""D: how a kernel behaves: dtypes, devices, memory, and leaving alone what is not its own."""

from collections.abc import Iterator

import torch

from dinat_ref.testing.checks.sampling import Wish
from dinat_ref.testing.checks.yardstick import Yardstick, demand, run
from dinat_ref.testing.kernel import Kernel, Moot, Wrong
from dinat_ref.testing.problem import Inputs, Problem
from dinat_ref.testing.registry import check
from dinat_ref.testing.supports import Supports


def each_dtype(supports: Supports, budget: str) -> Iterator[Problem]:
    """A small problem for each number of axes and each dtype."""
    head_dim = 3 if supports.head_dims is None else min(supports.head_dims)
    for ndim in supports.ndim:
        for dtype in supports.dtypes:
            layout = tuple(4 + axis for axis in range(ndim))
            problem = Problem(layout=layout, kernel_size=3, heads=2, head_dim=head_dim, dtype_name=dtype)
            if supports.takes(problem):
                yield problem


def bits(what: str, got: torch.Tensor, wanted: torch.Tensor) -> None:
    """Demand the same bits."""
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        raise Wrong(f"{what} has changed from {tuple(wanted.shape)} {wanted.dtype} to {tuple(got.shape)} {got.dtype}")
    differ = (got != wanted) & ~(torch.isnan(got) & torch.isnan(wanted))
    if bool(differ.any()):
        raise Wrong(f"{what} differs in {int(differ.sum())} of {differ.numel()} numbers")


def each_dtype_in_every_way(supports: Supports, budget: str) -> Iterator[Problem]:
    """Those, and each with more arguments, which may widen what comes out."""
    for problem in each_dtype(supports, budget):
        for more in ({}, {"extra_keys": 2}, {"rpb": True}, {"scale": 0.5}, {"heads_kv": 1}):
            if supports.takes(problem.but(**more)):
                yield problem.but(**more)


@check("D01-output-dtype", enumerate=each_dtype_in_every_way)
def output_dtype(kernel: Kernel, problem: Problem) -> None:
    """The output has the query's dtype and device."""
    inputs = problem.inputs(kernel.device)
    want = f"{inputs.query.dtype} on {inputs.query.device}"
    for return_lse in {False, kernel.supports.lse}:
        with torch.no_grad():
            output, _ = kernel.attend(problem, inputs, return_lse)
        if output.dtype != inputs.query.dtype or output.device.type != inputs.query.device.type:
            raise Wrong(f"the output must be {want}, as the query is, got {output.dtype} on {output.device}")


@check("D02-strided-inputs", Wish(strided=True, rpb=False))
def strided_inputs(kernel: Kernel, problem: Problem) -> float:
    """Tensors that are not contiguous in memory give what the same numbers give in order."""
    inputs = problem.inputs(kernel.device)
    wanted = run(kernel, problem, inputs.map(lambda tensor: tensor.contiguous()))
    return Yardstick(problem, inputs).agree("the output of strided tensors", run(kernel, problem, inputs), wanted)


@check("D03-inputs-unmodified", Wish(rpb=None))
def inputs_unmodified(kernel: Kernel, problem: Problem) -> None:
    """No tensor given is modified, forward or backward."""
    inputs = problem.inputs(kernel.device)
    before = {name: tensor.clone() for name, tensor in inputs.named().items()}
    run(kernel, problem, inputs)
    for name, tensor in inputs.named().items():
        bits(f"after the call, {name}", tensor, before[name])
    if kernel.supports.backward:
        leaves = inputs.map(lambda tensor: tensor.detach().requires_grad_())
        output, _ = kernel.attend(problem, leaves)
        if output.requires_grad:
            grad = torch.ones_like(output)
            torch.autograd.grad(output, list(leaves.named().values()), grad, allow_unused=True)
            bits("after the backward pass, its gradient", grad, torch.ones_like(grad))
        for name, tensor in leaves.named().items():
            bits(f"after the backward pass, {name}", tensor.detach(), before[name])


def one_key(supports: Supports, budget: str) -> Iterator[Problem]:
    """A window of the query alone (where an output could be the value itself), and one of three keys."""
    head_dim = 2 if supports.head_dims is None else min(supports.head_dims)
    for ndim in supports.ndim:
        for kernel_size in (1, 3):
            layout = tuple(4 + axis for axis in range(ndim))
            problem = Problem(layout=layout, kernel_size=kernel_size, head_dim=head_dim, dtype_name=supports.main_dtype)
            if supports.takes(problem):
                yield problem


@check("D04-no-alias", enumerate=one_key)
def no_alias(kernel: Kernel, problem: Problem) -> None:
    """The output shares its memory with no input and with no later output."""
    inputs = problem.inputs(kernel.device)
    output = run(kernel, problem, inputs)
    for name, tensor in inputs.named().items():
        if output.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr():
            raise Wrong(f"the output shares its memory with {name}")
    kept = output.clone()
    run(kernel, problem, problem.but(seed=problem.seed + 1).inputs(kernel.device))
    bits("after another call, the first output", output, kept)


@check("D05-repeatable", Wish(rpb=None))
def repeatable(kernel: Kernel, problem: Problem) -> None:
    """Running again gives the same bits."""
    inputs = problem.inputs(kernel.device)
    first = run(kernel, problem, inputs)
    for _ in range(4):
        bits("run again, the output", run(kernel, problem, inputs), first)


@check("D06-empty-batch", Wish(batch=0, rpb=None), needs=("empty_batch",), effort=0.5)
def empty_batch(kernel: Kernel, problem: Problem) -> None:
    """A batch of zero gives an empty output."""
    output = run(kernel, problem.but(batch=0), problem.but(batch=0).inputs(kernel.device))
    if output.numel():
        raise Wrong(f"an empty batch must give an empty output, got {tuple(output.shape)}")


@check("D07-int-arguments", Wish(uniform=True, extra_keys=False, rpb=False))
def int_arguments(kernel: Kernel, problem: Problem) -> float:
    """One number stands for every axis."""
    if any(len(set(v)) > 1 for v in (problem.kernel_size, problem.stride, problem.dilation, problem.is_causal)):
        raise Moot("the law does not apply")
    inputs, arguments = problem.inputs(kernel.device), kernel.arguments(problem)
    single = {name: v[0] if isinstance(v, tuple) else v for name, v in arguments.items()}
    with torch.no_grad():
        got = kernel.call(inputs, single)
    return Yardstick(problem, inputs).agree(
        "with one number for all axes, the output", got, run(kernel, problem, inputs)
    )


@check("D08-autocast", Wish(dtype="f32", extra_keys=False, rpb=False), needs=("autocast",), effort=0.5)
def autocast(kernel: Kernel, problem: Problem) -> float:
    """Under autocast to bfloat16 the kernel runs, in bfloat16 or better."""
    inputs = problem.inputs(kernel.device)
    inputs = inputs.to(torch.bfloat16).to(torch.float32)  # numbers that both dtypes hold
    with torch.no_grad(), torch.autocast(torch.device(kernel.device).type, dtype=torch.bfloat16):
        output, _ = kernel.attend(problem, inputs)
    if output.dtype not in (torch.float32, torch.bfloat16):
        raise Wrong(f"under autocast to bfloat16 the output must be bfloat16 or float32, got {output.dtype}")
    ruler = Yardstick(problem, inputs, torch.bfloat16)
    return demand("under autocast, the output", output, ruler.output, 2 * ruler.output_budget)


@check("D09-modes", Wish(rpb=None), needs=("backward",), effort=0.5)
def modes(kernel: Kernel, problem: Problem) -> float:
    """With a graph, without one and in inference mode the output is the same."""
    inputs = problem.inputs(kernel.device)
    plain, ruler = run(kernel, problem, inputs), Yardstick(problem, inputs)
    with torch.inference_mode():
        inference, _ = kernel.attend(problem, inputs)
        worst = ruler.agree("in inference mode, the output", inference.clone(), plain)
    graph, _ = kernel.attend(problem, inputs.map(lambda tensor: tensor.detach().requires_grad_()))
    return max(worst, ruler.agree("with a graph, the output", graph, plain))


@check("D10-survives", enumerate=each_dtype)
def survives(kernel: Kernel, problem: Problem) -> None:
    """In every dtype, the process survives a call."""
    inputs: Inputs = problem.inputs(kernel.device)
    try:
        run(kernel, problem, inputs)
    except Exception:  # an error is no death: the other checks report it
        return


@check("D13-memory-around", Wish(extra_keys=None, rpb=None, strided=False))
def memory_around(kernel: Kernel, problem: Problem) -> float:
    """What lies in memory before and behind the tensors does not matter: nothing is read past their ends."""
    inputs = problem.inputs(kernel.device)

    def surrounded(tensor: torch.Tensor) -> torch.Tensor:
        margin = max(64, tensor[:1].numel())
        memory = torch.full((tensor.numel() + 2 * margin,), torch.nan, dtype=tensor.dtype, device=tensor.device)
        memory[margin : margin + tensor.numel()] = tensor.flatten()
        return memory[margin : margin + tensor.numel()].view(tensor.shape)

    output = run(kernel, problem, inputs.map(surrounded))
    ruler = Yardstick(problem, inputs)
    return demand("with NaN in the memory around the tensors, the output", output, ruler.output, ruler.output_budget)
