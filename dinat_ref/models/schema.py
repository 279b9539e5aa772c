"""What settings may be: their types and limits, checked before anything is made of them.

A check takes the name of a setting and its value, and returns the value as plain Python has it, or raises. The limits
are those of any model that somebody could mean: ten times the largest published ones and more.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dinat_ref.outside import brief
from dinat_ref.window import check_integer

Check = Callable[[str, Any], Any]

MOST_CHANNELS = 2**16  # of a level; DiNAT-Large has 1,536
MOST_LEVELS = 12
MOST_LAYERS = 512  # in all levels; the published models have up to 30
MOST_PARAMETERS = 2**31  # DiNAT-Large has 2 * 10^8
MOST_CLASSES = 10**6
LONGEST_REACH = 1024  # kernel_size * dilation, in tokens: a smaller map is padded to it
BELOW_ONE = 1 - 1e-9  # the highest probability of skipping a branch: what is kept is divided by the rest
LONGEST_SIDE = 4096  # of images, in pixels


def integer(least: int, most: int) -> Check:
    """An integer within limits, Python's or NumPy's.

    Example:
        >>> integer(1, 9)("depth", 10)
        Traceback (most recent call last):
        ValueError: depth must be at most 9, got 10
    """

    def check(name: str, value: Any) -> int:
        if _is_truth(value) or hasattr(value, "__len__") or not hasattr(value, "__index__"):
            raise TypeError(f"{name} must be an integer, got {brief(value)}")
        value = check_integer(name, value)
        _check_limits(name, value, least, most)
        return value

    return check


def number(least: float, most: float) -> Check:
    """A finite number within limits.

    Example:
        >>> number(0, 1)("rate", 0.5), number(0, 1)("rate", 1)
        (0.5, 1.0)
    """

    def check(name: str, value: Any) -> float:
        if isinstance(value, (str, bytes)) or _is_truth(value) or not hasattr(value, "__float__"):
            raise TypeError(f"{name} must be a number, got {brief(value)}")
        if not math.isfinite(value := float(value) if not isinstance(value, int) or abs(value) < 2**64 else math.inf):
            raise ValueError(f"{name} must be a finite number, got {value}")
        _check_limits(name, value, least, most)
        return value

    return check


def truth(name: str, value: Any) -> bool:
    """True or False, and nothing that merely counts as one of them.

    Example:
        >>> truth("qkv_bias", "no")
        Traceback (most recent call last):
        TypeError: qkv_bias must be true or false, got 'no'
    """
    if not _is_truth(value):
        raise TypeError(f"{name} must be true or false, got {brief(value)}")
    return bool(value)


def word(*choices: str) -> Check:
    """One of some words.

    Example:
        >>> word("pad", "raise")("small_input", "pad")
        'pad'
    """

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {brief(value)}")
        return value

    return check


def text(name: str, value: Any) -> str:
    """Any text.

    Example:
        >>> text("name", "stage1")
        'stage1'
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, got {brief(value)}")
    return value


def listed(check: Check, most: int) -> Check:
    """A list of at most so many, each of which passes a check.

    Example:
        >>> listed(integer(1, 9), most=3)("depths", (2, 2))
        [2, 2]
        >>> listed(integer(1, 9), most=3)("depths", "22")
        Traceback (most recent call last):
        TypeError: depths must be a list, got '22'
    """

    def check_all(name: str, value: Any) -> list[Any]:
        value = value.tolist() if hasattr(value, "tolist") else value  # NumPy's
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            raise TypeError(f"{name} must be a list, got {brief(value)}")
        if len(value) > most:
            raise ValueError(f"{name} must have at most {most} entries, got {len(value)}")
        return [check(name, entry) for entry in value]

    return check_all


