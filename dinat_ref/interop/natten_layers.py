"""NATTEN's layers, with the argument orders of 0.21 and of 0.17; the parameters are qkv, proj and rpb in both."""

from collections.abc import Sequence

from dinat_ref.layers import NeighborhoodAttention


class Layer021(NeighborhoodAttention):
    """A neighborhood attention layer with the arguments of NATTEN 0.21's; use the 1D, 2D and 3D classes.

    Shapes:
        input and return: [B, *layout, embed_dim]
    Args:
        qk_scale: factor of the dot products; None means head_dim ** -0.5.
        Others as ``NeighborhoodAttention``.
    Raises:
        ValueError: as ``NeighborhoodAttention``.
    Source: NATTEN 0.21.7.
    Example:
        >>> import torch
        >>> _, NeighborhoodAttention2D, _ = LAYERS_021
        >>> NeighborhoodAttention2D(32, 4, (3, 5), 1, 2, False, True, 0.5)(torch.randn(1, 6, 10, 32)).shape
        torch.Size([1, 6, 10, 32])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        is_causal: bool | Sequence[bool] = False,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        proj_drop: float = 0.0,
    ) -> None:
        """Make the parameters."""
        where = (kernel_size, stride, dilation, is_causal)
        super().__init__(embed_dim, num_heads, *where, qkv_bias=qkv_bias, proj_drop=proj_drop, scale=qk_scale)


class Layer017(NeighborhoodAttention):
    """A neighborhood attention layer with the arguments of NATTEN 0.17's; use the 1D, 2D and 3D classes.

    Shapes:
        input and return: [B, *layout, dim]
    Args:
        rel_pos_bias: learn a relative positional bias, the parameter rpb.
        qk_scale: factor of the dot products; None means head_dim ** -0.5.
        Others as ``NeighborhoodAttention``.
    Raises:
        ValueError: as ``NeighborhoodAttention``.
    Source: NATTEN 0.17.5.
    Example:
        >>> import torch
        >>> _, NeighborhoodAttention2D, _ = LAYERS_017
        >>> layer = NeighborhoodAttention2D(32, 4, 3, 2, rel_pos_bias=True)
        >>> layer.dilation, layer.rpb.shape
        ((2, 2), torch.Size([4, 5, 5]))
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel_size: int | Sequence[int],
        dilation: int | Sequence[int] = 1,
        is_causal: bool | Sequence[bool] = False,
        rel_pos_bias: bool = False,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        """Make the parameters."""
        where = (kernel_size, 1, dilation, is_causal)
        super().__init__(dim, num_heads, *where, qkv_bias, rel_pos_bias, attn_drop, proj_drop, scale=qk_scale)


LAYERS_021 = tuple(type(f"NeighborhoodAttention{n}D", (Layer021,), {"ndim": n}) for n in (1, 2, 3))
LAYERS_017 = tuple(type(f"NeighborhoodAttention{n}D", (Layer017,), {"ndim": n}) for n in (1, 2, 3))
