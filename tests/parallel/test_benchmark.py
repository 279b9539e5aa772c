"""The benchmark of two processes: every way runs, and receives what is planned."""

import json
from pathlib import Path

import pytest

from dinat_ref.cli import main
from dinat_ref.command import CommandError
from dinat_ref.parallel import benchmark
from dinat_ref.parallel.benchmark import Problem, measure
from dinat_ref.parallel.plan import Plan, received_bytes


def test_the_command_measures_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = Problem(16, dilation=2, kernel_size=3, heads=2, head_dim=4)
    monkeypatch.setattr(benchmark, "PROBLEMS", (problem,))
    path = tmp_path / "rows.json"
    assert main(["bench", "--shapes", "parallel", "--rounds", "1", "--backward", "--json", str(path)]) == 0
    rows = {row["way"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    planned = received_bytes(Plan((8, 8), kernel_size=3, dilation=2), heads=2, head_dim=4, element_size=4)
    assert {way: row["received"] for way, row in rows.items()} == {
        "one process": 0,
        **{way: 16 * planned[way] for way in ("halo", "heads", "all-gather")},
    }
    assert all(row["milliseconds"] > 0 for row in rows.values())
    printed = capsys.readouterr().out
    assert "16 x 16 tokens, 2 heads of 4, kernel 3, dilation 2\nway " in printed
    assert all(f"\n{way:<12}" in printed for way in rows)


def test_a_process_that_fails_is_told() -> None:
    with pytest.raises(CommandError, match="a process has failed"):
        measure(Problem(4, dilation=2, kernel_size=3), rounds=1)  # 6 > 4: refused by the operator
