"""The laws of the numbers: softmax, values, scale, bias, heads and batch, in every formulation."""

import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from dinat_ref import merge_attentions, neighborhood_weights
from tests import oracle
from tests.strategies import IMPLS, Problem, problems

EXACT = {"rtol": 1e-12, "atol": 1e-12}
KEYS = ("key", "additional_keys")
VALUES = ("value", "additional_values")

every_impl = pytest.mark.parametrize("impl", IMPLS)


def like(tensors: dict[str, Tensor], names: tuple[str, ...], seed: int) -> dict[str, Tensor]:
    """Other normal numbers in place of some of the tensors."""
    generator = torch.Generator().manual_seed(seed + 1)
    return {
        name: torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) if name in names else tensor
        for name, tensor in tensors.items()
    }


def neighbor_numbers(problem: Problem) -> list[list[int]]:
    """For every token the row-major numbers of its keys, by the oracle."""
    tokens = list(itertools.product(*(range(length) for length in problem.layout)))
    return [[tokens.index(neighbor) for neighbor in oracle.neighbors(token, problem.axes)] for token in tokens]


def weights_matrix(problem: Problem, tensors: dict[str, Tensor], impl: str) -> Tensor:
    """The weights of all pairs [B, N, H, N + M], read off with one-hot values."""
    num_tokens, extra = math.prod(problem.layout), problem.extra or 0
    one_hot = torch.eye(num_tokens + extra, dtype=torch.float64)
    heads = (problem.batch, -1, problem.heads_kv, -1)
    values = {"value": one_hot[:num_tokens, None].expand(*heads).unflatten(1, problem.layout)}
    if problem.extra is not None:
        values["additional_values"] = one_hot[num_tokens:, None].expand(*heads)
    return problem.attend(impl, {**tensors, **values})[0].flatten(1, -3)


@every_impl
@given(problem=problems())
def test_linear_in_the_values(impl: str, problem: Problem) -> None:
    one = problem.tensors()
    two = like(one, VALUES, problem.seed)
    both = {name: 2 * tensor - 3 * two[name] if name in VALUES else tensor for name, tensor in one.items()}
    expected = 2 * problem.attend(impl, one)[0] - 3 * problem.attend(impl, two)[0]
    assert_close(problem.attend(impl, both)[0], expected, rtol=1e-11, atol=1e-11)


@every_impl
@given(problem=problems())
def test_constant_values_come_back(impl: str, problem: Problem) -> None:
    tensors = problem.tensors()
    constant = torch.linspace(-3, 5, problem.head_dim_v, dtype=torch.float64)
    values = {name: constant.expand_as(tensor) if name in VALUES else tensor for name, tensor in tensors.items()}
    output, _ = problem.attend(impl, values)
    assert_close(output, constant.expand_as(output), **EXACT)


@every_impl
@given(problem=problems(empty=False))
def test_one_hot_values_read_the_weights_off(impl: str, problem: Problem) -> None:
    """They sum to one, their support is the window, and they are what ``neighborhood_weights`` shows."""
    tensors = problem.tensors()
    matrix = weights_matrix(problem, tensors, impl)
    assert_close(matrix.sum(-1), torch.ones_like(matrix[..., 0]), **EXACT)

    num_tokens, num_keys = math.prod(problem.layout), math.prod(problem.kernel_size)
    shown = {name: tensor for name, tensor in tensors.items() if name not in VALUES}
    weights = neighborhood_weights(**shown, **problem.where, scale=problem.scale).flatten(1, -3)  # [B, N, H, K + M]
    for query, numbers in enumerate(neighbor_numbers(problem)):
        assert matrix[0, query, 0, :num_tokens].nonzero().flatten().tolist() == numbers
        assert_close(weights[:, query, :, : len(numbers)], matrix[:, query][..., numbers], **EXACT)
        assert int(weights[:, query, :, len(numbers) : num_keys].count_nonzero()) == 0
    assert_close(weights[..., num_keys:], matrix[..., num_tokens:], **EXACT)


