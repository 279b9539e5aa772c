"""Tracing a model: one graph, in which what was asked for stays a symbol."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from dinat_ref.export.block_operator import with_block_operator
from dinat_ref.models.classifier import Classifier
from dinat_ref.models.layers import WindowAttention
from dinat_ref.models.outputs import ImageClassifierOutput
from dinat_ref.models.schema import LONGEST_SIDE


class Logits(nn.Module):
    """A classifier that returns its logits and nothing else, so that a graph has one output.

    Shapes:
        image: [B, num_channels, H, W]
        return: [B, num_labels]
    Example:
        >>> from dinat_ref.models import DinatConfig, DinatForImageClassification
        >>> config = DinatConfig(embed_dim=32, depths=[1, 1], num_heads=[1, 2], dilations=[[2], [1]], kernel_size=3)
        >>> Logits(DinatForImageClassification(config))(torch.randn(1, 3, 32, 48)).shape
        torch.Size([1, 2])
    """

    def __init__(self, model: nn.Module) -> None:
        """Take the model."""
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Classify."""
        output = self.model(image)
        logits = output["logits"] if isinstance(output, ImageClassifierOutput) else output
        assert isinstance(logits, Tensor)
        return logits


def trace(model: nn.Module, image: Tensor, dynamic: Sequence[str] = ()) -> ExportedProgram:
    """Trace a classifier in evaluation mode.

    Shapes:
        image: [B, num_channels, H, W], an example; B = 2 or more where the batch is to be a symbol
    Args:
        dynamic: what stays a symbol: "batch", "size" (height and width, each by itself).
    Raises:
        ValueError: the model is for images of one size alone.
    Example:
        >>> from dinat_ref.models import create_model
        >>> program = trace(create_model("dinat_nano_digits"), torch.zeros(2, 1, 32, 32), ["batch"])
        >>> program.module()(torch.zeros(5, 1, 32, 32)).shape
        torch.Size([5, 10])
    """
    traceable, operator = with_block_operator(Logits(model).eval())
    shape: dict[int, Any] = {}
    if "batch" in dynamic:
        shape[0] = Dim("batch", min=1)
    if "size" in dynamic:
        least = least_size(model)
        shape |= {axis: Dim(name, min=least, max=LONGEST_SIDE) for axis, name in ((2, "height"), (3, "width"))}
    with torch.no_grad():
        if "size" not in dynamic:
            traceable(image)  # makes the tables
        program = torch.export.export(traceable, (image,), dynamic_shapes=(shape,), strict=False)
    operator.symbolic.made.clear()
    return program


def least_size(model: nn.Module) -> int:
    """The smallest image that a graph with symbolic sizes takes: one whose last map has two tokens on a side.

    Raises:
        ValueError: the model's graph depends on the size.
    Example:
        >>> from dinat_ref.models import create_model
        >>> least_size(create_model("dinat_mini", device="meta"))
        64
    """
    assert isinstance(model, Classifier)
    if getattr(model, "layout", None) is not None:
        raise ValueError("size must be fixed: the model attends the whole map of one size")
    if any(isinstance(part, WindowAttention) and part.small_input == "clamp" for part in model.modules()):
        raise ValueError('size must be fixed: with small_input="clamp" dilations depend on it')
    return 2 * int(model.feature_info[-1]["reduction"])
