"""What a rank does once all is agreed: bring tokens, attend to its own queries, take outputs back."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from dinat_ref.attention import neighborhood_attention_part
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.parallel.exchange import HaloExchange, as_box, held_positions, swap_split
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

    Keys, values and, where there is one, the mask travel side by side as tokens [B, *held, Hkv, D + Dv (+ 1)].
    """

    neighborhood: Neighborhood
    stages: list[Stage]
    widths: tuple[int, ...]  # D, Dv and, with a mask, 1
    group_size: int
    shared: dict[str, Any]  # scale, rpb, additional_keys, additional_values
    return_lse: bool

    def attend(self, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None) -> tuple[Tensor, ...]:
        """Attend to the own queries: the output [B, *shard, H, Dv] and, if asked for, the lse [B, *shard, H]."""
        pieces = [key, value]
        if key_mask is not None:
            pieces.append(key_mask[..., None, None].to(key.dtype).expand(*key.shape[:-1], 1))
        tokens = torch.cat(pieces, -1)
        if any(stage.way == "heads" for stage in self.stages):
            return self._by_heads(query, tokens)
        return self._by_halos(query, tokens, self.shared)

    def _by_heads(self, query: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        """Trade tokens for heads on the axes that go this way, attend, and trade outputs back."""
        stages, shared, dim = [stage for stage in self.stages if stage.way == "heads"], self.shared, query.ndim - 2
        carried = torch.cat([_by_key_heads(query, self.group_size), tokens], -1)  # [B, *shard, Hkv, G D + D + Dv]
        query_width, shares = self.group_size * query.shape[-1], []
        for stage in stages:
            share = share_heads(carried.shape[dim], len(stage.plan.sizes))
            own = range(sum(share[: stage.rank]), sum(share[: stage.rank + 1]))
            carried = swap_split(carried, (dim, share), (1 + stage.axis, stage.plan.sizes), stage.group)
            shared = _own_heads(shared, own, self.group_size)
            shares.append(share)
        own_query = _by_query_heads(carried[..., :query_width], self.group_size)  # [B, *part, H, D]
        output, *lse = self._by_halos(own_query, carried[..., query_width:], shared)
        if lse:
            output = torch.cat([output.to(lse[0].dtype), lse[0][..., None]], -1)  # one message for both
        back = _by_key_heads(output, self.group_size)  # [B, *part, Hkv, G Dv]
        for stage, share in zip(reversed(stages), reversed(shares), strict=True):
            back = swap_split(back, (1 + stage.axis, stage.plan.sizes), (dim, share), stage.group)
        output = _by_query_heads(back, self.group_size)  # [B, *shard, H, Dv]
        return (output[..., :-1].to(query.dtype), output[..., -1]) if lse else (output,)

    def _by_halos(self, query: Tensor, tokens: Tensor, shared: dict[str, Any]) -> tuple[Tensor, ...]:
        """Exchange halos, and attend: first, while they are under way, to the queries that need none."""
        own = [range(length) for length in self.neighborhood.layout]
        stages = [stage for stage in self.stages if stage.way == "halo"]
        for stage in stages:
            own[stage.axis] = stage.plan.shards[stage.rank]
        stages = [stage for stage in stages if any(map(stage.plan.halo, range(len(stage.plan.sizes))))]
        attend = partial(self._attend_box, query, own, shared)
        starts, inner, kept = [positions.start for positions in own], self._interior(own, stages), None
        for stage in stages:
            exchange = HaloExchange(tokens, 1 + stage.axis, stage.plan, stage.group)
            if inner and kept is None:
                kept = attend(tokens, starts, inner)
            tokens = exchange.wait()
        for stage in stages:
            held = held_positions(stage.plan, stage.rank)
            tokens, starts[stage.axis] = as_box(tokens, 1 + stage.axis, held)
        if kept is None:
            return attend(tokens, starts, own)
        return _around(lambda box: attend(*self._near(tokens, starts, box), box), own, inner, kept)

    def _near(self, tokens: Tensor, starts: list[int], box: list[range]) -> tuple[Tensor, list[int]]:
        """The tokens that a box of queries reaches, alone in memory, and where they begin."""
        reach = self.neighborhood.reach(box)
        for axis, (keys, start) in enumerate(zip(reach, starts, strict=True)):
            tokens = tokens.narrow(1 + axis, keys.start - start, len(keys))
        return tokens.clone(), [keys.start for keys in reach]

    def _attend_box(
        self,
        query: Tensor,
        own: list[range],
        shared: dict[str, Any],
        tokens: Tensor,
        starts: list[int],
        box: list[range],
    ) -> tuple[Tensor, ...]:
        """Attend to the queries of a box of the own ones, with the tokens from ``starts`` on."""
        for axis, (queries, positions) in enumerate(zip(box, own, strict=True)):
            query = query.narrow(1 + axis, queries.start - positions.start, len(queries))
        key, value, *mask = tokens.split(self.widths, -1)
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
            key_start=starts,
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
