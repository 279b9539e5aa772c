"""Moving tokens between ranks: one all-to-all message forwards, the same one transposed backwards.

What a rank sends in the forward pass comes back as a gradient in the backward pass and is added to the owner's: that
is the whole of the calculus here. It asks one thing of the caller: all ranks run backward, or none does.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(eq=False)
class Traffic:
    """How many bytes this rank has sent to others and received from them.

    Example:
        >>> with count_traffic() as traffic:
        ...     pass
        >>> traffic
        Traffic(sent=0, received=0, messages=0)
    """

    sent: int = 0
    received: int = 0
    messages: int = 0


_COUNTING: list[Traffic] = []


@contextmanager
def count_traffic() -> Iterator[Traffic]:
    """Count what the tokens of a block cost: gradients too, headers of a few numbers and sums of gradients not."""
    traffic = Traffic()
    _COUNTING.append(traffic)
    try:
        yield traffic
    finally:
        _COUNTING.remove(traffic)


@dataclass(frozen=True)
class Route:
    """How many numbers travel to and from each rank of a group in one message."""

    sent: tuple[int, ...]
    received: tuple[int, ...]
    group: dist.ProcessGroup

    def back(self) -> "Route":
        """The way of the gradients."""
        return Route(self.received, self.sent, self.group)


class Transfer:
    """A message under way: it starts when it is made, and ``wait`` hands out what has arrived."""

    def __init__(self, packed: Tensor, route: Route) -> None:
        """Start to send [sum(sent)] numbers, those for the first rank first."""
        self.route = route
        self._packed = packed.detach().contiguous()  # alive until it has left
        self._arrived = packed.new_empty(sum(route.received))
        self._work = dist.all_to_all_single(
            self._arrived, self._packed, list(route.received), list(route.sent), group=route.group, async_op=True
        )
        me = dist.get_rank(route.group)
        for traffic in _COUNTING:
            traffic.sent += (sum(route.sent) - route.sent[me]) * packed.element_size()
            traffic.received += (sum(route.received) - route.received[me]) * packed.element_size()
            traffic.messages += 1

    def wait(self) -> Tensor:
        """Return [sum(received)] numbers, those of the first rank first."""
        assert self._work is not None
        self._work.wait()
        arrived = self._arrived
        del self._packed, self._arrived, self._work
        return arrived


class _AllToAll(torch.autograd.Function):
    """What has arrived, as a function of what was sent."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, transfer: Transfer) -> Tensor:
        ctx.route = transfer.route
        return transfer.wait()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        back: Tensor = _AllToAll.apply(gradient, Transfer(gradient, ctx.route.back()))  # type: ignore[no-untyped-call]
        return back, None


class Pieces:
    """An all-to-all of pieces of tensors: made, it is under way; ``wait`` gives the pieces that others sent."""

    def __init__(self, pieces: Sequence[Tensor], shapes: Sequence[Sequence[int]], group: dist.ProcessGroup) -> None:
        """Send a piece to each rank; the shapes are those of the pieces that come from each."""
        self.shapes = shapes
        self._packed = torch.cat([piece.reshape(-1) for piece in pieces])
        numbers = tuple(torch.Size(shape).numel() for shape in shapes)
        self._transfer = Transfer(self._packed, Route(tuple(piece.numel() for piece in pieces), numbers, group))

    def wait(self) -> list[Tensor]:
        """The pieces that have arrived, by rank, differentiable."""
        arrived: Tensor = _AllToAll.apply(self._packed, self._transfer)  # type: ignore[no-untyped-call]
        numbers = self._transfer.route.received
        return [piece.view(tuple(shape)) for piece, shape in zip(arrived.split(numbers), self.shapes, strict=True)]


def swap_split(
    tensor: Tensor, split: tuple[int, Sequence[int]], joined: tuple[int, Sequence[int]], group: dist.ProcessGroup
) -> Tensor:
    """Cut one axis over the ranks and join another one: from tokens to heads, and back.

    It is what ``DTensor.redistribute`` does from ``Shard(a)`` to ``Shard(b)``, for shards of any sizes.

    Shapes:
        tensor: whole on the axis that is split, this rank's part of the one that is joined
        return: the other way round
    Args:
        split, joined: the axis and how much of it each rank has where it is split.
    """
    dim, sizes = split
    along, lengths = joined
    own = sizes[dist.get_rank(group)]
    shapes = []
    for length in lengths:
        shape = list(tensor.shape)
        shape[dim], shape[along] = own, length
        shapes.append(shape)
    return torch.cat(Pieces(tensor.split(list(sizes), dim), shapes, group).wait(), along)


class _Replicate(torch.autograd.Function):
    """The tensors themselves; their gradients are those of all ranks together."""

    @staticmethod
    def forward(ctx: Any, groups: Sequence[dist.ProcessGroup], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.groups = groups
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_Sum.apply(ctx.groups, *gradients)  # type: ignore[no-untyped-call]


class _Sum(torch.autograd.Function):
    """The sum over all ranks, whose gradient is the sum of the gradients."""

    @staticmethod
    def forward(ctx: Any, groups: Sequence[dist.ProcessGroup], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.groups = groups
        sums: dict[int, Tensor] = {}
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):  # one message for each dtype
            chosen = [number for number, tensor in enumerate(tensors) if tensor.dtype == dtype]
            flat = torch.cat([tensors[number].reshape(-1) for number in chosen])
            for group in groups:
                dist.all_reduce(flat, group=group)
            parts = flat.split([tensors[number].numel() for number in chosen])
            sums |= {number: part.view(tensors[number].shape) for number, part in zip(chosen, parts, strict=True)}
        return tuple(sums[number] for number in range(len(tensors)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_Sum.apply(ctx.groups, *gradients)  # type: ignore[no-untyped-call]


def replicate(tensors: Sequence[Tensor], groups: Sequence[dist.ProcessGroup]) -> list[Tensor]:
    """Hand out tensors that every rank has, so that every rank's gradient is the sum over all ranks.

    One message carries all gradients, after everything that was computed with the tensors.

    Shapes:
        return: as the tensors
    """
    return list(_Replicate.apply(groups, *tensors)) if tensors else []  # type: ignore[no-untyped-call]


def sum_over(tensor: Tensor, groups: Sequence[dist.ProcessGroup]) -> Tensor:
    """Add up a tensor over all ranks; every rank gets the sum.

    Shapes:
        return: as the tensor
    """
    total: Tensor = _Sum.apply(groups, tensor)[0]  # type: ignore[no-untyped-call]
    return total
