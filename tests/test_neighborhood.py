"""Neighborhood: what it accepts, what it says when it does not, and tables that agree with one another."""

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch.testing import assert_close

from dinat_ref import Neighborhood
from dinat_ref.neighborhood import per_axis
from dinat_ref.window import window
from tests import oracle
from tests.oracle import Axis, legal_axes
from tests.strategies import Problem, long_axes, parts, problems

SIZES = ("kernel_size", "stride", "dilation")
LEGAL: dict[str, Any] = {
    "layout": (11, 13),
    "kernel_size": (3, 5),
    "stride": (2, 3),
    "dilation": (3, 2),
    "is_causal": (False, True),
}


def made(**changes: Any) -> Neighborhood:
    """A legal neighborhood, but for the changes."""
    return Neighborhood(**{**LEGAL, **changes})


# --- what it accepts


def test_one_value_stands_for_every_axis() -> None:
    one = Neighborhood((7, 8, 9), 3, 2, 2, True)
    each = Neighborhood((7, 8, 9), (3, 3, 3), [2, 2, 2], (2, 2, 2), (True, True, True))
    assert one == each
    assert hash(one) == hash(each)
    assert (one.kernel_size, one.stride, one.dilation) == ((3, 3, 3), (2, 2, 2), (2, 2, 2))
    assert one.is_causal == (True, True, True)


@pytest.mark.parametrize("integer", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint64])
def test_numpy_integers_are_integers(integer: Callable[[int], Any]) -> None:
    numpy = Neighborhood(
        (integer(11), integer(13)), integer(3), (integer(2), integer(3)), (integer(3), integer(2)), (False, True)
    )
    assert numpy == made(kernel_size=3)
    assert hash(numpy) == hash(made(kernel_size=3))
    assert numpy.indices().tolist() == made(kernel_size=3).indices().tolist()
    assert repr(numpy) == repr(made(kernel_size=3))


def test_numpy_bools_are_bools() -> None:
    numpy = made(is_causal=(np.bool_(False), np.bool_(True)))
    assert numpy == made()
    assert repr(numpy) == repr(made())
    assert made(is_causal=np.True_) == made(is_causal=True)


def test_torch_sizes_are_layouts() -> None:
    assert Neighborhood(torch.zeros(11, 13).shape, 3) == Neighborhood([11, 13], 3) == Neighborhood((11, 13), 3)


@pytest.mark.parametrize("ndim", [1, 2, 3, 4, 5])
def test_any_number_of_axes(ndim: int) -> None:
    layout = tuple(range(2, 2 + ndim))
    neighborhood = Neighborhood(layout, 2)
    assert neighborhood.ndim == ndim
    assert neighborhood.num_tokens == math.prod(layout)
    assert neighborhood.num_keys == 2**ndim
    assert neighborhood.indices().shape == (math.prod(layout), 2**ndim)


def test_limits_themselves_are_legal() -> None:
    neighborhood = Neighborhood(
        (12, 5, 1), (4, 5, 1), stride=(4, 1, 1), dilation=(3, 1, 1), is_causal=(True, True, True)
    )
    assert neighborhood.num_tokens == 60


# --- what it says when it does not accept


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [True, False, 2.0, "2", None, np.float32(2), np.bool_(True), 2 + 0j])
def test_a_size_must_be_an_integer(name: str, axis: int, value: object) -> None:
    per_axis_values = list(LEGAL[name])
    per_axis_values[axis] = value
    with pytest.raises(TypeError, match=f"^{name} on axis {axis} must be an integer, got {re.escape(repr(value))}"):
        made(**{name: tuple(per_axis_values)})


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [True, 3.0, None, "3", "33", b"\3\3", bytearray(b"\3\3"), range(3, 5)])
def test_one_value_must_be_an_integer_too(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"^{name} on axis 0 must be an integer, got {re.escape(repr(value))}"):
        made(**{name: value})


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("value", [True, 11.0, "11", None])
def test_a_length_must_be_an_integer(axis: int, value: object) -> None:
    layout: list[object] = [11, 13]
    layout[axis] = value
    with pytest.raises(TypeError, match=f"^layout on axis {axis} must be an integer, got {re.escape(repr(value))}"):
        made(layout=tuple(layout))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("value", [0, 1, 0.0, None, "False", np.uint8(0)])
