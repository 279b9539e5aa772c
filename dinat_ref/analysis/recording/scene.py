"""What a step is about, seen on the layout: the query, its keys, their scores or weights, the output as it fills.

A scene is read from the variables of a recorded run; nothing is computed anew. The formulations keep the same things in
different places: the loops have one query at a time, a table has a row for each, a tile has some of them. Here all of
them become rows of queries::

    keys    [N, S]   the token numbers that row n is about, -1 for none
    numbers [N, S]   what was found for them: scores, then weights
    output  [N]      what is done already, nan elsewhere

Variables are known by their names, which a test compares with the formulations: score, weights, output and the like.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dinat_ref.analysis.recording.axis_scene import AxisScene, WindowScenes, tile_on_an_axis
from dinat_ref.analysis.recording.run import Recording, State
from dinat_ref.analysis.recording.source import indented_block

MEANINGS = {"weights": "weight", "softmax": "weight", "scores": "score", "score": "score", "bias": "bias"}
TERMS = {  # what of the definition a variable stands for: the beginning of its line, and the variables
    "score(i, j)": ("score(i, j)", ("score", "scores")),
    "q_i": ("score(i, j)", ("query", "token")),
    "k_j": ("score(i, j)", ("key", "keys")),
    "bias(i, j)": ("score(i, j)", ("bias",)),
    "window(i)": ("score(i, j)", ("neighbor", "neighbors", "indices", "starts", "members", "chunk", "mask", "valid")),
    "weight(i, j)": ("weight(i, j)", ("weights", "softmax")),
    "v_j": ("out_i", ("value", "values")),
    "out_i": ("out_i", ("output", "outputs", "found")),
    "lse_i": ("lse_i", ("lse", "lses", "logsumexp", "found_lse")),
}


@dataclass(frozen=True)
class Scene:
    """What a step is about, on the layout.

    Shapes:
        keys [N, S], numbers [N, S], output [N], tiles [N]
    """

    query: int | None = None  # the token number of the only query that the step is about
    key: int | None = None  # of the key that is being read
    keys: Tensor | None = None
    numbers: Tensor | None = None
    meaning: str | None = None  # of the numbers: score, weight, bias
    output: Tensor | None = None
    tiles: Tensor | None = None  # which tile each query belongs to, -1 for none


def scenes(recording: Recording) -> Iterator[Scene | AxisScene]:
    """Say for every step what it is about.

    Example:
        >>> from dinat_ref import Neighborhood
        >>> from dinat_ref.analysis.recording.problem import Problem
        >>> from dinat_ref.analysis.recording.run import record
        >>> *_, last = scenes(record("gather", Problem("one axis", Neighborhood((5,), 3))))
        >>> last.output
        tensor([1.7189, 3.0369, 2.1110, 7.6578, 5.6990])
    """
    read = READERS.get(recording.formulation)
    scene, windows = Scene(), WindowScenes(recording)
    for _, state in recording.states():
        if read is not None:
            scene = read(state, scene)
        yield windows.read(state, scene.query) or tile_on_an_axis(state) or scene


def definition(recording: Recording) -> list[str]:
    """The equations of a recorded run, as a docstring has them.

    Example:
        >>> from dinat_ref import Neighborhood
        >>> from dinat_ref.analysis.recording.problem import Problem
        >>> from dinat_ref.analysis.recording.run import record
        >>> definition(record("loops", Problem("one axis", Neighborhood((5,), 3))))[1]
        'weight(i, j) = exp(score(i, j) - max_j score(i, j))'
    """
    from dinat_ref.analysis.recording.source import Source
    from dinat_ref.attention.loops import loops_attention

    if recording.formulation == "window":
        return indented_block(recording.sources["dinat_ref/window.py"].docstrings["window"], "leader =")
    return indented_block(Source.of(loops_attention.__code__.co_filename).docstrings[""], "score(i, j)")


def terms(recording: Recording, state: State) -> list[tuple[int, str]]:
    """Which terms of the definition a step computes, each as its line and its text.

    Example:
        >>> from dinat_ref import Neighborhood
        >>> from dinat_ref.analysis.recording.problem import Problem
        >>> from dinat_ref.analysis.recording.run import record
        >>> recording = record("masked", Problem("one axis", Neighborhood((5,), 3)))
        >>> [found for _, state in recording.states() if (found := terms(recording, state))][-1]
        [(3, 'lse_i')]
    """
    step = state.step
    names = {*step.changed, *(name for name, _ in step.made)} if step.event != "call" else set()
    if recording.formulation == "window":
        lines = definition(recording)
        if step.event == "return" and step.function == "window":
            return [(len(lines) - 1, "window(i)")]
        words = ["leader"] if step.function == "leader" else [word for word in ("start", "stop") if word in names]
        rows = [[n for n, line in enumerate(lines) if re.search(rf"\b{word} +=", line)] for word in words]
        return [(found[bool(state.find("is_causal"))], word) for word, found in zip(words, rows, strict=True)]
    wanted = {text: head for text, (head, variables) in TERMS.items() if names & set(variables)}
    equation = list(enumerate(definition(recording)))
    return sorted((n, text) for text, head in wanted.items() for n, line in equation if line.startswith(head))


def _read_loops(state: State, before: Scene) -> Scene:
    """One query after the other, and one key after the other."""
    recording, neighborhood = state.recording, state.recording.problem.neighborhood
    token, neighbor, weights = state.find("token"), state.own("neighbor"), state.own("weights")
    output = _filled(recording, [number for number in state.find("outputs") or []])
    if token is None:
        return Scene(output=output)
    query = neighborhood.number(token)
    scene = Scene(query, output=output) if query != before.query else replace(before, output=output)
    if neighbor is not None and weights is None:
        scene = replace(scene, keys=recording.keys, key=neighborhood.number(neighbor))
    scores = state.own("scores")
    if weights is not None:
        scene = replace(scene, key=None, numbers=_row(recording, query, weights), meaning="weight")
    elif scores:
        scene = replace(scene, numbers=_row(recording, query, torch.cat(scores)), meaning="score")
    return scene


def _read_rows(state: State, before: Scene) -> Scene:
    """All queries at once, a row of K keys for each."""
    recording = state.recording
    found, meaning = _latest(state)
    scene = replace(before, output=_whole(state))
    if state.own("neighbors") is not None or found is not None:
        scene = replace(scene, keys=recording.keys)
    if found is not None and found.numel() == recording.keys.numel():
        numbers = found.reshape(recording.keys.shape).masked_fill(recording.keys < 0, torch.nan)
        scene = replace(scene, numbers=numbers, meaning=meaning)
    return scene


def _read_dense(state: State, before: Scene) -> Scene:
    """All pairs of tokens: a row of N keys for each query."""
    num_tokens = state.recording.problem.neighborhood.num_tokens
    found, meaning = _latest(state)
    scene = replace(before, output=_whole(state))
    if found is not None and found.numel() == num_tokens**2:
        keys = torch.arange(num_tokens).expand(num_tokens, -1)
        scene = replace(scene, keys=keys, numbers=found.reshape(keys.shape), meaning=meaning)
    return scene


def _read_groups(state: State, before: Scene) -> Scene:
    """A dilation group at a time: a row of K keys for each of its queries."""
    neighborhood = state.recording.problem.neighborhood
    group, starts = state.find("group"), state.own("starts")
    output = _filled(state.recording, state.find("outputs") or [], state.find("tokens"))
    output = _whole(state) if output is None else output
    if group is None:
        return replace(before, output=output)
    positions = [
        torch.arange(g, *limits) for g, *limits in zip(group, neighborhood.layout, neighborhood.dilation, strict=True)
    ]
    members = _numbers(neighborhood.pitch, positions)  # [n]
    tiles = torch.full((neighborhood.num_tokens,), -1).index_fill(0, members, 0)
    scene = before if before.tiles is not None and (before.tiles == tiles).all() else Scene(tiles=tiles)
    scene = replace(scene, output=output)
    if starts is None or len(starts) < neighborhood.ndim:
        return scene
    slots = []
    for start, position, size in zip(starts, positions, neighborhood.kernel_size, strict=True):
        slots.append(position[start[:, None] + torch.arange(size)])  # [n_axis, k_axis]
    keys = _all_pairs(neighborhood.pitch, slots)  # [n, K]
    scene = replace(scene, keys=_rows(neighborhood.num_tokens, members, keys, -1))
    found, meaning = _latest(state)
    if found is not None and found.numel() == keys.numel():
        numbers = _rows(neighborhood.num_tokens, members, found.reshape(keys.shape), torch.nan)
        scene = replace(scene, numbers=numbers, meaning=meaning)
    return scene


def _read_tiles(state: State, before: Scene) -> Scene:
    """Some tiles at a time: a row for each of their queries, with all keys of the tile's slab."""
    num_tokens, chunk = state.recording.problem.neighborhood.num_tokens, state.find("chunk")
    scene = replace(before, output=_whole(state))
    if chunk is None:
        return scene
    queries, slabs = chunk["queries"], chunk["keys"]  # [tiles, T], [tiles, S]
    count, width = queries.shape[1], slabs.shape[1]
    keys = _rows(num_tokens, queries.flatten(), slabs.repeat_interleave(count, dim=0), -1)
    tiles = _rows(num_tokens, queries.flatten(), torch.arange(len(queries)).repeat_interleave(count)[:, None], -1)
    if before.keys is None or before.keys.shape != keys.shape or (before.keys != keys).any():
        scene = Scene(output=scene.output, keys=keys, tiles=tiles.flatten())
    found, meaning = _latest(state)
    if found is not None and found.numel() == queries.numel() * width:
        numbers = _rows(num_tokens, queries.flatten(), found.reshape(-1, width), torch.nan)
        scene = replace(scene, numbers=numbers, meaning=meaning)
    return scene


