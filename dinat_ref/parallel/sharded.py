"""Neighborhood attention whose tokens are split over ranks: exact for every window.

Each rank owns a shard of one or more token axes and computes the outputs of its own queries, each once. What it needs
of the others comes in one of two ways, an axis each:

    halo     the keys and values that its windows reach, exactly those (``dinat_ref.parallel.plan``); queries whose
             windows lie in the shard are computed while the others' keys are under way
    heads    all tokens of the axis, for a part of the heads; outputs go back

The loss of a run is the sum of the losses that the ranks call ``backward`` with, and all ranks call it. Gradients of
query, key and value come to the rank that owns the tokens, those of rpb, the additional keys and values and scale are
summed over the ranks: every rank has all of them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from dinat_ref.attention import neighborhood_attention_part
from dinat_ref.parallel.checked import BY_TOKENS, Split, check_whole, checked_call, facts_of, shards_of
from dinat_ref.parallel.exchange import replicate
from dinat_ref.parallel.header import agree
from dinat_ref.parallel.plan import Plan, even_split
from dinat_ref.window import check_integer


def neighborhood_attention_sharded(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
    scale: float | Tensor | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    *,
    rpb: Tensor | None = None,
    key_mask: Tensor | None = None,
    return_lse: bool = False,
    mesh: DeviceMesh | None = None,
    axis: int | Sequence[int] = 0,
    how: str = "auto",
    shards: int | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Neighborhood attention over tokens that are split over the ranks of a mesh, all of which call it.

    Shapes:
        query:  [B, *shard, H, D], the rank's shard of the layout; shards may differ in size, and be empty
        key:    [B, *shard, Hkv, D]
        value:  [B, *shard, Hkv, Dv]
        additional_keys, additional_values: [B, M, Hkv, D], [B, M, Hkv, Dv], the same on every rank
        rpb:    [H, 2 * kernel_size - 1, ...], the same on every rank
        key_mask: bool [B, *shard]
        return: [B, *shard, H, Dv], with return_lse a pair of it and the lse [B, *shard, H]
        or DTensors of the whole shapes, for query, key and value and what is returned
    Args:
        mesh: the ranks; a dimension for each split axis. DTensors bring their own.
        axis: which token axis each dimension of the mesh splits, 0 the first one, in the order of its ranks. DTensors
            say it by ``Shard(axis + 1)``; mesh dimensions that do not split tokens may split the batch.
        how: "halo", "heads" or "auto", which takes the way that brings the busiest rank fewer bytes, axis by axis.
            Why is logged ("dinat_ref.parallel", INFO) and told by ``choose_way``.
            "stream" needs no mesh: one process computes one shard of ``axis`` after the other.
        shards: how many for "stream"; a file that is mapped into memory is read as far as each needs it.
        Others as ``neighborhood_attention``.
    Raises:
        TypeError, ValueError: as ``neighborhood_attention``, on every rank; the ranks disagree about any argument.
    Cost: bytes by ``python -m dinat_ref.parallel.plan``; twice that again in the backward pass at most.
    Example:
        >>> import tempfile
        >>> import torch.distributed as dist
        >>> with tempfile.TemporaryDirectory() as folder:  # a run of one rank; torchrun starts more
        ...     dist.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=0, world_size=1)
        ...     mesh = dist.init_device_mesh("cpu", (1,))
        ...     x = torch.arange(5.).reshape(1, 5, 1, 1)
        ...     print(neighborhood_attention_sharded(torch.zeros_like(x), x, x, kernel_size=3, mesh=mesh).flatten())
        ...     dist.destroy_process_group()
        tensor([1., 1., 2., 3., 3.])
    """
    shared = {"scale": scale, "rpb": rpb, "additional_keys": additional_keys, "additional_values": additional_values}
    tensors = {"query": query, "key": key, "value": value, "key_mask": key_mask, **shared}
    where = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation, "is_causal": is_causal}
    options = {"how": how, "return_lse": return_lse}
    if how == "stream" or shards is not None:
        found = _in_turn(tensors, where, axis, shards, mesh, options)
    elif isinstance(query, DTensor):
        found = _on_dtensors(tensors, where, options)
    elif isinstance(mesh, DeviceMesh):
        axes = (axis,) if isinstance(axis, int) else tuple(axis)
        groups = [mesh.get_group(dim) for dim in range(mesh.ndim)]
        found = _on_shards(tensors, Split(groups, axes, mesh.device_type), where, options)
    else:
        raise TypeError(f"mesh must be a DeviceMesh where query is no DTensor, got {mesh!r}")
    output, *lse = found
    return (output, lse[0]) if lse else output


