"""What every formulation may rely on: operands that were checked once, in a dtype fit for a softmax."""

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dinat_ref.attention.boxes import Boxes, whole
from dinat_ref.neighborhood import Neighborhood

Index = int | slice | Tensor
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Operands:
    """One call of the operator, checked: the tensors in the dtype it is computed in, and its neighborhood.

    Shapes:
        query [B, *layout, H, D], key [B, *layout, Hkv, D], value [B, *layout, Hkv, Dv],
        rpb [H, 2k-1, ...], additional_keys [B, M, Hkv, D], additional_values [B, M, Hkv, Dv],
        key_mask bool [B, *layout], False where key and value are no key of anybody, and zero.
        boxes says which tokens of the layout these are: all of them, but where a part is computed alone.
        dtype is that of the caller's tensors, and of the result.
    Source: arXiv:2209.15001, eq. 1-3.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    neighborhood: Neighborhood
    boxes: Boxes
    scale: float | Tensor
    dtype: torch.dtype
    rpb: Tensor | None = None
    additional_keys: Tensor | None = None
    additional_values: Tensor | None = None
    key_mask: Tensor | None = None

    @property
    def group_size(self) -> int:
        """The number of query heads that share one key head."""
        return self.query.shape[-2] // self.key.shape[-2]

    def widened(self) -> "Operands":
        """The same call in float32 at least."""
        dtype = torch.promote_types(self.dtype, torch.float32)
        if dtype == self.dtype and (self.rpb is None or self.rpb.dtype == dtype):
            return self
        names = ("query", "key", "value", "rpb", "additional_keys", "additional_values")
        tensors = {name: getattr(self, name) for name in names}
        return replace(self, **{name: x.to(dtype) for name, x in tensors.items() if x is not None})


def prepare(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    neighborhood: Neighborhood,
    scale: float | Tensor | None = None,
    rpb: Tensor | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    key_mask: Tensor | None = None,
    boxes: Boxes | None = None,
    widen: bool = True,
) -> Operands:
    """Check the tensors of a call against each other and, unless told otherwise, take them to float32 at least.

    Shapes:
        as ``Operands``.
    Raises:
        TypeError: a tensor is not dense or not floating point; scale is not a number.
        ValueError: shapes, dtypes or devices do not fit together.
    Source: scale: Vaswani et al., arXiv:1706.03762, eq. 1.
    Example:
        >>> x = torch.zeros(1, 5, 2, 8, dtype=torch.bfloat16)
        >>> prepare(x, x, x, Neighborhood((5,), 3)).query.dtype
        torch.float32
    """
    optional = {"rpb": rpb, "additional_keys": additional_keys, "additional_values": additional_values}
    given = {name: tensor for name, tensor in optional.items() if tensor is not None}
    tensors = in_one_dtype({"query": query, "key": key, "value": value, **given})
    _check_tensors(tensors)
    boxes = whole(neighborhood) if boxes is None else boxes
    _check_shapes(
        query, key, value, boxes.key_layout, neighborhood.kernel_size, rpb, additional_keys, additional_values
    )
    if key_mask is not None:
        _check_key_mask(key_mask, key)
        kept = key_mask[..., None, None]  # [B, *layout, 1, 1]
        tensors |= {name: torch.where(kept, tensors[name], 0.0) for name in ("key", "value")}  # whatever their bits
    scale, dtype = _check_scale(scale, query.shape[-1]), tensors["query"].dtype
    operands = Operands(neighborhood=neighborhood, boxes=boxes, scale=scale, dtype=dtype, key_mask=key_mask, **tensors)
    return operands.widened() if widen else operands


def in_one_dtype(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under autocast, operands of several dtypes take autocast's, as they would for scaled_dot_product_attention.

    Operands of one dtype keep it: the precision of the operator follows from its arguments. So does rpb, a parameter.

    Example:
        >>> query, key = torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16)
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     [tensor.dtype for tensor in in_one_dtype({"query": query, "key": key}).values()]
        [torch.bfloat16, torch.bfloat16]
    """
    given = [x for name, x in tensors.items() if name != "rpb" and isinstance(x, Tensor)]
    if len({x.dtype for x in given}) == 1 or not given:
        return tensors
    device_type = given[0].device.type
    if not torch.amp.is_autocast_available(device_type) or not torch.is_autocast_enabled(device_type):
        return tensors
    if not all(x.dtype in (torch.float16, torch.bfloat16, torch.float32) for x in given):
        return tensors  # autocast leaves float64 alone
    dtype = torch.get_autocast_dtype(device_type)
    return {name: x if name == "rpb" else x.to(dtype) for name, x in tensors.items()}


def every(*index: Index) -> tuple[Index, ...]:
    """Index the axes after the first: ``tensor[every(2, 3)]`` is ``tensor[:, 2, 3]``.

    Shapes:
        return: one entry more than given, the first a full slice
    Example:
        >>> torch.zeros(2, 5, 7)[every(0, slice(0, 3))].shape
        torch.Size([2, 3])
    """
    return (slice(None), *index)


