"""Wrong windows on one axis."""

from collections.abc import Iterable

from dinat_ref.testing.sabotage.base import DenseKernel, group_of, sabotage
from dinat_ref.window import leader, window


def keys(g: int, d: int, start: int, count: int) -> list[int]:
    """Positions of ``count`` keys of a dilation group, from coordinate ``start`` on; they may leave the axis."""
    return [g + d * (start + step) for step in range(count)]


@sabotage(
    "W12-even-kernels",
    looks_like="even kernel sizes computed by the formula for odd ones",
    seen_in="natten-mps, natten-mlx",
)
class OddFormulaForEvenKernels(DenseKernel):
    """The right edge is taken to begin where a window of 2 (k // 2) + 1 tokens would touch it."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Start at i - k // 2, moved by as much as i + k // 2 leaves the axis."""
        if causal or s > 1 or k % 2:
            return window(i, length, k, s, d, causal)
        half = k // 2
        if d == 1:
            return keys(0, 1, max(i - half, 0) + (length - i - half - 1 if i + half >= length else 0), k)
        if i - half * d < 0:
            return keys(i % d, d, 0, k)
        if i + half * d >= length:
            whole, rest = length // d * d, length % d
            start = length - rest + i % d - 2 * half * d if i % d < rest else whole + i % d - k * d
            return [start + d * step for step in range(k)]
        return [i - half * d + d * step for step in range(k)]


