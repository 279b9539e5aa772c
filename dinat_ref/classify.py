"""The command ``dinat-ref classify``: photographs in, classes and their probabilities out."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dinat_ref.command import CommandError, show_progress
from dinat_ref.models import DinatConfig, DinatForImageClassification, create_model, load_checkpoint, read_checkpoint
from dinat_ref.models.image_processor import ImageProcessor
from dinat_ref.models.keys import to_original
from dinat_ref.models.outputs import ImageClassifierOutput
from dinat_ref.models.preprocess import to_photo
from dinat_ref.models.variants import find_variant

if TYPE_CHECKING:
    from PIL.Image import Image

EXAMPLES = """examples:
  dinat-ref classify cat.jpg --model dinat_mini --weights dinat_mini_in1k_224.pth --labels imagenet.txt
  dinat-ref classify a.jpg b.jpg --weights folder-with-config-and-weights --top 3
  dinat-ref classify cat.jpg --model nat_tiny --preprocess crop --attention attention.png
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``classify``.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> parser.parse_args(["cat.jpg"]).top
        5
    """
    parser.epilog = EXAMPLES
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a photograph: .jpg, .png, whatever Pillow reads")
    parser.add_argument("--model", help="a published model, e.g. dinat_base (default dinat_mini, or the folder's)")
    parser.add_argument("--weights", help="a .pth, .bin or .safetensors file, or a folder with config.json and weights")
    parser.add_argument("--labels", help="class names, one a line, or a JSON list or object")
    parser.add_argument("--top", type=int, default=5, help="how many classes to print (default 5)")
    parser.add_argument("--size", type=int, help="pixels of a side (default: the model's own, 224 or 384)")
    parser.add_argument(
        "--preprocess",
        choices=("square", "crop"),
        help="square: resize to a square, as on the Hugging Face hub (default, or the folder's own way); "
        "crop: as the original evaluation",
    )
    parser.add_argument("--attention", metavar="OUT.png", help="draw what the central token attends to in each level")


def run(args: argparse.Namespace) -> int:
    """Classify the photographs and print the classes.

    Raises:
        CommandError: an image, a model, weights or labels that cannot be used.
    Example:
        >>> run(argparse.Namespace(images=["no-such.jpg"], top=1, attention=None))
        Traceback (most recent call last):
        dinat_ref.command.CommandError: image not found: no-such.jpg
    """
    if args.top < 1:
        raise CommandError(f"--top must be at least 1, got {args.top}")
    if args.attention and len(args.images) > 1:
        raise CommandError(f"--attention draws one image, got {len(args.images)}")
    if args.attention and Path(args.attention).suffix.lower() not in (".png", ".svg", ".pdf"):
        raise CommandError(f"--attention must be a .png, .svg or .pdf file, got {args.attention}")
    photos = [_read_image(path) for path in args.images]
    model, processor, labels = _model(args)
    if args.size is not None and args.size < 32:
        raise CommandError(f"--size must be at least 32, got {args.size}")
    if not args.weights:
        print("No --weights: the model is random, and so are these classes.")
    for path, photo in zip(args.images, photos, strict=True):
        image = processor(photo)
        show_progress(f"classifying {path}")
        probabilities = _probabilities(model, image)
        show_progress("")
        print(path)
        values, numbers = probabilities.topk(min(args.top, len(probabilities)))
        for probability, number in zip(values.tolist(), numbers.tolist(), strict=True):
            print(f"  {probability:7.2%}  {labels.get(number, f'class {number}')}")
    if args.attention:
        _draw_attention(model, image, args.attention)
        print(f"wrote {args.attention}")
    return 0


def _read_image(path: str) -> "Image":
    """Read a photograph completely, or say in one line why not."""
    from PIL import Image, UnidentifiedImageError

    if not Path(path).is_file():
        raise CommandError(f"image not found: {path}")
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError):
        raise CommandError(f"not an image, or a damaged one: {path}") from None


def _model(args: argparse.Namespace) -> tuple[nn.Module, ImageProcessor, dict[int, str]]:
    """Make the model: with its weights, the way it wants its photographs, and the names of its classes."""
    try:
        if args.weights and args.model is None and (Path(args.weights) / "config.json").is_file():
            return _from_folder(args)
        name = args.model or "dinat_mini"
        variant = find_variant(name)
        state = to_original(read_checkpoint(args.weights)) if args.weights else None
        if state is not None and "head.weight" not in state:
            raise CommandError(f"{args.weights} has no classifier: it lacks head.weight")
        torch.manual_seed(0)
        model = create_model(name, num_classes=1000 if state is None else state["head.weight"].shape[0]).eval()
        if state is not None:
            load_checkpoint(model, state)
        num_classes = 1000 if state is None else len(state["head.weight"])
        processor = ImageProcessor(size=variant.image_size)
        return model, _asked_for(processor, args), _read_labels(args.labels, num_classes)
    except (ValueError, OSError, ImportError, TypeError) as error:
        raise CommandError(str(error)) from None


def _from_folder(args: argparse.Namespace) -> tuple[nn.Module, ImageProcessor, dict[int, str]]:
    """Make the model that a folder describes; its classes have the names of its configuration."""
    model = DinatForImageClassification.from_pretrained(args.weights)
    config: DinatConfig = model.config
    if not config.num_labels:
        raise CommandError(f"{args.weights} has no classifier: it has no classes")
    labels = config.id2label or {}
    if args.labels:
        labels = _read_labels(args.labels, config.num_labels)
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
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise CommandError(f"cannot read labels: {path}") from None
    try:
        names = json.loads(text)
    except ValueError:
        names = text.splitlines()
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(str(number).isdigit() for number in names):
        raise CommandError(f"labels must be lines, a JSON list, or a JSON object from numbers to names: {path}")
    if len(names) != num_classes:
        raise CommandError(f"{path} must name {num_classes} classes, got {len(names)}")
    return {int(number): str(name) for number, name in names.items()}


def _probabilities(model: nn.Module, image: Tensor) -> Tensor:
    """Classify one image: [num_classes]."""
    try:
        with torch.no_grad():
            output = model(image)
    except ValueError as error:  # e.g. a size that full attention was not made for
        raise CommandError(str(error)) from None
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
        raise CommandError(str(error)) from None
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
