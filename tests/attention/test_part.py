"""A part of a layout asks: as in the whole, with no more keys than its windows reach."""

from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from dinat_ref import Neighborhood, na1d
from dinat_ref.attention import neighborhood_attention_part
from dinat_ref.attention.boxes import Boxes
from tests import oracle
from tests.strategies import Problem, boxes_of, problems

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def crop(tensor: Tensor, box: tuple[range, ...]) -> Tensor:
    """The tokens of a box: a view of [B, *layout, ...]."""
    return tensor[(slice(None), *(slice(positions.start, positions.stop) for positions in box))]


def in_the_whole(problem: Problem, tensors: dict[str, Tensor], boxes: Boxes, **changes: Any) -> tuple[Tensor, Tensor]:
    """All queries of the whole layout by another formulation, then those of the box."""
    output, lse = problem.attend("gather", tensors, **changes)
    return crop(output, boxes.queries), crop(lse, boxes.queries)


def of_the_part(problem: Problem, tensors: dict[str, Tensor], boxes: Boxes, **changes: Any) -> tuple[Tensor, Tensor]:
    """The queries of the box alone, with the keys of the other box alone."""
    starts = {name: [positions.start for positions in getattr(boxes, name)] for name in ("queries", "keys")}
    tensors = {**tensors, **changes}
    tensors |= {"query": crop(tensors["query"], boxes.queries)}
    tensors |= {name: crop(tensors[name], boxes.keys) for name in ("key", "value", "key_mask") if name in tensors}
    place = {"layout": problem.layout, "query_start": starts["queries"], "key_start": starts["keys"]}
    result = neighborhood_attention_part(**tensors, **place, **problem.where, scale=problem.scale, return_lse=True)
    assert isinstance(result, tuple)
    return result


@given(problem=problems(), data=st.data(), masked=st.booleans())
def test_a_part_is_as_in_the_whole(problem: Problem, data: st.DataObject, masked: bool) -> None:
    """Output, lse and all gradients."""
    boxes = data.draw(boxes_of(problem))
    generator = torch.Generator().manual_seed(problem.seed + 1)
    key_mask = torch.rand(problem.batch, *problem.layout, generator=generator) < 0.7
    changes = {"key_mask": key_mask} if masked else {}
    found = []
    for attend in (of_the_part, in_the_whole):
        tensors = problem.tensors(requires_grad=True)
        output, lse = attend(problem, tensors, boxes, **changes)
        loss = output.sin().sum() + torch.where(lse.isfinite(), lse, 0.0).sin().sum()
        found.append([output, lse, *torch.autograd.grad(loss, list(tensors.values()), materialize_grads=True)])
    assert_close(found[0], found[1], **EXACT)


@given(problem=problems(empty=False), data=st.data())
@example(Problem((40,), (5,), (1,), (2,), (False,), heads_kv=1, extra=2, seed=4), None)
def test_second_derivatives_too(problem: Problem, data: st.DataObject | None) -> None:
    boxes = Boxes((range(7, 20),), (range(3, 24),)) if data is None else data.draw(boxes_of(problem))
    found = []
    for attend in (of_the_part, in_the_whole):
        tensors = problem.tensors(requires_grad=True)
        output, _ = attend(problem, tensors, boxes)
        leaves = list(tensors.values())
        first = torch.autograd.grad(output.sin().sum(), leaves, create_graph=True, materialize_grads=True)
        loss = torch.stack([x.square().sum() for x in first]).sum()
        found.append(torch.autograd.grad(loss, leaves, materialize_grads=True) if loss.requires_grad else first)
    assert_close(found[0], found[1], rtol=1e-10, atol=1e-10)


@given(problem=problems(empty=False), data=st.data())
def test_reach_is_the_hull_of_the_windows(problem: Problem, data: st.DataObject) -> None:
    boxes = data.draw(boxes_of(problem).filter(lambda boxes: all(boxes.queries)))
    for queries, axis, reach in zip(
        boxes.queries, problem.axes, problem.neighborhood.reach(boxes.queries), strict=True
    ):
        windows = [j for i in queries for (j,) in oracle.neighbors((i,), [axis])]
        assert reach == range(min(windows), max(windows) + 1)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, 3e38])
