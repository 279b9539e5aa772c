"""Loading weights into a model: strictly, in any spelling, out of whatever training code put around them."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinat_ref.models.keys import to_original
from dinat_ref.models.rpb import fit_bias_tables
from dinat_ref.models.weight_files import CheckpointError, find_weights, read_content
from dinat_ref.models.wrappers import describe_layout


@dataclass(frozen=True)
class LoadReport:
    """How a checkpoint fitted: names the model has and it has not, the reverse, and names with other shapes.

    Shapes:
        misshapen: "name: shape in the checkpoint, shape in the model"
    Args:
        taken: where the weights were in what the file held: "" at the top, or e.g. "state_dict_ema".
    Example:
        >>> LoadReport(missing=("head.bias",), unexpected=(), misshapen=()).missing
        ('head.bias',)
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]
    taken: str = ""


def load_checkpoint(
    model: nn.Module,
    source: Path | str | Mapping[str, Any],
    *,
    strict: bool = True,
    ignore_mismatched_sizes: bool = False,
    resize_rpb: bool = False,
    ema: bool = True,
    check_numbers: bool = True,
) -> LoadReport:
    """Load a checkpoint into a model of this package, in whatever spelling it is.

    A model without a head ignores a classifier's head. A backbone ignores the head and the last LayerNorm, as well
    as the LayerNorms of stages it does not return, and keeps its own where the checkpoint has none.

    Shapes:
        source: a path as ``read_checkpoint``, or what it holds: tensors by name, in dictionaries of training code
    Args:
        strict: raise unless every parameter is in the checkpoint, with its shape, and nothing else is; without it
            a warning lists what does not fit.
        ignore_mismatched_sizes: with strict, too, only warn of parameters that have another shape in the checkpoint.
        resize_rpb: bring bias tables of another kernel size to the model's by bicubic interpolation.
        ema: take the moving average of the weights where the source has it beside the weights in training.
        check_numbers: raise unless all weights are finite floating point numbers; without it they are converted.
    Returns:
        What did not fit, with strict no more than a backbone's own LayerNorms, and which weights were taken.
    Raises:
        FileNotFoundError: as ``read_checkpoint``.
        CheckpointError: as ``read_checkpoint``; with strict, a checkpoint that does not fit.
    Source: spellings: ``dinat_ref.models.keys``.
    Example:
        >>> from dinat_ref.models import create_model
        >>> narrow = create_model("dinat_mini", num_classes=10, embed_dim=32, num_heads=[1, 2, 4, 8])
        >>> load_checkpoint(narrow, narrow.state_dict())
        LoadReport(missing=(), unexpected=(), misshapen=(), taken='')
    """
    content = read_content(source) if isinstance(source, (str, Path)) else source
    found, taken = find_weights(content, ema, "" if isinstance(source, Mapping) else f"{source}: ")
    try:
        state = to_original(found)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    wanted = model.state_dict()
    state = {name: tensor for name, tensor in state.items() if name in wanted or not _is_left_aside(name, wanted)}
    if resize_rpb:
        state = fit_bias_tables(state, {name: tuple(tensor.shape) for name, tensor in wanted.items()})

    shared = [name for name in wanted if name in state]
    misshapen = [name for name in shared if state[name].shape != wanted[name].shape]
    report = LoadReport(
        missing=tuple(name for name in wanted if name not in state),
        unexpected=tuple(name for name in state if name not in wanted),
        misshapen=tuple(f"{name}: {tuple(state[name].shape)}, {tuple(wanted[name].shape)}" for name in misshapen),
        taken=taken,
    )
    missing = [name for name in report.missing if not _is_stage_norm(name)]  # its writer returned other stages, or none
    ill_fitting = missing or report.unexpected
    if strict and (ill_fitting or (report.misshapen and not ignore_mismatched_sizes)):
        raise CheckpointError(_describe(report) + _compare_layouts(state, wanted))
    if ill_fitting or report.misshapen:
        warnings.warn(_describe(report), stacklevel=2)
    fitting = {name: state[name] for name in shared if name not in misshapen}
    if check_numbers:
        _check_numbers(fitting)
    model.load_state_dict(fitting, strict=False)
    return report


def _is_stage_norm(name: str) -> bool:
    """Whether a parameter belongs to a backbone's LayerNorm of one stage: norm0, norm1, ... or norm_stem."""
    module = name.partition(".")[0]
    return module == "norm_stem" or (module.startswith("norm") and module[4:].isdigit())


def _is_left_aside(name: str, wanted: Mapping[str, Tensor]) -> bool:
    """Whether a name may be ignored by a model that has no such part: a head, a last norm, a stage's norm."""
    is_backbone = any(_is_stage_norm(other) for other in wanted)
    has_head = any(other.startswith("head.") for other in wanted)
    return (name.startswith("head.") and not has_head) or (
        is_backbone and (name.startswith("norm.") or _is_stage_norm(name))
    )


def _describe(report: LoadReport) -> str:
    """Say what does not fit, at most ten names of each kind."""
    parts = []
    for kind in ("missing", "unexpected", "misshapen"):
        names: Sequence[str] = getattr(report, kind)
        if names:
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            shown = ", ".join(name if len(name) <= 150 else f"{name[:150]}..." for name in names[:10])
            parts.append(f"{len(names)} {kind}: {shown}{more}")
    hint = " (checkpoint, model); ignore_mismatched_sizes=True keeps the model's own" if report.misshapen else ""
    return "the checkpoint does not fit the model; " + "; ".join(parts) + hint


def _compare_layouts(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Where the names are of another layout than the model's, say of which."""
    theirs, ours = describe_layout(state), describe_layout(wanted)
    return "" if theirs == ours else f"; its layout is {theirs}; the model's {ours}"


def _check_numbers(state: Mapping[str, Tensor]) -> None:
    """Raise unless all tensors are finite floating point numbers."""
    for name, tensor in state.items():
        if tensor.layout != torch.strided or not tensor.is_floating_point():
            kind = tensor.dtype if tensor.layout == torch.strided else tensor.layout
            raise CheckpointError(f"weights must be dense floating point numbers, got {kind} in {name}")
        if not tensor.is_meta and not (tensor.float() if tensor.dtype.itemsize == 1 else tensor).isfinite().all():
            raise CheckpointError(f"weights must be finite, got infinity or NaN in {name}")
