"""What of a run need not be read twice: further turns of a loop about the same thing, and the checks of arguments."""

from collections import Counter
from collections.abc import Hashable, Sequence

from dinat_ref.analysis.recording.axis_scene import AxisScene
from dinat_ref.analysis.recording.recorder import Step
from dinat_ref.analysis.recording.run import Recording
from dinat_ref.analysis.recording.scene import Scene


def subject(scene: Scene | AxisScene) -> Hashable:
    """What a step deals with: a query, a dilation group, some tiles; equal for steps about the same thing.

    Example:
        >>> subject(Scene(query=3)) == subject(Scene(query=3, key=1))
        True
    """
    if isinstance(scene, AxisScene) and scene.token is None and scene.axis is not None:
        return scene.axis, scene.query
    if isinstance(scene, AxisScene):
        return scene.token, None  # windows are found for a query, or for tiles that are still being cut
    return scene.query, None if scene.tiles is None else tuple(scene.tiles.tolist())


def folded(recording: Recording, seen: Sequence[Scene | AxisScene]) -> list[bool]:
    """Say which steps may be passed over: a statement that was executed before, about the same thing.

    Functions that are called again for the same thing are passed over as a whole, and those that check arguments.

    Example:
        >>> from dinat_ref import Neighborhood
        >>> from dinat_ref.analysis.recording.problem import Problem
        >>> from dinat_ref.analysis.recording.run import record
        >>> from dinat_ref.analysis.recording.scene import scenes
        >>> recording = record("loops", Problem("one axis", Neighborhood((5,), 3)))
        >>> hidden = folded(recording, list(scenes(recording)))
        >>> hidden[0], hidden[-1], len(hidden) > 2 * hidden.count(False)
        (False, False, True)
    """
    visits: Counter[Hashable] = Counter()
    hidden_calls: set[int] = set()
    hidden: list[bool] = []
    for step, scene in zip(recording.steps, seen, strict=True):
        parent = recording.parents[step.call]
        if step.event == "call":
            key: Hashable = ("call", parent, step.source, step.statement, subject(scene))
            visits[key] += 1
            if visits[key] > 1 or parent in hidden_calls or step.function.strip("_").startswith("check"):
                hidden_calls.add(step.call)
        hidden.append(step.call in hidden_calls or _visited(visits, step, scene))
    following = [*hidden[1:], False]
    return [  # who enters what is passed over need not be seen entering
        is_hidden or (step.event == "enter" and after)
        for step, is_hidden, after in zip(recording.steps, hidden, following, strict=True)
    ]


def _visited(visits: "Counter[Hashable]", step: Step, scene: Scene | AxisScene) -> bool:
    key = (step.call, step.statement, step.event, subject(scene))
    visits[key] += 1
    return visits[key] > 1
