"""The border to other frameworks: tensors out, arrays back, and the gradients by the framework's own rule.

A port is verified as it is: its arrays, its jit, its gradients. Every adapter says how a tensor becomes an array, how
an array becomes a tensor, and how the framework pulls gradients back; the rest is here.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
import torch.utils.dlpack
from torch import Tensor
from torch.autograd.function import once_differentiable

from dinat_ref.testing.ports.sendable import sendable

Function = Callable[..., Any]
Pull = Callable[[Sequence[Any]], Sequence[Any]]  # from gradients of the outputs to gradients of the inputs, in arrays


@dataclass(frozen=True)
class Border:
    """How a framework's arrays cross.

    Args:
        give: makes an array of a tensor.
        take: makes a tensor of an array.
        pull: of a function of arrays and its arguments, the outputs and their pull-back; None without gradients.
    Example:
        >>> numpy_border = Border(lambda tensor: tensor.numpy(), torch.from_numpy)
        >>> across(numpy_border, lambda query: query + 1)(torch.zeros(2))
        tensor([1., 1.])
    """

    give: Callable[[Tensor], Any]
    take: Callable[[Any], Tensor]
    pull: Callable[[Function, Sequence[Any]], tuple[Any, Pull]] | None = None


def across(border: Border, function: Function) -> Function:
    """Make a kernel of tensors of a function of arrays; gradients cross where the border has them.

    Shapes:
        as the function's
    Example:
        >>> doubled = across(Border(lambda t: t.numpy(), torch.from_numpy, lambda f, a: (f(*a), lambda g: [2 * g[0]])),
        ...                  lambda query: 2 * query)
        >>> x = torch.ones(2, requires_grad=True)
        >>> torch.autograd.grad(doubled(x).sum(), x)
        (tensor([2., 2.]),)
    """

    def kernel(*given: Any, **arguments: Any) -> Any:
        tensors = list(itertools.takewhile(lambda value: isinstance(value, Tensor), given))
        beside = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
        static = {name: value for name, value in arguments.items() if name not in beside}
        count = len(tensors)

        def call(*arrays: Any) -> Any:
            named = dict(zip(beside, arrays[count:], strict=True))
            return function(*arrays[:count], *given[count:], **named, **static)

        run: Any = _Crossing.apply
        return run(border, call, *tensors, *beside.values())

    kernel.__name__ = str(getattr(function, "__name__", "arrays"))
    return kernel


class _Crossing(torch.autograd.Function):
    """One call across the border."""

    @staticmethod
    def forward(ctx: Any, border: Border, call: Function, *tensors: Tensor) -> Any:
        """Run the function on arrays; keep its pull-back when a gradient may be asked for."""
        arrays = [border.give(tensor.detach()) for tensor in tensors]
        ctx.border, ctx.count = border, len(tensors)
        ctx.pull = None
        if border.pull is not None and any(ctx.needs_input_grad):
            outputs, ctx.pull = border.pull(call, arrays)
        else:
            outputs = call(*arrays)
        ctx.device = tensors[0].device
        if isinstance(outputs, (tuple, list)):
            return tuple(border.take(output).to(ctx.device) for output in outputs)
        return border.take(outputs).to(ctx.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Pull the gradients back on the other side."""
        if ctx.pull is None:
            raise RuntimeError("this port has no gradients: declare backward=False")
        found = ctx.pull([ctx.border.give(gradient.contiguous()) for gradient in gradients])
        taken = [None if array is None else ctx.border.take(array).to(ctx.device) for array in found]
        return None, None, *taken, *[None] * (ctx.count - len(taken))


def exact_numpy(tensor: Tensor) -> Any:
    """A tensor's numbers in NumPy; bfloat16, which NumPy lacks, comes as the float32 of the same value.

    Example:
        >>> exact_numpy(torch.ones(2, dtype=torch.bfloat16)).dtype
        dtype('float32')
    """
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


@sendable
def from_arrays(
    function: Function, to: Callable[[Tensor], Any] | None = None, backward: Function | None = None
) -> Function:
    """Make a kernel of a function of NumPy arrays, or of a library that speaks DLPack.

    Shapes:
        as the kernel's, in arrays
    Args:
        function: takes and returns arrays.
        to: makes an array of a tensor: None for NumPy, or a library's from_dlpack.
        backward: backward(gradients, *arrays, **arguments) gives the gradients to query, key and value (and what stands
            beside them), from those of the output (and lse); None where there is none.
    Source: DLPack, https://dmlc.github.io/dlpack.
    Example:
        >>> def mean_of_all(query, key, value, kernel_size):
        ...     return numpy.broadcast_to(value.mean(1, keepdims=True), value.shape)
        >>> from_arrays(mean_of_all)(*[torch.arange(3.0).reshape(1, 3, 1, 1)] * 3, kernel_size=3).flatten()
        tensor([1., 1., 1.])
    """
    give = to if to is not None else exact_numpy

    def take(array: Any) -> Tensor:
        if to is not None:
            return torch.utils.dlpack.from_dlpack(array)
        return torch.from_numpy(numpy.array(array))  # a copy: NumPy's may be read-only

    if backward is None:
        return across(Border(give, take), function)
    own_backward = backward

    def kernel(*given: Any, **arguments: Any) -> Any:
        count = sum(isinstance(value, Tensor) for value in given)

        def pull(call: Function, arrays: Sequence[Any]) -> tuple[Any, Pull]:
            names = [name for name, value in arguments.items() if isinstance(value, Tensor)]
            named = arguments | dict(zip(names, arrays[count:], strict=True))
            return call(*arrays), lambda grads: own_backward(grads, *arrays[:count], *given[count:], **named)

        return across(Border(give, take, pull), function)(*given, **arguments)

    kernel.__name__ = str(getattr(function, "__name__", "arrays"))
    return kernel
