"""Still pictures of a recorded run: what a line of code was about, on the layout or on one axis."""

import textwrap
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from dinat_ref.analysis.recording.axis_scene import AxisScene
from dinat_ref.analysis.recording.fold import folded
from dinat_ref.analysis.recording.recorder import Step
from dinat_ref.analysis.recording.run import Recording
from dinat_ref.analysis.recording.scene import Scene, scenes
from dinat_ref.viz.grid import set_view
from dinat_ref.viz.step.text import brief
from dinat_ref.viz.theme import ACCENT, GRID, GROUP, INK, KEY, QUERY, TOKEN, WEIGHTS, housed

LINE = 44  # characters of a line of source that fit over a picture


@dataclass(frozen=True)
class Stage:
    """A step of a recorded run, and what it is about."""

    step: Step
    scene: Scene | AxisScene


def stages(recording: Recording, query: int, names: Collection[str]) -> list[Stage]:
    """Find the steps about one query that bind one of some variables, each line once.

    Args:
        query: a row-major number; in a run of ``window`` the position on the axis.
        names: of variables; "return" for what ``window`` returns.
    Example:
        >>> from dinat_ref import Neighborhood
        >>> from dinat_ref.analysis.recording.problem import Problem
        >>> from dinat_ref.analysis.recording.run import record
        >>> recording = record("window", Problem("one axis", Neighborhood((7,), 3)))
        >>> [recording.text(stage.step).strip() for stage in stages(recording, query=0, names=["stop"])]
        ['stop = start + kernel_size']
    """
    seen = list(scenes(recording))
    found = []
    for step, scene, is_hidden in zip(recording.steps, seen, folded(recording, seen), strict=True):
        ends = step.event == "return" and step.function == "window" and "return" in names
        binds = step.event != "call" and not set(names).isdisjoint(step.changed)
        asked_for = scene.token if isinstance(scene, AxisScene) and recording.formulation != "window" else scene.query
        if asked_for == query and not is_hidden and (ends or binds):
            found.append(Stage(step, scene))
    return found


@housed
def draw_stage(recording: Recording, stage: Stage, axes: Axes) -> Axes:
    """Draw what a step is about, under its line of source and over what the line made.

    On a layout the query is orange, its keys are pale blue and the one that is being read is blue; scores and weights
    are written into the keys' cells; outputs that are done are green. On an axis the dilation group is pale blue, and
    blue is the window.

    Example:
        >>> from dinat_ref import Neighborhood
        >>> from dinat_ref.analysis.recording.problem import Problem
        >>> from dinat_ref.analysis.recording.run import record
        >>> from dinat_ref.viz.theme import new_figure
        >>> recording = record("window", Problem("one axis", Neighborhood((7,), 3)))
        >>> last = stages(recording, query=0, names=["return"])[-1]
        >>> draw_stage(recording, last, new_figure()[1][0, 0]).get_xlabel()
        '-> 0 1 2'
    """
    step, scene = stage.step, stage.scene
    if isinstance(scene, AxisScene):
        _draw_axis(axes, scene)
    else:
        _draw_layout(axes, recording, scene)
    code = " ".join(recording.text(step).split()).split(" #")[0]
    lines = textwrap.wrap(f"{step.statement.first}: {code}", LINE, subsequent_indent="    ")
    axes.set_title("\n".join(lines), fontsize=7, family="monospace")
    get = recording.values.get
    made = [f"{name} = {brief(get(value))}" for name, value in step.changed.items() if not isinstance(get(value), list)]
    if step.event == "return" and step.returned is not None:
        made.append(f"-> {brief(get(step.returned))}")
    axes.set_xlabel("\n".join(textwrap.wrap("    ".join(made), LINE)), fontsize=7, family="monospace")
    return axes


