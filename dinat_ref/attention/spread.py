"""Spreading a mark along windows: from keys to the queries that attend them, and from queries to their keys.

A window is a product of one window per axis, so a mark is spread one axis after another, each time over kernel_size
tokens instead of all their combinations::

    a marked key (x)     . . . . . . .        along the rows    . . . . . . .       then the columns    . o o o . . .
    kernel_size 3        . . x . . . .                          . o o o . . .                           . o o o . . .
                         . . . . . . .                          . . . . . . .                           . o o o . . .
"""

import torch
from torch import Tensor

from dinat_ref.attention.boxes import Boxes
from dinat_ref.attention.cache import ByteCache
from dinat_ref.attention.operands import inside_transform
from dinat_ref.neighborhood import Neighborhood

MOST_BYTES_KEPT = 16 * 2**20


def to_queries(marks: Tensor, neighborhood: Neighborhood, boxes: Boxes) -> Tensor:
    """Mark the queries that attend a marked key.

    Shapes:
        marks: bool [B, *keys, ...]
        return: bool [B, *queries, ...]
    Example:
        >>> from dinat_ref.attention.boxes import whole
        >>> neighborhood = Neighborhood((6,), kernel_size=3)
        >>> to_queries(torch.tensor([[True, False, False, False, False, False]]), neighborhood, whole(neighborhood))
        tensor([[ True,  True, False, False, False, False]])
    """
    for axis, keys in enumerate(_keys_of_axes(neighborhood, boxes, marks.device), start=1):
        marks = marks.index_select(axis, keys.flatten()).unflatten(axis, keys.shape).any(axis + 1)
    return marks


def to_keys(marks: Tensor, neighborhood: Neighborhood, boxes: Boxes) -> Tensor:
    """Mark the keys that a marked query attends.

    Shapes:
        marks: bool [B, *queries, ...]
        return: bool [B, *keys, ...]
    Example:
        >>> from dinat_ref.attention.boxes import whole
        >>> neighborhood = Neighborhood((6,), kernel_size=3)
        >>> to_keys(torch.tensor([[True, False, False, False, False, False]]), neighborhood, whole(neighborhood))
        tensor([[ True,  True,  True, False, False, False]])
    """
    for axis, keys in enumerate(_keys_of_axes(neighborhood, boxes, marks.device), start=1):
        each = marks.to(torch.int16).unsqueeze(axis + 1)  # no axis has queries with more than 3 k common keys
        each = each.expand(*each.shape[: axis + 1], keys.shape[1], *each.shape[axis + 2 :]).flatten(axis, axis + 1)
        counts = each.new_zeros(*each.shape[:axis], len(boxes.keys[axis - 1]), *each.shape[axis + 1 :])
        marks = counts.index_add_(axis, keys.flatten(), each) > 0
    return marks


def _keys_of_axes(neighborhood: Neighborhood, boxes: Boxes, device: torch.device) -> list[Tensor]:
    """The keys of each query of each axis, numbered within their box: int64 [queries, kernel_size] each."""

    def tables() -> list[Tensor]:
        found = []
        for axis, (queries, keys) in enumerate(zip(boxes.queries, boxes.keys, strict=True)):
            # a slot without a key holds the query, which is in its window anyhow
            found.append(neighborhood.axis_table(axis, device, queries)[0] - keys.start)
        return found

    if inside_transform():
        return tables()
    with torch.inference_mode(False):
        return KEPT.get((neighborhood, boxes, device), tables)


KEPT = ByteCache[list[Tensor]](MOST_BYTES_KEPT, lambda tables: sum(table.nbytes + 1024 for table in tables))
