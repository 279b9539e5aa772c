"""Isotropic models: one resolution from beginning to end, for comparing attention patterns and nothing else.

Twelve layers on 14 x 14 tokens of 16 x 16 pixels. NAT attends 7 x 7 windows, DiNAT dilates them by 2 in every other
layer, and ViT-rpb attends the whole map. All three are neighborhood attention: with a kernel as large as the map
every window is the map, and its bias table [heads, 27, 27] has an entry for every offset.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from dinat_ref.command import whole_file
from dinat_ref.models import schema
from dinat_ref.models.classifier import AFTER_THE_BLOCKS, Classifier
from dinat_ref.models.config import SMALL_INPUT, DinatConfig
from dinat_ref.models.dinat_s import PatchTokenizer
from dinat_ref.models.image_processor import ImageProcessor
from dinat_ref.models.layers import Layer, drop_path_rates, initialize
from dinat_ref.models.pyramid import Stages, make_head, mask_pixels
from dinat_ref.outside import read_json

CHECKS: dict[str, schema.Check] = {
    "embed_dim": schema.integer(1, schema.MOST_CHANNELS),
    "num_heads": schema.integer(1, schema.MOST_CHANNELS),
    "depth": schema.integer(0, schema.MOST_LAYERS),
    "kernel_size": schema.integer(1, schema.LONGEST_REACH),
    "dilation": schema.one_or_each(schema.integer(1, schema.LONGEST_REACH), schema.MOST_LAYERS),
    "mlp_ratio": schema.number(0, 64),
    "drop_path_rate": schema.number(0, schema.BELOW_ONE),
    "num_labels": schema.integer(0, schema.MOST_CLASSES),
    "num_channels": schema.integer(1, 4096),
    "patch_size": schema.integer(1, schema.LONGEST_SIDE),
    "image_size": schema.integer(1, schema.LONGEST_SIDE),
    "full_attention": schema.truth,
    "small_input": schema.word(*SMALL_INPUT),
}


class Isotropic(Classifier):
    """An isotropic NAT, DiNAT or ViT with relative positional bias, as a classifier.

    Shapes:
        input: [B, num_channels, H, W]
        return: logits [B, num_labels]; with no labels the features [B, embed_dim]
    Args:
        embed_dim, num_heads, depth, mlp_ratio, drop_path_rate: as everywhere.
        dilation: of every other layer, from the second on, while the rest have 1; or one number per layer.
        image_size: the size the kernel of full attention is made for.
        full_attention: attend the whole map: kernel_size is then image_size / patch_size.
        small_input: "pad", "raise" or "clamp", see ``dinat_ref.models.config``.
    Raises:
        ValueError: another number of channels; with full attention, an image of another size than image_size;
            dilation names another number of layers than depth.
    Source: Hassani & Shi, arXiv:2209.15001, section 4.4 and table 9.
    Example:
        >>> import torch
        >>> model = Isotropic(embed_dim=32, num_heads=1, depth=2, kernel_size=3, dilation=2, num_labels=5)
        >>> model(torch.randn(1, 3, 96, 112)).shape
        torch.Size([1, 5])
    """

    huggingface_prefix = None  # transformers has no isotropic model
    model_type = "dinat_isotropic"
    levels_name = "layers"

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        depth: int = 12,
        kernel_size: int = 7,
        dilation: int | Sequence[int] = 1,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.1,
        num_labels: int = 1000,
        num_channels: int = 3,
        patch_size: int = 16,
        image_size: int = 224,
        full_attention: bool = False,
        small_input: str = "pad",
    ) -> None:
        """Make the parts and initialise them."""
        super().__init__()
        given = {name: value for name, value in locals().items() if name in CHECKS}
        self.settings: dict[str, Any] = schema.check_settings(given, CHECKS)
        if isinstance(dilation, int):
            dilations = [dilation if number % 2 else 1 for number in range(depth)]
        elif len(dilations := self.settings["dilation"]) != depth:
            raise ValueError(f"dilation must be one number or one per layer: depth {depth}, got {dilations}")
        self.layout = (image_size // patch_size,) * 2 if full_attention else None
        kernel_size = image_size // patch_size if full_attention else kernel_size
        if kernel_size * max(dilations, default=1) > schema.LONGEST_REACH or kernel_size < 1:
            reach = f"{kernel_size} * {max(dilations, default=1)}"
            raise ValueError(f"kernel_size * dilation must be within 1 .. {schema.LONGEST_REACH} tokens, got {reach}")
        schema.check_hidden(embed_dim, mlp_ratio)
        layer_parameters = schema.layer_parameters(embed_dim, num_heads, (2 * kernel_size - 1) ** 2, mlp_ratio)
        ends = embed_dim * (num_channels * patch_size**2 + num_labels + 5) + num_labels
        schema.check_size(depth, depth * layer_parameters + ends)
        self.patch_embed = PatchTokenizer(num_channels, embed_dim, patch_size)
        self.layers = nn.Sequential(
            *(
                Layer(
                    embed_dim,
                    num_heads,
                    kernel_size,
                    layer_dilation,
                    mlp_ratio=mlp_ratio,
                    drop_path=rate,
                    small_input=small_input,
                )
                for layer_dilation, rate in zip(dilations, drop_path_rates(drop_path_rate, depth), strict=True)
            )
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.head = make_head(embed_dim, num_labels)
        initialize(self)

    def encode(self, image: Tensor, attentions: str = "none", pixel_mask: Tensor | None = None) -> Stages:
        """Run the layers as one level; arguments as ``DinatTrunk.encode``."""
        if attentions not in ("none", "last", "all"):
            raise ValueError(f"attentions must be 'none', 'last' or 'all', got {attentions!r}")
        image, key_mask = mask_pixels(image, pixel_mask, self.settings["patch_size"])
        x = embeddings = self.patch_embed(image)
        if self.layout is not None and tuple(x.shape[1:3]) != self.layout:
            raise ValueError(f"image must give {self.layout} tokens to full attention, got {tuple(x.shape[1:3])}")
        weights = []
        for number, layer in enumerate(self.layers, start=1):
            assert isinstance(layer, Layer)
            if attentions == "all" or (attentions == "last" and number == len(self.layers)):
                x, of_layer = layer.with_weights(x, key_mask)
                weights.append(of_layer)
            else:
                x = layer(x, key_mask)
        return Stages(embeddings, (x,), (x,), tuple(weights), key_mask)

    def remember_classes(self, num_classes: int) -> float:
        """Write the number of classes down where ``save_pretrained`` finds it; return a head's initial deviation."""
        self.settings["num_labels"] = num_classes
        return 0.02

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """One map: all layers have the same resolution."""
        return [
            {
                "num_chs": self.settings["embed_dim"],
                "reduction": self.settings["patch_size"],
                "module": self.levels_name,
            }
        ]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters into groups from the image to the head, a layer each."""
        return {"stem": r"^patch_embed", "blocks": [(r"^layers\.(\d+)", None), (r"^norm", AFTER_THE_BLOCKS)]}

    @classmethod
    def maker(cls, folder: Path, settings: dict[str, Any]) -> Callable[[], Self]:
        """Read the arguments that ``write_config`` wrote, with settings overriding them."""
        path = folder / "config.json"
        written = read_json(path)
        if written.get("model_type") != cls.model_type:
            raise ValueError(f"model_type must be {cls.model_type!r} in {path}")
        try:
            known = schema.check_settings(written, CHECKS)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None
        return lambda: cls(**{**known, **settings})

    @classmethod
    def _maker_of(cls, config: DinatConfig, settings: dict[str, Any]) -> Callable[[], Self]:
        """Refuse: an isotropic model is made of arguments."""
        raise TypeError("config must be None: an isotropic model has no DinatConfig")

    def default_image_processor(self) -> ImageProcessor | None:
        """As for the other models, in the size that this one was made for."""
        size, channels = self.settings["image_size"], self.settings["num_channels"]
        return ImageProcessor(size=size) if channels == 3 else None

    def write_config(self, path: Path) -> None:
        """Write the arguments that made this model."""
        settings = {"model_type": self.model_type, **self.settings}
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
