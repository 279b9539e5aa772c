"""The command ``dinat-ref export``: a model as one file for ONNX Runtime, torch.export or AOTInductor."""

import argparse
import importlib.util
import time
from pathlib import Path

import torch
from torch import Tensor

from dinat_ref.command import CommandError, check_writable, printable, show_progress, whole_file
from dinat_ref.export.check import compare, milliseconds
from dinat_ref.export.formats import FORMATS, without_chatter
from dinat_ref.export.program import Logits, least_size, trace
from dinat_ref.models.classifier import Classifier
from dinat_ref.models.loading import open_model
from dinat_ref.models.nano import NANO
from dinat_ref.models.schema import LONGEST_SIDE

DYNAMIC = ("batch", "size")
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
EXAMPLES = """examples:
  dinat-ref export dinat_mini --weights dinat_mini.pth --out dinat_mini.onnx --dynamic batch
  dinat-ref export dinat_tiny --weights dinat_tiny.pth --out any.onnx --dynamic batch,size
  dinat-ref export folder-with-config-and-weights --out model.pt2 --precision float16
  dinat-ref export runs/photos --out photos.aoti            compiled: for a processor like this one
  dinat-ref export dinat_nano_digits --out digits.onnx      the model that comes with this package

The file takes images as the model does, normalised, and gives logits:
  session = onnxruntime.InferenceSession("dinat_mini.onnx"); session.run(None, {"image": array})
  torch.export.load("model.pt2").module()(image)
  torch._inductor.aoti_load_package("photos.pt2")(image)    after renaming it to .pt2

It is read back and compared with the model on random images before it appears under its name.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> parser.parse_args(["dinat_mini", "--out", "dinat_mini.onnx", "--dynamic", "batch"]).dynamic
        ['batch']
    """
    parser.epilog = EXAMPLES
    kinds = "; ".join(f"{suffix}: {kind.what}" for suffix, kind in FORMATS.items())
    parser.add_argument(
        "model", metavar="MODEL|FOLDER", help="a published model, a folder that describes one, or a run"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help=kinds)
    parser.add_argument("--weights", metavar="FILE", help="weights for the published model (default: random ones)")
    parser.add_argument("--no-ema", action="store_true", help="take the weights in training, not their moving average")
    parser.add_argument(
        "--dynamic",
        type=lambda text: [word for word in text.split(",") if word],
        default=[],
        metavar="batch,size",
        help="what may change from call to call: batch, size or both (default: nothing)",
    )
    parser.add_argument("--batch", type=int, default=1, metavar="B", help="images in a call (default 1)")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="of a side (default: the model's own)")
    parser.add_argument(
        "--precision", choices=list(PRECISIONS), default="float32", help="of weights and images (default float32)"
    )


def run(args: argparse.Namespace) -> int:
    """Export, check, and only then give the file its name.

    Raises:
        CommandError: a model, a format or sizes that cannot be exported, or a result that is wrong.
    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> run(parser.parse_args(["dinat_mini", "--out", "dinat_mini.h5"]))
        Traceback (most recent call last):
        dinat_ref.command.CommandError: --out must end in .onnx, .pt2 or .aoti, got dinat_mini.h5
    """
    _check(args)
    model = _model(args)
    if not args.weights and args.model not in NANO and not Path(args.model).is_dir():
        print("No --weights: the model is random.")
    model = model.to(PRECISIONS[args.precision])
    eager, images = Logits(model).eval(), _images(args, model)
    kind = FORMATS[args.out.suffix.lower()]
    start = time.perf_counter()
    with whole_file(args.out) as temporary, without_chatter():
        show_progress("tracing the model")
        program = trace(model, images[0], args.dynamic)
        show_progress(f"writing {args.out.name}")
        kind.write(program, temporary)
        seconds = time.perf_counter() - start
        show_progress(f"checking {args.out.name}")
        exported = kind.read(temporary)
        agreement = compare(exported, eager, images)
        times = [milliseconds(each, images[-1]) for each in (exported, eager)]
        size = temporary.stat().st_size
    show_progress("")
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    print(f"wrote {printable(args.out)}: {size / 1e6:.1f} MB, weights {weights / 1e6:.1f} MB, in {seconds:.0f} s")
    print(f"  may change: {', '.join(args.dynamic) or 'nothing'}")
    print(f"  largest difference from eager PyTorch: {agreement}")
    print(f"  {times[0]:.1f} ms for {len(images[-1])} beside {times[1]:.1f} ms of eager PyTorch")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Check what can be checked before any work."""
    suffix = args.out.suffix.lower()
    if suffix not in FORMATS:
        *others, last = FORMATS
        raise CommandError(f"--out must end in {', '.join(others)} or {last}, got {args.out}")
    if unknown := [word for word in args.dynamic if word not in DYNAMIC]:
        raise CommandError(f"--dynamic must be of {', '.join(DYNAMIC)}, got {unknown[0]}")
    if args.batch < 1:
        raise CommandError(f"--batch must be at least 1, got {args.batch}")
    if args.size is not None and not 1 <= args.size <= LONGEST_SIDE:
        raise CommandError(f"--size must be within 1 .. {LONGEST_SIDE}, got {args.size}")
    if missing := [name for name in FORMATS[suffix].packages if importlib.util.find_spec(name) is None]:
        raise CommandError(f"{suffix} needs {', '.join(missing)}: pip install 'dinat-ref[onnx]'")
    check_writable(args.out)


def _model(args: argparse.Namespace) -> Classifier:
    """Open the model, or say in one line why not."""
    torch.manual_seed(0)
    try:
        return open_model(args.model, args.weights, ema=not args.no_ema)
    except (ValueError, OSError, ImportError, TypeError) as error:
        raise CommandError(error) from None


def _images(args: argparse.Namespace, model: Classifier) -> list[Tensor]:
    """Draw the images to trace with and to compare on: one for each shape that is to work."""
    assert model.image_processor is not None
    size = args.size or model.image_processor.size
    batches = [2, 3, 1] if "batch" in args.dynamic else [args.batch]
    shapes = [(batch, size, size) for batch in batches]
    if "size" in args.dynamic:
        try:
            least = least_size(model)
        except ValueError as error:
            raise CommandError(f"--dynamic {error}") from None
        size = max(size, least)  # the first is traced: neither square nor smallest, that nothing is taken for granted
        shapes = [(batches[0], size + 8, size + 16), (batches[-1], least, least + 5), (batches[-1], size, size)]
    dtype = PRECISIONS[args.precision]
    return [torch.randn(batch, model.in_chans, *sides).to(dtype) for batch, *sides in shapes]
