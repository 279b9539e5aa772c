"""Which keys travel when the tokens of one axis are split over several ranks, in plain integers.

Each rank owns a stretch of the axis, its shard, and computes the outputs of the queries in it. The keys that their
windows reach outside the shard, the halo, come from the ranks that own them. Fold the axis into rows of ``dilation``
tokens, and each dilation group is a column::

    length 12, dilation 3        0  1  2      the shard 4 5 6 7 of a causal kernel of 2 needs
                                 3  4  5      rows 0 .. 1 of column 2 (query 5),
                                 6  7  8      rows 0 .. 2 of column 1 (queries 4 and 7),
                                 9 10 11      rows 1 .. 2 of column 0 (query 6)

Inside a group windows never start or end earlier than those of the queries before, and leave no gap, for a stride is
at most the kernel. So a group's keys reach from the first key of the shard's first query to the last key of its last
one. Neighbouring columns mostly need the same rows: a rank needs a few rectangles, ``Band``, however long the axis.

Nothing is rounded up: a plan brings every key of every window, once, and no other key. Try it::

    python -m dinat_ref.parallel.plan 24 5 --dilation 2 --ranks 4
"""

import argparse
import itertools
import sys
from dataclasses import dataclass, field
from typing import NoReturn

from dinat_ref.command import CommandError
from dinat_ref.window import check_axis, check_integer, window

MOST_RANKS = 4096  # of the command

EXAMPLES = """examples:
  python -m dinat_ref.parallel.plan 24 5 --ranks 4                               one halo on either side
  python -m dinat_ref.parallel.plan 24 5 --dilation 4 --ranks 4                  a range for each dilation group
  python -m dinat_ref.parallel.plan 24 5 --causal --split 9,0,3,12               uneven shards, one of them empty
  python -m dinat_ref.parallel.plan 1048576 127 --dilation 64 --ranks 4096       past the machine at hand

spare: keys more that a single stretch of tokens would bring, as a halo does that knows no dilation groups.

Bytes are those that the busiest rank receives in one forward pass, for one line of tokens: multiply by the batch and
by the tokens of the other axes. halo: keys and values of the plan. all-gather: all keys and values of the others.
heads: queries, keys and values from tokens to heads and outputs back, as an all-to-all; needs a head for each rank.
"""


