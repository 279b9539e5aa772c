"""The pictures of the training experiments, from their numbers."""

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dinat_ref.viz.learning import draw_runs, draw_spread
from dinat_ref.viz.theme import INK, SERIES, TIMES, housed, new_figure, share_legend

Numbers = Mapping[str, Any]
TASKS = {"far_match": "far_match: compare two distant markers", "texture": "texture: compare pixels that touch"}


@housed
def patterns_plate(numbers: Numbers) -> Figure:
    """Draw which orders of local and dilated layers learn what, above the part of the pairs that meet in some token.

    Shapes:
        numbers: accuracy and meet by task, by pattern, of ``dinat_ref.training.experiments.patterns``
    Raises:
        KeyError: numbers of another experiment.
    Example:
        >>> names = ("na_na", "sa_sa")
        >>> numbers = {"accuracy": {t: {n: [0.5, 1.0] for n in names} for t in TASKS}}
        >>> numbers["meet"] = {t: {n: 1.0 for n in names} for t in TASKS}
        >>> len(patterns_plate(numbers).axes)
        1
    """
    figure, grid = new_figure(size=(9, 4.2))
    axes = grid[0, 0]
    accuracy, meet = numbers["accuracy"], numbers["meet"]
    shown = {
        TASKS[task]: {_label(pattern, meet): runs for pattern, runs in accuracy[task].items()} for task in accuracy
    }
    draw_runs(shown, axes, title="Two layers, five seeds: dots are runs, bars their medians")
    _draw_level(axes, "guessing", 0.5)
    _draw_level(axes, "the most for far_match\nwhere markers never meet", 0.75)
    axes.set_xlim(-0.7, len(shown[next(iter(shown))]) - 0.4)
    axes.set_ylim(0, 1.02)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return figure


def _label(pattern: str, meet: Numbers) -> str:
    """The name of a pattern as the paper writes it, and the part of the pairs of both tasks that meet."""
    name = "-".join({"na": "NA", "dina": "DiNA", "sa": "SA"}[layer] for layer in pattern.split("_"))
    return f"{name}\nmarkers meet: {meet['far_match'][pattern]:.0%}\npixels meet: {meet['texture'][pattern]:.0%}"


@housed
def distance_plate(numbers: Numbers) -> Figure:
    """Draw the accuracy by the distance of the markers, and where the receptive field says that it must fall.

    Shapes:
        numbers: distances [n], accuracy by kernel size [seeds][n], meet by kernel size [n]
    Raises:
        KeyError: numbers of another experiment.
    Example:
        >>> numbers = {"distances": [1, 2], "accuracy": {"3": [[1.0, 0.5]]}, "meet": {"3": [1.0, 0.0]}}
        >>> len(distance_plate(numbers).axes)
        1
    """
    figure, grid = new_figure(size=(8, 4))
    axes = grid[0, 0]
    distances = numbers["distances"]
    curves = {f"windows of {k}{TIMES}{k}": (distances, runs) for k, runs in numbers["accuracy"].items()}
    draw_spread(
        curves, axes, xlabel="distance of the two markers, in tokens", title="Two NA layers compare two markers"
    )
    for colour, (kernel, meet) in zip(SERIES, numbers["meet"].items(), strict=False):
        reach = max((distance for distance, share in zip(distances, meet, strict=True) if share > 0), default=0)
        if reach < distances[-1]:
            axes.axvline(reach + 0.5, color=colour, linestyle="--", linewidth=1)
            axes.text(
                reach + 0.45,
                0.42,
                f"{kernel}{TIMES}{kernel}: no token\nsees both",
                fontsize=8,
                color=colour,
                ha="right",
            )
    _draw_level(axes, "guessing", 0.5)
    axes.set_ylim(0.4, 1.02)
    return figure


@housed
def digits_plate(numbers: Numbers) -> Figure:
    """Draw the accuracy on digits by what is changed at test time, a curve for each dilation in training.

    Shapes:
        numbers: accuracy by model, by tokens of a side, by dilation or factor of all dilations, [seeds]
    Raises:
        KeyError: numbers of another experiment.
    Example:
        >>> numbers = {"accuracy": {"NAT": {"8": {"1": [0.9], "2": [0.8]}}}, "trained_with": {"NAT": 1}}
        >>> len(digits_plate(numbers).axes)
        1
    """
    accuracy, trained = numbers["accuracy"], numbers["trained_with"]
    titles = {"8": f"Scans of 8{TIMES}8 tokens, as in training", "16": f"The same, twice as large: 16{TIMES}16 tokens"}
    words = {
        "8": {"1": "second layer:\ndilation 1", "2": "second layer:\ndilation 2"},
        "16": {"1": "dilations\nas trained", "2": "all dilations\ndoubled"},
    }
    sizes = list(next(iter(accuracy.values())))
    figure, grid = new_figure(1, len(sizes), size=(4.2 * len(sizes), 3.6), sharey=True)
    for axes, size in zip(grid[0], sizes, strict=True):
        runs = {
            f"{name}, trained with dilation {trained[name]}": {
                words[size][change]: of_seeds for change, of_seeds in of_sizes[size].items()
            }
            for name, of_sizes in accuracy.items()
        }
        draw_runs(runs, axes, title=titles[size])
        axes.set_ylim(0, 1.02)
        axes.legend().remove()
    share_legend(figure, grid[0, 0].get_legend_handles_labels()[0])
    return figure


def _draw_level(axes: Axes, text: str, level: float) -> None:
    """Draw an accuracy to compare with, and its name to the right of the axes, where nothing lies under it."""
    axes.axhline(level, color=INK, linestyle=":", linewidth=1)
    axes.text(1.01, level, text, fontsize=8, va="center", transform=axes.get_yaxis_transform())


PLATES: dict[str, Callable[[Numbers], Figure]] = {
    "patterns": patterns_plate,
    "distance": distance_plate,
    "digits": digits_plate,
}
