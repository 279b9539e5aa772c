"""Other people's kernels: what they take, as they say it themselves, and how they are called.

None of them is needed by the kit. ``pip install 'dinat-ref[peers]'`` installs what the Python Package Index has;
NATTEN needs ``pip install --no-build-isolation natten==0.21.7``, which without CUDA makes a pure-Python install.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.ports.adapters import by_axes, from_split
from dinat_ref.testing.ports.frameworks import from_mlx
from dinat_ref.testing.ports.masks import from_mask_mod
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.supports import Supports


@dataclass(frozen=True)
class Peer:
    """A kernel of another project.

    Args:
        package: its name on the Python Package Index, with the version that was looked at.
        module: what to import to see whether it is there.
        make: builds the Kernel; called only when the package is installed.
    Source: each package's own documentation.
    Example:
        >>> PEERS["natten"].package
        'natten==0.21.7'
    """

    package: str
    module: str
    make: Callable[[], Kernel]

    def missing(self) -> str | None:
        """Why the peer cannot be run here, or None when it can."""
        try:
            load(self.module)
        except ImportError as error:
            return f"{self.package} is not installed ({error})"
        return None


def load(name: str) -> ModuleType:
    """Import a module of a peer; natten-mlx, which refuses to be imported but on macOS, runs wherever MLX does.

    Example:
        >>> load("math").floor(2.5)
        2
    """
    if name != "natten_mlx" or name in sys.modules:
        return importlib.import_module(name)
    platform, sys.platform = sys.platform, "darwin"
    try:
        return importlib.import_module(name)
    finally:
        sys.platform = platform


def natten_takes(problem: Problem) -> bool:
    """NATTEN takes: kernel sizes above 1, no lone causal axis that is filled, no strided tensors with extra keys."""
    filled = problem.ndim == 1 and all(problem.is_causal) and problem.kernel_size == problem.layout
    return min(problem.kernel_size) > 1 and not filled and not (problem.strided and problem.extra_keys)


def natten() -> Kernel:
    """NATTEN >= 0.20 through its FlexAttention backend, which runs on a CPU: forward only, powers of two, float32."""
    module = importlib.import_module("natten")
    supports = Supports(
        dtypes=["float32"],
        head_dims={8, 16, 32, 64, 128},
        head_dim_v=False,
        backward=False,
        empty_batch=False,
        nan_outside=False,
        accepts=natten_takes,
    )
    return Kernel(by_axes({1: module.na1d, 2: module.na2d, 3: module.na3d}), supports)


def natten_mps() -> Kernel:
    """natten-mps on the CPU, its pure-PyTorch path."""
    module = importlib.import_module("natten_mps")
    supports = Supports(dtypes=["float32"], head_dim_v=False, nan_outside=False)
    return Kernel(by_axes({1: module.na1d, 2: module.na2d, 3: module.na3d}), supports)


def natten_mps_split() -> Kernel:
    """natten-mps, the functions of NATTEN 0.14: scores with a bias, then values."""
    module = importlib.import_module("natten_mps.compat.v014")
    qk = {1: module.natten1dqkrpb, 2: module.natten2dqkrpb}
    av = {1: module.natten1dav, 2: module.natten2dav}
    supports = Supports(
        ndim={1, 2},
        stride=False,
        causal=False,
        per_axis=False,
        gqa=False,
        extra_keys=False,
        rpb=True,
        nan_outside=False,
        dtypes=["float32"],
    )
    return Kernel(from_split(qk, av, legacy=True), supports)


def natten_mlx() -> Kernel:
    """natten-mlx on the CPU, its pure-MLX path."""
    module = load("natten_mlx")
    module.set_backend("pure")
    functions = {n: from_mlx(getattr(module, f"na{n}d")) for n in (1, 2, 3)}
    supports = Supports(dtypes=["float32"], head_dim_v=False, empty_batch=False, autocast=False, nan_outside=False)
    return Kernel(by_axes(functions), supports)


def attention_gym() -> Kernel:
    """attention-gym's mask for FlexAttention, two axes, the plain window."""
    generate = importlib.import_module("attn_gym.masks.natten").generate_natten

    def mask(layout: tuple[int, ...], kernel_size: tuple[int, ...]) -> Any:
        (height, width), (kernel_h, kernel_w) = layout, kernel_size
        return generate(canvas_w=width, canvas_h=height, kernel_w=kernel_w, kernel_h=kernel_h)

    return from_mask_mod(mask, Supports(ndim={2}, stride=False, dilation=False, causal=False))


PEERS: dict[str, Peer] = {
    "natten": Peer("natten==0.21.7", "natten", natten),
    "natten-mps": Peer("natten-mps==0.3.3", "natten_mps", natten_mps),
    "natten-mps (0.14 form)": Peer("natten-mps==0.3.3", "natten_mps", natten_mps_split),
    "natten-mlx": Peer("natten-mlx==0.3.3", "natten_mlx", natten_mlx),
    "attention-gym": Peer("attn-gym==0.0.17", "attn_gym", attention_gym),
}
