"""``dinat-ref train`` as a user runs it: killed, resumed, in two processes, and with whatever it cannot use."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import dinat_ref
from dinat_ref.cli import main
from dinat_ref.models import create_model, nano, read_checkpoint
from dinat_ref.models.weight_files import latest_checkpoint, write_checkpoint
from dinat_ref.training.data import Examples
from dinat_ref.training.initial import start_from
from dinat_ref.training.small_models import make_model
from dinat_ref.training.state import State

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
        weights = out if name == "red" else out / "checkpoint-0008"  # the run gives its last checkpoint
        assert main(["classify", photo, "--weights", str(weights), "--top", "1"]) == 0
        assert capsys.readouterr().out.split()[-1] == name


def test_resume_without_a_checkpoint_starts_anew(tmp_path, capsys):
    assert main(["train", *SMALL, "--epochs", "1", "--out", str(tmp_path), "--resume"]) == 0
    assert "no checkpoint yet: starting anew" in capsys.readouterr().out
    assert "holds a run already: add --resume" in refused(capsys, *SMALL, "--epochs", 1, "--out", tmp_path)
    message = refused(capsys, *SMALL, "--epochs", 2, "--out", tmp_path, "--resume")
    assert "is of another run: its recipe is {'epochs': 1}, now {'epochs': 2}; " in message
    assert message.endswith("to go on longer, start a new run with --init and this run")


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


def edited(checkpoint: Path, change: Callable[[dict], None]) -> None:
    """Change training.json by hand."""
    content = json.loads((checkpoint / "training.json").read_text())
    change(content)
    (checkpoint / "training.json").write_text(json.dumps(content))


def set_row(name: str, value: object) -> Callable[[dict], None]:
    return lambda content: content["history"][-1].update({name: value})


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of two epochs."""
    out = tmp_path_factory.mktemp("finished")
    assert main(["train", *SMALL, "--epochs", "2", "--out", str(out)]) == 0
    return out


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """The same run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize(
    ("change", "blame"),
    [
        (
            lambda content: content["history"].extend(content["history"] * 24),
            "must hold the metrics of 2 epochs, got 50",
        ),
        (lambda content: content["history"].pop(), "must hold the metrics of 2 epochs, got 1"),
        (set_row("train_loss", "0.3"), "train_loss of epoch 2 must be a number, got '0.3'"),
        (set_row("train_loss", None), "train_loss of epoch 2 must be a number, got None"),
        (set_row("train_loss", float("nan")), "NaN is no number in JSON"),
        (set_row("epoch", 1), "row 2 must be of epoch 2"),
        (
            lambda content: content["history"][0].pop("train_accuracy"),
            "row 1 must be of epoch 1 and have ",
        ),
        (lambda content: content["history"][1].pop("held_out_loss"), "row 2 must be of epoch 2 and have epoch, "),
        (lambda content: content["history"].__setitem__(0, [1]), "holds no history of metrics"),
        (lambda content: content.update(recipe="\x1b[2J"), r"its recipe is '\x1b[2J', now {"),
        (lambda content: content.update(classes=["\x1b[2J" * 1000]), r"its classes is ['\x1b[2J\x1b[2J"),
        (lambda content: content["recipe"].update(seed=3), "its recipe is {'seed': 3}, now {'seed': 0}"),
        (lambda content: content.pop("recipe"), "its recipe is None, now {"),
    ],
)
def test_an_edited_training_json_is_blamed_for_what_was_edited(run, capsys, change, blame):
    edited(latest_checkpoint(run), change)
    message = refused(capsys, *SMALL, "--epochs", 2, "--out", run, "--resume")
    assert blame in message
    assert len(message) < 1000


@pytest.mark.parametrize(
    ("name", "value", "blame"),
    [
        ("optimizer.3.step", torch.tensor(-1.0), "the optimizer's step must be one number from 1 on, got [-1.0, 16.0]"),
        ("optimizer.3.step", torch.tensor(2.5), "the optimizer's step must be one number from 1 on"),
        ("optimizer.0.exp_avg", torch.zeros(32, dtype=torch.int8), "optimizer.0.exp_avg must be torch.float32 ["),
        ("optimizer.0.exp_avg_sq", -1.0, "optimizer.0.exp_avg_sq must not be negative"),
        ("model.head.bias", torch.nan, "model.head.bias must be finite"),
        ("average.module.head.bias", torch.inf, "average.module.head.bias must be finite"),
        ("average.n_averaged", torch.tensor(-1), "average.n_averaged must not be negative"),
        ("optimizer.0.secret", torch.zeros(2), "it does not know 'optimizer.0.secret'"),
        ("elsewhere", torch.zeros(2), "it does not know 'elsewhere'"),
        ("optimizer.0.step", None, "optimizer.0.step is missing"),
    ],
)
def test_tensors_that_training_never_makes(run, capsys, name, value, blame):
    path = latest_checkpoint(run) / "training.safetensors"
    tensors = read_checkpoint(path)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = tensors[name] * 0 + value if isinstance(value, float) else value
    write_checkpoint(path, tensors)
    assert blame in refused(capsys, *SMALL, "--epochs", 2, "--out", run, "--resume")


def test_ten_thousand_epochs(tmp_path, capsys, monkeypatch):
    """The checkpoint of epoch 10,000 is the latest, though its name sorts before that of 9,999."""
    arguments = ["train", *SMALL, "--epochs", "10000", "--out", str(tmp_path)]

    def stop(*_: object) -> dict:
        raise KeyboardInterrupt

    monkeypatch.setattr("dinat_ref.training.loop.train_epoch", stop)
    assert main(arguments) == 130
    monkeypatch.undo()
    names = ("learning_rate", "train_loss", "train_accuracy", "held_out_loss", "held_out_accuracy", "seconds_left")
    usual = dict.fromkeys((*names, "images_per_second"), 0.5)
    rows = [{"epoch": epoch, **usual} for epoch in range(1, 10_000)]

    def begin_at_9999(state: State, *_: object) -> None:
        state.history = rows

    (tmp_path / "checkpoint-9999").mkdir()
    monkeypatch.setattr("dinat_ref.training.command.resume", begin_at_9999)
    assert main([*arguments, "--resume"]) == 0
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-10000"]
    monkeypatch.undo()
    capsys.readouterr()
    assert main([*arguments, "--resume"]) == 0
    assert "going on after epoch 10000" in capsys.readouterr().out


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path, capsys):
    resource = pytest.importorskip("resource", reason="limits of the size of files are POSIX's")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # enough for the model, not for its optimizer
    try:
        message = refused(capsys, *SMALL, "--epochs", 2, "--out", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert message == f"cannot write {tmp_path / 'checkpoint-0001'}: File too large"
    assert list(tmp_path.iterdir()) == []


def test_sigterm_ends_a_run_as_ctrl_c_does(tmp_path):
    """The status and the words of an interruption; the last whole checkpoint stays, and the run goes on from it."""
    arguments = [*SMALL, "--epochs", "400", "--out", tmp_path]
    process = subprocess.Popen(
        command(*arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("epoch 2"):
            break
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 130
    last = latest_checkpoint(tmp_path)
    assert errors == f"\nthe last good checkpoint is {last}; --resume goes on from there\n\ndinat-ref train: stopped\n"
    assert int(last.name.removeprefix("checkpoint-")) >= 2
    assert not list(tmp_path.glob(".*")), "nothing is left of what was being written"
    read_checkpoint(last / "training.safetensors")


def test_what_a_killed_run_left_goes(tmp_path):
    (tmp_path / ".checkpoint-0a1b2c3d").mkdir()
    for name in (".curves-0a1b2c3d.svg", ".metrics-0a1b2c3d.csv", ".curves-of-mine.svg"):
        (tmp_path / name).touch()
    assert main(["train", *SMALL, "--epochs", "1", "--out", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.glob(".*")] == [".curves-of-mine.svg"]


def test_init_starts_from_the_weights_of_another_run(run, tmp_path, capsys):
    """At a learning rate of next to nothing they stay what they were; classify finds them in the run, too."""
    arguments = [*SMALL[:-2], "--epochs", "1", "--learning-rate", "1e-30", "--warm-up", "0"]
    assert main(["train", *arguments, "--init", str(run), "--out", str(tmp_path / "tuned")]) == 0
    assert f"weights of {run}\n" in capsys.readouterr().out
    before, after = (read_checkpoint(out) for out in (run, tmp_path / "tuned"))
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)
    assert json.loads((tmp_path / "tuned" / "checkpoint-0001" / "training.json").read_text())["init"] == str(run)
    message = refused(capsys, *arguments, "--init", tmp_path / "no-such.pth", "--out", tmp_path / "other")
    assert message == f"no such checkpoint: {tmp_path / 'no-such.pth'}"
    message = refused(
        capsys, *arguments, "--model", "dina_dina", "--data", "far_match", "--init", run, "--out", tmp_path
    )
    assert "1 misshapen: patch_embed.proj.weight" in message


def test_init_gives_another_number_of_classes_a_new_head(tmp_path, capsys):
    examples = Examples(torch.zeros(4, 1, 32, 32), torch.arange(4), ("n", "e", "s", "w"))
    model = make_model("dinat_nano_digits", examples)
    words = start_from(model, nano.WEIGHTS / "dinat_nano_digits.safetensors")
    assert words.endswith("but for the head: it had 10 classes, and these are 4")
    trained = create_model("dinat_nano_digits", pretrained=True).state_dict()
    for name, tensor in model.state_dict().items():
        if not name.startswith("head."):
            torch.testing.assert_close(tensor, trained[name], rtol=0, atol=0)
    assert model.head.weight.shape == (4, 64)


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
    assert message("--data", "texture", "--device", "meta", *out) == "--device meta cannot be used on this machine"
    assert message("--data", "texture", "--test", *out).startswith("--test needs data with a test part")
    assert message("--data", "texture", "--images", 1, *out) == "--images must be at least 2, got 1"
    assert message("--data", "texture", "--images", 10**10, *out) == "--images must be at most 1000000, got 10000000000"
    assert message("--data", "texture", "--size", 8, *out) == "--size must be at least 32, got 8"
    assert message("--data", "texture", "--size", 10**5, *out) == "--size must be at most 4096, got 100000"
    (tmp_path / "taken" / "metrics.csv").mkdir(parents=True)
    assert message("--data", "texture", "--out", tmp_path / "taken") == (
        f"cannot write {tmp_path / 'taken' / 'metrics.csv'}: it is a folder"
    )
    assert "try a lower --learning-rate" in message(*SMALL, "--learning-rate", 1e30, "--epochs", 3, *out)
    assert not list((tmp_path / "run").glob(".*"))


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    assert "dinat-ref train --data digits --out runs/digits" in capsys.readouterr().out


def test_the_page_on_training_tells_what_the_shipped_model_reads(capsys):
    """The page's block, as it stands."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: dinat-ref[training]")
    page = (ROOT / "tutorials" / "site" / "training.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.S).group(1)
    exec(compile(code, "training.md", "exec"), {})
    promised = re.search(r"# (\d+ of 360)$", code, re.M).group(1)
    assert capsys.readouterr().out.strip() == promised
    command_line = re.search(r"^    dinat-ref (train .*)$", page, re.M).group(1)
    assert command_line.split() == ["train", "--data", "digits", "--held-out", "0", "--test", "--out", "runs/digits"]
