"""Hugging Face's own Dinat on a current PyTorch: one call before ``from_pretrained``.

    from dinat_ref.interop.transformers import enable_dinat
    enable_dinat()
    model = transformers.DinatForImageClassification.from_pretrained("shi-labs/dinat-mini-in1k-224")

transformers' Dinat needs two functions that NATTEN no longer has, and its newer releases split the heads wrongly.
``enable_dinat`` provides the functions, then tries the attention layer on a small map and compares it with the
operator: only where they differ is the layer's ``forward`` replaced. The new one attends in one call, as fast as the
models of this package, unless somebody wants to see the weights or drops some of them.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from dinat_ref.attention import neighborhood_attention, neighborhood_av, neighborhood_weights
from dinat_ref.interop.natten import install_as_natten, is_natten_installed
from dinat_ref.interop.natten_legacy import natten2dav, natten2dqkrpb
from dinat_ref.models.optional import need

MODULE = "transformers.models.dinat.modeling_dinat"
FUNCTIONS = {"natten2dqkrpb": natten2dqkrpb, "natten2dav": natten2dav}


def enable_dinat() -> list[str]:
    """Make transformers' Dinat work in this process; safe to call again.

    Returns:
        What had to be done, in words; nothing the second time.
    Raises:
        ImportError: transformers is missing, or has no Dinat.
        RuntimeError: the attention layer differs from the operator even with its heads repaired.
    Source: transformers' Dinat; tried with releases 4.40.2, 4.53.3, 4.57.1 and 5.23.0.
    Example:
        >>> import importlib.util
        >>> from dinat_ref.interop.natten import remove_natten
        >>> if importlib.util.find_spec("transformers"):
        ...     done = enable_dinat()  # e.g. ["provided natten", "replaced the forward of ..."]
        ...     assert enable_dinat() == []
        ...     remove_natten()
    """
    need("transformers", "hf")
    done = _provide_natten()
    dinat = importlib.import_module(MODULE)
    done += _provide_functions(dinat)
    if not _attends_rightly(dinat):
        dinat.NeighborhoodAttention.forward = _forward
        done.append("replaced the forward of NeighborhoodAttention, which splits the heads wrongly")
        if not _attends_rightly(dinat):
            raise RuntimeError("this release's Dinat is not neighborhood attention even with its heads repaired")
    return done


def _provide_natten() -> list[str]:
    """Let transformers find a NATTEN with the two functions it imports."""
    if not is_natten_installed():
        done = [] if "natten" in sys.modules else ["provided natten"]
        if done:
            install_as_natten()
    else:
        functional = importlib.import_module("natten.functional")
        missing = [name for name in FUNCTIONS if not hasattr(functional, name)]
        for name in missing:
            setattr(functional, name, FUNCTIONS[name])
        done = [f"lent {' and '.join(missing)} to the NATTEN installed"] if missing else []
    imports = importlib.import_module("transformers.utils.import_utils")
    if hasattr(imports.is_natten_available, "cache_clear"):  # it may have looked before there was one
        imports.is_natten_available.cache_clear()
    elif hasattr(imports, "_natten_available"):  # releases of 2025 and before looked once, when they were imported
        imports._natten_available = True  # type: ignore[attr-defined]
    return done


def _provide_functions(dinat: ModuleType) -> list[str]:
    """Replace the placeholders of a Dinat that was imported before there was a natten."""
    missing = [name for name in FUNCTIONS if getattr(dinat, name).__module__ == MODULE]
    for name in missing:
        setattr(dinat, name, FUNCTIONS[name])
    return [f"replaced the placeholders of {' and '.join(missing)}"] if missing else []


def _attends_rightly(dinat: ModuleType) -> bool:
    """Try the attention layer on a map of 4 x 5 tokens with 3 heads, and compare it with the operator."""
    config = dinat.DinatConfig(embed_dim=6, depths=[1], num_heads=[3], kernel_size=3, dilations=[[1]])
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        layer = dinat.NeighborhoodAttention(config, dim=6, num_heads=3, kernel_size=3, dilation=1).float().eval()
        for parameter in layer.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        x = torch.randn(2, 4, 5, 6, generator=generator)
        query, key, value = (part(x).unflatten(-1, (3, 2)) for part in (layer.query, layer.key, layer.value))
        expected = neighborhood_attention(query, key, value, kernel_size=3, rpb=layer.rpb)
        assert isinstance(expected, Tensor)
        try:
            output = layer(x)[0]
        except (RuntimeError, ValueError, IndexError):  # wrongly split heads do not even fit the bias
            return False
    expected = expected.flatten(-2)
    return output.shape == expected.shape and bool((output - expected).abs().max() < 1e-4)


def _forward(
    self: Any, hidden_states: Tensor, output_attentions: bool | None = False, *_: Any, **__: Any
) -> tuple[Tensor, ...]:
    """Attend in one call; with weights made explicit where somebody wants to see them or they are dropped."""
    query, key, value = (  # [B, X, Y, H, D] each
        part(hidden_states).unflatten(-1, (self.num_attention_heads, self.attention_head_size))
        for part in (self.query, self.key, self.value)
    )
    where = {"kernel_size": self.kernel_size, "dilation": self.dilation}
    if not output_attentions and not (self.training and self.dropout.p > 0):
        attended = neighborhood_attention(query, key, value, **where, rpb=self.rpb)
        assert isinstance(attended, Tensor)
        return (attended.flatten(-2),)
    weights = self.dropout(neighborhood_weights(query, key, **where, rpb=self.rpb)).movedim(-2, 1)  # [B, H, X, Y, K]
    output = neighborhood_av(weights.movedim(1, -2), value, **where).flatten(
        -2
    )  # through what is shown: it has gradients
    return (output, weights) if output_attentions else (output,)
