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

import torch
from torch import Tensor, nn

from dinat_ref.models.classifier import Classifier
from dinat_ref.models.config import DinatConfig
from dinat_ref.models.layers import initialize
from dinat_ref.models.pyramid import Stages, check_image, make_head, make_levels, mask_pixels, run_levels


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
        image = image.contiguous(memory_format=torch.channels_last)  # so that tokens come out as the norm reads them
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


class ConvDownsampler(nn.Module):
    """Halve a map and double its channels with an overlapping convolution, then normalise.

    Shapes:
        input: [B, X, Y, dim]
        return: [B, ceil(X / 2), ceil(Y / 2), 2 * dim]
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

    def encode(self, image: Tensor, attentions: str = "none", pixel_mask: Tensor | None = None) -> Stages:
        """Run the levels and keep what each of them computed.

        Args:
            attentions: "none", "last" (of the last layer of each level) or "all".
            pixel_mask: [B, H, W], zero where a pixel only fills up; tokens of such pixels alone are not attended.
        """
        image, key_mask = mask_pixels(image, pixel_mask, patch_size=4)
        return run_levels(self.pos_drop(self.patch_embed(image)), self.levels, attentions, key_mask)


class DiNAT(Classifier, DinatTrunk):
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

    huggingface_prefix = "dinat."
    architecture = "DinatForImageClassification"

    def __init__(self, config: DinatConfig) -> None:
        """Make the parts and initialise them."""
        super().__init__(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = make_head(config.hidden_size, config.num_labels)
        initialize(self, config.initializer_range)
