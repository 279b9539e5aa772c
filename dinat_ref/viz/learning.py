"""What training gave: curves of a run, and accuracies of many runs with their spread."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from dinat_ref.viz.curves import finish_curves
from dinat_ref.viz.theme import INK, SERIES, housed


@housed
def draw_training(history: Sequence[Mapping[str, float]], axes: Axes, metric: str, *, title: str | None = None) -> Axes:
    """Draw a metric of every epoch, on the images learned from and on those held out.

    Shapes:
        history: the metrics of each epoch: "epoch", "train_loss", "held_out_loss", ...
        return: the axes
    Args:
        metric: "loss" or "accuracy".
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> history = [{"epoch": 1, "train_loss": 2.0, "held_out_loss": 2.1}]
        >>> len(draw_training(history, new_figure()[1][0, 0], "loss").lines)
        2
    """
    for part, name in (("train", "learned from"), ("held_out", "held out")):
        rows = [row for row in history if f"{part}_{metric}" in row]
        if rows:
            axes.plot(
                [row["epoch"] for row in rows], [row[f"{part}_{metric}"] for row in rows], label=name, markersize=3
            )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    if metric == "accuracy":
        _percent(axes)
    return finish_curves(axes, title, metric)


@housed
def draw_runs(accuracies: Mapping[str, Mapping[str, Sequence[float]]], axes: Axes, *, title: str | None = None) -> Axes:
    """Draw the accuracy of every run as a dot, and the median of the runs of each model and task as a bar.

    Shapes:
        accuracies: for each task, for each model, one number per seed
        return: the axes
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> runs = {"far": {"NA-NA": [0.5, 0.5], "SA-SA": [1.0, 0.9]}, "near": {"NA-NA": [1.0], "SA-SA": [1.0]}}
        >>> len(draw_runs(runs, new_figure()[1][0, 0]).patches)
        4
    """
    width = 0.8 / len(accuracies)
    for number, (task, of_models) in enumerate(accuracies.items()):
        places = np.arange(len(of_models)) + (number - (len(accuracies) - 1) / 2) * width
        medians = [float(np.median(runs)) for runs in of_models.values()]
        axes.bar(places, medians, 0.9 * width, color=SERIES[number], alpha=0.4, label=task)
        for place, runs in zip(places, of_models.values(), strict=True):
            spread = place + np.linspace(-0.3, 0.3, len(runs)) * width
            axes.plot(
                spread, list(runs), "o", markersize=3.5, color=SERIES[number], markeredgecolor=INK, markeredgewidth=0.4
            )
    axes.set_xticks(range(len(of_models)), list(of_models))
    _percent(axes)
    return finish_curves(axes, title, "accuracy")


@housed
def draw_spread(
    curves: Mapping[str, tuple[Sequence[float], Sequence[Sequence[float]]]],
    axes: Axes,
    *,
    xlabel: str,
    title: str | None = None,
) -> Axes:
    """Draw the accuracy of many runs against a number: the median as a line, the worst to the best as a band.

    Shapes:
        curves: by name, numbers [n] and accuracies [seeds][n]
        return: the axes
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> axes = draw_spread({"3 x 3": ([1, 2], [[1.0, 0.5], [0.9, 0.6]])}, new_figure()[1][0, 0], xlabel="distance")
        >>> axes.lines[0].get_ydata().tolist()
        [0.95, 0.55]
    """
    for name, (numbers, runs) in curves.items():
        line = axes.plot(list(numbers), np.median(runs, axis=0), label=name, markersize=4)[0]
        axes.fill_between(
            list(numbers), np.min(runs, axis=0), np.max(runs, axis=0), color=line.get_color(), alpha=0.2, linewidth=0
        )
    axes.set_xticks(sorted({number for numbers, _ in curves.values() for number in numbers}))
    axes.set_xlabel(xlabel)
    _percent(axes)
    return finish_curves(axes, title, "accuracy")


def _percent(axes: Axes) -> None:
    """Write accuracies as percentages."""
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
