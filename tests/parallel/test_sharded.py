"""Attention over several processes equals that of one: outputs, lse and every gradient, for whatever is drawn."""

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.testing import assert_close

from dinat_ref import neighborhood_attention
from dinat_ref.parallel import exchange as exchange_module
from dinat_ref.parallel import held as held_module
from dinat_ref.parallel.exchange import count_traffic
from dinat_ref.parallel.plan import Plan, even_split, received_bytes, share_heads
from dinat_ref.parallel.sharded import neighborhood_attention_sharded
from tests.attention.test_golden import CASES, load, where
from tests.attention.test_key_mask import drawn_mask
from tests.parallel.ranks import RankError, Ranks, mesh_of
from tests.strategies import Problem, problems, scattered

EXACT = {"rtol": 1e-12, "atol": 1e-12}
TOKENS = ("query", "key", "value")
WIDE = Problem(
    (24, 9), (5, 2), (2, 1), (2, 3), (False, True), heads=8, heads_kv=4, head_dim_v=2, rpb=True, extra=2, strided=True
)
CAUSAL = Problem((11,), (3,), (1,), (1,), (True,))


@dataclass(frozen=True)
class Split:
    """Which axes are split over a mesh, and into which shards."""

    axes: tuple[int, ...]
    sizes: tuple[tuple[int, ...], ...]
    how: str = "halo"
    masked: float | None = None  # the share of masked keys

    @property
    def mesh(self) -> tuple[int, ...]:
        return tuple(map(len, self.sizes))

    def own(self, layout: tuple[int, ...], place: tuple[int, ...]) -> list[slice]:
        """The index of a rank's shard in [B, *layout, ...]."""
        index = [slice(None)] * (1 + len(layout))
        for axis, sizes, rank in zip(self.axes, self.sizes, place, strict=True):
            index[1 + axis] = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        return index

    def join(self, shards: dict[tuple[int, ...], Tensor]) -> Tensor:
        """Put the shards of all ranks together."""
        for axis in reversed(self.axes):
            rows: dict[tuple[int, ...], list[Tensor]] = {}
            for place in sorted(shards):
                rows.setdefault(place[:-1], []).append(shards[place])
            shards = {place: torch.cat(row, 1 + axis) for place, row in rows.items()}
        return shards[()]


@st.composite
def splits(draw: st.DrawFn, lengths: tuple[int, ...], ways: tuple[str, ...] = ("halo", "heads", "auto")) -> Split:
    mesh = draw(st.sampled_from([(4,), (2,), (2, 2)] if len(lengths) > 1 else [(4,), (2,)]))
    axes = tuple(draw(st.permutations(range(len(lengths))))[: len(mesh)])
    sizes = []
    for axis, ranks in zip(axes, mesh, strict=True):
        cuts = sorted(draw(st.tuples(*[st.integers(0, lengths[axis])] * (ranks - 1))))
        sizes.append(tuple(stop - start for start, stop in itertools.pairwise((0, *cuts, lengths[axis]))))
    return Split(axes, tuple(sizes), draw(st.sampled_from(ways)), draw(st.sampled_from([None, None, 0.3])))


@st.composite
def sharded_problems(draw: st.DrawFn) -> tuple[Problem, Split]:
    problem = draw(problems())
    split = draw(splits(problem.layout))
    if split.how == "heads":
        heads, heads_kv = draw(st.sampled_from([(4, 4), (8, 4), (5, 5)]))
        problem = problem.but(heads=heads, heads_kv=heads_kv)
    return problem, split


def upstream(problem: Problem) -> tuple[Tensor, Tensor]:
    """Gradients of the output and of the lse."""
    generator = torch.Generator().manual_seed(problem.seed + 1)
    shape = (problem.batch, *problem.layout, problem.heads)
    output = torch.randn((*shape, problem.head_dim_v), generator=generator, dtype=torch.float64)
    return output, torch.randn(shape, generator=generator, dtype=torch.float64)


