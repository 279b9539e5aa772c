"""The training loop: every step of every epoch, with nothing hidden.

For each epoch: shuffle, and for each batch: change the images a little, compute the loss, its gradient, shorten
the gradient, take a step of AdamW. Then measure on images that were held out, and write a checkpoint.

All that is random in an epoch is drawn from generators that are seeded by the recipe's seed and the epoch. So a run
that was killed goes on from its last checkpoint to the same bits, and so do several processes, which shuffle the
same way and each take their part of every batch.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dinat_ref.command import show_progress
from dinat_ref.training.augment import apply_changes, draw_changes
from dinat_ref.training.checkpoint import save_checkpoint
from dinat_ref.training.data import Examples
from dinat_ref.training.evaluate import evaluate
from dinat_ref.training.processes import Process
from dinat_ref.training.recipe import Recipe
from dinat_ref.training.state import Row, State


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient became infinite or not a number; the checkpoints before it are good.

    Example:
        >>> issubclass(NonFiniteLossError, ArithmeticError)
        True
    """


def start(model: nn.Module, recipe: Recipe) -> State:
    """Make the state of a run before its first step: the optimizer, and the average where the recipe has one.

    Source: Loshchilov & Hutter, arXiv:1711.05101; no decay of vectors and bias tables as in the published code.
    Example:
        >>> state = start(nn.Linear(2, 3), Recipe(weight_decay=0.05))
        >>> [(group["weight_decay"], len(group["params"])) for group in state.optimizer.param_groups]
        [(0.05, 1), (0.0, 1)]
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (free if parameter.ndim < 2 or name.endswith("rpb") else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    average = (
        AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.average_decay)) if recipe.average_decay else None
    )
    return State(model, optimizer, average)


def train(
    state: State,
    examples: Examples,
    held_out: Examples | None,
    recipe: Recipe,
    folder: Path | None = None,
    description: dict[str, Any] | None = None,
    process: Process | None = None,
    report: Callable[[Row], None] | None = None,
) -> State:
    """Train from the state's last epoch to the recipe's.

    Args:
        state: of ``start``, or restored from a checkpoint; it is changed.
        examples, held_out: the images to learn from, and those to measure on, or None.
        folder: where a checkpoint is written after each epoch; None writes nothing.
        description: what the checkpoints say of the run.
        process: this process, where there are several; its batches have recipe.batch_size images each.
        report: called with the metrics of each epoch.
    Returns:
        The state, with the metrics of every epoch in its history.
    Raises:
        NonFiniteLossError: the loss or its gradient is infinite or not a number.
        ValueError: fewer training images than a batch of all processes.
    Example:
        >>> from dinat_ref.models import Isotropic
        >>> from dinat_ref.training.synthetic import texture
        >>> shape = {"depth": 1, "kernel_size": 3, "patch_size": 1, "num_channels": 1, "num_labels": 2}
        >>> model = Isotropic(embed_dim=8, num_heads=1, **shape)
        >>> recipe = Recipe(epochs=2, batch_size=8)
        >>> state = train(start(model, recipe), texture(16, seed=0, size=6), texture(8, seed=1, size=6), recipe)
        >>> list(state.history[0])[:4]
        ['epoch', 'learning_rate', 'train_loss', 'train_accuracy']
    """
    process = process or Process(device=next(state.model.parameters()).device)
    steps = check_batch(examples, recipe, process)
    parallel = state.model
    if process.count > 1:
        parallel = DistributedDataParallel(state.model)
    began, done_before = time.perf_counter(), len(state.history)
    for epoch in range(len(state.history), recipe.epochs):
        with torch.random.fork_rng():
            torch.manual_seed(epoch_seed(recipe, epoch) + process.number)  # stochastic depth differs by process
            row = train_epoch(state, parallel, examples, recipe, epoch, steps, process)
        if held_out is not None and len(held_out):
            loss, accuracy = evaluate(state.kept_model, held_out, recipe, process)
            if not math.isfinite(loss):
                raise NonFiniteLossError(f"after epoch {epoch + 1} the loss on the images held out is {loss}")
            row |= {"held_out_loss": loss, "held_out_accuracy": accuracy}
        per_epoch = (time.perf_counter() - began) / (epoch + 1 - done_before)
        row["seconds_left"] = per_epoch * (recipe.epochs - epoch - 1)
        state.history.append(row)
        if process.is_first:
            if folder is not None:
                save_checkpoint(folder, state, description or {})
            if report is not None:
                report(row)
        process.wait()
    return state


def check_batch(examples: Examples, recipe: Recipe, process: Process) -> int:
    """Count the steps of an epoch; images that do not fill a last batch are left to the next shuffle.

    Raises:
        ValueError: fewer training images than a batch of all processes.
    Example:
        >>> examples = Examples(torch.zeros(20, 1, 2, 2), torch.zeros(20).long(), ("a",))
        >>> check_batch(examples, Recipe(batch_size=8), Process())
        2
    """
    steps = len(examples) // (recipe.batch_size * process.count)
    if steps == 0:
        batch = f"{process.count} x {recipe.batch_size}" if process.count > 1 else f"{recipe.batch_size}"
        raise ValueError(f"batch_size must be at most the number of training images, {len(examples)}, got {batch}")
    return steps


def train_epoch(
    state: State, parallel: nn.Module, examples: Examples, recipe: Recipe, epoch: int, steps: int, process: Process
) -> Row:
    """Take all steps of one epoch and return its metrics.

    Args:
        parallel: state.model, or what wraps it to add up the gradients of all processes.
        steps: how many.
    Raises:
        NonFiniteLossError: the loss or its gradient is infinite or not a number.
    Example:
        >>> from dinat_ref.training.synthetic import texture
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
        >>> recipe, examples = Recipe(epochs=1, batch_size=8), texture(24, seed=0, size=6)
        >>> row = train_epoch(start(network, recipe), network, examples, recipe, epoch=0, steps=3, process=Process())
        >>> row["epoch"], 0 <= row["train_accuracy"] <= 1
        (1, True)
    """
    generator = torch.Generator().manual_seed(epoch_seed(recipe, epoch))
    of_all = recipe.batch_size * process.count
    order = torch.randperm(len(examples), generator=generator)
    totals = torch.zeros(2)  # of the losses, of the right answers, each per image
    began, rate = time.perf_counter(), 0.0
    state.model.train()
    for step in range(steps):
        rate = recipe.learning_rate_at(epoch * steps + step, recipe.epochs * steps)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        numbers = order[step * of_all : (step + 1) * of_all]
        changes = draw_changes(recipe.augmentation, of_all, generator)  # for all processes, so that all draw the same
        images, labels = examples.batch(process.share(numbers))
        images = apply_changes(images, None if changes is None else process.share(changes))
        images, labels = images.to(process.device), labels.to(process.device)

        with torch.autocast(process.device.type, torch.bfloat16, enabled=recipe.bf16):
            logits = parallel(images)  # [B, classes]
        loss = cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
        state.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), recipe.max_gradient_norm)
        if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            where = f"step {step + 1} of epoch {epoch + 1}"
            raise NonFiniteLossError(f"at {where} the loss is {loss.item()} and its gradient's norm {norm.item()}")
        state.optimizer.step()
        if state.average is not None:
            state.average.update_parameters(state.model)

        totals += torch.tensor([loss.item(), (logits.argmax(-1) == labels).float().mean().item()])
        if process.is_first:
            seen, seconds = (step + 1) * of_all, time.perf_counter() - began
            left = seconds / (step + 1) * (steps * (recipe.epochs - epoch) - step - 1)
            mean_loss, accuracy = (totals / (step + 1)).tolist()
            show_progress(
                f"epoch {epoch + 1}/{recipe.epochs}  step {step + 1}/{steps}  loss {mean_loss:.3f}  "
                f"accuracy {accuracy:.1%}  {seen / seconds:.0f} images/s  {clock(left)} left"
            )
    if process.is_first:
        show_progress("")
    train_loss, train_accuracy = (process.add_up(totals.to(process.device)) / (steps * process.count)).tolist()
    return {
        "epoch": epoch + 1,
        "learning_rate": rate,
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "images_per_second": steps * of_all / (time.perf_counter() - began),
    }


def epoch_seed(recipe: Recipe, epoch: int) -> int:
    """Give every epoch of every seed a number of its own to draw from.

    Example:
        >>> epoch_seed(Recipe(seed=3), epoch=7)
        3000007000
    """
    return (recipe.seed * 1_000_000 + epoch) * 1000


def clock(seconds: float) -> str:
    """Write a time as hours, minutes and seconds.

    Example:
        >>> clock(59.6), clock(3725)
        ('1:00', '1:02:05')
    """
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"
