"""Whole models side by side, the published ones and those that one would take instead: what each image costs.

"values only" is a model whose attention hands its values through: what is left is what attention does not cost.
"of transformers" is Hugging Face's own Dinat after ``enable_dinat``, which should cost what ours does.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from dinat_ref.analysis.cost import traced_cost
from dinat_ref.bench.measure import settle
from dinat_ref.bench.turns import Costs, Sample, take_turns, timed
from dinat_ref.command import show_progress
from dinat_ref.models import create_model
from dinat_ref.models.optional import need


@dataclass
class ModelRow:
    """What was measured of one model in one dtype; ``skipped`` says why nothing was.

    Example:
        >>> ModelRow("DiNAT-Tiny", "float32", milliseconds=50.0).images_per_second
        20.0
    """

    model: str
    dtype: str
    parameters: int = 0
    operations: int = 0  # multiply-adds of one image
    rounds: int = 0  # of which milliseconds are the median
    milliseconds: float | None = None  # of an image, forward
    backward_milliseconds: float | None = None  # of an image, forward + backward
    skipped: str | None = None
    note: str | None = None  # what was not measured, and why

    @property
    def images_per_second(self) -> float | None:
        """How many images are classified in a second."""
        return 1e3 / self.milliseconds if self.milliseconds else None

    @property
    def backward_images_per_second(self) -> float | None:
        """How many images are learned from in a second."""
        return 1e3 / self.backward_milliseconds if self.backward_milliseconds else None


@contextmanager
def without_attention() -> Iterator[None]:
    """Let every layer's attention return its values, inside the block.

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


def _peer(name: str, **settings: Any) -> nn.Module:
    """Make one of transformers' classifiers; its default configuration is the one called Tiny."""
    transformers = need("transformers", "hf")
    config = getattr(transformers, f"{name}Config")(num_labels=1000, **settings)
    model: nn.Module = getattr(transformers, f"{name}ForImageClassification")(config)
    return model


def _dinat_of_transformers() -> nn.Module:
    """Make Hugging Face's own DiNAT-Mini."""
    from dinat_ref.interop.transformers import enable_dinat

    enable_dinat()
    return _peer("Dinat", drop_path_rate=0.2)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "DiNAT-Tiny": lambda: create_model("dinat_tiny"),
    "NAT-Tiny": lambda: create_model("nat_tiny"),
    "DiNAT_s-Tiny": lambda: create_model("dinat_s_tiny"),
    "Swin-Tiny": lambda: _peer("Swin"),
    "ConvNeXt-Tiny": lambda: _peer("ConvNext"),
    "DiNAT-Mini": lambda: create_model("dinat_mini"),
    "of transformers": _dinat_of_transformers,
    "values only": lambda: create_model("dinat_mini"),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def measure_models(
    names: Sequence[str], dtype: str, rounds: int = 5, backward: bool = False, batch: int = 4, size: int = 224
) -> Iterator[list[ModelRow]]:
    """Measure models on random images, and yield all rows, as far as they are known, after each round.

    Raises:
        KeyError: an unknown model or dtype.
    Example:
        >>> *_, (row,) = measure_models(["DiNAT-Mini"], "float32", rounds=1, batch=1, size=32)
        >>> row.parameters, row.rounds
        (19984174, 1)
    """
    settle()
    torch.manual_seed(0)
    costs, rows = Costs(), {name: ModelRow(name, dtype) for name in names}
    ready: dict[str, nn.Module] = {}
    for name, row in rows.items():
        show_progress(f"preparing {name}, {dtype}")
        try:
            ready[name] = MODELS[name]().to(DTYPES[dtype])
            row.parameters = sum(parameter.numel() for parameter in ready[name].parameters())
            row.operations = _operations(name, size)
        except ImportError as error:
            row.skipped = str(error)
    images = torch.randn(batch, 3, size, size, dtype=DTYPES[dtype])
    for learns in (False, True)[: 1 + backward]:
        runs = {name: partial(_turn, name, model, images, learns) for name, model in ready.items()}
        title = f"{dtype}, forward + backward" if learns else f"{dtype}, forward"
        for found in take_turns(runs, rounds, costs, title):
            for name, mine in found.items():
                row, milliseconds = rows[name], mine.milliseconds and mine.milliseconds / batch
                if learns:
                    row.backward_milliseconds = milliseconds
                else:
                    row.milliseconds, row.rounds, row.skipped = milliseconds, mine.rounds, mine.reason
                if mine.stopped:
                    row.note = f"stopped after {mine.rounds} of {rounds} rounds, {title}"
                elif mine.reason:
                    row.note = mine.reason
            yield list(rows.values())
        ready = {name: model for name, model in ready.items() if rows[name].skipped is None}
    show_progress("")


def _operations(name: str, size: int) -> int:
    """Count multiply-adds as the papers do: of each query with its own keys, whatever is computed beside them."""
    with torch.device("meta"):
        cost = traced_cost(MODELS["DiNAT-Mini" if name == "of transformers" else name](), size)
    without = ("attention", "bias") if name == "values only" else ()
    return sum(count for part, count in cost.items() if part not in without)


def _turn(name: str, model: nn.Module, images: Tensor, learns: bool) -> Sample:
    """Run once, forward, or forward + backward."""
    with without_attention() if name == "values only" else nullcontext():
        return timed(partial(_forward_backward if learns else _forward, model, images))


def _forward(model: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        model.eval()(images)


def _forward_backward(model: nn.Module, images: Tensor) -> None:
    model.zero_grad()  # gradients are made, not added to
    output = model.train()(images)
    logits = output if isinstance(output, Tensor) else output.logits
    logits.float().square().mean().backward()
