"""Each figure drawn from its numbers."""

from collections.abc import Callable
from typing import Any

import vector
from matplotlib.figure import Figure

from dinat_ref.neighborhood import Neighborhood
from dinat_ref.viz.curves import draw_growth, draw_scaling
from dinat_ref.viz.experiment_plates import PLATES
from dinat_ref.viz.kernel_tiles import busiest_tile, draw_published, draw_tile_map, tile_legend
from dinat_ref.viz.plates import atlas_plate, hero_plate
from dinat_ref.viz.split import draw_traffic
from dinat_ref.viz.theme import KEY, QUERY, SERIES, TIMES, house_style, new_figure, share_legend

Numbers = dict[str, Any]


def receptive_field_growth(numbers: Numbers) -> Figure:
    """Curves of the field's width, after each layer."""
    figure, grid = new_figure(size=(7, 4))
    draw_growth(numbers, grid[0, 0], title="Tokens seen on an axis of 343, kernel size 7", ylabel="tokens seen", log=7)
    return figure


@house_style()
def level_by_level(numbers: Numbers) -> Figure:
    """Bars of the share of an axis that a token sees at the end of each level."""
    chosen = {"NAT-Mini": "nat_mini", "DiNAT_s-Tiny": "dinat_s_tiny", "DiNAT-Mini": "dinat_mini"}
    figure, grid = new_figure(size=(7, 3.4))
    axes, width = grid[0, 0], 0.26
    for place, ((label, name), color) in enumerate(zip(chosen.items(), SERIES, strict=False)):
        positions = [level + (place - 1) * width for level in range(4)]
        bars = axes.bar(positions, numbers[name], width * 0.92, label=label, color=color)
        axes.bar_label(bars, [f"{100 * share:.0f}" for share in numbers[name]], fontsize=8)
    axes.set_xticks(
        range(4), [f"level {level + 1}\n{56 // 2**level}{TIMES}{56 // 2**level} tokens" for level in range(4)]
    )
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    axes.set_ylim(0, 1.1)
    axes.set_title("Share of an axis that a token sees by the end of each level, in percent")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@house_style()
def gridding(numbers: Numbers) -> Figure:
    """The law 1/d and what sets of tokens say."""
    figure, grid = new_figure(size=(6, 3.2))
    axes = grid[0, 0]
    dilations = [int(dilation) for dilation in numbers]
    axes.bar(dilations, [row["reached"] for row in numbers.values()], 0.7, color=KEY, label="reached by 20 layers")
    law = [1 / dilation for dilation in dilations]
    axes.plot(dilations, law, marker="o", markersize=4, color=QUERY, label="1 / dilation")
    axes.set_xlabel("the dilation of all layers")
    axes.set_ylabel("share of 56 tokens")
    axes.set_title("One dilation everywhere leaves holes: gridding")
    axes.legend()
    return figure


@house_style()
def equivariance(numbers: Numbers) -> Figure:
    """The share of unchanged tokens by the distance of two crops."""
    figure, grid = new_figure(size=(7, 3.8))
    axes = grid[0, 0]
    for name, shares in numbers.items():
        axes.plot(range(1, len(shares)), shares[1:], label=name, markersize=4)
    axes.set_xlabel("distance of the two crops, in tokens")
    axes.set_ylabel("share of 48 shared tokens")
    axes.set_xticks(range(0, 25, 4))
    axes.set_ylim(-0.05, 1.05)
    axes.grid(color="#E4E4E4", linewidth=0.6)
    axes.set_title("Tokens that attend the same tokens in both crops")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def cost(numbers: Numbers) -> Figure:
    """Operations and memory against the number of tokens."""
    figure, grid = new_figure(1, 2, size=(8, 3.5))
    words = {"NA": f"neighborhood attention, 7{TIMES}7", "SA": "full self attention"}
    for axes, amount, title in zip(grid[0], ("operations", "memory"), ("Multiply-adds", "Numbers stored"), strict=True):
        curves = {label: (numbers["tokens"], numbers[kind][amount]) for kind, label in words.items()}
        draw_scaling(curves, axes, xlabel="tokens", ylabel="of one layer, 64 channels", title=title)
    return figure


def formulations(numbers: Numbers) -> Figure:
    """The largest tensor of each formulation, against the number of tokens."""
    figure, grid = new_figure(size=(6.5, 3.8))
    amounts = numbers["numbers"]
    same = amounts["gather"] == amounts["unfold"]  # one curve would hide the other
    curves = {impl: (numbers["tokens"], amounts[impl]) for impl in amounts if not (same and impl == "unfold")}
    if same:
        curves = {"gather and unfold": curves.pop("gather"), **curves}
    title = "The largest tensor that each formulation makes"
    draw_scaling(curves, grid[0, 0], xlabel="tokens", ylabel="numbers, head_dim 32", title=title)
    return figure


def scaling(numbers: Numbers) -> Figure:
    """Measured time and memory of each formulation and of dense attention, against the number of tokens."""
    figure, grid = new_figure(1, 2, size=(9, 3.9))
    for axes, unit, title in zip(
        grid.flat,
        ("milliseconds", "megabytes"),
        ("Time of a forward pass", "Peak memory above the inputs"),
        strict=True,
    ):
        draw_scaling(numbers[unit], axes, xlabel="tokens (kernel 7, 2 heads)", ylabel=unit, title=title)
    return figure


def tiles(numbers: Numbers) -> Figure:
    """What a tile of queries visits in a frame of video, without a stride and with one, and the speedups of strides."""
    figure, grid = new_figure(1, 3, size=(9.2, 3.9), width_ratios=[1, 1, 1.5])
    for axes, stride in zip(grid[0], ((1, 1, 1), (16, 8, 8)), strict=False):
        neighborhood = Neighborhood(numbers["layout"], numbers["window"], stride)
        shown = busiest_tile(neighborhood, numbers["q_tile"], numbers["kv_tile"])[1:]  # rows and columns of a frame
        count = TIMES.join(str(len(tile.tiles)) for tile in shown)
        draw_tile_map(shown, axes, title=f"stride {'x'.join(map(str, stride))}\nvisits {count} tiles in a frame")
    strides = {tuple(map(int, name.split("x"))): row for name, row in numbers["strides"].items()}
    draw_published(
        grid[0, 2],
        {stride: row["counted"] for stride, row in strides.items()},
        {stride: row["published"] for stride, row in strides.items()},
        numbers["without tiles"],
        "Speedup of a run, by stride\n(HunyuanVideo, window 18x24x24)",
    )
    share_legend(figure, [*tile_legend(), *grid[0, 2].get_legend_handles_labels()[0]], columns=4)
    return figure


def traffic(numbers: Numbers) -> Figure:
    """Curves of bytes over ranks."""
    figure, grid = new_figure(size=(7, 3.8))
    ranks = numbers.pop("ranks")
    title = f"One layer on 4,096{TIMES}4,096 tokens, window 7{TIMES}7, rows split over ranks"
    draw_traffic(numbers, ranks, grid[0, 0], title).set_ylim(top=3e6)  # room for the legend
    return figure


DRAWINGS: dict[str, Callable[[Numbers], Figure | str]] = {
    "walk": vector.walk,
    "comparison": vector.comparison,
    "hero": lambda _: hero_plate(),
    "atlas": lambda _: atlas_plate(),
    "receptive_field_growth": receptive_field_growth,
    "level_by_level": level_by_level,
    "gridding": gridding,
    "equivariance": equivariance,
    "cost": cost,
    "formulations": formulations,
    "scaling": scaling,
    "tiles": tiles,
    "traffic": traffic,
    **PLATES,
}
