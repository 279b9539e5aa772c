"""The border to other frameworks: tensors out, arrays back, and the gradients by the framework's own rule.

A port is verified as it is: its arrays, its jit, its gradients. Every adapter says how a tensor becomes an array, how
an array becomes a tensor, and how the framework pulls gradients back; the rest is here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
import torch.utils.dlpack
from torch import Tensor
from torch.autograd.function import once_differentiable

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

    def kernel(*tensors: Tensor, **arguments: Any) -> Any:
        beside = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
        static = {name: value for name, value in arguments.items() if name not in beside}
        positional = len(tensors)

        def call(*arrays: Any) -> Any:
            named = dict(zip(beside, arrays[positional:], strict=True))
            return function(*arrays[:positional], **named, **static)

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
    @once_differentiable  # type: ignore[untyped-decorator]
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

    def kernel(*tensors: Tensor, **arguments: Any) -> Any:
        def pull(call: Function, arrays: Sequence[Any]) -> tuple[Any, Pull]:
            static = {name: value for name, value in arguments.items() if not isinstance(value, Tensor)}
            names = [name for name, value in arguments.items() if isinstance(value, Tensor)]
            named = dict(zip(names, arrays[len(tensors) :], strict=True)) | static
            return call(*arrays), lambda gradients: own_backward(gradients, *arrays[: len(tensors)], **named)

        return across(Border(give, take, pull), function)(*tensors, **arguments)

    kernel.__name__ = str(getattr(function, "__name__", "arrays"))
    return kernel


def from_jax(function: Function, *, jit: bool = True, vmap: bool = False) -> Function:
    """Make a kernel of a JAX function; gradients by jax.vjp.

    Shapes:
        as the kernel's, in jax.Array; without the batch axis under ``vmap``
    Args:
        function: function(query, key, value, kernel_size=..., ...), its other arguments static.
        jit: compile it for each shape and each set of arguments, as its users do.
        vmap: it is written for one batch element, and mapped over the batch.
    Raises:
        ImportError: JAX is not installed.
    Source: https://docs.jax.dev.
    Example:
        >>> import pytest; _ = pytest.importorskip("jax")
        >>> def mean_of_all(query, key, value, kernel_size):
        ...     return value.mean(1, keepdims=True) + 0 * value
        >>> from_jax(mean_of_all)(*[torch.arange(3.0).reshape(1, 3, 1, 1)] * 3, kernel_size=3).flatten()
        tensor([1., 1., 1.])
    """
    import jax
    import jax.numpy as jnp

    compiled: dict[Any, Function] = {}

    def give(tensor: Tensor) -> Any:
        name = "bfloat16" if tensor.dtype == torch.bfloat16 else None
        return jnp.asarray(exact_numpy(tensor), dtype=name)

    def take(array: Any) -> Tensor:
        half = str(array.dtype) == "bfloat16"
        found = torch.from_numpy(numpy.array(array.astype("float32") if half else array))
        return found.to(torch.bfloat16) if half else found

    def pull(call: Function, arrays: Sequence[Any]) -> tuple[Any, Pull]:
        outputs, back = jax.vjp(call, *arrays)

        def pulled(gradients: Sequence[Any]) -> Sequence[Any]:
            with jax.enable_x64(True):
                return back(tuple(gradients) if isinstance(outputs, (tuple, list)) else gradients[0])

        return outputs, pulled

    def once(*arrays: Any, **arguments: Any) -> Any:
        beside = {name: value for name, value in arguments.items() if isinstance(value, jax.Array)}
        static = {name: value for name, value in arguments.items() if name not in beside}
        key = (len(arrays), tuple(beside), tuple(sorted(static.items())))
        if key not in compiled:

            def call(*given: Any) -> Any:
                return function(*given[: len(arrays)], **dict(zip(beside, given[len(arrays) :], strict=True)), **static)

            call = jax.vmap(call) if vmap else call
            compiled[key] = jax.jit(call) if jit else call
        return compiled[key](*arrays, *beside.values())

    once.__name__ = str(getattr(function, "__name__", "jax"))
    crossing = across(Border(give, take, pull), once)

    def kernel(*tensors: Tensor, **arguments: Any) -> Any:
        with jax.enable_x64(True):  # float64 stays float64
            return crossing(*tensors, **arguments)

    kernel.__name__ = once.__name__
    return kernel


def from_mlx(function: Function) -> Function:
    """Make a kernel of an MLX function; gradients by mlx.core.vjp.

    Shapes:
        as the kernel's, in mlx.core.array
    Raises:
        ImportError: MLX is not installed.
    Source: https://ml-explore.github.io/mlx; on Linux, pip install 'mlx[cpu]'.
    Example:
        >>> import pytest; _ = pytest.importorskip("mlx.core")
        >>> def mean_of_all(query, key, value, kernel_size):
        ...     return value.mean(1, keepdims=True) + 0 * value
        >>> from_mlx(mean_of_all)(*[torch.arange(3.0).reshape(1, 3, 1, 1)] * 3, kernel_size=3).flatten()
        tensor([1., 1., 1.])
    """
    import mlx.core as mx

    dtypes = {torch.float32: mx.float32, torch.float16: mx.float16, torch.bfloat16: mx.bfloat16}
    dtypes[torch.float64] = mx.float64
    back = {dtype: name for name, dtype in dtypes.items()}

    def give(tensor: Tensor) -> Any:
        return mx.array(exact_numpy(tensor), dtype=dtypes[tensor.dtype])

    def take(array: Any) -> Tensor:
        half = array.dtype == mx.bfloat16
        found = numpy.array(array.astype(mx.float32) if half else array)
        return torch.from_numpy(found).to(back.get(array.dtype, torch.float32))

    def pull(call: Function, arrays: Sequence[Any]) -> tuple[Any, Pull]:
        def listed(*given: Any) -> list[Any]:
            outputs = call(*given)
            return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]

        outputs = call(*arrays)
        return outputs, lambda gradients: mx.vjp(listed, list(arrays), list(gradients))[1]

    crossing = across(Border(give, take, pull), function)

    def kernel(*tensors: Tensor, **arguments: Any) -> Any:
        with mx.stream(mx.cpu):  # the one device that has float64
            return crossing(*tensors, **arguments)

    kernel.__name__ = crossing.__name__
    return kernel


def from_onnx(model: Callable[..., Any]) -> Function:
    """Make a kernel of ONNX models, run by onnxruntime: forward only.

    Shapes:
        inputs named query, key, value (and additional_keys, additional_values, rpb), outputs the output (and the lse)
    Args:
        model: model(layout, kernel_size=..., ...) gives the model for these arguments: a path or its bytes. For one
            fixed model: ``lambda layout, **arguments: "model.onnx"`` and ``Supports(accepts=...)``.
    Raises:
        ImportError: onnxruntime is not installed.
    Source: https://onnxruntime.ai.
    Example:
        >>> from_onnx(lambda layout, **arguments: "model.onnx").__name__
        'onnx'
    """
    sessions: dict[Any, Any] = {}

    def session(layout: tuple[int, ...], arguments: dict[str, Any]) -> Any:
        import onnxruntime

        key = (layout, tuple(sorted(arguments.items())))
        if key not in sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 3
            made = model(layout, **arguments)
            source = made if isinstance(made, bytes) else str(made)
            sessions[key] = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        return sessions[key]

    def run(query: Any, key: Any, value: Any, **arguments: Any) -> Any:
        arrays = {n: v for n, v in arguments.items() if isinstance(v, numpy.ndarray)}
        static = {n: v for n, v in arguments.items() if n not in arrays}
        found = session(tuple(query.shape[1:-2]), static).run(None, {"query": query, "key": key, "value": value} | arrays)
        return found[0] if len(found) == 1 else tuple(found)

    run.__name__ = "onnx"
    return from_arrays(run)


def from_triton(function: Function) -> Function:
    """Make a kernel of a function that launches Triton kernels, on a CPU by Triton's interpreter.

    Shapes:
        as the kernel's
    Args:
        function: takes and returns tensors; wrap it in a torch.autograd.Function for its gradients, as its users do.
    Raises:
        RuntimeError: no GPU is there, and TRITON_INTERPRET=1 was not set before Triton was imported.
    Source: https://triton-lang.org, debugging.
    Example:
        >>> from_triton(lambda query, key, value, kernel_size: value).__name__
        '<lambda>'
    """

    def kernel(*tensors: Tensor, **arguments: Any) -> Any:
        import triton

        if not tensors[0].is_cuda and not triton.knobs.runtime.interpret:
            raise RuntimeError("Triton runs on a CPU only when TRITON_INTERPRET=1 is set before it is imported")
        return function(*tensors, **arguments)

    kernel.__name__ = str(getattr(function, "__name__", "triton"))
    return kernel
