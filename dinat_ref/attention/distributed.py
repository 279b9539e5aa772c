"""DTensors: the operator on every process's own shard.

Items of a batch know nothing of each other, and neither do groups of heads that share a key head. So where a device
mesh shares out either, every process attends to what it has, without a word to the others, and what comes out is
shared out alike. Anything else is brought to this form first: a layout that is shared out is gathered, for windows
reach across the cuts. (``dinat_ref.parallel`` exchanges their halos instead.)
"""

import inspect
import math
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor

Function = TypeVar("Function", bound=Callable[..., Any])
BATCH = 0
HEADS = {"rpb": 0, "scale": None, "key_mask": None}  # the axis of the heads; all others have them last but one
WITHOUT_BATCH = ("rpb", "scale")


def on_shards(function: Function) -> Function:
    """Let a function of tensors [B, *layout, heads, D] take DTensors.

    Raises:
        TypeError: a DTensor beside a tensor.
        ValueError: DTensors on several meshes.
    Source: PyTorch's torch.distributed.tensor.
    Example:
        >>> import tempfile
        >>> import torch.distributed as dist
        >>> from torch.distributed.tensor import Shard, distribute_tensor
        >>> with tempfile.TemporaryDirectory() as folder:  # a run of one process; torchrun starts more
        ...     dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        ...     x = distribute_tensor(torch.ones(4, 9, 2, 8), dist.init_device_mesh("cpu", (1,)), [Shard(0)])
        ...     print(on_shards(lambda query, key: query + key)(x, x).placements)
        ...     dist.destroy_process_group()
        (Shard(dim=0),)
    """

    @wraps(function)
    def attend(*args: Any, **kwargs: Any) -> Any:
        if not any(hasattr(value, "placements") for value in (*args, *kwargs.values())):
            return function(*args, **kwargs)
        return _attend(function, inspect.signature(function).bind(*args, **kwargs).arguments)

    return cast(Function, attend)


def _attend(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Bring all DTensors to one form, run on what is here, and say what the whole is."""
    tensors = _checked(arguments)
    first = next(iter(tensors.values()))
    mesh, shared = first.device_mesh, _shared_out(tensors)
    local = {name: _own(name, tensor, mesh, shared) for name, tensor in tensors.items()}
    results = function(**{**arguments, **local})
    several = isinstance(results, tuple)
    whole = [
        _whole(result, first, mesh, shared, lse=number == 1)
        for number, result in enumerate(results if several else [results])
    ]
    return tuple(whole) if several else whole[0]


def _checked(arguments: dict[str, Any]) -> "dict[str, DTensor]":
    """The tensors of a call, all of which must be DTensors on one mesh."""
    from torch.distributed.tensor import DTensor

    tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
    mesh = next(tensor for tensor in tensors.values() if isinstance(tensor, DTensor)).device_mesh
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            raise TypeError(
                f"{name} must be a DTensor as others are, e.g. distribute_tensor({name}, mesh, [Replicate()])"
            )
        if tensor.device_mesh != mesh:
            raise ValueError(f"{name} must be on the others' mesh, {mesh}, got {tensor.device_mesh}")
    return tensors  # type: ignore[return-value]


def _shared_out(tensors: "dict[str, DTensor]") -> list[str | None]:
    """What each dimension of the mesh shares out, "batch", "heads" or nothing: as the first tensor has it."""
    from torch.distributed.tensor import Shard

    first = next(iter(tensors.values()))
    shared: list[str | None] = []
    parts = 1
    for size, placement in zip(first.device_mesh.shape, first.placements, strict=True):
        axis = placement.dim % first.ndim if type(placement) is Shard else None
        if axis == first.ndim - 2 and all(
            _heads(name, tensor) % (parts * size) == 0 for name, tensor in tensors.items()
        ):
            parts *= size
            shared.append("heads")
        else:
            shared.append("batch" if axis == BATCH else None)
    return shared


def _heads_axis(name: str, tensor: Tensor) -> int | None:
    axis = HEADS.get(name, -2)
    return None if axis is None else axis % tensor.ndim


def _heads(name: str, tensor: Tensor) -> int:
    axis = _heads_axis(name, tensor)
    return 0 if axis is None else tensor.shape[axis]


def _own(name: str, tensor: "DTensor", mesh: "DeviceMesh", shared: list[str | None]) -> Tensor:
    """What this process needs of a tensor; if all need the same, each has a part of its gradient only."""
    from torch.distributed.tensor import Partial, Replicate, Shard

    axes = {"batch": None if name in WITHOUT_BATCH else BATCH, "heads": _heads_axis(name, tensor)}
    placements, gradients = [], []
    for what in shared:
        axis = axes.get(what) if what else None
        placements.append(Replicate() if axis is None else Shard(axis))
        gradients.append(Partial() if axis is None and what else placements[-1])
    return tensor.redistribute(mesh, placements).to_local(grad_placements=gradients)


def _whole(result: Tensor, first: "DTensor", mesh: "DeviceMesh", shared: list[str | None], lse: bool) -> "DTensor":
    """What is whole of what every process has found: [B, *layout, heads, D], or its lse [B, *layout, heads]."""
    from torch.distributed.tensor import DTensor, Replicate, Shard

    heads_axis = result.ndim - (1 if lse else 2)
    shape = [first.shape[0], *result.shape[1:]]
    shape[heads_axis] *= math.prod(size for size, what in zip(mesh.shape, shared, strict=True) if what == "heads")
    axes = {"batch": BATCH, "heads": heads_axis}
    placements = [Shard(axes[what]) if what else Replicate() for what in shared]
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        result.contiguous(), mesh, placements, run_check=False, shape=torch.Size(shape), stride=stride
    )
