"""Moving tokens between ranks: one all-to-all message forwards, the same one transposed backwards.

What a rank sends in the forward pass comes back as a gradient in the backward pass and is added to the owner's: that
is the whole of the calculus here. It asks one thing of the caller: all ranks run backward, or none does.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class Plan(Protocol):
    """Which tokens of an axis travel: ``plan.Plan`` for attention, ``halo.Sliding`` for convolutions."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of tokens of each rank."""

    @property
    def shards(self) -> tuple[range, ...]:
        """The tokens of each rank."""

    def receives(self, rank: int) -> dict[int, list[range]]:
        """What travels to a rank, by the rank that owns it."""

    def sends(self, rank: int) -> dict[int, list[range]]:
        """What travels from a rank, by the rank that needs it."""


@dataclass
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


class HaloExchange:
    """Bring a rank the keys that its queries need of one axis: exactly those of the plan, each once.

    Shapes:
        owned: [..., own tokens, ...], the axis at ``dim``
        wait(): [..., held tokens, ...], at the positions ``held_positions``
    """

    def __init__(self, owned: Tensor, dim: int, plan: Plan, group: dist.ProcessGroup) -> None:
        """Start to send."""
        rank = dist.get_rank(group)
        own, others = plan.shards[rank], range(len(plan.sizes))
        sends, receives = plan.sends(rank), plan.receives(rank)
        outgoing = [positions_of(sends.get(target, [])) - own.start for target in others]
        shape = list(owned.shape)
        counts = [sum(map(len, receives.get(source, []))) for source in others]
        shapes = [[*shape[:dim], count, *shape[dim + 1 :]] for count in counts]
        self._owned, self._dim, self._rank = owned, dim, rank
        pieces = [owned.index_select(dim, positions.to(owned.device)) for positions in outgoing]
        self._pieces = Pieces(pieces, shapes, group)

    def wait(self) -> Tensor:
        """The held tokens: the rank's own between those that have arrived, for shards lie in the order of the ranks."""
        pieces = self._pieces.wait()
        pieces[self._rank] = self._owned
        return torch.cat(pieces, self._dim)


def as_box(tensor: Tensor, dim: int, held: Tensor) -> tuple[Tensor, int]:
    """Lay tokens at their places in one stretch of the axis, with zeros where no window reaches.

    Shapes:
        tensor: [..., held tokens, ...], the axis at ``dim``
        held: int64 [held tokens], sorted
        return: ([..., stretch, ...], position of its first token)
    Args:
        held: the positions, on the CPU.
    Example:
        >>> as_box(torch.tensor([1.0, 2.0]), 0, torch.tensor([5, 8]))
        (tensor([1., 0., 0., 2.]), 5)
    """
    if len(held) == 0:
        return tensor, 0
    first, last = int(held[0]), int(held[-1])
    if last + 1 - first == len(held):
        return tensor, first
    shape = list(tensor.shape)
    shape[dim] = last + 1 - first
    return tensor.new_zeros(shape).index_copy(dim, (held - first).to(tensor.device), tensor), first


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


def held_positions(plan: Plan, rank: int) -> Tensor:
    """Where on the axis the tokens lie that a rank has after the exchange: int64 [held tokens], sorted.

    Example:
        >>> from dinat_ref.parallel.plan import Plan
        >>> held_positions(Plan((2, 2), kernel_size=2, dilation=2), rank=0)
        tensor([0, 1, 2, 3])
    """
    return positions_of([plan.shards[rank], *(keys for ranges in plan.receives(rank).values() for keys in ranges)])


def positions_of(ranges: Sequence[range]) -> Tensor:
    """List all tokens of some ranges, sorted: int64.

    Example:
        >>> positions_of([range(1, 8, 3), range(2, 4)])
        tensor([1, 2, 3, 4, 7])
    """
    pieces = [torch.arange(tokens.start, tokens.stop, tokens.step) for tokens in ranges]
    return torch.cat(pieces).sort().values if pieces else torch.empty(0, dtype=torch.int64)
