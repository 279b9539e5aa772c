"""The guided tour of the page: each stop sets the controls and says what is to be seen; its figures are computed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from dinat_ref.analysis.receptive_field import FullAttention, Layer, WindowedAttention, coverage, receptive_field
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.viz.explorer.tables import OPTIONS

TIMES = " \N{MULTIPLICATION SIGN} "


@dataclass(frozen=True)
class Settings:
    """All controls of the page."""

    token: tuple[int, int]  # the query
    k: int  # kernel size
    d: tuple[int, ...]  # one dilation for each layer
    s: int = 1  # stride
    c: int = 0  # causal
    layer: int = 1  # the layer whose windows are drawn
    mode: str = "window"  # or inverse, field, attention
    view: str = "one"  # or side: beside Swin and full attention
    bias: int = 0
    numbers: int = 0


@dataclass(frozen=True)
class Stop:
    """A stop of the tour."""

    title: str
    text: str
    settings: Settings = field(repr=False)


def sizes(layout: Sequence[int]) -> tuple[int, int]:
    """Choose the kernel size of the tour and its large dilation: DiNAT's 7 and 8, where they fit.

    Example:
        >>> sizes((56, 56)), sizes((30, 40)), sizes((9, 12))
        ((7, 8), (7, 4), (3, 3))
    """
    shortest = min(layout)
    k = 7 if shortest >= 28 else 5 if shortest >= 15 else 3
    return k, max(d for d in OPTIONS["d"] if k * d <= shortest)


def presets(layout: Sequence[int]) -> list[tuple[int, ...]]:
    """The dilations of a few stacks of layers that are worth comparing.

    Example:
        >>> presets((56, 56))
        [(1, 1, 1), (8, 8, 8), (1, 8, 1)]
    """
    far = sizes(layout)[1]
    return [(1, 1, 1), (far, far, far), (1, far, 1)]


def tour_stops(layout: tuple[int, int]) -> list[dict[str, object]]:
    """List the stops of a photo of so many tokens: title, text, and the settings of all controls.

    Example:
        >>> [stop["title"] for stop in tour_stops((56, 56))][:2]
        ['A token and its window', 'At the edge the window is shifted']
    """
    return [asdict(stop) for stop in _stops(layout)]


def _stops(layout: tuple[int, int]) -> list[Stop]:
    """The tour on a photo of so many tokens."""
    (k, far), total = sizes(layout), layout[0] * layout[1]
    middle = (layout[0] // 2, layout[1] // 2)
    plain, far_layer = Neighborhood(layout, k), Neighborhood(layout, k, dilation=far)
    busy = (k - 1, k - 1)
    rim = (
        middle[0] // k * k + k // 2 - 1,
        middle[1] // k * k + k // 2 - 1,
    )  # the last of a shifted block, as in layer 2
    detail = (layout[0] * 5 // 7, layout[1] * 3 // 7)
    start = Settings(middle, k, (1, far, 1))
    seen = {name: _percent(coverage(layers, middle)[-1]) for name, layers in _stacks(layout, k, far).items()}
    kept = int(receptive_field([far_layer] * 3, middle).sum())
    span = far_layer.windows(0)[middle[0]]
    return [
        Stop(
            "A token and its window",
            f"Every square is a token. The orange one is the query: it attends the {k * k} blue ones, "
            f"{k}{TIMES}{k} tokens around itself, and nothing else. Click or tap another token, "
            "or go on with the arrow keys: its window comes along.",
            start,
        ),
        Stop(
            "At the edge the window is shifted",
            f"Around a token in the corner half of the window would lie outside. It is moved inside instead: still "
            f"{k * k} keys, no padding and none cut off; only the query is no longer in the middle.",
            replace(start, token=(0, 1)),
        ),
        Stop(
            "Who attends it?",
            f"Green are the queries that have this token in their window. Shifted windows meet near the edge: "
            f"token {busy} is attended by {len(plain.attended_by(busy))} queries, the corner by "
            f"{len(plain.attended_by((0, 0)))}, most by {k * k}. Nobody is left out.",
            replace(start, token=busy, mode="inverse"),
        ),
        Stop(
            "Dilation: as many keys, farther apart",
            f"Layer 2 has dilation {far}: of {far} tokens in a row, one is a key. There are {k * k} keys as before, "
            f"at the same cost, but they span {span[-1] - span[0] + 1} tokens from top to bottom. What lies between "
            "them is left to other layers.",
            replace(start, layer=2),
        ),
        Stop(
            "Beside Swin and full attention",
            f"One query, four ways. Swin cuts the photo into blocks of {k}{TIMES}{k}: this token lies at the rim of "
            f"one and does not see its neighbour across the line. A neighborhood moves with its query. Full attention "
            f"sees all {total} tokens, for {total / (k * k):.0f} times the scores.",
            replace(start, token=rim, layer=2, view="side"),
        ),
        Stop(
            f"{far}-{far}-{far}: only ever the same tokens",
            f"Three layers, all with dilation {far}: what the query knows after them. Every layer stays within its "
            f"dilation group, so it knows {kept} of {total} tokens, and none of its neighbours, "
            "however many layers follow.",
            replace(start, d=(far, far, far), mode="field"),
        ),
        Stop(
            f"1-{far}-1: near and far in turn",
            f"The idea of DiNAT. After layers of dilation 1, {far} and 1 the query knows {seen['dina']} of the photo; "
            f"three layers of dilation 1 reach {seen['na']}, Swin's blocks and shifted blocks {seen['swin']}. "
            f"All three compute {k * k} scores for a query and layer; full attention computes {total}.",
            replace(start, mode="field", view="side"),
        ),
        Stop(
            "The numbers",
            "Inside its window the query looks at what is like itself: q · k, plus a bias that prefers near keys, "
            "through the softmax, times the values. Below is every number of this query; click one to see how it "
            "came about.",
            replace(start, token=detail, mode="attention", bias=1, numbers=1),
        ),
    ]


def _stacks(layout: tuple[int, int], k: int, far: int) -> dict[str, list[Layer]]:
    """Three layers of each kind."""
    return {
        "na": [Neighborhood(layout, k)] * 3,
        "dina": [Neighborhood(layout, k, dilation=d) for d in (1, far, 1)],
        "swin": [WindowedAttention(layout, k, shift) for shift in (0, k // 2, 0)],
        "full": [FullAttention(layout)] * 3,
    }


def _percent(share: float) -> str:
    return "all" if share == 1 else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"
