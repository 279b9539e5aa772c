"""dinat-ref verify, golden vectors, and kernels of other arrays."""

import json

import pytest

from dinat_ref.cli import main


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