READERS: dict[str, Callable[[State, Scene], Scene]] = {
    "loops": _read_loops,
    "gather": _read_rows,
    "unfold": _read_groups,
    "masked": _read_dense,
    "tiled": _read_tiles,
}


def _latest(state: State) -> tuple[Tensor | None, str | None]:
    """The scores or weights that a step has found, and which of the two."""
    made = [(name, state.recording.values.get(number)) for name, number in state.step.made]
    named = [(name, state.recording.values.get(number)) for name, number in state.step.changed.items()]
    for name, found in (*reversed(made), *reversed(named)):
        if name in MEANINGS and isinstance(found, Tensor):
            return found, MEANINGS[name]
    return None, None


def _whole(state: State) -> Tensor | None:
    """The output of all queries, where a variable holds it."""
    output = state.find("output")
    num_tokens = state.recording.problem.neighborhood.num_tokens
    return output.flatten() if isinstance(output, Tensor) and output.numel() == num_tokens else None


def _filled(recording: Recording, parts: list[Tensor], tokens: list[Tensor] | None = None) -> Tensor | None:
    """The output that a list has collected, in the order of the tokens; row-major unless it says which they are."""
    num_tokens = recording.problem.neighborhood.num_tokens
    if tokens is None:
        tokens = list(torch.arange(num_tokens)[:, None])
    pairs = list(zip(tokens, parts, strict=False))
    if not pairs:
        return None
    filled = torch.full((num_tokens,), torch.nan)
    return filled.index_copy(0, torch.cat([t for t, _ in pairs]), torch.cat([part.flatten() for _, part in pairs]))


