"""A recorded run is the run: its output, the same values each time, and scenes that show what the definition says."""

import functools
import sys

import pytest
import torch

from dinat_ref import Neighborhood, neighborhood_attention, window
from dinat_ref.analysis.recording.axis_scene import AxisScene
from dinat_ref.analysis.recording.fold import folded
from dinat_ref.analysis.recording.letters import shape_letters
from dinat_ref.analysis.recording.problem import MOST_SCORES, MOST_TOKENS, Problem, examples
from dinat_ref.analysis.recording.recorder import Recorder
from dinat_ref.analysis.recording.run import RECORDED, forget
from dinat_ref.analysis.recording.run import record as record_anew
from dinat_ref.analysis.recording.scene import Scene, definition, scenes, terms
from dinat_ref.analysis.recording.values import Values
from dinat_ref.attention.functional import FORMULATIONS
from dinat_ref.window import dilation_group, leader

PROBLEMS = [
    Problem("edges", Neighborhood((4, 5), kernel_size=3)),
    Problem("dilated, with bias", Neighborhood((5, 7), kernel_size=2, dilation=2), bias=True),
    Problem("all of it", Neighborhood((4, 7), (3, 2), (2, 1), (1, 3), (True, False)), bias=True, seed=3),
    Problem("one axis", Neighborhood((9,), kernel_size=4, stride=2, dilation=2)),
]
record = functools.cache(record_anew)
WINDOW_FILE = window.__code__.co_filename


def each(values: object = tuple(FORMULATIONS)) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("formulation", values)


def plain_output(problem: Problem, formulation: str) -> torch.Tensor:
    operands, neighborhood = problem.operands(), problem.neighborhood
    arguments = neighborhood.kernel_size, neighborhood.stride, neighborhood.dilation, neighborhood.is_causal
    query, key, value, rpb = operands.query, operands.key, operands.value, operands.rpb
    return neighborhood_attention(query, key, value, *arguments, rpb=rpb, return_lse=True, impl=formulation)[0]


@each(RECORDED)
def test_a_run_is_the_same_each_time(formulation: str) -> None:
    problem = examples(formulation)[0]
    first, second = record(formulation, problem), record_anew(formulation, problem)
    assert first.steps == second.steps
    assert first.values.entries == second.values.entries
    assert first.values.blobs == second.values.blobs


@each()
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_the_output_is_the_operator_s_and_the_last_scene_shows_it(formulation: str, problem: Problem) -> None:
    recording = record(formulation, problem)
    torch.testing.assert_close(recording.output, plain_output(problem, formulation), rtol=0, atol=0)
    *_, last = scenes(recording)
    torch.testing.assert_close(last.output, recording.output.flatten(), rtol=0, atol=0)
    returned = recording.values.get(recording.steps[-1].returned)[0]
    torch.testing.assert_close(returned, recording.output, rtol=0, atol=0)


@each()
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_every_query_is_seen_with_the_weights_of_its_window(formulation: str, problem: Problem) -> None:
    """The support of the weights is the window, and mixing the values with them gives the output."""
    recording, neighborhood = record(formulation, problem), problem.neighborhood
    value = problem.operands().value.flatten()
    checked = set()
    for scene in scenes(recording):
        if isinstance(scene, AxisScene) or scene.meaning != "weight":
            continue
        for query in range(neighborhood.num_tokens) if scene.query is None else [scene.query]:
            attended = (scene.keys[query] >= 0) & (scene.numbers[query] > 0)
            keys, weights = scene.keys[query][attended], scene.numbers[query][attended]
            if not len(keys):
                continue
            neighbors = neighborhood.neighbors(neighborhood.coordinates(query))
            assert sorted(keys.tolist()) == [neighborhood.number(token) for token in neighbors]
            weights = weights / weights.sum()  # the loops divide last
            torch.testing.assert_close((weights * value[keys]).sum(), recording.output.flatten()[query])
            checked.add(query)
    assert checked == set(range(neighborhood.num_tokens))


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_window_is_seen_as_it_is_found(problem: Problem) -> None:
    recording = record("window", problem)
    ends = [
        scene
        for step, scene in zip(recording.steps, scenes(recording), strict=True)
        if step.event == "return" and step.depth == 0
    ]
    expected = [(axis, i) for axis, length in enumerate(problem.neighborhood.layout) for i in range(length)]
    assert [(scene.axis, scene.query) for scene in ends] == expected
    for scene in ends:
        length, _, stride, dilation, is_causal = arguments = problem.neighborhood.axes[scene.axis]
        g, m, n = dilation_group(scene.query, length, dilation)
        assert scene.keys == window(scene.query, *arguments)
        assert scene.group == range(g, length, dilation)
        assert scene.leader == leader(m, n, stride, is_causal)
        assert [g + dilation * j for j in range(scene.start, scene.stop)] == list(scene.keys)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_window_is_seen_where_the_loops_ask_for_it(problem: Problem) -> None:
    recording, neighborhood = record("loops", problem), problem.neighborhood
    found: dict[tuple[int, int], range] = {}
    for scene in scenes(recording):
        if isinstance(scene, AxisScene) and scene.keys is not None:
            assert scene.query == neighborhood.coordinates(scene.token)[scene.axis]
            found[scene.token, scene.axis] = scene.keys
    assert found == {
        (neighborhood.number(token), axis): window(token[axis], *neighborhood.axes[axis])
        for token in neighborhood.tokens()
        for axis in range(neighborhood.ndim)
    }


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_tiles_are_seen_as_they_are_cut(problem: Problem) -> None:
    """Some tile is cut, it lies in its dilation group, and its slab holds the windows of its queries."""
    cut = [s for s in scenes(record("tiled", problem)) if isinstance(s, AxisScene) and s.slab is not None]
    axes = {axis[0]: axis for axis in problem.neighborhood.axes}  # by length: problems here are not square, or alike
    assert cut
    for scene in cut:
        assert set(scene.tile) <= set(scene.group)
        assert scene.group.step == axes[scene.length][3]
        assert {j for i in scene.tile for j in window(i, *axes[scene.length])} == set(scene.slab)


