"""How to train: the settings of a run, and the learning rate of each step."""

import math
from dataclasses import asdict, dataclass
from typing import Any

AUGMENTATIONS = ("none", "affine", "photo")


@dataclass(frozen=True)
class Recipe:
    """The settings of a run; two runs with the same recipe, data, model and thread count give the same bits.

    Args:
        epochs: passes over the training images.
        batch_size: images of one step on each process.
        learning_rate: at its highest.
        warm_up: the part of all steps in which the learning rate grows linearly.
        weight_decay: of matrices; vectors and bias tables have none.
        label_smoothing: the part of the target that is spread over all classes.
        max_gradient_norm: longer gradients are shortened to it.
        average_decay: of the exponential moving average of the weights, which is then what is evaluated and kept;
            0 means none.
        augmentation: "none", "affine" (shift, turn, zoom) or "photo" (the same, and mirrored half of the time).
        bf16: compute matrix products and attention in bfloat16 where autocast does.
        seed: of the order of the images, their augmentation and stochastic depth.
    Raises:
        ValueError: a setting outside its limits.
    Source: Loshchilov & Hutter, arXiv:1711.05101 (AdamW) and arXiv:1608.03983 (cosine); the settings of DiNAT in
        kind: Hassani & Shi, arXiv:2209.15001, appendix.
    Example:
        >>> Recipe(epochs=0)
        Traceback (most recent call last):
        ValueError: epochs must be at least 1, got 0
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 3e-3
    warm_up: float = 0.1
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    max_gradient_norm: float = 1.0
    average_decay: float = 0.0
    augmentation: str = "none"
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every setting against its limits."""
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "max_gradient_norm"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"{name} must be a finite number above 0, got {getattr(self, name)}")
        for name in ("warm_up", "label_smoothing", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be within 0 <= {name} < 1, got {getattr(self, name)}")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"weight_decay must be a finite number from 0 on, got {self.weight_decay}")
        if self.augmentation not in AUGMENTATIONS:
            raise ValueError(f"augmentation must be one of {', '.join(AUGMENTATIONS)}, got {self.augmentation!r}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be within 0 .. 2**31 - 1, got {self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """List the settings by name."""
        return asdict(self)

    def learning_rate_at(self, step: int, num_steps: int) -> float:
        """Give the learning rate of one step: up a line, then down half a cosine to 0.

        Source: Loshchilov & Hutter, arXiv:1608.03983, eq. 5, without restarts; warm-up: Goyal et al., arXiv:1706.02677.
        Example:
            >>> recipe = Recipe(learning_rate=1.0, warm_up=0.2)
            >>> [round(recipe.learning_rate_at(step, num_steps=10), 2) for step in range(10)]
            [0.5, 1.0, 1.0, 0.96, 0.85, 0.69, 0.5, 0.31, 0.15, 0.04]
        """
        warm_up_steps = round(self.warm_up * num_steps)
        if step < warm_up_steps:
            return self.learning_rate * (step + 1) / warm_up_steps
        progress = (step - warm_up_steps) / (num_steps - warm_up_steps)  # 0 .. 1
        return self.learning_rate * (1 + math.cos(math.pi * progress)) / 2


# what the command uses where the user says nothing
DIGITS = Recipe(epochs=60, learning_rate=4e-3, average_decay=0.99, augmentation="affine")
TASK = Recipe(epochs=10, weight_decay=0.01, label_smoothing=0.0)
PHOTOS = Recipe(epochs=100, batch_size=32, learning_rate=1e-3, augmentation="photo")
