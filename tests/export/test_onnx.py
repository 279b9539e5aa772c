"""Files that ONNX Runtime runs: batches and sizes other than those that were traced, float32 and float16."""

import pytest
import torch
from torch.testing import assert_close

from dinat_ref.cli import main
from dinat_ref.models import create_model

onnx = pytest.importorskip("onnx", reason="onnx is not installed: dinat-ref[onnx]")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: dinat-ref[onnx]")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: dinat-ref[onnx]")

TOLERANCES = {"float32": {"rtol": 1e-4, "atol": 1e-5}, "float16": {"rtol": 2e-2, "atol": 2e-2}}


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("dynamic", ["batch", "batch,size"])
def test_batches_and_sizes_that_were_not_traced(dynamic, precision, tmp_path):
    path = tmp_path / "digits.onnx"
    arguments = ["export", "dinat_nano_digits", "--out", str(path), "--dynamic", dynamic, "--precision", precision]
    assert main(arguments) == 0
    model = create_model("dinat_nano_digits", pretrained=True).to(getattr(torch, precision))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    for batch in (1, 5):
        for sides in [(32, 32)] if dynamic == "batch" else [(32, 32), (45, 70), (16, 33)]:
            image = torch.randn(batch, 1, *sides, generator=generator).to(getattr(torch, precision))
            (found,) = session.run(None, {"image": image.numpy()})
            with torch.no_grad():
                assert_close(torch.from_numpy(found), model(image), **TOLERANCES[precision])
    loaded = onnx.load(path)
    onnx.checker.check_model(loaded)
    names = [
        dimension.dim_param or dimension.dim_value for dimension in loaded.graph.input[0].type.tensor_type.shape.dim
    ]
    assert names == (["batch", 1, "height", "width"] if "size" in dynamic else ["batch", 1, 32, 32])
    tables = sum(len(value.raw_data) for value in loaded.graph.initializer)
    assert tables < 1.5 * sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore")  # PyTorch deprecates this exporter
@pytest.mark.parametrize("grad", [False, True])
def test_the_old_exporter(grad, tmp_path):
    """It traces by torch.jit, with a batch that may change, in grad mode too."""
    model = create_model("dinat_nano_digits", pretrained=True)
    options = {"input_names": ["image"], "dynamic_axes": {"image": {0: "batch"}}, "opset_version": 17, "dynamo": False}
    with torch.set_grad_enabled(grad):
        torch.onnx.export(model, (torch.zeros(1, 1, 32, 32),), str(tmp_path / "digits.onnx"), **options)
    image = torch.randn(3, 1, 32, 32)
    (found,) = runtime.InferenceSession(str(tmp_path / "digits.onnx")).run(None, {"image": image.numpy()})
    with torch.no_grad():
        assert_close(torch.from_numpy(found), model(image), **TOLERANCES["float32"])
