"""The command ``dinat-ref classify``: what it prints, and one clear line for whatever cannot be used."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dinat_ref import classify
from dinat_ref.cli import main
from dinat_ref.models import DinatForImageClassification, DiNATs, Isotropic, create_model
from dinat_ref.models.keys import to_huggingface
from dinat_ref.models.preprocess import preprocess
from dinat_ref.models.variants import VARIANTS
from tests.models.tiny import tiny

NAMES = ["ant", "bee", "cat", "dog", "emu"]


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """A folder as the hub has them, with a model whose answers differ from class to class."""
    torch.manual_seed(0)
    model = DinatForImageClassification(tiny(num_labels=None, id2label=dict(enumerate(NAMES)))).eval()
    torch.nn.init.normal_(model.head.weight)
    folder = tmp_path / "model"
    folder.mkdir()
    model.config.to_json(folder / "config.json")
    (folder / "preprocessor_config.json").write_text('{"size": {"height": 64, "width": 64}}')
    torch.save(to_huggingface(model.state_dict()), folder / "pytorch_model.bin")
    return folder, model


def refused(capsys, *arguments: str) -> str:
    """Run the command with bad input: one line on stderr, status 2."""
    assert main(["classify", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("dinat-ref classify: error: ")
    return captured.err.removeprefix("dinat-ref classify: error: ").strip()


def test_it_prints_the_most_probable_classes(capsys, picture, folder):
    path, model = folder
    assert main(["classify", picture, picture, "--weights", str(path), "--top", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    with torch.no_grad():
        probabilities = model(preprocess(Image.open(picture), 64)).logits.softmax(-1)[0]
    order = probabilities.argsort(descending=True)[:3].tolist()
    expected = [picture, *(f"  {probabilities[number]:7.2%}  {NAMES[number]}" for number in order)]
    assert lines == 2 * expected


def test_the_original_evaluation_crops(capsys, picture, folder):
    path, model = folder
    main(["classify", picture, "--weights", str(path), "--preprocess", "crop", "--top", "1"])
    with torch.no_grad():
        best = model(preprocess(Image.open(picture), 64, "crop")).logits.softmax(-1).max()
    assert f"{best:7.2%}" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["\n".join("vwxyz"), json.dumps(list("vwxyz")), json.dumps(dict(enumerate("vwxyz")))])
def test_labels_from_a_file_come_first(capsys, tmp_path, picture, folder, text):
    (tmp_path / "labels").write_text(text)
    assert main(["classify", picture, "--weights", str(folder[0]), "--labels", str(tmp_path / "labels")]) == 0
    assert sorted(re.findall(r"%  (\w+)$", capsys.readouterr().out, re.M)) == list("vwxyz")


def test_without_weights_it_says_that_it_is_random(capsys, picture):
    assert main(["classify", picture, "--model", "nat_isotropic_small", "--size", "112", "--top", "1"]) == 0
    assert capsys.readouterr().out.startswith("No --weights: the model is random, and so are these classes.\n")


def test_a_file_of_the_original_repository(capsys, tmp_path, picture):
    torch.manual_seed(0)
    model = create_model("nat_isotropic_small", num_classes=7)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "nat.pth")
    arguments = ["--model", "nat_isotropic_small", "--size", "112", "--top", "9"]
    assert main(["classify", picture, "--weights", str(tmp_path / "nat.pth"), *arguments]) == 0
    out = capsys.readouterr().out
    assert "random" not in out
    assert sorted(re.findall(r"class (\d)$", out, re.M)) == list("0123456")


def test_a_file_with_an_average_says_which_weights_it_took(capsys, tmp_path, picture):
    """The classes tell: each set of weights answers with its own."""
    models = [create_model("nat_isotropic_small", num_classes=3, depth=1) for _ in range(2)]
    for number, model in enumerate(models):
        torch.nn.init.zeros_(model.head.weight)
        model.head.bias.data = 9.0 * torch.eye(3)[number]
    state, average = (model.state_dict() for model in models)
    path = str(tmp_path / "last.pth")
    torch.save({"epoch": 3, "state_dict": state, "state_dict_ema": average}, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS["nat_isotropic_small"].settings, "depth", 1)
        arguments = [
            "classify",
            picture,
            "--model",
            "nat_isotropic_small",
            "--size",
            "112",
            "--top",
            "1",
            "--weights",
            path,
        ]
        assert main(arguments) == 0
        first = f"took state_dict_ema of {path}: the moving average (--no-ema takes the weights in training)"
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == first
        assert lines[-1].endswith("class 1")
        assert main([*arguments, "--no-ema"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == picture
        assert lines[-1].endswith("class 0")


def test_text_from_outside_commands_no_terminal(capsys, tmp_path, picture, folder):
    name = "\x1b[2J\x07photo\u202e.png"
    Path(picture).rename(tmp_path / name)
    (tmp_path / "labels").write_text(json.dumps(["\x1b]0;title\x07", "a\r\nb", "Löwe", "犬", "\u2028"]))
    assert (
        main(["classify", str(tmp_path / name), "--weights", str(folder[0]), "--labels", str(tmp_path / "labels")]) == 0
    )
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert r"\x1b[2J\x07photo\u202e.png" in out
    for label in (r"\x1b]0;title\x07", r"a\r\nb", "Löwe", "犬", r"\u2028"):
        assert f"%  {label}\n" in out


def test_photos_are_opened_one_by_one(capsys, monkeypatch, tmp_path, picture, folder):
    """The second is decoded when the first has its answer, and both were looked at before the model was made."""
    events = []
    check, read = classify.check_photo, classify.open_photo
    monkeypatch.setattr(classify, "check_photo", lambda path: (events.append("check"), check(path))[1])
    monkeypatch.setattr(classify, "open_photo", lambda path: (events.append("open"), read(path))[1])
    monkeypatch.setattr(
        classify, "_probabilities", lambda model, image: (events.append("answer"), torch.ones(5) / 5)[1]
    )
    assert main(["classify", picture, picture, "--weights", str(folder[0])]) == 0
    assert events == ["check", "check", "open", "answer", "open", "answer"]
    second = tmp_path / "text.png"
    second.write_text("no image")
    assert refused(capsys, picture, str(second), "--weights", str(folder[0])) == (
        f"not an image, or a damaged one: {second}"
    )


@pytest.mark.parametrize("make", [lambda: Isotropic(32, 1, depth=1, num_labels=3), lambda: DiNATs(tiny(num_labels=3))])
def test_folders_of_every_family(capsys, tmp_path, picture, make):
    make().save_pretrained(tmp_path / "model")
    assert main(["classify", picture, "--weights", str(tmp_path / "model"), "--size", "64"]) == 0
    assert sorted(re.findall(r"class (\d)$", capsys.readouterr().out, re.M)) == list("012")


def test_outputs_are_checked_before_the_work(capsys, tmp_path, picture, folder):
    (tmp_path / "a.png").mkdir()
    message = refused(capsys, picture, "--weights", "no-such.pth", "--attention", str(tmp_path / "a.png"))
    assert message == f"cannot write {tmp_path / 'a.png'}: it is a folder"


def test_attention_is_drawn(capsys, tmp_path, picture, folder):
    drawing = tmp_path / "attention.png"
    assert main(["classify", picture, "--weights", str(folder[0]), "--attention", str(drawing)]) == 0
    assert capsys.readouterr().out.endswith(f"wrote {drawing}\n")
    pixels = np.asarray(Image.open(drawing).convert("RGB"))
    assert pixels.shape[1] > 2 * pixels.shape[0], "three levels side by side"
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500


def test_bad_images(capsys, tmp_path, picture):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "cut.png").write_bytes(Path(picture).read_bytes()[:900])
    assert refused(capsys, "no-such.jpg") == "image not found: no-such.jpg"
    assert refused(capsys, str(tmp_path)) == f"image not found: {tmp_path}"
    for name in ("text.jpg", "cut.png"):
        assert refused(capsys, str(tmp_path / name)) == f"not an image, or a damaged one: {tmp_path / name}"


def test_bad_weights_and_models(capsys, tmp_path, picture, folder):
    path, model = folder
    assert refused(capsys, picture, "--model", "dinat_minni").startswith(
        "no model is called 'dinat_minni'; the nearest"
    )
    assert refused(capsys, picture, "--weights", "nothing.pth") == "no such checkpoint: nothing.pth"
    (tmp_path / "text.pth").write_text("no checkpoint")
    assert "it is damaged, or no file of torch.save" in refused(
        capsys, picture, "--weights", str(tmp_path / "text.pth")
    )
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    assert refused(capsys, picture, "--weights", str(tmp_path / "empty.pth")).endswith("holds no tensors by name")
    misfit = refused(capsys, picture, "--model", "nat_isotropic_small", "--weights", str(path / "pytorch_model.bin"))
    assert misfit.startswith("the checkpoint does not fit the model; 1")
    headless = {name: tensor for name, tensor in model.state_dict().items() if "head" not in name}
    torch.save(headless, tmp_path / "headless.pth")
    assert refused(capsys, picture, "--weights", str(tmp_path / "headless.pth")).endswith("it lacks head.weight")


def test_bad_options(capsys, tmp_path, picture, folder):
    weights = ["--weights", str(folder[0])]
    assert refused(capsys, picture, "--top", "0") == "--top must be at least 1, got 0"
    assert refused(capsys, picture, *weights, "--size", "16") == "--size must be at least 32, got 16"
    assert refused(capsys, picture, picture, "--attention", "a.png") == "--attention draws one image, got 2"
    assert "must be a .png, .svg or .pdf file" in refused(capsys, picture, "--attention", "a.gif")
    (tmp_path / "four").write_text("a\nb\nc\nd\n")
    assert refused(capsys, picture, *weights, "--labels", str(tmp_path / "four")).endswith("must name 5 classes, got 4")
    assert refused(capsys, picture, *weights, "--labels", "none").startswith("cannot read labels")
    (tmp_path / "number").write_text("3")
    assert "labels must be lines" in refused(capsys, picture, *weights, "--labels", str(tmp_path / "number"))
    assert "full attention" in refused(capsys, picture, "--model", "vitrpb_small", "--size", "64")
    drawn = refused(capsys, picture, *weights, "--size", "40", "--attention", str(tmp_path / "a.png"))
    assert "must be at most the length of the axis" in drawn


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["classify", "--help"])
    assert caught.value.code == 0
    assert "examples:\n  dinat-ref classify cat.jpg" in capsys.readouterr().out
