"""The tiles of the fast formulation: many tiles and many chunks on problems small enough for the oracle."""

import itertools
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.testing import assert_close

from dinat_ref.attention import chunks, na1d, na2d, neighborhood_attention, tiles
from dinat_ref.attention.boxes import whole
from dinat_ref.attention.cache import ByteCache
from dinat_ref.attention.cut import alike_tiles, axis_tiles
from dinat_ref.attention.operands import prepare
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.window import window
from tests import oracle
from tests.oracle import Axis
from tests.strategies import Problem, boxes_of, long_axes, problems

EXACT = {"rtol": 1e-12, "atol": 1e-12}


@contextmanager
def cut(queries_per_tile: int, numbers_per_chunk: int, most_keys_kept: int = 512) -> Iterator[None]:
    """Tiles and chunks of another size than the one that is fast; without keys that are kept, every call makes all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "QUERIES_PER_TILE", queries_per_tile)
        patch.setattr(tiles, "MOST_KEYS_KEPT", most_keys_kept)
        patch.setattr(chunks, "NUMBERS_PER_CHUNK", numbers_per_chunk)
        yield


cuts = st.tuples(st.sampled_from([1, 4, 9, 64]), st.sampled_from([1, 40, 300, 2**19]), st.sampled_from([0, 512]))


@given(problem=problems(), sizes=cuts)
def test_any_cut_gives_the_same_numbers(problem: Problem, sizes: tuple[int, int, int]) -> None:
    tensors = problem.tensors()
    expected = problem.attend("loops", tensors)
    with cut(*sizes):
        assert_close(problem.attend("tiled", tensors), expected, **EXACT)
        fused = neighborhood_attention(**tensors, **problem.where, scale=problem.scale, impl="tiled")
    assert_close(fused, expected[0], **EXACT)


@given(problem=problems(), sizes=cuts)
def test_any_cut_gives_the_same_gradients(problem: Problem, sizes: tuple[int, int, int]) -> None:
    """Computed chunk by chunk, through autograd when a second derivative is wanted, and as loops have them."""
    with cut(*sizes):
        by_chunks, by_autograd = (gradients(problem, "tiled", create_graph) for create_graph in (False, True))
    expected = gradients(problem, "loops", create_graph=False)
    assert_close(by_chunks, expected, rtol=1e-11, atol=1e-11)
    assert_close(by_autograd, expected, rtol=1e-11, atol=1e-11)


def gradients(problem: Problem, impl: str, create_graph: bool) -> list[Tensor]:
    tensors = problem.tensors(requires_grad=True)
    output, lse = problem.attend(impl, tensors)
    loss = output.sin().sum() + lse.cos().sum()
    unused = {"allow_unused": True, "materialize_grads": True}
    found = torch.autograd.grad(loss, list(tensors.values()), create_graph=create_graph, **unused)
    return [gradient.detach() for gradient in found]


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("return_lse", [False, True])
def test_tensors_that_depend_on_one_another(create_graph: bool, return_lse: bool) -> None:
    """One leaf is the bias and also part of query, key, value: each path to it counts once."""
    problem = Problem((5, 7), (3, 2), (1, 2), (1, 3), (False, True), rpb=True)
    fixed = problem.tensors()
    found = {}
    for impl in ("tiled", "loops"):
        leaf = fixed["rpb"].clone().requires_grad_()
        tensors = {name: fixed[name] * leaf.square().mean() for name in ("query", "key", "value")}
        output, lse = problem.attend(impl, {**tensors, "rpb": leaf}, return_lse=True)
        loss = output.sin().sum() + (lse.sin().sum() if return_lse else 0)
        (found[impl],) = torch.autograd.grad(loss, leaf, create_graph=create_graph)
    assert_close(found["tiled"], found["loops"], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("create_graph", [False, True])
def test_one_tensor_is_query_key_and_value(create_graph: bool) -> None:
    problem = Problem((5, 7), (3, 2), (1, 2), (1, 3), (False, True))
    found = {}
    for impl in ("tiled", "loops"):
        leaf = problem.tensors()["query"].requires_grad_()
        output, lse = problem.attend(impl, {"query": leaf, "key": leaf, "value": leaf}, scale=1.0)
        (gradient,) = torch.autograd.grad(output.sin().sum() + lse.sin().sum(), leaf, create_graph=create_graph)
        found[impl] = gradient
    assert_close(found["tiled"], found["loops"], rtol=1e-11, atol=1e-11)


@given(problem=problems(), queries_per_tile=st.sampled_from([1, 4, 9, 64]), data=st.data())
def test_tiles_partition_the_queries_and_cover_their_windows(
    problem: Problem, queries_per_tile: int, data: st.DataObject
) -> None:
    """Every token, or every one of a part, is once a query; the slab of its tile holds its window, row-major."""
    boxes = data.draw(st.just(whole(problem.neighborhood)) | boxes_of(problem))
    asking, held = (list(itertools.product(*box)) for box in (boxes.queries, boxes.keys))
    with cut(queries_per_tile, 1, data.draw(st.sampled_from([0, 512]))):
        batches = list(tiles.cut_into_tiles(problem.neighborhood, boxes=boxes))
    seen = []
    for batch in batches:
        allowed = batch.bias(None, torch.float64)
        of_queries = batch.first_queries[:, None] + batch.queries  # [tiles, T]
        of_keys = batch.first_keys[:, None] + batch.keys  # [tiles, S]
        for queries, slab in zip(of_queries.tolist(), of_keys.tolist(), strict=True):
            assert len(set(slab)) == len(slab)
            for row, query in enumerate(queries):
                window = [held.index(neighbor) for neighbor in oracle.neighbors(asking[query], problem.axes)]
                scores = [0.0] * len(slab) if allowed is None else allowed[0, row].tolist()
                assert [key for key, score in zip(slab, scores, strict=True) if score == 0.0] == window
                seen.append(query)
    assert sorted(seen) == list(range(len(asking)))


@given(problem=problems(), size=st.integers(1, 5))
def test_a_tile_is_every_query_whose_window_fits_the_slab(problem: Problem, size: int) -> None:
    """No slab is larger than size + k - 1 keys, size in whole strides, and the next query would need a larger one."""
    for axis, (length, kernel_size, stride, dilation, _) in enumerate(problem.axes):
        found = axis_tiles(problem.neighborhood, axis, size)
        assert sorted(i for tile in found for i in tile.queries) == list(range(length))
        windows = problem.neighborhood.windows(axis)
        largest = math.ceil(size / stride) * stride + kernel_size - 1
        for tile in found:
            assert len(tile.keys) <= largest
            assert tile.queries[0] in tile.keys
            assert tile.keys[0] == windows[tile.queries[0]][0]
            assert tile.keys[-1] == windows[tile.queries[-1]][-1]
            after = tile.queries[-1] + dilation
            if after < length:
                assert windows[after][0] > tile.keys[0] + dilation * (size - stride)


@given(axis=long_axes(), size=st.integers(1, 50), data=st.data())
def test_a_long_axis_is_cut_without_counting_its_tokens(axis: Axis, size: int, data: st.DataObject) -> None:
    """Up to 10**12 tokens in a few kinds of tiles, that are as many queries; each kind's last tile fits its windows."""
    start, stop = sorted(data.draw(st.tuples(st.integers(0, axis[0]), st.integers(0, axis[0]))))
    part = data.draw(st.sampled_from([range(axis[0]), range(start, stop)]))
    queries = 0
    for alike in alike_tiles(axis, part, size, most=2**40):
        tile = alike.tile
        for groups, steps in alike.distances:
            queries += len(tile.queries) * len(groups) * len(steps)
            last = tile.moved(groups[-1] + steps[-1])
            first_window, last_window = window(last.queries[0], *axis), window(last.queries[-1], *axis)
            assert (first_window[0], last_window[-1]) == (last.keys[0], last.keys[-1])
            assert {last.queries[0] in part, last.queries[-1] in part} == {True}
            assert len(first_window) == len(window(tile.queries[0], *axis))
            assert alike.allows_all == (first_window == last_window)
    assert queries == len(part)


