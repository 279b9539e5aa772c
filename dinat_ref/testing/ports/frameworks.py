"""Ports as they are: JAX, MLX, ONNX models and Triton, each with its own arrays and its own gradients.

Each framework is imported when its adapter is called. ``pip install 'dinat-ref[ports]'`` installs those that the Python
Package Index has for a CPU.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from dinat_ref.testing.ports.foreign import Border, Function, Pull, across, exact_numpy, from_arrays
from dinat_ref.testing.ports.sendable import sendable


@sendable
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
        with jax.enable_x64(True):  # float64 stays float64
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

    def once(*given: Any, **arguments: Any) -> Any:
        arrays = [value for value in given if isinstance(value, jax.Array)]
        rest, count = given[len(arrays) :], len(arrays)
        beside = {name: value for name, value in arguments.items() if isinstance(value, jax.Array)}
        static = {name: value for name, value in arguments.items() if name not in beside}
        key = (rest, count, tuple(beside), tuple(sorted(static.items())))
        if key not in compiled:

            def call(*inner: Any) -> Any:
                named = dict(zip(beside, inner[count:], strict=True))
                return function(*inner[:count], *rest, **named, **static)

            call = jax.vmap(call) if vmap else call
            compiled[key] = jax.jit(call) if jit else call
        return compiled[key](*arrays, *beside.values())

    once.__name__ = str(getattr(function, "__name__", "jax"))
    crossing = across(Border(give, take, pull), once)

    def kernel(*given: Any, **arguments: Any) -> Any:
        with jax.enable_x64(True):
            return crossing(*given, **arguments)

    kernel.__name__ = once.__name__
    return kernel


@sendable
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

    def kernel(*given: Any, **arguments: Any) -> Any:
        with mx.stream(mx.cpu):  # the one device that has float64
            return crossing(*given, **arguments)

    kernel.__name__ = crossing.__name__
    return kernel


@sendable
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
        found = session(tuple(query.shape[1:-2]), static).run(
            None, {"query": query, "key": key, "value": value} | arrays
        )
        return found[0] if len(found) == 1 else tuple(found)

    run.__name__ = "onnx"
    return from_arrays(run)


def interpreting() -> bool:
    """Whether Triton was imported for its interpreter: it reads TRITON_INTERPRET once, when it is imported.

    Example:
        >>> import pytest; _ = pytest.importorskip("triton")
        >>> interpreting() in (True, False)
        True
    """
    import triton.language

    return type(triton.language.sum).__name__ == "InterpretedFunction"


@sendable
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

    def kernel(*given: Any, **arguments: Any) -> Any:
        if not given[0].is_cuda and not interpreting():
            raise RuntimeError("Triton runs on a CPU only when TRITON_INTERPRET=1 is set before it is imported")
        return function(*given, **arguments)

    kernel.__name__ = str(getattr(function, "__name__", "triton"))
    return kernel