@every_impl
@given(problem=problems(plain=True))
def test_zero_queries_give_the_mean_of_the_window(impl: str, problem: Problem) -> None:
    tensors = problem.tensors()
    tensors["query"] = torch.zeros_like(tensors["query"])
    output, lse = problem.attend(impl, tensors)
    value = tensors["value"].flatten(1, -3).repeat_interleave(problem.heads // problem.heads_kv, dim=2)
    numbers = neighbor_numbers(problem)
    means = torch.stack([value[:, keys].mean(1) for keys in numbers], dim=1)
    counts = torch.tensor([len(keys) for keys in numbers], dtype=torch.float64)
    assert_close(output.flatten(1, -3), means, **EXACT)
    assert_close(lse.flatten(1, -2), counts.log()[:, None].expand_as(lse.flatten(1, -2)), **EXACT)


@every_impl
@given(problem=problems())
def test_scale(impl: str, problem: Problem) -> None:
    """None is D ** -0.5; zero is zero; a factor of the queries is a factor of the scale; a tensor is a number."""
    tensors = problem.tensors()
    default = problem.attend(impl, tensors, scale=None)
    explicit = problem.attend(impl, tensors, scale=problem.head_dim**-0.5)
    scaled = problem.attend(impl, {**tensors, "query": problem.head_dim**-0.5 * tensors["query"]}, scale=1)
    zero = problem.attend(impl, tensors, scale=0.0)
    no_query = problem.attend(impl, {**tensors, "query": torch.zeros_like(tensors["query"])})
    number = torch.tensor(problem.head_dim**-0.5, dtype=torch.float64)
    as_tensor = problem.attend(impl, tensors, scale=number)
    for result in (explicit, scaled, as_tensor):
        assert_close(result, default, **EXACT)
    assert_close(zero, no_query, **EXACT)


@every_impl
@given(problem=problems(), c=st.integers(-3, 3))
def test_constant_bias_shifts_the_lse_alone(impl: str, problem: Problem, c: int) -> None:
    """The bias is added after scaling and is not scaled itself."""
    problem = problem.but(rpb=True, extra=None)
    tensors = problem.tensors()
    output, lse = problem.attend(impl, tensors)
    shifted_output, shifted_lse = problem.attend(impl, {**tensors, "rpb": tensors["rpb"] + c})
    assert_close(shifted_output, output, **EXACT)
    assert_close(shifted_lse, lse + c, **EXACT)


@every_impl
@given(problem=problems(plain=True, empty=False), data=st.data())
def test_one_hot_bias_selects_one_offset(impl: str, problem: Problem, data: st.DataObject) -> None:
    """A bias at one offset alone reaches exactly the pairs of query and key at that offset."""
    steps = [data.draw(st.integers(1 - size, size - 1)) for size in problem.kernel_size]
    problem = problem.but(rpb=True, scale=0.0)
    tensors = problem.tensors()
    tensors["rpb"] = torch.zeros_like(tensors["rpb"])
    tensors["rpb"][(slice(None), *(step + size - 1 for step, size in zip(steps, problem.kernel_size, strict=True)))] = (
        1.0
    )
    matrix = weights_matrix(problem, tensors, impl)[0, :, 0]  # [N, N]
    tokens = list(itertools.product(*(range(length) for length in problem.layout)))
    offset = [step * dilation for step, dilation in zip(steps, problem.dilation, strict=True)]
    for query, numbers in enumerate(neighbor_numbers(problem)):
        target = tuple(i + move for i, move in zip(tokens[query], offset, strict=True))
        scores = torch.tensor([float(tokens[number] == target) for number in numbers], dtype=torch.float64)
        assert_close(matrix[query, numbers], scores.softmax(0), **EXACT)


@every_impl
@given(problem=problems())
def test_constant_vector_added_to_all_keys(impl: str, problem: Problem) -> None:
    """The output stays, the lse shifts by scale * <q, c>."""
    tensors = problem.tensors()
    c = torch.linspace(-1, 2, problem.head_dim, dtype=torch.float64)
    moved = {name: tensor + c if name in KEYS else tensor for name, tensor in tensors.items()}
    output, lse = problem.attend(impl, tensors)
    moved_output, moved_lse = problem.attend(impl, moved)
    scale = problem.head_dim**-0.5 if problem.scale is None else problem.scale
    assert_close(moved_output, output, rtol=1e-11, atol=1e-11)
    assert_close(moved_lse, lse + scale * (tensors["query"] * c).sum(-1), rtol=1e-11, atol=1e-11)


@every_impl
@given(problem=problems(empty=False), data=st.data())
def test_keys_outside_the_window_change_nothing(impl: str, problem: Problem, data: st.DataObject) -> None:
    numbers = neighbor_numbers(problem)
    query = data.draw(st.integers(0, len(numbers) - 1))
    outside = [number for number in range(len(numbers)) if number not in numbers[query]]
    tensors = problem.tensors()
    changed = {name: tensor.clone() for name, tensor in tensors.items()}
    for name in ("key", "value"):
        tokens = changed[name].flatten(1, -3)
        tokens[:, outside] += 1000.0
        changed[name] = tokens.unflatten(1, problem.layout)
    output, lse = problem.attend(impl, tensors)
    changed_output, changed_lse = problem.attend(impl, changed)
    assert_close(changed_output.flatten(1, -3)[:, query], output.flatten(1, -3)[:, query], **EXACT)
    assert_close(changed_lse.flatten(1, -2)[:, query], lse.flatten(1, -2)[:, query], **EXACT)


@every_impl
@given(problem=problems(), data=st.data())
def test_batch_permutation(impl: str, problem: Problem, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(problem.batch)))
    tensors = problem.tensors()
    turned = {name: tensor if name == "rpb" else tensor[order] for name, tensor in tensors.items()}
    output, lse = problem.attend(impl, tensors)
    assert_close(problem.attend(impl, turned), (output[order], lse[order]), **EXACT)


