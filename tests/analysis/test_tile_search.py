"""Published answers, the fronts of strides and windows against trying everything, and the shapes of known kernels."""

import itertools
import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dinat_ref import Neighborhood
from dinat_ref.analysis import tile_search
from dinat_ref.analysis.kernel_tiles import count_tiles, end_to_end
from dinat_ref.analysis.tile_cases import PRODUCTION, USE_CASES, UseCase
from dinat_ref.analysis.tile_search import stride_front, window_front
from dinat_ref.analysis.tile_shapes import PRESETS, splits
from tests.strategies import problems

AGREES = 0.015  # the paper rounds shares and speedups


def speedup(case: UseCase, stride: tuple[int, ...]) -> float:
    return count_tiles(Neighborhood(case.layout, case.window, stride), case.query_tile, case.key_tile).speedup


@pytest.mark.parametrize("case", USE_CASES, ids=lambda case: f"{case.name} {case.window}")
def test_published_speedups(case, count_cases):
    for stride, (simulated, with_full_steps) in case.published.items():
        assert end_to_end(speedup(case, stride), case.share) == pytest.approx(simulated, abs=AGREES)
        count_cases("published speedups", 1)
        if with_full_steps is not None:
            ours = end_to_end(speedup(case, stride), case.share, case.full_steps)
            assert ours == pytest.approx(with_full_steps, abs=AGREES)
            count_cases("published speedups", 1)
    flop_wise = math.prod(case.layout) / math.prod(case.window)
    assert end_to_end(flop_wise, case.share) == pytest.approx(case.flop_speedup, abs=AGREES)


def test_published_speedups_of_the_operator():
    video, image = USE_CASES[0], USE_CASES[2]
    assert speedup(video, (1, 1, 1)) == pytest.approx(3.3, abs=0.03)
    assert speedup(video, (1, 1, 1)) == pytest.approx(3.27, abs=AGREES)
    assert speedup(video, (16, 8, 8)) == pytest.approx(11.11, abs=AGREES)
    assert speedup(image, (16, 16)) == pytest.approx(10.24, abs=AGREES)


def test_cosmos_with_the_tiles_of_its_other_window():
    """The shape that gives all numbers of 16x24x16 comes close for 16x32x48, and leaves exactly the paper's strides."""
    case, tiles = USE_CASES[3], ((2, 4, 8), (4, 4, 8))
    ours = [
        end_to_end(count_tiles(Neighborhood(case.layout, case.window, stride), *tiles).speedup, case.share)
        for stride in case.published
    ]
    assert ours == pytest.approx([1.33, 1.40, 1.43, 1.49], abs=0.006)
    front = stride_front(Neighborhood(case.layout, case.window), [tiles])
    assert [choice.neighborhood.stride for choice in front] == list(case.published)


@pytest.mark.parametrize("case", [USE_CASES[number] for number in (0, 1, 2, 4)], ids=lambda case: str(case.window))
def test_pruning_leaves_the_strides_of_the_paper(case):
    """All but blocked attention, which the paper shows for comparison: it is no faster than a smaller stride."""
    front = stride_front(Neighborhood(case.layout, case.window), [(case.query_tile, case.key_tile)])
    assert [choice.neighborhood.stride for choice in front] == [key for key in case.published if key != case.window]


@pytest.mark.parametrize("name", PRODUCTION)
def test_production_windows_waste_nothing_with_the_default_tiles_of_every_kernel(name):
    """Found: with 24 frames all five are perfectly block-sparse, on every kernel, as their authors say."""
    sparsity = {"4x16": 0.98, "12x16": 0.95, "12x24": 0.92, "20x40": 0.77, "28x56": 0.55}[name.split(",")[0]]
    neighborhood = PRODUCTION[name]
    assert 1 - neighborhood.num_keys / neighborhood.num_tokens == pytest.approx(sparsity, abs=0.006)
    for preset in PRESETS.values():
        count = count_tiles(neighborhood, *preset.shapes[3][0], preset.tiling)
        assert count.is_perfect, preset.name
        assert count.speedup == pytest.approx(count.flop_speedup)


PERFECT = {  # of so many shapes on three axes, in the order of PRODUCTION
    "fna": (10, [10, 7, 6, 6, 6]),
    "fna-64x128": (30, [30, 18, 13, 13, 13]),
    "fna-32x128": (36, [36, 21, 16, 16, 16]),
    "hopper-64": (2, [2, 1, 1, 1, 1]),
    "hopper": (2, [2, 1, 1, 1, 1]),
    "hopper-256": (2, [2, 1, 1, 1, 1]),
    "blackwell": (7, [7, 2, 1, 1, 1]),
    "flex": (15, [15, 9, 6, 6, 6]),
}


@pytest.mark.parametrize("name", PRESETS)
def test_production_windows_waste_something_with_other_tiles(name, count_cases):
    """Found: with maximal dilation every shape is perfect; the other windows want the right one."""
    preset, (shapes, expected) = PRESETS[name], PERFECT[name]
    assert len(preset.shapes[3]) == shapes
    for neighborhood, number in zip(PRODUCTION.values(), expected, strict=True):
        counts = [count_tiles(neighborhood, *pair, preset.tiling) for pair in preset.shapes[3]]
        assert sum(count.is_perfect for count in counts) == number
        count_cases("production windows", len(counts))


def test_another_shape_of_the_same_kernel_needs_masks_nearly_everywhere():
    count = count_tiles(PRODUCTION["12x24, stride 4x8"], (2, 16, 8), (2, 8, 8))
    assert (count.speedup, count.flop_speedup) == (pytest.approx(55 / 12), pytest.approx(110 / 9))
    assert count.partial / count.total == 0.9


