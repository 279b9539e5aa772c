"""The front door: neighborhood attention by the argument order of NATTEN 0.21, in any formulation.

Tensors are heads-last, [batch, *layout, heads, head_dim]. ``impl`` names a formulation:

    | impl     | idea                                | memory beyond the tensors     | use it                         |
    |----------|-------------------------------------|-------------------------------|--------------------------------|
    | "loops"  | the definition, token by token      | small                         | as the oracle, to step through |
    | "gather" | explicit index table                | K times key and value         | to read                        |
    | "unfold" | sliding windows of dilation groups  | K times a dilation group      | to read                        |
    | "masked" | dense mask                          | N x N mask, or scores a head  | for tiny problems              |
    | "tiled"  | tiles of queries, slabs of keys     | chunks of 4 MB on a CPU       | for everything else            |
    | "auto"   | "masked" up to 131,072 scores in all (B H N^2), up to 4,194,304 where every window is the whole      |
    |          | layout; else "tiled"; "gather" inside torch.jit.trace                                                |

All take all arguments, on any device, and can be differentiated twice.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from dinat_ref.attention.distributed import on_shards
from dinat_ref.attention.gather import gather_attention
from dinat_ref.attention.loops import loops_attention
from dinat_ref.attention.masked import masked_attention
from dinat_ref.attention.operands import Operands, check_layout, inside_transform, prepare
from dinat_ref.attention.tiled import multiplies_in_half, tiled_attention
from dinat_ref.attention.unfold import unfold_attention
from dinat_ref.neighborhood import Neighborhood

Formulation = Callable[[Operands, bool], tuple[Tensor, Tensor | None]]

FORMULATIONS: dict[str, Formulation] = {
    "loops": loops_attention,
    "gather": gather_attention,
    "unfold": unfold_attention,
    "masked": masked_attention,
    "tiled": tiled_attention,
}


def without_autocast(tensor: Tensor) -> AbstractContextManager[None]:
    """The operator's precision follows from its arguments: under autocast, too, bfloat16 is summed in float32."""
    device_type = tensor.device.type
    # the first question is there for devices without autocast; before PyTorch 2.9 it cannot be traced
    has_autocast = torch.compiler.is_compiling() or torch.amp.is_autocast_available(device_type)
    if has_autocast and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


