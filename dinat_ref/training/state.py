"""All that changes while a model is trained, as tensors by name: what a checkpoint keeps and a run takes up again."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dinat_ref.models.weight_files import CheckpointError
from dinat_ref.outside import brief

Row = dict[str, float]  # the metrics of an epoch by name
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps of each parameter


@dataclass
class State:
    """All that changes while a model is trained.

    Args:
        model, optimizer: in training; the optimizer is AdamW.
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
            CheckpointError: a tensor is missing, unknown, of another shape or dtype, or holds impossible numbers.
        """
        self._check(tensors)
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "average": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.model.load_state_dict(parts["model"])
        if self.average is not None:
            self.average.load_state_dict(parts["average"])
        count = len(self._parameters())
        moments = {
            number: {name: parts["optimizer"][f"{number}.{name}"] for name in MOMENTS} for number in range(count)
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.history = history

    def _parameters(self) -> list[Tensor]:
        """The parameters in the order in which the optimizer numbers them."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _check(self, tensors: dict[str, Tensor]) -> None:
        """Raise unless the tensors are those of this run after some step."""
        expected = {name: tensor for name, tensor in self.tensors().items() if not name.startswith("optimizer.")}
        for number, parameter in enumerate(self._parameters()):
            expected |= {f"optimizer.{number}.step": torch.tensor(0.0)}
            expected |= dict.fromkeys((f"optimizer.{number}.exp_avg", f"optimizer.{number}.exp_avg_sq"), parameter)
        problem = ""
        if unknown := sorted(tensors.keys() - expected.keys()):
            problem = f"it does not know {brief(unknown[0])}"
        elif missing := sorted(expected.keys() - tensors.keys()):
            problem = f"{missing[0]} is missing"
        for name, tensor in () if problem else expected.items():
            kind, wanted = [f"{one.dtype} {list(one.shape)}" for one in (tensors[name], tensor)]
            if kind != wanted:
                problem = f"{name} must be {wanted}, got {kind}"
            elif not tensors[name].isfinite().all():
                problem = f"{name} must be finite"
            elif name.endswith((".exp_avg_sq", ".n_averaged")) and (tensors[name] < 0).any():
                problem = f"{name} must not be negative"
        steps = {tensors[name].item() for name in expected if name.endswith(".step") and not problem}
        if len(steps) > 1 or any(step < 1 or step % 1 for step in steps):
            problem = f"the optimizer's step must be one number from 1 on, got {sorted(steps)[:3]}"
        if problem:
            raise CheckpointError(f"the checkpoint does not fit the run: {problem}")
