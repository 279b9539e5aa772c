"""How far can it compare? Accuracy against the distance of two markers, beside the distance at which tokens meet.

Two layers of NA with windows of 3, 5 and 7 on 10 x 10 tokens. After l layers a token sees l (k - 1) / 2 tokens to each
side, so that two markers meet in some token up to a distance of l (k - 1), and never beyond.
"""

from dataclasses import replace
from statistics import median
from typing import Any

import torch

from dinat_ref import Neighborhood
from dinat_ref.analysis.pairs import share_that_meets
from dinat_ref.training.evaluate import evaluate
from dinat_ref.training.experiments.patterns import UNSEEN
from dinat_ref.training.experiments.runs import Run
from dinat_ref.training.loop import start, train
from dinat_ref.training.recipe import TASK
from dinat_ref.training.small_models import pattern_model
from dinat_ref.training.synthetic import far_match, markers

SIZE, KERNELS = 10, (3, 5, 7)
DISTANCES = range(1, SIZE)


def runs(seeds: int, images: int, epochs: int) -> list[Run]:
    """List the runs: every kernel size, every seed.

    Example:
        >>> [run.key for run in runs(seeds=1, images=64, epochs=1)]
        [('3',), ('5',), ('7',)]
    """
    return [
        Run((str(kernel),), accuracies, {"kernel_size": kernel, "seed": seed, "images": images, "epochs": epochs})
        for kernel in KERNELS
        for seed in range(seeds)
    ]


def accuracies(kernel_size: int, seed: int, images: int, epochs: int) -> list[float]:
    """Train one model on all distances and measure it on new images of each, 1,000 or as many as it learns from.

    Shapes:
        return: a number for each of DISTANCES
    Example:
        >>> len(accuracies(3, seed=0, images=64, epochs=1))
        9
    """
    examples = far_match(images, seed, SIZE, (DISTANCES[0], DISTANCES[-1]))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = pattern_model("na_na", SIZE, examples.images.shape[1], kernel_size=kernel_size)
    recipe = replace(TASK, epochs=epochs, seed=seed)
    train(start(model, recipe), examples, None, recipe)
    unseen = min(1000, images)
    return [evaluate(model, far_match(unseen, seed + UNSEEN, SIZE, (d, d)))[1] for d in DISTANCES]


def summarise(table: dict[tuple[str, ...], list[list[float]]]) -> dict[str, Any]:
    """Put the accuracies beside the part of the marker pairs of each distance that some token sees.

    Shapes:
        accuracy: for each kernel size [seeds][distances]; meet: for each kernel size [distances]
    Example:
        >>> summarise({("5",): [[0.5] * 9]})["meet"]["5"]
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    """
    meet = {}
    for (kernel,) in table:
        layers = [Neighborhood((SIZE, SIZE), int(kernel))] * 2
        meet[kernel] = [
            share_that_meets(layers, *markers(far_match(200, UNSEEN, SIZE, (distance, distance))))
            for distance in DISTANCES
        ]
    accuracy = {kernel: numbers for (kernel,), numbers in table.items()}
    return {"distances": list(DISTANCES), "accuracy": accuracy, "meet": meet}


def lines(numbers: dict[str, Any]) -> list[str]:
    """Write the results as a table: for each kernel size the median accuracy at each distance, * where pairs meet.

    Example:
        >>> print(lines(summarise({("3",): [[1.0] * 4 + [0.5] * 5]}))[1])
        3x3       100* 100* 100* 100*  50   50   50   50   50
    """
    table = ["distance " + "".join(f"{distance:4d} " for distance in numbers["distances"])]
    for kernel, runs in numbers["accuracy"].items():
        medians = [median(of_distance) for of_distance in zip(*runs, strict=True)]
        cells = [
            f"{100 * share:4.0f}{'*' if meet else ' '}"
            for share, meet in zip(medians, numbers["meet"][kernel], strict=True)
        ]
        table.append(f"{kernel}x{kernel}      " + "".join(cells).rstrip())
    return table
