"""The layer all the models are made of: window attention and an MLP, each added to what came in.

    x = x + drop_path(gamma1 * attn(norm1(x)))
    x = x + drop_path(gamma2 * mlp(norm2(x)))

Between modules every tensor is [B, X, Y, C]: batch, rows, columns, channels. Parameter names are those of the
original repository, so its files load as they are.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from dinat_ref.layers import NeighborhoodAttention2D

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "swish": nn.SiLU}


class WindowAttention(NeighborhoodAttention2D):
    """Neighborhood attention with relative positional bias that also takes maps smaller than its window.

    Shapes:
        input and return: [B, X, Y, embed_dim]
        qkv.weight [3 embed_dim, embed_dim], proj.weight [embed_dim, embed_dim], rpb [num_heads, 2k-1, 2k-1]
    Args:
        small_input: "pad", "raise" or "clamp", see ``dinat_ref.models.config``.
        Others as ``NeighborhoodAttention2D``.
    Raises:
        ValueError: the map is too small, with small_input "raise"; smaller than the kernel itself, with "clamp".
    Source: Hassani & Shi, arXiv:2209.15001, section 3; padding: the published models' code.
    Example:
        >>> layer = WindowAttention(32, num_heads=1, kernel_size=7, dilation=2, small_input="pad")
        >>> layer(torch.randn(1, 9, 20, 32)).shape  # 9 < 7 * 2 rows: padded to 14, then cropped
        torch.Size([1, 9, 20, 32])
        >>> layer.attention_weights(torch.randn(1, 9, 20, 32)).shape  # of the padded map
        torch.Size([1, 14, 20, 1, 49])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        kernel_size: int | Sequence[int],
        dilation: int | Sequence[int] = 1,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        small_input: str = "pad",
    ) -> None:
        """Make the parameters of a layer with relative positional bias."""
        super().__init__(
            embed_dim,
            num_heads,
            kernel_size,
            dilation=dilation,
            qkv_bias=qkv_bias,
            rpb=True,
            attn_drop=attn_drop,
            proj_drop=proj_drop,
        )
        self.small_input = small_input

    def reset_parameters(self) -> None:
        """Draw the bias table; ``initialize`` draws a whole model's projections, so they are not drawn twice."""
        if self.rpb is not None:
            nn.init.trunc_normal_(self.rpb, std=0.02)

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Attend: [B, X, Y, embed_dim] -> [B, X, Y, embed_dim]; key_mask as ``NeighborhoodAttention``."""
        padded, key_mask, dilation = self._fit(x, key_mask)
        return self._finish(_cropped(self._attend(*self._project(padded), dilation, key_mask), x))

    def with_weights(self, x: Tensor, key_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attend through weights that are returned, too: [B, heads, X', Y', kx * ky], padded tokens included."""
        padded, key_mask, dilation = self._fit(x, key_mask)
        query, key, value = self._project(padded)
        weights = self.attn_drop(self._weights(query, key, dilation, key_mask)).movedim(-2, 1)  # as transformers shows
        output = self._sum(weights.movedim(1, -2), value, dilation)
        return self._finish(_cropped(output, x)), weights

    def attention_weights(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Compute the weights that ``forward`` uses: [B, X', Y', heads, kx * ky], padded tokens included."""
        padded, key_mask, dilation = self._fit(x, key_mask)
        query, key, _ = self._project(padded)
        return self._weights(query, key, dilation, key_mask)

    def _fit(self, x: Tensor, key_mask: Tensor | None) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """Make the map and the window fit each other: the map [B, X', Y', C], its mask [B, X', Y'], the dilation."""
        layout, dilation = x.shape[1:3], self.dilation
        if self.small_input == "clamp":
            limits = [max(length // size, 1) for length, size in zip(layout, self.kernel_size, strict=True)]
            dilation = tuple(min(d, limit) for d, limit in zip(dilation, limits, strict=True))
        elif self.small_input == "pad":
            reach = [size * d for size, d in zip(self.kernel_size, dilation, strict=True)]
            # a size is a number, a symbol of torch.export, or, inside torch.jit.trace, a tensor
            sizes = [size if isinstance(size, torch.SymInt) else int(size) for size in layout]
            rows, columns = (torch.sym_max(least - size, 0) for size, least in zip(sizes, reach, strict=True))
            if not (known_zero(rows) and known_zero(columns)):
                x = pad(x, (0, 0, 0, columns, 0, rows))  # [B, X', Y', C]
                if key_mask is not None:  # padded tokens take part, as without a mask
                    key_mask = pad(key_mask, (0, columns, 0, rows), value=True)  # [B, X', Y']
        return x, key_mask, dilation


def _cropped(output: Tensor, x: Tensor) -> Tensor:
    """Drop padded tokens: [B, X', Y', ...] -> [B, X, Y, ...]."""
    for axis, size in enumerate(x.shape[1:3], start=1):
        if isinstance(size, torch.SymInt) and not known_zero(output.shape[axis] - size):
            output = output.index_select(axis, torch.arange(size, device=x.device))  # a slice may be one or not
        else:
            output = output.narrow(axis, 0, size)
    return output


def known_zero(size: int | torch.SymInt) -> bool:
    """Whether a size is zero; of a symbol: for all its values.

    Example:
        >>> known_zero(0), known_zero(2)
        (True, False)
    """
    return bool(size == 0) if isinstance(size, int) else statically_known_true(size == 0)


class DropPath(nn.Module):
    """Skip a branch for some samples of a batch, in training; scale up what is kept so that the mean stays.

    Shapes:
        input and return: [B, ...]
    Args:
        rate: probability of skipping.
    Raises:
        ValueError: the rate is outside 0 <= rate < 1.
    Source: Huang et al., arXiv:1603.09382.
    Example:
        >>> DropPath(0.5).eval()(torch.ones(3))
        tensor([1., 1., 1.])
    """

    def __init__(self, rate: float = 0.0) -> None:
        """Remember the rate."""
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be in 0 <= rate < 1, got {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Keep or zero whole samples: [B, ...] -> [B, ...]."""
        if self.rate == 0.0 or not self.training:
            return x
        kept = x.new_empty(x.shape[:1]).bernoulli_(1 - self.rate)  # [B], a DTensor as x is
        return x * (kept / (1 - self.rate)).reshape(-1, *[1] * (x.ndim - 1))

    def extra_repr(self) -> str:
        """The rate, as ``print(layer)`` shows it."""
        return f"rate={self.rate}"


class Mlp(nn.Module):
    """Two linear maps of each token with an activation between them.

    Shapes:
        input and return: [..., dim]; fc1.weight [hidden, dim], fc2.weight [dim, hidden]
    Raises:
        ValueError: an unknown activation.
    Source: Vaswani et al., arXiv:1706.03762, eq. 2; GELU: arXiv:1606.08415 (exact, not the tanh approximation).
    Example:
        >>> Mlp(8, 24)(torch.randn(2, 5, 7, 8)).shape
        torch.Size([2, 5, 7, 8])
    """

    def __init__(self, dim: int, hidden: int, activation: str = "gelu", drop: float = 0.0) -> None:
        """Make the parameters."""
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.fc1 = nn.Linear(dim, hidden)
        self.act = ACTIVATIONS[activation]()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token: [..., dim] -> [..., dim]."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class Layer(nn.Module):
    """One pre-norm layer: attention, then MLP, each scaled, dropped at random and added.

    Shapes:
        input and return: [B, X, Y, dim]; gamma1, gamma2 [dim]
    Args:
        layer_scale: initial value of the factors gamma1 and gamma2; 0 means none.
        Others as ``WindowAttention``, ``Mlp`` and ``DropPath``.
    Raises:
        ValueError: as the parts.
    Source: Hassani et al., arXiv:2204.07143, figure 5; layer scale: Touvron et al., arXiv:2103.17239.
    Example:
        >>> Layer(32, num_heads=1, kernel_size=3, dilation=2)(torch.randn(1, 6, 7, 32)).shape
        torch.Size([1, 6, 7, 32])
    """

    gamma1: Tensor | None
    gamma2: Tensor | None
    checkpointing: dict[str, Any] | None = None  # how to compute again in the backward pass; None: keep everything

    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel_size: int | Sequence[int],
        dilation: int | Sequence[int] = 1,
        mlp_ratio: float = 3.0,
        qkv_bias: bool = True,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        activation: str = "gelu",
        layer_scale: float = 0.0,
        norm_eps: float = 1e-5,
        small_input: str = "pad",
    ) -> None:
        """Make the parts."""
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = WindowAttention(dim, num_heads, kernel_size, dilation, qkv_bias, attn_drop, drop, small_input)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), activation, drop)
        self.drop_path = DropPath(drop_path)
        for name in ("gamma1", "gamma2"):
            self.register_parameter(name, nn.Parameter(layer_scale * torch.ones(dim)) if layer_scale > 0 else None)

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Transform a feature map: [B, X, Y, dim] -> [B, X, Y, dim]; key_mask as ``NeighborhoodAttention``."""
        if self.checkpointing is not None and self.training and torch.is_grad_enabled():
            return checkpoint(self._transform, x, key_mask, **self.checkpointing)
        return self._transform(x, key_mask)

    def with_weights(self, x: Tensor, key_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Transform a feature map, and return the attention weights that did it: [B, heads, X', Y', kx * ky]."""
        attended, weights = self.attn.with_weights(self.norm1(x), key_mask)
        return self._add(x, attended), weights

    def attention_weights(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Compute the attention weights for the layer's input: [B, X', Y', heads, kx * ky]."""
        return self.attn.attention_weights(self.norm1(x), key_mask)

    def _transform(self, x: Tensor, key_mask: Tensor | None) -> Tensor:
        return self._add(x, self.attn(self.norm1(x), key_mask))

    def _add(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add both branches to what came in: [B, X, Y, dim]."""
        x = x + self.drop_path(_scaled(attended, self.gamma1))
        return x + self.drop_path(_scaled(self.mlp(self.norm2(x)), self.gamma2))


def _scaled(branch: Tensor, gamma: Tensor | None) -> Tensor:
    return branch if gamma is None else gamma * branch


def initialize(module: nn.Module, deviation: float = 0.02) -> None:
    """Draw the weights of all linear layers and bias tables from a normal distribution cut at +-2; biases are zero.

    Convolutions and LayerNorms keep PyTorch's own initialisation.

    Source: Hassani et al., arXiv:2204.07143, the published code.
    Example:
        >>> initialize(linear := nn.Linear(300, 300))
        >>> bool(0.018 < linear.weight.std() < 0.022), bool(linear.bias.any())
        (True, False)
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=deviation)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, WindowAttention) and part.rpb is not None:
            nn.init.trunc_normal_(part.rpb, std=deviation)


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Spread the probability of skipping a branch linearly over the layers: 0 at the first, ``rate`` at the last.

    Shapes:
        return: depth numbers
    Source: Huang et al., arXiv:1603.09382, eq. 4.
    Example:
        >>> drop_path_rates(0.2, 5)
        [0.0, 0.05, 0.1, 0.15, 0.2]
    """
    return [0.0 if depth == 1 else round(rate * layer / (depth - 1), 12) for layer in range(depth)]
