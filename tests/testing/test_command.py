"""dinat-ref verify, golden vectors, and kernels of other arrays."""

import json

import numpy
import pytest
import torch

from dinat_ref import Neighborhood
from dinat_ref.cli import main
from dinat_ref.testing import Supports, check_kernel
from dinat_ref.testing.adapters import from_arrays


def status(capsys, *argv):
    code = main(["verify", *argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_right_kernel_exits_0_and_writes_its_reports(capsys, tmp_path):
    files = [tmp_path / "report.json", tmp_path / "report.html"]
    options = [word for path in files for word in ("--report", str(path))]
    code, out, err = status(capsys, "dinat_ref:na1d", "--supports", "ndim=1", "--only", "W02,N01", *options)
    assert (code, err) == (0, "")
    assert "W02-own-query" in out
    assert json.loads(files[0].read_text())["passed"] is True
    assert files[1].read_text().startswith("<!doctype html>")


def test_a_wrong_kernel_exits_1_and_is_named(capsys, tmp_path, monkeypatch):
    (tmp_path / "leaning.py").write_text(
        "from dinat_ref.testing.sabotage import CORPUS\nkernel = CORPUS['even_kernel_leans_right'].function\n"
    )
    monkeypatch.chdir(tmp_path)
    code, out, _ = status(capsys, "leaning:kernel", "--supports", "ndim=1", "--only", "W12")
    assert code == 1
    assert "even kernel leans right" in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "name one kernel"),
        (["dinat_ref:na9d"], "has no na9d"),
        (["no_such_module:f"], "cannot import"),
        (["na2d"], "MODULE:CALLABLE"),
        (["dinat_ref:__version__"], "not callable"),
        (["dinat_ref:na1d", "--supports", "wings"], "no word 'wings'"),
        (["dinat_ref:na1d", "--supports", "ndim=two"], "whole numbers"),
        (["dinat_ref:na1d", "--supports", "dtypes=float8"], "float8"),
        (["dinat_ref:na1d", "--only", "Q"], "no check is named"),
        (["dinat_ref:na1d", "--expect", "W12"], "ID=REASON"),
        (["dinat_ref:na1d", "--report", "report.txt"], ".json or .html"),
        (["--qk", "dinat_ref:na1d"], "name one kernel"),
        (["--check", "nowhere"], "manifest.json is missing"),
    ],
)
def test_what_cannot_run_exits_2_with_one_line(capsys, argv, words):
    code, out, err = status(capsys, *argv)
    assert code == 2
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


def numpy_attention(query, key, value, layout, kernel_size, stride, dilation, is_causal, scale, rpb, extra):
    """Neighborhood attention in NumPy alone, as somebody without PyTorch would write it: (output, lse)."""
    where = Neighborhood(layout, kernel_size, stride, dilation, is_causal)
    batch, heads = query.shape[0], query.shape[-2]
    group = heads // key.shape[-2]
    output = numpy.zeros((*query.shape[:-1], value.shape[-1]))
    lse = numpy.zeros(query.shape[:-1])
    for b in range(batch):
        for token in where.tokens():
            for h in range(heads):
                scores, values = [], []
                for other in where.neighbors(token):
                    score = scale * float(
                        query[(b, *token, h)].astype(float) @ key[(b, *other, h // group)].astype(float)
                    )
                    if rpb is not None:
                        steps = zip(token, other, dilation, kernel_size, strict=True)
                        score += float(rpb[(h, *((j - i) // d + k - 1 for i, j, d, k in steps))])
                    scores.append(score)
                    values.append(value[(b, *other, h // group)].astype(float))
                for m in range(0 if extra is None else extra[0].shape[1]):
                    key_m, value_m = (part[b, m, h // group].astype(float) for part in extra)
                    scores.append(scale * float(query[(b, *token, h)].astype(float) @ key_m))
                    values.append(value_m)
                top = max(scores)
                weights = numpy.exp(numpy.array(scores) - top)
                output[(b, *token, h)] = weights @ numpy.array(values) / weights.sum()
                lse[(b, *token, h)] = top + numpy.log(weights.sum())
    return output, lse


def test_golden_vectors_judge_a_kernel_without_pytorch(capsys, tmp_path):
    code, out, _ = status(capsys, "--export", str(tmp_path))
    assert code == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert str(len(manifest["cases"])) in out
    assert status(capsys, "--check", str(tmp_path))[0] == 2  # no answers yet
    (tmp_path / "outputs").mkdir()
    for case in manifest["cases"][::3]:
        if numpy.prod(case["layout"]) > 100:
            continue
        with numpy.load(tmp_path / "cases" / f"{case['name']}.npz", allow_pickle=False) as arrays:
            extra = (arrays["additional_keys"], arrays["additional_values"]) if "additional_keys" in arrays else None
            names = ("layout", "kernel_size", "stride", "dilation", "is_causal", "scale")
            rpb = arrays.get("rpb")
            tensors = (arrays["query"], arrays["key"], arrays["value"])
            output, lse = numpy_attention(*tensors, *(case[name] for name in names), rpb, extra)
        numpy.savez(tmp_path / "outputs" / f"{case['name']}.npz", output=output, lse=lse)
    code, out, _ = status(capsys, "--check", str(tmp_path))
    assert code == 0, out
    name = manifest["cases"][30]["name"]
    with numpy.load(tmp_path / "cases" / f"{name}.npz", allow_pickle=False) as arrays:
        numpy.savez(tmp_path / "outputs" / f"{name}.npz", output=arrays["output"] + 1.0)
    code, out, _ = status(capsys, "--check", str(tmp_path))
    assert code == 1
    assert f"FAILED {name}" in out


def test_a_changed_golden_vector_is_noticed(capsys, tmp_path):
    status(capsys, "--export", str(tmp_path))
    name = json.loads((tmp_path / "manifest.json").read_text())["cases"][0]["name"]
    numpy.savez(tmp_path / "cases" / f"{name}.npz", output=numpy.zeros(3))
    code, _, err = status(capsys, "--check", str(tmp_path))
    assert code == 2
    assert "is not what the manifest says" in err


def mean_over_window(query, key, value, kernel_size):
    """A kernel of NumPy arrays: right windows, zero scores."""
    mask = Neighborhood(query.shape[1:-2], kernel_size).mask().numpy()
    return numpy.einsum("nm,bmhd->bnhd", (mask / mask.sum(1, keepdims=True)).astype(value.dtype), value)


@pytest.mark.parametrize("to", [None, torch.from_dlpack])
def test_kernels_of_other_arrays(to):
    def kernel(query, key, value, kernel_size):
        arrays = [array if to is None else array.numpy() for array in (query, key, value)]
        result = mean_over_window(*arrays, kernel_size)
        return result if to is None else torch.from_numpy(result)

    supports = Supports(ndim={1}, stride=False, dilation=False, causal=False, backward=False, dtypes=["float32"])
    report = check_kernel(from_arrays(kernel, to), supports=supports, checks=["W11", "W12", "N12", "N01"])
    assert [result.id for result in report.failures] == ["N01-float32"]