def _in_turn(
    tensors: dict[str, Any], where: dict[str, Any], axis: Any, shards: Any, mesh: Any, options: dict[str, Any]
) -> tuple[Tensor, ...]:
    """Compute one shard after the other, in one process that has them all."""
    if options["how"] != "stream" or mesh is not None or shards is None:
        raise ValueError(f"shards go with how='stream', and no mesh, got {shards!r}, {options['how']!r} and {mesh!r}")
    neighborhood = check_whole(tensors, (), [], where)
    if check_integer("shards", shards) < 1 or check_integer("axis", axis) not in range(neighborhood.ndim):
        limits = f"shards at least 1, and axis one in 0 .. {neighborhood.ndim - 1}"
        raise ValueError(f"{limits}, got {shards} and {axis}")
    plan = Plan(even_split(neighborhood.layout[axis], shards), *neighborhood.axes[axis][1:])
    whole, found = neighborhood.part(), []
    for shard in filter(None, plan.shards):
        box = [*whole[:axis], shard, *whole[axis + 1 :]]
        reach = neighborhood.reach(box)
        rows = {"query": shard, "key": reach[axis], "value": reach[axis], "key_mask": reach[axis]}
        at_hand = {name: tensor for name, tensor in tensors.items() if name in rows and tensor is not None}
        near = {name: x.narrow(1 + axis, rows[name].start, len(rows[name])) for name, x in at_hand.items()}
        starts = {"query_start": [queries.start for queries in box]}
        starts["key_start"] = [keys.start if number == axis else 0 for number, keys in enumerate(reach)]
        place: dict[str, Any] = {"layout": neighborhood.layout, **starts, "return_lse": options["return_lse"]}
        part = neighborhood_attention_part(**{**tensors, **near}, **where, **place)
        found.append(part if isinstance(part, tuple) else (part,))
    return tuple(torch.cat(pieces, 1 + axis) for pieces in zip(*found, strict=True))


def _on_dtensors(tensors: dict[str, Any], where: dict[str, Any], options: dict[str, Any]) -> tuple[Tensor, ...]:
    """Unwrap DTensors, attend on the mesh dimensions that split tokens, and wrap what comes out."""
    query, value = tensors["query"], tensors["value"]
    mesh, placements, last = query.device_mesh, query.placements, query.ndim - 3
    for name in ("key", "value"):
        tensor = tensors[name]
        if not isinstance(tensor, DTensor) or tensor.device_mesh != mesh or tensor.placements != placements:
            raise ValueError(f"{name} must be a DTensor on query's mesh, placed as query is: {placements}")
    places = {dim: placed.dim for dim, placed in enumerate(placements) if isinstance(placed, Shard)}
    axes = {dim: place - 1 for dim, place in places.items() if place > 0}
    others = [placed for dim, placed in enumerate(placements) if dim not in places]
    if not axes or max(places.values()) > last or not all(placed.is_replicate() for placed in others):
        raise ValueError(f"query must be split by tokens, Shard(1) .. Shard({last}), got {placements}")
    of_batch = [Partial() if placed == Shard(0) else Replicate() for placed in placements]
    local = dict(tensors)
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):  # gradients of what the whole batch has in common are not summed over it here
            local[name] = tensor.to_local(grad_placements=of_batch if name in ("rpb", "scale") else None)
    split = Split([mesh.get_group(dim) for dim in axes], tuple(axes.values()), mesh.device_type)
    shapes = [(*query.shape[:-1], value.shape[-1]), tuple(query.shape[:-1])]
    return tuple(
        DTensor.from_local(
            found.contiguous(),
            mesh,
            placements,
            shape=torch.Size(shape),
            stride=torch.empty(shape, device="meta").stride(),
        )
        for found, shape in zip(_on_shards(local, split, where, options), shapes, strict=False)  # maybe no lse
    )


def _on_shards(
    tensors: dict[str, Any], split: Split, where: dict[str, Any], options: dict[str, Any]
) -> tuple[Tensor, ...]:
    """Compare notes with the other ranks, check the whole problem, and attend."""
    error, facts, sizes = None, {}, [0] * len(split.axes)
    try:
        facts = facts_of(tensors, split, where, options)
        sizes = [tensors["query"].shape[1 + axis] for axis in split.axes]
    except (TypeError, ValueError) as refused:
        error = refused
    shards = shards_of(agree(split.groups, split.device_type, facts, sizes, error))
    common = {name: x for name, x in tensors.items() if isinstance(x, Tensor) and name not in BY_TOKENS}
    learned = {name: x for name, x in common.items() if x.requires_grad}
    replicas = replicate(list(learned.values()), split.groups)
    call = checked_call({**tensors, **dict(zip(learned, replicas, strict=True))}, split, shards, where, options)
    return call.attend(*(tensors[name] for name in BY_TOKENS))
