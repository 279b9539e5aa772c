"""NATTEN's counts of operations: by formula, and inside fvcore's count of a whole model.

    scores: B H N D K multiply-adds, and B H N K for a bias; sums of values: B H N D K; na1d, na2d and na3d: both

fvcore traces a model and adds up what it knows by name. While it does, each call of the operator goes into the trace as
one operation whose first input is as long as the count. Without fvcore: ``dinat_ref.analysis.cost``.
"""

import functools
import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from dinat_ref.neighborhood import per_axis

Function = TypeVar("Function", bound=Callable[..., Any])


def na_qk_flop_count(
    q_shape: Sequence[int],
    k_shape: Sequence[int],
    kernel_size: int | Sequence[int],
    dilation: Any,
    is_causal: Any,
    is_heads_last: bool,
    return_macs: bool = False,
) -> int:
    """Count the operations of all scores: a multiply-add is two, or one with return_macs.

    Args:
        dilation, is_causal: ignored: NATTEN counts whole windows.
    Raises:
        ValueError: shapes that differ.
    Source: NATTEN 0.17.5.
    Example:
        >>> na_qk_flop_count((1, 4, 5, 2, 8), (1, 4, 5, 2, 8), 3, 1, False, is_heads_last=True, return_macs=True)
        2880
    """
    if tuple(q_shape) != tuple(k_shape):
        raise ValueError(f"query and key must have one shape, got {tuple(q_shape)} and {tuple(k_shape)}")
    axes = len(q_shape) - 3
    keys = kernel_size**axes if isinstance(kernel_size, int) else math.prod(kernel_size)
    return math.prod(q_shape) * keys * (1 if return_macs else 2)


def na_av_flop_count(
    a_shape: Sequence[int],
    v_shape: Sequence[int],
    kernel_size: int | Sequence[int],
    dilation: Any,
    is_causal: Any,
    is_heads_last: bool,
    return_macs: bool = False,
) -> int:
    """Count the operations of all sums of values, as ``na_qk_flop_count``.

    Source: NATTEN 0.17.5.
    Example:
        >>> na_av_flop_count((1, 4, 5, 2, 9), (1, 4, 5, 2, 8), 3, 1, False, is_heads_last=True, return_macs=True)
        2880
    """
    return na_qk_flop_count(v_shape, v_shape, kernel_size, dilation, is_causal, is_heads_last, return_macs)


def fna_flop_count(
    q_shape: Sequence[int],
    k_shape: Sequence[int],
    v_shape: Sequence[int],
    kernel_size: int | Sequence[int],
    dilation: Any,
    is_causal: Any,
    is_heads_last: bool,
    return_macs: bool = False,
) -> int:
    """Count the operations of a call of na1d, na2d or na3d: its scores and its sums.

    Source: NATTEN 0.17.5.
    Example:
        >>> shape = (1, 4, 5, 2, 8)
        >>> fna_flop_count(shape, shape, shape, (3, 3), (1, 1), (False, False), is_heads_last=True, return_macs=True)
        5760
    """
    arguments = (kernel_size, dilation, is_causal, is_heads_last, return_macs)
    return na_qk_flop_count(q_shape, k_shape, *arguments) + na_av_flop_count(q_shape, v_shape, *arguments)


class Counting:
    """Whether operations are being counted in this process.

    Example:
        >>> Counting.on
        False
    """

    on = False


class NeighborhoodAttentionOperation(torch.autograd.Function):
    """One operation in a trace, whatever it consists of.

    Example:
        >>> NeighborhoodAttentionOperation.apply(torch.empty(7, device="meta"), torch.exp, torch.zeros(1))
        tensor([1.])
    """

    @staticmethod
    def forward(ctx: Any, operations: Tensor, function: Callable[..., Any], *tensors: Tensor | None) -> Any:
        """Run the function out of the trace's sight; the length of ``operations`` is for whoever reads the trace."""
        backend: Any = torch._C
        tracing = backend._get_tracing_state()
        backend._set_tracing_state(None)  # tables made while tracing would belong to it, and outlive it in caches
        try:
            return function(*tensors)
        finally:
            backend._set_tracing_state(tracing)


