"""How good is a classifier? Its loss and its accuracy on images."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dinat_ref.training.data import Examples
from dinat_ref.training.processes import Process
from dinat_ref.training.recipe import Recipe


@torch.no_grad()
def evaluate(
    model: nn.Module, examples: Examples, recipe: Recipe | None = None, process: Process | None = None
) -> tuple[float, float]:
    """Measure a classifier: the mean cross entropy, and the part of the images whose class it finds.

    Args:
        recipe: its batch_size, precision and label smoothing count; None means 64, float32 and none.
    Raises:
        ValueError: there are no images.
    Example:
        >>> examples = Examples(torch.randn(20, 1, 2, 2), torch.arange(20) % 2, ("even", "odd"))
        >>> loss, accuracy = evaluate(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), examples)
        >>> 0 <= accuracy <= 1
        True
    """
    if not len(examples):
        raise ValueError("there are no images to measure on")
    process = process or Process(device=next(model.parameters()).device)
    recipe = recipe or Recipe(label_smoothing=0.0)
    was_training = model.training
    model.eval()
    totals = torch.zeros(2)  # of the losses, of the right answers
    mine = torch.arange(process.number, len(examples), process.count)
    for numbers in mine.split(recipe.batch_size):
        images, labels = examples.batch(numbers)
        images, labels = images.to(process.device), labels.to(process.device)
        with torch.autocast(process.device.type, torch.bfloat16, enabled=recipe.bf16):
            logits = model(images)
        loss = cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing, reduction="sum")
        totals += torch.stack([loss, (logits.argmax(-1) == labels).sum()]).cpu()
    model.train(was_training)
    loss_sum, right = process.add_up(totals.to(process.device)).tolist()
    return loss_sum / len(examples), right / len(examples)