def test_is_causal_must_be_a_bool(axis: int, value: object) -> None:
    is_causal: list[object] = [False, True]
    is_causal[axis] = value
    with pytest.raises(TypeError, match=f"^is_causal on axis {axis} must be a bool, got {re.escape(repr(value))}"):
        made(is_causal=tuple(is_causal))


@pytest.mark.parametrize("name", [*SIZES, "is_causal"])
@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_tuple_must_have_one_entry_per_axis(name: str, number: int) -> None:
    value = (LEGAL[name] * 2)[:number]
    text = rf"^{name} must have one entry per axis: the layout \(11, 13\) has 2, got {re.escape(repr(value))}$"
    with pytest.raises(ValueError, match=text):
        made(**{name: value})


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [0, -1])
def test_a_size_must_be_positive(name: str, axis: int, value: int) -> None:
    per_axis_values = list(LEGAL[name])
    per_axis_values[axis] = value
    with pytest.raises(ValueError, match=rf"^{name} on axis {axis} must be at least 1, got {value}$"):
        made(**{name: tuple(per_axis_values)})


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("value", [0, -3])
def test_a_length_must_be_positive(axis: int, value: int) -> None:
    layout = [11, 13]
    layout[axis] = value
    with pytest.raises(ValueError, match=rf"on axis {axis} must be at least 1, got {value}$"):
        made(layout=layout)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_reach_of_a_window_must_fit(axis: int) -> None:
    layout = [9, 10]  # kernel_size * dilation, exactly
    assert made(layout=layout).layout == (9, 10)
    layout[axis] -= 1
    reach = ("3 * 3 = 9 > 8", "5 * 2 = 10 > 9")[axis]
    with pytest.raises(ValueError, match=rf"^kernel_size \* dilation on axis {axis} must be .*: {re.escape(reach)}$"):
        made(layout=layout)


@pytest.mark.parametrize("axis", [0, 1])
def test_stride_must_not_exceed_kernel_size(axis: int) -> None:
    stride = [3, 5]
    assert made(stride=stride).stride == (3, 5)
    stride[axis] += 1
    text = rf"^stride on axis {axis} must be at most kernel_size, got {stride[axis]} > {stride[axis] - 1}$"
    with pytest.raises(ValueError, match=text):
        made(stride=stride)


@pytest.mark.parametrize("layout", [(), [], 5, "57", None, {5, 7}, b"57", range(5, 7)])
def test_layout_must_list_axes(layout: object) -> None:
    with pytest.raises(ValueError, match=f"^layout must list .* at least one axis, got {re.escape(repr(layout))}$"):
        Neighborhood(layout, 1)  # type: ignore[arg-type]


# --- a value


def test_frozen_hashable_and_equal_by_value() -> None:
    neighborhood = made()
    for name in LEGAL:
        with pytest.raises(FrozenInstanceError):
            setattr(neighborhood, name, (1, 1))
    assert {neighborhood: 1}[made()] == 1
    others = [made(layout=(11, 14)), made(kernel_size=3), made(stride=1), made(dilation=1), made(is_causal=True)]
    assert len({neighborhood, *others}) == 6


def test_repr_is_the_call_that_makes_it() -> None:
    neighborhood = made()
    expected = (
        "Neighborhood(layout=(11, 13), kernel_size=(3, 5), stride=(2, 3), dilation=(3, 2), is_causal=(False, True))"
    )
    assert repr(neighborhood) == expected
    assert eval(repr(neighborhood), {"Neighborhood": Neighborhood}) == neighborhood


# --- its tables


