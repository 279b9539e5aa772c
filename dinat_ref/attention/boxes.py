"""Two boxes of a layout: the tokens that ask, and the tokens whose keys are at hand.

Usually both are the whole layout. A process that owns some rows of a large picture asks for those alone, and holds
beside them the rows that their windows reach into; a decoder asks for its last token. Windows stay those of the whole
layout: nothing is shifted at the edge of a box.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dinat_ref.neighborhood import Neighborhood, per_axis
from dinat_ref.window import check_integer


@dataclass(frozen=True)
class Boxes:
    """The positions on each axis whose tokens are queries, and those whose tokens are keys; both are consecutive.

    Tokens are numbered row-major within their box.

    Example:
        >>> boxes = Boxes(queries=(range(2, 4), range(5)), keys=(range(1, 5), range(5)))
        >>> boxes.query_layout, boxes.key_layout
        ((2, 5), (4, 5))
    """

    queries: tuple[range, ...]
    keys: tuple[range, ...]

    @property
    def query_layout(self) -> tuple[int, ...]:
        """The number of queries on each axis."""
        return tuple(len(positions) for positions in self.queries)

    @property
    def key_layout(self) -> tuple[int, ...]:
        """The number of keys on each axis."""
        return tuple(len(positions) for positions in self.keys)


def whole(neighborhood: Neighborhood) -> Boxes:
    """Every token is a query and a key.

    Example:
        >>> whole(Neighborhood((5,), 3))
        Boxes(queries=(range(0, 5),), keys=(range(0, 5),))
    """
    return Boxes(neighborhood.part(), neighborhood.part())


def check_boxes(
    neighborhood: Neighborhood,
    query_start: int | Sequence[int],
    query_layout: Sequence[int],
    key_start: int | Sequence[int],
    key_layout: Sequence[int],
) -> Boxes:
    """Raise unless both boxes lie in the layout and the keys hold all windows of the queries.

    Args:
        query_start, key_start: the position of the box's first token on each axis.
        query_layout, key_layout: the number of tokens of the box on each axis.
    Raises:
        TypeError: an argument is not an integer.
        ValueError: a box that is not in the layout, or a window that is not among the keys.
    Example:
        >>> check_boxes(Neighborhood((9,), 3), query_start=4, query_layout=(2,), key_start=4, key_layout=(4,))
        Traceback (most recent call last):
        ValueError: key on axis 0 must hold the windows of the queries, positions 3 .. 6, got 4 .. 7
    """
    layout = neighborhood.layout
    ranges = []
    for name, starts, sizes in (("query", query_start, query_layout), ("key", key_start, key_layout)):
        box = []
        for axis, (start, size) in enumerate(zip(per_axis(f"{name}_start", starts, layout), sizes, strict=True)):
            start = check_integer(f"{name}_start on axis {axis}", start)
            if start < 0 or start + size > layout[axis]:
                limits = f"lie in 0 .. {layout[axis] - 1} (length - 1)"
                raise ValueError(f"{name} on axis {axis} must {limits}, got {start} .. {start + size - 1}")
            box.append(range(start, start + size))
        ranges.append(tuple(box))
    queries, keys = ranges
    if all(queries):
        for axis, (needed, held) in enumerate(zip(neighborhood.reach(queries), keys, strict=True)):
            if needed.start < held.start or needed.stop > held.stop:
                asked, got = (f"{x.start} .. {x.stop - 1}" for x in (needed, held))
                raise ValueError(
                    f"key on axis {axis} must hold the windows of the queries, positions {asked}, got {got}"
                )
    return Boxes(queries, keys)
