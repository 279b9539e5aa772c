"""The tiles of known kernels: how many queries and keys at once, and in which shapes on two and three axes.

A kernel's matrix product fixes how many tokens a tile has; how they lie on the axes is a choice, of those that its
authors compiled. Shapes are given for one, two and three axes; the first of each is the kernel's own default.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Shape = tuple[int, ...]
Pair = tuple[Shape, Shape]  # a tile of queries, a tile of keys


@dataclass(frozen=True)
class KernelTiles:
    """The tile shapes of a kernel.

    Args:
        shapes: (tile of queries, tile of keys), by number of axes.
        tiling: "static" or "dynamic", as ``count_tiles`` takes it.
        source: where this is written.
    Example:
        >>> PRESETS["blackwell"].shapes[2][0]
        ((16, 16), (16, 8))
    """

    name: str
    what: str
    shapes: dict[int, tuple[Pair, ...]]
    tiling: str
    source: str


def splits(tokens: int, ndim: int, smallest: int = 2) -> Iterator[Shape]:
    """List how a tile of 2^e tokens can lie on some axes, a power of two on each, the most even shapes first.

    Example:
        >>> list(splits(64, 2))
        [(8, 8), (4, 16), (16, 4), (2, 32), (32, 2)]
        >>> list(splits(64, 1))
        [(64,)]
    """
    sizes = [smallest << exponent for exponent in range(tokens.bit_length()) if smallest << exponent <= tokens]
    found = [shape for shape in itertools.product(sizes, repeat=ndim) if math.prod(shape) == tokens]
    yield from sorted(found, key=lambda shape: (sum(shape), shape))


def _fused(queries: int, keys: int) -> dict[int, tuple[Pair, ...]]:
    """NATTEN's rule: a tile of keys is a tile of queries, or grows from it by doubling axes."""

    def grows(query_tile: Shape, key_tile: Shape) -> bool:
        return all(size % own == 0 for own, size in zip(query_tile, key_tile, strict=True))

    return _pairs(queries, keys, grows)


def _pairs(queries: int, keys: int, fits: Callable[[Shape, Shape], bool]) -> dict[int, tuple[Pair, ...]]:
    every = {ndim: itertools.product(splits(queries, ndim), splits(keys, ndim)) for ndim in (1, 2, 3)}
    return {ndim: tuple(pair for pair in pairs if fits(*pair)) for ndim, pairs in every.items()}


NATTEN = "NATTEN 0.21.6, natten/backends/configs"

PRESETS = {
    preset.name: preset
    for preset in (
        KernelTiles("fna", "NATTEN's FNA, any GPU, 64 x 64", _fused(64, 64), "dynamic", f"{NATTEN}/cutlass"),
        KernelTiles("fna-64x128", "NATTEN's FNA, A100 and H100", _fused(64, 128), "dynamic", f"{NATTEN}/cutlass"),
        KernelTiles("fna-32x128", "NATTEN's FNA, any GPU, 32 x 128", _fused(32, 128), "dynamic", f"{NATTEN}/cutlass"),
        KernelTiles(
            "hopper-64",
            "NATTEN's Hopper FNA, head_dim 32 and 64",
            {
                1: (((64,), (128,)),),
                2: (((8, 8), (16, 8)), ((8, 8), (8, 16))),
                3: (((4, 4, 4), (4, 4, 8)), ((4, 4, 4), (2, 8, 8))),
            },
            "static",
            f"{NATTEN}/cutlass_hopper",
        ),
        KernelTiles(
            "hopper",
            "NATTEN's Hopper FNA, head_dim 128",
            {
                1: (((128,), (128,)),),
                2: (((16, 8), (16, 8)),),
                3: (((4, 4, 8), (4, 4, 8)), ((2, 8, 8), (2, 8, 8))),
            },
            "static",
            f"{NATTEN}/cutlass_hopper",
        ),
        KernelTiles(
            "hopper-256",
            "NATTEN's Hopper FNA, head_dim 256",
            {
                1: (((128,), (64,)),),
                2: (((16, 8), (8, 8)), ((8, 16), (8, 8))),
                3: (((4, 4, 8), (4, 4, 4)), ((2, 8, 8), (4, 4, 4))),
            },
            "static",
            f"{NATTEN}/cutlass_hopper",
        ),
        KernelTiles(
            "blackwell",
            "NATTEN's Blackwell FNA, B200 and B300",
            {
                1: (((256,), (128,)),),
                2: (((16, 16), (16, 8)), ((16, 16), (8, 16)), ((8, 32), (8, 16)), ((8, 32), (4, 32))),
                3: (
                    ((8, 4, 8), (4, 4, 8)),
                    ((8, 4, 8), (2, 8, 8)),
                    ((2, 8, 16), (4, 4, 8)),
                    ((2, 8, 16), (2, 8, 8)),
                    ((4, 4, 16), (2, 4, 16)),
                    ((2, 16, 8), (2, 8, 8)),
                    ((4, 8, 8), (2, 8, 8)),
                ),
            },
            "static",
            f"{NATTEN}/cutlass_blackwell",
        ),
        KernelTiles(
            "flex",
            "PyTorch's FlexAttention, 128 x 128, tokens permuted by tile_permutation",
            _pairs(128, 128, lambda query_tile, key_tile: query_tile == key_tile),
            "static",
            "PyTorch, torch.nn.attention.flex_attention.create_block_mask",
        ),
    )
}