def attend(problem: Problem, split: Split) -> tuple[tuple[int, ...], dict[str, Any]]:
    """What a rank does: forward and backward with its shard; where it sits in the mesh, and all it has computed."""
    mesh = mesh_of(split.mesh)
    place = tuple(mesh.get_coordinate())
    own = tuple(split.own(problem.layout, place))
    tensors = problem.tensors()
    for name in TOKENS:
        tensors[name] = scattered(tensors[name][own]) if problem.strided else tensors[name][own].clone()
    tensors = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    mask = {} if split.masked is None else {"key_mask": drawn_mask(problem, split.masked)[own]}
    options: dict[str, Any] = {"mesh": mesh, "axis": split.axes, "how": split.how, "return_lse": True, **mask}
    with count_traffic() as traffic:
        results = neighborhood_attention_sharded(**tensors, **problem.where, scale=problem.scale, **options)
    return place, {**derived(results, tensors, [x[own] for x in upstream(problem)]), "received": traffic.received}


def derived(results: Any, tensors: dict[str, Tensor], gradients: list[Tensor]) -> dict[str, Any]:
    """Go backward; the results and the gradients of all tensors, as arrays."""
    kept = [result.detach().isfinite() for result in results]  # the lse of a query without keys has no gradient
    torch.autograd.backward(results, [torch.where(there, x, 0) for there, x in zip(kept, gradients, strict=True)])
    found = dict(zip(("output", "lse"), results, strict=True)) | {f"d_{n}": x.grad for n, x in tensors.items()}
    return {name: tensor.detach().numpy() for name, tensor in found.items()}


def whole(problem: Problem, split: Split) -> dict[str, Any]:
    """The same in one process."""
    tensors = problem.tensors(requires_grad=True)
    mask = {} if split.masked is None else {"key_mask": drawn_mask(problem, split.masked)}
    return derived(problem.attend("auto", tensors, **mask), tensors, list(upstream(problem)))


def check(problem: Problem, split: Split, answers: list[Any]) -> None:
    """Shards put together are the whole; what every rank has is the same on all."""
    for name, expected in whole(problem, split).items():
        shards = {place: torch.from_numpy(found[name]) for place, found in answers}
        is_split = name in ("output", "lse", *(f"d_{token}" for token in TOKENS))
        for tensor in [split.join(shards)] if is_split else shards.values():
            assert_close(tensor, torch.from_numpy(expected), **EXACT, msg=lambda text, name=name: f"{name}: {text}")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(sharded_problems())
@example((WIDE, Split((0,), ((9, 4, 0, 11),))))  # with an interior, an empty shard and windows over several ranks
@example((WIDE, Split((1, 0), ((4, 5), (12, 12)))))  # corners
@example((WIDE, Split((1, 0), ((4, 5), (12, 12)), "heads")))
@example((WIDE, Split((0, 1), ((0, 24), (9, 0)), "auto", 0.3)))
@example((CAUSAL, Split((0,), ((5, 6),))))  # the first rank sends, and needs nothing itself
@example((CAUSAL, Split((0,), ((1, 1, 1, 8),))))
def test_several_processes_compute_what_one_does(ranks: Ranks, drawn: tuple[Problem, Split]) -> None:
    problem, split = drawn
    check(problem, split, ranks.run(attend, problem, split))


@pytest.mark.parametrize("how", ["halo", "heads"])
@pytest.mark.parametrize("sizes", [(24, 0), (13, 11), (4, 4, 8, 8)])
def test_as_many_bytes_travel_as_planned(ranks: Ranks, how: str, sizes: tuple[int, ...]) -> None:
    split = Split((0,), (sizes,), how)
    received = [found["received"] for _, found in ranks.run(attend, WIDE.but(strided=False), split)]
    axis = [getattr(WIDE, name)[0] for name in ("kernel_size", "stride", "dilation", "is_causal")]
    head_dims = {"head_dim": WIDE.head_dim, "head_dim_v": WIDE.head_dim_v}
    planned = received_bytes(Plan(sizes, *axis), WIDE.heads, element_size=8, heads_kv=WIDE.heads_kv, **head_dims)
    lines = WIDE.batch * WIDE.layout[1]
    others = share_heads(WIDE.heads_kv, len(sizes))
    lse = [size * (WIDE.heads - 2 * own) * 8 for size, own in zip(sizes, others, strict=True)]  # goes back, too
    if how == "halo":
        assert max(received) == lines * planned["halo"]
    else:
        assert lines * (planned["heads"] + min(lse)) <= max(received) <= lines * (planned["heads"] + max(lse))