def inside_transform() -> bool:
    """Say whether a call is taken apart or recorded instead of simply computed.

    That is so under torch.func (vmap, jvp, grad), forward-mode autograd, torch.compile, torch.export, torch.jit.trace
    and where tensors are fakes without numbers.

    Source: PyTorch has no public name for most of them.
    Example:
        >>> inside_transform(), torch.func.vmap(lambda x: x + inside_transform())(torch.zeros(2))
        (False, tensor([1., 1.]))
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    if forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return type(torch.empty(0)) is not Tensor


def check_layout(query: Tensor, ndim: int | None = None, name: str = "query") -> tuple[int, ...]:
    """Return the token layout of a tensor [B, *layout, H, D], for a given number of axes or any.

    Shapes:
        return: a tuple of integers.
    Raises:
        TypeError: not a tensor.
        ValueError: the tensor has another number of dimensions.
    Source: layouts of NATTEN >= 0.20.
    Example:
        >>> check_layout(torch.zeros(1, 5, 7, 2, 8), ndim=2)
        (5, 7)
    """
    check_dense(name, query)
    if query.ndim < 4 or (ndim is not None and query.ndim != ndim + 3):
        axes = "one or more" if ndim is None else str(ndim)
        raise ValueError(f"{name} must be [batch, *layout, heads, head_dim] with {axes} axes, got {tuple(query.shape)}")
    return tuple(operator.index(length) for length in query.shape[1:-2])  # plain integers, not symbols


def check_dense(name: str, tensor: Tensor) -> None:
    """Raise unless it is a tensor with a number at every index, whose shape says all there is to say.

    Raises:
        TypeError: no tensor, or a nested, sparse or MKL-DNN one.
    Example:
        >>> check_dense("query", torch.zeros(2, 3).to_sparse())
        Traceback (most recent call last):
        TypeError: query must be a dense tensor, got torch.sparse_coo
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.is_nested or tensor.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got {'a nested one' if tensor.is_nested else tensor.layout}")


def _check_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Check types, dtypes and devices; query comes first."""
    for name, tensor in tensors.items():
        check_dense(name, tensor)
        if tensor.dtype not in DTYPES:
            raise TypeError(f"{name} must have a floating point dtype of 16, 32 or 64 bits, got {tensor.dtype}")
        dtype, device = tensors["query"].dtype, tensors["query"].device
        if tensor.dtype != dtype and name != "rpb":  # a parameter may stay float32 beside bfloat16 activations
            raise ValueError(f"{name} must have query's dtype {dtype}, got {tensor.dtype}")
        if tensor.device != device:
            raise ValueError(f"{name} must be on query's device {device}, got {tensor.device}")


def _check_shapes(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: tuple[int, ...],
    kernel_size: tuple[int, ...],
    rpb: Tensor | None,
    additional_keys: Tensor | None,
    additional_values: Tensor | None,
) -> None:
    """Check all shapes against query's and key's, and those against the keys' layout."""
    batch, heads, head_dim = query.shape[0], query.shape[-2], query.shape[-1]
    for name, tensor in (("key", key), ("value", value)):
        if tensor.ndim != query.ndim:
            raise ValueError(f"{name} must have query's {query.ndim} dimensions, got {tuple(tensor.shape)}")
    heads_kv, head_dim_v = key.shape[-2], value.shape[-1]
    _check_shape("key", key, (batch, *layout, heads_kv, head_dim), "query's batch, layout and head_dim")
    _check_shape("value", value, (batch, *layout, heads_kv, head_dim_v), "query's batch and layout, key's heads")
    if heads_kv == 0 or heads == 0 or heads % heads_kv:
        raise ValueError(f"query's heads must be a positive multiple of key's heads, got {heads} and {heads_kv}")
    if (additional_keys is None) != (additional_values is None):
        raise ValueError("additional_keys and additional_values must be given together")
    if additional_keys is not None and additional_values is not None:
        extra = additional_keys.shape[1] if additional_keys.ndim == 4 else 0
        like = "batch, heads and head_dim of key (or value) around any number of tokens"
        _check_shape("additional_keys", additional_keys, (batch, extra, heads_kv, head_dim), like)
        _check_shape("additional_values", additional_values, (batch, extra, heads_kv, head_dim_v), like)
    if rpb is not None:
        offsets = tuple(2 * size - 1 for size in kernel_size)
        _check_shape("rpb", rpb, (heads, *offsets), "query's heads, then 2 * kernel_size - 1 per axis")


def _check_key_mask(key_mask: Tensor, key: Tensor) -> None:
    """Check which keys there are: bool [B, *layout]."""
    check_dense("key_mask", key_mask)
    if key_mask.dtype != torch.bool:
        raise TypeError(f"key_mask must be a bool tensor, got {key_mask.dtype}")
    if key_mask.device != key.device:
        raise ValueError(f"key_mask must be on query's device {key.device}, got {key_mask.device}")
    _check_shape("key_mask", key_mask, tuple(key.shape[:-2]), "query's batch and layout")


def _check_shape(name: str, tensor: Tensor, expected: tuple[int, ...], meaning: str) -> None:
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{name} must have {meaning}: expected {expected}, got {tuple(tensor.shape)}")


def _check_scale(scale: float | Tensor | None, head_dim: int) -> float | Tensor:
    if scale is None:
        return 1.0 / math.sqrt(head_dim) if head_dim else 1.0
    if isinstance(scale, bool) or not (isinstance(scale, Real) or (isinstance(scale, Tensor) and scale.ndim == 0)):
        raise TypeError(f"scale must be a number or None, got {scale!r}")
    return scale if isinstance(scale, Tensor) else float(scale)
