"""Relative positional bias: a learned number per head and per offset between query and key.

On each axis the offset of key j seen from query i is counted in steps of the dilation, and shifted so that
the most distant left key has index 0::

    index = (j - i) / dilation + kernel_size - 1          in 0 .. 2 * kernel_size - 2

A window never has more than ``kernel_size`` keys and always holds its query, so the index is legal everywhere:
in the interior it runs over the centre of the table, at an edge, where the window is shifted, over its rim.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dinat_ref.neighborhood import Neighborhood


def bias_index(neighborhood: Neighborhood, device: torch.device | str | None = None) -> tuple[Tensor, ...]:
    """Give the index into the bias table for every query and each of its keys, one tensor per axis.

    Shapes:
        return: ndim tensors [N, K], in the order of ``Neighborhood.indices``.
    Source: Hassani et al., arXiv:2204.07143, eq. 1 (B(i, j)); Liu et al., arXiv:2103.14030, eq. 4.
    Example:
        >>> bias_index(Neighborhood((5,), kernel_size=3))[0]
        tensor([[2, 3, 4],
                [1, 2, 3],
                [1, 2, 3],
                [1, 2, 3],
                [0, 1, 2]])
    """
    queries = torch.arange(neighborhood.num_tokens, device=device)[:, None]  # [N, 1]
    keys = neighborhood.indices(device)  # [N, K]
    index: list[Tensor] = []
    for length, kernel_size, _, dilation, _ in reversed(neighborhood.axes):
        offset = keys % length - queries % length
        index.insert(0, offset.div(dilation, rounding_mode="floor") + kernel_size - 1)
        keys, queries = keys // length, queries // length
    return tuple(index)


def lookup_bias(rpb: Tensor, index: Sequence[Tensor]) -> Tensor:
    """Read the bias table at one index per axis, for every combination of queries and keys of the axes.

    Shapes:
        rpb: [H, 2k-1, ...]
        index: one tensor [queries, keys] per axis
        return: [H, queries of axis 1, queries of axis 2, ..., keys of axis 1, keys of axis 2, ...]
    Raises:
        IndexError: an index behind the end of the table; each must lie in 0 .. 2k-2.
    Source: Liu et al., arXiv:2103.14030, eq. 4.
    Example:
        >>> lookup_bias(torch.tensor([[10., 20., 30.]]), [torch.tensor([[1, 2], [0, 1]])])
        tensor([[[20., 30.],
                 [10., 20.]]])
    """
    return read_bias(rpb, bias_place(index, rpb.shape[1:]))


def read_bias(rpb: Tensor, place: Tensor) -> Tensor:
    """Read the bias table of every head at row-major places.

    Shapes:
        rpb: [H, 2k-1, ...]
        place: any shape, int64
        return: [H, *place]
    Raises:
        IndexError: a place behind the end of the table.
    Source: Liu et al., arXiv:2103.14030, eq. 4.
    Example:
        >>> read_bias(torch.tensor([[10., 20., 30.]]), torch.tensor([[1, 2]]))
        tensor([[[20., 30.]]])
    """
    return rpb.flatten(1).index_select(1, place.flatten()).unflatten(1, place.shape)


def bias_place(index: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Combine one index per axis to the row-major place in a bias table, for every combination of queries and keys.

    Shapes:
        index: one tensor [queries, keys] per axis
        sizes: the sides of the table, 2k-1 each
        return: [queries of axis 1, queries of axis 2, ..., keys of axis 1, keys of axis 2, ...]
    Example:
        >>> bias_place([torch.tensor([[1, 2]]), torch.tensor([[0], [3]])], sizes=(3, 5)).flatten(2)
        tensor([[[ 5, 10],
                 [ 8, 13]]])
    """
    place = spread(index[0], 0, len(index))
    for axis in range(1, len(index)):
        place = place * sizes[axis] + spread(index[axis], axis, len(index))
    return place


def spread(table: Tensor, axis: int, ndim: int) -> Tensor:
    """View a table [queries, keys] of one axis so that tables of several axes broadcast to their product.

    Shapes:
        table: [queries, keys]
        return: 2 * ndim dimensions, queries at position axis and keys at position ndim + axis, 1 elsewhere
    Raises:
        IndexError: axis is not below ndim.
    Example:
        >>> spread(torch.zeros(5, 3), axis=1, ndim=2).shape
        torch.Size([1, 5, 1, 3])
    """
    shape = [1] * (2 * ndim)
    shape[axis], shape[ndim + axis] = table.shape
    return table.reshape(shape)
