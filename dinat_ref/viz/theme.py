"""The house theme: one look for every drawing, legible when printed grey and by colour-blind readers.

The colours are Okabe and Ito's, and each meaning also has a shape: the query carries a dot, outlines differ in
their dashes. Nothing here touches matplotlib's global state or needs a screen: figures are made without pyplot.
"""

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from dinat_ref.command import CommandError, whole_file

P = ParamSpec("P")
R = TypeVar("R")

QUERY = "#D55E00"  # vermillion
KEY = "#0072B2"  # blue
GROUP = "#A6CFE8"  # pale blue: same dilation group, not attended
TOKEN = "#F1F1F1"  # a token that has nothing to do with the query
OUTSIDE = "#FFFFFF"
INK = "#222222"
GRID = "#C8C8C8"
ACCENT = "#009E73"  # green
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WEIGHTS = "viridis"  # for weights and other amounts
PAGE_DPI = 96  # an inch on a page, as browsers have it
FINE_DPI = 160  # of what is drawn there: sharp on fine screens
TIMES = " \N{MULTIPLICATION SIGN} "
SIGNED = "PuOr_r"  # for numbers on both sides of zero

HOUSE: Any = {
    "font.family": "DejaVu Sans",  # ships with matplotlib
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=SERIES, marker=MARKERS),
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "figure.titlesize": 12.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.06,
    "image.interpolation": "nearest",
    "image.cmap": WEIGHTS,
    "svg.hashsalt": "dinat_ref",  # the same drawing is the same file
    "svg.fonttype": "path",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw what is inside the block in the house theme, and leave matplotlib's settings as they were.

    Source: Okabe & Ito (2008), Color Universal Design.
    Example:
        >>> with house_style():
        ...     matplotlib.rcParams["axes.titlelocation"]
        'left'
    """
    with matplotlib.rc_context(HOUSE):
        yield


def housed(draw: Callable[P, R]) -> Callable[P, R]:
    """Make a drawing function work in the house theme, whoever calls it.

    Example:
        >>> housed(lambda: matplotlib.rcParams["font.size"])()
        9.0
    """

    @wraps(draw)
    def in_house_style(*args: P.args, **kwargs: P.kwargs) -> R:
        with house_style():
            return draw(*args, **kwargs)

    return in_house_style


class Picture(Figure):
    r"""A figure that a notebook shows when it ends a cell; made without pyplot, so nobody has to close it.

    Source: IPython's rich display.
    Example:
        >>> png, size = Picture(figsize=(3, 2), layout="constrained")._repr_png_()
        >>> png[:4], sorted(size)
        (b'\x89PNG', ['height', 'width'])
    """

    @housed
    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """What a notebook shows, and how large: more pixels than a page has in that place."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=FINE_DPI, metadata={"Software": None})
        png = buffer.getvalue()
        width, height = struct.unpack(">II", png[16:24])  # the header of a PNG
        return png, {"width": width * PAGE_DPI // FINE_DPI, "height": height * PAGE_DPI // FINE_DPI}


@housed
def new_figure(rows: int = 1, columns: int = 1, size: tuple[float, float] = (4.0, 4.0), **subplots: Any) -> Any:
    """Make a figure outside pyplot, and its grid of axes.

    Shapes:
        return: (Picture, array of Axes [rows, columns])
    Args:
        size: width and height of the whole figure in inches; GitHub shows about 8 inches.
        subplots: passed on to ``Figure.subplots``, for example width_ratios.
    Raises:
        ValueError: rows or columns is below 1.
    Example:
        >>> figure, grid = new_figure(1, 2, size=(8, 4))
        >>> grid.shape
        (1, 2)
    """
    figure = Picture(figsize=size, layout="constrained")
    return figure, np.asarray(figure.subplots(rows, columns, squeeze=False, **subplots))


@housed
def share_legend(figure: Figure, handles: Sequence[Artist], columns: int = 3) -> Legend:
    """Put one legend under all drawings of a figure.

    Shapes:
        handles: as ``window_legend`` makes them
    Example:
        >>> from matplotlib.patches import Patch
        >>> len(share_legend(new_figure()[0], [Patch(label="key")]).get_texts())
        1
    """
    return figure.legend(handles=handles, loc="outside lower center", ncols=columns)


@housed
def save_figure(figure: Figure, path: Path | str, dpi: int = 150) -> Path:
    """Write a figure as the suffix of the path says, png, svg or pdf: whole or not at all, and always the same bytes.

    Shapes:
        return: the path
    Raises:
        CommandError: an unknown suffix, or the directory cannot be written.
    Source: matplotlib's notes on reproducible output.
    Example:
        >>> save_figure(Figure(), "windows.gif")
        Traceback (most recent call last):
        dinat_ref.command.CommandError: a drawing is written as .pdf, .png or .svg, got windows.gif
    """
    path = Path(path)
    stamps: dict[str, dict[str, None]] = {
        ".pdf": {"CreationDate": None},
        ".png": {"Software": None},
        ".svg": {"Date": None},
    }
    if path.suffix.lower() not in stamps:
        raise CommandError(f"a drawing is written as .pdf, .png or .svg, got {path.name}")
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata=stamps[path.suffix.lower()])
    return path


def plain_axes(axes: Axes) -> Axes:
    """Take away ticks and frame, for drawings whose tokens are their own coordinates.

    Shapes:
        return: the axes
    Example:
        >>> len(plain_axes(new_figure()[1][0, 0]).get_xticks())
        0
    """
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes
