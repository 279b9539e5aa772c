"""The problems that are measured: DiNAT's layers, a photo, a video, a long sequence, and growing maps.

No PyTorch until a problem is asked for its tensors, so that ``--help`` is there at once.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from dinat_ref.neighborhood import Neighborhood


@dataclass(frozen=True)
class Problem:
    """One shape of the operator.

    Shapes:
        query, key, value: [batch, *layout, heads, head_dim]
    Source: arXiv:2209.15001, table 1.
    Example:
        >>> print(Problem((56, 56), kernel_size=(7, 7), heads=2, batch=8))
        8 x 56x56 x 2 heads, kernel 7x7, dilation 1x1
    """

    layout: tuple[int, ...]
    kernel_size: tuple[int, ...]
    heads: int
    batch: int = 1
    dilation: tuple[int, ...] = ()
    head_dim: int = 32
    dtype: str = "float32"

    def __str__(self) -> str:
        """Name the shape."""
        layout, kernel, dilation = ("x".join(map(str, x)) for x in (self.layout, self.kernel_size, self.dilations))
        return f"{self.batch} x {layout} x {self.heads} heads, kernel {kernel}, dilation {dilation}"

    @property
    def dilations(self) -> tuple[int, ...]:
        """One dilation per axis."""
        return self.dilation or (1,) * len(self.layout)

    @property
    def num_tokens(self) -> int:
        """N, without the batch."""
        return math.prod(self.layout)

    @property
    def num_keys(self) -> int:
        """K, of each query."""
        return math.prod(self.kernel_size)

    @property
    def products(self) -> int:
        """How many multiply-adds the scores and the sums of values take."""
        return 2 * self.batch * self.num_tokens * self.num_keys * self.heads * self.head_dim

    @property
    def neighborhood(self) -> "Neighborhood":
        """The windows of this problem."""
        from dinat_ref.neighborhood import Neighborhood

        return Neighborhood(self.layout, self.kernel_size, dilation=self.dilations)

    def operands(self, seed: int = 0) -> "list[Tensor]":
        """Draw query, key and value, each [B, *layout, H, D]."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        shape = (self.batch, *self.layout, self.heads, self.head_dim)
        return [torch.randn(shape, generator=generator).to(getattr(torch, self.dtype)) for _ in range(3)]


def square(
    length: int, heads: int, kernel_size: int = 7, dilation: int = 1, batch: int = 8, dtype: str = "float32"
) -> Problem:
    """Make a problem on a square map.

    Shapes:
        return: a Problem of two axes
    Example:
        >>> square(14, 8, dilation=2).dilations
        (2, 2)
    """
    return Problem((length, length), (kernel_size, kernel_size), heads, batch, (dilation, dilation), dtype=dtype)


SHAPES: dict[str, list[Problem]] = {
    "dinat": [
        square(56, 2),
        square(56, 2, dilation=8),
        square(28, 4),
        square(28, 4, dilation=4),
        square(14, 8),
        square(14, 8, dilation=2),
        square(7, 16),
        square(128, 4, kernel_size=13, batch=1),
        square(128, 4, kernel_size=13, dilation=4, batch=1),
    ],
    "photo": [Problem((600, 512), (13, 13), heads=1)],
    "video": [Problem((16, 64, 64), (3, 7, 7), heads=2)],
    "long": [Problem((65536,), (129,), heads=2)],
    "scaling": [
        Problem((rows, columns), (7, 7), heads=2)
        for rows, columns in ((64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512))
    ],
    "tiny": [Problem((6, 7), (3, 3), heads=2)],
}