@given(problems(), st.integers(1, 9), st.data())
def test_one_process_computes_shards_in_turn(problem: Problem, shards: int, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(problem.layout) - 1))
    split = Split((), (), masked=data.draw(st.sampled_from([None, 0.3])))
    tensors = problem.tensors(requires_grad=True)
    mask = {} if split.masked is None else {"key_mask": drawn_mask(problem, split.masked)}
    options: dict[str, Any] = {"axis": axis, "how": "stream", "shards": shards, "return_lse": True, **mask}
    results = neighborhood_attention_sharded(**tensors, **problem.where, scale=problem.scale, **options)
    found = derived(results, tensors, list(upstream(problem)))
    for name, expected in whole(problem, split).items():
        assert_close(found[name], expected, **EXACT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"how": "stream"}, "shards go with how='stream', and no mesh, got None, 'stream' and None"),
        ({"shards": 2}, "shards go with how='stream', and no mesh, got 2, 'auto' and None"),
        ({"how": "stream", "shards": 0}, r"shards at least 1, and axis one in 0 \.\. 1, got 0 and 0"),
        ({"how": "stream", "shards": 2, "axis": 2}, r"axis one in 0 \.\. 1, got 2 and 2"),
    ],
)
def test_a_stream_is_cut_into_shards(options: dict, message: str) -> None:
    x = torch.zeros(1, 4, 5, 1, 2)
    with pytest.raises(ValueError, match=message):
        neighborhood_attention_sharded(x, x, x, 3, **options)


def counted_twice() -> tuple[int, int]:
    """What an inner and an outer block count of two calls, of which the inner one is the first."""
    mesh = mesh_of((4,))
    x = torch.zeros(1, 3, 1, 2)
    with count_traffic() as outer:
        with count_traffic() as inner:
            neighborhood_attention_sharded(x, x, x, 3, mesh=mesh, how="halo")
        neighborhood_attention_sharded(x, x, x, 3, mesh=mesh, how="halo")
    return inner.messages, outer.messages


def test_blocks_that_count_may_be_nested(ranks: Ranks) -> None:
    assert ranks.run(counted_twice) == [(1, 2)] * 4