@given(problem=problems())
def test_tables_agree_with_the_oracle_and_with_one_another(problem: Problem) -> None:
    neighborhood = problem.neighborhood
    indices, valid, mask = neighborhood.indices(), neighborhood.valid(), neighborhood.mask()
    num_tokens, num_keys = neighborhood.num_tokens, neighborhood.num_keys
    assert (indices.dtype, valid.dtype, mask.dtype) == (torch.int64, torch.bool, torch.bool)
    assert indices.shape == valid.shape == (num_tokens, num_keys)
    assert mask.shape == (num_tokens, num_tokens)
    assert num_keys == math.prod(problem.kernel_size)
    assert bool(((indices >= 0) & (indices < num_tokens)).all())  # in the layout, valid or not

    tokens = list(itertools.product(*(range(length) for length in problem.layout)))
    assert list(neighborhood.tokens()) == tokens
    attended_by: list[list[int]] = [[] for _ in tokens]
    for query, token in enumerate(tokens):
        expected = oracle.neighbors(token, problem.axes)
        numbers = [tokens.index(neighbor) for neighbor in expected]
        assert neighborhood.neighbors(token) == expected
        assert indices[query][valid[query]].tolist() == numbers  # row-major
        assert valid[query].tolist() == [True] * len(numbers) + [False] * (num_keys - len(numbers))
        assert mask[query].nonzero().flatten().tolist() == numbers
        for number in numbers:
            attended_by[number].append(query)
    for key, token in enumerate(tokens):
        assert neighborhood.attended_by(key) == neighborhood.attended_by(token) == attended_by[key]
        assert mask[:, key].nonzero().flatten().tolist() == attended_by[key]
        assert neighborhood.coordinates(key) == token
        assert neighborhood.number(token) == key


def test_tables_of_every_small_axis(count_cases: Callable[[str, int], None]) -> None:
    configurations = 0
    for length, *arguments in legal_axes(9):
        neighborhood = Neighborhood((length,), *arguments)
        windows = [oracle.nearest_window(i, length, *arguments) for i in range(length)]
        assert [list(keys) for keys in neighborhood.windows(0)] == windows
        indices, valid = neighborhood.indices(), neighborhood.valid()
        assert [indices[i][valid[i]].tolist() for i in range(length)] == windows
        assert neighborhood.mask().tolist() == [[j in keys for j in range(length)] for keys in windows]
        for j in range(length):
            assert neighborhood.attended_by(j) == [i for i in range(length) if j in windows[i]]
        configurations += 1
    count_cases("configurations", configurations)


@given(problem=problems(is_causal=False))
def test_without_causality_all_keys_are_valid(problem: Problem) -> None:
    assert bool(problem.neighborhood.valid().all())


def test_tables_are_made_on_the_device_asked_for() -> None:
    neighborhood = made()
    for device in ("cpu", "meta"):
        tables = [neighborhood.indices(device), neighborhood.valid(device), neighborhood.mask(device)]
        assert {table.device.type for table in tables} == {device}
        assert {part.device.type for part in neighborhood.axis_table(0, device)} == {device}


def test_changing_a_table_does_not_change_the_next() -> None:
    neighborhood = made()
    before = neighborhood.indices().clone()
    neighborhood.indices().zero_()
    neighborhood.valid().zero_()
    neighborhood.mask().zero_()
    assert_close(neighborhood.indices(), before, rtol=0, atol=0)
    assert int(neighborhood.valid().sum()) == int(neighborhood.mask().sum()) > 0


@pytest.mark.parametrize("token", [143, -1, (11, 0), (0, 13), (-1, 0), (0,), (0, 0, 0)])
def test_a_token_outside_is_refused(token: Any) -> None:
    with pytest.raises(ValueError, match=r"^token must .*got"):
        made().attended_by(token)


def test_attended_by_takes_numpy_integers() -> None:
    assert made().attended_by(np.int64(17)) == made().attended_by(17)  # type: ignore[arg-type]


# --- tables by arithmetic


def bounds(neighborhood: Neighborhood, queries: range | None = None) -> list[tuple[int, int]]:
    first, count = neighborhood.window_bounds(0, queries=queries)
    return list(zip(first.tolist(), count.tolist(), strict=True))


def test_window_bounds_of_every_axis_up_to_length_16(count_cases: Callable[[str, int], None]) -> None:
    """What the integer tensors say is what ``window`` says, for every query there is."""
    queries = 0
    for length, *arguments in legal_axes(16):
        windows = [window(i, length, *arguments) for i in range(length)]
        assert bounds(Neighborhood((length,), *arguments)) == [(keys[0], len(keys)) for keys in windows]
        queries += length
    count_cases("windows", queries)


