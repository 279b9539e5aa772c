"""NATTEN 0.15.1: bias in functions of its own, additional keys, three axes with kernel_size_d before kernel_size."""

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from dinat_ref.interop import natten_legacy
from dinat_ref.interop.natten_autograd import behind_apply
from dinat_ref.interop.natten_layers import PaddedLayer
from dinat_ref.interop.natten_legacy import PerAxis, of_axes, scores, weighted_values
from dinat_ref.interop.natten_releases import v0_14_6


class NeighborhoodAttention1D(v0_14_6.NeighborhoodAttention1D):
    """Neighborhood attention over sequences."""


class NeighborhoodAttention2D(v0_14_6.NeighborhoodAttention2D):
    """Neighborhood attention over feature maps."""


class NeighborhoodAttention3D(PaddedLayer):
    """Neighborhood attention over video; kernel_size_d and dilation_d are for frames, None means as for the rest."""

    ndim = 3

    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel_size: int,
        kernel_size_d: int | None = None,
        dilation: int | None = 1,
        dilation_d: int | None = None,
        bias: bool = True,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        """Make the parameters."""
        sizes = (kernel_size_d or kernel_size, kernel_size, kernel_size)
        steps = (dilation_d or dilation or 1, dilation or 1, dilation or 1)
        super().__init__(dim, num_heads, sizes, 1, steps, False, qkv_bias, bias, qk_scale, attn_drop, proj_drop)
        self.kernel_size_d, self.dilation_d = sizes[0], steps[0]

    def window(self) -> tuple[Any, Any, Any, Any]:
        """As in ``Layer``."""
        sizes = (self.kernel_size_d, self.kernel_size, self.kernel_size)
        return sizes, 1, (self.dilation_d, self.dilation, self.dilation), False


def _qk(
    query: Tensor, key: Tensor, kernel_size: int, dilation: PerAxis, additional_keys: Tensor | None = None
) -> Tensor:
    """Compute raw scores, for any number of axes: query and key [B, H, *layout, D]."""
    return scores(query, key, kernel_size, dilation, additional_keys)


def _qk_with_bias(
    query: Tensor,
    key: Tensor,
    bias: Tensor | None,
    kernel_size: int,
    dilation: PerAxis,
    additional_keys: Tensor | None = None,
) -> Tensor:
    """Compute raw scores with relative positional bias, for any number of axes: query and key [B, H, *layout, D]."""
    return scores(query, key, kernel_size, dilation, additional_keys, rpb=bias)


def _av(
    attn: Tensor, value: Tensor, kernel_size: int, dilation: PerAxis, additional_values: Tensor | None = None
) -> Tensor:
    """Sum values with weights [B, H, *layout, K], for any number of axes: value [B, H, *layout, D]."""
    return weighted_values(attn, value, kernel_size, dilation, additional_values)


def _qk3d(
    query: Tensor,
    key: Tensor,
    kernel_size_d: int,
    kernel_size: int,
    dilation_d: int,
    dilation: int,
    additional_keys: Tensor | None = None,
) -> Tensor:
    """Compute raw scores over three axes: query and key [B, H, X, Y, Z, D]."""
    where = ((kernel_size_d, kernel_size, kernel_size), (dilation_d, dilation, dilation))
    return scores(query, key, *where, additional_keys)


def _qk3d_with_bias(
    query: Tensor,
    key: Tensor,
    bias: Tensor | None,
    kernel_size_d: int,
    kernel_size: int,
    dilation_d: int,
    dilation: int,
    additional_keys: Tensor | None = None,
) -> Tensor:
    """Compute raw scores with relative positional bias over three axes: query and key [B, H, X, Y, Z, D]."""
    where = ((kernel_size_d, kernel_size, kernel_size), (dilation_d, dilation, dilation))
    return scores(query, key, *where, additional_keys, rpb=bias)


def _av3d(
    attn: Tensor,
    value: Tensor,
    kernel_size_d: int,
    kernel_size: int,
    dilation_d: int,
    dilation: int,
    additional_values: Tensor | None = None,
) -> Tensor:
    """Sum values with weights [B, H, X, Y, Z, K] over three axes: value [B, H, X, Y, Z, D]."""
    where = ((kernel_size_d, kernel_size, kernel_size), (dilation_d, dilation, dilation))
    return weighted_values(attn, value, *where, additional_values)