def forgetful(problem: Problem, split: Split, what: str) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Ranks that make a mistake."""
    with pytest.MonkeyPatch.context() as patch:
        if what == "gradients stay abroad":
            away = exchange_module._AllToAll.backward
            patch.setattr(exchange_module._AllToAll, "backward", lambda *args: (0 * away(*args)[0], None))
        elif what == "sums are own":
            patch.setattr(exchange_module._Sum, "forward", lambda ctx, groups, *tensors: tensors)
        elif what == "keys are shifted":
            wait = held_module.HaloExchange.wait
            patch.setattr(held_module.HaloExchange, "wait", lambda self: rolled(wait(self)))
        return attend(problem, split)


def rolled(held: held_module.Held) -> held_module.Held:
    """What was received, a token too far."""
    pieces = [[tensor.roll(1, held.dim) for tensor in tensors] for tensors in held.pieces]
    return held_module.Held(held.dim, held.positions, pieces)


@pytest.mark.parametrize("what", ["nothing", "gradients stay abroad", "sums are own", "keys are shifted"])
def test_mistakes_are_noticed(ranks: Ranks, what: str) -> None:
    """The check of these tests rejects exchanges that go wrong."""
    split = Split((0,), ((9, 4, 0, 11),))
    answers = ranks.run(forgetful, WIDE, split, what)
    if what == "nothing":
        check(WIDE, split, answers)
    else:
        with pytest.raises(AssertionError):
            check(WIDE, split, answers)


def golden(case: int) -> None:
    """A golden case on four ranks, some of the first axis each: output and gradients."""
    meta, tensors = load("natten017.npz")[case]
    mesh = mesh_of((4,))
    names = ["q", "k", "v", *(["rpb"] if meta["rpb"] else [])]
    sizes = even_split(tensors["q"].shape[1], 4)
    start = sum(sizes[: mesh.get_rank()])
    own = slice(start, start + sizes[mesh.get_rank()])
    inputs = [tensors[name][:, own] if name != "rpb" else tensors[name] for name in names]
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    rpb = inputs[3] if meta["rpb"] else None
    output = neighborhood_attention_sharded(*inputs[:3], **where(meta), rpb=rpb, mesh=mesh)
    gradients = torch.autograd.grad(output, inputs, tensors["go"][:, own])
    assert_close(output.detach(), tensors["out"][:, own], rtol=0, atol=1e-10)
    for name, gradient in zip(names, gradients, strict=True):
        expected = tensors["d" + name] if name == "rpb" else tensors["d" + name][:, own]
        assert_close(gradient, expected, rtol=0, atol=1e-10, msg=lambda text, name=name: f"d{name}: {text}")


def test_golden_vectors_of_a_real_kernel(ranks: Ranks, count_cases: Callable[[str, int], None]) -> None:
    for case in range(CASES):
        ranks.run(golden, case)
        count_cases("golden cases", 1)


def on_dtensors(problem: Problem) -> dict[str, Any]:
    """The batch and the tokens are split over a mesh of 2 x 2; the whole of what comes out."""
    mesh = mesh_of((2, 2))
    placements = [Shard(0), Shard(1)]
    tensors = {}
    for name, tensor in problem.tensors().items():
        placed = [Replicate(), Replicate()] if name == "rpb" else [Shard(0), Replicate()]
        placed = placements if name in TOKENS else placed
        tensors[name] = distribute_tensor(tensor, mesh, placed, src_data_rank=None).requires_grad_()
    results = neighborhood_attention_sharded(**tensors, **problem.where, scale=problem.scale, return_lse=True)
    gradients = [distribute_tensor(x, mesh, placements, src_data_rank=None) for x in upstream(problem)]
    torch.autograd.backward(results, gradients)
    assert all(isinstance(x, DTensor) and list(x.placements) == placements for x in results)
    found = dict(zip(("output", "lse"), results, strict=True)) | {f"d_{n}": x.grad for n, x in tensors.items()}
    return {name: tensor.full_tensor().detach().numpy() for name, tensor in found.items()}


def test_dtensors_on_a_mesh_that_splits_the_batch_too(ranks: Ranks) -> None:
    expected = whole(WIDE, Split((), ()))
    for found in ranks.run(on_dtensors, WIDE):
        for name, tensor in expected.items():
            assert_close(found[name], tensor, **EXACT, msg=lambda text, name=name: f"{name}: {text}")


def second_derivatives(sharded: bool) -> list[Any]:
    """The gradients of the squared gradients, of all tokens or of a rank's."""
    tensors = WIDE.tensors()
    own = slice(None)
    if sharded:
        mesh = mesh_of((4,))
        own = slice(6 * mesh.get_rank(), 6 * mesh.get_rank() + 6)
    inputs = [tensors[name][:, own].clone().requires_grad_() for name in TOKENS]
    attention = neighborhood_attention_sharded if sharded else neighborhood_attention
    options = {"mesh": mesh, "how": "halo"} if sharded else {}
    output = attention(*inputs, **WIDE.where, **options)
    first = torch.autograd.grad(output.square().sum(), inputs, create_graph=True)
    return [x.numpy() for x in torch.autograd.grad(sum(x.square().sum() for x in first), inputs)]


def test_second_derivatives(ranks: Ranks) -> None:
    found = ranks.run(second_derivatives, True)
    for number, expected in enumerate(second_derivatives(False)):
        joined = torch.cat([torch.from_numpy(shard[number]) for shard in found], 1)
        assert_close(joined, torch.from_numpy(expected), rtol=1e-11, atol=1e-11)


