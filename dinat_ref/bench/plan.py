"""What ``dinat-ref bench`` is going to do, and for how long: the names of everybody, and an estimate.

No PyTorch here, so that ``--help`` is there at once.
"""

from collections.abc import Iterable

from dinat_ref.bench.shapes import Problem

PATIENCE = 20.0  # seconds at one shape after which a contender takes no further turns
START = 4.0  # seconds until a process of its own has imported PyTorch
COMPILING = 15.0

# how many times the seconds of the limit a forward pass takes, roughly; None: it takes no part at these sizes
CONTENDERS: dict[str, float | None] = {
    "limit": 1,
    "loops": None,
    "gather": 100,
    "unfold": 80,
    "masked": None,
    "tiled": 3,
    "auto": 3,
    "split form": 7,
    "layer": 6,
    "layer, dropout": 12,
    "limit, bfloat16": 1,
    "limit, float16": 1,
    "auto, bfloat16": 3,
    "auto, float16": 3,
    "dense attention": None,
    "gather, compiled": 20,
    "tiled, compiled": 3,
    "flex, compiled": 20,
    "natten": 100,
}
DENSE = 0.5  # of masked and dense attention, for each key of the layout instead of each key of a window
# multiply-adds of an image, in thousands of millions
MODELS = {
    "DiNAT-Tiny": 4.3,
    "NAT-Tiny": 4.3,
    "DiNAT_s-Tiny": 4.5,
    "Swin-Tiny": 4.5,
    "ConvNeXt-Tiny": 4.5,
    "DiNAT-Mini": 2.7,
    "of transformers": 2.7,
    "values only": 2.6,
}
BACKWARD = 3.5  # forward + backward, as a multiple of the forward pass


def estimated_seconds(
    problem: Problem, name: str, rounds: int, backward: bool, memory: bool, plain: bool, product: float
) -> float:
    """Estimate what a contender will cost at one shape.

    Args:
        product: seconds of a multiply-add on this machine, in large matrices.
    Example:
        >>> from dinat_ref.bench.shapes import square
        >>> settings = {"rounds": 5, "backward": False, "memory": False, "plain": False, "product": 2e-11}
        >>> [round(estimated_seconds(square(56, 2), name, **settings), 1) for name in ("limit", "gather", "loops")]
        [0.1, 4.7, 0.0]
    """
    times = CONTENDERS[name]
    if name in ("masked", "dense attention"):
        times = DENSE * problem.num_tokens / problem.num_keys
    if times is None:
        return 0.0
    run = times * 2.5 * problem.products * product  # small matrices reach less than half the speed of large ones
    runs = (2 if run < 0.3 else 1) * (rounds + 1)  # short runs fill the caches first; the first round warms up
    passes = 1 + (BACKWARD if backward else 0) + (1 if plain else 0)
    cost = min(PATIENCE, runs * passes * run + ("compiled" in name) * COMPILING)
    return cost + START * (int(memory and not name.startswith("limit")) + int(plain))


def estimated_model_seconds(name: str, rounds: int, backward: bool, product: float, batch: int = 4) -> float:
    """Estimate what a model will cost, in both dtypes.

    Example:
        >>> round(estimated_model_seconds("Swin-Tiny", rounds=5, backward=True, product=2e-11))
        21
    """
    passes = 1 + (BACKWARD if backward else 0)
    run = 1e9 * MODELS[name] * batch * product
    return 2 * min(PATIENCE, 1.1 * (rounds + 1) * passes * run)


def in_words(seconds: float) -> str:
    """Say how long.

    Example:
        >>> in_words(7), in_words(95), in_words(640)
        ('7 s', '1 min 35 s', '10 min 40 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def plan_line(contenders: int, shapes: int, seconds: Iterable[float]) -> str:
    """Say what will be done.

    Example:
        >>> plan_line(3, 2, [100.0, 200.0])
        'plan: 3 contenders x 2 shapes, about 5 minutes; who has cost 20 s at a shape takes no further turns there'
    """
    minutes = max(1, round(sum(seconds) / 60))
    numbers = f"{contenders} contender{'s' * (contenders > 1)} x {shapes} shape{'s' * (shapes > 1)}"
    about = f"about {minutes} minute{'s' * (minutes > 1)}"
    return f"plan: {numbers}, {about}; who has cost {PATIENCE:.0f} s at a shape takes no further turns there"