def test_what_is_held_but_not_attended_does_not_matter(wrong: float) -> None:
    """With dilation the box of keys holds tokens of other groups: whatever stands there."""
    x = torch.randn(1, 24, 2, 4, dtype=torch.float64)
    asked, held = torch.tensor([8, 12]), slice(4, 17)  # two queries of one group; their neighbours are not computed
    attended = na1d(x, x, x, kernel_size=3, dilation=4)[:, asked]
    spoilt = x.clone()
    spoilt[:, [i for i in range(24) if i % 4]] = wrong
    box = {"layout": (24,), "query_start": 8, "key_start": 4}
    found = neighborhood_attention_part(x[:, 8:13], spoilt[:, held], spoilt[:, held], 3, dilation=4, **box)
    assert isinstance(found, Tensor)
    assert_close(found[:, [0, 4]], attended, **EXACT)


def test_one_token_after_another_with_a_cache() -> None:
    """A causal sequence that grows: each new token asks alone, with the last kernel_size * dilation keys."""
    longest, kernel_size, dilation = 30, 4, 3
    x = torch.randn(3, 2, longest, 4, 8, dtype=torch.float64)  # query, key, value
    expected = na1d(*x, kernel_size=kernel_size, dilation=dilation, is_causal=True)
    for token in range(longest):
        start = max(0, token - (kernel_size - 1) * dilation)
        query, key, value = x[0, :, token : token + 1], x[1, :, start : token + 1], x[2, :, start : token + 1]
        box = {"layout": (longest,), "query_start": token, "key_start": start}
        found = neighborhood_attention_part(query, key, value, kernel_size, dilation=dilation, is_causal=True, **box)
        assert_close(found, expected[:, token : token + 1], **EXACT)


def test_no_queries_at_all_still_depend_on_every_operand() -> None:
    """A process whose shard is empty takes part in the backward pass of the others."""
    problem = Problem((9,), (3,), (1,), (1,), (False,), rpb=True, extra=2)
    tensors = problem.tensors(requires_grad=True)
    output, _ = of_the_part(problem, tensors, Boxes((range(4, 4),), (range(9),)))
    gradients = torch.autograd.grad(output.sum(), list(tensors.values()))
    assert_close(gradients, tuple(torch.zeros_like(x) for x in tensors.values()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_in_the_dtype_of_the_query(dtype: torch.dtype) -> None:
    x = torch.randn(1, 12, 2, 4, dtype=dtype)
    found = neighborhood_attention_part(x[:, 4:9], x, x, 3, layout=(12,), query_start=4, key_start=0)
    assert isinstance(found, Tensor)
    assert_close(found, na1d(x, x, x, 3)[:, 4:9])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_start": 8}, r"^query on axis 0 must lie in 0 \.\. 11 \(length - 1\), got 8 \.\. 12$"),
        ({"query_start": -1}, r"^query on axis 0 must lie in 0 \.\. 11 \(length - 1\), got -1 \.\. 3$"),
        ({"key_start": 5}, r"^key on axis 0 must hold the windows of the queries, positions 3 \.\. 9, got 5 \.\. 11$"),
        ({"query_start": (4, 4)}, r"^query_start must have one entry per axis"),
        ({"layout": (12, 12)}, r"^query must be \[batch, \*layout, heads, head_dim\] with 2 axes"),
        ({"kernel_size": 13}, r"^kernel_size \* dilation on axis 0 must be"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    x = torch.zeros(1, 12, 1, 4)
    arguments: dict[str, Any] = {"kernel_size": 3, "layout": (12,), "query_start": 4, "key_start": 3}
    with pytest.raises(ValueError, match=message):
        neighborhood_attention_part(x[:, :5], x[:, :7], x[:, :7], **(arguments | changes))


def test_a_position_is_an_integer() -> None:
    x = torch.zeros(1, 12, 1, 4)
    with pytest.raises(TypeError, match=r"^query_start on axis 0 must be an integer, got 4\.0"):
        neighborhood_attention_part(x[:, :5], x, x, 3, layout=(12,), query_start=4.0, key_start=0)  # type: ignore[arg-type]


def test_a_part_of_a_neighborhood_reaches() -> None:
    assert Neighborhood((9, 9), 3, dilation=(1, 3)).reach([range(4, 6), range(1)]) == (range(3, 7), range(0, 7))
    assert Neighborhood((9,), 3).reach([range(4, 4)]) == (range(0, 0),)
