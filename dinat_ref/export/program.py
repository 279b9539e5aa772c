"""Tracing a model: one graph, in which what was asked for stays a symbol."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from dinat_ref.export.block_operator import with_block_operator
from dinat_ref.models.outputs import ImageClassifierOutput


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
        dynamic: what stays a symbol: "batch".
    Example:
        >>> from dinat_ref.models import create_model
        >>> program = trace(create_model("dinat_nano_digits"), torch.zeros(2, 1, 32, 32), ["batch"])
        >>> program.module()(torch.zeros(5, 1, 32, 32)).shape
        torch.Size([5, 10])
    """
    traceable, _ = with_block_operator(Logits(model).eval())
    shape: dict[int, Any] = {0: Dim("batch", min=1)} if "batch" in dynamic else {}
    with torch.no_grad():
        traceable(image)  # makes the tables
        return torch.export.export(traceable, (image,), dynamic_shapes=(shape,), strict=False)
