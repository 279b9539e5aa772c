"""Plain, traceable PyTorch: what people wrap around an operator works with every formulation."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, jacfwd, jacrev, jvp, vjp, vmap
from torch.testing import assert_close

from dinat_ref import na1d, neighborhood_attention
from tests.strategies import IMPLS, Problem

EXACT = {"rtol": 1e-12, "atol": 1e-12}
PROBLEM = Problem((3, 4), (2, 2), (2, 1), (1, 2), (True, False), 1, 2, 1, head_dim=2, rpb=True, extra=1, scale=0.3)

every_impl = pytest.mark.parametrize("impl", IMPLS)


class Attention(nn.Module):
    """The operator as a module of tensors, in the order that the problem lists them."""

    def __init__(self, impl: str, return_lse: bool = True) -> None:
        super().__init__()
        self.impl, self.return_lse = impl, return_lse

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        query, key, value, rpb, additional_keys, additional_values = inputs
        return neighborhood_attention(
            query,
            key,
            value,
            **PROBLEM.where,
            scale=PROBLEM.scale,
            additional_keys=additional_keys,
            additional_values=additional_values,
            rpb=rpb,
            return_lse=self.return_lse,
            impl=self.impl,
        )


@pytest.fixture
def inputs() -> tuple[Tensor, ...]:
    return tuple(PROBLEM.tensors().values())


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@every_impl
def test_vmap(impl: str, inputs: tuple[Tensor, ...]) -> None:
    """Over every tensor, and over one of them while the others are shared."""
    attend = Attention(impl)
    three = tuple(torch.stack([tensor, 2 * tensor, tensor - 1]) for tensor in inputs)
    mapped = vmap(attend)(*three)
    for i in range(3):
        expected = attend(*(tensor[i] for tensor in three))
        assert_close(tuple(result[i] for result in mapped), expected, **EXACT, check_stride=False)
    for position, stacked in enumerate(three):
        in_dims = tuple(0 if other == position else None for other in range(len(inputs)))
        one = (*inputs[:position], stacked, *inputs[position + 1 :])
        mapped = vmap(attend, in_dims=in_dims)(*one)
        for i in range(3):
            expected = attend(*inputs[:position], stacked[i], *inputs[position + 1 :])
            assert_close(tuple(result[i] for result in mapped), expected, **EXACT, check_stride=False)


@every_impl
def test_jvp(impl: str, inputs: tuple[Tensor, ...]) -> None:
    """Forward mode, against reverse mode: <u, J t> = <J' u, t>."""
    attend = Attention(impl)
    tangents = tuple(tensor.sin() for tensor in inputs)
    primals, pushed = jvp(attend, inputs, tangents)
    assert_close(primals, attend(*inputs), **EXACT)
    results, pull = vjp(attend, *inputs)
    cotangents = tuple(result.cos() for result in results)
    forward = sum((u * t).sum() for u, t in zip(cotangents, pushed, strict=True))
    reverse = sum((u * t).sum() for u, t in zip(pull(cotangents), tangents, strict=True))
    assert_close(forward, reverse, rtol=1e-11, atol=1e-11)
    assert float(abs(forward)) > 1e-3


@every_impl
@pytest.mark.filterwarnings(
    "ignore:There is a performance drop:UserWarning"
)  # PyTorch's vmap of Tensor.unfold's backward
def test_jacobians_and_hessians(impl: str) -> None:
    """Composed transforms: both modes give one Jacobian, and forward over reverse gives a symmetric Hessian."""
    problem = Problem((4,), (3,), (1,), (1,), (True,), batch=1, heads=1, heads_kv=1, head_dim=2, head_dim_v=2)
    tensors = problem.tensors()

    def attend(key: Tensor) -> Tensor:
        return problem.attend(impl, {**tensors, "key": key})[0]

    assert_close(jacfwd(attend)(tensors["key"]), jacrev(attend)(tensors["key"]), **EXACT)
    hessian = jacfwd(grad(lambda key: attend(key).square().sum()))(tensors["key"]).reshape(8, 8)
    assert_close(hessian, hessian.T, **EXACT)
    assert float(hessian.abs().max()) > 1e-3


@every_impl
def test_compile(impl: str, inputs: tuple[Tensor, ...], fresh_compiler: None) -> None:
    """One graph without breaks, forward and backward."""
    attend = Attention(impl)
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    gradients = []
    for function in (compiled, attend):
        output, lse = function(*leaves)
        gradients.append(torch.autograd.grad(output.sin().sum() + lse.sin().sum(), leaves))
    assert_close(compiled(*leaves), attend(*leaves), **EXACT)
    assert_close(gradients[0], gradients[1], **EXACT)


