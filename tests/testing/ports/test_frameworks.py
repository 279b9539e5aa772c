"""Kernels written in other frameworks, right ones and wrong ones: forward, backward, and what is said of them."""

from dataclasses import replace
from functools import lru_cache

import numpy
import pytest

from dinat_ref.testing import Kernel, Supports, check_kernel
from dinat_ref.testing.ports.foreign import from_arrays
from dinat_ref.testing.ports.frameworks import from_jax, from_mlx, from_onnx, from_triton, interpreting

# one axis and short layouts: JAX takes half a second to compile for a shape, and Triton's interpreter is Python
PLAIN = Supports(
    ndim={1},
    stride=False,
    causal=False,
    extra_keys=False,
    gqa=False,
    empty_batch=False,
    dtypes=["float32"],
    max_tokens=9,
    autocast=False,
)
FORWARD = ["W11", "W12", "W13", "N01", "N10", "N16", "N18"]
BACKWARD = ["G01", "G02", "G03", "G06", "G09"]


@lru_cache
def windows(length: int, kernel_size: int, dilation: int, lean: int = 0) -> numpy.ndarray:
    """The keys of every query [N, K]; a lean of 1 moves even windows to the right."""
    rows = []
    for i in range(length):
        group, place = i % dilation, i // dilation
        members = -(-(length - group) // dilation)
        start = min(max(place - (kernel_size - lean) // 2, 0), members - kernel_size)
        rows.append([group + dilation * (start + step) for step in range(kernel_size)])
    return numpy.array(rows)


def numpy_forward(query, key, value, kernel_size, dilation, scale, lean=0):
    """[B, L, H, D]: output, lse, and what the backward pass needs."""
    near = windows(query.shape[1], kernel_size[0], dilation[0], lean)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = scale * numpy.einsum("bnhd,bnkhd->bnhk", query, key[:, near])
    top = scores.max(-1, keepdims=True)
    weights = numpy.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    weights = weights / total
    output = numpy.einsum("bnhk,bnkhd->bnhd", weights, value[:, near])
    return output, (top + numpy.log(total))[..., 0], weights, near, scale


def in_numpy(query, key, value, kernel_size, dilation=(1,), scale=None, return_lse=False):
    output, lse, *_ = numpy_forward(query, key, value, kernel_size, dilation, scale)
    return (output, lse) if return_lse else output


def numpy_backward(gradients, query, key, value, kernel_size, dilation=(1,), scale=None, return_lse=False):
    output, _, weights, near, scale = numpy_forward(query, key, value, kernel_size, dilation, scale)
    above = gradients[0]
    to_weights = numpy.einsum("bnhd,bnkhd->bnhk", above, value[:, near])
    centre = (above * output).sum(-1, keepdims=True) - (gradients[1][..., None] if return_lse else 0)
    to_scores = scale * weights * (to_weights - centre)
    to_query = numpy.einsum("bnhk,bnkhd->bnhd", to_scores, key[:, near])
    to_key, to_value = numpy.zeros_like(key), numpy.zeros_like(value)
    every = (slice(None), near)
    numpy.add.at(to_key, every, numpy.einsum("bnhk,bnhd->bnkhd", to_scores, query).astype(key.dtype))
    numpy.add.at(to_value, every, numpy.einsum("bnhk,bnhd->bnkhd", weights, above).astype(value.dtype))
    return to_query, to_key, to_value


def last_key_overwritten(gradients, query, key, value, **arguments):
    """Adds with =, which keeps one query's share of a key."""
    to_query, to_key, to_value = numpy_backward(gradients, query, key, value, **arguments)
    to_value[:, -1] = gradients[0][:, -1] * 0.5
    return to_query, to_key, to_value


def leaning(function):
    """The same kernel with even windows that lean to the right."""

    def kernel(*arrays, **arguments):
        return function(*arrays, **arguments, lean=1)

    return kernel


def test_a_numpy_function_with_its_own_backward():
    report = check_kernel(from_arrays(in_numpy, backward=numpy_backward), PLAIN, checks=FORWARD + BACKWARD)
    report.raise_for_failures()
    assert report["G03-value"].problems >= 10


def test_a_wrong_numpy_backward_is_found():
    report = check_kernel(from_arrays(in_numpy, backward=last_key_overwritten), PLAIN, checks=["N01", *BACKWARD])
    assert "G03-value" in {result.id for result in report.failures}
    assert report["G01-query"].verdict == "passed"
    assert report["N01-float32"].verdict == "passed"


def jax_kernel(query, key, value, kernel_size, dilation=(1,), scale=None, return_lse=False, lean=0):
    """Of one batch element [L, H, D], to be mapped over the batch."""
    import jax
    import jax.numpy as jnp

    near = windows(query.shape[0], kernel_size[0], dilation[0], lean)
    scores = jnp.einsum("nhd,nkhd->nhk", query, key[near]) * (query.shape[-1] ** -0.5 if scale is None else scale)
    output = jnp.einsum("nhk,nkhd->nhd", jax.nn.softmax(scores, axis=-1), value[near])
    return (output, jax.nn.logsumexp(scores, axis=-1)) if return_lse else output


def jax_without_key_gradient(query, key, value, **arguments):
    import jax

    return jax_kernel(query, jax.lax.stop_gradient(key), value, **arguments)


def seldom(function, supports=PLAIN, **changes):
    """A kernel that is posed few problems, on short layouts."""
    return Kernel(function, replace(supports, **({"max_tokens": 5} | changes)), sparse=7)


def test_a_jax_kernel():
    pytest.importorskip("jax", reason="JAX is optional: pip install 'dinat-ref[ports]'")
    report = check_kernel(seldom(from_jax(jax_kernel, vmap=True)), checks=FORWARD + BACKWARD)
    report.raise_for_failures()
    assert report["G03-value"].verdict == "passed"
    report = check_kernel(seldom(from_jax(leaning(jax_kernel), vmap=True)), checks=["W11", "W12"])
    assert "even kernel leans right" in report["W12-even-kernels"].looks_like
    report = check_kernel(seldom(from_jax(jax_without_key_gradient, vmap=True, jit=False)), checks=["G01", "G02"])
    assert [result.id for result in report.failures] == ["G02-key"]


def test_jax_keeps_every_dtype():
    pytest.importorskip("jax", reason="JAX is optional: pip install 'dinat-ref[ports]'")
    import torch

    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        x = torch.randn(2, 5, 1, 2, dtype=dtype, requires_grad=True)
        output = from_jax(jax_kernel, vmap=True)(x, x, x, kernel_size=(3,))
        (gradient,) = torch.autograd.grad(output.sum(), x)
        assert output.dtype == gradient.dtype == dtype


def mlx_kernel(query, key, value, kernel_size, dilation=(1,), scale=None, return_lse=False, lean=0):
    import mlx.core as mx

    near = mx.array(windows(query.shape[1], kernel_size[0], dilation[0], lean))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (query[:, :, None] * key[:, near]).sum(-1) * scale  # [B, N, K, H]
    weights = mx.softmax(scores, axis=2)
    output = (weights[..., None] * value[:, near]).sum(2)
    return (output, mx.logsumexp(scores, axis=2)) if return_lse else output


def mlx_scaled_twice(query, key, value, scale=None, return_lse=False, **arguments):
    """The path with the lse scales the query, then the scores."""
    query = query * query.shape[-1] ** -0.5 if return_lse else query
    return mlx_kernel(query, key, value, scale=scale, return_lse=return_lse, **arguments)


def test_an_mlx_kernel():
    pytest.importorskip("mlx.core", reason="MLX is optional: pip install 'dinat-ref[ports]'")
    report = check_kernel(from_mlx(mlx_kernel), PLAIN, checks=FORWARD + BACKWARD)
    report.raise_for_failures()
    report = check_kernel(from_mlx(mlx_scaled_twice), PLAIN, checks=["W11", "N01", "N16", "N17"])
    assert {result.id for result in report.failures} & {"N16-lse", "N17-lse-same-output"}
    assert report["N01-float32"].verdict == "passed"


def onnx_model(layout, kernel_size, dilation=(1,), scale=None, return_lse=False, softmax_axis=-1):
    """A graph for one layout: gather, multiply, softmax, gather; [B, L, H, D]."""
    onnx = pytest.importorskip("onnx")
    make, number = onnx.helper.make_node, onnx.numpy_helper.from_array
    near = windows(layout[0], kernel_size[0], dilation[0]).astype(numpy.int64)
    constants = [number(near, "near"), number(numpy.array([2]), "two"), number(numpy.array([-1]), "last")]
    nodes = [
        make("Gather", ["key", "near"], ["keys"], axis=1),  # [B, N, K, H, D]
        make("Gather", ["value", "near"], ["values"], axis=1),
        make("Unsqueeze", ["query", "two"], ["queries"]),
        make("Mul", ["queries", "keys"], ["products"]),
        make("ReduceSum", ["products", "last"], ["dots"], keepdims=0),  # [B, N, K, H]
        make("Shape", ["query"], ["shape"], start=-1),
        make("Cast", ["shape"], ["head_dim"], to=onnx.TensorProto.FLOAT),
        make("Sqrt", ["head_dim"], ["root"]),
        make("Reciprocal", ["root"], ["usual"]),
        make("Mul", ["dots", "usual" if scale is None else "scale"], ["scores"]),
        make("Softmax", ["scores"], ["weights"], axis=2 if softmax_axis == -1 else softmax_axis),
        make("Unsqueeze", ["weights", "last"], ["wide"]),
        make("Mul", ["wide", "values"], ["weighted"]),
        make("ReduceSum", ["weighted", "two"], ["output"], keepdims=0),
    ]
    constants += [] if scale is None else [number(numpy.float32(scale).reshape(1), "scale")]
    outputs = ["output"]
    if return_lse:
        nodes.append(make("ReduceLogSumExp", ["scores", "two"], ["lse"], keepdims=0))
        outputs.append("lse")
    info = onnx.helper.make_tensor_value_info
    shape = [None, layout[0], None, None]
    graph = onnx.helper.make_graph(
        nodes,
        "neighborhood",
        [info(name, onnx.TensorProto.FLOAT, shape) for name in ("query", "key", "value")],
        [info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        constants,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


def over_the_queries(layout, **arguments):
    return onnx_model(layout, **arguments, softmax_axis=1)


def test_onnx_models():
    pytest.importorskip("onnx", reason="onnx is optional: pip install 'dinat-ref[ports]'")
    pytest.importorskip("onnxruntime", reason="onnxruntime is optional: pip install 'dinat-ref[ports]'")
    forward = replace(PLAIN, backward=False)
    check_kernel(from_onnx(onnx_model), forward, checks=FORWARD).raise_for_failures()
    report = check_kernel(from_onnx(over_the_queries), forward, checks=["N01", "N10"])
    assert [result.id for result in report.failures] == ["N01-float32"]


def test_triton_under_its_interpreter():
    pytest.importorskip("triton", reason="Triton is optional: pip install 'dinat-ref[ports]'")
    if not interpreting():
        pytest.skip("Triton runs on a CPU only when TRITON_INTERPRET=1 is set before anything imports it")
    from tests.testing.ports import triton_kernels

    kernel = seldom(from_triton(triton_kernels.attend), dilation=False)
    check_kernel(kernel, checks=["W11", "W12", "N01", "N16", "G01", "G02", "G03"]).raise_for_failures()
    kernel = seldom(from_triton(triton_kernels.leaning), dilation=False)
    report = check_kernel(kernel, checks=["W11", "W12"])
    assert [result.id for result in report.failures] == ["W12-even-kernels"]
