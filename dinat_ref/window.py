"""The window of one token on one axis, in plain integers: what a neighborhood is.

A query at position ``i`` of an axis attends ``kernel_size`` tokens around itself. Near an edge the
window is shifted inwards, never padded, clipped or wrapped, so it keeps its size::

    length 5, kernel_size 3          i = 0   Q # # . .      shifted right
                                     i = 1   # Q # . .
                                     i = 2   . # Q # .      centred
                                     i = 3   . . # Q #
                                     i = 4   . . # # Q      shifted left

Dilation ``d`` splits the axis into ``d`` interleaved groups, ``g, g + d, g + 2d, ...``; each group is an
axis of its own. Stride ``s`` makes ``s`` consecutive queries of a group share the window of one of them,
their leader. Causality ends every window at the query itself.

Everything else in this package derives from ``window`` or is tested against it. Try it::

    python -m dinat_ref.window 8 4 --dilation 2
"""

import operator
import sys


def dilation_group(i: int, length: int, dilation: int = 1) -> tuple[int, int, int]:
    """Say in which dilation group a position lies, where in it, and how long that group is.

    Shapes:
        return: three integers (g, m, n): the group, the position's coordinate in it, the group's length.
    Source: Hassani & Shi, arXiv:2209.15001, section 3.2.
    Example:
        >>> [dilation_group(i, length=7, dilation=3) for i in (0, 3, 6, 1)]  # groups 0 3 6 / 1 4 / 2 5
        [(0, 0, 3), (0, 1, 3), (0, 2, 3), (1, 0, 2)]
    """
    g = i % dilation
    m = i // dilation
    n = -(-(length - g) // dilation)  # ceil: groups differ by one token when dilation does not divide length
    return g, m, n


def leader(m: int, n: int, stride: int = 1, is_causal: bool = False) -> int:
    """Find the query whose window the query ``m`` of a group of ``n`` tokens shares.

    It is the central query of the stride group (the right one of two), or its last query when causal;
    an incomplete last stride group may have to take the last query there is.

    Shapes:
        return: one integer, a coordinate inside the dilation group.
    Source: Generalized Neighborhood Attention, arXiv:2504.16922, section 3.
    Example:
        >>> [leader(m, n=8, stride=3) for m in range(8)]
        [1, 1, 1, 4, 4, 4, 7, 7]
        >>> [leader(m, n=8, stride=3, is_causal=True) for m in range(8)]
        [2, 2, 2, 5, 5, 5, 7, 7]
    """
    first = m // stride * stride
    return min(first + (stride - 1 if is_causal else stride // 2), n - 1)


def window(i: int, length: int, kernel_size: int, stride: int = 1, dilation: int = 1, is_causal: bool = False) -> range:
    """List the positions that the query at position ``i`` attends, in increasing order.

    With (g, m, n) the dilation group of i, and k, d, s the kernel size, dilation and stride::

        not causal   leader = min((m div s) * s + s div 2, n - 1)
                     start  = clamp(leader - k div 2, 0, n - k)          stop = start + k
        causal       leader = min((m div s) * s + s - 1, n - 1)
                     start  = max(leader - k + 1, 0)                     stop = m + 1

        window(i)    = { g + d*j : start <= j < stop }

    An even kernel leans left: k/2 keys before the query and k/2 - 1 after it.

    Shapes:
        return: a range of exactly kernel_size positions; when causal, of at most that many.
    Args:
        i: position of the query, 0 <= i < length.
        length: number of tokens on the axis.
        kernel_size: number of keys, 1 <= kernel_size and kernel_size * dilation <= length.
        stride: number of queries that share a window, 1 <= stride <= kernel_size.
        dilation: distance between neighbouring keys, in tokens.
        is_causal: attend no position behind i.
    Raises:
        TypeError: an argument is not an integer (is_causal: not a bool).
        ValueError: an argument is outside its limits.
    Source: Hassani et al., arXiv:2204.07143, eq. 1-3; dilation arXiv:2209.15001; stride arXiv:2504.16922.
    Example:
        >>> [list(window(i, length=5, kernel_size=3)) for i in range(5)]
        [[0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [2, 3, 4]]
        >>> list(window(6, length=7, kernel_size=2, dilation=3))
        [3, 6]
    """
    length, kernel_size, stride, dilation, is_causal = check_axis(length, kernel_size, stride, dilation, is_causal)
    i = check_integer("i", i)
    if not 0 <= i < length:
        raise ValueError(f"i must be in 0 .. {length - 1} (length - 1), got {i}")

    g, m, n = dilation_group(i, length, dilation)
    if is_causal:
        start = max(leader(m, n, stride, is_causal=True) - kernel_size + 1, 0)
        stop = m + 1
    else:
        start = min(max(leader(m, n, stride) - kernel_size // 2, 0), n - kernel_size)
        stop = start + kernel_size
    return range(g + dilation * start, min(g + dilation * stop, length), dilation)


def check_integer(name: str, value: object) -> int:
    """Return ``value`` as a Python int; a bool or a float is no integer here.

    Shapes:
        return: one int.
    Raises:
        TypeError: the value is a bool, or not an integer.
    Example:
        >>> check_integer("stride", 2)
        2
    """
    is_bool = isinstance(value, bool) or str(getattr(value, "dtype", None)) == "bool"
    if is_bool or not (isinstance(value, int) or hasattr(value, "__index__")):
        raise TypeError(f"{name} must be an integer, got {value!r} ({type(value).__name__})")
    return operator.index(value)


def check_bool(name: str, value: object) -> bool:
    """Return ``value`` as a Python bool; NumPy's is one, a number is none.

    Raises:
        TypeError: the value is not a bool.
    Example:
        >>> check_bool("is_causal", True)
        True
    """
    is_numpys = str(getattr(value, "dtype", None)) == "bool" and getattr(value, "shape", None) == ()
    if not (isinstance(value, bool) or is_numpys):
        raise TypeError(f"{name} must be a bool, got {value!r} ({type(value).__name__})")
    return bool(value)


def check_axis(
    length: int, kernel_size: int, stride: int = 1, dilation: int = 1, is_causal: bool = False, axis: int | None = None
) -> tuple[int, int, int, int, bool]:
    """Return the arguments of an axis as Python numbers, or raise unless they define a neighborhood on it.

    Shapes:
        return: (length, kernel_size, stride, dilation, is_causal)
    Raises:
        TypeError: an argument is not an integer (is_causal: not a bool).
        ValueError: an argument is outside its limits; the message names argument, axis, value and limit.
    Source: arXiv:2209.15001, section 3.2 (kernel_size * dilation <= length); arXiv:2504.16922 (stride <= kernel_size).
    Example:
        >>> check_axis(length=5, kernel_size=3, dilation=2)
        Traceback (most recent call last):
        ValueError: kernel_size * dilation must be at most the length of the axis: 3 * 2 = 6 > 5
    """
    where = "" if axis is None else f" on axis {axis}"
    sizes = {"length": length, "kernel_size": kernel_size, "stride": stride, "dilation": dilation}
    sizes = {name: check_integer(name + where, size) for name, size in sizes.items()}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}{where} must be at least 1, got {size}")
    is_causal = check_bool("is_causal" + where, is_causal)
    length, kernel_size, stride, dilation = sizes.values()
    if kernel_size * dilation > length:
        reach = f"{kernel_size} * {dilation} = {kernel_size * dilation}"
        raise ValueError(f"kernel_size * dilation{where} must be at most the length of the axis: {reach} > {length}")
    if stride > kernel_size:
        raise ValueError(f"stride{where} must be at most kernel_size, got {stride} > {kernel_size}")
    return length, kernel_size, stride, dilation, is_causal


def picture(length: int, kernel_size: int, stride: int = 1, dilation: int = 1, is_causal: bool = False) -> str:
    """Draw the windows of every query of an axis as text, a row a query.

    Shapes:
        return: length + 1 lines.
    Raises:
        TypeError, ValueError: as ``window``.
    Example:
        >>> print(picture(4, 2))
          i | 0 1 2 3
          0 | Q # . .
          1 | # Q . .
          2 | . # Q .
          3 | . . # Q
    """
    width = len(str(length - 1))

    def cell(i: int, j: int) -> str:
        attended = j in window(i, length, kernel_size, stride, dilation, is_causal)
        return ("Q" if attended else "!") if i == j else ("#" if attended else ".")

    def row(head: object, cells: list[str]) -> str:
        return f"{head:>3} | " + " ".join(text.rjust(width) for text in cells)

    rows = [row(i, [cell(i, j) for j in range(length)]) for i in range(length)]
    return "\n".join([row("i", [str(j) for j in range(length)]), *rows])


def main(argv: list[str] | None = None) -> int:
    """Print the windows of an axis; the exit status is 2 when the arguments are not legal."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m dinat_ref.window",
        description="Print the window of every query of an axis: Q the query itself, # a key, . not attended.",
        epilog="examples: python -m dinat_ref.window 8 4    python -m dinat_ref.window 12 3 --dilation 2 --causal",
    )
    parser.add_argument("length", type=int, help="number of tokens on the axis")
    parser.add_argument("kernel_size", type=int, help="number of keys of each query")
    parser.add_argument("--stride", type=int, default=1, help="number of queries that share a window (default 1)")
    parser.add_argument("--dilation", type=int, default=1, help="distance between keys in tokens (default 1)")
    parser.add_argument("--causal", action="store_true", help="attend nothing behind the query")
    args = parser.parse_args(argv)
    try:
        print(picture(args.length, args.kernel_size, args.stride, args.dilation, args.causal))
    except ValueError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
