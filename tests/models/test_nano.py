"""The trained model that comes with the package."""

import pytest
import torch

from dinat_ref.models import CheckpointError, DinatForImageClassification, create_model, list_models
from dinat_ref.models.nano import NANO, WEIGHTS

NAME = "dinat_nano_digits"


def test_the_weights_are_small_and_complete():
    assert (WEIGHTS / f"{NAME}.safetensors").stat().st_size < 1_000_000
    assert list(NANO) == [path.stem for path in WEIGHTS.iterdir()]
    assert NAME not in list_models()  # which lists what was published


def test_the_trained_model_reads_digits():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: dinat-ref[training]")
    from dinat_ref.training.data import load_digits
    from dinat_ref.training.evaluate import evaluate

    model = create_model(NAME, pretrained=True)
    assert not model.training
    digits = load_digits("train")  # the part it learned from; the test part was looked at once
    assert evaluate(model, digits)[1] > 0.99
    guessing = evaluate(create_model(NAME), digits)[1]
    assert guessing < 0.5


def test_it_loads_everywhere_a_checkpoint_does():
    from dinat_ref.models import load_checkpoint

    model = create_model(NAME, pretrained=True)
    classifier = DinatForImageClassification(model.config).eval()
    load_checkpoint(classifier, WEIGHTS / f"{NAME}.safetensors")
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(classifier(images).logits, model(images), rtol=1e-6, atol=1e-6)


def test_what_pretrained_refuses():
    with pytest.raises(CheckpointError, match="the checkpoint does not fit the model"):
        create_model(NAME, num_classes=7, pretrained=True)
    message = r"weights of dinat_mini do not come with this package; use DinatForImageClassification.from_pretrained\("
    with pytest.raises(ValueError, match=message):
        create_model("dinat_mini", pretrained=True)
    with pytest.raises(ValueError, match="use load_checkpoint"):
        create_model("dinat_isotropic_small", pretrained=True)
    with pytest.raises(ValueError, match="the nearest names are dinat_nano_digits"):
        create_model("dinat_nano_digit")
