"""Models for a CPU: two layers in each order that the paper compares, and any other model by name or file."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from dinat_ref.models import DiNAT, DinatConfig, DiNATs, Isotropic, create_model
from dinat_ref.models.isotropic import CHECKS
from dinat_ref.models.layers import initialize
from dinat_ref.outside import read_json
from dinat_ref.training.data import Examples

PATTERNS = ("na_na", "na_dina", "dina_na", "dina_dina", "sa_sa")
DEVIATION = (
    0.3  # of the initial weights; with the 0.02 of wide models two narrow layers stay on the plateau of guessing
)


def pattern_model(pattern: str, size: int, num_channels: int, num_classes: int = 2, kernel_size: int = 3) -> Isotropic:
    """Make a model of two layers, where each pixel is a token: local, dilated or full attention, in any order.

    The dilation is the largest that fits, size // kernel_size. All have the same parameters but for the bias table of
    full attention, which has an entry for every offset.

    Shapes:
        the model maps images [B, num_channels, size, size] to logits [B, num_classes]
    Args:
        pattern: one of PATTERNS; na: kernel_size, dina: kernel_size dilated, sa: all tokens.
    Raises:
        ValueError: another pattern.
    Source: Hassani & Shi, arXiv:2209.15001, section 4.4, compares these orders in models of 12 layers.
    Example:
        >>> for pattern in PATTERNS:
        ...     print(pattern, sum(parameter.numel() for parameter in pattern_model(pattern, 9, 2).parameters()))
        na_na 17478
        na_dina 17478
        dina_na 17478
        dina_dina 17478
        sa_sa 18534
    """
    if pattern not in PATTERNS:
        raise ValueError(f"pattern must be one of {', '.join(PATTERNS)}, got {pattern!r}")
    dilations = [size // kernel_size if layer == "dina" else 1 for layer in pattern.split("_")]
    model = Isotropic(
        embed_dim=32,
        num_heads=2,
        depth=len(dilations),
        kernel_size=kernel_size,
        dilation=dilations,
        mlp_ratio=2.0,
        drop_path_rate=0.0,
        num_labels=num_classes,
        num_channels=num_channels,
        patch_size=1,
        image_size=size,
        full_attention=pattern == "sa_sa",
    )
    initialize(model, DEVIATION)
    return model


def make_model(name: str, examples: Examples, seed: int = 0) -> nn.Module:
    """Make the model of a name or a ``config.json``, for the channels, the size and the classes of the examples.

    Shapes:
        the model maps images [B, C, H, W] to logits [B, classes]
    Args:
        name: one of PATTERNS, "dinat_nano_digits", one of ``list_models()``, or a file that ends in .json.
        seed: of the initial weights.
    Raises:
        ValueError: no such model, or one that does not fit the images.
        OSError: the file cannot be read.
    Example:
        >>> examples = Examples(torch.zeros(4, 1, 32, 32), torch.arange(4), ("n", "e", "s", "w"))
        >>> make_model("dinat_nano_digits", examples)(examples.images).shape
        torch.Size([4, 4])
    """
    _, num_channels, height, width = examples.images.shape
    settings: dict[str, Any] = {"num_channels": num_channels}
    num_classes = len(examples.class_names)
    names = dict(enumerate(examples.class_names))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name.endswith(".json"):
            return _from_file(Path(name), names, settings)
        if name in PATTERNS:
            if height != width:
                raise ValueError(f"{name} takes square images, got {height} x {width}")
            return pattern_model(name, height, num_channels, num_classes)
        model = create_model(name, num_classes, **settings)
    if isinstance(model, DiNAT | DiNATs):
        model.config.id2label = names
    return model


def _from_file(path: Path, names: dict[int, str], settings: dict[str, Any]) -> nn.Module:
    """Make the model that a config.json describes, with these classes and channels."""
    written = read_json(path)
    if written.get("model_type") == Isotropic.model_type:
        arguments = {name: value for name, value in written.items() if name in CHECKS}
        return Isotropic(**{**arguments, **settings, "num_labels": len(names)})
    config = DinatConfig.from_dict({**written, **settings, "id2label": names})
    return (DiNATs if written.get("model_type") == "dinat_s" else DiNAT)(config)
