"""Puzzles: parts of neighborhood attention to write oneself, with checks that draw the smallest case that fails.

A check calls your function with every small problem, smallest first, and compares it with the definition. What it says
is a ``Verdict``; a notebook shows it as a picture of what was wanted and what came::

    def my_window(i, length, kernel_size):
        return [i]

    check_window(my_window)

The first problems are the ones that explain a mistake: one token more, and the drawing is harder to read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import numpy as np
import torch
from matplotlib.colors import Normalize
from torch import Tensor

from dinat_ref.neighborhood import Neighborhood
from dinat_ref.viz.grid import draw_cells, set_view
from dinat_ref.viz.maps import draw_map
from dinat_ref.viz.theme import GRID, INK, KEY, QUERY, TOKEN, Picture, housed, new_figure
from dinat_ref.viz.windows import mark_query
from dinat_ref.window import dilation_group, leader, window

LONGEST = 8  # of the axes that are tried
MOST = 1000  # positions that are looked at: an answer may have no end

Positions = Callable[..., Any]
Attention = Callable[..., Tensor]


@dataclass(frozen=True)
class Verdict:
    """What a check found: a sentence, and a drawing where something is wrong.

    Example:
        >>> check_window(window)
        solved: all 204 cases
    """

    text: str
    picture: Picture | None = None

    @property
    def solved(self) -> bool:
        """Whether nothing is wrong."""
        return self.picture is None

    def __repr__(self) -> str:
        """The sentence."""
        return self.text

    def _repr_png_(self) -> tuple[bytes, dict[str, int]] | None:
        """The drawing, for a notebook."""
        return None if self.picture is None else self.picture._repr_png_()


@dataclass(frozen=True)
class Case:
    """A call of a puzzle's function, what it should return, and how to draw it: a row of tokens and one of them."""

    arguments: dict[str, int]
    length: int
    token: int
    wanted: tuple[int, ...]


def check_window(function: Positions) -> Verdict:
    """Puzzle 1: ``function(i, length, kernel_size)`` gives the positions that query i attends.

    Example:
        >>> check_window(lambda i, length, kernel_size: [i])
        not yet: i = 0, length = 2, kernel_size = 2: wanted 0 1, got 0
    """
    cases = [
        Case({"i": i, "length": length, "kernel_size": kernel_size}, length, i, tuple(window(i, length, kernel_size)))
        for length in range(1, LONGEST + 1)
        for kernel_size, i in product(range(1, length + 1), range(length))
    ]
    return _check_positions(function, cases)


def check_causal_leader(function: Positions) -> Verdict:
    """Puzzle 2: ``function(m, n, stride)`` gives the leader of query m among n, which is the last of its stride group.

    Example:
        >>> check_causal_leader(lambda m, n, stride: leader(m, n, stride, is_causal=True)).solved
        True
    """
    cases = [
        Case({"m": m, "n": n, "stride": stride}, n, m, (leader(m, n, stride, is_causal=True),))
        for n in range(1, LONGEST + 1)
        for stride, m in product(range(1, n + 1), range(n))
    ]
    return _check_positions(lambda m, n, stride: [function(m, n, stride)], cases)


def check_group(function: Positions) -> Verdict:
    """Puzzle 3: ``function(i, length, dilation)`` gives all positions of the dilation group that i belongs to.

    Example:
        >>> check_group(lambda i, length, dilation: range(i, length, dilation))
        not yet: i = 1, length = 2, dilation = 1: wanted 0 1, got 1
    """
    cases = [
        Case({"i": i, "length": length, "dilation": dilation}, length, i, _members(i, length, dilation))
        for length in range(1, LONGEST + 1)
        for dilation, i in product(range(1, length + 1), range(length))
    ]
    return _check_positions(function, cases)


def check_attended_by(function: Positions) -> Verdict:
    """Puzzle 5: ``function(j, length, kernel_size)`` gives the queries that attend key j.

    Example:
        >>> check_attended_by(window)  # right in the middle of an axis, and wrong at its edges
        not yet: j = 1, length = 3, kernel_size = 2: wanted 0 1 2, got 0 1
    """
    cases = [
        Case(
            {"j": j, "length": length, "kernel_size": kernel_size},
            length,
            j,
            tuple(Neighborhood((length,), kernel_size).attended_by((j,))),
        )
        for length in range(1, LONGEST + 1)
        for kernel_size, j in product(range(1, length + 1), range(length))
    ]
    return _check_positions(function, cases)


def check_gather(function: Attention) -> Verdict:
    """Puzzle 4: ``function(query, key, value, indices)`` attends, with the keys of query n in row n of indices.

    Shapes:
        function: query [N, D], key [N, D], value [N, Dv], indices [N, K] to output [N, Dv]
    Example:
        >>> check_gather(lambda query, key, value, indices: value[indices].mean(1)).solved
        False
    """

    def kernel(query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int) -> Tensor:
        layout = query.shape[:2]
        indices = Neighborhood(layout, kernel_size, dilation=dilation).indices()
        return function(query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1), indices).unflatten(0, layout)

    return check_attention(kernel)


