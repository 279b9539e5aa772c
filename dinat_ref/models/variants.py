"""Every published variant, by name.

| family    | names                                          | what sets it apart                            |
|-----------|------------------------------------------------|-----------------------------------------------|
| NAT       | nat_mini, _tiny, _small, _base                 | dilation 1 everywhere                         |
| DiNAT     | dinat_mini, _tiny, _small, _base, _large, ...  | dilations 1, d, 1, d, ... in every level      |
| DiNAT_s   | dinat_s_tiny, _small, _base, _large, ...       | Swin's tokenizer and patch merging            |
| isotropic | nat_, dinat_isotropic_small, _base             | one resolution                                |
| ViT-rpb   | vitrpb_small, _base                            | the same with full attention                  |
"""

import difflib
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dinat_ref.models.config import DinatConfig
from dinat_ref.models.dinat import DiNAT
from dinat_ref.models.dinat_s import DiNATs
from dinat_ref.models.image_processor import ImageProcessor
from dinat_ref.models.isotropic import Isotropic
from dinat_ref.models.nano import NANO, nano_model
from dinat_ref.models.pretrained import Pretrained


@dataclass(frozen=True)
class Variant:
    """A published model: how to make it, and what its authors report of it.

    Args:
        image_size: pixels of a side of the images it was evaluated on.
        model: the class that makes it.
        settings: the fields of its configuration, or the arguments of an isotropic model.
        top1: its authors' ImageNet-1K accuracy in percent.
        hub_name: its name on the Hugging Face hub, where it has one.
    Source: Hassani et al., arXiv:2204.07143, table 1; Hassani & Shi, arXiv:2209.15001, tables 3, 4 and 9.
    Example:
        >>> VARIANTS["dinat_large_384"].hub_name, VARIANTS["dinat_large_384"].crop_fraction
        ('shi-labs/dinat-large-in22k-in1k-384', 1.0)
    """

    model: type[nn.Module]
    settings: dict[str, Any] = field(hash=False)
    top1: float
    image_size: int = 224
    hub_name: str | None = None

    @property
    def crop_fraction(self) -> float:
        """The part of the resized image that the authors' evaluation keeps: all of it at 384."""
        return 1.0 if self.image_size == 384 else 0.875


def _pyramid(
    dim: int, heads: int, depths: Sequence[int], dilated: Sequence[int] | None, **settings: Any
) -> dict[str, Any]:
    """Fill in a pyramid's settings; ``dilated`` is the dilation of every other layer of each level."""
    dilated = dilated or [1] * len(depths)
    dilations = [[d if layer % 2 else 1 for layer in range(depth)] for d, depth in zip(dilated, depths, strict=True)]
    num_heads = [heads * 2**level for level in range(len(depths))]
    return {"embed_dim": dim, "num_heads": num_heads, "depths": list(depths), "dilations": dilations, **settings}


MINI, TINY = (3, 4, 6, 5), (3, 4, 18, 5)  # layers of each level of NAT and DiNAT
S_TINY, S_SMALL = (2, 2, 6, 2), (2, 2, 18, 2)  # of DiNAT_s
AT_224, AT_384 = (8, 4, 2, 1), (13, 6, 3, 1)  # the largest dilation that fits each level, 7 x 7 windows


def _nat(name: str, *arguments: Any, top1: float, **settings: Any) -> dict[str, Variant]:
    hub_name = f"shi-labs/{name.replace('_', '-')}-in1k-224"
    return {name: Variant(DiNAT, _pyramid(*arguments, **settings), top1, hub_name=hub_name)}


def _large(
    name: str, image_size: int, dilated: Sequence[int], hub_name: str, top1: float, kernel_size: int = 7
) -> dict[str, Variant]:
    settings = _pyramid(192, 6, TINY, dilated, mlp_ratio=2.0, drop_path_rate=0.35, kernel_size=kernel_size)
    return {name: Variant(DiNAT, settings, top1, image_size, f"shi-labs/{hub_name}")}


