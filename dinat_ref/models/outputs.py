"""What the models of the Hugging Face API return: values by name, by number, or as a tuple.

A value that was not asked for is None; it is left out of the numbering, as in transformers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


class ModelOutput:
    """Named results that can also be read by number or turned into a tuple; the models return subclasses.

    Shapes:
        as the subclass
    Raises:
        KeyError: no such name, or its value was not asked for.
        IndexError: fewer values than that.
    Source: the interface of transformers' ModelOutput.
    Example:
        >>> output = ImageClassifierOutput(logits=torch.tensor([[1., 2.]]))
        >>> output[0] is output.logits, output["logits"] is output.logits, list(output), len(output.to_tuple())
        (True, True, ['logits'], 1)
    """

    def keys(self) -> list[str]:
        """The names of the values that are there."""
        return [entry.name for entry in fields(self) if getattr(self, entry.name) is not None]  # type: ignore[arg-type]

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are there."""
        return tuple(getattr(self, name) for name in self.keys())

    def items(self) -> list[tuple[str, Any]]:
        """The names and values that are there."""
        return [(name, getattr(self, name)) for name in self.keys()]

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(key)
            return getattr(self, key)
        return self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()


@dataclass
class DinatModelOutput(ModelOutput):
    """What ``DinatModel`` returns.

    Shapes:
        last_hidden_state: [B, X, Y, C], after the final LayerNorm
        pooler_output: [B, C], its mean
        hidden_states: [B, X, Y, C] of the embeddings and of each level after its downsampler
        attentions: [B, heads, X', Y', K] of the last layer of each level, or of every layer
        reshaped_hidden_states: hidden_states as [B, C, X, Y]
    Source: transformers' DinatModelOutput.
    Example:
        >>> DinatModelOutput(last_hidden_state=torch.zeros(1, 2, 3, 8)).keys()
        ['last_hidden_state']
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    reshaped_hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class ImageClassifierOutput(ModelOutput):
    """What ``DinatForImageClassification`` returns.

    Shapes:
        loss: [], when labels are given
        logits: [B, num_labels]
        hidden_states, attentions, reshaped_hidden_states: as ``DinatModelOutput``
    Source: transformers' DinatImageClassifierOutput.
    Example:
        >>> ImageClassifierOutput(logits=torch.zeros(1, 2)).keys()
        ['logits']
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    reshaped_hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class BackboneOutput(ModelOutput):
    """What ``DinatBackbone`` returns.

    Shapes:
        feature_maps: [B, C, X, Y] of each stage asked for, before downsampling, through its LayerNorm
        hidden_states: [B, X, Y, C] of all stages, before downsampling and LayerNorm
        attentions: as ``DinatModelOutput``
    Source: transformers' BackboneOutput.
    Example:
        >>> BackboneOutput(feature_maps=(torch.zeros(1, 8, 2, 3),)).keys()
        ['feature_maps']
    """

    feature_maps: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


for _output in (DinatModelOutput, ImageClassifierOutput, BackboneOutput):
    torch.export.register_dataclass(_output, serialized_type_name=f"dinat_ref.{_output.__name__}")


def attention_maps(attentions: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Bring attention weights into the order that transformers shows: heads first.

    Shapes:
        attentions: [B, X, Y, heads, K] each
        return: [B, heads, X, Y, K] each
    Source: transformers' Dinat.
    Example:
        >>> attention_maps((torch.zeros(1, 5, 7, 2, 9),))[0].shape
        torch.Size([1, 2, 5, 7, 9])
    """
    return tuple(weights.permute(0, 3, 1, 2, 4) for weights in attentions)


def channels_first(maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Bring feature maps into the order of convolutions.

    Shapes:
        maps: [B, X, Y, C] each
        return: [B, C, X, Y] each
    Source: transformers' reshaped_hidden_states.
    Example:
        >>> channels_first((torch.zeros(1, 5, 7, 8),))[0].shape
        torch.Size([1, 8, 5, 7])
    """
    return tuple(x.permute(0, 3, 1, 2) for x in maps)
