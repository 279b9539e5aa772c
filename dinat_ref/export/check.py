"""Whether a file says what the model says, and how fast."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dinat_ref.command import CommandError
from dinat_ref.export.formats import Runner

LIMITS = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}  # of the largest output


@dataclass(frozen=True)
class Agreement:
    """How far an exported model is from the eager one, on random images.

    Example:
        >>> str(Agreement(largest=4e-7, magnitude=0.5, shapes=((2, 3, 224, 224),)))
        '4.0e-07, of outputs up to 0.5 (2 x 3 x 224 x 224)'
    """

    largest: float
    magnitude: float
    shapes: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        """Set it as words."""
        shapes = ", ".join(" x ".join(map(str, shape)) for shape in self.shapes)
        return f"{self.largest:.1e}, of outputs up to {self.magnitude:.2g} ({shapes})"


def compare(run: Runner, model: nn.Module, images: Sequence[Tensor]) -> Agreement:
    """Run both on images of all shapes that a file is for.

    Raises:
        CommandError: outputs of another shape, or further apart than rounding explains.
    Example:
        >>> compare(nn.ReLU(), nn.ReLU(), [torch.ones(1, 2)]).largest
        0.0
        >>> compare(nn.Tanh(), nn.ReLU(), [torch.ones(1, 2)])
        Traceback (most recent call last):
        dinat_ref.command.CommandError: the exported model is wrong: it differs by 0.24 of outputs up to 1
    """
    largest = magnitude = 0.0
    for image in images:
        with torch.no_grad():
            expected = model(image)
            found = run(image)
        if found.shape != expected.shape:
            raise CommandError(
                f"the exported model is wrong: it gives {tuple(found.shape)} for {tuple(expected.shape)}"
            )
        difference = (found.double() - expected.double()).abs().max().item()
        magnitude = max(magnitude, expected.abs().max().item())
        largest = max(largest, difference) if difference == difference else torch.inf  # not a number
    if not largest <= LIMITS[images[0].dtype] * magnitude:
        raise CommandError(f"the exported model is wrong: it differs by {largest:.2g} of outputs up to {magnitude:.2g}")
    return Agreement(largest, magnitude, tuple(tuple(image.shape) for image in images))


def milliseconds(run: Runner, image: Tensor, rounds: int = 5) -> float:
    """Time some runs, after one to warm up, and give the median."""
    times = []
    with torch.no_grad():
        run(image)
        for _ in range(rounds):
            start = time.perf_counter()
            run(image)
            times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)
