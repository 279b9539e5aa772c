"""A whole DiNAT-Mini beside the same model in which attention hands its values through: what attention costs in all."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from dinat_ref.bench.measure import Row, settle
from dinat_ref.command import show_progress


@contextmanager
def without_attention() -> Iterator[None]:
    """Let every model's attention return its values, inside the block.

    Example:
        >>> from dinat_ref import layers
        >>> with without_attention():
        ...     layers.neighborhood_attention(1, 2, 3, kernel_size=7)
        3
    """
    from dinat_ref import layers

    def hand_through(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        return value

    with mock.patch.object(layers, "neighborhood_attention", hand_through):
        yield


def measure_model(rounds: int, name: str = "dinat_mini", batch: int = 4, size: int = 224) -> list[Row]:
    """Measure a model's forward pass with attention and without, in turn.

    Shapes:
        return: two rows; the ratio of the first is to the second
    Raises:
        ValueError: an unknown model.
    Example:
        >>> len(measure_model(1, batch=1, size=32))
        2
    """
    from dinat_ref.models import create_model

    settle()
    torch.manual_seed(0)
    model = create_model(name).eval()
    images = torch.randn(batch, 3, size, size)
    kinds: dict[str, Callable[[], Any]] = {"with attention": nullcontext, "values only": without_attention}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    with torch.no_grad():
        for number in range(rounds + 1):  # the first round warms up
            for kind, context in kinds.items():
                show_progress(f"{name}: round {number} of {rounds}, {kind}")
                with context():
                    began = time.perf_counter()
                    model(images)
                    times[kind].append(time.perf_counter() - began)
    show_progress("")
    problem = f"{name}, {batch} x 3 x {size} x {size}"
    medians = {kind: 1e3 * statistics.median(taken[1:]) for kind, taken in times.items()}
    return [Row(problem, kind, milliseconds=ms, ratio=ms / medians["values only"]) for kind, ms in medians.items()]