def _dinat_s(name: str, *arguments: Any, top1: float, image_size: int = 224, **settings: Any) -> dict[str, Variant]:
    return {name: Variant(DiNATs, _pyramid(*arguments, mlp_ratio=4.0, **settings), top1, image_size)}


def _isotropic(name: str, dim: int, heads: int, rate: float, top1: float, **settings: Any) -> dict[str, Variant]:
    arguments = {"embed_dim": dim, "num_heads": heads, "drop_path_rate": rate, **settings}
    return {name: Variant(Isotropic, arguments, top1)}


VARIANTS: dict[str, Variant] = {
    **_nat("nat_mini", 64, 2, MINI, None, mlp_ratio=3.0, drop_path_rate=0.2, top1=81.8),
    **_nat("nat_tiny", 64, 2, TINY, None, mlp_ratio=3.0, drop_path_rate=0.2, top1=83.2),
    **_nat("nat_small", 96, 3, TINY, None, mlp_ratio=2.0, drop_path_rate=0.3, layer_scale_init_value=1e-5, top1=83.7),
    **_nat("nat_base", 128, 4, TINY, None, mlp_ratio=2.0, drop_path_rate=0.5, layer_scale_init_value=1e-5, top1=84.3),
    **_nat("dinat_mini", 64, 2, MINI, AT_224, mlp_ratio=3.0, drop_path_rate=0.2, top1=81.8),
    **_nat("dinat_tiny", 64, 2, TINY, AT_224, mlp_ratio=3.0, drop_path_rate=0.2, top1=82.7),
    **_nat("dinat_small", 96, 3, TINY, AT_224, mlp_ratio=2.0, drop_path_rate=0.3, top1=83.8),
    **_nat(
        "dinat_base", 128, 4, TINY, AT_224, mlp_ratio=2.0, drop_path_rate=0.5, layer_scale_init_value=1e-5, top1=84.4
    ),
    **_large("dinat_large", 224, AT_224, "dinat-large-in22k-in1k-224", top1=86.6),
    **_large("dinat_large_384", 384, AT_384, "dinat-large-in22k-in1k-384", top1=87.4),
    **_large("dinat_large_384_11x11", 384, AT_224, "dinat-large-11x11-in22k-in1k-384", top1=87.5, kernel_size=11),
    **_dinat_s("dinat_s_tiny", 96, 3, S_TINY, AT_224, drop_path_rate=0.2, top1=81.8),
    **_dinat_s("dinat_s_small", 96, 3, S_SMALL, AT_224, drop_path_rate=0.3, top1=83.5),
    **_dinat_s("dinat_s_base", 128, 4, S_SMALL, AT_224, drop_path_rate=0.5, top1=83.8),
    **_dinat_s("dinat_s_large", 192, 6, S_SMALL, AT_224, drop_path_rate=0.35, top1=86.5),
    **_dinat_s("dinat_s_large_384", 192, 6, S_SMALL, AT_384, drop_path_rate=0.35, top1=87.4, image_size=384),
    **_isotropic("nat_isotropic_small", 384, 12, 0.1, top1=80.0),
    **_isotropic("nat_isotropic_base", 768, 24, 0.4, top1=81.6),
    **_isotropic("dinat_isotropic_small", 384, 12, 0.1, top1=80.8, dilation=2),
    **_isotropic("dinat_isotropic_base", 768, 24, 0.4, top1=82.1, dilation=2),
    **_isotropic("vitrpb_small", 384, 12, 0.1, top1=81.2, full_attention=True),
    **_isotropic("vitrpb_base", 768, 24, 0.4, top1=82.5, full_attention=True),
}


def list_models(pattern: str = "*") -> list[str]:
    """List the names of the published variants that match a pattern with ``*`` and ``?``.

    Shapes:
        return: names in alphabetical order
    Source: the table at the top of this module.
    Example:
        >>> list_models("nat_*")
        ['nat_base', 'nat_isotropic_base', 'nat_isotropic_small', 'nat_mini', 'nat_small', 'nat_tiny']
    """
    return sorted(fnmatch.filter(VARIANTS, pattern))


