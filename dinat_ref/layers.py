"""Neighborhood attention as a layer: project to queries, keys and values, attend, project back."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dinat_ref.attention import neighborhood_attention, neighborhood_av, neighborhood_weights
from dinat_ref.attention.functional import check_impl
from dinat_ref.attention.operands import check_dense
from dinat_ref.neighborhood import Neighborhood, smallest_layout
from dinat_ref.rotary import check_rotary, rotate


class NeighborhoodAttention(nn.Module):
    """A multi-head neighborhood attention layer over ``ndim`` axes; use the 1D, 2D and 3D classes.

    Shapes:
        input and return: [B, *layout, embed_dim]
        qkv.weight [3 embed_dim, embed_dim], proj.weight [embed_dim, embed_dim], rpb [num_heads, 2k-1, ...]
    Args:
        embed_dim: channels of a token, a multiple of num_heads.
        num_heads: number of heads; head_dim = embed_dim / num_heads.
        kernel_size, stride, dilation, is_causal: as ``neighborhood_attention``.
        qkv_bias: give the qkv projection a bias.
        rpb: learn a relative positional bias.
        attn_drop: probability of dropping an attention weight, in training. The weights are then made explicit, and
            so they are, in evaluation too, where somebody watches: ``layer.attn_drop.register_forward_hook``.
        proj_drop: probability of dropping an output.
        scale: factor of the dot products; None means head_dim ** -0.5.
        rotary: turn queries and keys by their positions instead of learning a bias: the base of the angles, e.g.
            10000.0; None means no.
        impl: the formulation, see ``dinat_ref.attention.functional``.
        device, dtype: of the parameters.
    Raises:
        ValueError: embed_dim is not a multiple of num_heads; both rpb and rotary; when called, the input does not
            fit.
    Source: Hassani et al., arXiv:2204.07143, section 3; rotary: ``dinat_ref.rotary``.
    Example:
        >>> layer = NeighborhoodAttention2D(embed_dim=32, num_heads=4, kernel_size=3, dilation=2, rpb=True)
        >>> layer(torch.randn(1, 6, 7, 32)).shape
        torch.Size([1, 6, 7, 32])
    """

    ndim: int

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        is_causal: bool | Sequence[bool] = False,
        qkv_bias: bool = True,
        rpb: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        *,
        scale: float | None = None,
        rotary: float | None = None,
        impl: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the parameters and initialise them."""
        super().__init__()
        if num_heads < 1 or embed_dim < 1 or embed_dim % num_heads:
            raise ValueError(f"embed_dim must be a positive multiple of num_heads, got {embed_dim} and {num_heads}")
        check_impl(impl)
        if rotary is not None:
            check_rotary(embed_dim // num_heads, self.ndim, rotary)
            if rpb:
                raise ValueError("rotary takes the place of rpb: only one of them may be given")
        self.embed_dim, self.num_heads, self.scale, self.impl = embed_dim, num_heads, scale, impl
        self.rotary = rotary
        self.operator: Callable[..., Any] | None = None  # in place of ``neighborhood_attention``
        smallest = smallest_layout(kernel_size, dilation, self.ndim)
        neighborhood = Neighborhood(smallest, kernel_size, stride, dilation, is_causal)  # checks the arguments
        self.kernel_size, self.stride = neighborhood.kernel_size, neighborhood.stride
        self.dilation, self.is_causal = neighborhood.dilation, neighborhood.is_causal

        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=qkv_bias, device=device, dtype=dtype)
        self.proj = nn.Linear(embed_dim, embed_dim, device=device, dtype=dtype)
        self.rpb: nn.Parameter | None = None
        if rpb:
            offsets = [2 * size - 1 for size in self.kernel_size]
            self.rpb = nn.Parameter(torch.empty(num_heads, *offsets, device=device, dtype=dtype))
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj_drop = nn.Dropout(proj_drop)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and rpb from a normal distribution of deviation 0.02, cut at +-2; biases are zero."""
        for linear in (self.qkv, self.proj):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        if self.rpb is not None:
            nn.init.trunc_normal_(self.rpb, std=0.02)

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Attend: [B, *layout, embed_dim] -> [B, *layout, embed_dim].

        Args:
            key_mask: bool [B, *layout], True where a token may be attended; None: everywhere. Windows do not move
                to make up for masked tokens, and a window of such tokens alone gives zeros.
        Raises:
            TypeError, ValueError: a key_mask of another dtype or shape.
        """
        return self._finish(self._attend(*self._project(x), self.dilation, key_mask))

    def attention_weights(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Compute the weights that ``forward`` uses, before any are dropped: [B, *layout, num_heads, keys]."""
        query, key, _ = self._project(x)
        return self._weights(query, key, self.dilation, key_mask)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make queries, keys and values of tokens: each [B, *layout, H, D]."""
        check_dense("input", x)
        if x.ndim != self.ndim + 2 or x.shape[-1] != self.embed_dim:
            expected = f"[batch, {self.ndim} axes, {self.embed_dim}]"
            raise ValueError(f"input must be {expected}, got {tuple(x.shape)}")
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        if self.rotary is not None:
            query, key = rotate(query, self.rotary), rotate(key, self.rotary)
        return query, key, value

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, dilation: tuple[int, ...], key_mask: Tensor | None
    ) -> Tensor:
        """Attend in one call, but through explicit weights where some are dropped, or a hook watches."""
        drops = self.training and self.attn_drop.p > 0
        if drops or self.attn_drop._forward_hooks:
            return self._sum(self.attn_drop(self._weights(query, key, dilation, key_mask)), value, dilation)
        where = (self.kernel_size, self.stride, dilation, self.is_causal)
        options: dict[str, Any] = {"rpb": self.rpb, "key_mask": key_mask, "impl": self.impl}
        attend = neighborhood_attention if self.operator is None else self.operator
        output = attend(query, key, value, *where, self.scale, **options)
        assert isinstance(output, Tensor)
        return output

    def _weights(self, query: Tensor, key: Tensor, dilation: tuple[int, ...], key_mask: Tensor | None) -> Tensor:
        """Compute the softmax weights: [B, *layout, H, K]; all are zero where every key of a window is masked."""
        where = (self.kernel_size, self.stride, dilation, self.is_causal)
        return neighborhood_weights(query, key, *where, self.scale, rpb=self.rpb, key_mask=key_mask)

    def _sum(self, weights: Tensor, value: Tensor, dilation: tuple[int, ...]) -> Tensor:
        """Sum the values with their weights: [B, *layout, H, D]."""
        return neighborhood_av(weights, value, self.kernel_size, self.stride, dilation, self.is_causal)

    def _finish(self, output: Tensor) -> Tensor:
        """Project back: [B, *layout, H, D] -> [B, *layout, embed_dim]."""
        return self.proj_drop(self.proj(output.flatten(-2)))

    def extra_repr(self) -> str:
        """The arguments, as ``print(layer)`` shows them."""
        text = f"{self.embed_dim}, num_heads={self.num_heads}, kernel_size={self.kernel_size}"
        for name, default in (("stride", 1), ("dilation", 1), ("is_causal", False)):
            if any(value != default for value in getattr(self, name)):
                text += f", {name}={getattr(self, name)}"
        position = f"rpb={self.rpb is not None}" if self.rotary is None else f"rotary={self.rotary}"
        return f"{text}, {position}" + (f", impl={self.impl!r}" if self.impl != "auto" else "")


