"""The attention weights of a whole model, each with the neighborhood that says where they lie."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dinat_ref.models.layers import Layer
from dinat_ref.neighborhood import Neighborhood


@dataclass(frozen=True)
class LayerAttention:
    """What one layer of a model attends to on a batch of images.

    Shapes:
        weights: [B, X, Y, heads, K], for the functions of ``attention_maps``
    Source: arXiv:2209.15001, eq. 3.
    Example:
        >>> LayerAttention("levels.0.blocks.0", Neighborhood((8, 12), 3), torch.zeros(1, 8, 12, 2, 9)).name
        'levels.0.blocks.0'
    """

    name: str
    neighborhood: Neighborhood
    weights: Tensor


def model_attention(model: nn.Module, image: Tensor) -> list[LayerAttention]:
    """Run a model of this package and keep the attention weights of all its layers.

    Shapes:
        image:  [B, C, H, W]
        return: one entry per layer, in the order they run
    Raises:
        ValueError: the model has no layers of ``dinat_ref.models``, or a feature map is smaller than
            kernel_size * dilation, whose padded tokens belong to no place in the image.
    Source: arXiv:2209.15001, eq. 3.
    Example:
        >>> from dinat_ref.models import DiNAT, DinatConfig
        >>> config = DinatConfig(embed_dim=32, depths=[2], num_heads=[1], dilations=[[1, 2]], kernel_size=3)
        >>> layers = model_attention(DiNAT(config).eval(), torch.zeros(1, 3, 32, 48))
        >>> layers[1].name, layers[1].weights.shape, layers[1].neighborhood.dilation
        ('levels.0.blocks.1', torch.Size([1, 8, 12, 1, 9]), (2, 2))
    """
    found: list[LayerAttention] = []
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, Layer)]
    if not layers:
        raise ValueError(f"model must have attention layers of dinat_ref.models, got {type(model).__name__}")

    def keep(name: str) -> object:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(layer, Layer)
            layout = tuple(int(length) for length in inputs[0].shape[1:-1])
            where = (layer.attn.kernel_size, layer.attn.stride, layer.attn.dilation, layer.attn.is_causal)
            neighborhood = Neighborhood(layout, *where)
            found.append(LayerAttention(name, neighborhood, layer.attention_weights(inputs[0])))

        return hook

    handles = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers]  # type: ignore[arg-type]
    try:
        with torch.no_grad():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    return found