@pytest.mark.parametrize("dilation", [1, 4])
@pytest.mark.parametrize("rest", [0, 1])
def test_a_group_of_kernel_size_tokens_is_one_tile_without_a_mask(dilation: int, rest: int) -> None:
    """With dilation as large as it can be; the longer groups, where it does not divide the length, have a mask."""
    batches = tiles.cut_into_tiles(Neighborhood((7 * dilation + rest,), 7, dilation=dilation))
    for batch in batches:
        assert len(batch.queries) == len(batch.keys) in (7, 7 + rest)
        assert batch.allows_all == (len(batch.keys) == 7)
    assert sum(len(batch.first_queries) for batch in batches) == dilation


def test_a_long_window_does_not_make_a_large_tile() -> None:
    for ndim, length in ((1, 3000), (2, 60), (3, 15)):
        for batch in tiles.cut_into_tiles(Neighborhood((length,) * ndim, length)):
            assert len(batch.queries) <= tiles.MOST_QUERIES_PER_TILE


def test_what_is_kept_is_bounded_in_bytes() -> None:
    kept = ByteCache[Tensor](1000, size_of=lambda tensor: tensor.nbytes)
    for length in (3, 5, 15, 7, 15, 16, 11, 12, 13, 14, 15, 3, 10):
        assert len(kept.get(length, lambda: torch.zeros(length))) == length  # noqa: B023
        assert kept.num_bytes == sum(tensor.nbytes for tensor in kept.results.values()) <= 1000
    assert list(kept.results) == [5, 7, 16, 11, 12, 13, 14, 15, 3, 10]
    kept.cache_clear()
    assert (kept.results, kept.num_bytes) == ({}, 0)


