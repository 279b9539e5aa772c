"""A problem: one call of the operator, small enough to write down in a line that can be pasted.

The line is a list of words, and what it does not say has its usual value::

    2d 4x3 k3 d1 h1 e1 f32 seed7                       a 4 x 3 layout, kernel_size 3, one head of one number
    1d 9 k4 s2 d2 causal h6 hkv2 e5 ev3 bf16 seed0     stride, dilation, causality, 6 heads over 2, head_dim_v 3

The tensors follow from the seed, so that a line says everything about a failure.
"""

import re
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dinat_ref.neighborhood import Neighborhood

DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32, "f64": torch.float64}
NUMBERS = {"b": "batch", "h": "heads", "hkv": "heads_kv", "e": "head_dim", "ev": "head_dim_v", "extra": "extra_keys"}
AXES = {"k": "kernel_size", "s": "stride", "d": "dilation"}


@dataclass
class Inputs:
    """The tensors of one call, heads-last; None where the problem has no such argument.

    Shapes:
        query [B, *layout, H, D], key [B, *layout, Hkv, D], value [B, *layout, Hkv, Dv], rpb [H, 2k-1, ...],
        additional_keys [B, M, Hkv, D], additional_values [B, M, Hkv, Dv]
    Source: the layouts of NATTEN >= 0.20.
    Example:
        >>> Problem("1d 5 k3 d1 h2 e4 f32 seed0").inputs().query.shape
        torch.Size([1, 5, 2, 4])
    """

    query: Tensor
    key: Tensor
    value: Tensor
    rpb: Tensor | None = None
    additional_keys: Tensor | None = None
    additional_values: Tensor | None = None

    def named(self) -> dict[str, Tensor]:
        """The tensors that there are, by name."""
        return {
            field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name) is not None
        }

    def map(self, change: Any) -> "Inputs":
        """The same inputs with every tensor changed by a function."""
        return Inputs(**{name: change(tensor) for name, tensor in self.named().items()})

    def but(self, **tensors: Tensor | None) -> "Inputs":
        """The same inputs with some tensors replaced."""
        return Inputs(**{**self.named(), **tensors})  # type: ignore[arg-type]

    def to(self, dtype: torch.dtype) -> "Inputs":
        """The same numbers in another dtype, outside any graph."""
        return self.map(lambda tensor: tensor.detach().to(dtype))


