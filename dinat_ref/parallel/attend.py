"""What a rank does once all is agreed: bring tokens, attend to its own queries, take outputs back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from dinat_ref.attention import neighborhood_attention_part
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.parallel.exchange import swap_split
from dinat_ref.parallel.held import HaloExchange, Held
from dinat_ref.parallel.plan import Plan, share_heads


@dataclass(frozen=True)
class Stage:
    """How one axis is split, and which way its tokens go."""

    way: str
    axis: int
    plan: Plan
    group: dist.ProcessGroup

    @property
    def rank(self) -> int:
        """The number of this rank in the group."""
        return dist.get_rank(self.group)


@dataclass(frozen=True)
class Call:
    """One checked call: the whole problem, the way of each split axis, and what every rank has.

    Keys, values and, where there is one, the mask go together: as a list of tokens [B, *held, Hkv, D, Dv or 1].
    """

    neighborhood: Neighborhood
    stages: list[Stage]
    group_size: int
    shared: dict[str, Any]  # scale, rpb, additional_keys, additional_values
    return_lse: bool

    def attend(self, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None) -> tuple[Tensor, ...]:
        """Attend to the own queries: the output [B, *shard, H, Dv] and, if asked for, the lse [B, *shard, H]."""
        tokens = [key, value]
        if key_mask is not None:
            tokens.append(key_mask[..., None, None].to(key.dtype).expand(*key.shape[:-1], 1))
        if any(stage.way == "heads" for stage in self.stages):
            return self._by_heads(query, tokens)
        return self._by_halos(query, tokens, self.shared)

    def _by_heads(self, query: Tensor, tokens: list[Tensor]) -> tuple[Tensor, ...]:
        """Trade tokens for heads on the axes that go this way, attend, and trade outputs back."""
        stages, shared, dim = [stage for stage in self.stages if stage.way == "heads"], self.shared, query.ndim - 2
        carried = [_by_key_heads(query, self.group_size), *tokens]  # [B, *shard, Hkv, G D], ...
        widths, shares = [tensor.shape[-1] for tensor in carried], []
        together = torch.cat(carried, -1)
        for stage in stages:
            share = share_heads(together.shape[dim], len(stage.plan.sizes))
            own = range(sum(share[: stage.rank]), sum(share[: stage.rank + 1]))
            together = swap_split(together, (dim, share), (1 + stage.axis, stage.plan.sizes), stage.group)
            shared = _own_heads(shared, own, self.group_size)
            shares.append(share)
        by_heads, *tokens = together.split(widths, -1)
        output, *lse = self._by_halos(_by_query_heads(by_heads, self.group_size), tokens, shared)
        if lse:
            output = torch.cat([output.to(lse[0].dtype), lse[0][..., None]], -1)  # one message for both
        back = _by_key_heads(output, self.group_size)  # [B, *part, Hkv, G Dv]
        for stage, share in zip(reversed(stages), reversed(shares), strict=True):
            back = swap_split(back, (1 + stage.axis, stage.plan.sizes), (dim, share), stage.group)
        output = _by_query_heads(back, self.group_size)  # [B, *shard, H, Dv]
        return (output[..., :-1].to(query.dtype), output[..., -1]) if lse else (output,)

    def _by_halos(self, query: Tensor, tokens: list[Tensor], shared: dict[str, Any]) -> tuple[Tensor, ...]:
        """Exchange halos, and attend: first, while they are under way, to the queries that need none."""
        own = [range(length) for length in self.neighborhood.layout]
        stages = [stage for stage in self.stages if stage.way == "halo"]
        for stage in stages:
            own[stage.axis] = stage.plan.shards[stage.rank]
        stages = [stage for stage in stages if any(map(stage.plan.halo, range(len(stage.plan.sizes))))]
        attend = partial(self._attend_box, query, own, shared)
        inner, kept, at_hand = self._interior(own, stages), None, []
        for number, stage in enumerate(stages, start=1):
            exchange = HaloExchange(tokens, 1 + stage.axis, stage.plan, stage.group)
            if inner and number == 1:
                kept = attend(tokens, own, inner)
            held = exchange.wait()
            if number < len(stages):
                held = held.joined()
                (tokens,) = held.pieces
            at_hand.append(held)

        def with_halos(box: list[range]) -> tuple[Tensor, ...]:
            reach = self.neighborhood.reach(box)
            return attend(_near(tokens, at_hand, own, reach), reach, box)

        return with_halos(own) if kept is None else _around(with_halos, own, inner, kept)

    def _attend_box(
        self,
        query: Tensor,
        own: list[range],
        shared: dict[str, Any],
        tokens: list[Tensor],
        places: Sequence[range],
        box: list[range],
    ) -> tuple[Tensor, ...]:
        """Attend to the queries of a box of the own ones, with tokens that lie at some places."""
        for axis, (queries, positions) in enumerate(zip(box, own, strict=True)):
            query = query.narrow(1 + axis, queries.start - positions.start, len(queries))
        key, value, *mask = tokens
        window = self.neighborhood
        found = neighborhood_attention_part(
            query,
            key,
            value,
            window.kernel_size,
            window.stride,
            window.dilation,
            window.is_causal,
            layout=window.layout,
            query_start=[queries.start for queries in box],
            key_start=[keys.start for keys in places],
            key_mask=mask[0][..., 0, 0] > 0 if mask else None,
            return_lse=self.return_lse,
            **shared,
        )
        return found if isinstance(found, tuple) else (found,)

    def _interior(self, own: list[range], stages: list[Stage]) -> list[range]:
        """The largest box of queries whose windows lie in the shard.

        Nothing where there is none, and where it is all: the output must depend on what others sent, or their
        backward pass would wait for a gradient in vain.
        """
        inner = list(own)
        for stage in stages:
            shard, dilation = own[stage.axis], self.neighborhood.dilation[stage.axis]
            first, count = self.neighborhood.window_bounds(stage.axis, "cpu", shard)
            inside = (first >= shard.start) & (first + dilation * (count - 1) < shard.stop)
            inner[stage.axis] = longest_run(inside, shard.start)
        return inner if stages and all(inner) and inner != own else []


def _near(tokens: list[Tensor], at_hand: list[Held], own: list[range], reach: Sequence[range]) -> list[Tensor]:
    """The tokens that a box of queries reaches: of split axes what was exchanged, of others what is there."""
    for number, held in enumerate(reversed(at_hand)):
        held = held if number == 0 else Held(held.dim, held.positions, [tokens])
        tokens = held.stretch(reach[held.dim - 1])
    split = {held.dim - 1 for held in at_hand}
    for axis, (keys, positions) in enumerate(zip(reach, own, strict=True)):
        if axis not in split:
            first = keys.start - positions.start if keys else 0
            tokens = [tensor.narrow(1 + axis, first, len(keys)) for tensor in tokens]
    return tokens


def longest_run(marked: Tensor, start: int = 0) -> range:
    """Find the longest stretch of marked positions, counted from ``start``.

    Shapes:
        marked: bool [n]
    Example:
        >>> longest_run(torch.tensor([True, False, True, True, False]))
        range(2, 4)
    """
    ends = pad(marked, (1, 1)).diff().nonzero().flatten()  # each stretch begins, and ends, at one
    if len(ends) == 0:
        return range(start, start)
    begins, stops = ends[::2], ends[1::2]
    longest = int((stops - begins).argmax())
    return range(start + int(begins[longest]), start + int(stops[longest]))


def _around(
    attend: Callable[[list[range]], tuple[Tensor, ...]],
    box: list[range],
    inner: list[range],
    kept: tuple[Tensor, ...],
    axis: int = 0,
) -> tuple[Tensor, ...]:
    """Attend to a box around an inner one that is done: slabs before and behind it, one axis after the other."""
    if axis == len(box):
        return kept
    before, between, behind = (
        [*box[:axis], slab, *box[axis + 1 :]]
        for slab in (
            range(box[axis].start, inner[axis].start),
            inner[axis],
            range(inner[axis].stop, box[axis].stop),
        )
    )
    found = [attend(before)] if before[axis] else []
    found.append(_around(attend, between, inner, kept, axis + 1))
    found += [attend(behind)] if behind[axis] else []
    return tuple(torch.cat(pieces, 1 + axis) for pieces in zip(*found, strict=True))


def _by_key_heads(tensor: Tensor, group_size: int) -> Tensor:
    """Lay the query heads that share a key head side by side: [..., H, D] -> [..., Hkv, G D]."""
    return tensor.unflatten(-2, (-1, group_size)).flatten(-2)


def _by_query_heads(tensor: Tensor, group_size: int) -> Tensor:
    """Take them apart again: [..., Hkv, G D] -> [..., H, D]."""
    return tensor.unflatten(-1, (group_size, -1)).flatten(-3, -2)


def _own_heads(shared: dict[str, Any], own: range, group_size: int) -> dict[str, Any]:
    """What all ranks have, for some key heads alone."""
    found = dict(shared)
    for name in ("additional_keys", "additional_values"):
        if found[name] is not None:
            found[name] = found[name][..., own.start : own.stop, :]  # [B, M, own Hkv, D]
    if found["rpb"] is not None:
        found["rpb"] = found["rpb"][group_size * own.start : group_size * own.stop]
    return found
