"""What the models of the Hugging Face API return: values by name, by number, or as a tuple.

A value that was not asked for is None; it is left out of the numbering, as in transformers.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor


class ModelOutput(dict[str, Any]):
    """A dict of the results that are there, also read as attributes and by number; the models return subclasses.

    What takes dicts apart and puts them together again finds one: DataParallel, Accelerate, the Trainer. A subclass
    lists its names as fields; one that was not asked for is in no dict, and None as an attribute.

    Args:
        values, named: the results, as of a dataclass; or one mapping, or one iterator of pairs, as of a dict.
    Raises:
        TypeError: a name that the output does not have, or more values than names.
        KeyError: read by a name that is not there.
        IndexError: fewer values than that.
    Source: the interface of transformers' ModelOutput.
    Example:
        >>> output = ImageClassifierOutput(logits=torch.tensor([[1., 2.]]))
        >>> output[0] is output.logits, output["logits"] is output.logits, list(output), output.loss
        (True, True, ['logits'], None)
        >>> ImageClassifierOutput((name, value + 1) for name, value in output.items()).logits
        tensor([[2., 3.]])
    """

    names: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        """Take the names from the annotations: torch.compile cannot ask a class for its fields."""
        cls.names = tuple(inspect.get_annotations(cls))

    def __init__(self, *values: Any, **named: Any) -> None:
        """Keep what is there, in the order of the fields."""
        names = self.names
        if len(values) == 1 and isinstance(values[0], (Mapping, Iterator)):
            given = {**dict(values[0]), **named}
        elif len(values) <= len(names):
            given = {**dict(zip(names, values, strict=False)), **named}
        else:
            raise TypeError(f"{type(self).__name__} has {len(names)} values, got {len(values)}")
        if unknown := [name for name in given if name not in names]:
            raise TypeError(f"{type(self).__name__} has no {', '.join(unknown)}: its values are {', '.join(names)}")
        super().__init__({name: given[name] for name in names if given.get(name) is not None})

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are there."""
        return tuple(self[name] for name in self.names if name in self)

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __getattr__(self, name: str) -> Any:
        if name in self.names:
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no {name}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.names:
            raise AttributeError(f"{type(self).__name__} has no {name}")
        if value is None:
            self.pop(name, None)
        else:
            self[name] = value


@dataclass(init=False, eq=False, repr=False)
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
        >>> list(DinatModelOutput(last_hidden_state=torch.zeros(1, 2, 3, 8)))
        ['last_hidden_state']
    """

    last_hidden_state: Tensor | None
    pooler_output: Tensor | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None
    reshaped_hidden_states: tuple[Tensor, ...] | None


@dataclass(init=False, eq=False, repr=False)
class ImageClassifierOutput(ModelOutput):
    """What ``DinatForImageClassification`` returns.

    Shapes:
        loss: [], when labels are given
        logits: [B, num_labels]
        hidden_states, attentions, reshaped_hidden_states: as ``DinatModelOutput``
    Source: transformers' DinatImageClassifierOutput.
    Example:
        >>> list(ImageClassifierOutput(logits=torch.zeros(1, 2)))
        ['logits']
    """

    loss: Tensor | None
    logits: Tensor | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None
    reshaped_hidden_states: tuple[Tensor, ...] | None


@dataclass(init=False, eq=False, repr=False)
class BackboneOutput(ModelOutput):
    """What ``DinatBackbone`` returns.

    Shapes:
        feature_maps: [B, C, X, Y] of each stage asked for, before downsampling, through its LayerNorm
        hidden_states: [B, X, Y, C] of all stages, before downsampling and LayerNorm
        attentions: as ``DinatModelOutput``
    Source: transformers' BackboneOutput.
    Example:
        >>> list(BackboneOutput(feature_maps=(torch.zeros(1, 8, 2, 3),)))
        ['feature_maps']
    """

    feature_maps: tuple[Tensor, ...] | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


for _output in (DinatModelOutput, ImageClassifierOutput, BackboneOutput):
    torch.export.register_dataclass(_output, serialized_type_name=f"dinat_ref.{_output.__name__}")


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
