"""Images and their classes: what a training run reads, and the scanned digits that come with scikit-learn."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dinat_ref.models.optional import need
from dinat_ref.models.preprocess import DEVIATION, MEAN


@dataclass(frozen=True)
class Examples:
    """Images, and the class of each.

    Shapes:
        images: [N, C, H, W]; float32 ready for a model, or uint8 colours (a quarter of the memory), made ready by
            ``batch``
        labels: [N], int64
    Raises:
        ValueError: another number of labels than images, or a label that class_names does not name.
    Example:
        >>> examples = Examples(torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 1, 0]), ("cat", "dog"))
        >>> images, labels = examples.batch(torch.tensor([3, 1]))
        >>> images.shape, labels
        (torch.Size([2, 1, 8, 8]), tensor([0, 1]))
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that every image has a class."""
        if self.images.ndim != 4 or self.labels.shape != self.images.shape[:1]:
            got = f"{tuple(self.images.shape)} and {tuple(self.labels.shape)}"
            raise ValueError(f"images must be [N, C, H, W] and labels [N], got {got}")
        if len(self) and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise ValueError(f"labels must be numbers of {len(self.class_names)} classes, got {self.labels.unique()}")

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def batch(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Pick images by their numbers [B]: float32 images [B, C, H, W], normalised, and labels [B]."""
        images = self.images[numbers]
        if images.dtype == torch.uint8:
            images = (images / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
        return images, self.labels[numbers]

    def pick(self, numbers: Tensor) -> "Examples":
        """Keep some of the images."""
        return replace(self, images=self.images[numbers], labels=self.labels[numbers])


def hold_out(examples: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Split at random, the same fraction of every class, rounded: what stays, and what is held out.

    Raises:
        ValueError: fraction is not within 0 <= fraction < 1.
    Example:
        >>> examples = Examples(torch.zeros(30, 1, 8, 8), torch.arange(30) % 3, ("a", "b", "c"))
        >>> stays, held_out = hold_out(examples, 0.2, seed=0)
        >>> held_out.labels.bincount()
        tensor([2, 2, 2])
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the fraction held out must be within 0 <= fraction < 1, got {fraction}")
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))
    held = torch.zeros(len(examples), dtype=torch.bool)
    for label in range(len(examples.class_names)):
        members = order[examples.labels[order] == label]
        held[members[: round(fraction * len(members))]] = True
    return examples.pick((~held).nonzero()[:, 0]), examples.pick(held.nonzero()[:, 0])


def load_digits(split: str) -> Examples:
    """Load scikit-learn's 1,797 scanned digits: 8 x 8 pixels, each enlarged to the 4 x 4 of one token.

    The test part is ``train_test_split(test_size=0.2, random_state=0, stratify=labels)``; look at it once, at the
    end. Choose settings by what ``hold_out`` holds out of the training part.

    Shapes:
        images: float32 [1437 or 360, 1, 32, 32], ink 1 on paper 0
    Args:
        split: "train" or "test".
    Raises:
        ImportError: scikit-learn is missing.
        ValueError: another split.
    Source: Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI 1998, its test part, in scikit-learn.
    Example:
        >>> import importlib.util
        >>> if importlib.util.find_spec("sklearn"):
        ...     assert load_digits("train").images.shape == (1437, 1, 32, 32)
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    digits = need("sklearn.datasets", "training").load_digits()
    divide = need("sklearn.model_selection", "training").train_test_split
    halves = divide(digits.images, digits.target, test_size=0.2, random_state=0, stratify=digits.target)
    pixels, labels = (torch.from_numpy(half) for half in (halves[0::2] if split == "train" else halves[1::2]))
    images = interpolate(pixels[:, None].float() / 16, scale_factor=4, mode="bilinear")  # [N, 1, 32, 32]
    return Examples(images, labels.long(), tuple("0123456789"))
