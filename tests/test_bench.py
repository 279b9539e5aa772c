"""The benchmark runs, tells why it skips, and its contenders compute what they should; tiled stays linear in memory.

No time is tested: times are what ``dinat-ref bench`` prints.
"""

import functools
import itertools
import json

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from dinat_ref.analysis.cost import traced_cost
from dinat_ref.attention import na1d, na2d, neighborhood_attention
from dinat_ref.attention.chunks import NUMBERS_PER_CHUNK
from dinat_ref.bench import model
from dinat_ref.bench.contenders import CONTENDERS, CannotRunError
from dinat_ref.bench.measure import Row
from dinat_ref.bench.shapes import SHAPES, Problem, square
from dinat_ref.cli import main
from dinat_ref.models import create_model

TINY = {"embed_dim": 32, "num_heads": [1, 2], "depths": [1, 1], "dilations": [[2], [1]], "kernel_size": 3}


class CountBytes(TorchDispatchMode):
    """Count the bytes of everything that the operations inside the block make, and the largest piece."""

    def __init__(self):
        super().__init__()
        self.total = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        known = {x.untyped_storage().data_ptr() for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for x in tree_iter(result):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in known:
                self.total += x.untyped_storage().nbytes()
                self.largest = max(self.largest, x.untyped_storage().nbytes())
        return result


def made_bytes(layout, kernel_size, **options):
    query, key, value = torch.randn(3, 1, *layout, 2, 16).unbind(0)
    with CountBytes() as count, torch.no_grad():
        neighborhood_attention(query, key, value, kernel_size, impl="tiled", **options)
    return count, query.nbytes


@pytest.mark.parametrize("options", [{}, {"dilation": 4}, {"stride": 3}, {"is_causal": True}])
def test_tiled_makes_twice_the_bytes_for_twice_the_tokens(options):
    totals = [made_bytes(layout, 7, **options)[0].total for layout in ((96, 96), (96, 192))]
    for smaller, larger in itertools.pairwise(totals):
        assert 1.8 < larger / smaller < 2.2  # tables of tiles do not grow


@pytest.mark.parametrize(
    ("layout", "kernel_size"), [((128, 128), 7), ((16384,), 129), ((8192,), 1025), ((8, 32, 32), (3, 7, 7))]
)
def test_no_temporary_of_tiled_is_larger_than_query_or_a_chunk(layout, kernel_size):
    count, query_bytes = made_bytes(layout, kernel_size)
    assert count.largest <= max(query_bytes, 4 * NUMBERS_PER_CHUNK)


def test_the_backward_pass_of_tiled_keeps_no_weights():
    query, key, value = (torch.randn(1, 64, 64, 2, 16, requires_grad=True) for _ in range(3))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.nbytes) or x, lambda x: x):
        na2d(query, key, value, 7, impl="tiled")
    assert sum(kept) <= 6 * query.nbytes  # query twice (before and after scaling), key, value, output


def test_bench_prints_a_row_for_everybody_and_writes_json(tmp_path, capsys):
    path = tmp_path / "bench.json"
    names = ["loops", "gather", "unfold", "masked", "tiled", "auto", "dense attention", "natten"]
    assert (
        main(["bench", "--shapes", "tiny", "--rounds", "1", "--backward", "--only", *names, "--json", str(path)]) == 0
    )
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


def test_bench_checks_its_file_before_the_work(tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    assert main(["bench", "--shapes", "tiny", "--json", str(tmp_path / "taken" / "bench.json")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"it lies below a file, {tmp_path / 'taken'}" in printed.err


def test_a_contender_that_cannot_run_says_why():
    long = Problem((65536,), (129,), heads=2)
    for name in ("loops", "masked", "dense attention", "flex, compiled"):
        if name == "dense attention":
            long = Problem((262144,), (129,), heads=2)
        with pytest.raises(CannotRunError, match=r"\w{3,}"):
            CONTENDERS[name](long)


@pytest.mark.parametrize("name", ["gather", "unfold", "masked", "tiled", "auto"])
def test_contenders_attend(name):
    problem = SHAPES["tiny"][0]
    query, key, value = problem.operands()
    expected = na2d(query, key, value, problem.kernel_size, dilation=problem.dilations, impl="loops")
    torch.testing.assert_close(CONTENDERS[name](problem)(query, key, value), expected, rtol=1e-5, atol=1e-5)


def test_dense_attention_is_the_window_of_everything():
    problem = Problem((6,), (6,), heads=2)
    query, key, value = problem.operands()
    expected = na1d(query, key, value, 6, impl="loops")
    actual = CONTENDERS["dense attention"](problem)(query, key, value)
    torch.testing.assert_close(actual.reshape(expected.shape), expected, rtol=1e-5, atol=1e-5)


def test_every_shape_is_legal():
    for problems in SHAPES.values():
        for problem in problems:
            assert problem.neighborhood.num_tokens == problem.num_tokens
    assert square(14, 8, dilation=2) in SHAPES["dinat"]


def test_bad_arguments_are_one_line(tmp_path, capsys):
    assert main(["bench", "--shapes", "tiny", "--rounds", "0"]) == 2
    assert capsys.readouterr().err == "dinat-ref bench: error: --rounds must be at least 1, got 0\n"
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

    monkeypatch.setitem(CONTENDERS, "gather", forward_only)
    options = ["--shapes", "tiny", "--rounds", "1", "--backward", "--no-memory", "--only", "gather", "tiled"]
    assert main(["bench", *options]) == 0
    gather, tiled = capsys.readouterr().out.strip().splitlines()[-2:]
    assert gather.endswith("it has no backward pass")
    assert "backward" not in tiled


def test_a_row_may_be_empty():
    assert Row("p", "c").skipped is None


def test_whole_models_are_measured_in_turn_and_peers_that_are_missing_say_so(monkeypatch, tmp_path, capsys):
    def missing():
        raise ImportError("transformers is needed for this: pip install 'dinat-ref[hf]'")

    models = {
        "DiNAT-Tiny": lambda: create_model("dinat_mini", num_classes=3, **TINY),
        "values only": lambda: create_model("dinat_mini", num_classes=3, **TINY),
        "Swin-Tiny": missing,
    }
    monkeypatch.setattr(model, "MODELS", models)
    measure = functools.partial(model.measure_models, names=list(models), batch=2, size=64)
    monkeypatch.setattr("dinat_ref.bench.command.measure_models", measure)
    path = tmp_path / "models.json"
    assert main(["bench", "--shapes", "model", "--rounds", "1", "--backward", "--json", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("pip install" in line for line in lines) == 2  # once a dtype
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
