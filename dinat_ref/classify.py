"""The command ``dinat-ref classify``: photographs in, classes and their probabilities out."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dinat_ref.command import CommandError, check_writable, printable, show_progress
from dinat_ref.images import check_photo, open_photo
from dinat_ref.models import DinatForImageClassification, DiNATs, Isotropic, create_model, load_checkpoint
from dinat_ref.models.image_processor import ImageProcessor
from dinat_ref.models.keys import to_original
from dinat_ref.models.outputs import ImageClassifierOutput
from dinat_ref.models.preprocess import to_photo
from dinat_ref.models.pretrained import Pretrained
from dinat_ref.models.schema import LONGEST_SIDE
from dinat_ref.models.variants import find_variant
from dinat_ref.models.weight_files import find_weights, read_content, weights_folder
from dinat_ref.models.wrappers import AVERAGES
from dinat_ref.outside import brief, parse_json, read_json, read_text

if TYPE_CHECKING:
    from PIL.Image import Image


def run(args: argparse.Namespace) -> int:
    """Classify the photographs and print the classes.

    Raises:
        CommandError: an image, a model, weights or labels that cannot be used.
    Example:
        >>> run(argparse.Namespace(images=["no-such.jpg"], top=1, size=None, attention=None))
        Traceback (most recent call last):
        dinat_ref.command.CommandError: image not found: no-such.jpg
    """
    _check(args)
    model, processor, labels = _model(args)
    if not args.weights:
        print("No --weights: the model is random, and so are these classes.")
    for path in args.images:
        show_progress(f"classifying {path}")
        image = processor(_read_image(path))
        probabilities = _probabilities(model, image)
        show_progress("")
        print(printable(path))
        values, numbers = probabilities.topk(min(args.top, len(probabilities)))
        for probability, number in zip(values.tolist(), numbers.tolist(), strict=True):
            print(f"  {probability:7.2%}  {printable(labels.get(number, f'class {number}'))}")
    if args.attention:
        _draw_attention(model, image, args.attention)
        print(f"wrote {printable(args.attention)}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Check what can be checked before any work."""
    if args.top < 1:
        raise CommandError(f"--top must be at least 1, got {args.top}")
    if args.size is not None and not 32 <= args.size <= LONGEST_SIDE:
        limit = "at least 32" if args.size < 32 else f"at most {LONGEST_SIDE}"
        raise CommandError(f"--size must be {limit}, got {args.size}")
    if args.attention:
        if len(args.images) > 1:
            raise CommandError(f"--attention draws one image, got {len(args.images)}")
        if Path(args.attention).suffix.lower() not in (".png", ".svg", ".pdf"):
            raise CommandError(f"--attention must be a .png, .svg or .pdf file, got {args.attention}")
        check_writable(args.attention)
    for path in args.images:
        try:
            check_photo(path)
        except (FileNotFoundError, ValueError) as error:
            raise CommandError(error) from None


def _read_image(path: str) -> "Image":
    """Read a photograph completely, or say in one line why not."""
    try:
        return open_photo(path)
    except (FileNotFoundError, ValueError) as error:
        raise CommandError(error) from None


def _model(args: argparse.Namespace) -> tuple[nn.Module, ImageProcessor, dict[int, str]]:
    """Make the model: with its weights, the way it wants its photographs, and the names of its classes."""
    try:
        if args.weights and args.model is None:
            folder = weights_folder(Path(args.weights))
            if (folder / "config.json").exists():
                return _from_folder(folder, args)
        name = args.model or "dinat_mini"
        variant = find_variant(name)
        torch.manual_seed(0)
        if not args.weights:
            model, num_classes = create_model(name).eval(), 1000
        else:
            model, num_classes = _with_weights(name, args.weights, ema=not args.no_ema)
        processor = ImageProcessor(size=variant.image_size)
        return model, _asked_for(processor, args), _read_labels(args.labels, num_classes)
    except (ValueError, OSError, ImportError, TypeError) as error:
        raise CommandError(error) from None


def _with_weights(name: str, path: str, ema: bool) -> tuple[nn.Module, int]:
    """Make a published model with the weights of a file, and with as many classes as that has."""
    found, taken = find_weights(read_content(path), ema, f"{path}: ")
    if taken.split(".")[-1] in AVERAGES:
        print(f"took {taken} of {printable(path)}: the moving average (--no-ema takes the weights in training)")
    state = to_original(found)
    if "head.weight" not in state:
        raise CommandError(f"{path} has no classifier: it lacks head.weight")
    num_classes = len(state["head.weight"])
    model = create_model(name, num_classes=num_classes).eval()
    load_checkpoint(model, state)
    return model, num_classes