def find_variant(name: str) -> Variant:
    """Look up a published variant.

    Raises:
        ValueError: no such name; the message lists the nearest ones.
    Source: the table at the top of this module.
    Example:
        >>> find_variant("dinat_base").top1
        84.4
        >>> find_variant("dinat-base")
        Traceback (most recent call last):
        ValueError: no model is called 'dinat-base'; the nearest names are dinat_base, dinat_s_base, nat_base
    """
    if name not in VARIANTS:
        nearest = difflib.get_close_matches(name, [*VARIANTS, *NANO], n=3)
        hint = f"the nearest names are {', '.join(nearest)}" if nearest else "list_models() lists the names"
        raise ValueError(f"no model is called {name!r}; {hint}")
    return VARIANTS[name]


def variant_config(name: str, **settings: Any) -> DinatConfig:
    """Give the configuration of a published NAT, DiNAT or DiNAT_s, with 1000 classes; settings override it.

    Raises:
        ValueError: no such name; an isotropic model, which has no such configuration.
    Source: Hassani & Shi, arXiv:2209.15001, table 2.
    Example:
        >>> variant_config("dinat_large_384_11x11").kernel_size
        11
    """
    variant = find_variant(name)
    if variant.model is Isotropic:
        raise ValueError(f"{name} is isotropic: it has no levels to configure")
    return DinatConfig(**{"num_labels": 1000, **variant.settings, **settings})


def create_model(
    name: str,
    num_classes: int | None = None,
    *,
    pretrained: bool = False,
    impl: str = "auto",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **settings: Any,
) -> nn.Module:
    """Make a published variant with random weights, or the trained nano model that comes with this package.

    Shapes:
        the model maps images [B, 3, H, W] to logits [B, num_classes]; dinat_nano_digits takes [B, 1, 32, 32]
    Args:
        name: one of ``list_models()``, or "dinat_nano_digits".
        num_classes: number of classes, None means the model's own (1000; 10 digits); 0 makes a model that returns
            features.
        pretrained: load the weights that come with this package. Published weights do not: load them with
            ``load_checkpoint`` or ``DinatForImageClassification.from_pretrained``.
        impl: the formulation of all layers, see ``dinat_ref.attention.functional``.
        device, dtype: of the parameters; "meta" makes a model without memory, to count with.
        settings: override the variant's own, e.g. kernel_size, dilations, in_chans or small_input.
    Raises:
        ValueError: no such name, settings outside their limits, or pretrained without weights in this package.
        TypeError: a setting that the model does not have.
    Source: Hassani et al., arXiv:2204.07143, table 1; Hassani & Shi, arXiv:2209.15001, tables 3, 4 and 9.
    Example:
        >>> model = create_model("dinat_mini", num_classes=1000, device="meta")
        >>> sum(parameter.numel() for parameter in model.parameters())
        19984174
    """
    with torch.device(device if device is not None else torch.get_default_device()):
        model = _make(name, num_classes, pretrained, settings)
    assert isinstance(model, Pretrained)
    model.set_impl(impl)
    return model if dtype is None else model.to(dtype)


def _make(name: str, num_classes: int | None, pretrained: bool, settings: dict[str, Any]) -> nn.Module:
    """Make a model by name on the default device."""
    if name in NANO:
        return nano_model(name, num_classes, pretrained=pretrained, **settings)
    variant = find_variant(name)
    if pretrained:
        where = (
            f"DinatForImageClassification.from_pretrained({variant.hub_name!r})"
            if variant.hub_name
            else "load_checkpoint"
        )
        raise ValueError(f"pretrained must be False: weights of {name} do not come with this package; use {where}")
    labels = {"num_labels": 1000 if num_classes is None else num_classes}
    if "in_chans" in settings:  # timm's name
        labels["num_channels"] = settings.pop("in_chans")
    if variant.model is Isotropic:
        return Isotropic(**{**variant.settings, **labels, **settings})
    model = variant.model(variant_config(name, **{**labels, **settings}))
    assert isinstance(model, Pretrained)
    if model.default_image_processor():
        model.image_processor = ImageProcessor(size=variant.image_size)
    return model
