"""Receptive fields inside the published models, level by level."""

from dinat_ref.analysis.receptive_field import FullAttention, Layer, axis_fields
from dinat_ref.models.isotropic import Isotropic
from dinat_ref.models.variants import find_variant, variant_config
from dinat_ref.neighborhood import Neighborhood


def level_layers(name: str) -> list[list[Layer]]:
    """List the attention layers of a published variant as neighborhoods, at the image size that it was evaluated on.

    Each level has a quarter of the tokens of the one before; an isotropic model has one level.

    Shapes:
        return: one list of layers per level
    Raises:
        ValueError: no such name.
    Source: arXiv:2204.07143, table 1; arXiv:2209.15001, tables 2 and 9.
    Example:
        >>> [(level[1].layout, level[1].dilation) for level in level_layers("dinat_mini")]
        [((56, 56), (8, 8)), ((28, 28), (4, 4)), ((14, 14), (2, 2)), ((7, 7), (1, 1))]
    """
    variant = find_variant(name)
    if variant.model is Isotropic:
        layout = (variant.image_size // 16,) * 2
        if variant.settings.get("full_attention", False):
            return [[FullAttention(layout)] * 12]
        dilation = variant.settings.get("dilation", 1)
        return [[Neighborhood(layout, 7, dilation=dilation if number % 2 else 1) for number in range(12)]]
    config = variant_config(name)
    assert config.dilations is not None
    levels: list[list[Layer]] = []
    for number, dilations in enumerate(config.dilations):
        layout = (variant.image_size // 4 // 2**number,) * 2
        levels.append([Neighborhood(layout, config.kernel_size, dilation=dilation) for dilation in dilations])
    return levels


def level_coverage(name: str) -> list[list[float]]:
    """Give the share of an axis that a token sees after 0, 1, .. layers of each level: the mean over all tokens.

    Every level is taken alone: what its tokens already hold when it begins is not counted.

    Shapes:
        return: per level, one number in 0 .. 1 per layer, and one before the first
    Raises:
        ValueError: no such name.
    Source: the sets of ``dinat_ref.analysis.receptive_field``.
    Example:
        >>> [round(shares[-1], 2) for shares in level_coverage("nat_mini")]
        [0.31, 0.71, 1.0, 1.0]
    """
    return [axis_fields(layers).double().mean((1, 2)).tolist() for layers in level_layers(name)]
