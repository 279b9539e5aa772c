"""The tiles of the fast formulation: many tiles and many chunks on problems small enough for the oracle."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from dinat_ref.attention import chunks, na2d, tiles
from dinat_ref.attention.operands import prepare
from tests import oracle
from tests.plain import token_list
from tests.strategies import Problem, problems

EXACT = {"rtol": 1e-12, "atol": 1e-12}


@contextmanager
def cut(queries_per_tile: int, numbers_per_chunk: int) -> Iterator[None]:
    """Tiles and chunks of another size than the one that is fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "QUERIES_PER_TILE", queries_per_tile)
        patch.setattr(chunks, "NUMBERS_PER_CHUNK", numbers_per_chunk)
        yield


cuts = st.tuples(st.sampled_from([1, 4, 9, 64]), st.sampled_from([1, 40, 300, 2**19]))


@given(problem=problems(), sizes=cuts)
def test_any_cut_gives_the_same_numbers(problem: Problem, sizes: tuple[int, int]) -> None:
    tensors = problem.tensors()
    expected = problem.attend("loops", tensors)
    with cut(*sizes):
        assert_close(problem.attend("tiled", tensors), expected, **EXACT)


@given(problem=problems(), sizes=cuts)
def test_any_cut_gives_the_same_gradients(problem: Problem, sizes: tuple[int, int]) -> None:
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


@given(problem=problems(), queries_per_tile=st.sampled_from([1, 4, 9, 64]))
def test_tiles_partition_the_queries_and_cover_their_windows(problem: Problem, queries_per_tile: int) -> None:
    """Every token is once a query, and the slab of its tile holds its window, in row-major order."""
    tokens = token_list(problem)
    seen = []
    with cut(queries_per_tile, 1):
        batches = list(tiles.cut_into_tiles(problem.neighborhood))
    for batch in batches:
        allowed = batch.bias(None, torch.float64)
        of_queries = batch.first_queries[:, None] + batch.queries  # [tiles, T]
        of_keys = batch.first_keys[:, None] + batch.keys  # [tiles, S]
        for queries, slab in zip(of_queries.tolist(), of_keys.tolist(), strict=True):
            assert len(set(slab)) == len(slab)
            for row, query in enumerate(queries):
                window = [tokens.index(neighbor) for neighbor in oracle.neighbors(tokens[query], problem.axes)]
                scores = [0.0] * len(slab) if allowed is None else allowed[0, row].tolist()
                assert [key for key, score in zip(slab, scores, strict=True) if score == 0.0] == window
                seen.append(query)
    assert sorted(seen) == list(range(len(tokens)))


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
