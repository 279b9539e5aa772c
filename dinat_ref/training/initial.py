"""Starting from weights that somebody trained: all of a model but, where the classes are others, its head."""

from pathlib import Path

from torch import nn

from dinat_ref.models import load_checkpoint
from dinat_ref.models.keys import to_original
from dinat_ref.models.weight_files import CheckpointError, find_weights, read_content


def start_from(model: nn.Module, path: Path | str, ema: bool = True) -> str:
    """Load the weights of a file or a folder into a model; a head for another number of classes stays as it is.

    Args:
        ema: take the moving average of the weights where the file has it beside the weights in training.
    Returns:
        What was taken, in words.
    Raises:
        CheckpointError: it cannot be read, or something else than the head does not fit.
        FileNotFoundError: no such file, or a folder without weights.
    Example:
        >>> import tempfile
        >>> import torch
        >>> from dinat_ref.models import create_model
        >>> cats, dogs = (create_model("dinat_nano_digits", num_classes=classes) for classes in (3, 5))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"model_ema": cats.state_dict()}, f"{folder}/cats.pth")
        ...     start_from(dogs, f"{folder}/cats.pth").replace(folder, "runs")
        'weights of runs/cats.pth, its model_ema, but for the head: it had 3 classes, and these are 5'
    """
    found, taken = find_weights(read_content(path), ema, f"{path}: ")
    try:
        state = to_original(found)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    words = f"weights of {path}" + (f", its {taken}" if taken else "")
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("head.")}
    classes, theirs = (len(head["head.bias"]) if "head.bias" in head else 0 for head in (own, state))
    if classes != theirs:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")} | own
        words += f", but for the head: it had {theirs} classes, and these are {classes}"
    load_checkpoint(model, state)
    return words