@sabotage("W12-even-kernels", looks_like="even kernel leans right")
class EvenKernelLeansRight(DenseKernel):
    """k/2 - 1 keys before the query and k/2 after it."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Subtract (k - 1) // 2 for k // 2."""
        if causal:
            return window(i, length, k, s, d, causal)
        g, m, n = group_of(i, length, d)
        return keys(g, d, min(max(leader(m, n, s) - (k - 1) // 2, 0), n - k), k)


@sabotage("W03-key-count", "W11-odd-kernels", looks_like="edges zero-padded", seen_in="SASA-style code, first ports")
class EdgesZeroPadded(DenseKernel):
    """Windows hang over the edge, onto tokens of zeros that take part in the softmax."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Do not clamp the start."""
        if causal:
            return window(i, length, k, s, d, causal)
        g, m, n = group_of(i, length, d)
        return [j if 0 <= j < length else -1 for j in keys(g, d, leader(m, n, s) - k // 2, k)]


@sabotage("W03-key-count", "W11-odd-kernels", looks_like="edges clipped", seen_in="sliding-window code")
class EdgesClipped(DenseKernel):
    """Windows are cut at the edge."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Drop what lies outside."""
        if causal:
            return window(i, length, k, s, d, causal)
        g, m, n = group_of(i, length, d)
        return [j for j in keys(g, d, leader(m, n, s) - k // 2, k) if 0 <= j < length]


@sabotage("W04-contiguous", "W11-odd-kernels", looks_like="edges wrapped around", seen_in="torch.roll code")
class EdgesWrapped(DenseKernel):
    """Windows go on at the other end of the axis."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Take coordinates modulo the length of the group."""
        if causal:
            return window(i, length, k, s, d, causal)
        g, m, n = group_of(i, length, d)
        return [g + d * ((leader(m, n, s) - k // 2 + step) % n) for step in range(k)]


@sabotage(
    "W05-one-group",
    looks_like="windows cross dilation groups at the edges",
    seen_in="ports; the CUTLASS reference warns of it",
)
class WindowCrossesGroups(DenseKernel):
    """The window is clamped into the axis, not into its dilation group."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Clamp positions, not coordinates."""
        if causal or d == 1:
            return window(i, length, k, s, d, causal)
        g, m, n = group_of(i, length, d)
        start = min(max(g + d * (leader(m, n, s) - k // 2), 0), length - 1 - (k - 1) * d)
        return [start + d * step for step in range(k)]


@sabotage(
    "W13-dilation",
    looks_like="length of a dilation group rounded down",
    seen_in="ports; the CUTLASS reference warns of it",
)
class GroupLengthRoundedDown(DenseKernel):
    """All groups are taken to have L // d tokens."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Round the length down."""
        if causal or length % d == 0:
            return window(i, length, k, s, d, causal)
        g, m, _ = group_of(i, length, d)
        n = length // d
        return keys(g, d, min(max(leader(m, n, s) - k // 2, 0), n - k), k)


@sabotage("W13-dilation", looks_like="dilation ignored")
class DilationIgnored(DenseKernel):
    """The argument is taken and not used."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Put 1 for d."""
        return window(i, length, k, s, 1, causal)


@sabotage("W13-dilation", looks_like="window clamped before it is dilated")
class ClampedBeforeDilation(DenseKernel):
    """The edge is found with the undilated window, so that dilated keys leave the axis and are dropped."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Clamp i to k // 2 from the edges, then step by d."""
        if causal or s > 1 or d == 1:
            return window(i, length, k, s, d, causal)
        centre = min(max(i, k // 2), length - 1 - (k - 1) // 2)
        return [j for j in (centre + d * (step - k // 2) for step in range(k)) if 0 <= j < length]


@sabotage("W14-stride", "W06-stride-group", looks_like="stride ignored")
class StrideIgnored(DenseKernel):
    """The argument is taken and not used."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Put 1 for s."""
        return window(i, length, k, 1, d, causal)


@sabotage("W14-stride", looks_like="stride group led by its first query")
class StrideLedByFirst(DenseKernel):
    """The leader is the first query of the group instead of the central one."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Leave out s // 2."""
        if causal:
            return window(i, length, k, s, d, causal)
        g, m, n = group_of(i, length, d)
        return keys(g, d, min(max(m // s * s - k // 2, 0), n - k), k)


@sabotage("W14-stride", looks_like="stride leader rounded to the left", seen_in="a trap that NATTEN's comments warn of")
class StrideLeaderLeft(DenseKernel):
    """(s - 1) // 2 for s // 2: the same for odd strides."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Take the left of two central queries."""
        if causal:
            return window(i, length, k, s, d, causal)
        g, m, n = group_of(i, length, d)
        return keys(g, d, min(max(min(m // s * s + (s - 1) // 2, n - 1) - k // 2, 0), n - k), k)


@sabotage("W14-stride", looks_like="stride groups counted in tokens, not in the dilation group")
class StrideBeforeDilation(DenseKernel):
    """With dilation, the stride groups are cut out of the axis instead of out of each dilation group."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Find the leader among neighbouring tokens."""
        if causal or d == 1 or s == 1:
            return window(i, length, k, s, d, causal)
        g, _, n = group_of(i, length, d)
        m = min(i // s * s + s // 2, length - 1) // d
        return keys(g, d, min(max(m - k // 2, 0), n - k), k)


@sabotage(
    "W16-causal-stride",
    looks_like="causal stride group led by its centre",
    seen_in="a trap that NATTEN's comments warn of",
)
class CausalLedByCentre(DenseKernel):
    """The causal leader is the central query instead of the last one."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Put s // 2 for s - 1."""
        if not causal:
            return window(i, length, k, s, d, causal)
        g, m, n = group_of(i, length, d)
        start = max(min(m // s * s + s // 2, n - 1) - k + 1, 0)
        return keys(g, d, start, max(m + 1 - start, 0))


@sabotage(
    "W16-causal-stride",
    looks_like="causal stride leader not capped at the end of the axis",
    seen_in="a trap that NATTEN's comments warn of",
)
class CausalLeaderUncapped(DenseKernel):
    """The last, incomplete stride group keeps a leader behind the last token."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Leave out the minimum with n - 1."""
        if not causal:
            return window(i, length, k, s, d, causal)
        g, m, _ = group_of(i, length, d)
        start = max(m // s * s + s - 1 - k + 1, 0)
        return keys(g, d, start, m + 1 - start)


@sabotage("W16-causal-stride", looks_like="causal stride group led left of its centre", seen_in="a vendor's reference")
class CausalLedLeftOfCentre(DenseKernel):
    """The causal leader is (s - 1) // 2 instead of s - 1."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Put (s - 1) // 2 for s - 1."""
        if not causal:
            return window(i, length, k, s, d, causal)
        g, m, n = group_of(i, length, d)
        start = max(min(m // s * s + (s - 1) // 2, n - 1) - k + 1, 0)
        return keys(g, d, start, max(m + 1 - start, 0))


@sabotage("W08-nothing-behind", "W16-causal-stride", looks_like="causal queries see their whole stride group")
class CausalSeesStrideGroup(DenseKernel):
    """The window ends at the leader, not at the query."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Stop behind the leader."""
        if not causal:
            return window(i, length, k, s, d, causal)
        g, m, n = group_of(i, length, d)
        last = leader(m, n, s, is_causal=True)
        start = max(last - k + 1, 0)
        return keys(g, d, start, last + 1 - start)


@sabotage("W02-own-query", "W15-causal", looks_like="causal window ends before the query")
class CausalExcludesItself(DenseKernel):
    """Off by one: a query attends only what is strictly before it (the first query keeps itself)."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Drop the query."""
        right = list(window(i, length, k, s, d, causal))
        return right[:-1] if causal and len(right) > 1 else right


@sabotage("W08-nothing-behind", "W15-causal", looks_like="causality ignored")
class CausalityIgnored(DenseKernel):
    """The argument is taken and not used."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Put False for is_causal."""
        return window(i, length, k, s, d, False)


@sabotage("W15-causal", looks_like="causal windows shifted at the left edge")
class CausalWindowShifted(DenseKernel):
    """Near the left edge a causal window is filled up to k keys, from behind the query."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Always k keys from the start on."""
        right = window(i, length, k, s, d, causal)
        g, _, n = group_of(i, length, d)
        start = (right.start - g) // d
        return keys(g, d, min(start, n - k), k) if causal and s == 1 else right


@sabotage("W15-causal", looks_like="causal mask on top of a centred window")
class CausalMaskOnCentredWindow(DenseKernel):
    """The window is the one without causality, minus what lies behind the query: about half the keys."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Cut the centred window."""
        return [j for j in window(i, length, k, s, d, False) if j <= i or not causal]


@sabotage("W11-odd-kernels", looks_like="last window starts one token early")
class LastWindowEarly(DenseKernel):
    """Off by one at the right edge: starts are clamped to n - k - 1."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Clamp one token early."""
        if causal:
            return window(i, length, k, s, d, causal)
        g, m, n = group_of(i, length, d)
        return keys(g, d, min(max(leader(m, n, s) - k // 2, 0), max(n - k - 1, 0)), k)


@sabotage(
    "W03-key-count", "W11-odd-kernels", looks_like="window one key too wide", seen_in="attention-gym (for even kernels)"
)
class WindowTooWide(DenseKernel):
    """2 (k // 2) + 1 keys and one more: both ends of the window are counted in."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """One key more, where there is one."""
        right = window(i, length, k, s, d, causal)
        return right if causal else [*right, *(j for j in [right[-1] + d] if j < length)]


@sabotage(
    "W12-even-kernels",
    "W03-key-count",
    looks_like="even kernel one key too wide",
    seen_in="attention-gym, an old FlexAttention mask of NATTEN",
)
class EvenKernelTooWide(DenseKernel):
    """The centre is clamped to k // 2 from both edges, and k // 2 keys are taken on both sides of it."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Take k + 1 keys for even k."""
        if causal or s > 1 or k % 2:
            return window(i, length, k, s, d, causal)
        g, m, n = group_of(i, length, d)
        half = k // 2
        centre = max(min(m, n - 1 - half), half) if n - 1 - half >= half else n - 1 - half
        return [j for j in keys(g, d, centre - half, k + 1) if 0 <= j < length]


@sabotage("W12-even-kernels", looks_like="even kernel size taken as the next smaller odd one")
class EvenKernelRoundedDown(DenseKernel):
    """An even kernel size is accepted and k - 1 used."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Take k - 1 keys."""
        smaller = k - 1 if k % 2 == 0 else k
        return window(i, length, smaller, min(s, smaller), d, causal)


@sabotage("W11-odd-kernels", looks_like="queries of a partial tile get the window of the tile's last whole row")
class PartialTileRepeats(DenseKernel):
    """Queries behind the last whole tile of four are given the window of the last query inside it."""

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """Round the query down into the last whole tile."""
        whole = length // 4 * 4
        return window(i if causal or d > 1 or s > 1 or not 0 < whole <= i else whole - 1, length, k, s, d, causal)
