"""The command: everybody has a row, a bad order is refused before any work, and what was found survives an end.

No time is tested: times are what ``dinat-ref bench`` prints.
"""

import functools
import json

import pytest
import torch

from dinat_ref.analysis.cost import traced_cost
from dinat_ref.bench import model
from dinat_ref.bench.contenders import CONTENDERS, Contender
from dinat_ref.bench.turns import CannotRunError
from dinat_ref.cli import main
from dinat_ref.models import create_model

TINY = {"embed_dim": 32, "num_heads": [1, 2], "depths": [1, 1], "dilations": [[2], [1]], "kernel_size": 3}
QUICK = ["bench", "--shapes", "tiny", "--no-memory"]


def test_bench_prints_a_row_for_everybody_and_writes_json(tmp_path, capsys):
    path = tmp_path / "bench.json"
    names = ["loops", "gather", "unfold", "masked", "tiled", "auto", "split form", "dense attention", "natten"]
    assert main([*QUICK, "--rounds", "1", "--backward", "--only", *names, "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    rows = {row["contender"]: row for row in json.loads(path.read_text())["rows"]}
    assert list(rows) == ["limit", *names]
    for name, row in rows.items():
        assert f"\n{name}" in printed
        if row["skipped"] is None:
            assert row["milliseconds"] > 0
            assert row["ratio"] > 0
    assert rows["limit"]["ratio"] == 1
    assert rows["tiled"]["backward_ratio"] > 0
    assert rows["tiled"]["rounds"] == 1
    assert "\nin all " in printed


def test_memory_is_measured_as_multiples_of_query_and_weights(tmp_path, capsys):
    path = tmp_path / "bench.json"
    options = ["--shapes", "tiny", "--rounds", "1", "--backward", "--only", "gather", "--json", str(path)]
    assert main(["bench", *options]) == 0
    limit, gather = json.loads(path.read_text())["rows"]
    assert limit["megabytes"] is None
    if gather["megabytes"] is not None:  # Linux alone tells
        queries, keys = 6 * 7 * 2, 9
        assert gather["query_sizes"] * 4 * queries * 32 == pytest.approx(1e6 * gather["megabytes"])
        assert gather["weight_sizes"] * 4 * queries * keys == pytest.approx(1e6 * gather["megabytes"])
        assert gather["backward_megabytes"] >= 0
        assert "/ weights" in capsys.readouterr().out


def test_bench_checks_its_file_before_the_work(tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    assert main(["bench", "--shapes", "tiny", "--json", str(tmp_path / "taken" / "bench.json")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"it lies below a file, {tmp_path / 'taken'}" in printed.err


def test_bad_arguments_are_one_line(tmp_path, capsys):
    assert main(["bench", "--shapes", "tiny", "--rounds", "0"]) == 2
    assert capsys.readouterr().err == "dinat-ref bench: error: --rounds must be at least 1, got 0\n"
    for arguments in (["--only", "tile"], ["--against", "tile"], ["--shapes", "model", "--only", "tiled"]):
        assert main(["bench", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"dinat-ref bench: error: {arguments[-2]} must be one of '")
        assert captured.err.endswith(f", got {arguments[-1]!r}\n")
    with pytest.raises(SystemExit) as stop:
        main(["bench", "--shapes", "huge"])
    assert stop.value.code == 2


def test_who_has_no_backward_pass_says_so(monkeypatch, capsys):
    def forward_only(problem):
        def attend(query, key, value):
            if query.requires_grad:
                raise CannotRunError("it has no backward pass")
            return value

        return attend

    monkeypatch.setitem(CONTENDERS, "gather", Contender(forward_only))
    options = ["--shapes", "tiny", "--rounds", "1", "--backward", "--no-memory", "--only", "gather", "tiled"]
    assert main(["bench", *options]) == 0
    *_, gather, tiled, _, _ = capsys.readouterr().out.strip().splitlines()
    assert gather.endswith("it has no backward pass")
    assert "backward" not in tiled


def test_what_was_found_is_in_the_file_when_the_run_is_interrupted(monkeypatch, tmp_path, capsys):
    """Ctrl-C in the third round: the file holds the two before, whole."""
    calls = []

    def interrupted(problem):
        def attend(query, key, value):
            calls.append(1)
            if len(calls) > 5:  # one to prepare, then two a round
                raise KeyboardInterrupt
            return value

        return attend

    monkeypatch.setitem(CONTENDERS, "gather", Contender(interrupted))
    path = tmp_path / "bench.json"
    assert main([*QUICK, "--rounds", "4", "--only", "tiled", "gather", "--json", str(path)]) == 130
    rows = {row["contender"]: row for row in json.loads(path.read_text())["rows"]}
    assert list(rows) == ["limit", "tiled", "gather"]
    assert all(row["rounds"] == 1 and row["milliseconds"] > 0 for row in rows.values())
    assert [file.name for file in tmp_path.iterdir()] == ["bench.json"]


def test_who_has_cost_too_much_stops_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr("dinat_ref.bench.turns.PATIENCE", 0.0)
    assert main([*QUICK, "--rounds", "3", "--backward", "--only", "tiled"]) == 0
    *_, limit, tiled, _, _ = capsys.readouterr().out.strip().splitlines()
    for line in (limit, tiled):
        assert line.endswith("stopped after 0 of 3 rounds, forward")


def test_the_head_tells_what_decides_how_fast_it_is(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "100000000")
    path = tmp_path / "bench.json"
    assert main([*QUICK, "--rounds", "1", "--only", "tiled", "--json", str(path)]) == 0
    _, cpu, pytorch, memory, plan, *_ = capsys.readouterr().out.splitlines()
    assert cpu.startswith("CPU: ")
    assert pytorch.startswith(f"PyTorch: {torch.__version__}, {torch.get_num_threads()} thread")
    assert "MALLOC_MMAP_THRESHOLD_=100000000" in memory
    assert plan.startswith("plan: 2 contenders x 1 shape, about 1 minute;")
    assert json.loads(path.read_text())["machine"] == "; ".join([cpu, pytorch, memory])


def test_plain_processes_have_columns_of_their_own(tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert main([*QUICK, "--rounds", "2", "--plain", "--only", "tiled", "natten", "--json", str(path)]) == 0
    rows = {row["contender"]: row for row in json.loads(path.read_text())["rows"]}
    assert rows["limit"]["plain_ratio"] == 1
    assert rows["tiled"]["plain_milliseconds"] > 0
    assert rows["tiled"]["plain_ratio"] == rows["tiled"]["plain_milliseconds"] / rows["limit"]["plain_milliseconds"]
    if rows["natten"]["skipped"] is not None:
        assert rows["natten"]["plain_milliseconds"] is None
    assert "plain ms" in capsys.readouterr().out


def test_whole_models_are_measured_in_turn_and_peers_that_are_missing_say_so(monkeypatch, tmp_path, capsys):
    def missing():
        raise ImportError("transformers is needed for this: pip install 'dinat-ref[hf]'")

    models = {
        "DiNAT-Tiny": lambda: create_model("dinat_mini", num_classes=3, **TINY),
        "values only": lambda: create_model("dinat_mini", num_classes=3, **TINY),
        "Swin-Tiny": missing,
    }
    monkeypatch.setattr(model, "MODELS", models)
    monkeypatch.setattr(model, "measure_models", functools.partial(model.measure_models, batch=2, size=64))
    path = tmp_path / "models.json"
    assert (
        main(["bench", "--shapes", "model", "--rounds", "1", "--backward", "--only", *models, "--json", str(path)]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert sum("pip install" in line for line in lines) == 2  # once a dtype
    ours, without = (line for line in lines if line.startswith("| ") and line.endswith(") |"))  # both dtypes in a row
    assert ours.startswith("| DiNAT-Tiny | ")
    assert ours.count("(") == without.count("(") == 4
    rows = json.loads(path.read_text())["rows"]
    assert [(row["model"], row["dtype"]) for row in rows] == [(m, d) for d in model.DTYPES for m in models]
    made = models["DiNAT-Tiny"]()
    with torch.device("meta"):
        cost = traced_cost(models["DiNAT-Tiny"](), 64)
    operations = {"DiNAT-Tiny": sum(cost.values())}
    operations["values only"] = operations["DiNAT-Tiny"] - cost["attention"] - cost["bias"]
    for row in rows:
        if row["model"] != "Swin-Tiny":
            assert row["parameters"] == sum(parameter.numel() for parameter in made.parameters())
            assert row["operations"] == operations[row["model"]]
            assert row["milliseconds"] > 0
            assert row["backward_milliseconds"] > 0


def test_peers_are_the_models_called_tiny():
    pytest.importorskip("transformers", reason="transformers is not installed: dinat-ref[hf]")
    with torch.device("meta"):
        found = {
            name: sum(x.numel() for x in model.MODELS[name]().parameters()) for name in ("Swin-Tiny", "ConvNeXt-Tiny")
        }
    assert found == {"Swin-Tiny": 28288354, "ConvNeXt-Tiny": 28589128}  # as their papers' code has them
