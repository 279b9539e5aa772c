"""Halos of convolutions and poolings: windows that step over an axis, padded at its ends.

Output o sees the inputs  stride * o - padding  ..  stride * o - padding + kernel_size - 1,  those that there are. It
belongs to the rank that owns input  stride * o,  so a map that is halved stays where it is, whatever the shards.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, pad

from dinat_ref.parallel.held import HaloExchange


@dataclass(frozen=True)
class Sliding:
    """Who sends which rows to whom, for windows that step over an axis.

    Args:
        sizes: number of inputs that each rank owns, 0 is allowed.
        kernel_size, stride, padding: of the window, as ``torch.nn.Conv2d``.
    Raises:
        ValueError: a window with other outputs than one for each ``stride`` inputs, or one that fits nowhere.
    Example:
        >>> halving = Sliding(sizes=(3, 0, 4), kernel_size=3, stride=2, padding=1)
        >>> halving.outputs  # 0 and 1 belong to inputs 0 and 2, 2 and 3 to inputs 4 and 6
        (2, 0, 2)
        >>> halving.receives(0), halving.receives(2)
        ({2: [range(3, 4)]}, {})
    """

    sizes: tuple[int, ...]
    kernel_size: int
    stride: int
    padding: int

    def __post_init__(self) -> None:
        """Check the window."""
        if not 2 * self.padding < self.kernel_size:
            limit = f"2 * padding must be below kernel_size, got 2 * {self.padding} and {self.kernel_size}"
            raise ValueError(f"a window must keep an input for each output: {limit}")
        if sum(self.sizes) + 2 * self.padding < self.kernel_size:
            raise ValueError(f"an axis of {sum(self.sizes)} is too short for a window of {self.kernel_size}")

    @cached_property
    def shards(self) -> tuple[range, ...]:
        """The inputs of each rank."""
        stops = itertools.accumulate(self.sizes)
        return tuple(range(stop - size, stop) for size, stop in zip(self.sizes, stops, strict=True))

    @cached_property
    def output_shards(self) -> tuple[range, ...]:
        """The outputs of each rank."""
        count = (sum(self.sizes) + 2 * self.padding - self.kernel_size) // self.stride + 1
        edges = [min(-(-shard.start // self.stride), count) for shard in self.shards]
        return tuple(itertools.starmap(range, itertools.pairwise([*edges, count])))

    @property
    def outputs(self) -> tuple[int, ...]:
        """The number of outputs of each rank."""
        return tuple(map(len, self.output_shards))

    def window(self, outputs: range) -> range:
        """The inputs that some outputs see, positions before and behind the axis included."""
        start = self.stride * outputs.start - self.padding
        return range(start, start + self.stride * (len(outputs) - 1) + self.kernel_size if outputs else start)

    def receives(self, rank: int) -> dict[int, list[range]]:
        """Which inputs travel to a rank, by the rank that owns them."""
        seen, found = self.window(self.output_shards[rank]), {}
        for source, shard in enumerate(self.shards):
            common = range(max(seen.start, shard.start), min(seen.stop, shard.stop))
            if common and source != rank:
                found[source] = [common]
        return found

    def sends(self, rank: int) -> dict[int, list[range]]:
        """Which inputs travel from a rank, by the rank that needs them."""
        needed = {target: self.receives(target) for target in range(len(self.sizes))}
        return {target: pieces[rank] for target, pieces in needed.items() if rank in pieces}


def slide(
    apply: Callable[[Tensor], Tensor], x: Tensor, sliding: Sliding, group: dist.ProcessGroup, fill: float = 0.0
) -> Tensor:
    """Bring the rows that a rank's outputs see, and apply windows that pad nothing.

    Shapes:
        x: [B, C, own rows, Y]
        return: [B, C', own outputs, Y']
    Args:
        apply: [B, C, rows, Y] -> [B, C', outputs, Y'].
        fill: what lies before and behind the axis.
    """
    rank = dist.get_rank(group)
    own, outputs = sliding.shards[rank], sliding.output_shards[rank]
    pieces = [own, *(keys for ranges in sliding.receives(rank).values() for keys in ranges)]
    start = min((piece.start for piece in pieces if piece), default=own.start)
    ((held,),) = HaloExchange([x.movedim(2, 0)], 0, sliding, group).wait().joined().pieces
    return outputs_of(apply, held.movedim(0, 2), start, outputs, sliding, fill)


def outputs_of(
    apply: Callable[[Tensor], Tensor], held: Tensor, start: int, outputs: range, sliding: Sliding, fill: float = 0.0
) -> Tensor:
    """Apply windows to rows at hand, the first of which is ``start``, and keep some outputs, maybe none."""
    seen, length = sliding.window(outputs), sum(sliding.sizes)
    first, stop = max(seen.start, 0), min(seen.stop, length)
    rows = held[:, :, first - start : stop - start] if outputs else held[:, :, :0]  # what autograd remembers, too
    lacking = (first - seen.start, seen.stop - stop) if outputs else (0, sliding.kernel_size)
    return apply(pad(rows, (0, 0, *lacking), value=fill))[:, :, : len(outputs)]


def sliding_of(module: nn.Module, sizes: tuple[int, ...]) -> tuple[Sliding, Callable[[Tensor], Tensor], float]:
    """Read off a convolution or a pooling how it steps over rows, and what it does to them once they are padded.

    Raises:
        ValueError: another module, or windows with gaps.
    Example:
        >>> sliding_of(nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1), sizes=(5, 4))[0]
        Sliding(sizes=(5, 4), kernel_size=3, stride=2, padding=1)
    """
    size, stride, padding = (_pair(getattr(module, name, None)) for name in ("kernel_size", "stride", "padding"))
    sliding = Sliding(sizes, size[0], stride[0], padding[0])
    where: dict[str, Any] = {"stride": stride, "padding": (0, padding[1])}
    if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and module.dilation == (1, 1):
        return sliding, lambda rows: conv2d(rows, module.weight, module.bias, groups=module.groups, **where), 0.0
    plain = not getattr(module, "ceil_mode", True)
    if isinstance(module, nn.MaxPool2d) and plain and _pair(module.dilation) == (1, 1) and not module.return_indices:
        return sliding, lambda rows: max_pool2d(rows, size, **where), -math.inf
    if isinstance(module, nn.AvgPool2d) and plain and (module.count_include_pad or padding == (0, 0)):
        return sliding, lambda rows: avg_pool2d(rows, size, **where, divisor_override=module.divisor_override), 0.0
    raise ValueError(f"module must be a convolution padded with zeros, or a pooling, without gaps, got {module}")


def _pair(numbers: Any) -> tuple[int, int]:
    """One number for rows and one for columns."""
    if isinstance(numbers, int):
        return numbers, numbers
    if not isinstance(numbers, tuple):
        raise ValueError(f"windows must have a kernel_size, a stride and a padding in numbers, got {numbers!r}")
    return numbers
