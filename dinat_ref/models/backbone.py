"""DiNAT as a backbone: the feature maps of chosen stages, for detection and segmentation."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from dinat_ref.models.config import DinatConfig
from dinat_ref.models.dinat_model import DinatPreTrainedModel
from dinat_ref.models.layers import initialize
from dinat_ref.models.outputs import BackboneOutput, channels_first


class DinatBackbone(DinatPreTrainedModel):
    """DiNAT's feature maps before downsampling, each through a LayerNorm of its own.

    The LayerNorms are called norm0, norm1, ... for stage1, stage2, ..., as in the original repository's detection and
    segmentation files; the one of the embeddings is norm_stem. A classifier's file has none: they stay new then.

    Shapes:
        pixel_values: [B, num_channels, H, W]
        return: ``BackboneOutput``
    Args:
        config: the architecture, with the stages to return in out_features or out_indices.
    Raises:
        ValueError: a stage that does not exist; out_features and out_indices that contradict each other; an image
            with another number of channels.
    Source: Hassani & Shi, arXiv:2209.15001, section 4.2; interface: transformers' DinatBackbone.
    Example:
        >>> import torch
        >>> config = DinatConfig(embed_dim=32, depths=[1, 1], num_heads=[1, 2], dilations=[[2], [1]], kernel_size=3,
        ...                      out_features=["stage1", "stage2"])
        >>> [tuple(x.shape) for x in DinatBackbone(config)(torch.randn(1, 3, 32, 48)).feature_maps]
        [(1, 32, 8, 12), (1, 64, 4, 6)]
    """

    def __init__(self, config: DinatConfig) -> None:
        """Make the parts and initialise them."""
        super().__init__(config)
        self.stage_names = config.stage_names
        self.out_features, self.out_indices = align_stages(config.stage_names, config.out_features, config.out_indices)
        self.num_features = [config.embed_dim, *config.dims]
        for index in self.out_indices:
            self.add_module(norm_name(index), nn.LayerNorm(self.num_features[index]))
        initialize(self, config.initializer_range)

    @property
    def channels(self) -> list[int]:
        """The channels of each map that is returned."""
        return [self.num_features[index] for index in self.out_indices]

    def forward(
        self,
        pixel_values: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        *,
        return_all_attentions: bool = False,
        pixel_mask: Tensor | None = None,
    ) -> BackboneOutput | tuple[Any, ...]:
        """Compute the feature maps; options as ``DinatModel.forward``."""
        stages = self.run(pixel_values, output_attentions, return_all_attentions, pixel_mask)
        maps = (stages.embeddings, *stages.before)  # [B, X, Y, C] each
        features = channels_first(tuple(self.get_submodule(norm_name(i))(maps[i]) for i in self.out_indices))
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        hidden = maps if wanted else None
        weights = stages.attentions or None
        if not (self.config.return_dict if return_dict is None else return_dict):
            return (features,) if hidden is None else (features, hidden)
        return BackboneOutput(features, hidden, weights)


def norm_name(index: int) -> str:
    """Name the LayerNorm of a stage; 0 is the stem.

    Source: the original repository's detection code.
    Example:
        >>> norm_name(0), norm_name(1)
        ('norm_stem', 'norm0')
    """
    return f"norm{index - 1}" if index else "norm_stem"


def align_stages(
    stage_names: Sequence[str], out_features: Sequence[str] | None, out_indices: Sequence[int] | None
) -> tuple[list[str], list[int]]:
    """Derive a backbone's stages by name and by number from either; from neither, take the last stage.

    Shapes:
        return: (names, numbers 0 .. len(stage_names) - 1), equally many
    Raises:
        ValueError: an unknown stage, a stage twice, stages out of order, or names and numbers that disagree.
    Source: transformers' backbones.
    Example:
        >>> align_stages(["stem", "stage1", "stage2"], None, [0, -1])
        (['stem', 'stage2'], [0, 2])
    """
    names = list(stage_names)
    if out_features is None and out_indices is None:
        return names[-1:], [len(names) - 1]
    if out_features is not None and not set(out_features) <= set(names):
        raise ValueError(f"out_features must be some of {names}, got {list(out_features)}")
    if out_indices is not None and not all(-len(names) <= index < len(names) for index in out_indices):
        raise ValueError(f"out_indices must be in {-len(names)} .. {len(names) - 1}, got {list(out_indices)}")
    by_name = None if out_features is None else [names.index(name) for name in out_features]
    by_number = None if out_indices is None else [index % len(names) for index in out_indices]
    if by_name is not None and by_number is not None and by_name != by_number:
        raise ValueError(f"out_features {out_features} and out_indices {out_indices} must mean the same stages")
    indices = by_name if by_name is not None else by_number
    assert indices is not None
    if indices != sorted(set(indices)) or not indices:
        raise ValueError(f"stages must be in order, each once and at least one, got {[names[i] for i in indices]}")
    return [names[index] for index in indices], indices
