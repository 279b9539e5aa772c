"""The way through a NAT or DiNAT, step by step: the same for ranks side by side and for bands one after the other."""

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from torch import Tensor, nn

from dinat_ref.models.dinat import ConvDownsampler, ConvTokenizer, DinatTrunk
from dinat_ref.models.layers import Layer
from dinat_ref.models.pyramid import Level

Map = TypeVar("Map")
PerToken = Callable[[Tensor], Tensor]  # [..., C] -> [..., C']


class Rows(Protocol[Map]):
    """How a map that no process holds whole goes through the two kinds of steps that look around."""

    def slide(self, image: Map, convolution: nn.Conv2d, norm: PerToken | None) -> Map:
        """Apply a convolution, and a LayerNorm to its tokens."""

    def layer(self, x: Map, layer: Layer) -> Map:
        """Apply a layer of attention and MLP."""


def walk(trunk: DinatTrunk, image: Map, rows: Rows[Map]) -> Iterator[Map]:
    """Give the embeddings, then the map that each level leaves before it is downsampled.

    Raises:
        ValueError: a model with other parts than NAT and DiNAT have.
    """
    tokenizer = trunk.patch_embed
    if not isinstance(tokenizer, ConvTokenizer):
        raise ValueError(f"the model must begin with a ConvTokenizer, got {type(tokenizer).__name__}")
    first, second = tokenizer.proj
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    x = rows.slide(rows.slide(image, first, None), second, lambda tokens: trunk.pos_drop(tokenizer.norm(tokens)))
    yield x
    for level in trunk.levels:
        assert isinstance(level, Level)
        for layer in level.blocks:
            assert isinstance(layer, Layer)
            x = rows.layer(x, layer)
        yield x
        if level.downsample is not None:
            down = level.downsample
            if not isinstance(down, ConvDownsampler):
                raise ValueError(f"levels must end in a ConvDownsampler, got {type(down).__name__}")
            x = rows.slide(x, down.reduction, down.norm)
