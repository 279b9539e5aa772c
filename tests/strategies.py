"""Problems for the operator: a Hypothesis strategy draws sizes and a seed, the seed makes the tensors.

Problems are built legal, never filtered. They shrink towards one short axis, one head and no extras.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

from dinat_ref import Neighborhood, neighborhood_attention
from dinat_ref.attention.boxes import Boxes
from dinat_ref.attention.functional import FORMULATIONS
from tests.oracle import Axis

IMPLS = [*FORMULATIONS, "auto"]
FAST_IMPLS = [impl for impl in IMPLS if impl != "loops"]


@dataclass(frozen=True)
class Problem:
    """One call of the operator without its numbers; ``tensors`` makes them from the seed."""

    layout: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    is_causal: tuple[bool, ...]
    batch: int = 2
    heads: int = 2
    heads_kv: int = 2
    head_dim: int = 3
    head_dim_v: int = 3
    scale: float | None = None
    rpb: bool = False
    extra: int | None = None
    strided: bool = False
    seed: int = 0

    @property
    def axes(self) -> list[Axis]:
        """The arguments of each axis, as the oracle takes them."""
        return list(zip(self.layout, self.kernel_size, self.stride, self.dilation, self.is_causal, strict=True))

    @property
    def where(self) -> dict[str, Any]:
        """The arguments that say which keys a query attends."""
        names = ("kernel_size", "stride", "dilation", "is_causal")
        return {name: getattr(self, name) for name in names}

    @property
    def neighborhood(self) -> Neighborhood:
        """The windows of all tokens."""
        return Neighborhood(self.layout, **self.where)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor of the call."""
        shapes: dict[str, tuple[int, ...]] = {
            "query": (self.batch, *self.layout, self.heads, self.head_dim),
            "key": (self.batch, *self.layout, self.heads_kv, self.head_dim),
            "value": (self.batch, *self.layout, self.heads_kv, self.head_dim_v),
        }
        if self.rpb:
            shapes["rpb"] = (self.heads, *(2 * size - 1 for size in self.kernel_size))
        if self.extra is not None:
            shapes["additional_keys"] = (self.batch, self.extra, self.heads_kv, self.head_dim)
            shapes["additional_values"] = (self.batch, self.extra, self.heads_kv, self.head_dim_v)
        return shapes

    def tensors(self, dtype: torch.dtype = torch.float64, requires_grad: bool = False) -> dict[str, Tensor]:
        """Normal numbers, rounded to ``dtype``; not contiguous if the problem says so."""
        generator = torch.Generator().manual_seed(self.seed)
        tensors = {}
        for name, shape in self.shapes().items():
            tensor = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            if self.strided:
                tensor = scattered(tensor)
            tensors[name] = tensor.requires_grad_(requires_grad)
        return tensors

    def attend(self, impl: str, tensors: dict[str, Tensor], **changes: Any) -> tuple[Tensor, Tensor]:
        """Run one formulation: its output and its lse."""
        arguments: dict[str, Any] = {**self.where, "scale": self.scale, "return_lse": True, **tensors, **changes}
        result = neighborhood_attention(**arguments, impl=impl)
        assert isinstance(result, tuple)
        return result

    def but(self, **changes: Any) -> "Problem":
        """The same problem with other sizes."""
        return replace(self, **changes)


def scattered(tensor: Tensor) -> Tensor:
    """The same numbers in memory that no view can make contiguous: axes reversed, every second number unused."""
    axes = tuple(reversed(range(tensor.ndim)))
    store = torch.full((*tensor.permute(axes).shape, 2), float("nan"), dtype=tensor.dtype)
    store[..., 0] = tensor.permute(axes)
    return store[..., 0].permute(axes)


