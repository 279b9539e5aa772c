"""A neighborhood of any number of axes: the Cartesian product of one window per axis.

``Neighborhood`` checks and normalises the arguments once, then answers in tables of token numbers.
Tokens are numbered row-major, the last axis fastest, and so are the keys of a window::

    layout (3, 4)         0  1  2  3        kernel_size 3: token 0 attends   0 1 2
                          4  5  6  7                                         4 5 6
                          8  9 10 11                                         8 9 10
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor

from dinat_ref.window import check_axis, check_integer, window

Scalar = TypeVar("Scalar", int, bool)
NO_SIZES: tuple[type, ...] = (
    str,
    bytes,
    bytearray,
    memoryview,
    range,
)  # sequences of integers, some of them, but hardly meant so


@dataclass(frozen=True, init=False)
class Neighborhood:
    """The neighborhoods of all tokens of a layout, by one kernel_size, stride, dilation and causality per axis.

    An int or bool stands for every axis; a tuple has one entry per axis. The value is frozen and hashable.

    Shapes:
        N = the number of tokens (the product of layout), K = the number of keys (the product of kernel_size).
    Args:
        layout: number of tokens on each axis, (X,), (X, Y), (X, Y, Z) or more.
        kernel_size: window width in tokens; kernel_size * dilation <= layout.
        stride: number of consecutive queries of a dilation group that share a window; 1 <= stride <= kernel_size.
        dilation: distance between neighbouring keys in tokens.
        is_causal: attend nothing behind the query on that axis.
    Raises:
        TypeError: an argument is not an integer (is_causal: not a bool).
        ValueError: an argument is outside its limits, or has not one entry per axis.
    Source: Hassani & Shi, arXiv:2209.15001; stride: arXiv:2504.16922.
    Example:
        >>> Neighborhood((3, 4), kernel_size=3)
        Neighborhood(layout=(3, 4), kernel_size=(3, 3), stride=(1, 1), dilation=(1, 1), is_causal=(False, False))
        >>> Neighborhood((5,), kernel_size=3).indices()
        tensor([[0, 1, 2],
                [0, 1, 2],
                [1, 2, 3],
                [2, 3, 4],
                [2, 3, 4]])
        >>> Neighborhood((5,), kernel_size=(3, 3))
        Traceback (most recent call last):
        ValueError: kernel_size must have one entry per axis: the layout (5,) has 1, got (3, 3)
    """

    layout: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    is_causal: tuple[bool, ...]

    def __init__(
        self,
        layout: Sequence[int],
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        is_causal: bool | Sequence[bool] = False,
    ) -> None:
        """Check the arguments and give every axis its own entry."""
        if not isinstance(layout, Sequence) or isinstance(layout, NO_SIZES) or len(layout) < 1:
            raise ValueError(f"layout must list the number of tokens of at least one axis, got {layout!r}")
        layout = tuple(check_integer(f"layout on axis {axis}", length) for axis, length in enumerate(layout))
        rows = zip(
            layout,
            per_axis("kernel_size", kernel_size, layout),
            per_axis("stride", stride, layout),
            per_axis("dilation", dilation, layout),
            per_axis("is_causal", is_causal, layout),
            range(len(layout)),
            strict=True,
        )
        columns = zip(*[check_axis(*row) for row in rows], strict=True)
        for name, column in zip(("layout", "kernel_size", "stride", "dilation", "is_causal"), columns, strict=True):
            object.__setattr__(self, name, column)  # how a frozen dataclass fills its own fields

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.layout)

    @property
    def num_tokens(self) -> int:
        """N, the number of tokens of the layout."""
        return math.prod(self.layout)

    @property
    def num_keys(self) -> int:
        """K, the number of keys of a query; a causal query near the left edge has fewer valid ones."""
        return math.prod(self.kernel_size)

    @property
    def axes(self) -> tuple[tuple[int, int, int, int, bool], ...]:
        """The arguments (length, kernel_size, stride, dilation, is_causal) of each axis."""
        return tuple(zip(self.layout, self.kernel_size, self.stride, self.dilation, self.is_causal, strict=True))

    @property
    def is_full(self) -> bool:
        """Whether every token attends the whole layout."""
        return self.kernel_size == self.layout and all(
            length == 1 or not is_causal for length, is_causal in zip(self.layout, self.is_causal, strict=True)
        )

    @property
    def pitch(self) -> tuple[int, ...]:
        """How far apart neighbouring positions of each axis are in row-major numbers; 1 on the last axis."""
        return row_major_pitch(self.layout)

    def windows(self, axis: int) -> tuple[range, ...]:
        """The window of every position of one axis, to read and to draw: a long axis has ``window_bounds``."""
        return tuple(window(i, *self.axes[axis]) for i in range(self.layout[axis]))

    def tokens(self) -> Iterator[tuple[int, ...]]:
        """All tokens as coordinates, row-major."""
        return itertools.product(*(range(length) for length in self.layout))

    def neighbors(self, token: Sequence[int]) -> list[tuple[int, ...]]:
        """The coordinates of the keys that one token attends, row-major: the definition, spelt out."""
        return list(itertools.product(*(window(i, *axis) for i, axis in zip(token, self.axes, strict=True))))

    def part(self, part: Sequence[range] | None = None) -> tuple[range, ...]:
        """Check a part of the layout, positions on each axis whose tokens alone are queries; None is the whole.

        Raises:
            ValueError: not one range per axis, or positions outside the layout.
        """
        part = [range(length) for length in self.layout] if part is None else part
        if len(part) != self.ndim:
            raise ValueError(f"part must have one range per axis: the layout {self.layout} has {self.ndim}, got {part}")
        for axis, (positions, length) in enumerate(zip(part, self.layout, strict=True)):
            if positions and not all(0 <= i < length for i in (positions[0], positions[-1])):
                raise ValueError(f"part on axis {axis} must lie in 0 .. {length - 1} (length - 1), got {positions}")
        return tuple(part)

    def reach(self, part: Sequence[range] | None = None) -> tuple[range, ...]:
        """The box of keys that all windows of a part lie in: consecutive positions on each axis."""
        boxes = []
        for queries, axis in zip(self.part(part), self.axes, strict=True):
            dilation = axis[3]  # windows of a dilation group follow each other: the outer ones are those of its ends
            starts = [window(i, *axis).start for i in queries[:dilation]]
            ends = [window(i, *axis)[-1] for i in queries[-dilation:]]
            boxes.append(range(min(starts, default=0), max(ends, default=-1) + 1))
        return tuple(boxes)

    def window_bounds(
        self, axis: int, device: torch.device | str | None = None, queries: range | None = None
    ) -> tuple[Tensor, Tensor]:
        """The first key and the number of keys of each query of one axis: two tensors int64 [L].

        What ``window`` says about one query, in the same words, for all of them at once, or for some positions alone.
        """
        length, kernel_size, stride, dilation, is_causal = self.axes[axis]
        queries = range(length) if queries is None else queries
        i = torch.arange(queries.start, queries.stop, queries.step, device=device)
        g, m, n = (
            (0, i, length)
            if dilation == 1
            else (i % dilation, i // dilation, (length - 1 - i % dilation) // dilation + 1)
        )
        leader = (m // stride * stride + (stride - 1 if is_causal else stride // 2)).clamp(max=n - 1)
        if is_causal:
            start = (leader - kernel_size + 1).clamp(min=0)
            count = m + 1 - start
        else:
            start = (leader - kernel_size // 2).clamp(min=0).clamp(max=n - kernel_size)
            count = torch.full_like(start, kernel_size)
        return g + dilation * start, count

    def axis_table(
        self, axis: int, device: torch.device | str | None = None, queries: range | None = None
    ) -> tuple[Tensor, Tensor]:
        """The keys of each query of one axis, and which of them are valid: two tensors [L, kernel_size].

        Slots that a causal window does not fill come last, hold the query itself, and are not valid.
        """
        length, kernel_size, _, dilation, _ = self.axes[axis]
        queries = range(length) if queries is None else queries
        first, count = self.window_bounds(axis, device, queries)  # [L]
        slot = torch.arange(kernel_size, device=device)  # [k]
        query = torch.arange(queries.start, queries.stop, queries.step, device=device)  # [L]
        valid = slot < count[:, None]  # [L, k]
        return torch.where(valid, first[:, None] + dilation * slot, query[:, None]), valid

    def indices(self, device: torch.device | str | None = None, part: Sequence[range] | None = None) -> Tensor:
        """The row-major token numbers of every query's keys, valid ones first: int64 [N, K]."""
        return self._table(device, part)[0]

    def valid(self, device: torch.device | str | None = None, part: Sequence[range] | None = None) -> Tensor:
        """Which entries of ``indices`` are keys: bool [N, K], False only where a causal window has fewer."""
        return self._table(device, part)[1]

    def _table(self, device: torch.device | str | None, part: Sequence[range] | None) -> tuple[Tensor, Tensor]:
        """Combine the axes: a token's number is the sum of its coordinates times the axes' strides."""
        number = torch.zeros((1, 1), dtype=torch.int64, device=device)  # [queries so far, keys so far]
        valid = torch.ones((1, 1), dtype=torch.bool, device=device)
        for axis, queries in enumerate(self.part(part)):
            keys, keys_valid = self.axis_table(axis, device, queries)  # [L, k]
            number = number[:, None, :, None] * self.layout[axis] + keys[None, :, None, :]  # [N', L, K', k]
            valid = valid[:, None, :, None] & keys_valid[None, :, None, :]
            number, valid = number.flatten(2).flatten(0, 1), valid.flatten(2).flatten(0, 1)  # [N' L, K' k]
        if any(self.is_causal):
            order = torch.argsort((~valid).to(torch.uint8), dim=1, stable=True)  # valid keys first, still row-major
            number, valid = number.gather(1, order), valid.gather(1, order)
        return number, valid

    def mask(self, device: torch.device | str | None = None, part: Sequence[range] | None = None) -> Tensor:
        """Which key each query attends, as a dense matrix: bool [N, N], rows are queries, of a part or all."""
        mask = torch.ones((1, 1), dtype=torch.bool, device=device)
        for axis, queries in enumerate(self.part(part)):
            first, count = (bound[:, None] for bound in self.window_bounds(axis, device, queries))  # [L, 1]
            slot = torch.arange(self.layout[axis], device=device) - first  # [L, length], of each key in each window
            attends = (slot >= 0) & (slot < self.dilation[axis] * count) & (slot % self.dilation[axis] == 0)
            mask = (mask[:, None, :, None] & attends[None, :, None, :]).flatten(2).flatten(0, 1)  # [N' L, N' length]
        return mask

    def attended_by(self, token: int | Sequence[int]) -> list[int]:
        """The inverse neighborhood: row-major numbers of the queries that attend a token.

        Args:
            token: a row-major number, or one coordinate per axis.
        Raises:
            ValueError: the token is not in the layout.
        """
        coordinates = tuple(token) if isinstance(token, Sequence) else self.coordinates(check_integer("token", token))
        if len(coordinates) != self.ndim or not all(0 <= i < n for i, n in zip(coordinates, self.layout, strict=True)):
            raise ValueError(f"token must lie in the layout {self.layout}, got {token}")
        queries = []
        for axis, j in enumerate(coordinates):
            first, count = self.window_bounds(axis, "cpu")
            slot, rest = (j - first) // self.dilation[axis], (j - first) % self.dilation[axis]
            queries.append(((rest == 0) & (slot >= 0) & (slot < count)).nonzero().flatten().tolist())
        return [self.number(query) for query in itertools.product(*queries)]

    def number(self, token: Sequence[int]) -> int:
        """The row-major number of a token given by its coordinates."""
        number = 0
        for i, length in zip(token, self.layout, strict=True):
            number = number * length + i
        return number

    def coordinates(self, number: int) -> tuple[int, ...]:
        """The coordinates of a token given by its row-major number."""
        if not 0 <= number < self.num_tokens:
            raise ValueError(f"token must be in 0 .. {self.num_tokens - 1}, got {number}")
        coordinates = []
        for length in reversed(self.layout):
            number, i = divmod(number, length)
            coordinates.append(i)
        return tuple(reversed(coordinates))