@pytest.mark.parametrize("name", ["hopper", "blackwell"])
def test_the_smallest_perfect_strides_that_natten_names(name):
    """NATTEN's documentation of its profiler names strides that its simulator found: 256, 16x16 and 16x8x8."""
    sequence = [
        count_tiles(Neighborhood((32768,), 2048, stride), *PRESETS[name].shapes[1][0]) for stride in range(1, 257)
    ]
    assert [count.is_perfect for count in sequence] == [False] * 255 + [True]
    for layout, window, stride in (((256, 256), 80, 16), ((30, 48, 80), (18, 24, 24), (16, 8, 8))):
        neighborhood = Neighborhood(layout, window, stride)
        assert any(count_tiles(neighborhood, *pair).is_perfect for pair in PRESETS[name].shapes[len(layout)])


@given(problems(plain=True), st.integers(1, 4), st.integers(1, 4), st.sampled_from(["static", "dynamic"]))
def test_the_front_is_what_trying_every_stride_leaves(problem, query_tile, key_tile, tiling):
    window = problem.neighborhood
    pair = (query_tile,) * window.ndim, (key_tile,) * window.ndim
    front = stride_front(window, [pair], tiling)
    best: dict[int, float] = {}  # by the number of queries that share a window
    for stride in itertools.product(*(range(1, size + 1) for size in window.kernel_size)):
        tried = Neighborhood(window.layout, window.kernel_size, stride, window.dilation, window.is_causal)
        sharing = math.prod(stride)
        best[sharing] = max(best.get(sharing, 0.0), count_tiles(tried, *pair, tiling).speedup)
    expected, fastest = [], 0.0
    for sharing in sorted(best):
        if best[sharing] > fastest:
            expected.append((sharing, best[sharing]))
            fastest = best[sharing]
    assert [(choice.sharing, choice.count.speedup) for choice in front] == expected


def test_windows_of_a_budget_against_all_of_them():
    """No window of whole tiles within the budget is faster at a stride that is as close to sliding."""
    layout, tiles = (24, 36), [((4, 4), (4, 4)), ((8, 2), (2, 8))]
    front = window_front(layout, 0.75, tiles)
    budget = math.prod(layout) // 4
    windows = [
        (pair, window)
        for pair in tiles
        for window in itertools.product(
            *({*range(size, length + 1, size), length} for size, length in zip(pair[1], layout, strict=True))
        )
        if math.prod(window) <= budget
    ]
    assert all(choice.neighborhood.num_keys <= budget for choice in front)
    largest = [
        (pair, window)
        for pair, window in windows
        if not any(own == pair and wider != window and all(map(int.__ge__, wider, window)) for own, wider in windows)
    ]
    for pair, window in largest:
        for choice in stride_front(Neighborhood(layout, window), [pair]):
            rivals = [other.count.speedup for other in front if other.sharing <= choice.sharing]
            assert max(rivals) >= choice.count.speedup * (1 - 1e-9)
    for choice in front:
        assert ((choice.query_tile, choice.key_tile), choice.neighborhood.kernel_size) in largest


def test_windows_no_narrower_than_asked_for():
    front = window_front((30, 48, 80), 0.9, PRESETS["blackwell"].shapes[3], at_least=(8, 16, 16))
    assert all(map(int.__ge__, choice.neighborhood.kernel_size, (8, 16, 16)) for choice in front)
    assert [choice.sharing for choice in front] == sorted({choice.sharing for choice in front})
    assert front[-1].count.is_perfect


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0}, "sparsity must be at least 0 and below 1, got 1.0"),
        ({"sparsity": 0.9999}, "no window of at least"),
        ({"at_least": (3, 3, 3)}, "at_least must have one entry per axis"),
        ({"tiles": [((4,), (4, 4))]}, "query_tile must have one entry per axis"),
        (
            {"layout": (4000, 4000, 4000), "tiles": [((1, 1, 1), (1, 1, 1))]},
            "64,000,000,000 windows to try, more than 200,000",
        ),
    ],
)
def test_illegal_searches_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        window_front(**{"layout": (24, 36), "sparsity": 0.75, "tiles": [((4, 4), (4, 4))], **arguments})


def test_an_axis_with_too_many_strides_is_refused(monkeypatch):
    monkeypatch.setattr(tile_search, "MOST_STEPS", 100)
    with pytest.raises(ValueError, match="an axis of 200 tokens has too many strides to try them all up to 101"):
        stride_front(Neighborhood((200,), 101), [((30,), (7,))])


@pytest.mark.parametrize("name", PRESETS)
def test_tile_shapes_of_a_kernel_hold_as_many_tokens_on_all_axes(name):
    preset = PRESETS[name]
    ((queries,), (keys,)) = preset.shapes[1][0]
    for ndim, pairs in preset.shapes.items():
        assert len(set(pairs)) == len(pairs)
        for query_tile, key_tile in pairs:
            assert len(query_tile) == len(key_tile) == ndim
            assert (math.prod(query_tile), math.prod(key_tile)) == (queries, keys)


def test_numbers_of_natten_shapes():
    """As many as NATTEN 0.21.6 lists, and its defaults first."""
    numbers = {name: [len(preset.shapes[ndim]) for ndim in (1, 2, 3)] for name, preset in PRESETS.items()}
    assert numbers["fna"] == [1, 5, 10]
    assert numbers["fna-64x128"] == [1, 10, 30]
    assert numbers["fna-32x128"][2] == 36
    assert numbers["blackwell"] == [1, 4, 7]
    assert PRESETS["fna"].shapes[3][0] == ((4, 4, 4), (4, 4, 4))
    assert PRESETS["blackwell"].shapes[3][0] == ((8, 4, 8), (4, 4, 8))
    assert sorted(splits(16, 3)) == [(2, 2, 4), (2, 4, 2), (4, 2, 2)]