def check_attention(function: Attention) -> Verdict:
    """Puzzles 6 to 8: ``function(query, key, value, kernel_size, dilation)`` attends a layout of two axes.

    There is one head. The values are the identity matrix, so that the output is the weights.

    Shapes:
        function: query [X, Y, D], key [X, Y, D], value [X, Y, Dv] to output [X, Y, Dv]
    Example:
        >>> check_attention(lambda query, key, value, kernel_size, dilation: value)
        not yet: layout 2 x 3, kernel_size = 2, dilation = 1: the weights of query (0, 0) are wrong
    """
    problems = [((2, 3), 2, 1), ((3, 3), 3, 1), ((4, 5), 3, 1), ((4, 6), 2, 2), ((5, 7), 2, 2), ((7, 6), 3, 2)]
    for layout, kernel_size, dilation in problems:
        neighborhood = Neighborhood(layout, kernel_size, dilation=dilation)
        number = neighborhood.num_tokens
        generator = torch.Generator().manual_seed(number)
        query, key = torch.randn(2, *layout, 2, generator=generator, dtype=torch.float64)
        value = torch.eye(number, dtype=torch.float64).unflatten(0, layout)
        scores = query.flatten(0, 1) @ key.flatten(0, 1).T * 2**-0.5  # [N, N]
        wanted = scores.masked_fill(~neighborhood.mask(), -torch.inf).softmax(-1)
        where = f"layout {layout[0]} x {layout[1]}, kernel_size = {kernel_size}, dilation = {dilation}"
        try:
            got = function(query, key, value, kernel_size, dilation).reshape(number, number)
            wrong = ~torch.isclose(got, wanted, rtol=1e-9, atol=1e-9).all(-1)  # [N]
        except Exception as error:
            return Verdict(f"not yet: {where}: {_said(error)}", _draw_weights(layout, (0, 0), wanted[0], None, where))
        if wrong.any():
            first = int(wrong.nonzero()[0])
            token = neighborhood.coordinates(first)
            picture = _draw_weights(layout, token, wanted[first], got[first], where)
            return Verdict(f"not yet: {where}: the weights of query {token} are wrong", picture)
    return Verdict(f"solved: all {len(problems)} layouts")


def _members(i: int, length: int, dilation: int) -> tuple[int, ...]:
    """The positions of a dilation group."""
    return tuple(range(dilation_group(i, length, dilation)[0], length, dilation))


def _check_positions(function: Positions, cases: list[Case]) -> Verdict:
    """Compare positions, case by case."""
    for case in cases:
        try:
            answer = list(islice(function(*case.arguments.values()), MOST + 1))
            got = tuple(sorted(int(position) for position in answer))
            said = f"more than {MOST} positions" if len(got) > MOST else " ".join(map(str, got)) or "nothing"
        except Exception as error:  # whatever a first attempt raises is an answer, too
            got, said = (), _said(error)
        if got != case.wanted:
            call = ", ".join(f"{name} = {value}" for name, value in case.arguments.items())
            text = f"not yet: {call}: wanted {' '.join(map(str, case.wanted))}, got {said}"
            return Verdict(text, _draw_positions(case, call, got[:MOST], said))
    return Verdict(f"solved: all {len(cases)} cases")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"


@housed
def _draw_positions(case: Case, call: str, got: tuple[int, ...], said: str) -> Picture:
    """Two rows of tokens: what was wanted and what came."""
    first, behind = max(min([0, *got]), -20), min(max([case.length, *(position + 1 for position in got)]), 30)
    figure, grid = new_figure(2, 1, size=(max(4.0, 0.45 * (behind - first)), 2.2))
    wanted = f"{call}\nwanted {' '.join(map(str, case.wanted))}"
    for axes, title, positions in zip(grid.flat, (wanted, f"got {said}"), (case.wanted, got), strict=True):
        draw_cells(axes, [(0, i) for i in range(case.length)], facecolor=TOKEN, edgecolor=GRID, linewidth=0.6)
        draw_cells(axes, [(0, i) for i in positions], facecolor=KEY, edgecolor="white", linewidth=0.6, zorder=1.1)
        axes.plot([case.token], [0.2], marker="o", markersize=6, color=QUERY, markeredgecolor="white", zorder=5)
        for i in range(case.length):
            axes.text(i, -0.25, str(i), ha="center", va="center", fontsize=7, color="white" if i in positions else INK)
        set_view(axes, ((0, 1), (first, behind)))
        axes.set_anchor("W")
        axes.set_title(title, fontsize=9)
    assert isinstance(figure, Picture)
    return figure


@housed
def _draw_weights(
    layout: tuple[int, int], token: tuple[int, ...], wanted: Tensor, got: Tensor | None, where: str
) -> Picture:
    """Two maps: the weights that were wanted and those that came."""
    figure, grid = new_figure(1, 2, size=(6.5, 2.8))
    norm = Normalize(0, float(wanted.max()))
    for axes, name, weights in zip(grid.flat, (f"{where}\nwanted by query {token}", "got"), (wanted, got), strict=True):
        numbers = np.full(layout, np.nan) if weights is None else weights.detach().reshape(layout).numpy()
        draw_map(numbers, axes, title=name, label="weight" if name == "got" else None, norm=norm)
        axes.title.set_fontsize(9)
        mark_query(axes, (token[0], token[1]))
    assert isinstance(figure, Picture)
    return figure