@dataclass(frozen=True)
class Band:
    """The same rows of neighbouring dilation groups, in an axis that is folded into rows of ``dilation`` tokens.

    Example:
        >>> band = Band(groups=range(0, 2), rows=range(1, 4), dilation=3)
        >>> band.within(range(12)), band.count(range(12)), band.count(range(4, 8))
        ([range(3, 10, 3), range(4, 11, 3)], 6, 3)
    """

    groups: range
    rows: range
    dilation: int

    @property
    def first(self) -> int:
        """The first token."""
        return self.groups[0] + self.dilation * self.rows[0]

    @property
    def last(self) -> int:
        """The last token."""
        return self.groups[-1] + self.dilation * self.rows[-1]

    def before(self, token: int) -> int:
        """How many tokens of the band lie before a token."""
        row, group = divmod(token, self.dilation)
        whole_rows = min(max(row - self.rows.start, 0), len(self.rows))
        begun_row = min(max(group - self.groups.start, 0), len(self.groups)) if row in self.rows else 0
        return whole_rows * len(self.groups) + begun_row

    def count(self, tokens: range) -> int:
        """How many tokens of a stretch of the axis are in the band."""
        return self.before(tokens.stop) - self.before(tokens.start)

    def within(self, tokens: range) -> list[range]:
        """The band's tokens in a stretch of the axis, a range for each dilation group that has one there."""
        ranges = []
        for group in self.groups:
            first = max(self.rows.start, -(-(tokens.start - group) // self.dilation))
            stop = min(self.rows.stop, -(-(tokens.stop - group) // self.dilation))
            if first < stop:
                last = group + self.dilation * (stop - 1)
                ranges.append(range(group + self.dilation * first, last + 1, self.dilation))
        return ranges


def bands(
    queries: range, length: int, kernel_size: int, stride: int = 1, dilation: int = 1, is_causal: bool = False
) -> list[Band]:
    """Unite the windows of a stretch of queries, by the first and the last query of each dilation group in it.

    The groups fall into at most four runs that need the same rows, by where the stretch begins and ends in a row of
    ``dilation`` tokens and where the axis does.

    Example:
        >>> bands(range(4, 8), length=12, kernel_size=2, dilation=3, is_causal=True)  # doctest: +NORMALIZE_WHITESPACE
        [Band(groups=range(0, 1), rows=range(1, 3), dilation=3),
         Band(groups=range(1, 2), rows=range(0, 3), dilation=3),
         Band(groups=range(2, 3), rows=range(0, 2), dilation=3)]
    """
    found = []
    cuts = sorted({0, queries.start % dilation, queries.stop % dilation, length % dilation, dilation})
    for groups in itertools.starmap(range, itertools.pairwise(cuts)):
        first = queries.start + (groups.start - queries.start) % dilation
        last = queries.stop - 1 - (queries.stop - 1 - groups.start) % dilation
        if first <= last:
            start = window(first, length, kernel_size, stride, dilation, is_causal)[0] // dilation
            end = window(last, length, kernel_size, stride, dilation, is_causal)[-1] // dilation
            found.append(Band(groups, range(start, end + 1), dilation))
    return found


def even_split(length: int, ranks: int) -> tuple[int, ...]:
    """Split an axis as ``torch.chunk`` and DTensor do: equal shards, then a smaller one, then empty ones.

    Example:
        >>> even_split(10, ranks=4), even_split(5, ranks=4)
        ((3, 3, 3, 1), (2, 2, 1, 0))
    """
    size = -(-length // ranks)
    return tuple(min(size, max(length - rank * size, 0)) for rank in range(ranks))


@dataclass(frozen=True)
class Plan:
    """Who sends which keys to whom, on one axis.

    Args:
        sizes: number of tokens that each rank owns, in the order of the axis; 0 is allowed. Their sum is the length.
        kernel_size, stride, dilation, is_causal: as ``window``.
    Raises:
        TypeError: an argument is not an integer (is_causal: not a bool).
        ValueError: an argument is outside its limits.
    Example:
        >>> plan = Plan(sizes=(4, 1, 0, 5), kernel_size=5)
        >>> plan.receives(1)  # the window of query 4, over both neighbours
        {0: [range(2, 4)], 3: [range(5, 7)]}
        >>> plan.receives(3)  # shifted at the edge: query 9 attends 5 .. 9
        {0: [range(3, 4)], 1: [range(4, 5)]}
    """

    sizes: tuple[int, ...]
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    is_causal: bool = False
    shards: tuple[range, ...] = field(init=False, repr=False, compare=False)
    needs: tuple[list[Band], ...] = field(init=False, repr=False, compare=False)  # of each rank, its own keys included

    def __post_init__(self) -> None:
        """Check the arguments, lay the shards end to end, and unite the windows of each."""
        sizes = tuple(check_integer(f"sizes[{rank}]", size) for rank, size in enumerate(self.sizes))
        for rank, size in enumerate(sizes):
            if size < 0:
                raise ValueError(f"sizes[{rank}] must be at least 0, got {size}")
        axis = check_axis(sum(sizes), self.kernel_size, self.stride, self.dilation, self.is_causal)
        stops = tuple(itertools.accumulate(sizes))
        shards = tuple(range(stop - size, stop) for size, stop in zip(sizes, stops, strict=True))
        names = ("kernel_size", "stride", "dilation", "is_causal")
        needs = tuple(bands(shard, *axis) for shard in shards)
        values = {"sizes": sizes, **dict(zip(names, axis[1:], strict=True)), "shards": shards, "needs": needs}
        for name, value in values.items():
            object.__setattr__(self, name, value)  # how a frozen dataclass fills its own fields

    @property
    def length(self) -> int:
        """The number of tokens of the axis."""
        return sum(self.sizes)

    def needed(self, rank: int, tokens: range) -> int:
        """How many keys of a stretch of the axis a rank needs."""
        return sum(band.count(tokens) for band in self.needs[rank])

    def halo(self, rank: int) -> int:
        """How many keys travel to a rank."""
        return self.needed(rank, range(self.length)) - self.needed(rank, self.shards[rank])

    def sources(self, rank: int) -> dict[int, int]:
        """How many keys travel to a rank from each rank that sends it any."""
        counts = {source: self.needed(rank, self.shards[source]) for source in range(len(self.sizes)) if source != rank}
        return {source: count for source, count in counts.items() if count}

    def receives(self, rank: int) -> dict[int, list[range]]:
        """Which keys travel to a rank, by the rank that owns them: a range for each dilation group."""
        return {source: self._piece(rank, source) for source in self.sources(rank)}

    def sends(self, rank: int) -> dict[int, list[range]]:
        """Which keys travel from a rank, by the rank that needs them."""
        targets = (target for target in range(len(self.sizes)) if target != rank)
        return {target: piece for target in targets if (piece := self._piece(target, rank))}

    def _piece(self, rank: int, source: int) -> list[range]:
        """The keys that one rank needs of another one's, group by group."""
        return [keys for band in self.needs[rank] for keys in band.within(self.shards[source])]

    def spare(self, rank: int) -> int:
        """How many keys more would travel as one stretch of tokens, as a halo that knows no dilation groups does."""
        own = self.shards[rank]
        first = min([own.start, *(band.first for band in self.needs[rank])])
        last = max([own.stop - 1, *(band.last for band in self.needs[rank])])
        return last + 1 - first - len(own) - self.halo(rank)


def share_heads(heads: int, ranks: int) -> tuple[int, ...]:
    """Share heads as evenly as can be: the first ranks have one more where there is a rest.

    Example:
        >>> share_heads(5, ranks=4)
        (2, 1, 1, 1)
    """
    return tuple(heads // ranks + (rank < heads % ranks) for rank in range(ranks))


def received_bytes(
    plan: Plan,
    heads: int,
    head_dim: int,
    element_size: int,
    heads_kv: int | None = None,
    head_dim_v: int | None = None,
) -> dict[str, int]:
    """How many bytes the busiest rank receives in a forward pass, for one line of tokens, by three ways to do it.

    With n the tokens and h of H query heads and h' of H' key heads of a rank (it has whole groups of them), of L
    tokens in all, D = head_dim, and E = head_dim_v::

        halo         H' (D + E) * keys of the halo                            keys, values
        all-gather   H' (D + E) * (L - n)                                     keys, values
        heads        (h D + h' (D + E)) * (L - n)  +  n E * (H - h)           queries, keys, values; outputs back

    Example:
        >>> received_bytes(Plan((8, 8), kernel_size=3), heads=2, head_dim=4, element_size=2)
        {'halo': 32, 'all-gather': 256, 'heads': 256}
    """
    heads_kv = heads if heads_kv is None else heads_kv
    head_dim_v = head_dim if head_dim_v is None else head_dim_v
    ranks, pair, group_size = range(len(plan.sizes)), head_dim + head_dim_v, heads // heads_kv
    shares = [(group_size * own, own) for own in share_heads(heads_kv, len(plan.sizes))]
    others = [plan.length - size for size in plan.sizes]
    by_heads = [
        (own * head_dim + own_kv * pair) * other + size * head_dim_v * (heads - own)
        for (own, own_kv), other, size in zip(shares, others, plan.sizes, strict=True)
    ]
    numbers = {
        "halo": heads_kv * pair * max(plan.halo(rank) for rank in ranks),
        "all-gather": heads_kv * pair * max(others),
        "heads": max(by_heads),
    }
    return {way: number * element_size for way, number in numbers.items()}


def main(argv: list[str] | None = None) -> int:
    """Print the picture and the tables of a plan; the exit status is 2 when the arguments are not legal.

    Raises:
        SystemExit: after --help.
    Example:
        >>> main(["5", "3", "--dilation", "2", "--ranks", "2"])
        2
    """
    parser = Parser(
        prog="python -m dinat_ref.parallel.plan",
        description="Plan which keys travel when the tokens of one axis are split over ranks.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("length", type=int, metavar="LENGTH", help="number of tokens on the axis")
    parser.add_argument("kernel_size", type=int, metavar="KERNEL", help="number of keys of each query")
    parser.add_argument("--stride", type=int, default=1, help="number of queries that share a window (default 1)")
    parser.add_argument("--dilation", type=int, default=1, help="distance between keys in tokens (default 1)")
    parser.add_argument("--causal", action="store_true", help="attend nothing behind the query")
    split = parser.add_mutually_exclusive_group()
    split.add_argument("--ranks", type=int, default=4, metavar="N", help="shards, equal ones (default 4)")
    split.add_argument("--split", metavar="A,B,...", help="tokens of each rank, instead: 9,0,3,12")
    parser.add_argument("--heads", type=int, default=8, help="heads of queries, keys and values (default 8)")
    parser.add_argument("--head-dim", type=int, default=32, help="numbers of a head (default 32)")
    parser.add_argument("--bytes", type=int, default=4, help="of a number (default 4)")
    try:
        print(_report(parser.parse_args(argv)))
    except (CommandError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    return 0


class Parser(argparse.ArgumentParser):
    """A parser that tells bad input in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise what ``main`` prints."""
        raise CommandError(message)


def _report(args: argparse.Namespace) -> str:
    """Check everything, then draw and count."""
    from dinat_ref.parallel.picture import (
        is_coloured,
        picture,
        rank_table,
        size_table,
    )  # they draw what is planned here

    for name in ("ranks", "heads", "head_dim", "bytes"):
        if getattr(args, name) < 1:
            raise CommandError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    axis = (args.kernel_size, args.stride, args.dilation, args.causal)
    check_axis(args.length, *axis)
    ranks = args.ranks if args.split is None else args.split.count(",") + 1
    if ranks > MOST_RANKS:
        raise CommandError(f"there may be at most {MOST_RANKS:,} ranks, got {ranks:,}")
    sizes = even_split(args.length, ranks) if args.split is None else _sizes(args.split, args.length)
    plan = Plan(sizes, *axis)
    numbers = (args.heads, args.head_dim, args.bytes)
    parts = [picture(plan, is_coloured(sys.stdout)), rank_table(plan), size_table(plan, *numbers)]
    return "\n\n".join(parts)


def _sizes(text: str, length: int) -> tuple[int, ...]:
    """The numbers of --split."""
    try:
        sizes = tuple(int(size) for size in text.split(","))
    except ValueError:
        raise CommandError(f"--split must be numbers of tokens such as 9,0,3,12, got {text!r}") from None
    if min(sizes) < 0 or sum(sizes) != length:
        raise CommandError(f"--split must be {length:,} tokens in all (LENGTH), none negative, got {text}")
    return sizes


if __name__ == "__main__":
    sys.exit(main())
