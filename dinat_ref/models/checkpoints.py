"""Reading and writing checkpoints: safely, strictly, in any spelling.

A checkpoint is a file (.safetensors; .pth, .pt or .bin, which are pickles) or a folder with ``model.safetensors`` or
``pytorch_model.bin``, whole or in shards with an index. Pickles are opened with ``weights_only=True``: one that holds
anything but tensors is refused, and nothing in it runs.
"""

import json
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinat_ref.command import whole_file
from dinat_ref.models.keys import State, to_original
from dinat_ref.models.optional import need
from dinat_ref.models.rpb import fit_bias_tables

WRAPPERS = ("state_dict", "model", "state_dict_ema", "model_ema")  # where training code keeps a model's state
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, is refused, or does not fit its model.

    Example:
        >>> issubclass(CheckpointError, ValueError)
        True
    """


@dataclass(frozen=True)
class LoadReport:
    """How a checkpoint fitted: names the model has and it has not, the reverse, and names with other shapes.

    Shapes:
        misshapen: "name: shape in the checkpoint, shape in the model"
    Example:
        >>> LoadReport(missing=("head.bias",), unexpected=(), misshapen=()).missing
        ('head.bias',)
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]


def read_checkpoint(path: Path | str) -> State:
    """Read the tensors of a checkpoint, file or folder, with the names they have.

    Shapes:
        return: tensors by name, on the CPU
    Raises:
        FileNotFoundError: no such file, or a folder without weights.
        CheckpointError: the file is damaged, is refused, or holds no tensors.
        ImportError: a .safetensors file, and the package safetensors is missing.
    Source: formats of PyTorch and safetensors; index files of transformers.
    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": {"backbone.norm0.bias": torch.zeros(2)}}, f"{folder}/mask_rcnn.pth")
        ...     read_checkpoint(f"{folder}/mask_rcnn.pth")
        {'backbone.norm0.bias': tensor([0., 0.])}
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in WEIGHT_FILES if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(f"no weights in {path}: none of {', '.join(WEIGHT_FILES)}")
        path = found[0]
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def write_checkpoint(path: Path | str, state: Mapping[str, Tensor]) -> None:
    """Write tensors to a .safetensors file that transformers reads: the whole file, or none.

    Shapes:
        state: tensors by name
    Raises:
        CommandError: the folder cannot be written.
        ImportError: the package safetensors is missing.
    Source: the format of safetensors; its metadata as transformers expects it.
    Example:
        >>> import importlib.util
        >>> import tempfile
        >>> if importlib.util.find_spec("safetensors"):
        ...     with tempfile.TemporaryDirectory() as folder:
        ...         write_checkpoint(f"{folder}/model.safetensors", {"bias": torch.zeros(2)})
        ...         assert list(read_checkpoint(folder)) == ["bias"]
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    safetensors = need("safetensors.torch", "hub")
    with whole_file(path) as temporary:
        safetensors.save_file(contiguous, str(temporary), metadata={"format": "pt"})


def load_checkpoint(
    model: nn.Module,
    source: Path | str | Mapping[str, Tensor],
    *,
    strict: bool = True,
    ignore_mismatched_sizes: bool = False,
    resize_rpb: bool = False,
) -> LoadReport:
    """Load a checkpoint into a model of this package, in whatever spelling it is.

    A model without a head ignores a classifier's head. A backbone ignores the head and the last LayerNorm, as well
    as the LayerNorms of stages it does not return, and keeps its own where the checkpoint has none.

    Shapes:
        source: a path as ``read_checkpoint``, or tensors by name
    Args:
        strict: raise unless every parameter is in the checkpoint, with its shape, and nothing else is; without it
            a warning lists what does not fit.
        ignore_mismatched_sizes: with strict, too, only warn of parameters that have another shape in the checkpoint.
        resize_rpb: bring bias tables of another kernel size to the model's by bicubic interpolation.
    Returns:
        What did not fit: with strict, no more than a backbone's own LayerNorms.
    Raises:
        FileNotFoundError, ImportError: as ``read_checkpoint``.
        CheckpointError: as ``read_checkpoint``; with strict, a checkpoint that does not fit.
    Source: spellings: ``dinat_ref.models.keys``.
    Example:
        >>> from dinat_ref.models import create_model
        >>> narrow = create_model("dinat_mini", num_classes=10, embed_dim=32, num_heads=[1, 2, 4, 8])
        >>> load_checkpoint(narrow, narrow.state_dict())
        LoadReport(missing=(), unexpected=(), misshapen=())
    """
    state = read_checkpoint(source) if isinstance(source, (str, Path)) else source
    try:
        state = to_original(state)
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
    )
    missing = [name for name in report.missing if not _is_stage_norm(name)]  # its writer returned other stages, or none
    ill_fitting = missing or report.unexpected
    if strict and (ill_fitting or (report.misshapen and not ignore_mismatched_sizes)):
        raise CheckpointError(_describe(report))
    if ill_fitting or report.misshapen:
        warnings.warn(_describe(report), stacklevel=2)
    model.load_state_dict({name: state[name] for name in shared if name not in misshapen}, strict=False)
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
            parts.append(f"{len(names)} {kind}: {', '.join(names[:10])}{more}")
    hint = " (checkpoint, model); ignore_mismatched_sizes=True keeps the model's own" if report.misshapen else ""
    return "the checkpoint does not fit the model; " + "; ".join(parts) + hint


def _read_pickle(path: Path) -> State:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        why = "it is damaged, or a pickle that holds more than tensors; nothing in it was run"
        raise CheckpointError(f"{path} is refused: {why}") from None
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, IndexError, TypeError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} cannot be read as a PyTorch file: {reason}") from None
    return _tensors_of(content, path)


def _read_safetensors(path: Path) -> State:
    safetensors = need("safetensors.torch", "hub")
    try:
        state: State = safetensors.load_file(str(path))
    except Exception as error:  # safetensors' own error class is not public in every version
        raise CheckpointError(f"{path} cannot be read as a safetensors file: {error}") from None
    return state


def _read_shards(index: Path) -> State:
    state: State = {}
    for name in shard_names(index):
        state.update(read_checkpoint(index.parent / name))
    return state


def shard_names(index: Path) -> list[str]:
    """List the files of a checkpoint in shards, from its index; they must lie beside it.

    Shapes:
        return: file names
    Raises:
        CheckpointError: the file is no index, or names files elsewhere.
    Source: index files of transformers.
    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index = Path(folder, "model.safetensors.index.json")
        ...     _ = index.write_text('{"weight_map": {"head.bias": "model-00001-of-00001.safetensors"}}')
        ...     shard_names(index)
        ['model-00001-of-00001.safetensors']
    """
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index} is no index of shards: it needs a weight_map from names to files") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index} must name files in its own folder, got {name!r}")
    return names


def _tensors_of(content: Any, path: Path) -> State:
    """Find the tensors in what a pickle held: at the top, or under the name training code gives them."""
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if isinstance(content, Mapping):
        state = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
        if state:
            return state
    raise CheckpointError(f"{path} holds no tensors by name")