def stage_legend(stage: Stage) -> list[Patch]:
    """Make the legend of a run's stages.

    Example:
        >>> [patch.get_label() for patch in stage_legend(Stage(None, AxisScene(7)))]
        ['query', 'window', 'dilation group']
    """
    words = {QUERY: "query", KEY: "key that is being read", GROUP: "key", ACCENT: "output that is done"}
    if isinstance(stage.scene, AxisScene):
        words = {QUERY: "query", KEY: "window", GROUP: "dilation group"}
    return [Patch(facecolor=color, label=label) for color, label in words.items()]


def _draw_layout(axes: Axes, recording: Recording, scene: Scene) -> None:
    """The layout, what is known of the query's keys, and the output so far."""
    neighborhood = recording.problem.neighborhood
    layout = neighborhood.layout if neighborhood.ndim == 2 else (1, *neighborhood.layout)
    keys, found = _found(scene)
    for number in range(neighborhood.num_tokens):
        at = divmod(number, layout[1])
        output = float("nan") if scene.output is None else scene.output[number].item()
        if number in found:
            share = _share(found[number], scene.meaning, list(found.values()))
            _cell(axes, at, matplotlib.colors.to_hex(matplotlib.colormaps[WEIGHTS](share)), f"{found[number]:.2f}")
        elif number == scene.key:
            _cell(axes, at, KEY)
        elif number in keys:
            _cell(axes, at, GROUP)
        elif output == output:
            _cell(axes, at, ACCENT, f"{output:.2f}")
        else:
            _cell(axes, at, TOKEN)
    if scene.query is not None:
        row, column = divmod(scene.query, layout[1])
        frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=QUERY, linewidth=2.2, zorder=4)
        axes.add_patch(frame)
        if not found and scene.query not in keys:
            _cell(axes, (row, column), QUERY)
    set_view(axes, ((0, layout[0]), (0, layout[1])))


def _draw_axis(axes: Axes, scene: AxisScene) -> None:
    """The positions of an axis, and what is known of the query's window."""
    group = range(scene.length) if scene.group is None else scene.group
    for i in range(scene.length):
        known = GROUP if scene.group is not None and i in scene.group else TOKEN
        face = KEY if scene.keys is not None and i in scene.keys else known
        _cell(axes, (0, i), QUERY if i == scene.query else face, str(i))
    for name, place in {"start": scene.start, "stop": scene.stop}.items():
        if place is not None:
            at = group.start + group.step * place
            axes.annotate(
                name, (at, 0.55), (at, 1.3), ha="center", va="center", fontsize=8, arrowprops={"arrowstyle": "->"}
            )
    set_view(axes, ((0, 2), (0, scene.length + 1)))


def _found(scene: Scene) -> tuple[list[int], dict[int, float]]:
    """The keys of the query, and the scores or weights that have been found for them."""
    if scene.query is None or scene.keys is None:
        return [], {}
    keys: list[int] = scene.keys[scene.query].tolist()
    numbers: Tensor = torch.full((len(keys),), torch.nan) if scene.numbers is None else scene.numbers[scene.query]
    found = {key: number for key, number in zip(keys, numbers.tolist(), strict=True) if number == number}
    return keys, found


def _share(number: float, meaning: str | None, numbers: list[float]) -> float:
    """Where on the colour scale a number lies; weights begin at 0, scores at the least of them."""
    low = 0.0 if meaning == "weight" else min(numbers)
    return 0.5 if max(numbers) <= low else (number - low) / (max(numbers) - low)


def _cell(axes: Axes, at: tuple[int, int], face: str, text: str = "") -> None:
    """One token, with a number that can be read on its colour."""
    style: Any = {"facecolor": face, "edgecolor": "white" if face != TOKEN else GRID, "linewidth": 0.6}
    axes.add_patch(Rectangle((at[1] - 0.5, at[0] - 0.5), 1, 1, **style))
    red, green, blue = matplotlib.colors.to_rgb(face)
    ink = INK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
    axes.text(at[1], at[0], text, ha="center", va="center", fontsize=6.5, color=ink)
