"""Cases recorded from transformers 4.53.3 on NATTEN 0.17.5's compiled kernels: weights, image and all outputs."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dinat_ref.models import DinatConfig

FILE = Path(__file__).parents[1] / "golden" / "hf_dinat.npz"
FIELDS = (
    "embed_dim",
    "depths",
    "num_heads",
    "kernel_size",
    "dilations",
    "mlp_ratio",
    "layer_scale_init_value",
    "num_labels",
)


class Case:
    """One recorded model: ``config``, ``image``, ``state`` in Hugging Face's spelling, ``settings`` as recorded."""

    def __init__(self, arrays: dict[str, np.ndarray], number: int) -> None:
        self.arrays, self.number = arrays, number
        self.settings: dict[str, Any] = json.loads(str(arrays[f"{number}/config"]))
        self.config = DinatConfig(**{name: self.settings[name] for name in FIELDS})
        self.image = self.array("x")
        self.state = {name.split("/sd/")[1]: self.array("sd/" + name.split("/sd/")[1]) for name in self.names("sd")}

    def array(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[f"{self.number}/{name}"])

    def names(self, kind: str) -> list[str]:
        return [name for name in self.arrays if name.startswith(f"{self.number}/{kind}/")]

    def arrays_of(self, kind: str) -> list[Tensor]:
        return [self.array(f"{kind}/{index}") for index in range(len(self.names(kind)))]


@lru_cache(maxsize=1)
def cases() -> list[Case]:
    with np.load(FILE) as archive:
        arrays = dict(archive)
    return [Case(arrays, number) for number in range(int(arrays["count"]))]
