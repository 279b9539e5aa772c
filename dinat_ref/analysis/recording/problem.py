"""Small problems, made to be read: what a recorded run computes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dinat_ref.analysis.attention_maps import check_token
from dinat_ref.attention.operands import Operands, prepare
from dinat_ref.neighborhood import Neighborhood

MOST_TOKENS = 144
MOST_SCORES = 2048


@dataclass(frozen=True)
class Problem:
    """A neighborhood of one or two axes and the seed of its numbers: one head, queries of dimension 2, values of 1.

    Raises:
        ValueError: more than two axes, or more tokens or scores than one would read.
    Example:
        >>> problem = Problem("edges", Neighborhood((4, 5), kernel_size=3))
        >>> problem.operands().value[0, ..., 0, 0]
        tensor([[2., 9., 4., 3., 9.],
                [3., 9., 3., 9., 8.],
                [5., 3., 2., 8., 5.],
                [6., 6., 5., 7., 2.]])
    """

    name: str
    neighborhood: Neighborhood
    bias: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what nobody would read, before anything is computed."""
        check_readable(self.neighborhood.layout, self.neighborhood.num_keys)

    def token_number(self, token: Sequence[int]) -> int:
        """The row-major number of a token of the layout.

        Raises:
            ValueError: the token is not in the layout.
        """
        check_token(self.neighborhood, token)
        return self.neighborhood.number(token)

    def operands(self) -> Operands:
        """Make queries and keys of one decimal, values of one digit, and with ``bias`` a table of one decimal."""
        layout, sizes = self.neighborhood.layout, self.neighborhood.kernel_size
        generator = torch.Generator().manual_seed(self.seed)
        query, key = torch.randn(2, 1, *layout, 1, 2, generator=generator).mul(10).round().div(10)
        value = torch.randint(0, 10, (1, *layout, 1, 1), generator=generator).float()
        rpb = None
        if self.bias:
            rpb = torch.randn(1, *(2 * size - 1 for size in sizes), generator=generator).mul(10).round().div(10)
        return prepare(query, key, value, self.neighborhood, rpb=rpb)


def check_readable(layout: Sequence[int], num_keys: int = 1) -> None:
    """Raise unless a run of this size can be read, and drawn.

    Raises:
        ValueError: more than two axes, or more tokens or scores than one would read.
    Example:
        >>> check_readable((1000, 1000))
        Traceback (most recent call last):
        ValueError: layout must have at most 144 tokens, it is to be read; got 1000 x 1000 = 1000000
    """
    if len(layout) > 2:
        raise ValueError(f"layout must have one axis or two, to be drawn; got {len(layout)}")
    tokens = math.prod(layout)
    if tokens > MOST_TOKENS:
        text = " x ".join(map(str, layout))
        raise ValueError(f"layout must have at most {MOST_TOKENS} tokens, it is to be read; got {text} = {tokens}")
    if tokens * num_keys > MOST_SCORES:
        scores = f"{tokens} tokens * {num_keys} keys = {tokens * num_keys}"
        raise ValueError(f"a run must have at most {MOST_SCORES} scores, it is to be read; got {scores}")


def examples(formulation: str) -> list[Problem]:
    """The problems that show what is to be seen of a formulation.

    Example:
        >>> [problem.name for problem in examples("loops")]
        ['edges', 'dilated', 'strided', 'causal']
        >>> examples("tiled")[0].neighborhood.layout  # smaller ones would be a single tile
        (12, 12)
    """
    if formulation == "tiled":
        return [
            Problem("edges", Neighborhood((12, 12), kernel_size=3)),
            Problem("dilated", Neighborhood((8, 8), kernel_size=3, dilation=2)),
            Problem("causal", Neighborhood((40,), kernel_size=3, is_causal=True)),
        ]
    return [
        Problem("edges", Neighborhood((4, 5), kernel_size=3)),
        Problem("dilated", Neighborhood((6, 7), kernel_size=3, dilation=2)),
        Problem("strided", Neighborhood((3, 6), kernel_size=3, stride=3)),  # Swin's blocks
        Problem("causal", Neighborhood((8,), kernel_size=3, is_causal=True)),
    ]
