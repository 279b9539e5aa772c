"""NAT and DiNAT: a pyramid of levels, each half as large and twice as wide as the one before.

    image [B, 3, H, W]
      -> two overlapping convolutions of stride 2, LayerNorm                   [B, H/4, W/4, C]
      -> level 1: layers, then a downsampling convolution, LayerNorm           [B, H/8, W/8, 2C]
      -> level 2, level 3: the same                                            [B, H/32, W/32, 8C]
      -> level 4: layers
      -> LayerNorm, mean over all tokens, linear head                          [B, classes]

DiNAT is NAT with dilations: the layers of a level alternate between dense local windows (dilation 1) and sparse
windows that span the map (the largest dilation that fits it).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from dinat_ref.models.config import DinatConfig
from dinat_ref.models.layers import Layer, drop_path_rates, initialize


@dataclass(frozen=True)
class Stages:
    """What a pyramid computed on its way: nothing is normalised, every map is [B, X, Y, C].

    Shapes:
        embeddings: [B, H/4, W/4, C]
        before: one map per level, as its last layer left it
        after: the same maps, downsampled where the level ends in a downsampler
        attentions: [B, X', Y', heads, K] of the layers that were asked for
    Source: Hassani et al., arXiv:2204.07143, figure 4.
    """

    embeddings: Tensor
    before: tuple[Tensor, ...]
    after: tuple[Tensor, ...]
    attentions: tuple[Tensor, ...]


class ConvTokenizer(nn.Module):
    """Turn an image into tokens with two overlapping convolutions, nothing between them.

    Shapes:
        input: [B, num_channels, H, W]
        return: [B, ceil(H / 4), ceil(W / 4), dim]
    Raises:
        ValueError: the image has another number of channels.
    Source: Hassani et al., arXiv:2204.07143, section 3.4.
    Example:
        >>> import torch
        >>> ConvTokenizer(3, 64)(torch.randn(1, 3, 40, 52)).shape
        torch.Size([1, 10, 13, 64])
    """

    def __init__(self, num_channels: int, dim: int) -> None:
        """Make the parameters."""
        super().__init__()
        self.num_channels = num_channels
        self.proj = nn.Sequential(
            nn.Conv2d(num_channels, dim // 2, kernel_size=3, stride=2, padding=1),
            nn.Conv2d(dim // 2, dim, kernel_size=3, stride=2, padding=1),
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        """Embed: [B, num_channels, H, W] -> [B, X, Y, dim]."""
        check_image(image, self.num_channels)
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


class ConvDownsampler(nn.Module):
    """Halve a map and double its channels with an overlapping convolution, then normalise.

    Shapes:
        input: [B, X, Y, dim]
        return: [B, ceil(X / 2), ceil(Y / 2), 2 * dim]
    Raises:
        Nothing.
    Source: Hassani et al., arXiv:2204.07143, section 3.4.
    Example:
        >>> import torch
        >>> ConvDownsampler(8)(torch.randn(1, 9, 6, 8)).shape
        torch.Size([1, 5, 3, 16])
    """

    def __init__(self, dim: int) -> None:
        """Make the parameters."""
        super().__init__()
        self.reduction = nn.Conv2d(dim, 2 * dim, kernel_size=3, stride=2, padding=1, bias=False)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Downsample: [B, X, Y, dim] -> [B, X / 2, Y / 2, 2 dim]."""
        return self.norm(self.reduction(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


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
        >>> before, after = Level([Layer(32, 1, kernel_size=3)], ConvDownsampler(32))(torch.randn(1, 6, 8, 32))
        >>> before.shape, after.shape
        (torch.Size([1, 6, 8, 32]), torch.Size([1, 3, 4, 64]))
    """

    def __init__(self, layers: Iterable[Layer], downsample: nn.Module | None) -> None:
        """Take the parts."""
        super().__init__()
        self.blocks = nn.ModuleList(layers)
        self.downsample = downsample

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run the layers: [B, X, Y, dim] -> the map before and after downsampling."""
        for layer in self.blocks:
            x = layer(x)
        return x, x if self.downsample is None else self.downsample(x)

    def with_attentions(self, x: Tensor, every_layer: bool) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Run the layers and compute the attention weights of every layer, or of the last one alone."""
        attentions = []
        for number, layer in enumerate(self.blocks, start=1):
            assert isinstance(layer, Layer)
            if every_layer or number == len(self.blocks):
                attentions.append(layer.attention_weights(x))
            x = layer(x)
        return x, x if self.downsample is None else self.downsample(x), tuple(attentions)


class DinatTrunk(nn.Module):
    """Tokenizer and levels, what all NATs and DiNATs have in common; the models add what comes after.

    Shapes:
        input: [B, num_channels, H, W]
    Args:
        config: the architecture.
    Raises:
        ValueError: the image has another number of channels.
    Source: Hassani et al., arXiv:2204.07143, figure 4.
    Example:
        >>> import torch
        >>> config = DinatConfig(embed_dim=32, depths=[1, 1], num_heads=[1, 2], dilations=[[2], [1]], kernel_size=3)
        >>> stages = DinatTrunk(config).encode(torch.randn(1, 3, 32, 48))
        >>> [tuple(level.shape) for level in stages.after]
        [(1, 4, 6, 64), (1, 4, 6, 64)]
    """

    def __init__(self, config: DinatConfig) -> None:
        """Make the parts; the models initialise them when they are complete."""
        super().__init__()
        self.config = config
        self.patch_embed: nn.Module = ConvTokenizer(config.num_channels, config.embed_dim)
        self.pos_drop = nn.Dropout(config.hidden_dropout_prob)
        self.levels = nn.ModuleList(make_levels(config, ConvDownsampler))

    def encode(self, image: Tensor, attentions: str = "none") -> Stages:
        """Run the levels and keep what each of them computed.

        Args:
            attentions: "none", "last" (of the last layer of each level) or "all".
        """
        return run_levels(self.pos_drop(self.patch_embed(image)), self.levels, attentions)


class DiNAT(DinatTrunk):
    """NAT or DiNAT as a classifier with the parameter names of the original repository.

    Shapes:
        input: [B, num_channels, H, W]
        return: logits [B, num_labels]; with no labels the features [B, hidden_size]
    Args:
        config: the architecture.
    Raises:
        ValueError: the image has another number of channels.
    Source: Hassani et al., arXiv:2204.07143; Hassani & Shi, arXiv:2209.15001.
    Example:
        >>> import torch
        >>> config = DinatConfig(embed_dim=32, depths=[1, 1], num_heads=[1, 2], dilations=[[2], [1]], kernel_size=3)
        >>> DiNAT(config)(torch.randn(1, 3, 32, 48)).shape
        torch.Size([1, 2])
    """

    def __init__(self, config: DinatConfig) -> None:
        """Make the parts and initialise them."""
        super().__init__(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = make_head(config.hidden_size, config.num_labels)
        initialize(self, config.initializer_range)

    def forward_features(self, image: Tensor) -> Tensor:
        """Compute the mean of the last map's tokens: [B, num_channels, H, W] -> [B, hidden_size]."""
        return self.norm(self.encode(image).after[-1]).mean((1, 2))

    def forward(self, image: Tensor) -> Tensor:
        """Classify: [B, num_channels, H, W] -> [B, num_labels]."""
        return self.head(self.forward_features(image))


def make_levels(config: DinatConfig, downsampler: type[nn.Module]) -> list[Level]:
    """Make the levels of a pyramid, without initialising them.

    Shapes:
        return: one level per entry of depths
    Raises:
        ValueError: as ``Layer``.
    Source: Hassani et al., arXiv:2204.07143, figure 4.
    Example:
        >>> config = DinatConfig(embed_dim=32, depths=[1, 1], num_heads=[1, 2], dilations=[[2], [1]], kernel_size=3)
        >>> [len(level.blocks) for level in make_levels(config, ConvDownsampler)]
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


def run_levels(x: Tensor, levels: nn.ModuleList, attentions: str = "none") -> Stages:
    """Run a pyramid from its embeddings on and keep what each level computed.

    Shapes:
        x: [B, X, Y, C]
    Args:
        attentions: "none", "last" (of the last layer of each level) or "all".
    Raises:
        ValueError: attentions is none of the three.
    Source: Hassani et al., arXiv:2204.07143, figure 4.
    Example:
        >>> import torch
        >>> stages = run_levels(torch.randn(1, 6, 8, 32), nn.ModuleList([Level([Layer(32, 1, 3)], None)]), "last")
        >>> stages.attentions[0].shape
        torch.Size([1, 6, 8, 1, 9])
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
            kept, x = level(x)
        else:
            kept, x, of_level = level.with_attentions(x, every_layer=attentions == "all")
            weights.extend(of_level)
        before.append(kept)
        after.append(x)
    return Stages(embeddings, tuple(before), tuple(after), tuple(weights))


def make_head(dim: int, num_labels: int | None) -> nn.Module:
    """Make the linear map from features to logits, or hand the features through where there are no labels.

    Shapes:
        return: a module [B, dim] -> [B, num_labels]
    Raises:
        Nothing.
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
    Source: the project's own rule.
    Example:
        >>> import torch
        >>> check_image(torch.zeros(1, 4, 32, 32), num_channels=3)
        Traceback (most recent call last):
        ValueError: image must be [batch, channels, height, width] with 3 channels, got (1, 4, 32, 32)
    """
    if image.ndim != 4 or image.shape[1] != num_channels:
        expected = f"[batch, channels, height, width] with {num_channels} channels"
        raise ValueError(f"image must be {expected}, got {tuple(image.shape)}")