def row_major_pitch(layout: Sequence[int]) -> tuple[int, ...]:
    """Say how far apart neighbouring positions of each axis are in row-major numbers; 1 on the last axis.

    Example:
        >>> row_major_pitch((3, 4, 5))
        (20, 5, 1)
    """
    return tuple(math.prod(layout[axis + 1 :]) for axis in range(len(layout)))


def per_axis(name: str, value: Scalar | Sequence[Scalar], layout: Sequence[int]) -> tuple[Scalar, ...]:
    """Give every axis of a layout its own entry: one value is repeated, a sequence must have one entry per axis.

    Shapes:
        return: a tuple of len(layout) entries.
    Raises:
        ValueError: a sequence of another length.
    Example:
        >>> per_axis("stride", 2, layout=(5, 7))
        (2, 2)
    """
    if not isinstance(value, Sequence) or isinstance(value, NO_SIZES):
        return (cast(Scalar, value),) * len(layout)
    if len(value) != len(layout):
        axes = f"the layout {tuple(layout)} has {len(layout)}"
        raise ValueError(f"{name} must have one entry per axis: {axes}, got {tuple(value)}")
    return tuple(value)


def smallest_layout(
    kernel_size: int | Sequence[int], dilation: int | Sequence[int] = 1, ndim: int = 1
) -> tuple[int, ...]:
    """Find the smallest layout on which a kernel is legal: kernel_size * dilation tokens on each axis.

    Shapes:
        return: one number per axis, at least 1
    Raises:
        TypeError: an argument is not an integer.
        ValueError: a sequence that has not one entry per axis.
    Source: arXiv:2209.15001, section 3.2.
    Example:
        >>> smallest_layout(3, dilation=(1, 4), ndim=2)
        (3, 12)
    """
    axes = (1,) * ndim
    sizes = zip(per_axis("kernel_size", kernel_size, axes), per_axis("dilation", dilation, axes), strict=True)
    return tuple(
        max(1, check_integer(f"kernel_size on axis {axis}", size) * check_integer(f"dilation on axis {axis}", step))
        for axis, (size, step) in enumerate(sizes)
    )
