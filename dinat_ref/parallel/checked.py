"""What is known before a token moves: the facts to agree about, the whole problem, and the way of each split axis."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dinat_ref.attention.operands import check_dense, check_layout, prepare
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.parallel.attend import Call, Stage
from dinat_ref.parallel.plan import Plan, received_bytes, share_heads

WAYS = ("auto", "halo", "heads")
BY_TOKENS = ("query", "key", "value", "key_mask")  # what is split; the ranks have the rest in common
LOG = logging.getLogger("dinat_ref.parallel")


@dataclass(frozen=True)
class Split:
    """The ranks that split tokens: a group for each split axis, and the kind of device they use."""

    groups: list[dist.ProcessGroup]
    axes: tuple[int, ...]
    device_type: str


def facts_of(
    tensors: dict[str, Any], split: Split, where: dict[str, Any], options: dict[str, Any]
) -> dict[str, object]:
    """List what all ranks must agree about; checked is only what no other rank can see.

    Raises:
        TypeError, ValueError: query, key, value and mask are not one shard's; an axis or a way that there is not.
    """
    layout, axes, count = check_layout(tensors["query"]), split.axes, len(split.groups)
    if options["how"] not in WAYS:
        raise ValueError(f"how must be one of {', '.join(WAYS)}, got {options['how']!r}")
    if len(axes) != count or len(set(axes)) != count or not all(axis in range(len(layout)) for axis in axes):
        limits = f"different axes in 0 .. {len(layout) - 1}, one for each of {count} mesh dimensions"
        raise ValueError(f"axis must name {limits}, got {axes}")
    for name in ("key", "value"):
        if check_layout(tensors[name], name=name) != layout:
            raise ValueError(f"{name} must have query's shard {layout}, got {tuple(tensors[name].shape)}")
    if (mask := tensors["key_mask"]) is not None:
        check_dense("key_mask", mask)
        if tuple(mask.shape[1:]) != layout:
            raise ValueError(f"key_mask must have query's shard {layout}, got {tuple(mask.shape)}")
    facts: dict[str, object] = {"axis": axes, "gradients": torch.is_grad_enabled(), **options, **where}
    for name, tensor in tensors.items():
        facts[name] = tensor
        if isinstance(tensor, Tensor):
            shape: list[object] = list(tensor.shape)
            for axis in axes if name in BY_TOKENS else ():
                shape[1 + axis] = "shard"
            gradient = "with" if tensor.requires_grad else "without"
            facts[name] = f"{tensor.dtype} [{', '.join(map(str, shape))}] {gradient} gradient"
    return facts


def shards_of(sizes: Tensor) -> list[tuple[int, ...]]:
    """Read off the shards of each mesh dimension.

    Shapes:
        sizes: int64 [*mesh, dimensions of the mesh]
    Raises:
        ValueError: the shards are no grid.
    Example:
        >>> shards_of(torch.tensor([[4], [0], [5]]))
        [(4, 0, 5)]
    """
    found = []
    for dim in range(sizes.shape[-1]):
        rows = sizes[..., dim].movedim(dim, 0).reshape(sizes.shape[dim], -1)  # [ranks of this dimension, all others]
        if not bool((rows == rows[:, :1]).all()):
            raise ValueError(f"shards must form a grid: tokens of mesh dimension {dim} by rank are {rows.tolist()}")
        found.append(tuple(rows[:, 0].tolist()))
    return found


def checked_call(
    tensors: dict[str, Any], split: Split, shards: list[tuple[int, ...]], where: dict[str, Any], options: dict[str, Any]
) -> Call:
    """Check the whole problem as one process would, without its numbers: all ranks come to the same verdict.

    Raises:
        TypeError, ValueError: as ``neighborhood_attention``; heads that cannot be split.
    """
    neighborhood = check_whole(tensors, split.axes, shards, where)
    query, key, value = (tensors[name] for name in ("query", "key", "value"))
    heads_kv, group_size, stages = key.shape[-2], query.shape[-2] // key.shape[-2], []
    how = options["how"]
    for group, axis, sizes in zip(split.groups, split.axes, shards, strict=True):
        plan = Plan(sizes, *neighborhood.axes[axis][1:])
        numbers = (group_size * heads_kv, query.shape[-1], query.element_size(), heads_kv, value.shape[-1])
        way, why = choose_way(plan, *numbers) if how == "auto" else (how, "as asked for")
        if way == "heads" and heads_kv < len(sizes):
            raise ValueError(f"how='heads' needs a head of keys for each of {len(sizes)} ranks, got {heads_kv}")
        LOG.info("axis %d by %s: %s", axis, way, why)
        stages.append(Stage(way, axis, plan, group))
        heads_kv = min(share_heads(heads_kv, len(sizes))) if way == "heads" else heads_kv
    shared = {name: tensor for name, tensor in tensors.items() if name not in BY_TOKENS}
    return Call(neighborhood, stages, group_size, shared, options["return_lse"])


def check_whole(
    tensors: dict[str, Any], axes: tuple[int, ...], shards: list[tuple[int, ...]], where: dict[str, Any]
) -> Neighborhood:
    """Check tensors of which each rank has a shard as one process would the whole of them.

    Raises:
        TypeError, ValueError: as ``neighborhood_attention``.
    """
    whole = {name: _whole(name, tensor, axes, shards) for name, tensor in tensors.items()}
    neighborhood = Neighborhood(check_layout(whole["query"]), **where)
    prepare(neighborhood=neighborhood, **whole)
    return neighborhood


def _whole(name: str, value: Any, axes: tuple[int, ...], shards: list[tuple[int, ...]]) -> Any:
    """A tensor of the whole problem that holds no numbers; scale as it is."""
    if not isinstance(value, Tensor) or name == "scale":
        return value
    shape = list(value.shape)
    for axis, sizes in zip(axes, shards, strict=True) if name in BY_TOKENS else ():
        shape[1 + axis] = sum(sizes)
    return torch.empty(shape, dtype=value.dtype, device="meta")


def choose_way(
    plan: Plan, heads: int, head_dim: int, element_size: int, heads_kv: int | None = None, head_dim_v: int | None = None
) -> tuple[str, str]:
    """The rule of how="auto": halo or heads for an axis, and why.

    Args:
        as ``received_bytes``
    Example:
        >>> choose_way(Plan((32, 32), kernel_size=7), heads=4, head_dim=8, element_size=4)
        ('halo', 'halo brings the busiest rank 768 bytes a line of tokens, heads 8,192')
        >>> choose_way(Plan((16, 16, 16, 16), kernel_size=7, dilation=9), heads=4, head_dim=8, element_size=4)[0]
        'heads'
    """
    bytes_of = received_bytes(plan, heads, head_dim, element_size, heads_kv, head_dim_v)
    if (heads_kv or heads) < len(plan.sizes):
        return "halo", f"{heads_kv or heads} heads of keys cannot be split over {len(plan.sizes)} ranks"
    way = "halo" if bytes_of["halo"] <= bytes_of["heads"] else "heads"
    return way, "halo brings the busiest rank {halo:,} bytes a line of tokens, heads {heads:,}".format(**bytes_of)