def _from_folder(folder: Path, args: argparse.Namespace) -> tuple[nn.Module, ImageProcessor, dict[int, str]]:
    """Make the model that a folder describes; its classes have the names of its configuration."""
    classes: dict[str, type[Pretrained]] = {Isotropic.model_type: Isotropic, DiNATs.model_type: DiNATs}
    kind = str(read_json(folder / "config.json").get("model_type"))
    model = classes.get(kind, DinatForImageClassification).from_pretrained(folder)
    if not isinstance(model.head, nn.Linear):
        raise CommandError(f"{folder} has no classifier: it has no classes")
    labels = {} if isinstance(model, Isotropic) else model.config.id2label or {}
    if args.labels:
        labels = _read_labels(args.labels, model.head.out_features)
    return model, _asked_for(model.image_processor or ImageProcessor(), args), labels


def _asked_for(processor: ImageProcessor, args: argparse.Namespace) -> ImageProcessor:
    """Change what the arguments say: "crop" keeps the part of the image that the authors' evaluation keeps."""
    size = args.size or processor.size
    if args.preprocess == "square":
        return replace(processor, size=size, crop_fraction=None)
    if args.preprocess == "crop" and processor.crop_fraction is None:
        return replace(processor, size=size, crop_fraction=1.0 if processor.size == 384 else 0.875)
    return replace(processor, size=size)


def _read_labels(path: str | None, num_classes: int) -> dict[int, str]:
    """Read the names of the classes: lines of text, or a JSON list or object."""
    if path is None:
        return {}
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CommandError(f"cannot read labels: {path}: {reason}") from None
    try:
        names = parse_json(text)
    except ValueError as error:
        if text.lstrip().startswith(("[", "{")):
            raise CommandError(f"cannot read labels: {path}: {error}") from None
        names = text.splitlines()
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(str(number).isdecimal() for number in names):
        raise CommandError(f"labels must be lines, a JSON list, or a JSON object from numbers to names: {path}")
    if any(not isinstance(name, str) for name in names.values()):
        wrong = next(name for name in names.values() if not isinstance(name, str))
        raise CommandError(f"labels must be text, got {brief(wrong)}: {path}")
    if len(names) != num_classes:
        raise CommandError(f"{path} must name {num_classes} classes, got {len(names)}")
    return {int(number): name for number, name in names.items()}


def _probabilities(model: nn.Module, image: Tensor) -> Tensor:
    """Classify one image: [num_classes]."""
    try:
        with torch.no_grad():
            output = model(image)
    except ValueError as error:  # e.g. a size that full attention was not made for
        raise CommandError(error) from None
    logits: Tensor = output["logits"] if isinstance(output, ImageClassifierOutput) else output  # [1, num_classes]
    return logits.softmax(-1)[0]


def _draw_attention(model: nn.Module, image: Tensor, path: str) -> None:
    """Draw the attention weights of each level's last layer at its central token, the mean over its heads."""
    from dinat_ref.analysis.model_attention import LayerAttention, model_attention
    from dinat_ref.viz.attention import draw_attention
    from dinat_ref.viz.theme import new_figure, save_figure

    try:
        layers = model_attention(model, image)
    except ValueError as error:
        raise CommandError(error) from None
    levels: dict[tuple[int, ...], LayerAttention] = {layer.neighborhood.layout: layer for layer in layers}  # the last
    figure, grid = new_figure(1, len(levels), size=(3.2 * len(levels), 3.2))
    for axes, layer in zip(grid[0], levels.values(), strict=True):
        neighborhood = layer.neighborhood
        token = tuple(length // 2 for length in neighborhood.layout)
        weights = torch.zeros(neighborhood.layout)
        for key, weight in zip(neighborhood.neighbors(token), layer.weights[0][token].mean(0), strict=True):
            weights[key] = weight
        photo = nn.functional.interpolate(to_photo(image).permute(2, 0, 1)[None], neighborhood.layout, mode="area")
        shown = photo[0].permute(1, 2, 0).numpy()  # [X, Y, 3]
        rows, columns = neighborhood.layout
        title = f"{layer.name}: dilation {neighborhood.dilation[0]}"
        draw_attention(shown, weights.numpy(), neighborhood, token, axes, view=((0, rows), (0, columns)), title=title)
    save_figure(figure, path)
