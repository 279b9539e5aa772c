"""The tokens of an axis that a rank has at hand: its own between those that other ranks have sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from dinat_ref.parallel.exchange import Pieces


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


@dataclass(frozen=True)
class Held:
    """Tokens of one axis in pieces, one of each rank, as several tensors side by side (keys, values).

    Shapes:
        pieces[rank][tensor]: [..., tokens, ...], the axis at ``dim``
        positions[rank]: int64 [tokens], on the CPU, sorted; shards lie in the order of the ranks
    Example:
        >>> own, sent = torch.tensor([2.0, 3.0]), torch.tensor([6.0])
        >>> held = Held(0, [torch.tensor([2, 3]), torch.tensor([6])], [[own], [sent]])
        >>> held.joined().pieces
        [[tensor([2., 3., 6.])]]
        >>> held.stretch(range(3, 7))  # zeros where nothing is held: no window reaches there
        [tensor([3., 0., 0., 6.])]
    """

    dim: int
    positions: list[Tensor]
    pieces: list[list[Tensor]]

    def joined(self) -> "Held":
        """The same in one piece."""
        tensors = [torch.cat(tensors, self.dim) for tensors in zip(*self.pieces, strict=True)]
        return Held(self.dim, [torch.cat(self.positions)], [tensors])

    def stretch(self, tokens: range) -> list[Tensor]:
        """Lay the tokens of a stretch of the axis at their places."""
        ends = torch.tensor([tokens.start, tokens.stop])
        cuts = [torch.searchsorted(positions, ends).tolist() for positions in self.positions]
        pieces = [
            [tensor.narrow(self.dim, start, stop - start) for tensor in tensors]
            for tensors, (start, stop) in zip(self.pieces, cuts, strict=True)
        ]
        positions = [at[start:stop] for at, (start, stop) in zip(self.positions, cuts, strict=True)]
        near = Held(self.dim, positions, pieces)
        near = near if len(pieces) == 1 else near.joined()
        ((places,), (tensors,)) = near.positions, near.pieces
        if len(places) == len(tokens):
            return tensors
        places = places - tokens.start
        return [_spread(tensor, self.dim, places.to(tensor.device), len(tokens)) for tensor in tensors]


class HaloExchange:
    """Bring a rank the tokens that it needs of one axis: exactly those of the plan, each once, in one message.

    Shapes:
        owned: tensors [..., own tokens, ...] that differ in the last axis alone, the split axis at ``dim``
    """

    def __init__(self, owned: Sequence[Tensor], dim: int, plan: Plan, group: dist.ProcessGroup) -> None:
        """Start to send."""
        rank, others = dist.get_rank(group), range(len(plan.sizes))
        own, sends, receives = plan.shards[rank], plan.sends(rank), plan.receives(rank)
        outgoing = [positions_of(sends.get(target, [])) - own.start for target in others]
        shape = [*owned[0].shape[:-1], sum(tensor.shape[-1] for tensor in owned)]
        self._owned, self._dim, self._rank = list(owned), dim, rank
        self._positions = [positions_of([own] if source == rank else receives.get(source, [])) for source in others]
        counts = [0 if source == rank else len(self._positions[source]) for source in others]
        shapes = [[*shape[:dim], count, *shape[dim + 1 :]] for count in counts]
        pieces = [
            torch.cat([tensor.index_select(dim, positions.to(tensor.device)) for tensor in owned], -1)
            for positions in outgoing
        ]
        self._pieces = Pieces(pieces, shapes, group)

    def wait(self) -> Held:
        """The rank's own tokens and those that have arrived."""
        widths = [tensor.shape[-1] for tensor in self._owned]
        pieces = [list(piece.split(widths, -1)) for piece in self._pieces.wait()]
        pieces[self._rank] = self._owned
        return Held(self._dim, self._positions, pieces)


def positions_of(ranges: Sequence[range]) -> Tensor:
    """List all tokens of some ranges, sorted: int64.

    Example:
        >>> positions_of([range(1, 8, 3), range(2, 4)])
        tensor([1, 2, 3, 4, 7])
    """
    pieces = [torch.arange(tokens.start, tokens.stop, tokens.step) for tokens in ranges]
    return torch.cat(pieces).sort().values if pieces else torch.empty(0, dtype=torch.int64)


def _spread(tensor: Tensor, dim: int, places: Tensor, length: int) -> Tensor:
    """Lay tokens at their places in an axis of zeros."""
    shape = list(tensor.shape)
    shape[dim] = length
    return tensor.new_zeros(shape).index_copy(dim, places, tensor)
