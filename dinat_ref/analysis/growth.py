"""Closed-form laws of how receptive fields grow; tests check each against the exact sets.

Far from the edges a layer of kernel size k and dilation d adds (k - 1) * d tokens to the width of a field:

    NA, l layers                   l (k - 1) + 1        7, 13, 19, 25 for k = 7
    DiNA, dilations 1, k, k^2 ..   k^l                  7, 49, 343
    NA seen from a corner          k + (l - 1) * ((k - 1) div 2)        7, 10, 13, 16: half as fast
    window attention               k                    it never grows
    one dilation everywhere        1 / d of the tokens are reached: gridding
"""

import math
from collections.abc import Sequence

from dinat_ref.window import check_integer


def interior_width(kernel_size: int, dilations: Sequence[int]) -> int:
    """Give the width of the receptive field of a token far from the edges: from its first to its last token.

    Shapes:
        dilations: one per layer
        return: one integer, in tokens; holes count
    Raises:
        TypeError: an argument is not an integer.
    Source: Hassani & Shi, arXiv:2209.15001, section 3.3 and table 1.
    Example:
        >>> [interior_width(7, [1] * layers) for layers in (1, 2, 3, 4)]
        [7, 13, 19, 25]
        >>> [interior_width(7, [7**layer for layer in range(layers)]) for layers in (1, 2, 3)]
        [7, 49, 343]
    """
    return 1 + (check_integer("kernel_size", kernel_size) - 1) * sum(check_integer("dilation", d) for d in dilations)


def corner_width(kernel_size: int, num_layers: int) -> int:
    """Give the width of the receptive field of a token at the first position of an axis, after plain NA layers.

    The first window is as wide as any, since it is shifted; from then on the field grows at its far end only.

    Shapes:
        return: one integer, in tokens
    Raises:
        TypeError: an argument is not an integer.
    Source: a consequence of arXiv:2204.07143, section 3.1.
    Example:
        >>> [corner_width(7, layers) for layers in (1, 2, 3, 4)]
        [7, 10, 13, 16]
    """
    growth = (check_integer("kernel_size", kernel_size) - 1) // 2
    return 1 if check_integer("num_layers", num_layers) == 0 else kernel_size + (num_layers - 1) * growth


def reachable_share(length: int, dilations: Sequence[int], i: int = 0) -> float:
    """Give the share of an axis that any number of layers with these dilations can ever reach from position i.

    Every step is a multiple of the dilations' greatest common divisor g, so only the positions of i's group modulo g
    are reached: one in g of them, more or less one token.

    Shapes:
        return: one number in 0 .. 1
    Raises:
        ValueError: no dilation.
    Source: gridding, Yu et al., Dilated residual networks, arXiv:1705.09914, section 4.
    Example:
        >>> reachable_share(12, [3, 3]), reachable_share(12, [1, 3])
        (0.3333333333333333, 1.0)
    """
    if not dilations:
        raise ValueError("dilations must hold at least one dilation, got none")
    step = math.gcd(*dilations)
    return len(range(i % step, length, step)) / length
