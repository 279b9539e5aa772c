"""The index into the table of relative positional bias."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch.testing import assert_close

from dinat_ref.attention.bias import bias_index, lookup_bias, spread
from dinat_ref.neighborhood import Neighborhood
from tests.oracle import legal_axes
from tests.plain import token_list
from tests.strategies import Problem, problems


@given(problem=problems())
def test_index_counts_the_steps_from_query_to_key(problem: Problem) -> None:
    neighborhood = problem.neighborhood
    indices, valid, tokens = neighborhood.indices(), neighborhood.valid(), token_list(problem)
    index = bias_index(neighborhood)
    assert len(index) == len(problem.layout)
    for axis, (_, kernel_size, _, dilation, _) in enumerate(problem.axes):
        assert index[axis].shape == indices.shape
        for query, keys in enumerate(indices.tolist()):
            for slot, key in enumerate(keys):
                if valid[query, slot]:
                    steps = (tokens[key][axis] - tokens[query][axis]) // dilation
                    assert int(index[axis][query, slot]) == steps + kernel_size - 1


def test_index_always_lies_in_the_table() -> None:
    """At edges, with dilation, stride and causality alike; and every row of the table is used by some axis."""
    for length, kernel_size, *arguments in legal_axes(9):
        (index,) = bias_index(Neighborhood((length,), kernel_size, *arguments))
        assert int(index.min()) >= 0
        assert int(index.max()) <= 2 * kernel_size - 2
        if arguments == [1, 1, False]:
            assert index.unique().tolist() == list(range(2 * kernel_size - 1))


@given(sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=3))
def test_lookup_is_the_product_of_axes(sizes: list[tuple[int, int]]) -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(2, *(7 for _ in sizes), generator=generator, dtype=torch.float64)
    index = [torch.randint(0, 7, size, generator=generator) for size in sizes]
    bias = lookup_bias(table, index)
    queries, keys = zip(*sizes, strict=True)
    assert bias.shape == (2, *queries, *keys)
    place = [size - 1 for size in (*queries, *keys)]  # the last query and the last key of every axis
    entry = table[(slice(None), *(int(rows[-1, -1]) for rows in index))]
    assert_close(bias[(slice(None), *place)], entry, rtol=0, atol=0)
    assert_close(
        bias[(slice(None), *(0 for _ in place))], table[(slice(None), *(int(i[0, 0]) for i in index))], rtol=0, atol=0
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_spread_puts_queries_first(axis: int) -> None:
    table = torch.arange(15).reshape(5, 3)
    shape = [1] * 6
    shape[axis], shape[axis + 3] = 5, 3
    assert list(spread(table, axis, ndim=3).shape) == shape
    assert_close(spread(table, axis, ndim=3).flatten(), table.flatten(), rtol=0, atol=0)
