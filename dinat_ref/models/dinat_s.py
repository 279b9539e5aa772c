"""DiNAT_s: a Swin Transformer whose windows slide and dilate instead of being shifted.

The pyramid is DiNAT's; its ends are Swin's: tokens are non-overlapping patches of 4 x 4 pixels, and a map is halved
by merging patches of 2 x 2 tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dinat_ref.models.classifier import Classifier
from dinat_ref.models.config import DinatConfig
from dinat_ref.models.layers import initialize, known_zero
from dinat_ref.models.pyramid import Stages, check_image, make_head, make_levels, mask_pixels, run_levels


class PatchTokenizer(nn.Module):
    """Turn an image into tokens, one for each patch; the image is padded with zeros to whole patches.

    Shapes:
        input: [B, num_channels, H, W]
        return: [B, ceil(H / patch_size), ceil(W / patch_size), dim]
    Raises:
        ValueError: the image has another number of channels.
    Source: Liu et al., arXiv:2103.14030, section 3.1.
    Example:
        >>> PatchTokenizer(3, 96, patch_size=4)(torch.randn(1, 3, 30, 52)).shape
        torch.Size([1, 8, 13, 96])
    """

    def __init__(self, num_channels: int, dim: int, patch_size: int) -> None:
        """Make the parameters."""
        super().__init__()
        self.num_channels, self.patch_size = num_channels, patch_size
        self.proj = nn.Conv2d(num_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        """Embed: [B, num_channels, H, W] -> [B, X, Y, dim]."""
        check_image(image, self.num_channels)
        rows, columns = (-length % self.patch_size for length in image.shape[2:])
        if not (known_zero(rows) and known_zero(columns)):
            image = pad(image, (0, columns, 0, rows))
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Halve a map: concatenate 2 x 2 tokens, normalise, and project to twice the channels. Odd maps are padded.

    Shapes:
        input: [B, X, Y, dim]
        return: [B, ceil(X / 2), ceil(Y / 2), 2 * dim]
    Source: Liu et al., arXiv:2103.14030, section 3.1; the order of the four is that of its code.
    Example:
        >>> PatchMerging(8)(torch.randn(1, 9, 6, 8)).shape
        torch.Size([1, 5, 3, 16])
    """

    def __init__(self, dim: int) -> None:
        """Make the parameters."""
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Merge: [B, X, Y, dim] -> [B, X / 2, Y / 2, 2 dim]."""
        rows, columns = x.shape[1] % 2, x.shape[2] % 2
        if not (known_zero(rows) and known_zero(columns)):
            x = pad(x, (0, 0, 0, columns, 0, rows))
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]  # the row alternates faster
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class DiNATs(Classifier):
    """DiNAT_s as a classifier, with the parameter names of the original repository.

    Shapes:
        input: [B, num_channels, H, W]
        return: logits [B, num_labels]; with no labels the features [B, hidden_size]
    Args:
        config: the architecture; its layer scale must be 0.
    Raises:
        ValueError: the image has another number of channels; the configuration asks for layer scale.
    Source: Hassani & Shi, arXiv:2209.15001, section 3.3.
    Example:
        >>> config = DinatConfig(embed_dim=32, depths=[1, 1], num_heads=[1, 2], dilations=[[2], [1]], kernel_size=3)
        >>> DiNATs(config)(torch.randn(1, 3, 32, 48)).shape
        torch.Size([1, 2])
    """

    huggingface_prefix = None  # transformers has no DiNAT_s
    model_type = "dinat_s"
    levels_name = "layers"

    def __init__(self, config: DinatConfig) -> None:
        """Make the parts and initialise them."""
        super().__init__()
        if config.layer_scale_init_value:
            raise ValueError(f"layer_scale_init_value must be 0 in a DiNAT_s, got {config.layer_scale_init_value}")
        self.config = config
        self.patch_embed = PatchTokenizer(config.num_channels, config.embed_dim, patch_size=4)
        self.pos_drop = nn.Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(make_levels(config, PatchMerging))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = make_head(config.hidden_size, config.num_labels)
        initialize(self, config.initializer_range)

    def encode(self, image: Tensor, attentions: str = "none", pixel_mask: Tensor | None = None) -> Stages:
        """Run the levels and keep what each of them computed, as ``DinatTrunk.encode``."""
        image, key_mask = mask_pixels(image, pixel_mask, patch_size=4)
        return run_levels(self.pos_drop(self.patch_embed(image)), self.layers, attentions, key_mask)