@on_shards
def neighborhood_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
    scale: float | Tensor | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    *,
    rpb: Tensor | None = None,
    key_mask: Tensor | None = None,
    return_lse: bool = False,
    impl: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Neighborhood attention over any number of axes: each query attends the kernel_size keys around it.

    ::

        score(i, j) = scale * <q_i, k_j> + rpb[(j - i) / dilation + kernel_size - 1]      for j in window(i)
        output_i    = sum_j softmax_j(score(i, .)) v_j

    Shapes:
        query:  [B, *layout, H, D]
        key:    [B, *layout, Hkv, D], H a multiple of Hkv; query head h uses key head h // (H / Hkv)
        value:  [B, *layout, Hkv, Dv]
        additional_keys, additional_values: [B, M, Hkv, D], [B, M, Hkv, Dv]
        rpb:    [H, 2 * kernel_size - 1, ...], one axis each
        key_mask: bool [B, *layout]
        return: [B, *layout, H, Dv], with return_lse a pair of it and the lse [B, *layout, H]
    Args:
        kernel_size: window width in tokens, one number or one per axis; kernel_size * dilation <= layout.
        stride: number of consecutive queries that share a window; the output keeps the query's shape.
        dilation: distance between neighbouring keys, in tokens.
        is_causal: attend nothing behind the query, one bool or one per axis.
        scale: factor of the dot products; None means D ** -0.5.
        additional_keys, additional_values: M more keys that every query attends, whatever its window.
        rpb: relative positional bias, added to the scaled scores.
        key_mask: True where a key may be attended; a masked key counts as outside every window, and windows do not
            move to make up for it. A query without any key left has output 0, lse minus infinity and gradients 0.
        return_lse: also return the logarithm of the softmax's denominator (natural, float32 at least).
        impl: the formulation, see the table at the top of this module.
    Returns:
        The attention output, in query's dtype and on its device. It is computed in float32 at least, but for products
        of bfloat16 numbers, which "tiled" leaves to a processor that multiplies them and sums in float32.
    Raises:
        TypeError: an argument of another type.
        ValueError: an argument outside its limits, or tensors that do not fit together.
    Cost: O(N K D) time, N tokens with K keys each; memory depends on impl.
    Source: Hassani & Shi, arXiv:2209.15001, eq. 1-3.
    Example:
        >>> x = torch.arange(5.).reshape(1, 5, 1, 1)
        >>> neighborhood_attention(torch.zeros_like(x), x, x, kernel_size=3).flatten()
        tensor([1., 1., 2., 3., 3.])
    """
    neighborhood = Neighborhood(check_layout(query), kernel_size, stride, dilation, is_causal)
    check_impl(impl)
    tensors = query, key, value, neighborhood, scale, rpb, additional_keys, additional_values, key_mask
    operands = prepare(*tensors, widen=False)
    impl = choose(operands) if impl == "auto" else impl
    with without_autocast(query):
        if impl != "tiled" or not multiplies_in_half(operands, return_lse):
            operands = operands.widened()
        output, lse = FORMULATIONS[impl](operands, return_lse)
    output = output.to(operands.dtype)
    return output if lse is None else (output, lse)


def check_impl(impl: str) -> None:
    """Raise unless ``impl`` names a formulation.

    Raises:
        ValueError: an unknown name.
    Example:
        >>> check_impl("fast")
        Traceback (most recent call last):
        ValueError: impl must be 'auto' or one of loops, gather, unfold, masked, tiled, got 'fast'
    """
    if impl != "auto" and impl not in FORMULATIONS:
        raise ValueError(f"impl must be 'auto' or one of {', '.join(FORMULATIONS)}, got {impl!r}")


def choose(operands: Operands) -> str:
    """The rule of impl="auto": name the formulation that suits the size of a problem.

    Shapes:
        return: a name of ``FORMULATIONS``
    Source: measured, see dinat_ref.bench.
    Example:
        >>> x = torch.zeros(1, 5, 1, 1)
        >>> choose(prepare(x, x, x, Neighborhood((5,), 3)))
        'masked'
    """
    batch, heads, neighborhood = operands.query.shape[0], operands.query.shape[-2], operands.neighborhood
    if torch._C._get_tracing_state() is not None:
        return "gather"  # torch.jit.trace would fix the others' batch, or choose by the size of its example
    most = 2**22 if neighborhood.is_full else 2**17
    if inside_transform():
        batch = 1  # a graph may be made for batches of any size
    return "masked" if batch * heads * neighborhood.num_tokens**2 <= most else "tiled"


def na1d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
    scale: float | Tensor | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    *,
    rpb: Tensor | None = None,
    key_mask: Tensor | None = None,
    return_lse: bool = False,
    impl: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """One-dimensional neighborhood attention, for sequences.

    Shapes:
        query:  [B, X, H, D]
        key:    [B, X, Hkv, D]
        value:  [B, X, Hkv, Dv]
        return: [B, X, H, Dv], with return_lse a pair of it and the lse [B, X, H]
    Args:
        As ``neighborhood_attention``: numbers stand for every axis, tuples have one entry per axis.
    Raises:
        TypeError, ValueError: as ``neighborhood_attention``; query has another number of dimensions than four.
    Source: Hassani & Shi, arXiv:2209.15001, eq. 1-3; argument order of NATTEN 0.21.
    Example:
        >>> x = torch.arange(5.).reshape(1, 5, 1, 1)
        >>> na1d(torch.zeros_like(x), x, x, kernel_size=3).flatten()  # the window of token 0 is shifted: 0 1 2
        tensor([1., 1., 2., 3., 3.])
    """
    check_layout(query, ndim=1)
    return neighborhood_attention(
        query,
        key,
        value,
        kernel_size,
        stride,
        dilation,
        is_causal,
        scale,
        additional_keys,
        additional_values,
        rpb=rpb,
        key_mask=key_mask,
        return_lse=return_lse,
        impl=impl,
    )


def na2d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
    scale: float | Tensor | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    *,
    rpb: Tensor | None = None,
    key_mask: Tensor | None = None,
    return_lse: bool = False,
    impl: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Two-dimensional neighborhood attention, for images.

    Shapes:
        query:  [B, X, Y, H, D]
        key:    [B, X, Y, Hkv, D]
        value:  [B, X, Y, Hkv, Dv]
        return: [B, X, Y, H, Dv], with return_lse a pair of it and the lse [B, X, Y, H]
    Args:
        As ``neighborhood_attention``: numbers stand for every axis, tuples have one entry per axis.
    Raises:
        TypeError, ValueError: as ``neighborhood_attention``; query has another number of dimensions than five.
    Source: Hassani & Shi, arXiv:2209.15001, eq. 1-3; argument order of NATTEN 0.21.
    Example:
        >>> x = torch.arange(12.).reshape(1, 3, 4, 1, 1)  # q = 0: the plain mean over each window
        >>> na2d(torch.zeros_like(x), x, x, kernel_size=(3, 2))[0, ..., 0, 0]
        tensor([[4.5000, 4.5000, 5.5000, 6.5000],
                [4.5000, 4.5000, 5.5000, 6.5000],
                [4.5000, 4.5000, 5.5000, 6.5000]])
    """
    check_layout(query, ndim=2)
    return neighborhood_attention(
        query,
        key,
        value,
        kernel_size,
        stride,
        dilation,
        is_causal,
        scale,
        additional_keys,
        additional_values,
        rpb=rpb,
        key_mask=key_mask,
        return_lse=return_lse,
        impl=impl,
    )


def na3d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
    scale: float | Tensor | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    *,
    rpb: Tensor | None = None,
    key_mask: Tensor | None = None,
    return_lse: bool = False,
    impl: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Three-dimensional neighborhood attention, for video and volumes.

    Shapes:
        query:  [B, X, Y, Z, H, D]
        key:    [B, X, Y, Z, Hkv, D]
        value:  [B, X, Y, Z, Hkv, Dv]
        return: [B, X, Y, Z, H, Dv], with return_lse a pair of it and the lse [B, X, Y, Z, H]
    Args:
        As ``neighborhood_attention``: numbers stand for every axis, tuples have one entry per axis.
    Raises:
        TypeError, ValueError: as ``neighborhood_attention``; query has another number of dimensions than six.
    Source: Hassani & Shi, arXiv:2209.15001, eq. 1-3; argument order of NATTEN 0.21.
    Example:
        >>> video = torch.randn(1, 4, 6, 5, 2, 8)  # frames, height, width, heads, head_dim
        >>> na3d(video, video, video, kernel_size=(2, 3, 3), is_causal=(True, False, False)).shape
        torch.Size([1, 4, 6, 5, 2, 8])
    """
    check_layout(query, ndim=3)
    return neighborhood_attention(
        query,
        key,
        value,
        kernel_size,
        stride,
        dilation,
        is_causal,
        scale,
        additional_keys,
        additional_values,
        rpb=rpb,
        key_mask=key_mask,
        return_lse=return_lse,
        impl=impl,
    )
