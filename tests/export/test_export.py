"""``dinat-ref export``: the file says what the model says, or there is none."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dinat_ref.cli import main
from dinat_ref.export import command, formats
from dinat_ref.export.program import trace
from dinat_ref.models import DinatConfig, DinatForImageClassification, Isotropic, create_model, load_checkpoint
from dinat_ref.models.loading import open_model
from tests.models.tiny import tiny


@pytest.fixture
def digits() -> nn.Module:
    """The model that comes with the package."""
    return create_model("dinat_nano_digits", pretrained=True)


def test_a_batch_of_any_size(tmp_path, capsys, digits):
    path = tmp_path / "digits.pt2"
    assert main(["export", "dinat_nano_digits", "--out", str(path), "--dynamic", "batch"]) == 0
    printed = capsys.readouterr().out
    assert f"wrote {path}" in printed
    assert "may change: batch" in printed
    assert "largest difference" in printed
    program = torch.export.load(path)
    for batch in (1, 4):
        image = torch.randn(batch, 1, 32, 32)
        assert_close(program.module()(image), digits(image), rtol=1e-4, atol=1e-5)
    assert list(tmp_path.iterdir()) == [path]


def test_one_fixed_shape_unless_asked(tmp_path):
    path = tmp_path / "digits.pt2"
    assert main(["export", "dinat_nano_digits", "--out", str(path), "--batch", "3", "--size", "40"]) == 0
    module = torch.export.load(path).module()
    assert module(torch.zeros(3, 1, 40, 40)).shape == (3, 10)
    with pytest.raises(AssertionError, match=r"size\(\)\[0\]|shape\[0\]"):
        module(torch.zeros(2, 1, 40, 40))


def test_folders_and_half_precision(tmp_path, capsys):
    model = DinatForImageClassification(tiny(depths=[1], num_heads=[2], dilations=[[2]]))
    model.save_pretrained(tmp_path / "model")
    path = tmp_path / "model.pt2"
    arguments = ["export", str(tmp_path / "model"), "--out", str(path), "--size", "32", "--precision", "bfloat16"]
    assert main(arguments) == 0
    image = torch.randn(1, 3, 32, 32).bfloat16()
    found = torch.export.load(path).module()(image)
    assert found.dtype == torch.bfloat16
    assert_close(found, model.eval().bfloat16()(image).logits, rtol=0.1, atol=0.02)
    assert "random" not in capsys.readouterr().out


BAD = {
    "--out must end in .onnx, .pt2 or .aoti": ["--out", "model.h5"],
    "--dynamic must be of": ["--out", "model.pt2", "--dynamic", "batch,channels"],
    "--batch must be at least 1": ["--out", "model.pt2", "--batch", "0"],
    "--size must be within 1": ["--out", "model.pt2", "--size", "0"],
    "no model is called 'dinat_nano_digit'": ["dinat_nano_digit", "--out", "model.pt2"],
    "cannot write": ["--out", "."],
    "no weights.pth": ["dinat_mini", "--weights", "no weights.pth", "--out", "model.pt2"],
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_line(message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = BAD[message] if not BAD[message][0].startswith("-") else ["dinat_nano_digits", *BAD[message]]
    if message == "cannot write":
        (tmp_path / "folder.pt2").mkdir()
        arguments = ["dinat_nano_digits", "--out", "folder.pt2"]
    assert main(["export", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("dinat-ref export: error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not [file for file in tmp_path.iterdir() if file.is_file()]


@pytest.mark.parametrize("fault", ["numbers", "shape", "nan"])
def test_a_wrong_result_is_never_written(fault, tmp_path, monkeypatch, capsys, digits):
    """A file that says something else than the model keeps its temporary name, and goes."""
    wrong = {
        "numbers": lambda logits: logits * (1 + 1e-3),
        "shape": lambda logits: logits[:, 1:],
        "nan": lambda logits: logits.where(logits != logits.max(), torch.nan),
    }[fault]
    monkeypatch.setattr(command, "trace", lambda *_: None)
    kind = formats.Format("", lambda _, path: path.touch(), lambda path: lambda image: wrong(digits(image)))
    monkeypatch.setitem(command.FORMATS, ".pt2", kind)
    path = tmp_path / "digits.pt2"
    path.write_text("the one before", encoding="utf-8")
    assert main(["export", "dinat_nano_digits", "--out", str(path)]) == 2
    assert "the exported model is wrong" in capsys.readouterr().err
    assert [file.read_text(encoding="utf-8") for file in tmp_path.iterdir()] == ["the one before"]


def test_a_graph_is_small(digits):
    """No operation of it makes a table, whatever the number of tiles."""
    program = trace(digits, torch.zeros(2, 1, 64, 64), ["batch"])
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert not {"aten.arange.default", "aten.remainder.Scalar", "aten.where.self"} & set(calls)
    assert len(calls) < 80 * sum(digits.config.depths)


@pytest.mark.parametrize("padded", [False, True])
def test_maps_smaller_than_a_window(padded):
    """They are padded, as the model does it."""
    config = DinatConfig(embed_dim=16, depths=[1], num_heads=[2], dilations=[[3]], kernel_size=3)
    model = DinatForImageClassification(config).eval()
    side = 20 if padded else 40
    image = torch.randn(2, 3, side, side + 4)
    assert_close(trace(model, image, ["batch"]).module()(image), model(image).logits)


def test_other_families(tmp_path):
    model = Isotropic(embed_dim=32, num_heads=1, depth=2, kernel_size=3, dilation=2, num_labels=5, image_size=96)
    model.save_pretrained(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--out", str(tmp_path / "model.pt2"), "--dynamic", "batch"]) == 0
    image = torch.randn(3, 3, 96, 96)
    assert_close(torch.export.load(tmp_path / "model.pt2").module()(image), model.eval()(image), rtol=1e-4, atol=1e-5)


def test_the_model_itself_is_left_alone(digits):
    trace(digits, torch.zeros(2, 1, 32, 32))
    assert all(getattr(part, "operator", None) is None for part in digits.modules())


def test_weights_of_a_file(tmp_path):
    """As many classes as the file has."""
    model = create_model("dinat_mini", num_classes=3, kernel_size=7)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    opened = open_model("dinat_mini", tmp_path / "weights.pth")
    assert opened.num_classes == 3
    load_checkpoint(opened, model.state_dict())
    with pytest.raises(ValueError, match="beside a folder"):
        open_model(tmp_path, tmp_path / "weights.pth")


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace.*:DeprecationWarning")
def test_jit_trace_of_a_model(grad, digits):
    with torch.set_grad_enabled(grad):
        traced = torch.jit.trace(digits, torch.zeros(1, 1, 32, 32), check_trace=False)
    image = torch.randn(3, 1, 32, 32)
    assert_close(traced(image), digits(image), rtol=1e-4, atol=1e-5)


def test_sizes_that_were_not_traced(digits):
    """From two tokens on the last map on: smaller maps than a window are padded in the graph."""
    module = trace(digits, torch.zeros(2, 1, 40, 48), ["batch", "size"]).module()
    for shape in [(1, 1, 16, 16), (3, 1, 33, 90)]:
        image = torch.randn(shape)
        assert_close(module(image), digits(image), rtol=1e-4, atol=1e-5)


def test_a_size_that_must_be_fixed(tmp_path, capsys):
    """A graph has the dilations and the layout that it was traced with, where they depend on the size."""
    options = {"depth": 1, "num_labels": 2, "image_size": 32, "patch_size": 8}
    Isotropic(32, 1, full_attention=True, **options).save_pretrained(tmp_path / "full")
    Isotropic(32, 1, kernel_size=3, small_input="clamp", **options).save_pretrained(tmp_path / "clamp")
    for name in ("full", "clamp"):
        arguments = ["export", str(tmp_path / name), "--out", str(tmp_path / "model.pt2"), "--dynamic", "size"]
        assert main(arguments) == 2
        assert "--dynamic size must be fixed" in capsys.readouterr().err
