"""dinat-ref verify, golden vectors, and kernels of other arrays."""

import io
import json
import sys

import pytest

from dinat_ref.cli import main
from dinat_ref.testing import command, isolate


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


MODULES = {
    "exits_on_import": ("import sys; sys.exit(0)", 2, "cannot import"),
    "ends_on_import": ("import os; os._exit(0)", 2, "importing it ended the process with status 0"),
    "aborts_on_import": ("import os; os.abort()", 2, "importing it ended the process by signal 6"),
    "exits": ("import sys\ndef kernel(*a, **k): sys.exit(0)", 1, "D10-survives"),
    "ends": ("import os\ndef kernel(*a, **k): os._exit(0)", 1, "D10-survives"),
    "aborts": ("import os\ndef kernel(*a, **k): os.abort()", 1, "D10-survives"),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_ends_the_process_is_never_green(capsys, tmp_path, monkeypatch, name):
    text, expected, words = MODULES[name]
    (tmp_path / f"{name}.py").write_text(text + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(isolate, "is_quiet", lambda device="cpu": True)  # as the command finds it
    code, out, err = status(capsys, f"{name}:kernel", "--supports", "ndim=1", "--only", "D10,W11,N01")
    assert code == expected
    assert words in out + err
    assert (out == "") == (code == 2)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--device", "bogus"], "device must be one that PyTorch knows"),
        (["--device", "meta"], "have no numbers"),
        (["--device", "cuda:99"], "'cuda:99' cannot be used"),
        (["--supports", "ndim=99"], "ndim must"),
        (["--supports", "ndim=1000000000"], "ndim must"),
        (["--supports", "head_dims=-1"], "head_dims must"),
        (["--supports", "head_dims=1000000000"], "head_dims must"),
        (["--supports", "max_tokens=0"], "max_tokens must"),
        (["--supports", "min_layout=1000"], "min_layout must"),
        (["--seconds", "0"], "seconds must"),
        (["--seconds", "nan"], "seconds must"),
        (["--report", "/"], "must end in"),
        (["--report", "."], "must end in"),
    ],
)
def test_a_right_kernel_is_not_blamed_for_what_cannot_be(capsys, argv, words):
    code, out, err = status(capsys, "dinat_ref:na1d", *argv)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_a_report_that_cannot_be_written_is_said_before_the_work(capsys, tmp_path, monkeypatch):
    (tmp_path / "report.html").mkdir()
    monkeypatch.setattr(command, "verify", None)  # there is no work
    code, out, err = status(capsys, "dinat_ref:na1d", "--report", str(tmp_path / "report.html"))
    assert (code, out) == (2, "")
    assert "it is a folder" in err


def test_words_of_a_kernel_command_no_terminal_and_no_page(capsys, tmp_path, monkeypatch):
    text = "def kernel(*a, **k): raise ValueError('\\x1b[2J\\x1b]0;owned\\x07\\n<script>\\u202e')\n"
    (tmp_path / "rude.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    files = [tmp_path / "report.html", tmp_path / "report.json"]
    options = [word for path in files for word in ("--report", str(path))]
    code, out, _ = status(capsys, "rude:kernel", "--supports", "ndim=1", "--only", "W11,N01", *options)
    assert code == 1
    for shown in (out, files[0].read_text(encoding="utf-8")):
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)
        assert "x1b[2J" in shown
    assert "<script" not in files[0].read_text(encoding="utf-8")
    assert "\x1b" not in files[1].read_text(encoding="utf-8")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_cannot_show_a_letter(monkeypatch, encoding):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    code = main(["verify", "dinat_ref:na1d", "--only", "W02", "--expect", "W02-own-query=見る"])
    sys.stdout.flush()
    assert code == 1
    assert "\\u898b" in written.getvalue().decode(encoding)