def _row(recording: Recording, query: int, found: Tensor) -> Tensor:
    """What has been found for the first keys of one query, as a table of all queries."""
    keys = recording.keys
    numbers = torch.full(keys.shape, torch.nan)
    numbers[query, : found.numel()] = found.flatten()
    return numbers


def _rows(num_tokens: int, queries: Tensor, table: Tensor, nothing: float) -> Tensor:
    """Put a row for each of some queries into a table of all of them."""
    return torch.full((num_tokens, table.shape[1]), nothing, dtype=table.dtype).index_copy(0, queries, table)


def _numbers(pitch: tuple[int, ...], positions: list[Tensor]) -> Tensor:
    """The row-major numbers of all combinations of positions on each axis."""
    number: Any = torch.zeros(1, dtype=torch.int64)
    for step, position in zip(pitch, positions, strict=True):
        number = (number[:, None] + step * position).flatten()
    return number


def _all_pairs(pitch: tuple[int, ...], slots: list[Tensor]) -> Tensor:
    """The row-major numbers of all keys of all queries, from those of each axis [n_axis, k_axis]: [n, K]."""
    number = torch.zeros((1, 1), dtype=torch.int64)
    for step, slot in zip(pitch, slots, strict=True):
        number = (number[:, None, :, None] + step * slot[None, :, None, :]).flatten(2).flatten(0, 1)
    return number