@st.composite
def axes(
    draw: st.DrawFn, largest_kernel: int = 5, longest_reach: int = 12, slack: int = 4, is_causal: bool | None = None
) -> Axis:
    """One legal axis: often exactly as long as the dilated kernel, or one token longer."""
    kernel_size = draw(st.integers(1, largest_kernel))
    dilation = draw(st.integers(1, max(1, min(3, longest_reach // kernel_size))))
    length = kernel_size * dilation + draw(st.sampled_from([0, 1]) | st.integers(0, slack))
    stride = draw(st.integers(1, kernel_size))
    causal = draw(st.booleans()) if is_causal is None else is_causal
    return length, kernel_size, stride, dilation, causal


@st.composite
def long_axes(draw: st.DrawFn) -> Axis:
    """An axis of any length, its limits met as often as not."""
    kernel_size = draw(st.integers(1, 40) | st.integers(1, 10**6))
    dilation = draw(st.integers(1, 40) | st.integers(1, 10**6))
    length = kernel_size * dilation + draw(st.sampled_from([0, 1, dilation - 1, dilation]) | st.integers(0, 10**12))
    return length, kernel_size, draw(st.integers(1, kernel_size)), dilation, draw(st.booleans())


def parts(lengths: tuple[int, ...]) -> st.SearchStrategy[tuple[range, ...]]:
    """Consecutive positions on each axis, also none."""

    def some(length: int) -> st.SearchStrategy[range]:
        return st.tuples(st.integers(0, length), st.integers(0, length)).map(lambda ends: range(min(ends), max(ends)))

    return st.tuples(*map(some, lengths))


@st.composite
def boxes_of(draw: st.DrawFn, problem: Problem) -> Boxes:
    """Some tokens that ask, and a box of keys that holds their windows and perhaps more."""
    queries = draw(parts(problem.layout))
    keys = []
    for reach, length in zip(problem.neighborhood.reach(queries), problem.layout, strict=True):
        keys.append(range(draw(st.integers(0, reach.start)), draw(st.integers(reach.stop, length))))
    return Boxes(queries, tuple(keys))


# by number of axes, so that the slowest formulation takes milliseconds: largest kernel, longest k * d, slack, heads
BUDGETS: dict[int, tuple[int, int, int, Sequence[tuple[int, int]]]] = {
    1: (6, 12, 5, [(1, 1), (2, 2), (2, 1), (3, 1), (4, 2)]),
    2: (4, 6, 2, [(1, 1), (2, 2), (2, 1), (4, 2)]),
    3: (3, 4, 1, [(1, 1), (2, 1)]),
}


@st.composite
def problems(
    draw: st.DrawFn,
    ndim: int | None = None,
    is_causal: bool | None = None,
    plain: bool = False,
    empty: bool = True,
) -> Problem:
    """A legal problem and its seed; ``plain`` leaves out rpb and additional keys, ``empty=False`` the empty batch."""
    ndim = draw(st.sampled_from([1, 2, 2, 3])) if ndim is None else ndim
    largest_kernel, longest_reach, slack, heads_choices = BUDGETS[ndim]
    drawn = [draw(axes(largest_kernel, longest_reach, slack, is_causal)) for _ in range(ndim)]
    layout = [axis[0] for axis in drawn]
    for axis in range(1, ndim):
        if layout[axis] == layout[axis - 1]:
            layout[axis] += 1  # not square, so that swapped axes are seen
    heads, heads_kv = draw(st.sampled_from(heads_choices))
    return Problem(
        layout=tuple(layout),
        kernel_size=tuple(axis[1] for axis in drawn),
        stride=tuple(axis[2] for axis in drawn),
        dilation=tuple(axis[3] for axis in drawn),
        is_causal=tuple(axis[4] for axis in drawn),
        batch=draw(st.sampled_from([1, 2, 0] if empty else [1, 2])),
        heads=heads,
        heads_kv=heads_kv,
        head_dim=draw(st.sampled_from([1, 3, 5])),
        head_dim_v=draw(st.sampled_from([1, 2, 7])),
        scale=draw(st.sampled_from([None, 0.0, 0.5, -2.0])),
        rpb=not plain and draw(st.booleans()),
        extra=None if plain else draw(st.sampled_from([None, 1, 0, 3])),
        strided=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
    )
