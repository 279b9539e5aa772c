"""What ``dinat-ref classify`` takes."""

import argparse

EXAMPLES = """examples:
  dinat-ref classify cat.jpg --model dinat_mini --weights dinat_mini_in1k_224.pth --labels imagenet.txt
  dinat-ref classify a.jpg b.jpg --weights folder-with-config-and-weights --top 3
  dinat-ref classify cat.jpg --weights runs/photos                          the last checkpoint of a training run
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
    parser.add_argument(
        "--weights", help="a .pth, .bin or .safetensors file, a folder with config.json and weights, or a training run"
    )
    parser.add_argument(
        "--no-ema",
        action="store_true",
        help="where a file holds both, take the weights in training, not their moving average",
    )
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
