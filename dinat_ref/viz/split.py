"""An axis that is split over ranks: who owns which tokens, what each receives, and how many bytes that is."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from dinat_ref.parallel.plan import Plan
from dinat_ref.viz.curves import finish_curves
from dinat_ref.viz.theme import GRID, SERIES, TOKEN, housed

MEBIBYTE = 2**20


def rank_colour(rank: int) -> str:
    """The colour of a rank.

    Example:
        >>> rank_colour(0) == rank_colour(len(SERIES))
        True
    """
    return SERIES[rank % len(SERIES)]


@housed
def draw_plan(plan: Plan, axes: Axes, *, title: str | None = None) -> Axes:
    """Draw a row for each rank: its own tokens in its colour, what it receives hatched in the colour of who sends it.

    Shapes:
        return: the axes
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> axes = draw_plan(Plan((3, 3), kernel_size=3), new_figure()[1][0, 0])
        >>> len(axes.patches)  # 6 tokens in each of 2 rows
        12
    """
    ranks = len(plan.sizes)
    for rank in range(ranks):
        sender = {token: source for source, ranges in plan.receives(rank).items() for keys in ranges for token in keys}
        for token in range(plan.length):
            look: dict[str, Any] = {"facecolor": TOKEN, "edgecolor": "white"}
            if token in plan.shards[rank]:
                look["facecolor"] = rank_colour(rank)
            elif token in sender:
                look |= {"facecolor": "white", "edgecolor": rank_colour(sender[token]), "hatch": "/////"}
            axes.add_patch(Rectangle((token + 0.06, rank + 0.1), 0.88, 0.8, linewidth=0.8, **look))
    axes.set_xlim(0, plan.length)
    axes.set_ylim(ranks, 0)
    axes.set_yticks([rank + 0.5 for rank in range(ranks)], [f"rank {rank}" for rank in range(ranks)])
    axes.set_xticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title or "")
    return axes


def plan_legend() -> list[Patch]:
    """What the cells of ``draw_plan`` mean.

    Shapes:
        return: handles of a legend
    """
    grey = "#777777"
    return [
        Patch(facecolor=grey, label="own"),
        Patch(facecolor="white", edgecolor=grey, hatch="/////", label="received, in the colour of its owner"),
        Patch(facecolor=TOKEN, edgecolor=GRID, label="not needed"),
    ]


@housed
def draw_traffic(curves: Mapping[str, Sequence[float | None]], ranks: Sequence[int], axes: Axes, title: str) -> Axes:
    """Draw the bytes that the busiest rank receives against the number of ranks; None where a way does not exist.

    Shapes:
        curves: a number for each number of ranks, per name
        return: the axes
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> len(draw_traffic({"halo": [10, 10], "heads": [40, None]}, [2, 4], new_figure()[1][0, 0], "Bytes").lines)
        2
    """
    for name, amounts in curves.items():
        points = [
            (count, amount / MEBIBYTE) for count, amount in zip(ranks, amounts, strict=True) if amount is not None
        ]
        axes.plot(*zip(*points, strict=True), label=name, markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(ranks, [f"{count:,}" for count in ranks])
    axes.set_xlabel("ranks")
    return finish_curves(axes, title, "MiB received by the busiest rank")