def counted(halves: int) -> Callable[[Function], Function]:
    """Decorate a function that attends: where operations are being counted, it is one operation.

    Args:
        halves: 1 for scores or sums of values, with heads first; 2 for both, with heads last.
    Example:
        >>> @counted(halves=1)
        ... def first_scores(query, kernel_size):
        ...     return query
        >>> first_scores(torch.zeros(1, 2, 5, 8), 3).shape
        torch.Size([1, 2, 5, 8])
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def maybe_counted(*arguments: Any, **named: Any) -> Any:
            if not Counting.on:
                return function(*arguments, **named)
            bound = inspect.signature(function).bind(*arguments, **named).arguments
            tensors = [value for value in bound.values() if isinstance(value, Tensor)]
            operations = torch.empty(_operations(bound, halves), device="meta")
            apply: Any = NeighborhoodAttentionOperation.apply
            return apply(operations, lambda *_: function(*arguments, **named), *tensors)

        return maybe_counted  # type: ignore[return-value]

    return decorate


def _operations(arguments: Mapping[str, Any], halves: int) -> int:
    """Count the operations of a call: one for a multiply-add, one for each bias added."""
    x = arguments["query"] if "query" in arguments else arguments["value"]
    layout = x.shape[2:-1] if halves == 1 else x.shape[1:-2]
    keys = math.prod(per_axis("kernel_size", arguments["kernel_size"], layout))
    for name in ("additional_keys", "additional_values") if halves == 1 else ("additional_keys",):
        if arguments.get(name) is not None:
            keys += arguments[name].numel() * math.prod(layout) // x.numel()
    biases = 0 if arguments.get("rpb") is None else x.numel() // x.shape[-1] * keys
    return halves * x.numel() * keys + biases


def add_natten_handle(flop_ctr: Any) -> Any:
    """Tell fvcore's FlopCountAnalysis, or another of its counters, how many operations attention takes.

    Returns:
        The counter.
    Source: NATTEN 0.14.4 to 0.17.5.
    Example:
        >>> import importlib.util
        >>> if importlib.util.find_spec("fvcore"):
        ...     from fvcore.nn import FlopCountAnalysis
        ...     from dinat_ref.interop.natten_releases.v0_15_1 import NeighborhoodAttention1D
        ...     layer = NeighborhoodAttention1D(8, 2, 3)
        ...     count = add_natten_handle(FlopCountAnalysis(layer, torch.zeros(1, 5, 8))).total()
        ...     assert count == 5 * (8 * 24 + 8 * 3 + 2 * 3 + 8 * 3 + 8 * 8)  # qkv, scores, bias, sums, proj
    """
    analyze = flop_ctr._analyze

    def analyze_counting() -> Any:
        Counting.on = True
        try:
            with torch.no_grad():
                return analyze()
        finally:
            Counting.on = False

    flop_ctr._analyze = analyze_counting
    handles = {"prim::PythonOp.NeighborhoodAttentionOperation": lambda inputs, _: inputs[0].type().sizes()[0]}
    return flop_ctr.set_op_handle(**handles)


def get_flops(model: torch.nn.Module, input: Any, disable_warnings: bool = False) -> int:
    """Count the multiply-adds of a model with fvcore.

    Raises:
        ImportError: fvcore is not installed.
    Source: NATTEN 0.14.4 to 0.17.5.
    Example:
        >>> import importlib.util
        >>> if importlib.util.find_spec("fvcore"):
        ...     print(get_flops(torch.nn.Linear(8, 3), torch.zeros(1, 8), disable_warnings=True))
        ... else:
        ...     print(24)
        24
    """
    counter = add_natten_handle(importlib.import_module("fvcore.nn").FlopCountAnalysis(model, input))
    return int(counter.unsupported_ops_warnings(not disable_warnings).total())
