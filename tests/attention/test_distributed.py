"""DTensors, DDP and FSDP2: several processes compute what one does, outputs and gradients of everything."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_module, distribute_tensor
from torch.testing import assert_close

from dinat_ref import NeighborhoodAttention1D, NeighborhoodAttention2D, neighborhood_av, neighborhood_qk
from dinat_ref import neighborhood_weights as weights_of
from dinat_ref.models import DiNAT, DinatConfig
from dinat_ref.models.layers import DropPath
from tests.parallel.ranks import RankError, Ranks, mesh_of
from tests.strategies import FAST_IMPLS, IMPLS, Problem

EXACT = {"rtol": 1e-12, "atol": 1e-12}
SIZES = {"batch": 4, "heads": 8, "heads_kv": 4, "head_dim": 3, "head_dim_v": 2}
PROBLEM = Problem((7, 9), (3, 2), (1, 2), (2, 1), (False, True), rpb=True, extra=2, **SIZES)
HEADS = len(PROBLEM.layout) + 1
PLACES: dict[str, tuple[Placement, ...]] = {
    "replicated": (Replicate(),),
    "batch": (Shard(0),),
    "heads": (Shard(HEADS),),
    "batch and heads": (Shard(0), Shard(HEADS)),
    "batch twice": (Shard(0), Shard(0)),
    "a layout is gathered": (Shard(1),),
}
NEWER = pytest.mark.skipif(
    tuple(int(number) for number in torch.__version__.split(".")[:2]) < (2, 13),
    reason="DTensors of older PyTorch, 2.7 as seen, cannot unbind, convolve with a stride or be cut twice",
)


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    group = Ranks(4)
    yield group
    group.stop()


def whole(tensor: Any) -> Tensor:
    assert isinstance(tensor, DTensor)
    return tensor.full_tensor()


def placed(name: str, tensor: Tensor, place: Placement) -> Placement:
    """Where an operand goes when query goes to a place."""
    if not isinstance(place, Shard) or name == "query":
        return place
    if place.dim == 0:
        return Replicate() if name == "rpb" else Shard(0)
    if place.dim == HEADS and name != "key_mask":
        return Shard(0 if name == "rpb" else tensor.ndim - 2)
    return Replicate()


def on_mesh(tensors: dict[str, Tensor], places: tuple[Placement, ...]) -> dict[str, Tensor]:
    """The tensors as leaves on a mesh of two processes a dimension."""
    mesh = mesh_of((2,) * len(places))
    return {
        name: distribute_tensor(
            tensor.detach(), mesh, [placed(name, tensor, place) for place in places]
        ).requires_grad_(tensor.requires_grad)
        for name, tensor in tensors.items()
    }


def check_operator(impl: str, name: str) -> None:
    tensors = PROBLEM.tensors(requires_grad=True)
    mask = torch.rand(4, *PROBLEM.layout, generator=torch.Generator().manual_seed(0)) < 0.8
    expected = PROBLEM.attend(impl, tensors, key_mask=mask)
    (expected[0].sin().sum() + expected[1].nan_to_num(neginf=0.0).cos().sum()).backward()
    shared = on_mesh({**tensors, "key_mask": mask}, PLACES[name])
    found = PROBLEM.attend(impl, shared)
    (found[0].sin().sum() + found[1].nan_to_num(neginf=0.0).cos().sum()).backward()
    assert_close(tuple(map(whole, found)), expected, **EXACT)
    if "batch" in name or "heads" in name:
        assert isinstance(found[0], DTensor)
        assert found[0].placements == PLACES[name]  # nothing was gathered
    for operand, tensor in tensors.items():
        assert_close(whole(shared[operand].grad), tensor.grad, **EXACT)


@pytest.mark.parametrize("name", [pytest.param(name, marks=NEWER if len(PLACES[name]) > 1 else ()) for name in PLACES])
def test_dtensors_of_every_placement(name: str, ranks: Ranks) -> None:
    for impl in IMPLS if name == "batch" else FAST_IMPLS:
        ranks.run(check_operator, impl, name)


def check_partial_sums() -> None:
    """As a linear layer leaves them that is cut along its inputs: all processes add up to query."""
    tensors = PROBLEM.tensors(requires_grad=True)
    expected = PROBLEM.attend("auto", tensors)[0]
    expected.sin().sum().backward()
    shared = on_mesh(tensors, (Replicate(),))
    part = (tensors["query"].detach() / 2).requires_grad_()
    shared["query"] = DTensor.from_local(part, mesh_of((2,)), [Partial()])
    found = PROBLEM.attend("auto", shared)[0]
    found.sin().sum().backward()
    assert_close(whole(found), expected, **EXACT)
    assert_close(part.grad, tensors["query"].grad, **EXACT)


def test_partial_sums_are_added_up(ranks: Ranks) -> None:
    ranks.run(check_partial_sums)


def check_halves(name: str) -> None:
    tensors = PROBLEM.but(rpb=False, extra=None, heads_kv=8).tensors(requires_grad=True)
    shared = on_mesh(tensors, PLACES[name])

    def attend(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        scores = neighborhood_qk(query, key, **PROBLEM.where)
        return (
            scores,
            weights_of(query, key, **PROBLEM.where),
            neighborhood_av(scores.softmax(-1), value, **PROBLEM.where),
        )

    expected, found = attend(**tensors), attend(**shared)
    assert_close(tuple(map(whole, found)), expected, **EXACT)
    for results in (expected, found):
        (results[1].sin().sum() + results[2].cos().sum()).backward()
    for operand, tensor in tensors.items():
        assert_close(whole(shared[operand].grad), tensor.grad, **EXACT)


@pytest.mark.parametrize("name", ["replicated", "batch", "heads", "a layout is gathered"])
def test_scores_weights_and_sums_of_dtensors(name: str, ranks: Ranks) -> None:
    ranks.run(check_halves, name)


def check_errors() -> None:
    mesh, other = mesh_of((2,)), mesh_of((4,))
    x = torch.zeros(4, 9, 2, 4)
    shared = distribute_tensor(x, mesh, [Shard(0)])
    attend = Problem((9,), (3,), (1,), (1,), (False,)).attend
    with pytest.raises(TypeError, match=r"^key must be a DTensor as others are, e\.g\. distribute_tensor\(key, mesh"):
        attend("auto", {"query": shared, "key": x, "value": shared})
    with pytest.raises(TypeError, match=r"^query must be a DTensor as others are"):
        attend("auto", {"query": x, "key": shared, "value": shared})
    with pytest.raises(ValueError, match=r"^value must be on the others' mesh"):
        attend("auto", {"query": shared, "key": shared, "value": distribute_tensor(x, other, [Shard(0)])})
    with pytest.raises(ValueError, match=r"^key must have query's batch, layout and head_dim"):
        attend("auto", {"query": shared, "key": distribute_tensor(x[..., :3], mesh, [Shard(0)]), "value": shared})


def test_what_does_not_go_together_is_said(ranks: Ranks) -> None:
    ranks.run(check_errors)


def heads_that_cannot_be_shared() -> None:
    """Two query heads of one key head: with a process each, both would need the key head."""
    problem = Problem((9,), (3,), (1,), (1,), (False,), batch=3, heads=2, heads_kv=1)
    tensors = problem.tensors()
    mesh = mesh_of((2,))
    shared = {
        name: distribute_tensor(x, mesh, [Shard(2) if name == "query" else Replicate()]) for name, x in tensors.items()
    }
    assert_close(whole(problem.attend("auto", shared)[0]), problem.attend("auto", tensors)[0], **EXACT)
    uneven = {name: distribute_tensor(x, mesh, [Shard(0)]) for name, x in tensors.items()}  # 2 items and 1
    assert_close(whole(problem.attend("auto", uneven)[0]), problem.attend("auto", tensors)[0], **EXACT)


def test_uneven_shares(ranks: Ranks) -> None:
    ranks.run(heads_that_cannot_be_shared)


def layer() -> nn.Module:
    torch.manual_seed(1)
    return NeighborhoodAttention2D(12, num_heads=2, kernel_size=3, dilation=2, rpb=True).double()


def model() -> nn.Module:
    torch.manual_seed(1)
    config = DinatConfig(
        embed_dim=8,
        depths=[1, 2],
        num_heads=[1, 2],
        kernel_size=3,
        dilations=[[2], [1, 2]],
        num_labels=3,
        drop_path_rate=0.0,
    )
    return DiNAT(config).double()


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "layer": (layer, (4, 7, 8, 12)),
    "model": (model, (4, 3, 40, 36)),
}


def batch_of(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    found = {name.removeprefix("module."): parameter.grad for name, parameter in module.named_parameters()}
    return {name: x.full_tensor() if isinstance(x, DTensor) else x for name, x in found.items() if x is not None}


def expected_of(name: str) -> tuple[Tensor, dict[str, Tensor]]:
    make, shape = MODULES[name]
    module = make()
    output = module(batch_of(shape))
    output.sin().mean().backward()
    return output.detach(), gradients(module)


def check_module_of_dtensors(name: str, place: Placement) -> None:
    make, shape = MODULES[name]
    mesh = mesh_of((2,))
    module = distribute_module(make(), mesh)
    output = module(distribute_tensor(batch_of(shape), mesh, [place]))
    output.sin().mean().backward()
    expected, expected_gradients = expected_of(name)
    assert_close(whole(output), expected, **EXACT)
    assert_close(gradients(module), expected_gradients, **EXACT)


@NEWER
@pytest.mark.parametrize("place", [Replicate(), Shard(0)], ids=["replicated", "batch"])
@pytest.mark.parametrize("name", MODULES)
def test_layers_and_models_of_dtensors(name: str, place: Placement, ranks: Ranks) -> None:
    ranks.run(check_module_of_dtensors, name, place)


def check_drop_path(place: Placement) -> None:
    torch.manual_seed(3)
    x = distribute_tensor(torch.ones(16, 3, dtype=torch.float64), mesh_of((2,)), [place])
    kept = whole(DropPath(0.5)(x))
    assert set(kept[:, 0].tolist()) == {0.0, 2.0}
    assert_close(kept, kept[:, :1].expand(-1, 3))


@pytest.mark.parametrize("place", [Replicate(), Shard(0)], ids=["replicated", "batch"])
def test_whole_samples_of_dtensors_are_dropped(place: Placement, ranks: Ranks) -> None:
    ranks.run(check_drop_path, place)


def own_part(x: Tensor) -> Tensor:
    return x.chunk(dist.get_world_size())[dist.get_rank()]


def check_ddp(name: str) -> None:
    make, shape = MODULES[name]
    module = nn.parallel.DistributedDataParallel(make())
    output = module(own_part(batch_of(shape)))
    output.sin().mean().backward()
    expected, expected_gradients = expected_of(name)
    assert_close(output, own_part(expected), **EXACT)
    assert_close(gradients(module), expected_gradients, **EXACT)


@pytest.mark.parametrize("name", MODULES)
def test_ddp(name: str, ranks: Ranks) -> None:
    """The mean over processes of the gradients of a mean is that of the whole batch."""
    ranks.run(check_ddp, name)


def check_fsdp(name: str) -> None:
    from torch.distributed.fsdp import fully_shard

    make, shape = MODULES[name]
    module = make()
    mesh = mesh_of((4,))
    for part in module.modules():
        if isinstance(part, (NeighborhoodAttention1D, NeighborhoodAttention2D)) and part is not module:
            fully_shard(part, mesh=mesh)
    fully_shard(module, mesh=mesh)
    output = module(own_part(batch_of(shape)))
    output.sin().mean().backward()
    expected, expected_gradients = expected_of(name)
    assert_close(output, own_part(expected), **EXACT)
    assert_close(gradients(module), expected_gradients, **EXACT)


@pytest.mark.parametrize("name", MODULES)
def test_fsdp2(name: str, ranks: Ranks) -> None:
    ranks.run(check_fsdp, name)


def forget_the_bias() -> None:
    """What replicated operands have of a shared batch is a part of their gradient: without that it would be wrong."""
    from dinat_ref.attention import distributed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "WITHOUT_BATCH", ())
        check_operator("tiled", "batch")


def test_a_wrong_sharing_would_be_seen(ranks: Ranks) -> None:
    with pytest.raises(RankError):
        ranks.run(forget_the_bias)
