"""What a step inside of ``window`` is about: one axis, the query on it, and what is known of its window so far.

The same picture belongs to ``window`` wherever it is called: in a recording of its own, for a query of the loops, for a
tile that is being cut.
"""

from dataclasses import dataclass, replace

from dinat_ref.analysis.recording.run import Recording, State


@dataclass(frozen=True)
class AxisScene:
    """What a step is about, on one axis: the query and what is known of its window; or a tile and its slab."""

    length: int
    axis: int | None = None
    query: int | None = None
    token: int | None = None  # the number of the query on the layout, where one asks
    group: range | None = None
    leader: int | None = None
    start: int | None = None  # in coordinates of the group
    stop: int | None = None
    keys: range | None = None
    tile: range | None = None
    slab: range | None = None


class WindowScenes:
    """The calls of ``window`` in a recording, each with what is known of its window."""

    def __init__(self, recording: Recording) -> None:
        """Begin without any call."""
        layout = recording.problem.neighborhood.layout
        self._recording = recording
        self._axes = [axis for axis, length in enumerate(layout) for _ in range(length)]  # of a recording of its own
        self._asked: dict[int | None, int] = {}  # how many windows each function has asked for
        self._scenes: dict[int, AxisScene] = {}  # by call

    def read(self, state: State, token: int | None) -> AxisScene | None:
        """The scene after a step inside of ``window``; None for other steps.

        Args:
            token: the query of the layout that the step belongs to, if one does.
        """
        step, call = state.step, self._call(state)
        if step.event == "call" and step.function == "window":
            call = step.call
            axis = self._axis(self._recording.parents[call], token)
            self._scenes[call] = AxisScene(state.own("length"), axis, state.own("i"), token)
        if call is None:
            return None
        self._scenes[call] = self._learn(state, self._scenes[call])
        return self._scenes[call]

    def _call(self, state: State) -> int | None:
        """The call of ``window`` that a step lies in."""
        call: int | None = state.step.call
        while call is not None and call not in self._scenes:
            call = self._recording.parents[call]
        return call

    def _axis(self, parent: int | None, token: int | None) -> int | None:
        """The axis of the next window: a recording of its own goes through all positions, a query asks axis by axis."""
        number = self._asked[parent] = self._asked.get(parent, -1) + 1
        if parent is None:
            return self._axes[number]
        return None if token is None else number % self._recording.problem.neighborhood.ndim

    def _learn(self, state: State, scene: AxisScene) -> AxisScene:
        """Add what a step has found: the group, its leader, start and stop, the keys."""
        step, values = state.step, self._recording.values
        g, dilation, n = state.own("g"), state.find("dilation"), state.own("n")
        if step.function == "leader" and step.event == "return":
            scene = replace(scene, leader=values.get(step.returned or 0))
        if g is not None and n is not None:
            scene = replace(scene, group=range(g, scene.length, dilation))
        for name in ("start", "stop"):
            if step.function == "window" and name in step.changed:
                scene = replace(scene, **{name: state.own(name)})
        if step.function == "window" and step.event == "return":
            scene = replace(scene, keys=values.get(step.returned or 0))
        return scene


def tile_on_an_axis(state: State) -> AxisScene | None:
    """A dilation group that is being cut: a tile of its queries, and their slab of keys once it is known."""
    length, first, dilation, queries = (state.own(name) for name in ("length", "first", "dilation", "queries"))
    if not isinstance(queries, range) or not isinstance(first, int):
        return None
    group = range(first, length, dilation)  # queries and keys count its members
    keys = None if "queries" in state.step.changed else state.own("keys")
    slab = group[keys.start : keys.stop] if isinstance(keys, range) else None
    return AxisScene(length, group=group, tile=group[queries.start : queries.stop], slab=slab)
