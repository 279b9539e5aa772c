"""Digits: what a nano DiNAT reads, and what it still reads when its dilation is changed after training.

The same model is trained with dilations 1, 2 in its first level (DiNAT) and with 1, 1 (NAT), on scans of 8 x 8 tokens.
Then dilations are changed without training, as the paper does: the second layer's, on the same scans; and those of
all layers, on scans twice as large, where twice the dilation lets every window span what it spanned in training.
"""

from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch.nn.functional import interpolate

from dinat_ref.models.nano import nano_model
from dinat_ref.training.data import hold_out, load_digits
from dinat_ref.training.evaluate import evaluate
from dinat_ref.training.experiments.runs import Run
from dinat_ref.training.loop import start, train
from dinat_ref.training.recipe import DIGITS

TRAINED = {"DiNAT": 2, "NAT": 1}  # the dilation of the first level's second layer


def runs(seeds: int, images: int, epochs: int) -> list[Run]:
    """List the runs: both models, every seed.

    Args:
        images: not used; there are as many digits as there are.
    Source: Hassani & Shi, arXiv:2209.15001, the study of dilation at test time.
    Example:
        >>> [run.key for run in runs(seeds=1, images=0, epochs=1)]
        [('DiNAT',), ('NAT',)]
    """
    return [
        Run((name,), accuracies, {"dilation": dilation, "seed": seed, "epochs": epochs})
        for name, dilation in TRAINED.items()
        for seed in range(seeds)
    ]


def accuracies(dilation: int, seed: int, epochs: int) -> dict[str, dict[str, float]]:
    """Train one model, with a fifth of the training part held out, and measure it with every dilation.

    The test part is not touched.

    Shapes:
        return: accuracy on what was held out: "8" tokens a side, by the second layer's dilation; "16", by the factor
            of all dilations
    Raises:
        ImportError: scikit-learn is missing.
    Example:
        >>> import importlib.util
        >>> if importlib.util.find_spec("sklearn"):
        ...     assert list(accuracies(2, seed=0, epochs=1)["8"]) == ["1", "2"]
    """
    examples, held_out = hold_out(load_digits("train"), 0.2, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nano_model("dinat_nano_digits", dilations=[[1, dilation], [1, 1]])
    recipe = replace(DIGITS, epochs=epochs, seed=seed)
    trained = train(start(model, recipe), examples, None, recipe).kept_model
    larger = replace(held_out, images=interpolate(held_out.images, scale_factor=2, mode="bilinear"))
    found: dict[str, dict[str, float]] = {"8": {}, "16": {}}
    for number in (1, 2):
        second_layer, all_layers = [[1, number], [1, 1]], [[number, number * dilation], [number, number]]
        for tokens, dilations, part in (("8", second_layer, held_out), ("16", all_layers, larger)):
            changed = nano_model("dinat_nano_digits", dilations=dilations)
            changed.load_state_dict(trained.state_dict())
            found[tokens][str(number)] = evaluate(changed.eval(), part)[1]
    return found


def summarise(table: dict[tuple[str, ...], list[dict[str, dict[str, float]]]]) -> dict[str, Any]:
    """Order the accuracies by model, tokens of a side and dilation.

    Shapes:
        accuracy: [seeds] for each
    Example:
        >>> summarise({("NAT",): [{"8": {"1": 0.9}}, {"8": {"1": 1.0}}]})["accuracy"]["NAT"]["8"]["1"]
        [0.9, 1.0]
    """
    accuracy = {
        name: {
            tokens: {dilation: [run[tokens][dilation] for run in of_seeds] for dilation in of_seeds[0][tokens]}
            for tokens in of_seeds[0]
        }
        for (name,), of_seeds in table.items()
    }
    return {"accuracy": accuracy, "trained_with": {name: TRAINED[name] for name in accuracy}}


def lines(numbers: dict[str, Any]) -> list[str]:
    """Write the results as a table: median, worst and best of the seeds by dilation at test time.

    Example:
        >>> print(lines(summarise({("NAT",): [{"8": {"1": 0.98}}, {"8": {"1": 0.99}}]}))[1])
        NAT    8 x 8, second layer's dilation 1 (as trained)  98.5 %  (98.0 - 99.0)
    """
    table = ["model  tokens, and what is changed at test time      median  (worst - best)"]
    for name, of_sizes in numbers["accuracy"].items():
        for tokens, of_dilations in of_sizes.items():
            for dilation, runs in of_dilations.items():
                trained = " (as trained)" if (tokens, int(dilation)) == ("8", numbers["trained_with"][name]) else ""
                middle, least, most = (100 * share for share in (median(runs), min(runs), max(runs)))
                what = "second layer's dilation" if tokens == "8" else "all dilations times"
                where = f"{tokens} x {tokens}, {what} {dilation}{trained}"
                table.append(f"{name:6} {where:45}  {middle:.1f} %  ({least:.1f} - {most:.1f})")
    return table