@given(axis=long_axes(), data=st.data())
def test_window_bounds_of_long_axes(axis: Axis, data: st.DataObject) -> None:
    """Anywhere on an axis of up to 10**12 tokens, its edges among the places, and in steps of any size."""
    length, *arguments = axis
    neighborhood = Neighborhood((length,), *arguments)
    reach = neighborhood.kernel_size[0] * neighborhood.dilation[0]
    places = st.sampled_from([0, reach // 2, reach, length - reach, length - reach // 2, length]) | st.integers(
        0, length
    )
    start = data.draw(places.map(lambda i: min(max(i - 5, 0), length - 1)))
    queries = range(length)[start :: data.draw(st.sampled_from([1, 2, neighborhood.dilation[0]]))][:30]
    windows = [window(i, length, *arguments) for i in queries]
    assert bounds(neighborhood, queries) == [(keys[0], len(keys)) for keys in windows]


# --- a part of the layout


@given(problem=problems(), data=st.data())
def test_the_tables_of_a_part_are_rows_of_the_whole(problem: Problem, data: st.DataObject) -> None:
    """So the tables of parts that make up the layout are together those of the whole."""
    neighborhood = problem.neighborhood
    part = data.draw(parts(problem.layout))
    rows = [neighborhood.number(token) for token in itertools.product(*part)]
    for table in (neighborhood.indices, neighborhood.valid, neighborhood.mask):
        assert_close(table(part=part), table()[rows], rtol=0, atol=0)
    for axis, queries in enumerate(part):
        for own, whole in zip(
            neighborhood.axis_table(axis, queries=queries), neighborhood.axis_table(axis), strict=True
        ):
            assert_close(own, whole[queries.start : queries.stop], rtol=0, atol=0)


def test_a_part_may_skip_positions() -> None:
    neighborhood, part = made(), (range(10, -1, -3), range(2, 13, 5))
    rows = [neighborhood.number(token) for token in itertools.product(*part)]
    assert_close(neighborhood.indices(part=part), neighborhood.indices()[rows], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ((range(3),), r"^part must have one range per axis: the layout \(11, 13\) has 2, got \(range\(0, 3\),\)$"),
        ((range(12), range(3)), r"^part on axis 0 must lie in 0 \.\. 10 \(length - 1\), got range\(0, 12\)$"),
        ((range(3), range(-1, 3)), r"^part on axis 1 must lie in 0 \.\. 12 \(length - 1\), got range\(-1, 3\)$"),
    ],
)
def test_a_part_outside_the_layout_is_refused(part: tuple[range, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        made().indices(part=part)


def test_per_axis() -> None:
    assert per_axis("stride", 2, (5, 7, 9)) == (2, 2, 2)
    assert per_axis("stride", [1, 2, 3], (5, 7, 9)) == (1, 2, 3)
    assert per_axis("is_causal", False, (5,)) == (False,)


def test_small_numpy_integers_do_not_overflow() -> None:
    """150 * 2 is 44 in eight bits: the limit must be checked in Python's integers, and so must tables be built."""
    with pytest.raises(ValueError, match=r"150 \* 2 = 300 > 299$"):
        Neighborhood((299,), np.uint8(150), dilation=np.uint8(2))  # type: ignore[arg-type]
    small = Neighborhood((np.int16(301),), np.uint8(150), np.uint8(1), np.uint8(2))  # type: ignore[arg-type]
    assert small.windows(0) == Neighborhood((301,), 150, 1, 2).windows(0)


@given(problem=problems())
def test_pitch_counts_the_tokens_between_neighbors(problem: Problem) -> None:
    neighborhood = problem.neighborhood
    for token in neighborhood.tokens():
        assert neighborhood.number(token) == sum(i * pitch for i, pitch in zip(token, neighborhood.pitch, strict=True))


@given(problem=problems())
def test_full_is_where_nothing_is_forbidden(problem: Problem) -> None:
    for case in (problem, problem.but(layout=problem.kernel_size, dilation=(1,) * len(problem.layout))):
        assert case.neighborhood.is_full == bool(case.neighborhood.mask().all())