class NeighborhoodAttention1D(NeighborhoodAttention):
    """Neighborhood attention over sequences.

    Shapes:
        input and return: [B, X, embed_dim]
    Args:
        As ``NeighborhoodAttention``.
    Raises:
        ValueError: embed_dim is not a multiple of num_heads; when called, the input does not fit.
    Source: Hassani et al., arXiv:2204.07143, section 3.
    Example:
        >>> NeighborhoodAttention1D(32, num_heads=4, kernel_size=5, is_causal=True)(torch.randn(2, 9, 32)).shape
        torch.Size([2, 9, 32])
    """

    ndim = 1


class NeighborhoodAttention2D(NeighborhoodAttention):
    """Neighborhood attention over feature maps, the layer of NAT and DiNAT.

    Shapes:
        input and return: [B, X, Y, embed_dim]
    Args:
        As ``NeighborhoodAttention``.
    Raises:
        ValueError: embed_dim is not a multiple of num_heads; when called, the input does not fit.
    Source: Hassani et al., arXiv:2204.07143, section 3; dilation: arXiv:2209.15001.
    Example:
        >>> NeighborhoodAttention2D(32, num_heads=4, kernel_size=(3, 5))(torch.randn(2, 6, 7, 32)).shape
        torch.Size([2, 6, 7, 32])
    """

    ndim = 2


class NeighborhoodAttention3D(NeighborhoodAttention):
    """Neighborhood attention over video and volumes.

    Shapes:
        input and return: [B, X, Y, Z, embed_dim]
    Args:
        As ``NeighborhoodAttention``.
    Raises:
        ValueError: embed_dim is not a multiple of num_heads; when called, the input does not fit.
    Source: Hassani et al., arXiv:2204.07143, section 3; the argument order of NATTEN.
    Example:
        >>> NeighborhoodAttention3D(32, num_heads=4, kernel_size=3)(torch.randn(1, 4, 5, 6, 32)).shape
        torch.Size([1, 4, 5, 6, 32])
    """

    ndim = 3
