"""The pictures of the training experiments, from their numbers."""

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dinat_ref.viz.learning import draw_runs, draw_spread
from dinat_ref.viz.theme import INK, SERIES, TIMES, new_figure

Numbers = Mapping[str, Any]
TASKS = {"far_match": "far_match: compare two distant markers", "texture": "texture: compare pixels that touch"}


def patterns_plate(numbers: Numbers) -> Figure:
    """Draw which orders of local and dilated layers learn what, above the part of the pairs that meet in some token.

    Shapes:
        numbers: accuracy and meet by task, by pattern, of ``dinat_ref.training.experiments.patterns``
    Raises:
        KeyError: numbers of another experiment.
    Source: the project's own.
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
    _limits(axes, "guessing", 0.5)
    axes.axhline(0.75, color=INK, linestyle="--", linewidth=0.8)
    axes.text(-0.48, 0.755, "most where markers never meet", fontsize=8)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return figure


def _label(pattern: str, meet: Numbers) -> str:
    """The name of a pattern as the paper writes it, and the part of the pairs of both tasks that meet."""
    name = "-".join({"na": "NA", "dina": "DiNA", "sa": "SA"}[layer] for layer in pattern.split("_"))
    return f"{name}\nmarkers meet: {meet['far_match'][pattern]:.0%}\npixels meet: {meet['texture'][pattern]:.0%}"


def distance_plate(numbers: Numbers) -> Figure:
    """Draw the accuracy by the distance of the markers, and where the receptive field says that it must fall.

    Shapes:
        numbers: distances [n], accuracy by kernel size [seeds][n], meet by kernel size [n]
    Raises:
        KeyError: numbers of another experiment.
    Source: the project's own.
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
            axes.text(reach + 0.55, 0.43, f"{kernel}{TIMES}{kernel}: no token\nsees both", fontsize=8, color=colour)
    _limits(axes, "guessing", 0.5)
    return figure


def digits_plate(numbers: Numbers) -> Figure:
    """Draw the accuracy on digits by the dilation at test time, a curve for each dilation in training.

    Shapes:
        numbers: accuracy by model, by tokens of a side, by dilation, [seeds]
    Raises:
        KeyError: numbers of another experiment.
    Source: the project's own.
    Example:
        >>> numbers = {"accuracy": {"NAT": {"8": {"1": [0.9], "2": [0.8]}}}, "trained_with": {"NAT": 1}}
        >>> len(digits_plate(numbers).axes)
        1
    """
    accuracy, trained = numbers["accuracy"], numbers["trained_with"]
    sizes = list(next(iter(accuracy.values())))
    figure, grid = new_figure(1, len(sizes), size=(4.2 * len(sizes), 3.6), sharey=True)
    for axes, size in zip(grid[0], sizes, strict=True):
        curves = {}
        for name, of_sizes in accuracy.items():
            dilations = [int(dilation) for dilation in of_sizes[size]]
            runs = list(zip(*of_sizes[size].values(), strict=True))  # [seeds][dilations]
            curves[f"{name}, trained with {trained[name]}"] = (dilations, runs)
        title = f"{size}{TIMES}{size} tokens" + ("" if size == sizes[0] else ", never seen in training")
        draw_spread(curves, axes, xlabel="dilation of the second layer, at test time", title=title)
    return figure


def _limits(axes: Axes, text: str, chance: float) -> None:
    """Show accuracies from a little below guessing to 1."""
    axes.set_ylim(0.4, 1.02)
    axes.axhline(chance, color=INK, linestyle=":", linewidth=1)
    axes.text(axes.get_xlim()[1], chance, text, fontsize=8, ha="right", va="bottom")


PLATES: dict[str, Callable[[Numbers], Figure]] = {
    "patterns": patterns_plate,
    "distance": distance_plate,
    "digits": digits_plate,
}