def one_or_each(check: Check, most: int = 2) -> Check:
    """One value, or a list with one for each axis.

    Example:
        >>> one_or_each(integer(1, 9))("kernel_size", 7), one_or_each(integer(1, 9))("kernel_size", [3, 5])
        (7, [3, 5])
    """
    check_all = listed(check, most)
    return lambda name, value: (check_all if hasattr(value, "__len__") and not isinstance(value, str) else check)(
        name, value
    )


def optional(check: Check) -> Check:
    """None, or what passes a check.

    Example:
        >>> optional(truth)("answer", None) is None
        True
    """
    return lambda name, value: None if value is None else check(name, value)


def class_names(name: str, value: Any) -> dict[int, str]:
    """The names of classes by their numbers, 0, 1, ..., which JSON writes as text.

    Example:
        >>> class_names("id2label", {"0": "cat", "1": "dog"})
        {0: 'cat', 1: 'dog'}
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be an object from class numbers to names, got {brief(value)}")
    if len(value) > MOST_CLASSES:
        raise ValueError(f"{name} must name at most {MOST_CLASSES:,} classes, got {len(value):,}")
    numbers = {str(number): entry for number, entry in value.items()}
    if unknown := next((number for number in map(str, range(len(value))) if number not in numbers), None):
        raise ValueError(f"{name} must name every class from 0 to {len(value) - 1}, got no name of {unknown}")
    return {number: text(name, numbers[str(number)]) for number in range(len(value))}


def check_settings(settings: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """Check every setting that there is a check for; the others are left out.

    Raises:
        TypeError: a setting of another type.
        ValueError: a setting outside its limits.
    Example:
        >>> check_settings({"depth": 2, "author": "me"}, {"depth": integer(1, 9), "rate": number(0, 1)})
        {'depth': 2}
    """
    return {name: check(name, settings[name]) for name, check in checks.items() if name in settings}


def layer_parameters(
    dim: int, num_heads: int, table: int, mlp_ratio: float, qkv_bias: bool = True, layer_scale: bool = False
) -> int:
    """Count the parameters of a layer without making it: attention, MLP, two LayerNorms, layer scale.

    Args:
        table: entries of a head's bias table.
    Example:
        >>> layer_parameters(64, num_heads=2, table=13 * 13, mlp_ratio=3.0)
        42066
    """
    hidden = int(dim * mlp_ratio)
    attention = 4 * dim * dim + dim + 3 * dim * qkv_bias + num_heads * table
    return attention + 2 * dim * hidden + hidden + dim + 4 * dim + 2 * dim * layer_scale


def check_hidden(dim: int, mlp_ratio: float) -> None:
    """Raise where an MLP would have no hidden channel.

    Raises:
        ValueError: mlp_ratio is too low for so few channels.
    Example:
        >>> check_hidden(dim=8, mlp_ratio=0.5)
    """
    if int(dim * mlp_ratio) < 1:
        raise ValueError(f"mlp_ratio must give an MLP of {dim} channels at least one hidden one, got {mlp_ratio}")


def check_size(num_layers: int, num_parameters: int) -> None:
    """Raise where a model would be larger than any that is meant.

    Raises:
        ValueError: the number of layers or parameters is above its limit.
    Example:
        >>> check_size(num_layers=18, num_parameters=19_984_174)
    """
    if num_layers > MOST_LAYERS:
        raise ValueError(f"a model may have at most {MOST_LAYERS} layers, got {num_layers:,}")
    if num_parameters > MOST_PARAMETERS:
        raise ValueError(f"a model may have at most {MOST_PARAMETERS:,} parameters, got {brief(num_parameters)}")


def _is_truth(value: Any) -> bool:
    """Whether a value is True or False, Python's or NumPy's."""
    return isinstance(value, (bool, np.bool_))


def _check_limits(name: str, value: float, least: float, most: float) -> None:
    """Raise unless least <= value <= most."""
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {brief(value)}")
    if value > most:
        raise ValueError(f"{name} must be at most {most}, got {brief(value)}")
