"""Files of weights: .safetensors; .pth, .pt or .bin, which are pickles; folders of them, whole or in shards.

A folder holds ``model.safetensors`` or ``pytorch_model.bin``, or an index of shards with these names, or it is that of
a training run, whose last checkpoint counts. A pickle that holds anything but tensors is refused, and nothing in it
runs.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from dinat_ref.models.pickles import read_pickle
from dinat_ref.models.tensor_file import read_tensors, write_tensors
from dinat_ref.models.wrappers import AVERAGES, LATEST, State, find_state
from dinat_ref.outside import brief, read_json

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
MOST_SHARDS = 1000


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, is refused, or does not fit its model.

    Example:
        >>> issubclass(CheckpointError, ValueError)
        True
    """


def read_checkpoint(path: Path | str, ema: bool = True) -> State:
    """Read the tensors of a checkpoint, file or folder, with the names they have.

    Shapes:
        return: tensors by name, on the CPU
    Args:
        ema: take the moving average of the weights where a file has it beside the weights in training.
    Raises:
        FileNotFoundError: no such file, or a folder without weights.
        CheckpointError: the file is damaged, is refused, or holds no tensors.
    Source: formats of PyTorch and safetensors; index files of transformers.
    Example:
        >>> import tempfile
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": {"backbone.norm0.bias": torch.zeros(2)}}, f"{folder}/mask_rcnn.pth")
        ...     read_checkpoint(f"{folder}/mask_rcnn.pth")
        {'backbone.norm0.bias': tensor([0., 0.])}
    """
    path = Path(path)
    return find_weights(read_content(path), ema, f"{path}: ")[0]


def read_content(path: Path | str) -> Mapping[str, Any]:
    """Read all that a checkpoint holds, with the dictionaries that training code puts around the tensors.

    Raises:
        as ``read_checkpoint``
    Example:
        >>> import tempfile
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"epoch": 3, "model": {"head.bias": torch.zeros(2)}}, f"{folder}/last.pth")
        ...     read_content(f"{folder}/last.pth")["epoch"]
        3
    """
    path = Path(path)
    if path.is_dir():
        folder = weights_folder(path)
        found = [folder / name for name in WEIGHT_FILES if (folder / name).exists()]
        if not found:
            raise FileNotFoundError(f"no weights in {path}: none of {', '.join(WEIGHT_FILES)}")
        path = found[0]
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    return _read_file(path)


def weights_folder(folder: Path) -> Path:
    """Find the folder with the weights: the folder itself, or the last checkpoint of a training run in it.

    Example:
        >>> weights_folder(Path("no-such-folder")).name
        'no-such-folder'
    """
    if any((folder / name).exists() for name in WEIGHT_FILES):
        return folder
    return latest_checkpoint(folder) or folder


def latest_checkpoint(folder: Path) -> Path | None:
    """Find the folder checkpoint-N with the largest number, as ``dinat-ref train`` and transformers write them.

    Example:
        >>> latest_checkpoint(Path("no-such-run")) is None
        True
    """
    return max(checkpoints(folder), key=checkpoint_number, default=None)


def checkpoints(folder: Path) -> list[Path]:
    """List the folders checkpoint-N of a training run.

    Example:
        >>> checkpoints(Path("no-such-run"))
        []
    """
    return [path for path in folder.glob("checkpoint-*") if checkpoint_number(path) >= 0 and path.is_dir()]


def checkpoint_number(path: Path) -> int:
    """The number of a folder checkpoint-N; -1 where it has another name.

    Example:
        >>> checkpoint_number(Path("runs/checkpoint-10000")), checkpoint_number(Path("runs/checkpoint-best"))
        (10000, -1)
    """
    match = re.fullmatch(r"checkpoint-([0-9]{1,18})", path.name)
    return int(match[1]) if match else -1


def write_checkpoint(path: Path | str, state: Mapping[str, Tensor]) -> None:
    """Write tensors to a .safetensors file that transformers reads: the whole file, or none.

    Shapes:
        state: tensors by name
    Raises:
        CommandError: the file cannot be written.
        ValueError: a dtype that the format does not have.
    Source: the format of safetensors; its metadata as transformers expects it.
    Example:
        >>> import tempfile
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_checkpoint(f"{folder}/model.safetensors", {"bias": torch.zeros(2)})
        ...     assert list(read_checkpoint(folder)) == ["bias"]
    """
    write_tensors(path, state, metadata={"format": "pt"})


def find_weights(content: Any, ema: bool, where: str) -> tuple[State, str]:
    """As ``find_state``, with an error that says where.

    Shapes:
        return: tensors by name, and where they were
    Raises:
        CheckpointError: there are no tensors by name.
    Example:
        >>> find_weights({"epoch": 3}, ema=True, where="last.pth: ")
        Traceback (most recent call last):
        dinat_ref.models.weight_files.CheckpointError: last.pth: it holds no tensors by name
    """
    try:
        return find_state(content, ema)
    except ValueError as error:
        raise CheckpointError(f"{where}{error}") from None


def _read_file(path: Path) -> Mapping[str, Any]:
    """Read one file of weights."""
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path)
        content = read_pickle(path, AVERAGES + LATEST)
    except FileNotFoundError:
        raise FileNotFoundError(f"no such checkpoint: {path}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        what = "a safetensors file" if path.suffix == ".safetensors" else "a PyTorch file"
        text = str(error) if str(error).startswith(str(path)) else f"{path} cannot be read as {what}: {error}"
        raise CheckpointError(text) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds no tensors by name")
    return content


def _read_shards(index: Path) -> State:
    """Read all shards of an index; each tensor is in the shard that the index says."""
    state: State = {}
    weight_map = _weight_map(index)
    for shard in shard_names(index):
        held = find_weights(_read_file(index.parent / shard), True, f"{index.parent / shard}: ")[0]
        state |= {name: tensor for name, tensor in held.items() if weight_map.get(name) == shard}
    if missing := [name for name in weight_map if name not in state]:
        raise CheckpointError(f"{index} promises {brief(missing[0])}, which {brief(weight_map[missing[0]])} lacks")
    return state


def shard_names(index: Path) -> list[str]:
    """List the files of a checkpoint in shards, from its index; they must lie beside it.

    Shapes:
        return: file names
    Raises:
        CheckpointError: the file is no index, or names anything but files of weights in its own folder.
        FileNotFoundError: no such index.
    Source: index files of transformers.
    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index = Path(folder, "model.safetensors.index.json")
        ...     _ = index.write_text('{"weight_map": {"head.bias": "model-00001-of-00001.safetensors"}}')
        ...     shard_names(index)
        ['model-00001-of-00001.safetensors']
    """
    names = sorted(set(_weight_map(index).values()))
    for name in names:
        if re.search(r'[/\\:*?"<>|\x00-\x1f]', name) or not name.endswith(WEIGHT_SUFFIXES) or name.startswith("."):
            raise CheckpointError(f"{index} must name files of weights in its own folder, got {brief(name)}")
    if len({name.lower() for name in names}) < len(names):
        raise CheckpointError(f"{index} must not name two shards that differ in the case of letters alone")
    if len(names) > MOST_SHARDS:
        raise CheckpointError(f"{index} must name at most {MOST_SHARDS} shards, got {len(names)}")
    return names


def _weight_map(index: Path) -> dict[str, str]:
    """Read which shard has which tensor."""
    try:
        weight_map = read_json(index).get("weight_map")
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} is no index of shards: it needs a weight_map from names to files")
    for name in weight_map.values():
        if not isinstance(name, str):
            raise CheckpointError(f"{index} must name files of weights in its own folder, got {brief(name)}")
    return weight_map
