"""Turns: everybody runs in every round, who costs too much stops, and what was found so far is always there."""

import pytest

from dinat_ref.bench.turns import Costs, Found, Sample, page_faults, take_turns, timed


def test_everybody_runs_in_every_round_in_turn() -> None:
    order: list[str] = []

    def runner(name: str, seconds: float):
        def run() -> Sample:
            order.append(name)
            return Sample(seconds, 0)

        return run

    runs = {"short": runner("short", 0.01), "long": runner("long", 1.0)}
    for round_number, found in enumerate(take_turns(runs, 3, Costs())):
        assert {name: mine.rounds for name, mine in found.items()} == dict.fromkeys(runs, round_number)
    assert order == 4 * ["short", "short", "long"]  # a short run fills the caches first; the first round warms up


def test_the_first_round_is_not_counted() -> None:
    seconds = iter([9.0, 3.0, 1.0, 2.0])
    *_, found = take_turns({"me": lambda: Sample(next(seconds), 7)}, 3, Costs(patience=100.0))
    assert (found["me"].milliseconds, found["me"].faults, found["me"].rounds) == (2000.0, 7, 3)


def test_who_has_cost_too_much_stops_with_what_was_found() -> None:
    costs = Costs(patience=5.0)
    runs = {"slow": lambda: Sample(2.0, 0), "fast": lambda: Sample(0.4, 0)}
    *_, found = take_turns(runs, 6, costs)
    assert (found["slow"].stopped, found["slow"].rounds, found["slow"].milliseconds) == (True, 2, 2000.0)
    assert (found["fast"].stopped, found["fast"].rounds) == (False, 6)
    *_, again = take_turns(runs, 6, costs)  # e.g. forward + backward at the same shape
    assert (again["slow"].stopped, again["slow"].rounds) == (True, 0)
    assert again["slow"].milliseconds == 2000.0  # of the round that warms up, which everybody has


def test_who_cannot_run_says_why_and_is_not_asked_again() -> None:
    asked: list[int] = []

    def fails() -> Sample:
        asked.append(1)
        raise ValueError("no such window\nand more")

    *_, found = take_turns({"me": fails, "you": lambda: Sample(1.0, 0)}, 2, Costs())
    assert found["me"].reason == "ValueError: no such window"
    assert found["me"].milliseconds is None
    assert len(asked) == 1
    assert found["you"].rounds == 2


@pytest.mark.skipif(page_faults() is None, reason="this system counts no page faults")
def test_page_faults_are_counted() -> None:
    """A page is 4 kB, or larger on other machines: what is touched for the first time is handed out."""
    import mmap
    import resource

    pages = 100

    def touch() -> None:
        with mmap.mmap(-1, pages * resource.getpagesize()) as memory:
            for page in range(pages):
                memory[page * resource.getpagesize()] = 1

    found = timed(touch).faults
    assert found is not None
    assert found >= pages
    assert Found([Sample(1.0, None)]).faults is None
