"""The drawing of a failure: the window that the definition gives beside the one that the kernel has."""

from torch import Tensor

from dinat_ref.testing.problem import Problem

LEGEND = "Q the query  # a key  . not attended  ! the query, not attended by itself"


def worst_query(expected: Tensor, got: Tensor) -> int:
    """The query whose window differs in the most keys, the first of several.

    Shapes:
        expected, got: bool [N, N]
    Example:
        >>> import torch
        >>> worst_query(torch.eye(3).bool(), torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 1]]).bool())
        1
    """
    return int((expected ^ got).sum(1).argmax())


def draw_windows(problem: Problem, expected: Tensor, got: Tensor | None) -> str:
    """Draw both windows as text: all queries of one axis, the worst query of more axes.

    Shapes:
        expected, got: bool [N, N]
    Example:
        >>> problem = Problem("1d 3 k2 d1 h1 e1 f32 seed0")
        >>> mask = problem.neighborhood.mask()
        >>> print(draw_windows(problem, mask, mask.flip(0)))
        Q the query  # a key  . not attended  ! the query, not attended by itself
        expected       kernel
        0  Q # .       0  ! # #
        1  # Q .       1  # Q .
        2  . # Q       2  # # !
    """
    if got is None or got.shape != expected.shape:
        got = None
    if problem.ndim == 1:
        rows = [f"{i:<3}" for i in range(len(expected))]
        left = [head + _row(row, i) for i, (head, row) in enumerate(zip(rows, expected, strict=True))]
        right = (
            [head + _row(row, i) for i, (head, row) in enumerate(zip(rows, got, strict=True))]
            if got is not None
            else []
        )
        return "\n".join([LEGEND, *_beside(["expected", *left], ["kernel", *right] if right else [])])
    query = worst_query(expected, got) if got is not None else 0
    coordinates = problem.neighborhood.coordinates(query)
    lines = [LEGEND, f"the window of query {coordinates}" + (", plane by plane" if problem.ndim > 2 else "")]
    lines += _beside(
        ["expected", *_map(problem, expected[query], query)],
        ["kernel", *_map(problem, got[query], query)] if got is not None else [],
    )
    return "\n".join(lines)


def _row(row: Tensor, query: int) -> str:
    cells = []
    for key, attended in enumerate(row.tolist()):
        cells.append(("Q" if attended else "!") if key == query else ("#" if attended else "."))
    return " ".join(cells)


def _map(problem: Problem, row: Tensor, query: int) -> list[str]:
    """The layout of a query's window, a line for each row of tokens, a blank line between planes."""
    cells, width, lines = _row(row, query).split(" "), problem.layout[-1], []
    for start in range(0, len(cells), width):
        if problem.ndim > 2 and start and start % (width * problem.layout[-2]) == 0:
            lines.append("")
        lines.append(" ".join(cells[start : start + width]))
    return lines


def _beside(left: list[str], right: list[str]) -> list[str]:
    width = max(len(line) for line in left) + 7
    right = right + [""] * (len(left) - len(right))
    return [f"{one:<{width}}{other}".rstrip() for one, other in zip(left, right, strict=False)]
