"""The mask for FlexAttention is the neighborhood, and FlexAttention with it is the operator."""

import itertools
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention
from torch.testing import assert_close

import dinat_ref
from dinat_ref.analysis.flat_tiles import count_flat_tiles
from dinat_ref.analysis.kernel_tiles import axis_tiles, count_tiles
from dinat_ref.interop.flex import neighborhood_mask_mod, permuted_mask_mod, tile_permutation
from dinat_ref.neighborhood import Neighborhood
from tests.strategies import problems

PYTORCH = tuple(map(int, torch.__version__.split(".")[:2]))


def dense(mask_mod, tokens: int) -> torch.Tensor:
    numbers = torch.arange(tokens)
    return mask_mod(torch.tensor(0), torch.tensor(0), numbers[:, None], numbers)


def test_every_axis_up_to_length_nine():
    count = 0
    for length, kernel_size, dilation, is_causal in itertools.product(range(1, 10), range(1, 10), (1, 2, 3), (0, 1)):
        if kernel_size * dilation > length:
            continue
        for stride in range(1, kernel_size + 1):
            arguments = ((length,), kernel_size, stride, dilation, bool(is_causal))
            expected = Neighborhood(*arguments).mask()
            assert_close(dense(neighborhood_mask_mod(*arguments), length), expected, rtol=0, atol=0)
            count += 1
    assert count == 2 * sum(
        kernel_size
        for length in range(1, 10)
        for kernel_size in range(1, length + 1)
        for dilation in (1, 2, 3)
        if kernel_size * dilation <= length
    )