@every_impl
def test_compiled_code_follows_the_layout(impl: str, fresh_compiler: None) -> None:
    """Another image size after the first: compiled again, never the old windows on a new layout."""
    compiled = torch.compile(neighborhood_attention, fullgraph=True, backend="aot_eager")
    for layout in ((3, 4), (4, 5)):  # without a gradient and without the lse, too
        tensors = PROBLEM.but(layout=layout, heads=1, rpb=False, extra=None).tensors()
        arguments = {**tensors, **PROBLEM.where, "impl": impl}
        assert_close(compiled(**arguments), neighborhood_attention(**arguments), **EXACT)


@every_impl
@pytest.mark.parametrize("strict", [False, True])
def test_export(impl: str, strict: bool, inputs: tuple[Tensor, ...], fresh_compiler: None) -> None:
    attend = Attention(impl)
    exported = torch.export.export(attend, inputs, strict=strict)
    others = tuple(tensor.cos() for tensor in inputs)
    assert_close(exported.module()(*others), attend(*others), **EXACT)


@every_impl
@pytest.mark.parametrize(
    "problem", [PROBLEM.but(rpb=False, extra=None), Problem((30, 31), (3, 3), (1, 1), (1, 2), (False, False))]
)
def test_export_with_a_symbolic_batch(impl: str, problem: Problem, fresh_compiler: None) -> None:
    """One graph for batches of any size; the old way fixed the batch of its example, or was refused."""
    if impl == "loops" and problem.neighborhood.num_tokens > 100:
        problem = problem.but(layout=(6, 7))  # a graph of its own for every token
    names = ("query", "key", "value")

    class Attend(nn.Module):
        def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return neighborhood_attention(query, key, value, **problem.where, impl=impl)  # type: ignore[return-value]

    two, five = (tuple(problem.but(batch=batch).tensors()[name] for name in names) for batch in (2, 5))
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(Attend(), two, dynamic_shapes={name: {0: batch} for name in names})
    assert_close(exported.module()(*five), Attend()(*five), **EXACT)


@every_impl
def test_meta_tensors(impl: str, inputs: tuple[Tensor, ...]) -> None:
    """Shapes and dtypes without any numbers."""
    expected = Attention(impl)(*inputs)
    results = Attention(impl)(*(tensor.to("meta") for tensor in inputs))
    for result, real in zip(results, expected, strict=True):
        assert (result.device.type, result.shape, result.dtype) == ("meta", real.shape, real.dtype)


@every_impl
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_does_not_lower_the_precision(impl: str, dtype: torch.dtype, inputs: tuple[Tensor, ...]) -> None:
    """float32 stays float32 under autocast, gradients too; half precision in, half precision out."""
    leaves = [tensor.float().requires_grad_() for tensor in inputs]
    expected = Attention(impl)(*leaves)
    with torch.autocast("cpu", dtype=dtype):
        results = Attention(impl)(*leaves)
        lower = Attention(impl)(*(tensor.to(dtype) for tensor in inputs))
    assert_close(results, expected, rtol=0, atol=0)
    assert (lower[0].dtype, lower[1].dtype) == (dtype, torch.float32)
    gradients = torch.autograd.grad(results[0].sum() + results[1].sum(), leaves)
    assert_close(gradients, torch.autograd.grad(expected[0].sum() + expected[1].sum(), leaves), rtol=0, atol=0)


@every_impl
@pytest.mark.parametrize("lower", ["query", "key", "value"])
def test_autocast_takes_operands_of_several_dtypes(impl: str, lower: str) -> None:
    """As scaled_dot_product_attention: all in autocast's dtype. Float64 is nobody's to lower."""
    mixed = {name: torch.randn(1, 6, 2, 4) for name in ("query", "key", "value")}
    mixed[lower] = mixed[lower].bfloat16()
    expected = na1d(**{name: x.bfloat16() for name, x in mixed.items()}, kernel_size=3, impl=impl)
    with pytest.raises(ValueError, match="must have query's dtype"):
        na1d(**mixed, kernel_size=3, impl=impl)
    with torch.autocast("cpu", torch.bfloat16):
        found = na1d(**mixed, kernel_size=3, impl=impl)
        fused = torch.nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in mixed.values()))
        with pytest.raises(ValueError, match="must have query's dtype"):
            na1d(**mixed | {"query": mixed["query"].double()}, kernel_size=3, impl=impl)
    assert isinstance(found, Tensor)
    assert_close(found, expected, rtol=0, atol=0)
    assert found.dtype == fused.dtype == torch.bfloat16


@every_impl
def test_no_grad_and_inference_mode(impl: str, inputs: tuple[Tensor, ...]) -> None:
    expected = Attention(impl, return_lse=False)(*inputs)
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    with torch.no_grad():
        assert_close(Attention(impl, return_lse=False)(*leaves), expected, **EXACT)
    with torch.inference_mode():
        assert_close(Attention(impl, return_lse=False)(*inputs), expected, **EXACT)
