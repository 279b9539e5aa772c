"""Adapters: what people have, as the kernel that the checks call.

A function per number of axes, a pair of scores and values. FlexAttention masks are in ``masks``, NumPy in ``foreign``,
JAX and others in ``frameworks``.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dinat_ref.testing.ports.sendable import sendable

Function = Callable[..., Any]


@sendable
def by_axes(functions: Mapping[int, Function]) -> Function:
    """Make one kernel of a function for each number of axes, such as na1d, na2d and na3d.

    Shapes:
        as the functions'
    Raises:
        ValueError: when called with another number of axes.
    Source: the names of NATTEN >= 0.20.
    Example:
        >>> from dinat_ref import na1d, na2d
        >>> by_axes({1: na1d, 2: na2d})(*[torch.zeros(1, 5, 2, 4)] * 3, kernel_size=3).shape
        torch.Size([1, 5, 2, 4])
    """

    def kernel(query: Tensor, key: Tensor, value: Tensor, *positional: Any, **arguments: Any) -> Any:
        ndim = query.ndim - 3
        if ndim not in functions:
            raise ValueError(f"there is no kernel for {ndim} axes, only for {', '.join(map(str, functions))}")
        return functions[ndim](query, key, value, *positional, **arguments)

    kernel.__name__ = "/".join(str(getattr(function, "__name__", function)) for function in functions.values())
    return kernel


@sendable
def from_split(
    qk: Function | Mapping[int, Function], av: Function | Mapping[int, Function], legacy: bool = False
) -> Function:
    """Make one kernel of a pair that gives raw scores and sums values, heads-first, as NATTEN <= 0.17 has it.

    Shapes:
        qk(query [B, H, *layout, D], key, kernel_size, dilation) -> scores [B, H, *layout, K]
        av(weights [B, H, *layout, K], value, kernel_size, dilation) -> [B, H, *layout, D]
    Args:
        qk, av: a function for any number of axes, or one for each.
        legacy: call qk(query, key, rpb, kernel_size, dilation), with zeros for no bias, as natten2dqkrpb wants it.
    Source: the functions of NATTEN 0.14 to 0.17.
    Example:
        >>> from dinat_ref import neighborhood_av, neighborhood_qk
        >>> def qk(query, key, kernel_size, dilation):
        ...     query, key = query.movedim(1, -2), key.movedim(1, -2)
        ...     return neighborhood_qk(query, key, kernel_size, 1, dilation, scale=1.0).movedim(-2, 1)
        >>> def av(weights, value, kernel_size, dilation):
        ...     weights, value = weights.movedim(1, -2), value.movedim(1, -2)
        ...     return neighborhood_av(weights, value, kernel_size, 1, dilation).movedim(-2, 1)
        >>> x = torch.arange(5.0).reshape(1, 5, 1, 1)
        >>> from_split(qk, av)(torch.zeros_like(x), x, x, kernel_size=(3,), dilation=(1,)).flatten()
        tensor([1., 1., 2., 3., 3.])
    """

    def pick(function: Function | Mapping[int, Function], ndim: int) -> Function:
        return function[ndim] if isinstance(function, Mapping) else function

    def single(value: Any) -> Any:
        return value[0] if legacy and isinstance(value, tuple) and len(set(value)) == 1 else value

    def kernel(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kernel_size: Any,
        dilation: Any = 1,
        scale: float | None = None,
        additional_keys: Tensor | None = None,
        additional_values: Tensor | None = None,
        rpb: Tensor | None = None,
        return_lse: bool = False,
        **causal: Any,
    ) -> Any:
        ndim = query.ndim - 3
        if (additional_keys is None) != (additional_values is None):
            raise ValueError("additional_keys and additional_values must be given together")
        if (key.shape[-2], key.dtype, key.device) != (value.shape[-2], value.dtype, value.device):
            raise ValueError("value must have key's heads, dtype and device")  # neither half sees both
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        first = [tensor.movedim(-2, 1) for tensor in (query * scale, key, value)]  # [B, H, *layout, D]
        where = (single(kernel_size), single(dilation))
        if legacy:
            sizes = kernel_size if isinstance(kernel_size, tuple) else (kernel_size,) * ndim
            zeros = torch.zeros(query.shape[-2], *(2 * size - 1 for size in sizes), dtype=query.dtype)
            scores = pick(qk, ndim)(first[0], first[1], zeros.to(query.device) if rpb is None else rpb, *where)
        else:
            extra: dict[str, Any] = dict(causal)
            values_extra = dict(extra)
            if rpb is not None:
                extra["rpb"] = rpb
            if additional_keys is not None and additional_values is not None:
                extra["additional_keys"] = additional_keys.transpose(1, 2)
                values_extra["additional_values"] = additional_values.transpose(1, 2)
            scores = pick(qk, ndim)(first[0], first[1], *where, **extra)
        weights = torch.softmax(scores, dim=-1)
        output = pick(av, ndim)(weights, first[2], *where, **({} if legacy else values_extra)).movedim(1, -2)
        return (output, torch.logsumexp(scores, dim=-1).movedim(1, -1)) if return_lse else output

    kernel.__name__ = "split form"
    return kernel
