"""What training gave: curves of a run, and accuracies of many runs with their spread."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from dinat_ref.viz.theme import INK, SERIES, housed


@housed
def draw_training(history: Sequence[Mapping[str, float]], axes: Axes, metric: str, *, title: str | None = None) -> Axes:
    """Draw a metric of every epoch, on the images learned from and on those held out.

    Shapes:
        history: the metrics of each epoch: "epoch", "train_loss", "held_out_loss", ...
        return: the axes
    Args:
        metric: "loss" or "accuracy".
    Raises:
        Nothing.
    Source: the project's own.
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
    return _finish(axes, metric, title)


@housed
def draw_runs(
    accuracies: Mapping[str, Mapping[str, Sequence[float]]], axes: Axes, *, chance: float, title: str | None = None
) -> Axes:
    """Draw the accuracy of every run as a dot, and the median of each group of runs as a bar.

    Shapes:
        accuracies: for each model, for each task, one number per seed
        return: the axes
    Args:
        chance: the accuracy of guessing, drawn as a dotted line.
    Raises:
        Nothing.
    Source: the project's own.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> runs = {"NA-NA": {"far": [0.5, 0.5], "near": [1.0, 0.9]}, "SA-SA": {"far": [1.0, 1.0], "near": [1.0, 1.0]}}
        >>> len(draw_runs(runs, new_figure()[1][0, 0], chance=0.5).patches)
        4
    """
    tasks = list(next(iter(accuracies.values())))
    width = 0.8 / len(tasks)
    for number, task in enumerate(tasks):
        for position, runs in enumerate(accuracies.values()):
            x = position + (number - (len(tasks) - 1) / 2) * width
            label = task if position == 0 else None
            axes.bar(x, float(np.median(runs[task])), 0.9 * width, color=SERIES[number], alpha=0.45, label=label)
            spread = np.linspace(-0.3, 0.3, len(runs[task])) * width
            axes.plot(
                x + spread,
                list(runs[task]),
                "o",
                markersize=3,
                color=SERIES[number],
                markeredgecolor=INK,
                markeredgewidth=0.4,
            )
    axes.axhline(chance, color=INK, linestyle=":", linewidth=1)
    axes.text(len(accuracies) - 0.45, chance, "guessing", va="bottom", ha="right", fontsize=8)
    axes.set_xticks(range(len(accuracies)), list(accuracies))
    axes.set_ylim(0.4 if chance >= 0.5 else 0, 1.02)
    return _finish(axes, "accuracy", title)


def _finish(axes: Axes, ylabel: str, title: str | None) -> Axes:
    axes.set_ylabel(ylabel)
    if ylabel == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)
    if title is not None:
        axes.set_title(title)
    if axes.get_legend_handles_labels()[1]:
        axes.legend()
    return axes
