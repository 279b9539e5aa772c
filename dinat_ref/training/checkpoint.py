"""Checkpoints of a run: whole or absent, and enough of them to go on as if nothing had happened.

A checkpoint is a folder, written under another name and renamed when it is complete::

    checkpoint-0012/            after 12 epochs
      config.json               the architecture, as ``from_pretrained`` and transformers read it
      model.safetensors         its weights: the averaged ones, where the recipe averages
      training.safetensors      the weights in training, the moments of AdamW
      preprocessor_config.json  the size of photographs
      training.json             recipe, data, metrics of every epoch, versions, git commit

No state of a random generator is kept, since every epoch draws from generators of its own, seeded by recipe and epoch.
"""

import json
import math
import platform
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import dinat_ref
from dinat_ref.command import UnwritableError
from dinat_ref.models import schema
from dinat_ref.models.image_processor import ImageProcessor
from dinat_ref.models.pretrained import Pretrained
from dinat_ref.models.weight_files import (
    CheckpointError,
    checkpoint_number,
    checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from dinat_ref.models.weight_files import latest_checkpoint as latest_checkpoint  # of a run, offered here as well
from dinat_ref.outside import brief, read_json
from dinat_ref.training.state import Row, State

MEASURED = {"epoch", "learning_rate", "train_loss", "train_accuracy"}  # of every run, whatever else is
UNFINISHED = ".checkpoint-"  # what the folder of a checkpoint is called while it is written
MOST_BYTES = 64 * 2**20  # of training.json, which has 300 for each epoch


def save_checkpoint(folder: Path, state: State, description: dict[str, Any]) -> Path:
    """Write the checkpoint of the epochs that are done, then remove the ones before it.

    Shapes:
        return: the checkpoint's folder
    Args:
        description: what ``training.json`` says besides metrics and versions: recipe, data, ...
    Raises:
        UnwritableError: the folder cannot be written, or the disk is full.
    Example:
        >>> from dinat_ref.models import DiNAT, DinatConfig
        >>> model = DiNAT(DinatConfig(embed_dim=8, depths=[1], num_heads=[1], dilations=[[1]], kernel_size=3))
        >>> state = State(model, torch.optim.AdamW(model.parameters()), history=[{"loss": 1.0}])
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(Path(folder), state, {}).name
        'checkpoint-0001'
    """
    target = folder / f"checkpoint-{len(state.history):04d}"
    temporary = folder / f"{UNFINISHED}{secrets.token_hex(4)}"
    try:
        temporary.mkdir(parents=True)
        save_model(temporary, state.kept_model)
        write_checkpoint(temporary / "training.safetensors", state.tensors())
        if "size" in description:  # of photographs: read by ``dinat-ref classify`` and transformers
            ImageProcessor(size=description["size"]).to_json(temporary / "preprocessor_config.json")
        content = description | {"history": state.history} | provenance()
        (temporary / "training.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        temporary.replace(target)
    except OSError as error:
        raise UnwritableError(target, error.strerror) from None
    except UnwritableError as error:  # which names the temporary folder
        raise UnwritableError(target, error.reason) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    remove_unfinished(folder)
    for old in checkpoints(folder):
        if checkpoint_number(old) < len(state.history):
            shutil.rmtree(old, ignore_errors=True)
    return target


def remove_unfinished(folder: Path) -> None:
    """Remove what runs left that were killed while they wrote a checkpoint.

    Example:
        >>> remove_unfinished(Path("no-such-run"))
    """
    for unfinished in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def save_model(folder: Path, model: nn.Module) -> None:
    """Write config.json and model.safetensors."""
    assert isinstance(model, Pretrained)
    model.save_pretrained(folder)


def load_training(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what a checkpoint says of the training: its tensors, and the content of training.json.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind; nothing in it is run.
    Example:
        >>> load_training(Path("no-such-checkpoint"))
        Traceback (most recent call last):
        dinat_ref.models.weight_files.CheckpointError: no-such-checkpoint/training.json cannot be read: ...
    """
    path = checkpoint / "training.json"
    try:
        content = read_json(path, MOST_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    content["history"] = _check_history(content.get("history"), checkpoint)
    try:
        return read_checkpoint(checkpoint / "training.safetensors"), content
    except FileNotFoundError as error:
        raise CheckpointError(str(error)) from None


def _check_history(rows: Any, checkpoint: Path) -> list[Row]:
    """Raise unless there is a row of numbers for each epoch, as many as the checkpoint's name says."""
    path = checkpoint / "training.json"
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CheckpointError(f"{path} holds no history of metrics")
    if (number := checkpoint_number(checkpoint)) >= 0 and len(rows) != number:
        raise CheckpointError(f"{path} must hold the metrics of {number} epochs, got {len(rows)}")
    names = MEASURED | rows[0].keys() if rows else set()
    try:
        for epoch, row in enumerate(rows, start=1):
            for name, value in row.items():
                schema.number(-math.inf, math.inf)(f"{name} of epoch {epoch}", value)
            if row.get("epoch") != epoch or row.keys() != names:
                raise ValueError(f"row {epoch} must be of epoch {epoch} and have {', '.join(sorted(names))}")
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    return rows


def resume(state: State, checkpoint: Path, description: dict[str, Any]) -> None:
    """Take up a checkpoint, if it is of the same run.

    Args:
        description: what ``training.json`` must say: recipe, data, ... as given to ``train``.
    Raises:
        CheckpointError: it says something else, or as ``load_training`` and ``State.restore``.
    Example:
        >>> model = nn.Linear(2, 2)
        >>> resume(State(model, torch.optim.AdamW(model.parameters())), Path("no-such-checkpoint"), {"data": "digits"})
        Traceback (most recent call last):
        dinat_ref.models.weight_files.CheckpointError: no-such-checkpoint/training.json cannot be read: ...
    """
    tensors, content = load_training(checkpoint)
    for name, now in description.items():
        was = content.get(name)
        if was != now:
            if isinstance(was, dict) and isinstance(now, dict):  # a recipe: name only the settings that differ
                was, now = ({key: of.get(key) for key in now if was.get(key) != now[key]} for of in (was, now))
            raise CheckpointError(
                f"{checkpoint} is of another run: its {name} is {brief(was, 200)}, now {now}{_longer(was, now)}"
            )
    state.restore(tensors, content["history"])


def _longer(was: Any, now: Any) -> str:
    """How to train for more epochs than a run was planned for: its learning rate has come down to 0."""
    if not (isinstance(was, dict) and isinstance(now, dict) and list(now) == ["epochs"]):
        return ""
    return "; its learning rate falls to 0 by the last epoch: to go on longer, start a new run with --init and this run"


def provenance() -> dict[str, Any]:
    """Say what made a result: the versions, the machine's threads, the commit of the code.

    Example:
        >>> sorted(provenance())
        ['commit', 'threads', 'versions']
    """
    versions = {"dinat_ref": dinat_ref.__version__, "torch": torch.__version__, "python": platform.python_version()}
    return {"versions": versions, "threads": torch.get_num_threads(), "commit": _commit()}


def _commit() -> str | None:
    """The git commit of the code, with a + where files were changed; None outside a checkout."""
    source = Path(__file__).parents[2]
    if not (source / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(source), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            capture_output=True,
            encoding="utf-8",
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
