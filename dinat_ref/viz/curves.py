"""Curves: how a receptive field grows, how a cost scales."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

from dinat_ref.viz.theme import housed


@housed
def draw_growth(
    curves: Mapping[str, Sequence[float]],
    axes: Axes,
    *,
    title: str | None = None,
    ylabel: str = "width of the receptive field, in tokens",
    log: int | None = None,
) -> Axes:
    """Draw numbers after 0, 1, .. l layers, a curve per name.

    Shapes:
        curves: l + 1 numbers each
        return: the axes
    Args:
        log: make the vertical axis logarithmic, with a tick at each power of this number.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> len(draw_growth({"NA": [1, 7, 13], "DiNA": [1, 7, 49]}, new_figure()[1][0, 0]).lines)
        2
    """
    for name, numbers in curves.items():
        axes.plot(range(len(numbers)), numbers, label=name, markersize=4)
    if log is not None:
        axes.set_yscale("log", base=log)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("layers")
    return finish_curves(axes, title, ylabel)


@housed
def draw_scaling(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    axes: Axes,
    *,
    xlabel: str,
    ylabel: str,
    title: str | None = None,
) -> Axes:
    """Draw amounts against sizes on logarithmic axes, where a power law is a straight line and its exponent the slope.

    Shapes:
        curves: sizes and amounts, equally many, per name
        return: the axes
    Raises:
        ValueError: sizes and amounts of a curve are not equally many.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> sizes = [64, 256, 1024]
        >>> curves = {"linear": (sizes, sizes), "quadratic": (sizes, [size**2 for size in sizes])}
        >>> draw_scaling(curves, new_figure()[1][0, 0], xlabel="tokens", ylabel="steps").get_xscale()
        'log'
    """
    for name, (sizes, amounts) in curves.items():
        if len(sizes) != len(amounts):
            raise ValueError(f"sizes and amounts of {name!r} must be equally many, got {len(sizes)} and {len(amounts)}")
        axes.plot(sizes, amounts, label=name, markersize=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(xlabel)
    return finish_curves(axes, title, ylabel)


def finish_curves(axes: Axes, title: str | None, ylabel: str) -> Axes:
    """Give axes with curves what all of them have: a grid behind them, a title, a legend where a curve has a name.

    Shapes:
        return: the axes
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> finish_curves(new_figure()[1][0, 0], "How loss falls", "loss").get_ylabel()
        'loss'
    """
    axes.set_ylabel(ylabel)
    axes.grid(color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)
    if title is not None:
        axes.set_title(title)
    if axes.get_legend_handles_labels()[1]:
        axes.legend()
    return axes
