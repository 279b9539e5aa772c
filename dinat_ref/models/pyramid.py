"""What all pyramids share: levels of layers, run one after the other, and what they computed on the way."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from dinat_ref.models.config import DinatConfig
from dinat_ref.models.layers import Layer, drop_path_rates


@dataclass(frozen=True)
class Stages:
    """What a pyramid computed on its way: nothing is normalised, every map is [B, X, Y, C].

    Shapes:
        embeddings: [B, H/4, W/4, C]
        before: one map per level, as its last layer left it
        after: the same maps, downsampled where the level ends in a downsampler
        attentions: [B, heads, X', Y', K] of the layers that were asked for
        mask: bool [B, X, Y] of the last map, True where a token shows any pixel that counts; None: everywhere
    Source: Hassani et al., arXiv:2204.07143, figure 4.
    Example:
        >>> import torch
        >>> from dinat_ref.models import create_model
        >>> stages = create_model("dinat_mini", device="meta").encode(torch.empty(1, 3, 224, 224, device="meta"))
        >>> [tuple(x.shape[1:]) for x in stages.before]
        [(56, 56, 64), (28, 28, 128), (14, 14, 256), (7, 7, 512)]
    """

    embeddings: Tensor
    before: tuple[Tensor, ...]
    after: tuple[Tensor, ...]
    attentions: tuple[Tensor, ...]
    mask: Tensor | None = None


class Level(nn.Module):
    """The layers that share a resolution, and the downsampler that ends it (none on the last level).

    Shapes:
        input: [B, X, Y, dim]
        return: (before the downsampler [B, X, Y, dim], after it [B, X / 2, Y / 2, 2 dim])
    Raises:
        ValueError: as ``Layer``.
    Source: Hassani et al., arXiv:2204.07143, figure 4.
    Example:
        >>> import torch
        >>> before, after = Level([Layer(32, 1, kernel_size=3)], nn.Linear(32, 64))(torch.randn(1, 6, 8, 32))
        >>> before.shape, after.shape
        (torch.Size([1, 6, 8, 32]), torch.Size([1, 6, 8, 64]))
    """

    def __init__(self, layers: Iterable[Layer], downsample: nn.Module | None) -> None:
        """Take the parts."""
        super().__init__()
        self.blocks = nn.ModuleList(layers)
        self.downsample = downsample

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the layers: [B, X, Y, dim] -> the map before and after downsampling."""
        for layer in self.blocks:
            x = layer(x, key_mask)
        return x, x if self.downsample is None else self.downsample(x)

    def with_attentions(
        self, x: Tensor, every_layer: bool, key_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Run the layers and keep the attention weights of every layer, or of the last one alone."""
        attentions = []
        for number, layer in enumerate(self.blocks, start=1):
            assert isinstance(layer, Layer)
            if every_layer or number == len(self.blocks):
                x, weights = layer.with_weights(x, key_mask)
                attentions.append(weights)
            else:
                x = layer(x, key_mask)
        return x, x if self.downsample is None else self.downsample(x), tuple(attentions)


def make_levels(config: DinatConfig, downsampler: Callable[[int], nn.Module]) -> list[Level]:
    """Make the levels of a pyramid, without initialising them.

    Shapes:
        return: one level per entry of depths
    Args:
        downsampler: makes the module that ends a level of so many channels; the last level has none.
    Raises:
        ValueError: as ``Layer``.
    Source: Hassani et al., arXiv:2204.07143, figure 4.
    Example:
        >>> config = DinatConfig(embed_dim=32, depths=[1, 1], num_heads=[1, 2], dilations=[[2], [1]], kernel_size=3)
        >>> [len(level.blocks) for level in make_levels(config, lambda dim: nn.Identity())]
        [1, 1]
    """
    assert config.dilations is not None
    rates = iter(drop_path_rates(config.drop_path_rate, sum(config.depths)))
    levels: list[Level] = []
    for dim, num_heads, dilations in zip(config.dims, config.num_heads, config.dilations, strict=True):
        layers = [
            Layer(
                dim,
                num_heads,
                config.kernel_size,
                dilation,
                mlp_ratio=config.mlp_ratio,
                qkv_bias=config.qkv_bias,
                drop=config.hidden_dropout_prob,
                attn_drop=config.attention_probs_dropout_prob,
                drop_path=next(rates),
                activation=config.hidden_act,
                layer_scale=config.layer_scale_init_value,
                norm_eps=config.layer_norm_eps,
                small_input=config.small_input,
            )
            for dilation in dilations
        ]
        is_last = len(levels) == len(config.depths) - 1
        levels.append(Level(layers, None if is_last else downsampler(dim)))
    return levels


def run_levels(x: Tensor, levels: nn.ModuleList, attentions: str = "none", key_mask: Tensor | None = None) -> Stages:
    """Run a pyramid from its embeddings on and keep what each level computed.

    Shapes:
        x: [B, X, Y, C]
        key_mask: bool [B, X, Y], True where a token may be attended
    Args:
        attentions: "none", "last" (of the last layer of each level) or "all".
    Raises:
        ValueError: attentions is none of the three.
    Source: Hassani et al., arXiv:2204.07143, figure 4.
    Example:
        >>> import torch
        >>> stages = run_levels(torch.randn(1, 6, 8, 32), nn.ModuleList([Level([Layer(32, 1, 3)], None)]), "last")
        >>> stages.attentions[0].shape
        torch.Size([1, 1, 6, 8, 9])
    """
    if attentions not in ("none", "last", "all"):
        raise ValueError(f"attentions must be 'none', 'last' or 'all', got {attentions!r}")
    embeddings = x
    before: list[Tensor] = []
    after: list[Tensor] = []
    weights: list[Tensor] = []
    for level in levels:
        assert isinstance(level, Level)
        if attentions == "none":
            kept, x = level(x, key_mask)
        else:
            kept, x, of_level = level.with_attentions(x, attentions == "all", key_mask)
            weights.extend(of_level)
        if key_mask is not None and level.downsample is not None:
            key_mask = coarser(key_mask, 2)
        before.append(kept)
        after.append(x)
    return Stages(embeddings, tuple(before), tuple(after), tuple(weights), key_mask)


def coarser(mask: Tensor, factor: int) -> Tensor:
    """Mark the tokens that stand for any marked pixel.

    Shapes:
        mask: bool or numbers [B, H, W]
        return: bool [B, ceil(H / factor), ceil(W / factor)]
    Example:
        >>> import torch
        >>> coarser(torch.tensor([[[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]]), factor=2)
        tensor([[[ True,  True, False]]])
    """
    marked = max_pool2d((mask != 0).float()[:, None], factor, ceil_mode=True)  # [B, 1, ceil(H / f), ceil(W / f)]
    return marked[:, 0] > 0


def mask_pixels(image: Tensor, pixel_mask: Tensor | None, patch_size: int) -> tuple[Tensor, Tensor | None]:
    """Blank the pixels that do not count, and mark the tokens that do.

    Shapes:
        image: [B, num_channels, H, W]
        pixel_mask: bool or numbers [B, H, W], zero where a pixel only fills up
        return: (the image, the mask of tokens, bool [B, H / patch_size, W / patch_size], or None)
    Raises:
        ValueError: a mask of another shape.
    Source: the pixel_mask of transformers' models for detection.
    Example:
        >>> import torch
        >>> image, tokens = mask_pixels(torch.ones(1, 1, 2, 4), torch.tensor([[[1, 1, 0, 0], [1, 1, 0, 0]]]), 2)
        >>> image[0, 0, 0], tokens
        (tensor([1., 1., 0., 0.]), tensor([[[ True, False]]]))
    """
    if pixel_mask is None:
        return image, None
    if image.ndim != 4 or pixel_mask.shape != (image.shape[0], *image.shape[2:]):
        expected = (*image.shape[:1], *image.shape[2:])
        raise ValueError(f"pixel_mask must be [batch, height, width] = {expected}, got {tuple(pixel_mask.shape)}")
    return torch.where((pixel_mask != 0)[:, None], image, 0.0), coarser(pixel_mask, patch_size)


def token_mean(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Take the mean of all tokens, or of those that are marked.

    Shapes:
        x: [B, X, Y, C]
        mask: bool [B, X, Y]
        return: [B, C], zeros where no token is marked
    Source: the published models' code, which pools all tokens.
    Example:
        >>> import torch
        >>> token_mean(torch.tensor([[[[1.0], [5.0]]]]), torch.tensor([[[True, False]]]))
        tensor([[1.]])
    """
    if mask is None:
        return x.mean((1, 2))
    return torch.where(mask[..., None], x, 0.0).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)[:, None]


def make_head(dim: int, num_labels: int | None) -> nn.Module:
    """Make the linear map from features to logits, or hand the features through where there are no labels.

    Shapes:
        return: a module [B, dim] -> [B, num_labels]
    Source: the published models' code.
    Example:
        >>> make_head(8, 0)
        Identity()
    """
    return nn.Linear(dim, num_labels) if num_labels else nn.Identity()


def check_image(image: Tensor, num_channels: int) -> None:
    """Raise unless the tensor is a batch of images with the right number of channels.

    Shapes:
        image: [B, num_channels, H, W]
    Raises:
        ValueError: another number of dimensions or channels.
    Example:
        >>> import torch
        >>> check_image(torch.zeros(1, 4, 32, 32), num_channels=3)
        Traceback (most recent call last):
        ValueError: image must be [batch, channels, height, width] with 3 channels, got (1, 4, 32, 32)
    """
    if image.ndim != 4 or image.shape[1] != num_channels:
        expected = f"[batch, channels, height, width] with {num_channels} channels"
        raise ValueError(f"image must be {expected}, got {tuple(image.shape)}")
