"""The trained model that comes with this package: a DiNAT of a hundred thousand parameters that reads digits.

It is there to look inside: a real DiNAT with two levels and a dilated layer, that has learned something, runs in
milliseconds and needs no download. This command trains it again, to the same bits where PyTorch, processor and number
of threads (two) are the same, and measures it on the test part of scikit-learn's digits: 360 of 360 are right. The
test part was looked at once, after the recipe had been chosen by what was held out of the training part::

    dinat-ref train --data digits --model dinat_nano_digits --held-out 0 --test --out runs/digits
"""

from pathlib import Path
from typing import Any

from dinat_ref.models.checkpoints import load_checkpoint
from dinat_ref.models.config import DinatConfig
from dinat_ref.models.dinat import DiNAT

WEIGHTS = Path(__file__).parent / "weights"
NANO: dict[str, dict[str, Any]] = {
    "dinat_nano_digits": {
        "num_channels": 1,
        "embed_dim": 32,
        "depths": [2, 2],
        "num_heads": [2, 4],
        "dilations": [[1, 2], [1, 1]],
        "kernel_size": 3,
        "mlp_ratio": 2.0,
        "drop_path_rate": 0.1,
        "initializer_range": 0.1,
    }
}


def nano_model(name: str, num_classes: int | None = None, *, pretrained: bool = False, **settings: Any) -> DiNAT:
    """Make the model that comes with this package, with random weights or its trained ones.

    Shapes:
        the model maps digits [B, 1, 32, 32], ink 1 on paper 0, to logits [B, 10]
    Args:
        num_classes: number of classes; None means 10.
        pretrained: load the trained weights; the model is then in evaluation mode.
        settings: override those of its configuration.
    Raises:
        CheckpointError: the trained weights do not fit the settings.
        KeyError: no such name.
    Example:
        >>> model = nano_model("dinat_nano_digits")
        >>> sum(parameter.numel() for parameter in model.parameters())
        108534
    """
    model = DiNAT(DinatConfig(**{**NANO[name], "num_labels": 10 if num_classes is None else num_classes, **settings}))
    if pretrained:
        load_checkpoint(model, WEIGHTS / f"{name}.safetensors")
        model.eval()
    return model
