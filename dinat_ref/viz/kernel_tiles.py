"""Tiles on paper: what one tile of queries visits, and what a stride buys."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import NullLocator, StrMethodFormatter

from dinat_ref.analysis.kernel_tiles import AxisTile, axis_tiles, check_tiles
from dinat_ref.analysis.tile_search import Choice
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.viz.theme import GROUP, INK, KEY, QUERY, TIMES, TOKEN, housed, new_figure, plain_axes, share_legend

IN_VAIN = "#F3C6A5"  # pale orange: visited, and attended by no query of the tile
COUNTED = "#B5DCCB"  # pale green
LINE = range(1)  # the single row of a layout of one axis


def busiest_tile(
    neighborhood: Neighborhood, query_tile: Sequence[int], key_tile: Sequence[int], tiling: str = "static"
) -> tuple[AxisTile, ...]:
    """Find the tile of queries that visits the most tiles of keys; of several, one in the middle.

    Shapes:
        return: one tile per axis
    Example:
        >>> busiest_tile(Neighborhood((16,), 4), (4,), (4,))[0].queries
        range(8, 12)
    """
    by_axis = [axis_tiles(*axis, tiling) for axis in zip(neighborhood.axes, query_tile, key_tile, strict=True)]

    def middle(tiles: Sequence[AxisTile]) -> AxisTile:
        most = max(len(tile.tiles) for tile in tiles)
        busy = [tile for tile in tiles if len(tile.tiles) == most and tile.group == tiles[0].group] or list(tiles)
        return busy[len(busy) // 2]

    return tuple(middle(tiles) for tiles in by_axis)


@housed
def draw_tile_map(tiles: Sequence[AxisTile], axes: Axes, *, title: str | None = None) -> Axes:
    """Draw what a tile of queries visits on one axis or two, in places of its dilation group.

    Dark blue keys are attended by all its queries, pale blue ones by some, orange ones by none: they are visited in
    vain. Lines are the edges of the visited tiles; an orange outline holds the queries.

    Shapes:
        tiles:  one per axis, as ``busiest_tile`` finds them
        return: the axes
    Raises:
        ValueError: no axis, or more than two.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> tiles = busiest_tile(Neighborhood((16, 24), 6), (4, 4), (4, 4))
        >>> draw_tile_map(tiles, new_figure()[1][0, 0]).get_title(loc="left")
        'visits 3 × 3 tiles'
    """
    if not 1 <= len(tiles) <= 2:
        raise ValueError(f"a map shows one axis or two, got {len(tiles)}")
    across = tiles[-1]
    down = tiles[0] if len(tiles) == 2 else AxisTile(0, 1, LINE, LINE, LINE, LINE)
    visited = [range(tile.tiles[0], tile.tiles[0] + tile.keys_visited) for tile in (down, across)]
    _box(axes, range(down.length), range(across.length), facecolor=TOKEN, edgecolor="none")
    _box(axes, visited[0], visited[1], facecolor=IN_VAIN, edgecolor="none")
    _box(axes, down.keys, across.keys, facecolor=GROUP, edgecolor="none")
    if down.shared and across.shared:
        _box(axes, down.shared, across.shared, facecolor=KEY, edgecolor="none")
    for row in down.tiles:
        for column in across.tiles:
            rows = range(row, min(row + down.tiles.step, down.length))
            columns = range(column, min(column + across.tiles.step, across.length))
            _box(axes, rows, columns, fill=False, edgecolor=INK, linewidth=0.8)
    _box(axes, down.queries, across.queries, fill=False, edgecolor="white", linewidth=3.4)
    _box(axes, down.queries, across.queries, fill=False, edgecolor=QUERY, linewidth=2.0)
    axes.set_xlim(-1, across.length)
    axes.set_ylim(down.length, -1)
    if len(tiles) == 2:
        axes.set_aspect("equal")
    plain_axes(axes)
    sizes = TIMES.join(str(len(tile.tiles)) for tile in tiles)
    axes.set_title(f"visits {sizes} tiles" if title is None else title)
    return axes


def tile_legend() -> list[Patch | Line2D]:
    """Make the legend of a tile map.

    Example:
        >>> [handle.get_label() for handle in tile_legend()][-1]
        'visited in vain'
    """
    return [
        Patch(fill=False, edgecolor=QUERY, linewidth=2.0, label="tile of queries"),
        Patch(fill=False, edgecolor=INK, linewidth=0.8, label="visited tile of keys"),
        Patch(facecolor=KEY, label="attended by all its queries"),
        Patch(facecolor=GROUP, label="attended by some"),
        Patch(facecolor=IN_VAIN, label="visited in vain"),
    ]


@housed
def draw_stride_front(front: Sequence[Choice], axes: Axes, *, chosen: Choice | None = None) -> Axes:
    """Draw the speedup of attention against how many queries share a window.

    Shapes:
        return: the axes
    Args:
        front: as ``stride_front`` finds it.
        chosen: a setting to mark.
    Raises:
        ValueError: an empty front.
    Example:
        >>> from dinat_ref.analysis.tile_search import stride_front
        >>> from dinat_ref.viz.theme import new_figure
        >>> front = stride_front(Neighborhood((256, 256), 80), [((16, 16), (16, 8))])
        >>> len(draw_stride_front(front, new_figure()[1][0, 0]).texts)
        3
    """
    if not front:
        raise ValueError("a front needs at least one choice")
    sharing = [choice.sharing for choice in front]
    speedups = [choice.count.speedup for choice in front]
    bound = max(choice.count.flop_speedup for choice in front)
    several = len({choice.neighborhood.kernel_size for choice in front}) > 1  # windows, which labels then name, too
    axes.axhline(bound, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), label="without tiles: tokens / keys")
    axes.plot(sharing, speedups, drawstyle="steps-post", color=KEY, marker="o", markersize=5, label="worth having")
    for choice in front:
        place = (choice.sharing, choice.count.speedup)
        label = _by(choice.neighborhood.stride) + (f"\nof {_by(choice.neighborhood.kernel_size)}" if several else "")
        axes.annotate(label, place, (4, -4), textcoords="offset points", fontsize=8, va="top")
    if chosen is not None:
        place = (chosen.sharing, chosen.count.speedup)
        axes.plot(*place, color=QUERY, marker="s", markersize=8, fillstyle="none", linestyle="none", label="chosen")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(0.8, 2.2 * max([*sharing, *([chosen.sharing] if chosen is not None else [])]))
    axes.set_ylim(0, 1.12 * bound)
    axes.set_xlabel("queries that share a window")
    axes.set_ylabel("speedup over full attention, at most")
    axes.set_title("What a stride buys")
    axes.legend(loc="lower right")
    return axes


def tile_plate(
    neighborhood: Neighborhood,
    query_tile: Sequence[int],
    key_tile: Sequence[int],
    tiling: str,
    front: Sequence[Choice],
    chosen: Choice | None = None,
) -> Figure:
    """Draw what the busiest tile of queries visits, and the speedup over strides: what ``dinat-ref tiles`` writes.

    Layouts of three axes are drawn as two maps, of the first axis and of the other two.

    Shapes:
        return: a figure of a drawing or two of tiles, and one of speedups
    Raises:
        ValueError: more than three axes, or as ``count_tiles``.
    Example:
        >>> len(tile_plate(Neighborhood((16, 24), 6), (4, 4), (4, 4), "static", []).axes)
        1
    """
    if neighborhood.ndim > 3:
        raise ValueError(f"a drawing shows layouts of up to three axes, got {neighborhood.layout}")
    query_tile, key_tile = check_tiles(neighborhood, query_tile, key_tile, tiling)
    tiles = busiest_tile(neighborhood, query_tile, key_tile, tiling)
    maps = [tiles[:1], tiles[1:]] if len(tiles) == 3 else [tiles]
    heights = [0.5 if len(shown) == 1 else 2.6 for shown in maps] + [2.6] * bool(front)
    figure, grid = new_figure(len(heights), size=(7.5, 0.9 + 1.15 * sum(heights)), height_ratios=heights)
    names = [f"axis {number}" for number in range(len(tiles))]
    for axes, shown in zip(grid.flat, maps, strict=False):
        where = " and ".join(names[: len(shown)])
        names = names[len(shown) :]
        count = TIMES.join(str(len(tile.tiles)) for tile in shown)
        draw_tile_map(shown, axes, title=f"{where}: the busiest tile of queries visits {count} tiles of keys")
    if front:
        draw_stride_front(front, grid.flat[len(maps)], chosen=chosen)
    share_legend(figure, tile_legend(), columns=3)
    return figure


@housed
def draw_published(
    axes: Axes, ours: Mapping[Sequence[int], float], published: Mapping[Sequence[int], float], bound: float, title: str
) -> Axes:
    """Draw speedups by stride beside those that were published.

    Shapes:
        ours, published: a speedup for each stride, in the order to draw
        return: the axes
    Args:
        bound: the speedup without tiles, a dashed line.
    Raises:
        ValueError: no strides, or not the same in both.
    Example:
        >>> from dinat_ref.viz.theme import new_figure
        >>> len(draw_published(new_figure()[1][0, 0], {(1, 1): 1.5}, {(1, 1): 1.49}, 2.0, "an image").patches)
        1
    """
    if not ours or list(ours) != list(published):
        raise ValueError(f"both need the same strides, got {list(ours)} and {list(published)}")
    places = range(len(ours))
    bars = axes.bar(places, list(ours.values()), 0.66, color=COUNTED, label="counted here")
    axes.bar_label(bars, [f"{value:.2f}" for value in ours.values()], label_type="center", fontsize=8)
    axes.plot(places, list(published.values()), color=QUERY, marker="D", markersize=5, linestyle="none", label="paper")
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # so that the dashed line does not cross numbers
    for place, value in zip(places, published.values(), strict=True):
        text = axes.annotate(f"{value:.2f}", (place, value), (0, 6), textcoords="offset points", ha="center")
        text.set(color=QUERY, fontsize=8, bbox=paper)
    axes.axhline(bound, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), label="without tiles")
    axes.set_xticks(places, [_by(stride).replace("x", "x\n", 1) if len(stride) > 2 else _by(stride) for stride in ours])
    axes.set_ylim(1, 1 + 1.25 * (bound - 1))
    axes.set_title(title)
    return axes


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _box(axes: Axes, rows: range, columns: range, **style: object) -> None:
    """A rectangle around some places, with the given style."""
    corner = (columns[0] - 0.5, rows[0] - 0.5)
    axes.add_patch(Rectangle(corner, len(columns), len(rows), **style))  # type: ignore[arg-type]
