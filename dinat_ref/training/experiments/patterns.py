"""Near and far: which orders of local and dilated layers see both?

Two layers of 3 x 3 windows on 9 x 9 tokens, NA with dilation 1, DiNA with dilation 3, SA with all tokens. ``far_match``
asks for a token that sees two distant markers; ``texture`` for one that sees two tokens that touch.
"""

from dataclasses import replace
from statistics import median
from typing import Any

import torch

from dinat_ref import Neighborhood
from dinat_ref.analysis.pairs import share_that_meets
from dinat_ref.analysis.receptive_field import FullAttention, Layer
from dinat_ref.training.evaluate import evaluate
from dinat_ref.training.experiments.runs import Run
from dinat_ref.training.loop import start, train
from dinat_ref.training.recipe import TASK
from dinat_ref.training.small_models import PATTERNS, pattern_model
from dinat_ref.training.synthetic import SYNTHETIC, markers

SIZE, KERNEL = 9, 3
UNSEEN = 1_000_000  # added to a seed, gives images that no run learns from


def runs(seeds: int, images: int, epochs: int) -> list[Run]:
    """List the runs: every task, every pattern, every seed.

    Source: Hassani & Shi, arXiv:2209.15001, section 4.4.
    Example:
        >>> len(runs(seeds=5, images=64, epochs=1))
        50
    """
    return [
        Run(
            (task, pattern), accuracy, {"task": task, "pattern": pattern, "seed": s, "images": images, "epochs": epochs}
        )
        for task in SYNTHETIC
        for pattern in PATTERNS
        for s in range(seeds)
    ]


def accuracy(task: str, pattern: str, seed: int, images: int, epochs: int) -> float:
    """Train one model and measure it on images that no run learns from, 2,000 or as many as it learns from.

    Example:
        >>> 0 <= accuracy("texture", "na_na", seed=0, images=64, epochs=1) <= 1
        True
    """
    make = SYNTHETIC[task]
    examples, unseen = make(images, seed, SIZE), make(min(2000, images), seed + UNSEEN, SIZE)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = pattern_model(pattern, SIZE, examples.images.shape[1], kernel_size=KERNEL)
    recipe = replace(TASK, epochs=epochs, seed=seed)
    train(start(model, recipe), examples, None, recipe)
    return evaluate(model, unseen)[1]


def summarise(table: dict[tuple[str, ...], list[float]]) -> dict[str, Any]:
    """Put the accuracies beside what the receptive fields allow.

    Example:
        >>> numbers = summarise({("far_match", "na_na"): [0.5], ("texture", "na_na"): [1.0]})
        >>> numbers["accuracy"]["far_match"], numbers["meet"]["far_match"]["na_na"], numbers["meet"]["texture"]["na_na"]
        ({'na_na': [0.5]}, 0.0, 1.0)
    """
    found: dict[str, Any] = {"accuracy": {}, "meet": {}, "parameters": {}}
    for (task, pattern), accuracies in table.items():
        found["accuracy"].setdefault(task, {})[pattern] = accuracies
        model = pattern_model(pattern, SIZE, num_channels=2, kernel_size=KERNEL)
        found["parameters"][pattern] = sum(parameter.numel() for parameter in model.parameters())
        found["meet"].setdefault(task, {})[pattern] = share_that_meets(layers_of(pattern), *PAIRS[task]())
    return found


def layers_of(pattern: str) -> list[Layer]:
    """Give the layers of a pattern as receptive fields know them.

    Example:
        >>> [layer.dilation for layer in layers_of("na_dina")]
        [(1, 1), (3, 3)]
    """
    layout = (SIZE, SIZE)
    kinds: dict[str, Layer] = {
        "na": Neighborhood(layout, KERNEL),
        "dina": Neighborhood(layout, KERNEL, dilation=SIZE // KERNEL),
        "sa": FullAttention(layout),
    }
    return [kinds[kind] for kind in pattern.split("_")]


def marker_pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """The positions of the two markers of 2,000 images: two of [2000, 2]."""
    return markers(SYNTHETIC["far_match"](2000, UNSEEN, SIZE))


def touching_pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Every pixel and its neighbour to the right: two of [pairs, 2]."""
    place = torch.cartesian_prod(torch.arange(SIZE), torch.arange(SIZE - 1))
    return place, place + torch.tensor([0, 1])


PAIRS = {"far_match": marker_pairs, "texture": touching_pairs}


def lines(numbers: dict[str, Any]) -> list[str]:
    """Write the results as a table: median, worst and best of the seeds, and the part of the pairs that meet.

    Example:
        >>> print(lines(summarise({("far_match", "na_na"): [0.5, 0.7, 0.6]}))[1])
        far_match  na_na       60.0 %  (50.0 - 70.0)       0 %
    """
    table = ["task       model       median  (worst - best)  pairs that meet"]
    for task, of_models in numbers["accuracy"].items():
        for pattern, accuracies in of_models.items():
            middle, least, most = (100 * share for share in (median(accuracies), min(accuracies), max(accuracies)))
            meet = 100 * numbers["meet"][task][pattern]
            table.append(f"{task:10} {pattern:10} {middle:5.1f} %  ({least:.1f} - {most:.1f})  {meet:6.0f} %")
    return table
