"""What the operator says when tensors do not fit together."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dinat_ref import neighborhood_attention, neighborhood_qk, neighborhood_weights
from dinat_ref.attention.operands import check_layout, every, prepare
from dinat_ref.neighborhood import Neighborhood
from tests.strategies import IMPLS, Problem

PROBLEM = Problem((5, 7), (3, 2), (1, 1), (1, 3), (False, True), heads=4, heads_kv=2, head_dim_v=5, rpb=True, extra=2)

every_impl = pytest.mark.parametrize("impl", IMPLS)


def refused(error: type[Exception], text: str, **changes: Any) -> None:
    """The call fails, with this text, in every formulation."""
    arguments = {**PROBLEM.tensors(), **PROBLEM.where, **changes}
    for impl in IMPLS:
        with pytest.raises(error, match=text):
            neighborhood_attention(**arguments, impl=impl)


@pytest.mark.parametrize("shape", [(2, 5, 7, 2, 4), (2, 5, 6, 2, 3), (2, 7, 5, 2, 3), (1, 5, 7, 2, 3)])
def test_key_must_fit_query(shape: tuple[int, ...]) -> None:
    """Another head_dim, another layout, swapped axes, another batch (nothing broadcasts)."""
    expected = f"expected {(2, 5, 7, 2, 3)}, got {shape}"
    refused(ValueError, f"^key must have .*{re.escape(expected)}", key=torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(2, 5, 7, 1, 5), (2, 5, 7, 4, 5), (2, 5, 6, 2, 5), (1, 5, 7, 2, 5)])
def test_value_must_fit_key(shape: tuple[int, ...]) -> None:
    expected = f"expected {(2, 5, 7, 2, 5)}, got {shape}"
    refused(ValueError, f"^value must have .*{re.escape(expected)}", value=torch.zeros(shape, dtype=torch.float64))


def test_key_and_value_with_another_number_of_axes() -> None:
    tensors = PROBLEM.tensors()
    for name in ("key", "value"):
        refused(ValueError, f"^{name} must have ", **{name: tensors[name][:, 0]})
        refused(ValueError, f"^{name} must have ", **{name: tensors[name][None]})


@pytest.mark.parametrize("heads_kv", [3, 8])
def test_heads_must_be_a_multiple_of_key_heads(heads_kv: int) -> None:
    tensors = PROBLEM.but(heads_kv=heads_kv).tensors()
    refused(ValueError, f"^query's heads must be a positive multiple of key's heads, got 4 and {heads_kv}$", **tensors)


@pytest.mark.parametrize("heads", [(4, 0), (0, 0), (0, 2)])
def test_there_must_be_heads(heads: tuple[int, int]) -> None:
    problem = PROBLEM.but(heads=heads[0], heads_kv=heads[1])
    refused(ValueError, "heads", **problem.tensors())


@pytest.mark.parametrize("missing", ["additional_keys", "additional_values"])
def test_additional_keys_and_values_come_together(missing: str) -> None:
    refused(ValueError, "^additional_keys and additional_values must be given together", **{missing: None})


@pytest.mark.parametrize("name", ["additional_keys", "additional_values"])
def test_additional_tensors_must_fit(name: str) -> None:
    tensor = PROBLEM.tensors()[name]
    for wrong in (tensor[:1], tensor[:, :, :1], tensor[..., :2], tensor[:, :1], tensor[0], tensor[None]):
        if name == "additional_keys" and wrong.shape == (2, 1, 2, 3):
            text = "^additional_values must have "  # one key, two values
        else:
            text = f"^{name} must have .*got {re.escape(str(tuple(wrong.shape)))}"
        refused(ValueError, text, **{name: wrong})


@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 5), (4, 5, 2), (2, 5, 3), (1, 5, 3), (4, 5, 3, 1)])
def test_bias_must_fit(shape: tuple[int, ...]) -> None:
    expected = f"expected {(4, 5, 3)}, got {shape}"
    refused(ValueError, f"^rpb must have .*{re.escape(expected)}", rpb=torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("name", PROBLEM.shapes())
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn], ids=str)
def test_only_floating_point(name: str, dtype: torch.dtype) -> None:
    refused(
        TypeError,
        f"^{name} must have a floating point dtype of 16, 32 or 64 bits, got {dtype}$",
        **{name: PROBLEM.tensors()[name].to(dtype)},
    )


OTHERWISE_LAID_OUT: dict[str, Callable[[Tensor], Tensor]] = {
    "torch.sparse_coo": lambda tensor: tensor.to_sparse(),
    "torch.sparse_csr": lambda tensor: tensor.flatten(1).to_sparse_csr(),
    "a nested one": lambda tensor: torch.nested.nested_tensor([tensor[0], tensor[0]]),
    "a nested one of ragged rows": lambda tensor: torch.nested.nested_tensor([tensor[0]] * 2, layout=torch.jagged),
}
if torch.backends.mkldnn.is_available():
    OTHERWISE_LAID_OUT["torch._mkldnn"] = lambda tensor: tensor.float().to_mkldnn()


@pytest.mark.parametrize("name", PROBLEM.shapes())
@pytest.mark.parametrize("kind", OTHERWISE_LAID_OUT)
@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of unfinished features
def test_only_dense_tensors(name: str, kind: str) -> None:
    """One line of ours, not something from inside PyTorch."""
    tensor = OTHERWISE_LAID_OUT[kind](PROBLEM.tensors()[name])
    refused(TypeError, f"^{name} must be a dense tensor, got {kind.removesuffix(' of ragged rows')}$", **{name: tensor})


@pytest.mark.parametrize("name", ["key", "value", "additional_keys", "additional_values"])
def test_one_dtype(name: str) -> None:
    text = f"^{name} must have query's dtype torch.float64, got torch.float32$"
    refused(ValueError, text, **{name: PROBLEM.tensors()[name].float()})


@pytest.mark.parametrize("name", ["key", "value", "rpb", "additional_keys", "additional_values"])
def test_one_device(name: str) -> None:
    text = f"^{name} must be on query's device cpu, got meta$"
    refused(ValueError, text, **{name: PROBLEM.tensors()[name].to("meta")})


@pytest.mark.parametrize("name", ["query", "key", "value", "rpb", "additional_keys", "additional_values"])
@pytest.mark.parametrize("value", [[[1.0]], np.zeros((2, 5, 7, 4, 3)), 1.0])
def test_only_tensors(name: str, value: object) -> None:
    refused(TypeError, f"^{name} must be a tensor, got {type(value).__name__}$", **{name: value})


@pytest.mark.parametrize("shape", [(), (3,), (2, 5), (2, 5, 3)])
def test_query_must_have_an_axis(shape: tuple[int, ...]) -> None:
    text = rf"^query must be \[batch, \*layout, heads, head_dim\] with one or more axes, got {re.escape(str(shape))}$"
    refused(ValueError, text, query=torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("value", [True, "1", [1.0], torch.zeros(1), torch.zeros(2)])
def test_scale_must_be_a_number(value: object) -> None:
    refused(TypeError, "^scale must be a number or None, got ", scale=value)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.float64(2), torch.tensor(2.0)])
def test_numbers_that_scale_may_be(value: Any) -> None:
    tensors = PROBLEM.tensors()
    expected = PROBLEM.attend("loops", tensors, scale=2.0)
    torch.testing.assert_close(PROBLEM.attend("loops", tensors, scale=value), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("value", ["fast", "", "Loops", None, 3])
def test_unknown_formulation(value: object) -> None:
    text = f"^impl must be 'auto' or one of loops, .*, got {re.escape(repr(value))}$"
    with pytest.raises(ValueError, match=text):
        neighborhood_attention(**PROBLEM.tensors(), **PROBLEM.where, impl=value)  # type: ignore[arg-type]


def test_arguments_of_the_window_are_checked_too() -> None:
    refused(ValueError, r"^kernel_size \* dilation on axis 1 must be at most .*: 2 \* 4 = 8 > 7$", dilation=(1, 4))
    refused(ValueError, "^stride on axis 0 must be at most kernel_size, got 4 > 3$", stride=(4, 1))
    refused(TypeError, "^is_causal on axis 0 must be a bool, got 1", is_causal=(1, False))
    refused(ValueError, "^kernel_size must have one entry per axis", kernel_size=(3, 2, 2))


def test_the_halves_check_alike() -> None:
    tensors = {name: tensor for name, tensor in PROBLEM.tensors().items() if "value" not in name}
    tensors["key"] = tensors["key"][:, :, :6]
    for function in (neighborhood_qk, neighborhood_weights):
        with pytest.raises(ValueError, match=r"^key must have "):
            function(**tensors, **PROBLEM.where)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_operands_are_in_float32_at_least(dtype: torch.dtype) -> None:
    tensors = PROBLEM.tensors(dtype)
    operands = prepare(neighborhood=Neighborhood(PROBLEM.layout, **PROBLEM.where), **tensors)
    for name in tensors:
        assert getattr(operands, name).dtype == torch.promote_types(dtype, torch.float32)
    assert operands.scale == pytest.approx(PROBLEM.head_dim**-0.5, rel=1e-15)
    assert operands.group_size == 2


def test_check_layout_names_the_tensor() -> None:
    assert check_layout(torch.zeros(1, 5, 7, 2, 8)) == (5, 7)
    with pytest.raises(ValueError, match=r"^value must be .* with 3 axes, got \(1, 5, 7, 2, 8\)$"):
        check_layout(torch.zeros(1, 5, 7, 2, 8), ndim=3, name="value")


def test_every_indexes_the_axes_after_the_first() -> None:
    tensor: Tensor = torch.arange(30).reshape(2, 3, 5)
    torch.testing.assert_close(tensor[every(1, slice(2, 4))], tensor[:, 1, 2:4], rtol=0, atol=0)
