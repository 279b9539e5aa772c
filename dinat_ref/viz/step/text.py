"""A recorded run as text: a line for each statement, with what it did to the variables."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from dinat_ref.analysis.recording.axis_scene import AxisScene
from dinat_ref.analysis.recording.fold import folded
from dinat_ref.analysis.recording.letters import shape_letters
from dinat_ref.analysis.recording.recorder import Step
from dinat_ref.analysis.recording.run import Recording
from dinat_ref.analysis.recording.scene import Scene, scenes

MOST_NUMBERS = 9  # of a tensor that is written out
WIDTH = 88  # of a line of source


def trace_text(recording: Recording, query: int | None = None, every_line: bool = False) -> str:
    """Write a run down, a statement a line; repetitions are folded.

    Args:
        query: the row-major number of the only query to follow; None for all.
        every_line: fold nothing.
    Example:
        >>> from dinat_ref import Neighborhood
        >>> from dinat_ref.analysis.recording.problem import Problem
        >>> from dinat_ref.analysis.recording.run import record
        >>> run = record("window", Problem("one axis", Neighborhood((5,), 3)))
        >>> print(trace_text(run, query=0).splitlines()[-1].split("->")[1])
         0 1 2
    """
    return "\n".join(_lines(recording, query, every_line))


def _lines(recording: Recording, query: int | None, every_line: bool) -> Iterator[str]:
    seen = list(scenes(recording))
    hidden = folded(recording, seen)
    skipped, call = 0, None
    rows = zip(recording.steps, seen, hidden, shape_letters(recording), strict=True)
    for step, scene, is_hidden, letters in rows:
        if not _is_about(recording, scene, query):
            continue
        if is_hidden and not every_line:
            skipped += 1
            continue
        if skipped:
            yield f"{'  ' * step.depth}         ... {skipped} more"
            skipped = 0
        if step.call != call:
            call = step.call
            yield f"{'  ' * step.depth}{step.source.split('/')[-1]}: {step.function}"
        yield _line(recording, step, letters)


def _line(recording: Recording, step: Step, letters: dict[str, list[str]]) -> str:
    code = " ".join(recording.text(step).split())
    margin = "  " * step.depth
    head = f"{margin}{step.statement.first:5}  {code if len(code) < WIDTH else code[: WIDTH - 4] + ' ...'}"
    if step.event == "enter":
        return f"{head}  >>"
    get = recording.values.get
    found = [f"{name} = {brief(get(number), letters.get(name))}" for name, number in step.changed.items()]
    made = [f"{name}: {brief(get(number))}" for name, number in step.made]
    back = [] if step.returned is None or step.event != "return" else [f"-> {brief(get(step.returned))}"]
    return "    ".join([head.ljust(WIDTH // 2 + len(margin)), *made, *found, *back]).rstrip()


def brief(value: Any, letters: list[str] | None = None) -> str:
    """Write a value on one line: small tensors with their numbers, large ones with their shape.

    Example:
        >>> import torch
        >>> brief(torch.tensor([[0.25, 2.0]]), ["B", "D"]), brief(torch.zeros(4, 5)), brief(range(1, 6, 2))
        ('[B 1, D 2] 0.25 2', '[4, 5]', '1 3 5')
    """
    if isinstance(value, Tensor):
        sizes = [str(size) for size in value.shape]
        shape = (
            ", ".join(f"{letter} {size}" for letter, size in zip(letters, sizes, strict=True))
            if letters
            else ", ".join(sizes)
        )
        if value.numel() > MOST_NUMBERS:
            return f"[{shape}]"
        return f"[{shape}] {' '.join(number_text(number) for number in value.flatten().tolist())}".strip()
    if isinstance(value, range):
        return " ".join(map(str, value))
    if isinstance(value, dict):
        return "{" + ", ".join([*list(value)[:3], *(["..."] if len(value) > 3 else [])]) + "}"
    if isinstance(value, list) and len(value) > 2:
        return f"{len(value)} items"
    if isinstance(value, list | tuple):
        text = ", ".join(brief(item) for item in value)
        return f"[{text}]" if isinstance(value, list) else f"({text})"
    return number_text(value) if isinstance(value, float) else str(value)


def number_text(number: float | int | bool) -> str:
    """Write a number with three digits at most behind the point.

    Example:
        >>> [number_text(number) for number in (0.5, 2.0, float("-inf"), 1 / 3, True)]
        ['0.5', '2', '-inf', '0.333', 'True']
    """
    return f"{number:.3g}" if isinstance(number, float) else str(number)


def _is_about(recording: Recording, scene: Scene | AxisScene, query: int | None) -> bool:
    """Whether a step belongs to a query, or to all."""
    if query is None:
        return True
    if isinstance(scene, AxisScene):
        if scene.token is not None:
            return scene.token == query
        if scene.query is None or scene.axis is None:
            return True
        return recording.problem.neighborhood.coordinates(query)[scene.axis] == scene.query
    if scene.query is not None:
        return scene.query == query
    return scene.tiles is None or int(scene.tiles[query]) >= 0
