"""The right kernel that all wrong ones are made from, and the corpus that they are entered into.

``DenseKernel`` is attention with a dense mask, cut into small steps. A wrong kernel is a subclass that changes one
of them; what it changes is the whole bug.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dinat_ref.attention.operands import Operands, check_layout, prepare
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.supports import Supports
from dinat_ref.window import window

FULL = Supports(rpb=True, double_backward=True, nan_outside=False)  # dense: 0 * NaN is NaN


class DenseKernel:
    """A right kernel, in steps.

    Shapes:
        query [B, *layout, H, D], key [B, *layout, Hkv, D], value [B, *layout, Hkv, Dv] -> [B, *layout, H, Dv]
    Raises:
        ValueError: illegal arguments.
    Source: arXiv:2209.15001, eq. 1-3.
    Example:
        >>> x = torch.arange(5.0).reshape(1, 5, 1, 1)
        >>> DenseKernel()(torch.zeros_like(x), x, x, kernel_size=3).flatten()
        tensor([1., 1., 2., 3., 3.])
    """

    def __init__(self) -> None:
        """Remember masks, which cost more than the attention of a few tokens."""
        self.tables: dict[Any, Any] = {}

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        is_causal: bool | Sequence[bool] = False,
        scale: float | None = None,
        additional_keys: Tensor | None = None,
        additional_values: Tensor | None = None,
        rpb: Tensor | None = None,
        return_lse: bool = False,
    ) -> Any:
        """Check, then attend."""
        arguments = (kernel_size, stride, dilation, is_causal)
        with torch.autocast(query.device.type, enabled=False):
            operands = self.check(query, key, value, arguments, scale, rpb, additional_keys, additional_values)
            scale = self.scale(scale, query.shape[-1], return_lse)
            output, lse = self.attend(operands, scale)
            output = output.to(query.dtype)
        return (output, lse) if return_lse else output

    def check(self, query: Tensor, key: Tensor, value: Tensor, arguments: Any, scale: Any, *rest: Any) -> Operands:
        """Refuse illegal arguments."""
        return prepare(query, key, value, Neighborhood(check_layout(query), *arguments), None, *rest)

    def scale(self, scale: float | None, head_dim: int, return_lse: bool) -> float:
        """The factor of the dot products."""
        return head_dim**-0.5 if scale is None else scale

    def axis_window(self, i: int, length: int, k: int, s: int, d: int, causal: bool) -> Iterable[int]:
        """The keys of one query on one axis; a position outside the axis counts as a padded token of zeros."""
        return window(i, length, k, s, d, causal)

    def axes(self, neighborhood: Neighborhood) -> list[tuple[int, int, int, int, bool]]:
        """The arguments of each axis."""
        return list(neighborhood.axes)

    def mask(self, neighborhood: Neighborhood) -> tuple[Tensor, Tensor]:
        """Which key each query attends [N, N], and how many padded tokens it attends beside them [N]."""
        if neighborhood not in self.tables:
            self.tables[neighborhood] = self.build_mask(neighborhood)
        found: tuple[Tensor, Tensor] = self.tables[neighborhood]
        return found

    def build_mask(self, neighborhood: Neighborhood) -> tuple[Tensor, Tensor]:
        """Combine the windows of the axes."""
        mask, keys = torch.ones(1, 1, dtype=torch.bool), torch.ones(1, dtype=torch.int64)
        for length, k, s, d, causal in self.axes(neighborhood):
            rows = [list(self.axis_window(i, length, k, s, d, causal)) for i in range(length)]
            attends = torch.zeros(length, length, dtype=torch.bool)
            for i, row in enumerate(rows):
                attends[i, [j for j in row if 0 <= j < length]] = True
            count = torch.tensor([len(row) for row in rows])
            mask = (mask[:, None, :, None] & attends[None, :, None, :]).flatten(2).flatten(0, 1)
            keys = (keys[:, None] * count).flatten()
        return mask, keys - mask.sum(1)

    def heads(self, tensor: Tensor, group_size: int) -> Tensor:
        """Bring keys or values [B, n, Hkv, D] to the query's heads: [B, H, n, D]."""
        return tensor.transpose(1, 2).repeat_interleave(group_size, dim=1)

    def bias_offset(self, i: int, j: int, k: int, d: int, length: int) -> int:
        """The index into the bias table of one axis."""
        return (j - i) // d + k - 1

    def bias(self, operands: Operands, scale: float) -> Tensor | float:
        """The relative positional bias of all pairs [H, N, N], 0 outside the windows."""
        if operands.rpb is None:
            return 0.0
        neighborhood = operands.neighborhood
        mask, _ = self.mask(neighborhood)
        if ("bias", neighborhood) not in self.tables:
            index = [torch.zeros_like(mask, dtype=torch.int64) for _ in neighborhood.layout]
            tokens = list(neighborhood.tokens())
            for n, m in mask.nonzero().tolist():
                for axis, (length, k, _, d, _) in enumerate(neighborhood.axes):
                    index[axis][n, m] = self.bias_offset(tokens[n][axis], tokens[m][axis], k, d, length) % (2 * k - 1)
            self.tables["bias", neighborhood] = index
        return operands.rpb[(slice(None), *self.tables["bias", neighborhood])]

    def attend(self, operands: Operands, scale: float) -> tuple[Tensor, Tensor]:
        """Scores, softmax, weighted sum: (output, lse)."""
        query = operands.query.flatten(1, -3).transpose(1, 2)  # [B, H, N, D]
        key, value = operands.key.flatten(1, -3), operands.value.flatten(1, -3)  # [B, N, Hkv, D]
        scores = self.dot(query, self.heads(key, operands.group_size), scale) + self.bias(operands, scale)
        mask, padded = self.mask(operands.neighborhood)
        values = self.heads(value, operands.group_size)
        scores, mask = self.window_scores(scores, mask.to(scores.device)), mask
        if int(padded.max()):
            zeros = torch.arange(int(padded.max())) < padded[:, None]  # [N, pads]
            pads = torch.zeros(zeros.shape, dtype=scores.dtype).masked_fill(~zeros, -torch.inf)
            scores = torch.cat([scores, pads.expand(*scores.shape[:2], -1, -1)], dim=-1)
            values = torch.nn.functional.pad(values, (0, 0, 0, int(padded.max())))
        if operands.additional_keys is not None and operands.additional_values is not None:
            extra_keys = self.heads(operands.additional_keys, operands.group_size)
            extra = self.extra_scores(self.dot(query, extra_keys, scale), query, extra_keys)
            scores = torch.cat([scores, extra], dim=-1)
            values = torch.cat([values, self.heads(operands.additional_values, operands.group_size)], dim=2)
        weights = self.normalise(scores, mask)
        output = self.total(weights, values)  # [B, H, N, Dv]
        lse = self.lse(scores, mask.shape[1])  # [B, H, N]
        return self.finish(output, lse, operands)

    def dot(self, query: Tensor, key: Tensor, scale: float) -> Tensor:
        """The scaled dot products of all pairs."""
        return scale * (query @ key.mT)

    def window_scores(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Forbid what lies outside the windows."""
        return scores.masked_fill(~mask, -torch.inf)

    def extra_scores(self, scores: Tensor, query: Tensor, keys: Tensor) -> Tensor:
        """The scores of the additional keys."""
        return scores

    def normalise(self, scores: Tensor, mask: Tensor) -> Tensor:
        """From scores to weights."""
        return torch.softmax(scores, dim=-1)

    def total(self, weights: Tensor, values: Tensor) -> Tensor:
        """The weighted sum of the values."""
        return weights @ values

    def lse(self, scores: Tensor, tokens: int) -> Tensor:
        """The logarithm of the softmax's denominator."""
        return torch.logsumexp(scores, dim=-1)

    def finish(self, output: Tensor, lse: Tensor, operands: Operands) -> tuple[Tensor, Tensor]:
        """Back to heads-last."""
        layout = operands.neighborhood.layout
        return output.transpose(1, 2).unflatten(1, layout), lse.transpose(1, 2).unflatten(1, layout)


@dataclass
class Sabotage:
    """A wrong kernel of the corpus.

    Args:
        found_by: the ids of the checks that name the bug; the first is enough to reject the kernel.
        looks_like: the bug in a few words, as a diagnosis says it; empty where the check's own words are enough.
        seen_in: who shipped it, or which code warns of it.
    Example:
        >>> from dinat_ref.testing.sabotage import CORPUS
        >>> CORPUS["stride_downsamples"].seen_in
        'natten-mps, natten-mlx'
    """

    name: str
    function: Callable[..., Any]
    found_by: tuple[str, ...]
    looks_like: str
    seen_in: str
    symptom: str = ""
    supports: Supports = FULL
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def diagnosis(self) -> str:
        """The bug and where it was seen."""
        return f"{self.looks_like} (seen in {self.seen_in})"

    def kernel(self) -> Kernel:
        """The wrong kernel, ready to be checked."""
        return Kernel(self.function, self.supports)

    def explains(self, message: str) -> bool:
        """Whether the words of a finding fit this bug."""
        return self.symptom in message


CORPUS: dict[str, Sabotage] = {}


def sabotage(
    *found_by: str, looks_like: str = "", seen_in: str = "ports", symptom: str = "", supports: Supports = FULL
) -> Callable[[type[DenseKernel]], type[DenseKernel]]:
    """Enter a class of wrong kernels into the corpus, under its name in snake case.

    Shapes:
        return: a decorator that returns the class itself
    Raises:
        ValueError: no check is named.
    Example:
        >>> sabotage()(DenseKernel)
        Traceback (most recent call last):
        ValueError: a wrong kernel must name the check that finds it
    """

    def enter(kind: type[DenseKernel]) -> type[DenseKernel]:
        if not found_by:
            raise ValueError("a wrong kernel must name the check that finds it")
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
        function = kind()
        function.__name__ = name  # type: ignore[attr-defined]
        CORPUS[name] = Sabotage(name, function, found_by, looks_like, seen_in, symptom, supports)
        return kind

    return enter


def group_of(i: int, length: int, dilation: int) -> tuple[int, int, int]:
    """The dilation group of a position, the position in it, and the length of the group.

    Shapes:
        return: three integers
    Source: arXiv:2209.15001, section 3.2.
    Example:
        >>> group_of(4, 7, 3)
        (1, 1, 2)
    """
    g = i % dilation
    return g, i // dilation, math.ceil((length - g) / dilation)
