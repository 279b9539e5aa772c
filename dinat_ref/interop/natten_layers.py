"""What NATTEN's layers of all releases share; their orders of arguments are in ``natten_releases``.

The parameters are qkv, proj and rpb in all of them. A name means one thing only, but a positional True
is ``bias`` to NATTEN 0.15 and ``is_causal`` to 0.17: where it would be the latter, it is refused.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from dinat_ref.attention import neighborhood_attention, neighborhood_av, neighborhood_weights
from dinat_ref.interop.natten_flops import counted
from dinat_ref.interop.natten_utils import default
from dinat_ref.layers import NeighborhoodAttention
from dinat_ref.neighborhood import per_axis

PerAxis = int | Sequence[int] | None
ADVICE = "code written for NATTEN 0.14 or 0.15 needs install_as_natten('0.15') or `dinat-ref run --natten 0.15`"

attend = counted(halves=2)(neighborhood_attention)


class Layer(NeighborhoodAttention):
    """A layer as NATTEN's: None means the default, as 0 does for qk_scale; pickles of NATTEN's own are read.

    Shapes:
        input and return: [B, *layout, embed_dim]
    Args:
        bias: learn a relative positional bias, the parameter rpb.
        qk_scale: factor of the dot products; None and 0 mean head_dim ** -0.5.
        Others as ``NeighborhoodAttention``.
    Raises:
        ValueError: as ``NeighborhoodAttention``.
    Source: NATTEN 0.14.4 to 0.21.7.
    Example:
        >>> class Layer2D(Layer):
        ...     ndim = 2
        >>> layer = Layer2D(32, 4, 3, dilation=None)
        >>> layer.dilation, layer.head_dim, layer.scale == 8 ** -0.5
        ((1, 1), 8, True)
    """

    kernel_size: Any
    dilation: Any

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        kernel_size: int | Sequence[int],
        stride: PerAxis = 1,
        dilation: PerAxis = 1,
        is_causal: bool | Sequence[bool] | None = False,
        qkv_bias: bool = True,
        bias: bool = False,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        """Make the parameters."""
        where = (kernel_size, default(stride, 1), default(dilation, 1), default(is_causal, False))
        super().__init__(embed_dim, num_heads, *where, bool(qkv_bias), bool(bias), attn_drop, proj_drop)
        self.head_dim = embed_dim // num_heads
        self.scale: float = qk_scale or self.head_dim**-0.5

    def window(self) -> tuple[Any, Any, Any, Any]:
        """What the operator takes: kernel_size, stride, dilation and is_causal."""
        return self.kernel_size, self.stride, self.dilation, self.is_causal

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # NATTEN's layers take no mask
        """Attend: [B, *layout, embed_dim] -> [B, *layout, embed_dim]."""
        if x.ndim != self.ndim + 2 or x.shape[-1] != self.embed_dim:
            raise ValueError(f"input must be [batch, {self.ndim} axes, {self.embed_dim}], got {tuple(x.shape)}")
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)  # each [B, *layout, H, D]
        if self.training and self.attn_drop.p > 0:
            weights = neighborhood_weights(query, key, *self.window(), self.scale, rpb=self.rpb)  # [B, *layout, H, K]
            output = neighborhood_av(self.attn_drop(weights), value, *self.window())
        else:
            attended = attend(query, key, value, *self.window(), self.scale, rpb=self.rpb, impl=self.impl)
            assert isinstance(attended, Tensor)
            output = attended
        return self.proj_drop(self.proj(output.flatten(-2)))

    def extra_repr(self) -> str:
        """The arguments, as ``print(layer)`` shows them."""
        names = ("head_dim", "num_heads", "kernel_size", "stride", "dilation", "is_causal")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names) + f", rpb={self.rpb is not None}"

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Read a pickle; one that NATTEN itself wrote lacks what only this class has."""
        heads = state["num_heads"] * state["head_dim"]
        own = {"embed_dim": heads, "impl": "auto", "stride": (1,) * self.ndim, "is_causal": (False,) * self.ndim}
        super().__setstate__(own | state)  # type: ignore[no-untyped-call]
        if not hasattr(self, "attn_drop"):
            self.attn_drop = nn.Dropout(0.0)
        if not hasattr(self, "rpb"):
            self.register_parameter("rpb", None)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Say what a loader that is not strict would drop without a word."""
        if self.rpb is None and f"{prefix}rpb" in state_dict:
            text = f"{prefix}rpb is in the weights, and this layer was made without relative positional bias: {ADVICE}"
            warnings.warn(text, stacklevel=2)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class PaddedLayer(Layer):
    """A layer as those of NATTEN 0.14 and 0.15: maps smaller than a window are padded with zeros behind, then cut.

    What is padded is attended like any token. kernel_size, dilation and window_size are numbers: the last axis's.

    Shapes:
        input and return: [B, *layout, embed_dim]
    Args:
        As ``Layer``.
    Raises:
        ValueError: as ``NeighborhoodAttention``.
    Source: NATTEN 0.14.4 to 0.15.1.
    Example:
        >>> import torch
        >>> class Layer1D(PaddedLayer):
        ...     ndim = 1
        >>> layer = Layer1D(32, 4, 7, dilation=2)
        >>> layer(torch.randn(1, 10, 32)).shape, layer.window_size
        (torch.Size([1, 10, 32]), 14)
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Make the parameters."""
        super().__init__(*arguments, **named)
        self.kernel_size, self.dilation = self.kernel_size[-1], self.dilation[-1]

    def window(self) -> tuple[Any, Any, Any, Any]:
        """As in ``Layer``."""
        return self.kernel_size, 1, self.dilation, False

    @property
    def window_size(self) -> int:
        """How many tokens a window reaches over."""
        return int(self.kernel_size * self.dilation)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # NATTEN's layers take no mask
        """Attend: [B, *layout, embed_dim] -> [B, *layout, embed_dim]."""
        layout = x.shape[1:-1]
        if len(layout) != self.ndim:
            return super().forward(x)  # which refuses it
        sizes, _, steps, _ = (per_axis("window", value, layout) for value in self.window())
        missing = [max(0, size * step - length) for size, step, length in zip(sizes, steps, layout, strict=True)]
        behind = [amount for count in reversed(missing) for amount in (0, count)]  # the last axis comes first
        output = super().forward(nn.functional.pad(x, (0, 0, *behind)) if any(missing) else x)
        return output[(slice(None), *(slice(length) for length in layout))] if any(missing) else output


def refuse_positional_true(place: int, meaning: str, other: str) -> Callable[[Any], Any]:
    """Decorate an ``__init__``: a True in a place that means something else to another release must be named.

    Raises:
        TypeError: when called with a positional True there.
    Example:
        >>> @refuse_positional_true(1, "is_causal", "bias")
        ... def init(self, dim, is_causal=False): ...
        >>> init(None, 32, True)
        Traceback (most recent call last):
        TypeError: a positional True is is_causal in this release of NATTEN and bias in another: pass it by name...
    """

    def decorate(init: Any) -> Any:
        @functools.wraps(init)
        def checked(self: Any, *arguments: Any, **named: Any) -> None:
            if len(arguments) > place and arguments[place] is True:
                text = (
                    f"a positional True is {meaning} in this release of NATTEN and {other} in another: pass it by name"
                )
                raise TypeError(f"{text} ({ADVICE})")
            init(self, *arguments, **named)

        return checked

    return decorate
