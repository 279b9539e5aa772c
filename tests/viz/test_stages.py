"""Still pictures of a recorded run show what was recorded."""

import pytest

from dinat_ref import Neighborhood, window
from dinat_ref.analysis.recording.problem import Problem
from dinat_ref.analysis.recording.run import Recording, record
from dinat_ref.viz.stages import Stage, draw_stage, stages
from dinat_ref.viz.theme import new_figure

NAMES = ["query", "neighbor", "score", "weights", "output"]


def texts(recording: Recording, stage: Stage) -> dict[tuple[int, int], str]:
    """Row and column of the cells that have a number in them."""
    axes = draw_stage(recording, stage, new_figure()[1][0, 0])
    cells = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    return {at: text for at, text in cells.items() if text}


@pytest.mark.parametrize(
    ("neighborhood", "token"),
    [(Neighborhood((4, 5), 3), (0, 1)), (Neighborhood((6, 7), 3, dilation=2), (0, 3)), (Neighborhood((7,), 3), (6,))],
)
def test_numbers_stand_where_their_keys_are(neighborhood: Neighborhood, token: tuple[int, ...]) -> None:
    recording = record("loops", Problem("a problem", neighborhood))
    found = stages(recording, neighborhood.number(token), NAMES)
    strip = [stage for stage in found if stage.step.function == "_attend"]
    assert [next(iter(stage.step.changed)) for stage in strip] == [
        "query",
        "neighbor",
        "score",
        "score",
        "weights",
        "output",
    ]
    weights = recording.values.get(strip[4].step.changed["weights"])[0]
    shown = texts(recording, strip[4])
    for neighbor, weight in zip(neighborhood.neighbors(token), weights.tolist(), strict=True):
        assert shown[tuple(neighbor) if len(neighbor) == 2 else (0, *neighbor)] == f"{weight:.2f}"
    done = texts(recording, strip[0])  # nothing but the outputs of the queries before
    assert recording.output is not None
    before = recording.output.flatten()[: neighborhood.number(token)]
    assert list(done.values()) == [f"{output:.2f}" for output in before.tolist()]


@pytest.mark.parametrize("dilation", [1, 2])
def test_the_last_stage_of_a_window_is_the_window(dilation: int) -> None:
    recording = record("window", Problem("an axis", Neighborhood((9,), 3, dilation=dilation)))
    for i in range(9):
        start, end = stages(recording, i, ["start", "return"])
        axes = draw_stage(recording, end, new_figure()[1][0, 0])
        assert axes.get_xlabel() == "-> " + " ".join(str(j) for j in window(i, 9, 3, dilation=dilation))
        source = recording.sources["dinat_ref/window.py"].text.splitlines()[start.step.statement.first - 1].strip()
        title = draw_stage(recording, start, new_figure()[1][0, 0]).get_title(loc="left")
        assert " ".join(title.split()) == f"{start.step.statement.first}: {source}"


def test_the_query_is_framed() -> None:
    recording = record("gather", Problem("a problem", Neighborhood((4, 5), 3)))
    assert stages(recording, 7, ["scores"]) == []  # gather attends all queries at once: no step is about one of them
    recording = record("loops", recording.problem)
    stage = stages(recording, 7, ["weights"])[0]
    axes = draw_stage(recording, stage, new_figure()[1][0, 0])
    frames = [patch.get_xy() for patch in axes.patches if not patch.get_fill()]
    assert frames == [(1.5, 0.5)]
