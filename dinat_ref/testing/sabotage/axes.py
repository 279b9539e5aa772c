"""Wrong windows that need two axes to show."""

from typing import Any

import torch
from torch import Tensor

from dinat_ref.attention.operands import Operands
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.testing.sabotage.base import DenseKernel, sabotage

Axes = list[tuple[int, int, int, int, bool]]


def reversed_entry(neighborhood: Neighborhood, entry: int) -> Axes:
    """The axes with one of their arguments in the wrong order, where that is legal."""
    axes = [list(axis) for axis in neighborhood.axes]
    values = [axis[entry] for axis in axes][::-1]
    for axis, value in zip(axes, values, strict=True):
        axis[entry] = value
    legal = all(k * d <= length and s <= k for length, k, s, d, _ in axes)
    return [tuple(axis) for axis in axes] if legal else list(neighborhood.axes)  # type: ignore[misc]


class SwappedClamp(DenseKernel):
    """Two plain axes, each clamped by the length of the other."""

    swap_kernel_size = False

    def build_mask(self, neighborhood: Neighborhood) -> tuple[Tensor, Tensor]:
        """Clamp each axis by the length of the other, with its own kernel size or the other's."""
        plain = not any(neighborhood.is_causal) and max(neighborhood.stride + neighborhood.dilation) == 1
        if neighborhood.ndim != 2 or not plain:
            return super().build_mask(neighborhood)
        mask, sizes = torch.ones(1, 1, dtype=torch.bool), neighborhood.kernel_size
        sizes = sizes[::-1] if self.swap_kernel_size else sizes
        for length, other, k in zip(neighborhood.layout, neighborhood.layout[::-1], sizes, strict=True):
            half = k // 2
            centre = torch.arange(length).clamp(half, other - 1 - half)
            distance = torch.arange(length) - centre[:, None]
            attends = (distance >= -half) & (distance < k - half)
            mask = (mask[:, None, :, None] & attends[None, :, None, :]).flatten(2).flatten(0, 1)
        return mask, torch.zeros(len(mask), dtype=torch.int64)


@sabotage("W17-two-axes", "W11-odd-kernels", looks_like="height and width swapped", seen_in="attention-gym")
class HeightAndWidthSwapped(SwappedClamp):
    """Rows are clamped by the number of columns and get the kernel size of the columns, and the other way round."""

    swap_kernel_size = True


@sabotage("W17-two-axes", looks_like="rows clamped by the width and columns by the height")
class RowsClampedByWidth(SwappedClamp):
    """Only the lengths are exchanged."""


@sabotage("W17-two-axes", looks_like="kernel sizes applied to the axes in reverse order")
class KernelSizesReversed(DenseKernel):
    """(kx, ky) used as (ky, kx)."""

    def axes(self, neighborhood: Neighborhood) -> Axes:
        """Reverse the kernel sizes."""
        return reversed_entry(neighborhood, 1)


@sabotage("W17-two-axes", looks_like="strides applied to the axes in reverse order")
class StridesReversed(DenseKernel):
    """(sx, sy) used as (sy, sx)."""

    def axes(self, neighborhood: Neighborhood) -> Axes:
        """Reverse the strides."""
        return reversed_entry(neighborhood, 2)


@sabotage("W17-two-axes", looks_like="dilations applied to the axes in reverse order")
class DilationsReversed(DenseKernel):
    """(dx, dy) used as (dy, dx)."""

    def axes(self, neighborhood: Neighborhood) -> Axes:
        """Reverse the dilations."""
        return reversed_entry(neighborhood, 3)


@sabotage("W17-two-axes", looks_like="causality applied to the axes in reverse order")
class CausalityReversed(DenseKernel):
    """(cx, cy) used as (cy, cx)."""

    def axes(self, neighborhood: Neighborhood) -> Axes:
        """Reverse the flags."""
        return reversed_entry(neighborhood, 4)