def refusal(changes: dict[str, Any], on_rank: int, axis: Any = 0, how: str = "halo") -> str:
    """What a rank says when one of them passes something else."""
    mesh = mesh_of((4,))
    x = torch.zeros(1, 3, 5, 4, 2)
    arguments: dict[str, Any] = {"query": x, "key": x, "value": x, "kernel_size": 3, "axis": axis, "how": how}
    if mesh.get_rank() == on_rank or on_rank < 0:
        arguments |= changes
    try:
        neighborhood_attention_sharded(**arguments, mesh=mesh)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel_size": 5}, "ranks disagree about kernel_size: 3 on rank 0, 5 on rank 2"),
        ({"how": "heads"}, "ranks disagree about how: halo on rank 0, heads on rank 2"),
        ({"scale": 2.0}, "ranks disagree about scale: None on rank 0, 2.0 on rank 2"),
        ({"return_lse": True}, "ranks disagree about return_lse: False on rank 0, True on rank 2"),
        (
            {name: torch.zeros(1, 3, 6, 4, 2) for name in TOKENS},
            "ranks disagree about query: torch.float32 [1, shard, 5, 4, 2] without gradient on rank 0, "
            "torch.float32 [1, shard, 6, 4, 2] without gradient on rank 2",
        ),
        ({"rpb": torch.zeros(4, 5, 5)}, "ranks disagree about rpb: None on rank 0, torch.float32 [4, 5, 5] without"),
        ({"query": torch.zeros(1, 3, 5, 4, 2).requires_grad_()}, "ranks disagree about query: torch.float32"),
    ],
)
def test_a_rank_that_disagrees_is_an_error_on_every_rank(ranks: Ranks, changes: dict, message: str) -> None:
    for text in ranks.run(refusal, changes, 2):
        assert text.startswith(f"ValueError: {message}")


def test_an_error_of_one_rank_is_told_to_all(ranks: Ranks) -> None:
    own = "query must be a tensor, got NoneType"
    texts = ranks.run(refusal, {"query": None}, 1)
    assert texts[1] == f"TypeError: {own}"
    assert [texts[rank] for rank in (0, 2, 3)] == [f"ValueError: rank 1 refused its arguments: TypeError: {own}"] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"kernel_size": 6},
            "ValueError: kernel_size * dilation on axis 1 must be at most the length of the axis: 6 * 1 = 6 > 5",
        ),
        (
            {"axis": 2},
            "ValueError: axis must name different axes in 0 .. 1, one for each of 1 mesh dimensions, got (2,)",
        ),
        ({"axis": (0, 1)}, "ValueError: axis must name different axes in 0 .. 1, one for each of 1 mesh dimensions"),
        ({"how": "ring"}, "ValueError: how must be one of auto, halo, heads, got 'ring'"),
        ({"key": torch.zeros(1, 2, 5, 4, 2)}, "ValueError: key must have query's shard (3, 5), got (1, 2, 5, 4, 2)"),
        ({"rpb": torch.zeros(4, 3, 3)}, "ValueError: rpb must have query's heads, then 2 * kernel_size - 1 per axis"),
        (
            {name: torch.zeros(1, 3, 5, 2, 2) for name in TOKENS} | {"how": "heads"},
            "ValueError: how='heads' needs a head of keys for each of 4 ranks, got 2",
        ),
    ],
)
def test_illegal_arguments_are_refused_by_all(ranks: Ranks, changes: dict, message: str) -> None:
    for text in ranks.run(refusal, changes, -1):
        assert text.startswith(message), text


def ragged() -> str:
    """Shards that are no grid."""
    mesh = mesh_of((2, 2))
    x = torch.zeros(1, 4 if tuple(mesh.get_coordinate()) == (0, 1) else 3, 3, 1, 2)
    try:
        neighborhood_attention_sharded(x, x, x, 3, mesh=mesh, axis=(0, 1))
    except ValueError as error:
        return str(error)
    return "no error"


def test_shards_must_be_a_grid(ranks: Ranks) -> None:
    message = "shards must form a grid: tokens of mesh dimension 0 by rank are [[3, 4], [3, 3]]"
    assert ranks.run(ragged) == [message] * 4


def fail_on(rank: int, deadly: bool) -> None:
    """One rank fails before the others hear of it."""
    if torch.distributed.get_rank() == rank:
        if deadly:
            os._exit(3)
        raise RuntimeError("this rank is out of memory")
    torch.distributed.barrier()


@pytest.mark.parametrize("deadly", [False, True])
def test_a_rank_that_fails_ends_the_test_with_its_traceback(deadly: bool) -> None:
    two = Ranks(2)
    with pytest.raises(RankError, match="rank 1: it died with exit code 3" if deadly else "rank is out of memory"):
        two.run(fail_on, 1, deadly)
    assert not two.processes


def test_ranks_that_hang_end_the_test() -> None:
    one = Ranks(1, patience=0.5)
    with pytest.raises(RankError, match=r"nothing was heard of ranks \[0\]"):
        one.run(time.sleep, 60)