@dataclass(frozen=True, init=False, repr=False)
class Problem:
    """One call of the operator: its layout, its arguments, the shape and dtype of its tensors, and their seed.

    Shapes:
        ``inputs()`` gives the tensors.
    Args:
        line: the words that ``str(problem)`` gives; fields given by name replace what the line says.
    Raises:
        ValueError: an unknown word, a missing one, or arguments that no neighborhood has.
    Source: legal arguments: arXiv:2209.15001, arXiv:2504.16922.
    Example:
        >>> problem = Problem("2d 4x3 k3 d1 h1 e1 f32 seed7")
        >>> problem.layout, problem.kernel_size, problem.dtype
        ((4, 3), (3, 3), torch.float32)
        >>> problem.but(is_causal=(True, False), heads=2, heads_kv=2)
        Problem("2d 4x3 k3 d1 causal1x0 h2 e1 f32 seed7")
    """

    layout: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    is_causal: tuple[bool, ...]
    batch: int
    heads: int
    heads_kv: int
    head_dim: int
    head_dim_v: int
    extra_keys: int
    rpb: bool
    scale: float | None
    dtype_name: str
    strided: bool
    seed: int

    def __init__(self, line: str = "", **given: Any) -> None:
        """Read the line, fill in what it leaves out, and check the whole."""
        values: dict[str, Any] = {"batch": 1, "heads": 1, "head_dim": 1, "extra_keys": 0, "rpb": False, "scale": None}
        values |= {"dtype_name": "f32", "strided": False, "seed": 0, "stride": 1, "dilation": 1, "is_causal": False}
        values |= _read(line) | given
        for name in ("layout", "kernel_size"):
            if name not in values:
                raise ValueError(f"a problem needs its {name}, got {line!r}")
        where = Neighborhood(*(values[name] for name in ("layout", "kernel_size", "stride", "dilation", "is_causal")))
        for name in ("layout", "kernel_size", "stride", "dilation", "is_causal"):
            values[name] = getattr(where, name)
        values["heads_kv"] = values.get("heads_kv") or values["heads"]
        values["head_dim_v"] = values.get("head_dim_v") or values["head_dim"]
        if values["heads"] % values["heads_kv"]:
            raise ValueError(f"heads must be a multiple of heads_kv, got {values['heads']} and {values['heads_kv']}")
        if values["dtype_name"] not in DTYPES:
            raise ValueError(f"dtype_name must be one of {', '.join(DTYPES)}, got {values['dtype_name']!r}")
        for field in fields(self):
            object.__setattr__(self, field.name, values.pop(field.name))
        if values:
            raise TypeError(f"a problem has no {', '.join(values)}")

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.layout)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tensors."""
        return DTYPES[self.dtype_name]

    @cached_property
    def neighborhood(self) -> Neighborhood:
        """The windows of the problem."""
        return Neighborhood(self.layout, self.kernel_size, self.stride, self.dilation, self.is_causal)

    def but(self, **changed: Any) -> "Problem":
        """The same problem with some fields changed."""
        return Problem(**{**{field.name: getattr(self, field.name) for field in fields(self)}, **changed})

    def __str__(self) -> str:
        words = [f"{self.ndim}d", "x".join(str(length) for length in self.layout), "k" + _per_axis(self.kernel_size)]
        words += ["s" + _per_axis(self.stride)] if max(self.stride) > 1 else []
        words += ["d" + _per_axis(self.dilation)]
        if any(self.is_causal):
            words.append("causal" if all(self.is_causal) else "causal" + _per_axis(self.is_causal))
        words += [f"b{self.batch}"] if self.batch != 1 else []
        words += [f"h{self.heads}"] + ([f"hkv{self.heads_kv}"] if self.heads_kv != self.heads else [])
        words += [f"e{self.head_dim}"] + ([f"ev{self.head_dim_v}"] if self.head_dim_v != self.head_dim else [])
        words += [f"extra{self.extra_keys}"] if self.extra_keys else []
        words += ["rpb"] if self.rpb else []
        words += [f"scale{self.scale!r}"] if self.scale is not None else []
        words += [self.dtype_name] + (["strided"] if self.strided else []) + [f"seed{self.seed}"]
        return " ".join(words)

    def __repr__(self) -> str:
        return f'Problem("{self}")'

    def inputs(self, device: torch.device | str = "cpu") -> Inputs:
        """Draw the tensors: standard normal, from the seed, in float64 first so that dtypes share their numbers."""
        generator = torch.Generator().manual_seed(self.seed)

        def draw(*shape: int) -> Tensor:
            tensor = torch.randn(shape, generator=generator, dtype=torch.float64).to(self.dtype).to(device)
            return _strided(tensor, self.seed) if self.strided else tensor

        tokens, keys = (self.batch, *self.layout), (self.batch, self.extra_keys)
        inputs = Inputs(
            query=draw(*tokens, self.heads, self.head_dim),
            key=draw(*tokens, self.heads_kv, self.head_dim),
            value=draw(*tokens, self.heads_kv, self.head_dim_v),
        )
        if self.extra_keys:
            inputs.additional_keys = draw(*keys, self.heads_kv, self.head_dim)
            inputs.additional_values = draw(*keys, self.heads_kv, self.head_dim_v)
        if self.rpb:
            inputs.rpb = draw(self.heads, *(2 * size - 1 for size in self.kernel_size))
        return inputs


def _per_axis(values: tuple[int, ...] | tuple[bool, ...]) -> str:
    """One number when the axes agree, else one per axis: 3 or 3x5."""
    return str(int(values[0])) if len(set(values)) == 1 else "x".join(str(int(value)) for value in values)


def _read(line: str) -> dict[str, Any]:
    """Turn the words of a line into fields."""
    values: dict[str, Any] = {}
    ndim = None
    for word in line.split():
        match = re.fullmatch(r"([a-z]*)(.*)", word)
        assert match is not None
        name, rest = match.groups()
        try:
            if re.fullmatch(r"\d+d", word):
                ndim = int(word[:-1])
            elif not name:
                values["layout"] = tuple(int(length) for length in word.split("x"))
            elif word in DTYPES:
                values["dtype_name"] = word
            elif word in ("rpb", "strided"):
                values[word] = True
            elif name == "causal":
                flags = tuple(bool(int(flag)) for flag in rest.split("x")) if rest else True
                values["is_causal"] = flags
            elif name == "scale":
                values["scale"] = float(rest)
            elif name in NUMBERS or name == "seed":
                values[NUMBERS.get(name, name)] = int(rest)
            elif name in AXES:
                sizes = tuple(int(size) for size in rest.split("x"))
                values[AXES[name]] = sizes if len(sizes) > 1 else sizes[0]
            else:
                raise ValueError
        except ValueError:
            raise ValueError(f"a problem has no word {word!r}, got {line!r}") from None
    if ndim is not None and len(values.get("layout", ())) != ndim:
        raise ValueError(f"a {ndim}d problem needs a layout of {ndim} axes, got {line!r}")
    return values


def _strided(tensor: Tensor, seed: int) -> Tensor:
    """The same numbers in memory that is not contiguous: every other number, or the first two axes exchanged."""
    if seed % 2:
        return tensor.transpose(0, 1).contiguous().transpose(0, 1) if min(tensor.shape[:2]) > 1 else _spaced(tensor)
    return _spaced(tensor)


def _spaced(tensor: Tensor) -> Tensor:
    """The same numbers with numbers between them that nobody should read."""
    return torch.stack([tensor, torch.full_like(tensor, 1000.0)], dim=-1)[..., 0]