@given(problems())
@settings(max_examples=40, deadline=None)
def test_any_layout_of_up_to_three_axes(problem):
    neighborhood = problem.neighborhood
    mask_mod = neighborhood_mask_mod(problem.layout, **problem.where)
    assert_close(dense(mask_mod, neighborhood.num_tokens), neighborhood.mask(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("layout", "arguments"),
    [
        ((4, 9), {"kernel_size": (3, 4), "dilation": (1, 2)}),
        ((17,), {"kernel_size": 4, "stride": 3, "is_causal": True}),
        ((3, 5, 4), {"kernel_size": 2, "is_causal": (True, False, False)}),
    ],
)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_with_it_is_the_operator(layout, arguments):
    tokens = torch.Size(layout).numel()
    query, key, value = torch.randn(3, 2, 3, tokens, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    mask_mod = neighborhood_mask_mod(layout, **arguments)
    blocks = create_block_mask(mask_mod, None, None, tokens, tokens, device="cpu", BLOCK_SIZE=16)
    assert_close(
        create_mask(mask_mod, 1, 1, tokens, tokens, device="cpu")[0, 0], dense(mask_mod, tokens), rtol=0, atol=0
    )
    output = flex_attention(query, key, value, block_mask=blocks)  # [B, H, N, D]
    heads_last = [tensor.transpose(1, 2).unflatten(1, layout) for tensor in (query, key, value)]
    expected = dinat_ref.neighborhood_attention(*heads_last, **arguments)
    assert_close(output.transpose(1, 2).unflatten(1, layout), expected, rtol=1e-5, atol=1e-6)


def test_illegal_arguments_are_refused():
    with pytest.raises(ValueError, match=r"kernel_size \* dilation on axis 1 must be at most"):
        neighborhood_mask_mod((8, 5), 3, dilation=2)


@given(problems(), st.data())
@settings(max_examples=40, deadline=None)
def test_permutation_is_by_group_then_by_tile(problem, data):
    tile = tuple(data.draw(st.integers(1, length), label="tile") for length in problem.layout)
    order, place = tile_permutation(problem.layout, tile, problem.dilation)
    tokens = problem.neighborhood.num_tokens
    assert_close(order[place], torch.arange(tokens), rtol=0, atol=0)
    assert sorted(order[order >= 0].tolist()) == list(range(tokens))
    steps = list(zip(problem.dilation, tile, strict=True))
    blocks = {}
    for slot, token in enumerate(order.tolist()):
        if token >= 0:
            coordinates = problem.neighborhood.coordinates(token)
            group = tuple(i % step for i, (step, _) in zip(coordinates, steps, strict=True))
            number = tuple(i // step // size for i, (step, size) in zip(coordinates, steps, strict=True))
            blocks.setdefault(slot // math.prod(tile), set()).add((group, number))
    assert all(len(members) == 1 for members in blocks.values())  # a block is one tile of one group
    assert [members.pop() for members in blocks.values()] == sorted(
        {
            (group, number)
            for coordinates in problem.neighborhood.tokens()
            for group in [tuple(i % step for i, (step, _) in zip(coordinates, steps, strict=True))]
            for number in [tuple(i // step // size for i, (step, size) in zip(coordinates, steps, strict=True))]
        }
    )


def draw_setting(generator: random.Random, shortest: int, longest: int, ndim: int) -> Neighborhood:
    """A random neighborhood; an even mixture of strides, dilations and causality."""
    layout, rows = [], []
    for _ in range(ndim):
        length, dilation = generator.randint(shortest, longest), generator.choice([1, 1, 2, 3])
        kernel_size = generator.randint(1, length // dilation)
        layout.append(length)
        rows.append((kernel_size, generator.randint(1, kernel_size), dilation, generator.random() < 0.25))
    return Neighborhood(layout, *(tuple(column) for column in zip(*rows, strict=True)))


def blocks_of(mask_mod, queries: int, keys: int, sizes: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, float]:
    """PyTorch's numbers: visited and full blocks of keys of every block of queries, and the sparsity in percent."""
    mask = create_block_mask(mask_mod, None, None, queries, keys, device="cpu", BLOCK_SIZE=sizes)
    assert mask.full_kv_num_blocks is not None
    full = mask.full_kv_num_blocks[0, 0]
    return mask.kv_num_blocks[0, 0] + full, full, mask.sparsity()


@pytest.mark.parametrize("seed", range(25))
def test_pytorch_visits_as_many_blocks_of_a_flattened_layout(seed):
    """FlexAttention's own tiling: 128 consecutive tokens, of one axis or of several in row-major order."""
    generator = random.Random(seed)
    neighborhood = draw_setting(generator, *[(300, 2000, 1), (12, 50, 2), (5, 12, 3)][seed % 3])
    tokens = neighborhood.num_tokens
    mask_mod = neighborhood_mask_mod(
        neighborhood.layout,
        neighborhood.kernel_size,
        neighborhood.stride,
        neighborhood.dilation,
        neighborhood.is_causal,
    )
    visited, full, sparsity = blocks_of(mask_mod, tokens, tokens, (128, 128))
    count = count_flat_tiles(neighborhood, 128, 128)
    assert (count.query_tiles, count.worst, count.total) == (len(visited), int(visited.max()), int(visited.sum()))
    if tokens % 128 == 0:  # PyTorch fills the last block with what is not attended, and calls it partial
        assert count.partial == count.total - int(full.sum())
    whole = math.ceil(tokens / 128) * 128  # since 2.14 PyTorch counts the whole of the last block
    of_all = tokens if PYTORCH < (2, 14) else whole
    assert 100 * (1 - count.total * 128**2 / of_all**2) == pytest.approx(sparsity)
    if neighborhood.ndim == 1 and neighborhood.dilation == (1,):
        assert count == count_tiles(neighborhood, 128, 128)


@pytest.mark.parametrize("seed", range(25))
def test_pytorch_visits_as_many_tiles_of_permuted_tokens(seed):
    generator = random.Random(100 + seed)
    ndim = 1 + seed % 3
    neighborhood = draw_setting(generator, *[(200, 1200), (12, 40), (5, 12)][ndim - 1], ndim)
    tiles = [tuple(generator.choice([1, 2, 4, 8]) * (16 if ndim == 1 else 1) for _ in range(ndim)) for _ in range(2)]
    orders = [tile_permutation(neighborhood.layout, tile, neighborhood.dilation)[0] for tile in tiles]
    mask_mod = neighborhood_mask_mod(
        neighborhood.layout,
        neighborhood.kernel_size,
        neighborhood.stride,
        neighborhood.dilation,
        neighborhood.is_causal,
    )
    visited, full, sparsity = blocks_of(
        permuted_mask_mod(mask_mod, *orders), *map(len, orders), tuple(map(math.prod, tiles))
    )
    count = count_tiles(neighborhood, *tiles)
    by_axis = [axis_tiles(*rest) for rest in zip(neighborhood.axes, *tiles, strict=True)]
    expected = [
        math.prod(len(tile.tiles) for tile in combined)
        for group in itertools.product(*map(range, neighborhood.dilation))
        for combined in itertools.product(
            *([tile for tile in own if tile.group == g] for g, own in zip(group, by_axis, strict=True))
        )
    ]
    assert visited.tolist() == expected
    assert (count.worst, count.total) == (max(expected), sum(expected))
    blocks = len(orders[0]) // math.prod(tiles[0]) * (len(orders[1]) // math.prod(tiles[1]))
    assert 100 * (1 - count.total / blocks) == pytest.approx(sparsity)
    if all(bool((order >= 0).all()) for order in orders):
        assert count.partial == count.total - int(full.sum())


@pytest.mark.parametrize(
    ("layout", "arguments", "tile"),
    [
        ((8, 12), {"kernel_size": (4, 6), "stride": (2, 1)}, (4, 4)),
        ((7, 10), {"kernel_size": 3, "dilation": (1, 3), "is_causal": (True, False)}, (4, 2)),
        ((3, 5, 6), {"kernel_size": (2, 3, 3), "dilation": (1, 1, 2)}, (2, 2, 4)),
    ],
)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_of_permuted_tokens_is_the_operator(layout, arguments, tile):
    tokens = torch.Size(layout).numel()
    query, key, value = torch.randn(3, 2, 3, tokens, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    order, place = tile_permutation(layout, tile, arguments.get("dilation", 1))
    mask_mod = permuted_mask_mod(neighborhood_mask_mod(layout, **arguments), order, order)
    blocks = create_block_mask(mask_mod, None, None, len(order), len(order), device="cpu", BLOCK_SIZE=math.prod(tile))
    permuted = [tensor[:, :, order.clamp(min=0)] for tensor in (query, key, value)]  # [B, H, slots, D]
    output = flex_attention(*permuted, block_mask=blocks)[:, :, place]  # [B, H, N, D]
    heads_last = [tensor.transpose(1, 2).unflatten(1, layout) for tensor in (query, key, value)]
    expected = dinat_ref.neighborhood_attention(*heads_last, **arguments)
    assert_close(output.transpose(1, 2).unflatten(1, layout), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((8, 9), (4, 0)), r"tile must be at least 1 on each axis, got \(4, 0\)"),
        (((8, 9), (4, 4, 4)), "tile must have one entry per axis"),
        (((8, 9), 4, 9), "dilation on axis 0 must be at most"),
    ],
)
def test_illegal_permutations_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tile_permutation(*arguments)
