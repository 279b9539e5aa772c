"""A plan as text: ranks as colours or letters with their halos hatched, and what it costs for more and more ranks."""

import os
import string
from typing import TextIO

from dinat_ref.parallel.plan import MOST_RANKS, Plan, even_split, received_bytes

COLOURS = (33, 208, 34, 199, 220, 99, 44, 160)  # of 256, neighbours far apart
MOST_COLUMNS = 48
MOST_ROWS = 16
MOST_SOURCES = 3


def is_coloured(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours, and nobody asked for none (https://no-color.org).

    Example:
        >>> import io
        >>> is_coloured(io.StringIO())
        False
    """
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def picture(plan: Plan, coloured: bool = False) -> str:
    """Draw a row for each rank: AA a token of its own, /B a key that rank B sends, . a token that it does not need.

    A long axis is drawn in columns of several tokens; a column is hatched when a single one of them travels.

    Example:
        >>> print(picture(Plan((4, 1, 0, 3), kernel_size=3)))
        rank  tokens
           0  AAAAAAAA/B . . .
           1   . . ./ABB/D . .
           2   . . . . . . . .
           3   . . . ./BDDDDDD
    """
    count = min(plan.length, MOST_COLUMNS)
    edges = [column * plan.length // count for column in range(count + 1)]
    columns = [range(edges[column], edges[column + 1]) for column in range(count)]
    note = f"  (a column stands for up to {-(-plan.length // count):,})" if count < plan.length else ""
    lines = [f"rank  tokens{note}"]
    for rank in _shown(len(plan.sizes)):
        cells = [_cell(plan, rank, column, coloured) for column in columns] if rank is not None else ["..."]
        lines.append(f"{'' if rank is None else rank:>4}  {''.join(cells)}")
    return "\n".join(lines)


def _cell(plan: Plan, rank: int, column: range, coloured: bool) -> str:
    """Two characters: the rank's own colour, the hatched one of a rank that sends, or a dot."""
    if _common(column, plan.shards[rank]):
        return f"\033[48;5;{COLOURS[rank % len(COLOURS)]}m  \033[0m" if coloured else 2 * _letter(rank)
    if not plan.needed(rank, column):
        return " ."
    overlaps = ((source, _common(column, shard)) for source, shard in enumerate(plan.shards))
    source = next(source for source, tokens in overlaps if tokens and plan.needed(rank, tokens))
    return f"\033[38;5;{COLOURS[source % len(COLOURS)]}m//\033[0m" if coloured else "/" + _letter(source)


def _common(one: range, other: range) -> range:
    """The tokens of two stretches of the axis."""
    return range(max(one.start, other.start), min(one.stop, other.stop))


def _letter(rank: int) -> str:
    """A, B, ..., Z, A, ..."""
    return string.ascii_uppercase[rank % 26]


def _shown(ranks: int) -> list[int | None]:
    """The ranks that have a line, None for those left out in the middle."""
    half = MOST_ROWS // 2
    return [*range(ranks)] if ranks <= MOST_ROWS else [*range(half), None, *range(ranks - half, ranks)]


def rank_table(plan: Plan) -> str:
    """List how many keys travel to each rank and from whom, and how many more one stretch of tokens would bring.

    Example:
        >>> print(rank_table(Plan((4, 4), kernel_size=2, dilation=4)))
        rank      owns      halo     spare  keys from ranks
           0         4         4         0  4 from 1
           1         4         4         0  4 from 0
    """
    lines = [f"rank{'owns':>10}{'halo':>10}{'spare':>10}  keys from ranks"]
    for rank in _shown(len(plan.sizes)):
        if rank is None:
            lines.append(" ...")
            continue
        sources = plan.sources(rank)
        named = [f"{count:,} from {source}" for source, count in list(sources.items())[:MOST_SOURCES]]
        named += [f"and from {len(sources) - MOST_SOURCES:,} more"] if len(sources) > MOST_SOURCES else []
        numbers = f"{plan.sizes[rank]:>10,}{plan.halo(rank):>10,}{plan.spare(rank):>10,}"
        lines.append(f"{rank:>4}{numbers}  {', '.join(named) or '-'}")
    return "\n".join(lines)


def size_table(plan: Plan, heads: int, head_dim: int, element_size: int) -> str:
    """Count what the busiest rank receives for 1, 2, 4, ... ranks with equal shards, and in the plan itself.

    Example:
        >>> print(size_table(Plan((4, 4), kernel_size=3), heads=2, head_dim=1, element_size=1))
           ranks     tokens       halo      senders      halo bytes    all-gather         heads
               1          8          0            0               0             0             0
               2          4          1            1               4            16            16
               4          2          2            2               8            24             -
               8          1          2            2               8            28             -
    """
    heads_of = ("ranks", "tokens", "halo", "senders", "halo bytes", "all-gather", "heads")
    lines = ["{:>8}{:>11}{:>11}{:>13}{:>16}{:>14}{:>14}".format(*heads_of)]
    powers = [2**power for power in range(13) if 2**power <= min(plan.length, MOST_RANKS)]
    rows = {even_split(plan.length, ranks): str(ranks) for ranks in powers}
    rows.setdefault(plan.sizes, f"{len(plan.sizes)} *")
    for sizes, name in sorted(rows.items(), key=lambda row: len(row[0])):
        other = Plan(sizes, plan.kernel_size, plan.stride, plan.dilation, plan.is_causal)
        busiest = max(range(len(sizes)), key=other.halo)
        numbers = received_bytes(other, heads, head_dim, element_size)
        by_heads = f"{numbers['heads']:,}" if len(sizes) <= heads else "-"
        counts = f"{max(sizes):>11,}{other.halo(busiest):>11,}{len(other.sources(busiest)):>13,}"
        lines.append(f"{name:>8}{counts}{numbers['halo']:>16,}{numbers['all-gather']:>14,}{by_heads:>14}")
    if "*" in rows[plan.sizes]:
        lines.append("* the plan above")
    return "\n".join(lines)
