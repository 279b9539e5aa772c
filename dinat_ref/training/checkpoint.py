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
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import dinat_ref
from dinat_ref.models.pretrained import Pretrained
from dinat_ref.models.weight_files import (
    CheckpointError,
    checkpoint_number,
    checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from dinat_ref.models.weight_files import latest_checkpoint as latest_checkpoint  # of a run, offered here as well
from dinat_ref.outside import read_json

Row = dict[str, float]  # the metrics of an epoch by name
MOST_BYTES = 64 * 2**20  # of training.json, which has 300 for each epoch


@dataclass
class State:
    """All that changes while a model is trained.

    Args:
        model, optimizer: in training.
        average: the moving average of the weights, or None.
        history: the metrics of every epoch that is done.
    Example:
        >>> model = nn.Linear(2, 2)
        >>> State(model, torch.optim.AdamW(model.parameters())).kept_model is model
        True
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None = None
    history: list[Row] = field(default_factory=list)

    @property
    def kept_model(self) -> nn.Module:
        """The model to evaluate and to keep: the average where there is one."""
        return self.model if self.average is None else self.average.module

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that training changes, by name, but for those of ``kept_model``."""
        found = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{number}.{name}": torch.as_tensor(moment) for name, moment in moments.items()}
        if self.average is not None:
            found |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        return found

    def restore(self, tensors: dict[str, Tensor], history: list[Row]) -> None:
        """Take up the tensors of ``tensors()`` and the metrics.

        Raises:
            CheckpointError: a tensor is missing, or does not belong to this model or has another shape.
        """
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "average": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        settings = self.optimizer.state_dict()
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            number, _, moment = name.partition(".")
            shapes = {"step": (), "exp_avg": None, "exp_avg_sq": None}
            if not number.isdigit() or int(number) >= len(parameters) or moment not in shapes:
                raise CheckpointError(f"the checkpoint does not fit the run: optimizer.{name} is unknown")
            if tensor.shape != (() if moment == "step" else parameters[int(number)].shape):
                raise CheckpointError(f"the checkpoint does not fit the run: optimizer.{name} has another shape")
            moments.setdefault(int(number), {})[moment] = tensor
        try:
            self.model.load_state_dict(parts["model"])
            if self.average is not None:
                self.average.load_state_dict(parts["average"])
        except RuntimeError as error:
            raise CheckpointError(
                f"the checkpoint does not fit the run: {str(error).splitlines()[-1].strip()}"
            ) from None
        if any(len(of_one) != 3 for of_one in moments.values()) or len(moments) != len(parameters):
            raise CheckpointError("the checkpoint does not fit the run: moments of the optimizer are missing")
        self.optimizer.load_state_dict({"state": moments, "param_groups": settings["param_groups"]})
        self.history = history


def save_checkpoint(folder: Path, state: State, description: dict[str, Any]) -> Path:
    """Write the checkpoint of the epochs that are done, then remove the ones before it.

    Shapes:
        return: the checkpoint's folder
    Args:
        description: what ``training.json`` says besides metrics and versions: recipe, data, ...
    Raises:
        OSError: the folder cannot be written.
    Example:
        >>> from dinat_ref.models import DiNAT, DinatConfig
        >>> model = DiNAT(DinatConfig(embed_dim=8, depths=[1], num_heads=[1], dilations=[[1]], kernel_size=3))
        >>> state = State(model, torch.optim.AdamW(model.parameters()), history=[{"loss": 1.0}])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(Path(folder), state, {}).name
        'checkpoint-0001'
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"checkpoint-{len(state.history):04d}"
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".checkpoint-"))
    try:
        save_model(temporary, state.kept_model)
        write_checkpoint(temporary / "training.safetensors", state.tensors())
        if "size" in description:  # of photographs: read by ``dinat-ref classify`` and transformers
            (temporary / "preprocessor_config.json").write_text(json.dumps({"size": description["size"]}) + "\n")
        content = description | {"history": state.history} | provenance()
        (temporary / "training.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        temporary.chmod(0o755)  # mkdtemp makes private folders
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    before = [old for old in checkpoints(folder) if checkpoint_number(old) < len(state.history)]
    for old in [*before, *folder.glob(".checkpoint-*")]:  # the latter: of runs that were killed
        shutil.rmtree(old, ignore_errors=True)
    return target


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
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{path} cannot be read: {reason}") from None
    rows = content.get("history")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CheckpointError(f"{path} holds no history of metrics")
    try:
        return read_checkpoint(checkpoint / "training.safetensors"), content
    except FileNotFoundError as error:
        raise CheckpointError(str(error)) from None


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
            raise CheckpointError(f"{checkpoint} is of another run: its {name} is {was}, now {now}")
    state.restore(tensors, content["history"])


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
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
