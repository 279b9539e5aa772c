"""Small configurations: quick to run, and every size another number."""

from typing import Any

import torch
from hypothesis import strategies as st

from dinat_ref.models import DinatConfig

TINY: dict[str, Any] = {
    "embed_dim": 12,
    "depths": [2, 1, 2],
    "num_heads": [2, 3, 4],
    "kernel_size": 3,
    "dilations": [[1, 3], [2], [1, 1]],
    "mlp_ratio": 2.0,
    "num_labels": 5,
}


def tiny(**settings: Any) -> DinatConfig:
    return DinatConfig(**(TINY | settings))


def image(seed: int = 0, batch: int = 2, height: int = 40, width: int = 52) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@st.composite
def configs(draw: st.DrawFn) -> DinatConfig:
    """Any architecture that is small enough to run in a moment."""
    depths = draw(st.lists(st.integers(1, 2), min_size=1, max_size=3))
    dilations = [[draw(st.integers(1, 3)) for _ in range(depth)] for depth in depths]
    return DinatConfig(
        embed_dim=draw(st.sampled_from([4, 12])),
        depths=depths,
        num_heads=[draw(st.sampled_from([1, 2, 4])) for _ in depths],
        kernel_size=draw(st.sampled_from([2, 3, [3, 2]])),
        dilations=dilations,
        mlp_ratio=draw(st.sampled_from([1.5, 2.0])),
        qkv_bias=draw(st.booleans()),
        layer_scale_init_value=draw(st.sampled_from([0.0, 0.5])),
        num_labels=draw(st.integers(0, 4)),
    )
