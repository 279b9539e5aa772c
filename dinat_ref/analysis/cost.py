"""What a model costs: multiply-adds and memory, by formula and by counting what PyTorch executes.

The count is that of the papers: one operation for a multiplication and its addition in convolutions, linear layers
and attention, one for each bias added to a score, 5 for each element of a LayerNorm, and one for each element that
pooling reads. Activations, softmax and residual sums are free.

    formula_cost("dinat_mini")       from the configuration alone, part by part
    traced_cost(model, 224)          from the operators that a forward pass on meta tensors runs

The two know nothing of each other, and agree to the last operation.

PyTorch's FlopCounterMode gives other numbers, for it counts what is executed: two for a multiply-add; no bias,
LayerNorm or pooling; and of attention whole slabs of keys on meta tensors, but nothing on a CPU,
where it has no formula for PyTorch's fused attention. Of DiNAT-Mini at 224 it sees, halved, 2.77 G on meta tensors and
2.55 on a CPU; the papers count 2.713.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dinat_ref.layers import NeighborhoodAttention
from dinat_ref.models.dinat_s import DiNATs
from dinat_ref.models.isotropic import Isotropic
from dinat_ref.models.variants import find_variant, variant_config

LAYER_NORM = 5  # operations an element


def attention_cost(kind: str, tokens: int, dim: int, keys: int) -> tuple[int, int]:
    """The papers' table: operations and numbers in memory of one attention layer, without its output projection.

        NA, DiNA, WSA     3 n d^2 + 2 n d k     3 d^2 + n k
        SA                3 n d^2 + 2 n^2 d     3 d^2 + n^2

    Shapes:
        return: (operations, numbers of memory for weights and scores)
    Args:
        kind: "NA", "DiNA", "WSA" (Swin's windows) or "SA" (full self attention, which ignores keys).
        tokens: n.
        dim: d, the channels.
        keys: k, the keys of a query: the product of its window's axes.
    Raises:
        ValueError: another kind.
    Source: Hassani et al., arXiv:2204.07143, section 3.3; Hassani & Shi, arXiv:2209.15001, table 1.
    Example:
        >>> attention_cost("NA", tokens=56 * 56, dim=64, keys=49)
        (58204160, 165952)
        >>> attention_cost("SA", tokens=56 * 56, dim=64, keys=49)
        (1297350656, 9846784)
    """
    if kind not in ("NA", "DiNA", "WSA", "SA"):
        raise ValueError(f"kind must be 'NA', 'DiNA', 'WSA' or 'SA', got {kind!r}")
    keys = tokens if kind == "SA" else keys
    return 3 * tokens * dim**2 + 2 * tokens * dim * keys, 3 * dim**2 + tokens * keys


def formula_cost(name: str, image_size: int | None = None, num_classes: int = 1000) -> dict[str, int]:
    """Compute the operations of a published variant, part by part, from its configuration.

    Shapes:
        return: operations of "convolution", "linear", "attention", "bias", "normalization" and "pooling"
    Args:
        image_size: side of the square image; None means the variant's own.
    Raises:
        ValueError: no such name.
    Source: the papers' tables; their counting is explained at the top of this module.
    Example:
        >>> cost = formula_cost("dinat_mini")
        >>> round(sum(cost.values()) / 1e9, 3)
        2.713
    """
    variant = find_variant(name)
    size = image_size or variant.image_size
    if variant.model is Isotropic:
        return _isotropic_cost(variant.settings, size, num_classes)
    config, cost = variant_config(name), Counter[str]()
    assert config.dilations is not None
    assert isinstance(config.kernel_size, int)
    is_swin_like, dim = variant.model is DiNATs, config.embed_dim

    if is_swin_like:
        length = math.ceil(size / 4)
        cost["convolution"] += length**2 * 16 * config.num_channels * dim
    else:
        halved, length = math.ceil(size / 2), math.ceil(size / 4)
        cost["convolution"] += halved**2 * 9 * config.num_channels * (dim // 2) + length**2 * 9 * (dim // 2) * dim
    cost["normalization"] += LAYER_NORM * length**2 * dim
    for level, (dim, heads) in enumerate(zip(config.dims, config.num_heads, strict=True)):
        for dilation in config.dilations[level]:
            attended = max(length, config.kernel_size * dilation)  # small maps are padded
            _add_layer(cost, length, attended, dim, heads, config.kernel_size**2, config.mlp_ratio)
        if level < len(config.dims) - 1:
            length = math.ceil(length / 2)
            if is_swin_like:
                cost["normalization"] += LAYER_NORM * length**2 * 4 * dim
                cost["linear"] += length**2 * 4 * dim * 2 * dim
            else:
                cost["convolution"] += length**2 * 9 * dim * 2 * dim
                cost["normalization"] += LAYER_NORM * length**2 * 2 * dim
    _add_head(cost, length, dim, num_classes)
    return dict(cost)


def published_cost(name: str, cost: Mapping[str, int]) -> int:
    """Add up a variant's parts as the papers' tables do: for ViT-rpb their counter did not see the biases.

    Shapes:
        cost: as ``formula_cost`` or ``traced_cost`` returns it
        return: operations
    Raises:
        ValueError: no such name.
    Source: Hassani & Shi, arXiv:2209.15001, table 9, which is met with biases for NAT and DiNAT, without for ViT-rpb.
    Example:
        >>> round(published_cost("vitrpb_small", formula_cost("vitrpb_small")) / 1e9, 3)
        4.584
    """
    unseen = cost["bias"] if find_variant(name).settings.get("full_attention") else 0
    return sum(cost.values()) - unseen


def _isotropic_cost(settings: dict[str, Any], size: int, num_classes: int) -> dict[str, int]:
    dim, heads, cost = settings["embed_dim"], settings["num_heads"], Counter[str]()
    length = math.ceil(size / 16)
    full, dilation = settings.get("full_attention", False), settings.get("dilation", 1)
    cost["convolution"] += length**2 * 256 * 3 * dim
    cost["normalization"] += LAYER_NORM * length**2 * dim
    for layer in range(12):
        attended = length if full else max(length, 7 * (dilation if layer % 2 else 1))
        _add_layer(cost, length, attended, dim, heads, length**2 if full else 49, mlp_ratio=4.0)
    _add_head(cost, length, dim, num_classes)
    return dict(cost)


def _add_layer(
    cost: Counter[str], length: int, attended: int, dim: int, heads: int, keys: int, mlp_ratio: float
) -> None:
    """Add one layer: n tokens, of which N are attended (more where a small map is padded)."""
    tokens, attended_tokens = length**2, attended**2
    cost["linear"] += attended_tokens * 3 * dim**2 + tokens * (dim**2 + 2 * dim * int(dim * mlp_ratio))
    cost["attention"] += attended_tokens * keys * 2 * dim  # scores, values
    cost["bias"] += attended_tokens * keys * heads
    cost["normalization"] += 2 * LAYER_NORM * tokens * dim


def _add_head(cost: Counter[str], length: int, dim: int, num_classes: int) -> None:
    cost["normalization"] += LAYER_NORM * length**2 * dim
    cost["pooling"] += length**2 * dim
    cost["linear"] += dim * num_classes


def traced_cost(model: nn.Module, image_size: int, num_channels: int = 3) -> dict[str, int]:
    """Count the operations of a model's forward pass by watching the operators it runs, on meta tensors.

    Shapes:
        return: operations of "convolution", "linear", "attention", "bias", "normalization" and "pooling"
    Args:
        model: on the meta device, made with ``create_model(name, device="meta")``.
        image_size: side of the square image.
    Raises:
        ValueError: the model has parameters outside the meta device.
    Source: the papers' counting is explained at the top of this module.
    Example:
        >>> from dinat_ref.models import create_model
        >>> traced_cost(create_model("nat_mini", device="meta"), 224) == formula_cost("nat_mini")
        True
    """
    devices = {parameter.device.type for parameter in model.parameters()}
    if devices - {"meta"}:
        raise ValueError(f"model must be on the meta device, got parameters on {', '.join(sorted(devices))}")
    image = torch.empty(1, num_channels, image_size, image_size, device="meta")
    was_training = model.training
    with torch.no_grad(), _explicit_attention(model.eval()), _Counting() as counting:
        model(image)
    model.train(was_training)
    return {kind: count for kind, count in counting.cost.items() if count}


@contextmanager
def _explicit_attention(model: nn.Module) -> Iterator[None]:
    """Let all layers attend through an index table, which multiplies each query by its own keys and no others."""
    layers = [module for module in model.modules() if isinstance(module, NeighborhoodAttention)]
    kept = [layer.impl for layer in layers]
    for layer in layers:
        layer.impl = "gather"
    try:
        yield
    finally:
        for layer, impl in zip(layers, kept, strict=True):
            layer.impl = impl


class _Counting(TorchDispatchMode):
    """Adds up the cost of the operators that run inside it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cost = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name == "convolution":
            weight = args[1]  # [out, in, kx, ky]
            self.cost["convolution"] += result.numel() * math.prod(weight.shape[1:])
        elif name in ("mm", "addmm"):
            self.cost["linear"] += result.numel() * args[-2].shape[-1]
        elif name == "bmm":  # only attention multiplies activations with each other
            self.cost["attention"] += result.numel() * args[0].shape[-1]
        elif name == "add" and _is_score_bias(args):
            self.cost["bias"] += result.numel()
        elif name == "native_layer_norm":
            self.cost["normalization"] += LAYER_NORM * args[0].numel()
        elif name == "mean":
            self.cost["pooling"] += args[0].numel()
        return result


def _is_score_bias(args: tuple[Any, ...]) -> bool:
    """Whether a bias [H, N, K] is added to scores [B, ...]: residual sums have equal shapes, a layer's bias is 1-D."""
    operands = [operand for operand in args[:2] if isinstance(operand, Tensor)]
    if len(operands) < 2 or not operands[0].is_floating_point():
        return False
    return operands[0].ndim != operands[1].ndim and min(operand.ndim for operand in operands) > 1
