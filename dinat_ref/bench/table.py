"""Rows as aligned text, without the columns that nobody has filled."""

from collections.abc import Sequence
from typing import Any

from dinat_ref.bench.measure import Row
from dinat_ref.bench.model import ModelRow

Column = tuple[str, int, str, float]  # head, width, format, and what one unit is


def table(rows: Sequence[Row], against: str = "limit") -> str:
    """Set rows of the operator.

    Example:
        >>> rows = [Row("tiny", "tiled", 42, 5, 1.25, 2.0, faults=3), Row("tiny", "loops", skipped="too slow")]
        >>> print(table([*rows, Row("tiny", "gather", 42, 1, 12.5, 20.0, note="stopped after 1 of 5 rounds, forward")]))
        contender                 ms  / limit  faults
        tiled                   1.25     2.00       3
        loops             too slow
        gather                 12.50    20.00          stopped after 1 of 5 rounds, forward
    """
    head = f"/ {against}"
    ratio = max(9, len(head) + 2)
    columns: dict[str, Column] = {
        "milliseconds": ("ms", 10, ".2f", 1),
        "ratio": (head, ratio, ".2f", 1),
        "faults": ("faults", 8, ",", 1),
        "backward_milliseconds": ("fwd+bwd ms", 12, ".2f", 1),
        "backward_against": (head, ratio, ".2f", 1),
        "backward_ratio": ("/ fwd", 7, ".2f", 1),
        "plain_milliseconds": ("plain ms", 10, ".2f", 1),
        "plain_ratio": (head, ratio, ".2f", 1),
        "plain_faults": ("faults", 8, ",", 1),
        "megabytes": ("peak MB", 9, ".1f", 1),
        "query_sizes": ("/ query", 9, ".2f", 1),
        "weight_sizes": ("/ weights", 11, ".2f", 1),
        "backward_megabytes": ("fwd+bwd MB", 12, ".1f", 1),
    }
    return aligned(("contender",), rows, columns)


def model_table(rows: Sequence[ModelRow]) -> str:
    """Set rows of models.

    Example:
        >>> print(model_table([ModelRow("DiNAT-Mini", "float32", 19984174, 2713000000, 5, 50.0, 170.0)]))
        model             dtype              params M  GFLOPs  ms/image  images/s  fwd+bwd ms  images/s
        DiNAT-Mini        float32                20.0    2.71      50.0      20.0       170.0       5.9
    """
    columns: dict[str, Column] = {
        "parameters": ("params M", 9, ".1f", 1e6),
        "operations": ("GFLOPs", 8, ".2f", 1e9),
        "milliseconds": ("ms/image", 10, ".1f", 1),
        "images_per_second": ("images/s", 10, ".1f", 1),
        "backward_milliseconds": ("fwd+bwd ms", 12, ".1f", 1),
        "backward_images_per_second": ("images/s", 10, ".1f", 1),
    }
    return aligned(("model", "dtype"), rows, columns)


def side_by_side(rows: Sequence[ModelRow]) -> str:
    """Set rows of models once more, all dtypes of a model in one row, as Markdown: ms an image (images a second).

    Example:
        >>> rows = [ModelRow("ours", dtype, 1000000, 2500000000, 5, 50.0) for dtype in ("float32", "bfloat16")]
        >>> print(side_by_side(rows))
        | model | params M | GFLOPs | float32, forward | bfloat16, forward |
        | --- | --- | --- | --- | --- |
        | ours | 1.0 | 2.50 | 50.0 (20.0) | 50.0 (20.0) |
    """
    passes = {"forward": "milliseconds", "forward + backward": "backward_milliseconds"}
    passes = {name: field for name, field in passes.items() if any(getattr(row, field) for row in rows)}
    dtypes = list(dict.fromkeys(row.dtype for row in rows))
    heads = ["model", "params M", "GFLOPs", *(f"{dtype}, {name}" for dtype in dtypes for name in passes)]
    lines = [heads, ["---"] * len(heads)]
    for model in dict.fromkeys(row.model for row in rows if row.skipped is None):
        own = {row.dtype: row for row in rows if row.model == model}
        first = next(iter(own.values()))
        cells = [model, f"{first.parameters / 1e6:.1f}", f"{first.operations / 1e9:.2f}"]
        for dtype in dtypes:
            found = [getattr(own[dtype], field) for field in passes.values()]
            cells += ["" if value is None else f"{value:.1f} ({1e3 / value:.1f})" for value in found]
        lines.append(cells)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def aligned(names: Sequence[str], rows: Sequence[Any], columns: dict[str, Column]) -> str:
    """Set any rows: names to the left, numbers to the right, then whatever is to be said.

    Example:
        >>> columns = {"parameters": ("thousands", 11, ".1f", 1e3)}
        >>> print(aligned(["model"], [ModelRow("ours", "float32", 1000)], columns))
        model               thousands
        ours                      1.0
    """
    shown = {name: column for name, column in columns.items() if any(getattr(row, name) is not None for row in rows)}
    lines = ["".join(f"{name:<18}" for name in names) + "".join(f"{head:>{w}}" for head, w, _, _ in shown.values())]
    for row in rows:
        left = "".join(f"{getattr(row, name):<18}" for name in names)
        if row.skipped is not None:
            lines.append(left + row.skipped)
            continue
        cells = ""
        for name, (_, width, how, unit) in shown.items():
            value = getattr(row, name)
            cells += " " * width if value is None else f"{value / unit if unit != 1 else value:>{width}{how}}"
        lines.append((left + cells).rstrip() if row.note is None else f"{left}{cells}  {row.note}")
    return "\n".join(lines)
