"""Bias tables for another kernel size: bicubic interpolation over the offsets."""

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn.functional import interpolate

from dinat_ref.neighborhood import per_axis


def resize_rpb(rpb: Tensor, kernel_size: int | Sequence[int]) -> Tensor:
    """Bring a relative positional bias to another kernel size.

    The table is stretched so that its rim, the most distant offsets, stays the rim: a model made for 7 x 7 windows
    starts from the same picture of distance with 11 x 11. For full attention the kernel is the map, so this is also
    how it goes to another resolution.

    Shapes:
        rpb: [heads, 2k-1, 2k-1]
        return: [heads, 2k'-1, 2k'-1], k' the new kernel size
    Args:
        kernel_size: the new one, one number or one per axis.
    Raises:
        ValueError: a table of another number of dimensions than three; a kernel size below 1.
    Source: Liu et al., arXiv:2103.14030, section 4.1 (bicubic interpolation of the bias for another window size).
    Example:
        >>> import torch
        >>> resize_rpb(torch.ones(2, 13, 13), kernel_size=11).shape
        torch.Size([2, 21, 21])
    """
    if rpb.ndim != 3:
        raise ValueError(f"rpb must be [heads, 2k-1, 2k-1], got {tuple(rpb.shape)}")
    sizes = per_axis("kernel_size", kernel_size, tuple(rpb.shape[1:]))
    if min(sizes) < 1:
        raise ValueError(f"kernel_size must be at least 1, got {kernel_size}")
    offsets = [2 * size - 1 for size in sizes]
    if offsets == list(rpb.shape[1:]):
        return rpb
    return interpolate(rpb[None], size=offsets, mode="bicubic", align_corners=False)[0]


def fit_bias_tables(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Resize the bias tables of a state to the shapes that a model has; everything else stays as it is.

    Shapes:
        state: tensors by name
        shapes: the model's shapes by name
    Raises:
        Nothing: a table with another number of heads stays, and then does not fit.
    Source: as ``resize_rpb``.
    Example:
        >>> import torch
        >>> fit_bias_tables({"attn.rpb": torch.ones(2, 13, 13)}, {"attn.rpb": (2, 21, 21)})["attn.rpb"].shape
        torch.Size([2, 21, 21])
    """
    fitted = dict(state)
    for name, tensor in state.items():
        shape = shapes.get(name)
        if name.endswith("rpb") and shape is not None and tensor.ndim == 3 and tensor.shape[0] == shape[0]:
            fitted[name] = resize_rpb(tensor, [(offsets + 1) // 2 for offsets in shape[1:]])
    return fitted