@sabotage("W17-two-axes", looks_like="first axis's kernel size used for all axes")
class FirstKernelSizeForAll(DenseKernel):
    """kernel_size[0] on every axis, where it fits."""

    def axes(self, neighborhood: Neighborhood) -> Axes:
        """Repeat the first kernel size."""
        k = neighborhood.kernel_size[0]
        return [(length, k if k * d <= length else own, min(s, k), d, c) for length, own, s, d, c in neighborhood.axes]


@sabotage("W17-two-axes", looks_like="is_causal on one axis taken for all axes", seen_in="fused-causal ports")
class CausalOnAllAxes(DenseKernel):
    """One causal axis makes the others causal."""

    def axes(self, neighborhood: Neighborhood) -> Axes:
        """Spread the flag."""
        causal = any(neighborhood.is_causal)
        return [(length, k, s, d, causal) for length, k, s, d, _ in neighborhood.axes]


@sabotage("W17-two-axes", looks_like="causality compares row-major token numbers")
class CausalByTokenNumber(DenseKernel):
    """'Behind' is decided by the row-major number instead of by each causal axis."""

    def build_mask(self, neighborhood: Neighborhood) -> tuple[Tensor, Tensor]:
        """The plain window minus larger token numbers."""
        if neighborhood.ndim == 1 or not all(neighborhood.is_causal):
            return super().build_mask(neighborhood)
        axes = (neighborhood.layout, tuple(2 * k - 1 for k in neighborhood.kernel_size))
        if any(k * d > length for length, k, d in zip(*axes, neighborhood.dilation, strict=True)):
            return super().build_mask(neighborhood)
        wide = Neighborhood(*axes, 1, neighborhood.dilation).mask()
        return wide & torch.ones_like(wide).tril(), torch.zeros(len(wide), dtype=torch.int64)


@sabotage("W17-two-axes", looks_like="tokens numbered column by column")
class ColumnMajorTokens(DenseKernel):
    """Keys are looked up by x + y * X, which is right on square layouts only when all is symmetric."""

    def build_mask(self, neighborhood: Neighborhood) -> tuple[Tensor, Tensor]:
        """Renumber the keys of two-dimensional layouts."""
        mask, padded = super().build_mask(neighborhood)
        if neighborhood.ndim == 2:
            order = torch.arange(len(mask)).reshape(neighborhood.layout).T.flatten()
            mask = mask[:, order]
        return mask, padded


@sabotage("W18-three-axes", looks_like="third axis not shifted at its edges", seen_in="3-D kernels made from 2-D ones")
class ThirdAxisClipped(DenseKernel):
    """Three axes: the first one is clipped, not shifted."""

    def build_mask(self, neighborhood: Neighborhood) -> tuple[Tensor, Tensor]:
        """Drop the keys farther than k // 2 on the first axis."""
        mask, padded = super().build_mask(neighborhood)
        _, k, s, d, causal = neighborhood.axes[0]
        if neighborhood.ndim == 3 and not causal and s == 1:
            first = torch.tensor([token[0] for token in neighborhood.tokens()])
            near = (first[None] - first[:, None]).abs() <= k // 2 * d
            mask = mask & near
        return mask, padded


@sabotage(
    "W01-output-shape", "W14-stride", looks_like="stride downsamples the output", seen_in="natten-mps, natten-mlx"
)
class StrideDownsamples(DenseKernel):
    """Only every s-th query is computed, and centred on itself."""

    def axes(self, neighborhood: Neighborhood) -> Axes:
        """Windows without stride."""
        return [(length, k, 1, d, causal) for length, k, _, d, causal in neighborhood.axes]

    def finish(self, output: Tensor, lse: Tensor, operands: Operands) -> tuple[Tensor, Tensor]:
        """Keep the first query of each stride group."""
        output, lse = super().finish(output, lse, operands)
        kept: Any = (slice(None), *(slice(None, None, stride) for stride in operands.neighborhood.stride))
        return output[kept], lse[kept]
