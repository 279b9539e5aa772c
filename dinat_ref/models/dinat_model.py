"""DiNAT behind the interface that Hugging Face documents: a model, a classifier, a backbone.

They share tokenizer and levels with ``DiNAT``, and its parameter names; ``from_pretrained`` reads the files of the
original repository and of Hugging Face alike, ``save_pretrained`` writes what transformers reads.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from dinat_ref.models.classifier import Classifier
from dinat_ref.models.config import DinatConfig
from dinat_ref.models.dinat import DinatTrunk
from dinat_ref.models.layers import initialize
from dinat_ref.models.outputs import (
    DinatModelOutput,
    ImageClassifierOutput,
    channels_first,
)
from dinat_ref.models.pretrained import Pretrained
from dinat_ref.models.pyramid import Stages, make_head, token_mean


class DinatPreTrainedModel(Pretrained, DinatTrunk):
    """What the three models share: the options of ``forward``, ``from_pretrained`` and ``save_pretrained``.

    Shapes:
        as ``DinatTrunk``
    Raises:
        ValueError: as ``DinatTrunk``.
    Source: transformers' DinatPreTrainedModel.
    Example:
        >>> DinatModel.main_input_name
        'pixel_values'
    """

    main_input_name = "pixel_values"

    def run(
        self,
        pixel_values: Tensor | None,
        output_attentions: bool | None,
        all_attentions: bool,
        pixel_mask: Tensor | None,
    ) -> Stages:
        """Encode an image with the attention weights that were asked for."""
        if pixel_values is None:
            raise ValueError("pixel_values must be given, got None")
        wanted = self.config.output_attentions if output_attentions is None else output_attentions
        return self.encode(pixel_values, "all" if all_attentions else "last" if wanted else "none", pixel_mask)


class DinatModel(DinatPreTrainedModel):
    """DiNAT without a head: the last feature map, and its mean.

    Shapes:
        pixel_values: [B, num_channels, H, W]
        return: ``DinatModelOutput``
    Args:
        config: the architecture.
        add_pooling_layer: also return the mean of the last map.
    Raises:
        ValueError: no image, or one with another number of channels.
    Source: Hassani & Shi, arXiv:2209.15001; interface: transformers' DinatModel.
    Example:
        >>> import torch
        >>> config = DinatConfig(embed_dim=32, depths=[1, 1], num_heads=[1, 2], dilations=[[2], [1]], kernel_size=3)
        >>> output = DinatModel(config)(torch.randn(1, 3, 32, 48), output_hidden_states=True)
        >>> output.last_hidden_state.shape, output.pooler_output.shape, len(output.hidden_states)
        (torch.Size([1, 4, 6, 64]), torch.Size([1, 64]), 3)
    """

    def __init__(self, config: DinatConfig, add_pooling_layer: bool = True) -> None:
        """Make the parts and initialise them."""
        super().__init__(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.add_pooling_layer = add_pooling_layer
        initialize(self, config.initializer_range)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        return_all_attentions: bool = False,
        pixel_mask: Tensor | None = None,
    ) -> DinatModelOutput | tuple[Any, ...]:
        """Compute the last feature map and what else is asked for.

        Args:
            output_attentions: also return the attention weights of each level's last layer.
            output_hidden_states: also return the map after each level.
            return_dict: return an output with names rather than a tuple.
            return_all_attentions: return the attention weights of every layer.
            pixel_mask: [B, H, W], zero where a pixel only fills up a batch of images of several sizes. Such pixels are
                blanked, and tokens that show no other are neither attended nor pooled.
        """
        stages = self.run(pixel_values, output_attentions, return_all_attentions, pixel_mask)
        last = self.norm(stages.after[-1])  # [B, X, Y, C]
        pooled = token_mean(last, stages.mask) if self.add_pooling_layer else None  # [B, C]
        hidden, weights = extras(self.config, stages, output_hidden_states)
        if not (self.config.return_dict if return_dict is None else return_dict):
            return (last, pooled, *(value for value in (hidden, weights) if value is not None))
        return DinatModelOutput(last, pooled, hidden, weights, hidden and channels_first(hidden))


class DinatForImageClassification(Classifier, DinatPreTrainedModel):
    """DiNAT with a linear head; gives the loss when it is given labels.

    Shapes:
        pixel_values: [B, num_channels, H, W]
        labels: [B] class numbers; [B, num_labels] for several labels an image; numbers for a regression
        return: ``ImageClassifierOutput``
    Args:
        config: the architecture.
    Raises:
        ValueError: no image, or one with another number of channels.
    Source: Hassani & Shi, arXiv:2209.15001; interface: transformers' DinatForImageClassification.
    Example:
        >>> import torch
        >>> config = DinatConfig(embed_dim=32, depths=[1, 1], num_heads=[1, 2], dilations=[[2], [1]], kernel_size=3)
        >>> output = DinatForImageClassification(config)(torch.randn(1, 3, 32, 48), labels=torch.tensor([1]))
        >>> output.logits.shape, output.loss.shape
        (torch.Size([1, 2]), torch.Size([]))
    """

    huggingface_prefix = "dinat."

    def __init__(self, config: DinatConfig) -> None:
        """Make the parts and initialise them."""
        super().__init__(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = make_head(config.hidden_size, config.num_labels)
        initialize(self, config.initializer_range)

    def forward(  # type: ignore[override]  # transformers' order of arguments
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        return_all_attentions: bool = False,
        pixel_mask: Tensor | None = None,
    ) -> ImageClassifierOutput | tuple[Any, ...]:
        """Classify; options as ``DinatModel.forward``."""
        stages = self.run(pixel_values, output_attentions, return_all_attentions, pixel_mask)
        logits = self.forward_head(self.norm(stages.after[-1]), mask=stages.mask)  # [B, num_labels]
        loss = None if labels is None else classification_loss(logits, labels, self.config)
        hidden, weights = extras(self.config, stages, output_hidden_states)
        if not (self.config.return_dict if return_dict is None else return_dict):
            return tuple(value for value in (loss, logits, hidden, weights) if value is not None)
        return ImageClassifierOutput(loss, logits, hidden, weights, hidden and channels_first(hidden))


def extras(
    config: DinatConfig, stages: Stages, output_hidden_states: bool | None
) -> tuple[tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
    """Pick what a caller asked for besides the result: hidden states and attention weights, or None.

    Shapes:
        return: (hidden states [B, X, Y, C], attention weights [B, heads, X', Y', K])
    Source: transformers' DinatEncoder.
    Example:
        >>> import torch
        >>> x = torch.zeros(1, 4, 4, 8)
        >>> hidden, weights = extras(DinatConfig(), Stages(x, (x,), (x,), ()), output_hidden_states=True)
        >>> len(hidden), weights
        (2, None)
    """
    wanted = config.output_hidden_states if output_hidden_states is None else output_hidden_states
    hidden = (stages.embeddings, *stages.after) if wanted else None
    return hidden, stages.attentions or None


def classification_loss(logits: Tensor, labels: Tensor, config: DinatConfig) -> Tensor:
    """Compute the loss of the configuration's problem_type, or of the one that the labels' dtype implies.

    One label: squared error. Integers: cross entropy. Other numbers, one per class: binary cross entropy.

    Shapes:
        logits: [B, num_labels]
        labels: [B], or [B, num_labels] for several labels an image
        return: []
    Raises:
        ValueError: labels of another shape.
    Source: transformers' loss for image classification.
    Example:
        >>> import torch
        >>> classification_loss(torch.zeros(1, 2), torch.tensor([1]), DinatConfig(num_labels=2))
        tensor(0.6931)
    """
    kind = config.problem_type
    if kind is None:
        integers = not labels.is_floating_point()
        kind = "single_label_classification" if integers else "multi_label_classification"
        kind = "regression" if config.num_labels == 1 else kind
    if kind == "regression":
        return mse_loss(logits.squeeze(-1), labels.to(logits.dtype).reshape(logits.squeeze(-1).shape))
    if kind == "single_label_classification":
        return cross_entropy(logits, labels.reshape(-1))
    return binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
