"""How far an edge pushes a window inwards: the window as it is against the window far from any edge."""

from collections.abc import Sequence

from dinat_ref.neighborhood import Neighborhood
from dinat_ref.window import check_axis, window


def unshifted_window(
    i: int, length: int, kernel_size: int, stride: int = 1, dilation: int = 1, is_causal: bool = False
) -> range:
    """List the positions that the query at i would attend if its axis went on at both ends.

    That is its window on an axis made longer at both ends by a multiple of stride * dilation, so that dilation and
    stride groups stay what they are. Where the result leaves 0 .. length - 1, the true window is shifted.

    Shapes:
        return: a range; its positions may be negative, or length and more
    Raises:
        TypeError, ValueError: as ``window``.
    Source: Hassani et al., arXiv:2204.07143, section 3.1 (the corner cases of a neighborhood).
    Example:
        >>> list(unshifted_window(0, length=5, kernel_size=3)), list(window(0, length=5, kernel_size=3))
        ([-1, 0, 1], [0, 1, 2])
    """
    check_axis(length, kernel_size, stride, dilation, is_causal)
    margin = stride * dilation * (kernel_size + 1)
    keys = window(i + margin, length + 2 * margin, kernel_size, stride, dilation, is_causal)
    return range(keys.start - margin, keys.stop - margin, dilation)


def edge_shift(neighborhood: Neighborhood, token: Sequence[int]) -> tuple[int, ...]:
    """Say by how many tokens the edges move a token's window, on each axis.

    A causal window is shortened by the left edge and moved by none: its shift counts the keys' first position only.

    Shapes:
        token:  one coordinate per axis
        return: one integer per axis, positive where the window moves towards higher positions
    Raises:
        ValueError: a token outside the layout.
    Source: arXiv:2204.07143, section 3.1.
    Example:
        >>> edge_shift(Neighborhood((9, 9), kernel_size=5, dilation=(1, 1)), (0, 7))
        (2, -1)
    """
    shifts = []
    for axis, i in enumerate(token):
        arguments = neighborhood.axes[axis]
        actual, wanted = window(i, *arguments), unshifted_window(i, *arguments)
        shifts.append(actual.start - wanted.start)
    return tuple(shifts)