def _qk3drpb(
    query: Tensor,
    key: Tensor,
    rpb: Tensor | None,
    kernel_size_d: int,
    kernel_size: int,
    dilation_d: int,
    dilation: int,
) -> Tensor:
    """Compute raw scores with relative positional bias over three axes: query and key [B, H, X, Y, Z, D]."""
    return _qk3d_with_bias(query, key, rpb, kernel_size_d, kernel_size, dilation_d, dilation)


na1d_qk, na2d_qk, na3d_qk = (of_axes(_qk3d if n == 3 else _qk, f"na{n}d_qk", n) for n in (1, 2, 3))
na1d_av, na2d_av, na3d_av = (of_axes(_av3d if n == 3 else _av, f"na{n}d_av", n) for n in (1, 2, 3))
na1d_qk_with_bias, na2d_qk_with_bias = (of_axes(_qk_with_bias, f"na{n}d_qk_with_bias", n) for n in (1, 2))
na3d_qk_with_bias = of_axes(_qk3d_with_bias, "na3d_qk_with_bias", 3)


def _or_short(function: Callable[..., Tensor], short: Callable[..., Tensor], numbers: int) -> Callable[..., Tensor]:
    """Let a function of three axes be called as those of one and two are: fewer numbers are for all axes."""

    @functools.wraps(function)
    def either(*arguments: Any, **named: Any) -> Tensor:
        chosen = short if len(arguments) + len(named) == numbers else function
        return chosen(*arguments, **named)

    return either


natten3dqkrpb = _or_short(of_axes(_qk3drpb, "natten3dqkrpb", 3), natten_legacy.natten3dqkrpb, 5)
natten3dqk = _or_short(na3d_qk, natten_legacy.natten3dqk, 4)
natten3dav = _or_short(na3d_av, natten_legacy.natten3dav, 4)
natten1dqk, natten2dqk, natten1dav, natten2dav = na1d_qk, na2d_qk, na1d_av, na2d_av


def _apply_qk(
    query: Tensor,
    key: Tensor,
    bias: Tensor | None,
    additional_key: Tensor | None,
    kernel_size: int,
    dilation: int,
) -> Tensor:
    return scores(query, key, kernel_size, dilation, additional_key, rpb=bias)


def _apply_av(attn: Tensor, value: Tensor, additional_value: Tensor | None, kernel_size: int, dilation: int) -> Tensor:
    return weighted_values(attn, value, kernel_size, dilation, additional_value)


def _apply_qk3d(
    query: Tensor,
    key: Tensor,
    bias: Tensor | None,
    additional_key: Tensor | None,
    kernel_size_d: int,
    kernel_size: int,
    dilation_d: int,
    dilation: int,
) -> Tensor:
    return _qk3d_with_bias(query, key, bias, kernel_size_d, kernel_size, dilation_d, dilation, additional_key)


def _apply_av3d(
    attn: Tensor,
    value: Tensor,
    additional_value: Tensor | None,
    kernel_size_d: int,
    kernel_size: int,
    dilation_d: int,
    dilation: int,
) -> Tensor:
    return _av3d(attn, value, kernel_size_d, kernel_size, dilation_d, dilation, additional_value)


NeighborhoodAttention1DQKAutogradFunction = behind_apply("NeighborhoodAttention1DQKAutogradFunction", _apply_qk)
NeighborhoodAttention2DQKAutogradFunction = behind_apply("NeighborhoodAttention2DQKAutogradFunction", _apply_qk)
NeighborhoodAttention3DQKAutogradFunction = behind_apply("NeighborhoodAttention3DQKAutogradFunction", _apply_qk3d)
NeighborhoodAttention1DAVAutogradFunction = behind_apply("NeighborhoodAttention1DAVAutogradFunction", _apply_av)
NeighborhoodAttention2DAVAutogradFunction = behind_apply("NeighborhoodAttention2DAVAutogradFunction", _apply_av)
NeighborhoodAttention3DAVAutogradFunction = behind_apply("NeighborhoodAttention3DAVAutogradFunction", _apply_av3d)
