"""Counted tiles in words, as a table and as JSON: what ``dinat-ref tiles`` prints."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from dinat_ref.analysis.kernel_tiles import end_to_end
from dinat_ref.analysis.tile_search import Choice


def by(numbers: Sequence[int]) -> str:
    """Write sizes as they are read.

    Example:
        >>> by((30, 48, 80))
        '30x48x80'
    """
    return "x".join(map(str, numbers))


def table(choices: Sequence[Choice], share: float | None = None, full_steps: float = 0.0) -> str:
    """Set choices as an aligned table.

    Args:
        share, full_steps: as ``end_to_end``, for the speedup of the whole run.
    Example:
        >>> from dinat_ref import Neighborhood
        >>> from dinat_ref.analysis.tile_search import stride_front
        >>> print(table(stride_front(Neighborhood((64, 64), 24), [((8, 8), (8, 8))])))
                                               key tiles visited    speedup, at most
        window  sparse  stride  tiles: q, kv   most  mean  of all   by tiles  by tokens   waste
        24x24     86 %     1x1      8x8, 8x8     25  18.1      64       2.56       7.11    50 %
        24x24     86 %     1x8      8x8, 8x8     15  12.8      64       4.27       7.11    29 %
        24x24     86 %     8x8      8x8, 8x8      9   9.0      64       7.11       7.11    none
    """
    head = ["window", "sparse", "stride", "tiles: q, kv", "most", "mean", "of all", "by tiles", "by tokens", "waste"]
    rows = [head + ["whole run"] * (share is not None)]
    for choice in choices:
        window, count = choice.neighborhood, choice.count
        row = [by(window.kernel_size), f"{100 * (1 - window.num_keys / window.num_tokens):.0f} %", by(window.stride)]
        row[-1] += f" d {by(window.dilation)}" if max(window.dilation) > 1 else ""
        row += [f"{by(choice.query_tile)}, {by(choice.key_tile)}", f"{count.worst:,}", f"{count.mean:,.1f}"]
        row += [f"{count.full_visits / count.query_tiles:,.0f}", f"{count.speedup:.2f}", f"{count.flop_speedup:.2f}"]
        row += [_percent(count.waste)]
        row += [f"{end_to_end(count.speedup, share, full_steps):.2f}"] if share is not None else []
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    gaps = [0, 2, 2, 2, 3, 2, 2, 3, 2, 3, 3]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("".join(" " * gap + cell for gap, cell in zip(gaps, cells, strict=False)).rstrip())
    at = [sum(gaps[:column]) + sum(widths[:column]) + gaps[column] for column in (4, 7)]
    return "\n".join(["key tiles visited".rjust(at[0] + 17).ljust(at[1]) + "speedup, at most", *lines])


def words(chosen: Choice, front: Sequence[Choice], flat: Sequence[Choice] = ()) -> str:
    """Say what a setting wastes, and what would waste less.

    Args:
        front: the strides of the window that are worth having.
        flat: the same setting on flattened tokens, if it was counted.
    Example:
        >>> from dinat_ref import Neighborhood
        >>> from dinat_ref.analysis.tile_search import stride_front
        >>> front = stride_front(Neighborhood((64, 64), 24), [((8, 8), (8, 8))])
        >>> print(words(front[0], front))
        Stride 1x1 wastes 50 % of the tiles it visits; 8x8 wastes none.
        At most it is 2.56 times as fast as full attention; 8x8 is 7.11.
        960 of 1,156 visited tiles need a mask.
        >>> print(words(front[-1], front))
        Stride 8x8 wastes none of the tiles it visits: the window is perfectly block-sparse.
    """
    count, stride, best = chosen.count, by(chosen.neighborhood.stride), front[-1]
    if count.is_perfect:
        lines = [f"Stride {stride} wastes none of the tiles it visits: the window is perfectly block-sparse."]
    elif best.count.speedup > count.speedup * (1 + 1e-9):
        better = by(best.neighborhood.stride)
        if (best.query_tile, best.key_tile) != (chosen.query_tile, chosen.key_tile):
            better += f" on tiles of {by(best.query_tile)} and {by(best.key_tile)}"
        wastes = f"Stride {stride} wastes {_percent(count.waste)} of the tiles it visits"
        lines = [f"{wastes}; {better} wastes {_percent(best.count.waste)}."]
        times = f"At most it is {count.speedup:.2f} times as fast as full attention"
        lines.append(f"{times}; {by(best.neighborhood.stride)} is {best.count.speedup:.2f}.")
    else:
        lines = [f"Stride {stride} wastes {_percent(count.waste)} of the tiles it visits; no stride is faster."]
    if not count.is_perfect:
        lines.append(f"{count.partial:,} of {count.total:,} visited tiles need a mask.")
    closer = [one for one in front if one.sharing < chosen.sharing and one.count.speedup >= count.speedup * (1 - 1e-9)]
    lines += [f"Stride {by(one.neighborhood.stride)} is as fast, and closer to a sliding window." for one in closer[:1]]
    for one in flat:
        shape = f"tiles of {by(chosen.query_tile)} and {by(chosen.key_tile)} waste {_percent(count.waste)}"
        lines.append(f"Flattened, it wastes {_percent(one.count.waste)}; {shape}.")
    return "\n".join(lines)


def as_json(choices: Sequence[Choice], tiling: str, share: float | None, full_steps: float) -> str:
    """Write choices with all that was counted.

    Example:
        >>> as_json([], "static", None, 0.0)
        '[]'
    """
    rows = []
    for choice in choices:
        count = choice.count
        row = {**asdict(choice.neighborhood), "query_tile": choice.query_tile, "key_tile": choice.key_tile}
        row |= {"tiling": tiling, "queries_sharing": choice.sharing, **asdict(count), "mean": count.mean}
        row |= {"speedup": count.speedup, "waste": count.waste, "perfectly_block_sparse": count.is_perfect}
        if share is not None:
            row["end_to_end"] = end_to_end(count.speedup, share, full_steps)
        rows.append(row)
    return json.dumps(rows, indent=1 if rows else None)


def _percent(share: float) -> str:
    """A share that is above zero never reads as zero."""
    return "none" if share <= 0 else f"{100 * share:.0f} %" if share >= 0.005 else "under 1 %"
