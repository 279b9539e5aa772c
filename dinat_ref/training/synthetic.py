"""Two tasks made by a seed, each of which asks for one thing: to see far, or to see one's neighbours.

``far_match``   two coloured markers on an empty image, far apart: have they the same colour?

    . . . . . . . .        Marker by marker the colours say nothing: each is as likely in both classes. Somewhere in
    . A . . . . . .        the network one token has to see both markers. Where none does, a score that is summed
    . . . . . . . .        over tokens is f(first) + g(second), and no such sum is right on all four of AA, AB, BA,
    . . . . . . B .        BB: three of four are the most it can get, accuracy 3 / 4.

``texture``     a random image of two values, in which pixels come in equal pairs: do they lie side by side in their
                row, or one above the other in their column?

    1 1|0 0|1 1|0 0        Both classes have the same pixels, and two pixels that do not touch are independent in
    0|1 1|1 1|0 0|1        both. A layer with dilation > 1 never sees two pixels that touch.
"""

import torch
from torch import Tensor

from dinat_ref.training.data import Examples


def far_match(num_images: int, seed: int, size: int = 9, distance: tuple[int, int] | None = None) -> Examples:
    """Draw images with two markers; class 1 where they have the same colour.

    The distance of two pixels is the larger of the distances on the two axes, as a square window measures it.

    Shapes:
        images: [num_images, 2, size, size], a channel for each colour, 1 at the marker
        labels: [num_images], half of them 1 on average
    Args:
        distance: the least and the largest distance, each as likely; None means more than half of
            the image.
    Raises:
        ValueError: the distances are not within 1 .. size - 1.
    Example:
        >>> examples = far_match(5, seed=0, size=8, distance=(4, 7))
        >>> examples.images.shape, examples.images.sum((1, 2, 3))
        (torch.Size([5, 2, 8, 8]), tensor([2., 2., 2., 2., 2.]))
    """
    least, largest = (size // 2 + 1, size - 1) if distance is None else distance
    if not 1 <= least <= largest < size:
        raise ValueError(f"distance must be within 1 .. {size - 1}, got {distance}")
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: Tensor | int, high: Tensor | int) -> Tensor:
        """Draw an integer for each image from low .. high."""
        return (low + torch.rand(num_images, generator=generator) * (high - low + 1)).floor().long()

    steps = uniform(least, largest)  # [N]
    long, short = steps, uniform(-steps, steps)  # the offset on one axis and on the other
    first_axis = uniform(0, 1).bool()
    sign = 2 * uniform(0, 1) - 1
    offsets = (torch.where(first_axis, sign * long, short), torch.where(first_axis, short, sign * long))
    rows, columns = (uniform((-offset).clamp(min=0), size - 1 - offset.clamp(min=0)) for offset in offsets)
    colours = [uniform(0, 1), uniform(0, 1)]

    images = torch.zeros(num_images, 2, size, size)
    number = torch.arange(num_images)
    images[number, colours[0], rows, columns] = 1
    images[number, colours[1], rows + offsets[0], columns + offsets[1]] = 1
    return Examples(images, (colours[0] == colours[1]).long(), ("different", "same"))


def markers(examples: Examples) -> tuple[Tensor, Tensor]:
    """Find the two markers of every image of ``far_match``.

    Shapes:
        return: two of int64 [N, 2], row and column
    Example:
        >>> first, second = markers(far_match(5, seed=0, size=8))
        >>> bool(((first - second).abs().amax(1) > 4).all())
        True
    """
    places = examples.images.sum(1).nonzero()[:, 1:].reshape(-1, 2, 2)  # [N, marker, row and column]
    return places[:, 0], places[:, 1]


def texture(num_images: int, seed: int, size: int = 9) -> Examples:
    """Draw images of equal pairs of pixels; class 1 where the pairs lie in columns.

    Shapes:
        images: [num_images, 1, size, size], each pixel -1 or 1
        labels: [num_images], half of them 1 on average
    Example:
        >>> examples = texture(5000, seed=0, size=6)
        >>> left, right = examples.images[..., :-1], examples.images[..., 1:]
        >>> [round((left == right).float()[examples.labels == label].mean().item(), 2) for label in (0, 1)]
        [0.75, 0.5]
    """
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randint(2, (num_images, 1, size, size // 2 + 1), generator=generator)
    pixels = pairs.repeat_interleave(2, dim=-1) * 2.0 - 1  # [N, 1, size, size + 2], whole pairs in each row
    phase = torch.randint(2, (num_images, 1, size, 1), generator=generator)  # each row begins with a half or a pair
    column = torch.arange(size) + phase  # [N, 1, size, size]
    images = pixels.gather(3, column)
    labels = torch.randint(2, (num_images,), generator=generator)
    upright = labels.bool()[:, None, None, None]
    return Examples(torch.where(upright, images.mT, images), labels, ("rows", "columns"))


SYNTHETIC = {"far_match": far_match, "texture": texture}
