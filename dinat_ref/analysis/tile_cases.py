"""Published answers to the question how many tiles a window visits: five use cases of the paper, five layers in use.

The paper's numbers are those of its simulator, end to end: ``end_to_end`` of the operator's bound, with the share of
the run that attention has. The tile shapes of the first case are stated in the paper; the others were found by search:
they give its numbers, but may not be those that it used.

The layers are those of Cosmos-Predict2 Video2World at 720p, each said there to be fully or highly block-sparse.
"""

from dataclasses import dataclass

from dinat_ref.neighborhood import Neighborhood


@dataclass(frozen=True)
class UseCase:
    """One row of the paper's tables: a model, a window, and the speedups of a whole run by stride.

    Args:
        share: of self attention in the time of a run.
        full_steps: the share of the steps of diffusion that keep full attention in the second column.
        published: for each stride the end-to-end speedup without full steps, and with them (None: not in the tables).
        flop_speedup: the first of these, FLOP-wise.
        stated: whether the paper names the tiles.
    Example:
        >>> USE_CASES[0].name, USE_CASES[0].published[(16, 8, 8)]
        ('HunyuanVideo', (2.23, 1.63))
    """

    name: str
    layout: tuple[int, ...]
    window: tuple[int, ...]
    share: float
    full_steps: float
    query_tile: tuple[int, ...]
    key_tile: tuple[int, ...]
    flop_speedup: float
    published: dict[tuple[int, ...], tuple[float, float | None]]
    stated: bool = False


# Source: arXiv:2504.16922, sections 4.1 and 4.2, appendix B.1.
USE_CASES = (
    UseCase(
        "HunyuanVideo",
        layout=(30, 48, 80),
        window=(18, 24, 24),
        share=0.607,
        full_steps=15 / 50,
        query_tile=(4, 8, 8),
        key_tile=(2, 8, 8),
        flop_speedup=2.23,
        published={
            (1, 1, 1): (1.73, 1.42),
            (2, 1, 1): (1.78, 1.44),
            (1, 1, 8): (1.99, 1.53),
            (2, 1, 8): (2.02, 1.55),
            (1, 8, 8): (2.17, 1.61),
            (2, 8, 8): (2.20, 1.62),
            (16, 8, 8): (2.23, 1.63),
            (18, 24, 24): (2.06, None),
        },
        stated=True,
    ),
    UseCase(
        "HunyuanVideo",
        layout=(30, 48, 80),
        window=(30, 40, 40),
        share=0.607,
        full_steps=15 / 50,
        query_tile=(2, 16, 8),
        key_tile=(2, 8, 8),
        flop_speedup=1.55,
        published={
            (1, 1, 1): (1.21, 1.14),
            (1, 1, 8): (1.44, 1.27),
            (1, 32, 8): (1.55, 1.33),
            (30, 40, 40): (1.44, None),
        },
    ),
    UseCase(
        "FLUX at 4K",
        layout=(256, 256),
        window=(80, 80),
        share=0.518,
        full_steps=9 / 28,
        query_tile=(16, 16),
        key_tile=(16, 8),
        flop_speedup=1.88,
        published={(1, 1): (1.76, 1.42), (16, 1): (1.84, 1.45), (16, 16): (1.88, 1.46)},
    ),
    UseCase(
        "Cosmos-7B",
        layout=(16, 44, 80),
        window=(16, 32, 48),
        share=0.587,
        full_steps=12 / 35,
        query_tile=(2, 4, 8),
        key_tile=(16, 4, 1),
        flop_speedup=1.50,
        published={
            (1, 1, 1): (1.35, 1.21),
            (1, 8, 1): (1.42, 1.24),
            (1, 1, 16): (1.42, 1.24),
            (1, 8, 16): (1.50, 1.28),
        },
    ),
    UseCase(
        "Cosmos-7B",
        layout=(16, 44, 80),
        window=(16, 24, 16),
        share=0.587,
        full_steps=12 / 35,
        query_tile=(2, 4, 8),
        key_tile=(4, 4, 8),
        flop_speedup=2.10,
        published={
            (1, 1, 1): (1.90, 1.45),
            (1, 8, 1): (1.96, 1.48),
            (1, 1, 16): (2.05, 1.51),
            (1, 8, 16): (2.10, 1.52),
        },
    ),
)

FRAMES = 24  # of latent video; 16 at 10 frames a second

# Source: NVIDIA's repository cosmos-predict2, the layers of the 2B and 14B networks; the whole axis of time.
PRODUCTION = {
    "4x16, dilation 11x5": Neighborhood((FRAMES, 44, 80), (FRAMES, 4, 16), dilation=(1, 11, 5)),
    "12x16, stride 4x1, dilation 1x5": Neighborhood((FRAMES, 44, 80), (FRAMES, 12, 16), (1, 4, 1), (1, 1, 5)),
    "12x24, stride 4x8": Neighborhood((FRAMES, 44, 80), (FRAMES, 12, 24), (1, 4, 8)),
    "20x40, stride 4x8": Neighborhood((FRAMES, 44, 80), (FRAMES, 20, 40), (1, 4, 8)),
    "28x56, stride 4x8": Neighborhood((FRAMES, 44, 80), (FRAMES, 28, 56), (1, 4, 8)),
}