@each(RECORDED)
def test_steps_are_statements_of_the_file_in_the_order_of_python(formulation: str) -> None:
    """Without the recorder: the lines that Python's own tracing reports, in the same files, are the same statements."""
    problem = examples(formulation)[0]
    recording = record(formulation, problem)
    files = {str(source.path): source for source in recording.sources.values()}
    lines: list[tuple[str, int]] = []

    def trace(frame: object, event: str, _: object) -> object:
        if frame.f_code.co_filename not in files or frame.f_code.co_name.startswith("<"):
            return None
        if event == "line":
            lines.append((files[frame.f_code.co_filename].name, frame.f_lineno))
        return trace

    operands = problem.operands()
    forget([sys.modules[name] for name in sys.modules if name.startswith("dinat_ref.attention.")])
    before = sys.gettrace()
    try:
        sys.settrace(trace)
        if formulation == "window":
            for axis in problem.neighborhood.axes:
                for i in range(axis[0]):
                    window(i, *axis)
        else:
            FORMULATIONS[formulation](operands, True)
    finally:
        sys.settrace(before)
    executed = [(step.source, step.statement) for step in recording.steps if step.event in ("line", "return")]
    assert set(lines) >= {(name, place.first) for name, place in executed if place.first == place.last}
    for name, line in set(lines):
        statement = recording.sources[name].statements[line]
        assert (name, statement) in executed, (name, line)


@each(RECORDED)
def test_steps_lead_in_and_out_of_calls(formulation: str) -> None:
    recording = record(formulation, examples(formulation)[0])
    for step, following in zip(recording.steps, recording.steps[1:], strict=False):
        if step.event == "enter":
            assert following.depth == step.depth + 1
        if step.event == "call":
            assert recording.text(step).startswith(("def ", "    def "))
    assert recording.steps[0].depth == recording.steps[-1].depth == 0


@each()
def test_folding_keeps_each_statement_and_each_query(formulation: str) -> None:
    recording = record(formulation, examples(formulation)[0])
    seen = list(scenes(recording))
    hidden = folded(recording, seen)
    kept = [
        (step, scene) for step, scene, is_hidden in zip(recording.steps, seen, hidden, strict=True) if not is_hidden
    ]
    outside_checks = {step.statement for step in recording.steps if "check" not in step.function}
    assert {step.statement for step, _ in kept} == outside_checks
    queries = {scene.query for scene in seen if isinstance(scene, Scene)}
    assert {scene.query for _, scene in kept if isinstance(scene, Scene)} == queries
    assert not hidden[0]
    assert not hidden[-1]


@each()
def test_letters_fit_their_tensors(formulation: str) -> None:
    problem = examples(formulation)[0]
    recording = record(formulation, problem)
    sizes = {"B": 1, "N": problem.neighborhood.num_tokens, "H": 1, "Hkv": 1, "Dv": 1}
    named = 0
    for step, letters in zip(recording.steps, shape_letters(recording), strict=True):
        for name, axes in letters.items():
            shape = recording.values.get(step.changed[name]).shape
            assert len(axes) == len(shape)
            assert all(sizes.get(axis, size) == size for axis, size in zip(axes, shape, strict=True)), (step, name)
            named += 1
    assert named >= 5


@each(RECORDED)
def test_the_equation_is_the_source_s_and_its_terms_are_marked(formulation: str) -> None:
    recording = record(formulation, examples(formulation)[0])
    lines = definition(recording)
    found = {found for _, state in recording.states() for found in terms(recording, state)}
    assert all(text in lines[number] for number, text in found)
    wanted = (
        {"leader", "start", "stop", "window(i)"} if formulation == "window" else {"score(i, j)", "q_i", "k_j", "out_i"}
    )
    assert wanted <= {text for _, text in found}


def test_recording_leaves_no_trace() -> None:
    def tracer(*_: object) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        with pytest.raises(ZeroDivisionError), Recorder([WINDOW_FILE]):
            window(1 // 0, 5, 3)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert torch.zeros(3).sum() == 0


def test_values_come_back_as_they_were() -> None:
    values = Values()
    kept = [None, True, 7, -0.1, "text", (1, (2, 3)), [range(1, 9, 3), torch.inf], torch.tensor([[0.1, torch.nan]])]
    kept += [torch.arange(4).reshape(2, 2), torch.tensor([True, False]), torch.tensor(0.1, dtype=torch.float64)]
    numbers = [values.add(value) for value in kept]
    assert [values.add(value) for value in kept] == numbers
    for number, value in zip(numbers, kept, strict=True):
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(values.get(number), value, rtol=0, atol=0, equal_nan=True)
        else:
            assert values.get(number) == value


@pytest.mark.parametrize(
    ("layout", "kernel_size", "message"),
    [
        ((1000, 1000), 3, f"at most {MOST_TOKENS} tokens, it is to be read; got 1000 x 1000 = 1000000"),
        ((12, 12), 5, f"at most {MOST_SCORES} scores, it is to be read"),
        ((2, 3, 4), 1, "one axis or two, to be drawn; got 3"),
    ],
)
def test_what_nobody_would_read_is_refused(layout: tuple[int, ...], kernel_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Problem("too large", Neighborhood(layout, kernel_size))
