"""The two-crop test: does a token keep its output when the crop that it is seen in moves?

Two crops of one map, ``shift`` tokens apart, share most of their tokens. A translation-equivariant operator gives a
shared token the same output in both. Neighborhood attention does so except near the edges, where windows are shifted;
window attention only where the shift is a multiple of its window. Crops are the honest test: rolling a map would
wrap its content around, which no camera does.
"""

from collections.abc import Callable

from torch import Tensor

from dinat_ref.analysis.receptive_field import Layer

LayerMaker = Callable[[tuple[int, ...]], Layer]


def unchanged_share(make_layer: LayerMaker, shared: int, shift: int) -> float:
    """Give the share of shared tokens of one axis that attend the same tokens in both crops: exactly, from windows.

    The crops are ``shared + shift`` tokens long and ``shift`` tokens apart: they share ``shared`` tokens.

    Shapes:
        make_layer: a function from a layout (X,) to a layer
        return: one number in 0 .. 1
    Raises:
        ValueError: shared is below 1 or shift below 0.
    Source: the claim is arXiv:2204.07143, section 3.2.
    Example:
        >>> from dinat_ref import Neighborhood
        >>> unchanged_share(lambda layout: Neighborhood(layout, 7), shared=48, shift=5)
        0.875
    """
    if shared < 1 or shift < 0:
        raise ValueError(f"shared must be at least 1 and shift at least 0, got {shared} and {shift}")
    windows = make_layer((shared + shift,)).windows(0)
    first = [set(windows[i + shift]) for i in range(shared)]  # token i as the first crop sees it
    second = [{key + shift for key in windows[i]} for i in range(shared)]  # the second begins at shift
    return sum(mine == other for mine, other in zip(first, second, strict=True)) / shared


def two_crops(operator: Callable[[Tensor], Tensor], image: Tensor, shift: int) -> Tensor:
    """Run an operator on two crops of a map and compare what it says about the tokens they share.

    The first crop leaves out the last ``shift`` tokens of axis 1, the second the first ``shift``.

    Shapes:
        image:    [B, X, *others, C]
        operator: from [B, x, *others, C] to [B, x, *others, C']
        return:   the largest difference of each shared token's outputs: [B, X - 2 * shift, *others]
    Raises:
        ValueError: shift is below 0 or leaves no shared token.
    Source: the claim is arXiv:2204.07143, section 3.2.
    Example:
        >>> import torch
        >>> from dinat_ref import na1d
        >>> image = torch.arange(12.).square()[None, :, None]
        >>> mean = lambda x: na1d(0 * x[..., None], x[..., None], x[..., None], kernel_size=3)[..., 0]
        >>> two_crops(mean, image, shift=2) > 0
        tensor([[ True, False, False, False, False, False, False,  True]])
    """
    length = image.shape[1]
    if shift < 0 or 2 * shift >= length:
        raise ValueError(f"shift must be in 0 .. {(length - 1) // 2}, to leave shared tokens, got {shift}")
    first, second = operator(image[:, : length - shift]), operator(image[:, shift:])
    shared = length - 2 * shift
    return (first[:, shift:] - second[:, :shared]).abs().amax(-1)
