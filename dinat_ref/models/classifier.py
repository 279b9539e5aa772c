"""What users of timm ask of a classifier: feature maps, another head, groups of parameters; no timm is needed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from dinat_ref.models.config import DinatConfig
from dinat_ref.models.image_processor import ImageProcessor
from dinat_ref.models.layers import initialize
from dinat_ref.models.outputs import channels_first
from dinat_ref.models.pretrained import Pretrained
from dinat_ref.models.pyramid import Level, Stages, make_head, token_mean

AFTER_THE_BLOCKS = (99999,)  # timm's way to sort a group of parameters last


class Classifier(Pretrained):
    """Tokens, levels, a LayerNorm, the mean of all tokens, a linear head: its parts by timm's names.

    Maps are [B, X, Y, C] inside, as in timm's Swin (``output_fmt``); ``forward_intermediates`` turns them round.

    Source: the interface of timm's models.
    Example:
        >>> import torch
        >>> from dinat_ref.models import create_model
        >>> model = create_model("dinat_mini", num_classes=10, in_chans=1)
        >>> features = model.forward_features(torch.randn(1, 1, 64, 96))
        >>> features.shape, model.forward_head(features, pre_logits=True).shape, model.forward_head(features).shape
        (torch.Size([1, 2, 3, 512]), torch.Size([1, 512]), torch.Size([1, 10]))
        >>> model.reset_classifier(0)
        >>> model(torch.randn(1, 1, 64, 96)).shape
        torch.Size([1, 512])
    """

    levels_name = "levels"  # of the module list with the levels
    output_fmt = "NHWC"
    norm: nn.LayerNorm
    head: nn.Module
    encode: Callable[..., Stages]

    @property
    def num_features(self) -> int:
        """The channels of the last map, which the head takes."""
        return self.norm.normalized_shape[0]

    head_hidden_size = num_features

    @property
    def num_classes(self) -> int:
        """The number of classes; 0 without a head."""
        return self.head.out_features if isinstance(self.head, nn.Linear) else 0

    @property
    def in_chans(self) -> int:
        """The channels of an image."""
        return int(self.get_submodule("patch_embed").num_channels)  # type: ignore[arg-type]

    def forward_features(self, image: Tensor) -> Tensor:
        """Compute the last map, normalised: [B, num_channels, H, W] -> [B, X, Y, num_features]."""
        return self.norm(self.encode(image).after[-1])

    def forward_head(self, features: Tensor, pre_logits: bool = False, mask: Tensor | None = None) -> Tensor:
        """Take the mean of all tokens and classify it: [B, X, Y, num_features] -> [B, num_classes].

        Args:
            pre_logits: return the mean: [B, num_features].
            mask: bool [B, X, Y], the tokens that the mean is taken of; None: of all.
        """
        pooled = token_mean(features, mask)
        return pooled if pre_logits else self.head(pooled)

    def forward(self, image: Tensor, pixel_mask: Tensor | None = None) -> Any:
        """Classify: [B, num_channels, H, W] -> [B, num_labels].

        Args:
            pixel_mask: [B, H, W], zero where a pixel only fills up a batch of images of several sizes. Such pixels are
                blanked, and tokens that show no other are neither attended nor pooled.
        """
        stages = self.encode(image, pixel_mask=pixel_mask)
        return self.forward_head(self.norm(stages.after[-1]), mask=stages.mask)

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Make a new head for so many classes; 0: none, the model then returns features.

        Raises:
            ValueError: num_classes below 0; a global_pool other than "avg", the only one there is.
        """
        if num_classes < 0:
            raise ValueError(f"num_classes must be at least 0, got {num_classes}")
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool must be 'avg', got {global_pool!r}")
        self.head = make_head(self.num_features, num_classes)
        initialize(self.head, self.remember_classes(num_classes))
        self.head.to(self.norm.weight)

    def remember_classes(self, num_classes: int) -> float:
        """Write the number of classes down where ``save_pretrained`` finds it; return a head's initial deviation."""
        self.config: DinatConfig = replace(self.config, num_labels=num_classes, id2label=None)
        return self.config.initializer_range

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Channels and reduction of the map that each level leaves, before it is downsampled."""
        return [
            {"num_chs": dim, "reduction": 4 * 2**level, "module": f"{self.levels_name}.{level}"}
            for level, dim in enumerate(self.config.dims)
        ]

    def forward_intermediates(
        self,
        image: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Compute the maps that levels leave, before they are downsampled.

        Shapes:
            return: (the last map, normalised [B, X, Y, C]; the maps of the levels asked for [B, C, X, Y])
        Args:
            indices: numbers of levels; one number means so many from the end, None means all.
            norm: normalise the map of the last level, too.
            stop_early: taken for timm's sake; ``prune_intermediate_layers`` is what saves time.
            output_fmt: "NCHW" or "NHWC".
            intermediates_only: return the second of the two alone.
        Raises:
            ValueError: a level that does not exist, or another output_fmt.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt must be 'NCHW' or 'NHWC', got {output_fmt!r}")
        stages = self.encode(image)
        maps = list(stages.before)
        if norm:
            maps[-1] = self.norm(maps[-1])
        chosen = tuple(maps[index] for index in self._chosen(indices))
        intermediates = list(channels_first(chosen) if output_fmt == "NCHW" else chosen)
        return intermediates if intermediates_only else (self.norm(stages.after[-1]), intermediates)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] | None = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the levels behind the last one asked for, and what comes after; return the levels' numbers.

        Args:
            indices: as ``forward_intermediates``.
            prune_norm, prune_head: drop the last LayerNorm, the head.
        """
        chosen = self._chosen(indices)
        levels = self.get_submodule(self.levels_name)
        if isinstance(levels, nn.ModuleList):  # an isotropic model has one level, which stays
            del levels[max(chosen) + 1 :]
            assert isinstance(levels[-1], Level)
            levels[-1].downsample = None
        if prune_norm:
            self.norm = nn.Identity()  # type: ignore[assignment]
        if prune_head:
            self.head = nn.Identity()
        return chosen

    def _chosen(self, indices: int | Sequence[int] | None) -> list[int]:
        """Count levels from the front."""
        number = len(self.feature_info)
        if indices is None or isinstance(indices, int):
            indices = range(number) if indices is None else range(number - indices, number)
        if not indices or not all(-number <= index < number for index in indices):
            raise ValueError(f"indices must name some of {number} levels, got {list(indices)}")
        return [index % number for index in indices]

    def no_weight_decay(self) -> set[str]:
        """The parameters that weight decay leaves alone beside vectors: bias tables."""
        return {name for name, _ in self.named_parameters() if name.endswith("rpb")}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters into groups from the image to the head, a layer each (coarse: a level)."""
        level = rf"^{self.levels_name}\.(\d+)"
        layers = [(rf"{level}\.blocks\.(\d+)", None), (rf"{level}\.downsample", AFTER_THE_BLOCKS)]
        return {"stem": r"^patch_embed", "blocks": level if coarse else [*layers, (r"^norm", AFTER_THE_BLOCKS)]}

    @cached_property
    def pretrained_cfg(self) -> dict[str, Any]:
        """What timm keeps beside a model: its images and the names of its ends."""
        processor = self.image_processor or self.default_image_processor() or ImageProcessor()
        return {
            "url": "",
            "num_classes": self.num_classes,
            "input_size": (self.in_chans, processor.size, processor.size),
            "pool_size": None,
            "crop_pct": processor.crop_fraction or 1.0,
            "crop_mode": "squash" if processor.crop_fraction is None else "center",
            "interpolation": "bicubic",
            "mean": tuple(processor.mean),
            "std": tuple(processor.deviation),
            "first_conv": next(name for name, part in self.named_modules() if isinstance(part, nn.Conv2d)),
            "classifier": "head",
        }

    @cached_property
    def default_cfg(self) -> dict[str, Any]:
        """The older name of ``pretrained_cfg``."""
        return self.pretrained_cfg
