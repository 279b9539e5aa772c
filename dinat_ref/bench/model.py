"""Whole models side by side, the published ones and those that one would take instead: what each image costs.

"values only" is a model whose attention hands its values through: what is left is what attention does not cost.
"of transformers" is Hugging Face's own Dinat after ``enable_dinat``, which should cost what ours does.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from dinat_ref.analysis.cost import traced_cost
from dinat_ref.bench.measure import settle
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
    milliseconds: float | None = None  # of an image, forward
    backward_milliseconds: float | None = None  # of an image, forward + backward
    skipped: str | None = None

    @property
    def images_per_second(self) -> float | None:
        """How many images are classified in a second."""
        return 1e3 / self.milliseconds if self.milliseconds else None


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
    rounds: int,
    names: Sequence[str] = tuple(MODELS),
    dtypes: Sequence[str] = tuple(DTYPES),
    batch: int = 4,
    size: int = 224,
    backward: bool = False,
) -> list[ModelRow]:
    """Measure models on random images: in each round everybody runs once, so that ratios are of one time.

    Shapes:
        return: a row for each dtype and model
    Raises:
        KeyError: an unknown model or dtype.
    Example:
        >>> (row,) = measure_models(1, ["DiNAT-Mini"], ["float32"], batch=1, size=32)
        >>> row.parameters
        19984174
    """
    settle()
    torch.manual_seed(0)
    rows: list[ModelRow] = []
    for dtype in dtypes:
        ready: dict[str, nn.Module] = {}
        found = {name: ModelRow(name, dtype) for name in names}
        for name, row in found.items():
            show_progress(f"preparing {name}, {dtype}")
            try:
                ready[name] = MODELS[name]().to(DTYPES[dtype])
                row.parameters = sum(parameter.numel() for parameter in ready[name].parameters())
                row.operations = _operations(name, size)
            except ImportError as error:
                row.skipped = str(error)
        images = torch.randn(batch, 3, size, size, dtype=DTYPES[dtype])
        for name, seconds in _rounds(ready, images, rounds, _forward).items():
            found[name].milliseconds = 1e3 * seconds / batch
        if backward:
            for name, seconds in _rounds(ready, images, rounds, _forward_backward).items():
                found[name].backward_milliseconds = 1e3 * seconds / batch
        rows += found.values()
    show_progress("")
    return rows


def _operations(name: str, size: int) -> int:
    """Count multiply-adds as the papers do: of each query with its own keys, whatever is computed beside them."""
    with torch.device("meta"):
        cost = traced_cost(MODELS["DiNAT-Mini" if name == "of transformers" else name](), size)
    without = ("attention", "bias") if name == "values only" else ()
    return sum(count for part, count in cost.items() if part not in without)


def _rounds(
    models: dict[str, nn.Module], images: Tensor, rounds: int, run: Callable[[nn.Module, Tensor], None]
) -> dict[str, float]:
    """Give the median seconds of each model."""
    times: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds + 1):  # the first round warms up
        for name, model in models.items():
            show_progress(f"{name}, {images.dtype}, {run.__name__.strip('_')}: round {number} of {rounds}")
            with without_attention() if name == "values only" else nullcontext():
                began = time.perf_counter()
                run(model, images)
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def _forward(model: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        model.eval()(images)


def _forward_backward(model: nn.Module, images: Tensor) -> None:
    model.zero_grad()  # gradients are made, not added to
    output = model.train()(images)
    logits = output if isinstance(output, Tensor) else output.logits
    logits.float().square().mean().backward()


def model_table(rows: Sequence[ModelRow]) -> str:
    """Set rows as an aligned table.

    Shapes:
        return: a line for the head and one per row
    Example:
        >>> print(model_table([ModelRow("DiNAT-Mini", "float32", 19984174, 2713000000, 50.0, 170.0)]))
        model             dtype      params M  GFLOPs  ms/image  images/s  fwd+bwd ms  images/s
        DiNAT-Mini        float32        20.0    2.71      50.0      20.0       170.0       5.9
    """
    head = f"{'model':<18}{'dtype':<9}{'params M':>10}{'GFLOPs':>8}{'ms/image':>10}{'images/s':>10}"
    lines = [f"{head}{'fwd+bwd ms':>12}{'images/s':>10}"]
    for row in rows:
        if row.skipped is not None:
            lines.append(f"{row.model:<18}{row.dtype:<9}  {row.skipped}")
            continue
        cells = f"{row.parameters / 1e6:>10.1f}{row.operations / 1e9:>8.2f}"
        for milliseconds, width in ((row.milliseconds, 10), (row.backward_milliseconds, 12)):
            if milliseconds is not None:
                cells += f"{milliseconds:>{width}.1f}{1e3 / milliseconds:>10.1f}"
        lines.append(f"{row.model:<18}{row.dtype:<9}{cells}")
    return "\n".join(lines)
