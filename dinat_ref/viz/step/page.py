"""The page of ``dinat-ref step``: recorded runs in one file, which needs no network and computes nothing.

All numbers were recorded: the page looks up what a step did, and draws it. A value that occurs in many steps, or in
several runs, is in the file once, and what is left is compressed: the longest run that can be read stays below 2 MB.
"""

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinat_ref.analysis.recording.axis_scene import AxisScene
from dinat_ref.analysis.recording.fold import folded
from dinat_ref.analysis.recording.letters import shape_letters
from dinat_ref.analysis.recording.run import Recording
from dinat_ref.analysis.recording.scene import Scene, definition, scenes, terms
from dinat_ref.neighborhood import Neighborhood

HERE = Path(__file__).parent
TIMES = " \N{MULTIPLICATION SIGN} "
EVENTS = ("enter", "call", "line", "return")


def step_page(recordings: Sequence[Recording], query: int | None = None) -> str:
    """Make the page of some runs whose values are kept together.

    Args:
        query: the row-major number of the query to begin with.
    Returns:
        HTML, complete.
    Raises:
        ValueError: the runs do not share their values.
    Example:
        >>> from dinat_ref.analysis.recording.problem import Problem
        >>> from dinat_ref.analysis.recording.run import record
        >>> page = step_page([record("loops", Problem("one axis", Neighborhood((5,), 3)))])
        >>> page.startswith("<!doctype html>"), len(page) < 2_000_000
        (True, True)
    """
    values = recordings[0].values
    if any(recording.values is not values for recording in recordings):
        raise ValueError("the recordings of a page must share their values: record(..., values=values)")
    packed = [Packed(recording).data for recording in recordings]  # before the values are written: it adds some
    sources = {source.name: source.tinted for recording in recordings for source in recording.sources.values()}
    used = {recordings[n].sources[name].name for n, p in enumerate(packed) for name in p["files"]}
    data = {
        "runs": packed,
        "sources": {name: sources[name] for name in sorted(used)},
        "values": values.entries,
        "blobs": values.blobs,
        "start": query,
    }
    page = HERE.joinpath("page.html").read_text(encoding="utf-8")
    for name in ("page.css", "run.js", "picture.js", "variables.js", "page.js"):
        page = page.replace(f"/*{name}*/", HERE.joinpath(name).read_text(encoding="utf-8"))
    return page.replace("/*DATA*/", deflated(data))


def deflated(data: object) -> str:
    """Write data as JSON, compressed, in base64: what the page unpacks with ``DecompressionStream``.

    Example:
        >>> zlib.decompress(base64.b64decode(deflated({"start": 3})))
        b'{"start":3}'
    """
    return base64.b64encode(zlib.compress(json.dumps(data, separators=(",", ":")).encode(), level=9)).decode()


class Packed:
    """A recording as lists of numbers: steps refer to statements, names, scenes and values by their places."""

    def __init__(self, recording: Recording) -> None:
        """Pack."""
        self.recording = recording
        self.statements, self.names, self.scenes, self.terms = Table(), Table(), Table(), Table()
        seen = list(scenes(recording))
        rows = zip(seen, folded(recording, seen), shape_letters(recording), recording.states(), strict=True)
        steps = [self._step(*row) for row in rows]
        files = sorted({step.source for step in recording.steps})
        problem = recording.problem
        self.data: dict[str, Any] = {
            "formulation": recording.formulation,
            "problem": problem.name,
            "title": problem_title(problem.neighborhood) + (", with bias" if problem.bias else ""),
            "layout": problem.neighborhood.layout,
            "files": files,
            "equation": definition(recording),
            "statements": self.statements.rows,
            "names": self.names.rows,
            "scenes": self.scenes.rows,
            "terms": self.terms.rows,
            "parents": recording.parents,
            "steps": steps,
            "keys": self._add(recording.keys),
            "groups": self._add(recording.groups),
            "output": None if recording.output is None else self._add(recording.output.flatten()),
        }

    def _step(self, scene: Scene | AxisScene, hidden: bool, letters: dict[str, list[str]], row: Any) -> list[Any]:
        """One step: statement, call, event, hidden, scene, terms, changed (name, value, letters), made, returned."""
        step, state = row
        recording = self.recording
        words = [step.source, step.statement.first, step.statement.last, step.function, recording.explanation(step)]
        changed = [[self.names.add(n), v, *([letters[n]] if n in letters else [])] for n, v in step.changed.items()]
        return [
            self.statements.add([*words, recording.sources[step.source].summaries[step.function]]),
            step.call,
            EVENTS.index(step.event),
            int(hidden),
            self.scenes.add(self._scene(scene)),
            self.terms.add([list(found) for found in terms(recording, state)]),
            changed,
            [[self.names.add(name), number] for name, number in step.made],
            step.returned if step.event == "return" else None,
        ]

    def _scene(self, scene: Scene | AxisScene) -> dict[str, Any]:
        """A scene with its tables as values, of the queries alone that it is about."""
        if isinstance(scene, AxisScene):
            fields = {name: value for name, value in asdict(scene).items() if value is not None}
            return {name: list(value) if isinstance(value, range) else value for name, value in fields.items()}
        packed: dict[str, Any] = {"query": scene.query, "key": scene.key, "meaning": scene.meaning}
        if scene.output is not None:
            packed["output"] = self._add(scene.output)
        if scene.tiles is not None:
            packed["tiles"] = self._add(scene.tiles)
        if scene.keys is not None:
            rows = (scene.keys >= 0).any(1).nonzero().flatten()  # queries
            if scene.query is not None:
                rows = torch.tensor([scene.query])
            elif len(rows) < len(scene.keys):
                packed["queries"] = self._add(rows)
            packed["keys"] = self._add(scene.keys[rows])
            packed["numbers"] = None if scene.numbers is None else self._add(scene.numbers[rows])
        return {name: value for name, value in packed.items() if value is not None}

    def _add(self, tensor: Tensor) -> int:
        return self.recording.values.add(tensor)


class Table:
    """Rows without repetitions."""

    def __init__(self) -> None:
        """Begin without any row."""
        self.rows: list[Any] = []
        self._places: dict[str, int] = {}

    def add(self, row: Any) -> int:
        """Keep a row; return its place."""
        key = json.dumps(row)
        if key not in self._places:
            self._places[key] = len(self.rows)
            self.rows.append(row)
        return self._places[key]


def problem_title(neighborhood: Neighborhood) -> str:
    """Say what is computed, in a few words.

    Example:
        >>> problem_title(Neighborhood((6, 7), 3, dilation=2))
        '6 × 7, kernel 3, dilation 2'
    """

    def times(sizes: Sequence[int]) -> str:
        return str(sizes[0]) if len(set(sizes)) == 1 else TIMES.join(map(str, sizes))

    parts = [TIMES.join(map(str, neighborhood.layout)), f"kernel {times(neighborhood.kernel_size)}"]
    parts += [f"dilation {times(neighborhood.dilation)}"] if max(neighborhood.dilation) > 1 else []
    parts += [f"stride {times(neighborhood.stride)}"] if max(neighborhood.stride) > 1 else []
    parts += ["causal"] if any(neighborhood.is_causal) else []
    return ", ".join(parts)
