"""``dinat-ref train`` as a user runs it: killed, resumed, in two processes, and with whatever it cannot use."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import dinat_ref
from dinat_ref.cli import main
from dinat_ref.models import read_checkpoint
from dinat_ref.models.weight_files import latest_checkpoint

ROOT = Path(dinat_ref.__file__).parents[1]
SMALL = ["--data", "texture", "--images", "80", "--batch-size", "8", "--held-out", "0.2", "--average-decay", "0.5"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "dinat_ref", "train", *map(str, arguments)]


def losses(out: Path) -> list[float]:
    content = json.loads((latest_checkpoint(out) / "training.json").read_text())
    return [row["train_loss"] for row in content["history"]]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run the command with bad input: one line on stderr, status 2."""
    assert main(["train", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("dinat-ref train: error: ")
    return captured.err.removeprefix("dinat-ref train: error: ").strip()


def test_it_writes_a_model_metrics_and_curves(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", *SMALL, "--epochs", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "na_dina: 17,446 parameters; 64 images to learn from, 16 held out" in printed
    assert "epoch 2  loss" in printed
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint-0002", "curves.svg", "metrics.csv"]
    names = ["config.json", "model.safetensors", "training.json", "training.safetensors"]
    assert sorted(path.name for path in (out / "checkpoint-0002").iterdir()) == names
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [float(row["train_loss"]) for row in rows] == pytest.approx(losses(out), rel=1e-5)
    content = json.loads((out / "checkpoint-0002" / "training.json").read_text())
    assert content["recipe"]["average_decay"] == 0.5
    assert content["classes"] == ["rows", "columns"]


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    """kill -9 in the middle of an epoch, then --resume: the same weights as a run that nobody touched."""
    arguments = [*SMALL, "--epochs", "6"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        command(*arguments, "--out", killed), env=environment(), stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("epoch 2"):
            break
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    last = latest_checkpoint(killed)
    assert last is not None
    assert 2 <= int(last.name.removeprefix("checkpoint-")) < 6
    for out, more in ((killed, ["--resume"]), (whole, [])):
        subprocess.run(command(*arguments, "--out", out, *more), env=environment(), check=True, capture_output=True)
    for name in ("model.safetensors", "training.safetensors"):
        first, second = (read_checkpoint(out / "checkpoint-0006" / name) for out in (killed, whole))
        assert list(first) == list(second)
        for key, tensor in first.items():
            torch.testing.assert_close(tensor, second[key], rtol=0, atol=0)
    assert losses(killed) == losses(whole)


def test_two_processes_are_one_with_twice_the_batch(tmp_path):
    """The same losses within 1e-4 after torchrun starts two processes of half the batch each."""
    arguments = [*SMALL[:4], "--held-out", "0.2", "--average-decay", "0.5", "--epochs", "4", "--augmentation", "affine"]
    one, two = tmp_path / "one", tmp_path / "two"
    subprocess.run(
        command(*arguments, "--batch-size", 16, "--out", one), env=environment(), check=True, capture_output=True
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    result = subprocess.run(
        [*launcher, *command(*arguments, "--batch-size", 8, "--out", two)[2:]],
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert json.loads((latest_checkpoint(two) / "training.json").read_text())["processes"] == 2
    torch.testing.assert_close(torch.tensor(losses(two)), torch.tensor(losses(one)), rtol=0, atol=1e-4)
    rows = [json.loads((latest_checkpoint(out) / "training.json").read_text())["history"][-1] for out in (one, two)]
    assert rows[0]["held_out_loss"] == pytest.approx(rows[1]["held_out_loss"], abs=1e-4)
    assert result.stdout.count("epoch 4  loss") == 1  # only the first process talks


def test_a_folder_of_photos_gives_a_model_that_classify_reads(tmp_path, capsys):
    config = {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "dilations": [[1], [1]], "kernel_size": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name, colour in (("green", (0, 200, 0)), ("red", (200, 0, 0))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (40, 50), tuple(c + number for c in colour)).save(tmp_path / f"photos/{name}/{number}.png")
    (tmp_path / "photos" / "red" / "broken.jpg").write_text("not an image")
    out = tmp_path / "run"
    arguments = ["--model", tmp_path / "config.json", "--size", "32", "--epochs", "8", "--batch-size", "4"]
    arguments += ["--held-out", "0", "--learning-rate", "0.01"]
    assert main(["train", "--data", str(tmp_path / "photos"), *map(str, arguments), "--out", str(out)]) == 0
    assert "1 of 13 images were skipped" in capsys.readouterr().err
    for name in ("green", "red"):
        photo = str(tmp_path / "photos" / name / "3.png")
        assert main(["classify", photo, "--weights", str(out / "checkpoint-0008"), "--top", "1"]) == 0
        assert capsys.readouterr().out.split()[-1] == name


def test_resume_without_a_checkpoint_starts_anew(tmp_path, capsys):
    assert main(["train", *SMALL, "--epochs", "1", "--out", str(tmp_path), "--resume"]) == 0
    assert "no checkpoint yet: starting anew" in capsys.readouterr().out
    assert "holds a run already: add --resume" in refused(capsys, *SMALL, "--epochs", 1, "--out", tmp_path)
    message = refused(capsys, *SMALL, "--epochs", 2, "--out", tmp_path, "--resume")
    assert message.endswith("is of another run: its recipe is {'epochs': 1}, now {'epochs': 2}")


def test_hostile_checkpoints_are_refused_and_nothing_in_them_runs(tmp_path, capsys):
    import pickle

    assert main(["train", *SMALL, "--epochs", "1", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    checkpoint = latest_checkpoint(tmp_path)
    ran = tmp_path / "it-ran"

    class Hostile:
        def __reduce__(self):
            return Path.touch, (ran,)

    (checkpoint / "training.safetensors").write_bytes(pickle.dumps(Hostile()))
    assert "cannot be read as a safetensors file" in refused(
        capsys, *SMALL, "--epochs", 1, "--out", tmp_path, "--resume"
    )
    assert not ran.exists()
    for text in ("{", "[]", '{"history": 3}'):
        (checkpoint / "training.json").write_text(text)
        assert "training.json" in refused(capsys, *SMALL, "--epochs", 1, "--out", tmp_path, "--resume")


def test_bad_arguments(tmp_path, capsys):
    def message(*arguments: object) -> str:
        return refused(capsys, *arguments)

    out = ["--out", tmp_path / "run"]
    assert message("--data", "mnist", *out) == "--data must be digits, far_match, texture or a folder, got mnist"
    (tmp_path / "empty").mkdir()
    assert "at least 2 classes, got 0" in message("--data", tmp_path / "empty", *out)
    assert message("--data", "texture", "--epochs", 0, *out) == "epochs must be at least 1, got 0"
    assert message("--data", "texture", "--held-out", 1, *out) == (
        "the fraction held out must be within 0 <= fraction < 1, got 1.0"
    )
    (tmp_path / "file").write_text("not a folder")
    assert "cannot write" in message("--data", "texture", "--out", tmp_path / "file" / "run")
    assert "no model is called 'dinat_nano'" in message("--data", "texture", "--model", "dinat_nano", *out)
    assert "No such file" in message("--data", "texture", "--model", tmp_path / "none.json", *out)
    assert "must be at most the number of training images" in message(*SMALL[:4], *out, "--batch-size", 100)
    assert message("--data", "texture", "--device", "abacus", *out).startswith("--device abacus cannot be used")
    assert message("--data", "texture", "--test", *out).startswith("--test needs data with a test part")
    assert message("--data", "texture", "--images", 1, *out) == "--images must be at least 2, got 1"
    assert message("--data", "texture", "--size", 8, *out) == "--size must be at least 32, got 8"
    assert "try a lower --learning-rate" in message(*SMALL, "--learning-rate", 1e30, "--epochs", 3, *out)
    assert not list((tmp_path / "run").glob(".*"))


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    assert "dinat-ref train --data digits --out runs/digits" in capsys.readouterr().out


def test_the_readme_tells_what_the_shipped_model_reads(capsys):
    """The README's block, as it stands."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: dinat-ref[training]")
    section = (ROOT / "README.md").read_text().partition("## Train on a CPU\n")[2].partition("\n## ")[0]
    code = re.search(r"```python\n(.*?)```", section, re.S).group(1)
    exec(compile(code, "README.md", "exec"), {})
    promised = re.search(r"# (\d+ of 360)$", code, re.M).group(1)
    assert capsys.readouterr().out.strip() == promised
    command_line = re.search(r"^    dinat-ref (train .*)$", section, re.M).group(1)
    assert command_line.split() == ["train", "--data", "digits", "--held-out", "0", "--test", "--out", "runs/digits"]
