"""Tiles of equal size: every window whole, every query once, the operator's numbers."""

import pytest
import torch
from torch.testing import assert_close

from dinat_ref import neighborhood_attention, window
from dinat_ref.export.block_operator import BlockOperator
from dinat_ref.export.blocks import Geometry, axis_blocks, cut_into_blocks, tile_size

AXES = [
    (length, kernel_size, stride, dilation, is_causal)
    for length in range(1, 13)
    for kernel_size in range(1, length + 1)
    for stride in range(1, kernel_size + 1)
    for dilation in range(1, length // kernel_size + 1)
    for is_causal in (False, True)
]


def attended(axis: tuple[int, int, int, int, bool], size: int) -> dict[int, list[tuple[int, int]]]:
    """What each query of one axis attends by the tables: keys and their offsets."""
    blocks = axis_blocks(axis, size)
    return {
        i: [
            (key, offset)
            for key, offset in zip(blocks.keys[tile].tolist(), blocks.offset[tile, slot].tolist(), strict=True)
            if offset >= 0
        ]
        for i, (tile, slot) in enumerate(zip(blocks.tile.tolist(), blocks.slot.tolist(), strict=True))
    }


def test_every_window_of_every_short_axis(count_cases):
    """The tables, read back token by token, are the definition's windows, with the offsets of the bias table."""
    for axis in AXES:
        length, kernel_size, stride, dilation, _ = axis
        for size in {stride, stride * -(-tile_size(length, kernel_size, dilation) // stride)}:
            found = attended(axis, size)
            for i in range(length):
                keys = list(window(i, *axis))
                assert found[i] == [(j, (j - i) // dilation + kernel_size - 1) for j in keys], (axis, size, i)
                count_cases("windows", 1)


def test_tiles_hold_the_queries_that_they_are_read_for():
    for axis in AXES[::7]:
        blocks = axis_blocks(axis, axis[2] * 2)
        assert_close(blocks.queries[blocks.tile, blocks.slot], torch.arange(axis[0]))


PROBLEMS = [
    ((13,), (4,), (1,), (3,), (False,), True),
    ((9, 14), (3, 5), (2, 1), (1, 2), (False, False), True),
    ((9, 14), (3, 5), (2, 4), (2, 1), (True, False), False),
    ((3, 9), (3, 3), (1, 1), (1, 3), (False, False), True),
    ((5, 6, 7), (2, 3, 2), (1, 2, 1), (2, 1, 3), (False, True, False), True),
]


@pytest.mark.parametrize(("layout", "kernel_size", "stride", "dilation", "is_causal", "biased"), PROBLEMS)
def test_numbers_and_gradients_of_the_operator(layout, kernel_size, stride, dilation, is_causal, biased):
    generator = torch.Generator().manual_seed(0)
    shape = (2, *layout, 3, 5)
    leaves = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]
    if biased:
        table = [2 * size - 1 for size in kernel_size]
        leaves.append(torch.randn(3, *table, generator=generator, dtype=torch.float64).requires_grad_())
    rpb = leaves[3] if biased else None
    where = (kernel_size, stride, dilation, is_causal)
    found = BlockOperator()(*leaves[:3], *where, 0.3, rpb=rpb)
    expected = neighborhood_attention(*leaves[:3], *where, 0.3, rpb=rpb, impl="loops")
    assert_close(found, expected)
    upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    assert_close(torch.autograd.grad(found, leaves, upstream), torch.autograd.grad(expected, leaves, upstream))


def test_half_precision_keeps_a_softmax_in_float32():
    """2,000 equal weights of 1/2000: summed in float16 they would not be 1."""
    value = torch.ones(1, 2000, 1, 1, dtype=torch.float16)
    found = BlockOperator()(0 * value, value, value, (2000,), (1,), (1,), (False,))
    assert_close(found, value, rtol=1e-3, atol=0)


def test_tables_are_small_and_shared():
    """The largest layer of a DiNAT-Mini: nine kinds of tiles, whatever the size of the map."""
    arguments = (7, 7), (1, 1), (1, 1), (False, False)
    for layout in ((56, 56), (112, 112)):
        blocks = cut_into_blocks(Geometry(layout, *arguments))
        assert blocks.place.shape[0] == 9
        assert blocks.kind is not None
        assert sorted(blocks.kind.unique().tolist()) == list(range(9))
    operator = BlockOperator()
    for channels in (1, 2):
        operator(*3 * [torch.zeros(1, 20, 20, 1, channels)], *arguments)
    assert len(list(operator.buffers())) == 5, "two layers of one geometry have one set of tables"


def test_full_groups_are_one_tile():
    """Dilation as large as it can be: every group is a tile and its own slab, nothing is forbidden."""
    blocks = cut_into_blocks(Geometry((56, 28), (7, 7), (1, 1), (8, 4), (False, False)))
    assert (blocks.queries.shape, blocks.keys.shape) == ((32, 49), (32, 49))
    assert int(blocks.place.max()) < 13 * 13


@pytest.mark.parametrize("table", ["queries", "keys", "offset"])
def test_a_wrong_table_is_seen(table, monkeypatch):
    """The comparison would fail if any table were off by one."""
    honest = axis_blocks

    def wrong(*arguments, **options):
        blocks = honest(*arguments, **options)
        return blocks._replace(**{table: getattr(blocks, table).roll(1, 0)})

    monkeypatch.setattr("dinat_ref.export.blocks.axis_blocks", wrong)
    x = torch.randn(1, 40, 1, 4)
    where = (5,), (1,), (1,), (False,)
    found = BlockOperator()(x, x, x, *where)
    expected = neighborhood_attention(x, x, x, *where)
    with pytest.raises(AssertionError):
        assert_close(found, expected)


def test_masked_keys_are_refused():
    x, mask = torch.zeros(1, 4, 1, 1), torch.ones(1, 4, dtype=torch.bool)
    with pytest.raises(NotImplementedError, match="key_mask"):
        BlockOperator()(x, x, x, (3,), (1,), (1,), (False,), key_mask=mask)
