"""The published models under ``timm.create_model``: one call, then timm's names, features and training script.

from dinat_ref.interop.timm import register
register()
model = timm.create_model("dinat_mini", num_classes=10, in_chans=1)
backbone = timm.create_model("dinat_tiny", features_only=True, out_indices=(1, 2, 3))
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from dinat_ref.models import create_model, list_models
from dinat_ref.models.isotropic import Isotropic
from dinat_ref.models.keys import to_original
from dinat_ref.models.optional import need
from dinat_ref.models.preprocess import DEVIATION, MEAN
from dinat_ref.models.variants import find_variant

OUR_NAMES = {  # what timm calls the settings of a model
    "drop_rate": "hidden_dropout_prob",
    "attn_drop_rate": "attention_probs_dropout_prob",
}
default_cfgs: dict[str, dict[str, Any]] = {}  # timm looks here for what it keeps beside each model


def register() -> list[str]:
    """Let timm make every model of ``list_models()``; safe to call again.

    Returns:
        The names that timm knows from now on; nothing the second time.
    Raises:
        ImportError: timm is missing.
    Source: timm's registry.
    Example:
        >>> import importlib.util
        >>> if importlib.util.find_spec("timm"):
        ...     names = register()
        ...     assert register() == []
    """
    timm = need("timm", "timm")
    names = [name for name in list_models() if name not in default_cfgs]
    for name in names:
        default_cfgs[name] = _default_cfg(name)
        timm.models.register_model(_entry_point(name))
    return names


def _default_cfg(name: str) -> dict[str, Any]:
    """Say where a model's weights are, and how the authors' evaluation prepares photographs."""
    variant = find_variant(name)
    isotropic = variant.model is Isotropic
    return {
        "hf_hub_id": variant.hub_name,
        "num_classes": 1000,
        "input_size": (3, variant.image_size, variant.image_size),
        "fixed_input_size": variant.settings.get("full_attention", False),
        "crop_pct": variant.crop_fraction,
        "interpolation": "bicubic",
        "mean": MEAN,
        "std": DEVIATION,
        "first_conv": "patch_embed.proj" if isotropic or name.startswith("dinat_s_") else "patch_embed.proj.0",
        "classifier": "head",
    }


def _entry_point(name: str) -> Callable[..., nn.Module]:
    """Make the function that timm calls for a model; it goes by the model's name."""

    def make(pretrained: bool = False, **settings: Any) -> nn.Module:
        model: nn.Module = need("timm", "timm").models.build_model_with_cfg(
            partial(_model, name),
            name,
            pretrained,
            feature_cfg={"out_indices": (0,) if find_variant(name).model is Isotropic else (0, 1, 2, 3)}
            | {"feature_cls": "getter"},
            pretrained_filter_fn=_own_spelling,
            **settings,
        )
        return model

    make.__name__ = make.__qualname__ = name
    return make


def _model(name: str, num_classes: int = 1000, global_pool: str = "avg", **settings: Any) -> nn.Module:
    """Make a model from timm's arguments."""
    if global_pool != "avg":
        raise ValueError(f"global_pool must be 'avg', got {global_pool!r}")
    size = settings.pop("img_size", None)  # models take any size, but for full attention, which is made for one
    if size is not None and find_variant(name).settings.get("full_attention"):
        settings["image_size"] = size if isinstance(size, int) else size[0]
    if find_variant(name).model is Isotropic:  # has no dropout but that of whole branches
        settings = {key: value for key, value in settings.items() if key not in OUR_NAMES or value}
    return create_model(name, num_classes, **{OUR_NAMES.get(key, key): value for key, value in settings.items()})


def _own_spelling(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Respell what the hub's files hold."""
    return to_original(state)
