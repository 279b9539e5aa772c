"""NATTEN up to 0.17: functions that take heads FIRST and show the attention weights, and its fused ones.

    attn = natten2dqkrpb(query * scale, key, rpb, kernel_size, dilation)     [B, H, X, Y, K] raw scores
    out  = natten2dav(attn.softmax(-1), value, kernel_size, dilation)        [B, H, X, Y, D]

They were removed after 0.17.4, and the models written for them stopped. These have their names, argument order and
layout, on any device, differentiable as often as you like. As there, the caller scales the query, and None stands for
the default of dilation and is_causal. ``natten_releases`` has the orders of single releases.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from dinat_ref.attention import neighborhood_attention, neighborhood_av, neighborhood_qk
from dinat_ref.interop.natten_flops import counted
from dinat_ref.interop.natten_utils import default

PerAxis = int | Sequence[int] | None
CausalPerAxis = bool | Sequence[bool] | None


def heads_last(tensor: Tensor) -> Tensor:
    """Move the heads behind the layout.

    Shapes:
        tensor: [B, H, *layout, D]
        return: [B, *layout, H, D]
    Source: the layouts of NATTEN before and after 0.20.
    Example:
        >>> import torch
        >>> heads_last(torch.zeros(1, 2, 5, 7, 8)).shape
        torch.Size([1, 5, 7, 2, 8])
    """
    return tensor.movedim(1, -2)


def heads_first(tensor: Tensor) -> Tensor:
    """Move the heads before the layout.

    Shapes:
        tensor: [B, *layout, H, D]
        return: [B, H, *layout, D]
    Source: the layouts of NATTEN before and after 0.20.
    Example:
        >>> import torch
        >>> heads_first(torch.zeros(1, 5, 7, 2, 8)).shape
        torch.Size([1, 2, 5, 7, 8])
    """
    return tensor.movedim(-2, 1)


@counted(halves=1)
def scores(
    query: Tensor,
    key: Tensor,
    kernel_size: int | Sequence[int],
    dilation: PerAxis = 1,
    additional_keys: Tensor | None = None,
    is_causal: CausalPerAxis = False,
    rpb: Tensor | None = None,
) -> Tensor:
    """Compute raw scores, for any number of axes: what na1d_qk, na2d_qk and na3d_qk do.

    Shapes:
        query, key: [B, H, *layout, D]; additional_keys: [B, H, M, D]; rpb: [H, 2k-1, ...]
        return: [B, H, *layout, K + M], -inf where a causal window has fewer than K keys
    Raises:
        TypeError, ValueError: as ``neighborhood_qk``.
    Source: NATTEN 0.17's argument order.
    Example:
        >>> import torch
        >>> x = torch.arange(4.).reshape(1, 1, 4, 1)
        >>> na1d_qk(x, x, kernel_size=3)[0, 0]
        tensor([[0., 0., 0.],
                [0., 1., 2.],
                [2., 4., 6.],
                [3., 6., 9.]])
    """
    extra = None if additional_keys is None else additional_keys.transpose(1, 2)  # [B, M, H, D]
    where = (kernel_size, 1, default(dilation, 1), default(is_causal, False))
    return heads_first(neighborhood_qk(heads_last(query), heads_last(key), *where, 1.0, extra, rpb=rpb))


@counted(halves=1)
def weighted_values(
    attn: Tensor,
    value: Tensor,
    kernel_size: int | Sequence[int],
    dilation: PerAxis = 1,
    additional_values: Tensor | None = None,
    is_causal: CausalPerAxis = False,
) -> Tensor:
    """Sum the values of each query's keys, for any number of axes: what na1d_av, na2d_av and na3d_av do.

    Shapes:
        attn: [B, H, *layout, K + M]; value: [B, H, *layout, D]; additional_values: [B, H, M, D]
        return: [B, H, *layout, D]
    Raises:
        TypeError, ValueError: as ``neighborhood_av``.
    Source: NATTEN 0.17's argument order.
    Example:
        >>> import torch
        >>> na1d_av(torch.ones(1, 1, 4, 3), torch.arange(4.).reshape(1, 1, 4, 1), kernel_size=3).flatten()
        tensor([3., 3., 6., 6.])
    """
    extra = None if additional_values is None else additional_values.transpose(1, 2)  # [B, M, H, D]
    where = (kernel_size, 1, default(dilation, 1), default(is_causal, False))
    return heads_first(neighborhood_av(heads_last(attn), heads_last(value), *where, extra))


@counted(halves=2)
def fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int | Sequence[int],
    dilation: PerAxis = 1,
    is_causal: CausalPerAxis = False,
    rpb: Tensor | None = None,
    scale: float | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    xformers_kwargs: dict[str, Any] | None = None,
) -> Tensor:
    """Attend in one call, in the argument order of NATTEN 0.17: dilation where 0.21 has stride. Heads are LAST here.

    Shapes:
        query, key, value: [B, *layout, H, D]; additional_keys, additional_values: [B, M, H, D]
        return: [B, *layout, H, D]
    Args:
        scale: None and, as in NATTEN, 0 mean D ** -0.5.
        xformers_kwargs: ignored.
    Raises:
        TypeError, ValueError: as ``neighborhood_attention``.
    Source: NATTEN 0.17's argument order.
    Example:
        >>> import torch
        >>> x = torch.arange(5.).reshape(1, 5, 1, 1)
        >>> fused(torch.zeros_like(x), x, x, 2, 2).flatten()
        tensor([1., 2., 1., 2., 3.])
    """
    where, extra = (
        (kernel_size, 1, default(dilation, 1), default(is_causal, False)),
        (additional_keys, additional_values),
    )
    output = neighborhood_attention(query, key, value, *where, scale or None, *extra, rpb=rpb)
    assert isinstance(output, Tensor)
    return output


def of_axes(function: Callable[..., Any], name: str, ndim: int) -> Callable[..., Any]:
    """Name a function for one number of axes; it refuses tensors of another.

    Raises:
        ValueError: when called with tensors of another number of dimensions.
    Example:
        >>> of_axes(scores, "na2d_qk", 2).__name__
        'na2d_qk'
    """

    @functools.wraps(function)
    def named_function(*arguments: Any, **named: Any) -> Any:
        first = arguments[0] if arguments else next(iter(named.values()), None)
        if isinstance(first, Tensor) and first.ndim != ndim + 3:
            raise ValueError(f"{name} takes tensors of {ndim + 3} dimensions, got {tuple(first.shape)}")
        return function(*arguments, **named)

    named_function.__name__ = named_function.__qualname__ = name
    named_function.__doc__ = (function.__doc__ or "").partition("\n")[0].replace("any number of axes", f"{ndim} axes")
    return named_function


def qkrpb(
    query: Tensor, key: Tensor, rpb: Tensor | None, kernel_size: int | Sequence[int], dilation: PerAxis
) -> Tensor:
    """Compute raw scores with relative positional bias, for any number of axes: query and key [B, H, *layout, D].

    Shapes:
        query, key: [B, H, *layout, D]; rpb: [H, 2k-1, ...]
        return: [B, H, *layout, K]
    Example:
        >>> import torch
        >>> x = torch.zeros(1, 1, 4, 1)
        >>> qkrpb(x, x, torch.arange(5.)[None], 3, 1)[0, 0]
        tensor([[2., 3., 4.],
                [1., 2., 3.],
                [1., 2., 3.],
                [0., 1., 2.]])
    """
    return scores(query, key, kernel_size, dilation, rpb=rpb)


def qk(query: Tensor, key: Tensor, kernel_size: int | Sequence[int], dilation: PerAxis) -> Tensor:
    """Compute raw scores, for any number of axes: query and key [B, H, *layout, D].

    Shapes:
        query, key: [B, H, *layout, D]; return: [B, H, *layout, K]
    Example:
        >>> import torch
        >>> qk(torch.ones(1, 1, 4, 1), torch.ones(1, 1, 4, 1), 3, 1).shape
        torch.Size([1, 1, 4, 3])
    """
    return scores(query, key, kernel_size, dilation)


def av(attn: Tensor, value: Tensor, kernel_size: int | Sequence[int], dilation: PerAxis) -> Tensor:
    """Sum values with weights [B, H, *layout, K], for any number of axes: value [B, H, *layout, D].

    Shapes:
        attn: [B, H, *layout, K]; value: [B, H, *layout, D]; return: [B, H, *layout, D]
    Example:
        >>> import torch
        >>> av(torch.ones(1, 1, 4, 3), torch.ones(1, 1, 4, 2), 3, 1).shape
        torch.Size([1, 1, 4, 2])
    """
    return weighted_values(attn, value, kernel_size, dilation)


natten1dqkrpb, natten2dqkrpb, natten3dqkrpb = (of_axes(qkrpb, f"natten{n}dqkrpb", n) for n in (1, 2, 3))
natten1dqk, natten2dqk, natten3dqk = (of_axes(qk, f"natten{n}dqk", n) for n in (1, 2, 3))
natten1dav, natten2dav, natten3dav = (of_axes(av, f"natten{n}dav", n) for n in (1, 2, 3))
na1d_qk, na2d_qk, na3d_qk = (of_axes(scores, f"na{n}d_qk", n) for n in (1, 2, 3))
na1d_av, na2d_av, na3d_av = (of_axes(weighted_values, f"na{n}d_av", n) for n in (1, 2, 3))
na1d, na2d, na3d = (of_axes(fused, f"na{n}d", n) for n in (1, 2, 3))