@every_impl
@given(problem=problems(), data=st.data())
def test_head_permutation(impl: str, problem: Problem, data: st.DataObject) -> None:
    """Key heads in another order, each with its query heads in another order."""
    repeats = problem.heads // problem.heads_kv
    order_kv = data.draw(st.permutations(range(problem.heads_kv)))
    order: list[int] = []
    for head in order_kv:
        order += [head * repeats + r for r in data.draw(st.permutations(range(repeats)))]
    tensors = problem.tensors()
    turned = {name: tensor[..., order_kv, :] for name, tensor in tensors.items() if name in (*KEYS, *VALUES)}
    turned["query"] = tensors["query"][..., order, :]
    if problem.rpb:
        turned["rpb"] = tensors["rpb"][order]
    output, lse = problem.attend(impl, tensors)
    assert_close(problem.attend(impl, turned), (output[..., order, :], lse[..., order]), **EXACT)


@every_impl
@given(problem=problems())
def test_shared_key_heads_are_repeated_key_heads(impl: str, problem: Problem) -> None:
    """GQA and MQA: query head h uses key head h div (H / Hkv), as ``repeat_interleave`` orders them."""
    tensors = problem.tensors()
    repeats = problem.heads // problem.heads_kv
    repeated = {
        name: tensor.repeat_interleave(repeats, dim=-2) if name in (*KEYS, *VALUES) else tensor
        for name, tensor in tensors.items()
    }
    assert_close(problem.attend(impl, repeated), problem.attend(impl, tensors), **EXACT)


@every_impl
@given(problem=problems(), first=st.integers(0, 2), second=st.integers(1, 2))
def test_additional_keys_may_come_in_any_order(impl: str, problem: Problem, first: int, second: int) -> None:
    problem = problem.but(extra=first + second)
    tensors = problem.tensors()
    names = ("additional_keys", "additional_values")
    turned = {name: tensor.roll(first, dims=1) if name in names else tensor for name, tensor in tensors.items()}
    assert_close(problem.attend(impl, turned), problem.attend(impl, tensors), **EXACT)


@every_impl
@given(problem=problems())
def test_no_additional_keys_is_none_at_all(impl: str, problem: Problem) -> None:
    problem = problem.but(extra=0)
    tensors = problem.tensors()
    without = {name: tensor for name, tensor in tensors.items() if not name.startswith("additional")}
    assert_close(problem.attend(impl, tensors), problem.attend(impl, without), **EXACT)


@every_impl
@given(problem=problems(), first=st.integers(1, 3), second=st.integers(1, 2))
def test_split_and_merge_is_joint_attention(impl: str, problem: Problem, first: int, second: int) -> None:
    """The windows, and each half of the additional keys, attended on their own, then merged; gradients included."""
    problem = problem.but(extra=first + second)
    tensors = problem.tensors(requires_grad=True)
    inputs = list(tensors.values())
    joint = problem.attend(impl, tensors)

    window = {name: tensor for name, tensor in tensors.items() if not name.startswith("additional")}
    parts = [problem.attend(impl, window)]
    for piece in (slice(0, first), slice(first, None)):
        parts.append(attend_all(problem, tensors, piece))
    merged = merge_attentions([output for output, _ in parts], [lse for _, lse in parts])
    assert_close(merged, joint, **EXACT)

    weights = torch.randn(joint[0].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = []
    for output, lse in (merged, joint):
        loss = (weights * output.sin()).sum() + (weights.mean(-1) * lse.cos()).sum()
        gradients.append(torch.autograd.grad(loss, inputs, retain_graph=True))
    assert_close(gradients[0], gradients[1], rtol=1e-11, atol=1e-11)


def attend_all(problem: Problem, tensors: dict[str, Tensor], piece: slice) -> tuple[Tensor, Tensor]:
    """Plain attention to some of the additional keys."""
    repeats = problem.heads // problem.heads_kv
    keys = tensors["additional_keys"][:, piece].repeat_interleave(repeats, dim=2)
    values = tensors["additional_values"][:, piece].repeat_interleave(repeats, dim=2)
    scale = problem.head_dim**-0.5 if problem.scale is None else problem.scale
    scores = scale * torch.einsum("b...hd,bmhd->b...hm", tensors["query"], keys)
    return torch.einsum("b...hm,bmhd->b...hd", scores.softmax(-1), values), scores.logsumexp(-1)