def test_a_huge_layout_is_not_kept() -> None:
    before = tiles.KEPT.num_bytes, set(tiles.KEPT.results)
    number = sum(len(batch.first_queries) for batch in tiles.cut_into_tiles(Neighborhood((10**7,), 3)))
    assert number == -(-(10**7 - 2) // 16)
    assert (tiles.KEPT.num_bytes, set(tiles.KEPT.results)) == before
    assert tiles.KEPT.most_bytes == 64 * 2**20


def call_in(place: str, layout: int) -> None:
    """Attend a layout for the first time somewhere where tensors are not what they are elsewhere."""
    x = torch.ones(1, layout, 1, 4)
    if place == "inference mode":
        with torch.inference_mode():
            na1d(x, x, x, 3, impl="tiled")
    elif place == "fake tensors":
        with FakeTensorMode(allow_non_fake_inputs=True):
            na1d(x, x, x, 3, impl="tiled")
    elif place == "vmap":
        torch.func.vmap(lambda y: na1d(y, y, y, 3, impl="tiled"))(x[None])
    elif place == "grad":
        torch.func.grad(lambda y: na1d(y, y, y, 3, impl="tiled").sum())(x)  # type: ignore[union-attr]
    else:
        with torch.device("meta"):
            na1d(x, x, x, 3, impl="tiled")


@pytest.mark.parametrize("place", ["inference mode", "fake tensors", "vmap", "grad", "another default device"])
def test_tables_that_are_made_once_serve_everybody(place: str) -> None:
    layout = 41 + len(place)  # met by no other test
    call_in(place, layout)
    problem = Problem((layout,), (3,), (1,), (1,), (False,))
    found = {}
    for impl in ("tiled", "gather"):
        tensors = problem.tensors(requires_grad=True)
        output, lse = problem.attend(impl, tensors)
        loss = output.sin().sum() + lse.cos().sum()
        gradient = torch.autograd.grad(loss, list(tensors.values()), create_graph=True)
        found[impl] = [output, *gradient, *torch.autograd.grad(gradient[0].sum(), [tensors["query"]])]
    assert_close(found["tiled"], found["gather"], rtol=1e-11, atol=1e-11)


def test_many_chunks_at_the_size_that_is_fast() -> None:
    """Without a patch: an image that takes several chunks, ragged tiles at its edges; finite and right everywhere."""
    problem = Problem((47, 43), (7, 5), (1, 2), (3, 1), (False, True), heads=4, heads_kv=2, rpb=True, extra=3, seed=5)
    plan, memory = chunks.lay_out(prepare(neighborhood=problem.neighborhood, **problem.tensors()), return_lse=True)
    per_batch = [len(list(chunks.chunks(plan, memory, batch, scores_alive=2))) for batch in plan.batches]
    assert len(per_batch) > 4
    assert max(per_batch) > 1
    found = {}
    for impl in ("tiled", "gather"):
        tensors = problem.tensors(requires_grad=True)
        output, lse = problem.attend(impl, tensors)
        gradient = torch.autograd.grad(output.sin().sum() + lse.cos().sum(), list(tensors.values()))
        found[impl] = [output.detach(), lse.detach(), *gradient]
    for one, other in zip(found["tiled"], found["gather"], strict=True):
        assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile's default backend needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_the_default_compiler_takes_masks_and_bias() -> None:
    """A sum and a softmax between two products looked like one fused attention to it, which it then misread."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 14, 15, 2, 8, generator=generator).unbind(0)
    rpb = torch.randn(2, 5, 5, generator=generator)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return na2d(query, key, value, kernel_size=3, rpb=rpb, impl="tiled")  # type: ignore[return-value]

    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(attend, fullgraph=True)(query, key, value)
    assert_close(compiled, attend(query, key, value), rtol=1e-4, atol=1e-5)
