"""What a kernel takes: arguments it lacks are never passed, problems it refuses are never posed."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields

import torch

from dinat_ref.testing.problem import DTYPES, Problem

MOST_AXES = 4  # the enumeration of windows grows with the power of it
LARGEST_HEAD = 4096
LONGEST_SHORTEST = 64  # of an axis: windows are read from tables of all tokens by all tokens
NAMES = {"float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64"}


@dataclass(frozen=True)
class Supports:
    """Declare what a kernel takes. Whatever is left out of a declaration is demanded.

    Args:
        ndim: numbers of axes.
        even: even kernel sizes; without, an even kernel size must raise.
        stride, dilation, causal, scale: the kernel has that argument; without, it is never passed.
        causal_rows: causality is taken on the first axis alone, that of rows, or of frames.
        per_axis: another kernel size, stride, dilation and causality on each axis; without, one for all.
        rpb: a relative positional bias (argument rpb).
        lse: return_lse=True gives the pair (output, lse).
        gqa: fewer heads of keys than of queries.
        extra_keys: additional_keys and additional_values.
        head_dim_v: values with another head_dim than queries.
        dtypes: of "float16", "bfloat16", "float32", "float64", or torch's own.
        head_dims: the head dims it takes, None for any.
        backward, double_backward: it has a first derivative, a second one.
        strided: it takes tensors that are not contiguous.
        empty_batch: it takes a batch of zero.
        autocast: it runs under torch.autocast.
        compile, vmap, opcheck: opt in to the checks of torch.compile(fullgraph=True), torch.func.vmap and
            torch.library.opcheck (opcheck: the operator to check, with its example arguments from a problem).
        errors: illegal arguments raise; many kernels leave that to their callers.
        nan_outside: NaN and infinity outside a window change nothing; without, they may leak.
        min_layout: the shortest axis that it takes.
        max_tokens: the longest layout to pose, None for any.
        accepts: a function of a Problem for any other limit; a problem that it declines is never posed.
    Raises:
        ValueError: an unknown dtype or number of axes.
    Example:
        >>> Supports(ndim={2}, even=False, dtypes=["float32"]).restrictions()
        ['ndim: 2 only', 'even kernel sizes: no', 'dtypes: f32 only', 'double backward: no', 'rpb: no']
    """

    ndim: Collection[int] = frozenset({1, 2, 3})
    even: bool = True
    stride: bool = True
    dilation: bool = True
    causal: bool = True
    scale: bool = True
    per_axis: bool = True
    rpb: bool = False
    lse: bool = True
    gqa: bool = True
    extra_keys: bool = True
    head_dim_v: bool = True
    dtypes: Collection[str | torch.dtype] = field(default=("float32", "float64", "bfloat16", "float16"))
    head_dims: Collection[int] | None = None
    backward: bool = True
    double_backward: bool = False
    strided: bool = True
    empty_batch: bool = True
    autocast: bool = True
    compile: bool = False
    vmap: bool = False
    opcheck: Callable[[Problem], tuple[object, tuple[object, ...]]] | None = None
    errors: bool = True
    nan_outside: bool = True
    causal_rows: bool = False
    min_layout: int = 1
    max_tokens: int | None = None
    accepts: Callable[[Problem], bool] | None = None

    def __post_init__(self) -> None:
        """Check what was declared and bring the dtypes to their short names."""
        axes = (self.ndim,) if isinstance(self.ndim, int) else tuple(sorted(self.ndim))
        if not axes or not all(_is_size(n, MOST_AXES) for n in axes):
            raise ValueError(f"ndim must list numbers of axes, each 1 to {MOST_AXES}, got {_shown(axes)}")
        dims = None if self.head_dims is None else frozenset(self.head_dims)
        if dims is not None and not (dims and all(_is_size(size, LARGEST_HEAD) for size in dims)):
            raise ValueError(f"head_dims must list sizes, each 1 to {LARGEST_HEAD}, got {_shown(dims)}")
        if not _is_size(self.min_layout, LONGEST_SHORTEST):
            raise ValueError(f"min_layout must be 1 to {LONGEST_SHORTEST}, got {self.min_layout!r}")
        if self.max_tokens is not None and not _is_size(self.max_tokens, 2**62):
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens!r}")
        names = [str(dtype).removeprefix("torch.") for dtype in self.dtypes]
        names = [NAMES.get(name, name) for name in names]
        for name in names:
            if name not in DTYPES:
                raise ValueError(f"dtypes must be of {', '.join(NAMES)}, got {name!r}")
        if not names:
            raise ValueError("dtypes must name at least one dtype, got none")
        object.__setattr__(self, "ndim", axes)
        object.__setattr__(self, "dtypes", tuple(names))
        object.__setattr__(self, "head_dims", dims)

    def has(self, dtype: str) -> bool:
        """Whether the kernel takes a dtype, by its short name."""
        return dtype in self.dtypes

    @property
    def main_dtype(self) -> str:
        """The dtype to use where none is asked for: float32 if the kernel takes it."""
        return "f32" if self.has("f32") else str(next(iter(self.dtypes)))

    def takes(self, problem: Problem) -> bool:
        """Whether the kernel takes a problem."""
        causal = problem.is_causal[:1] if self.causal_rows else problem.is_causal
        uniform = all(
            len(set(values)) == 1 for values in (problem.kernel_size, problem.stride, problem.dilation, causal)
        )
        return (
            problem.ndim in self.ndim
            and (self.even or all(size % 2 for size in problem.kernel_size))
            and (self.stride or max(problem.stride) == 1)
            and (self.dilation or max(problem.dilation) == 1)
            and (self.causal or not any(problem.is_causal))
            and (not self.causal_rows or not any(problem.is_causal[1:]))
            and min(problem.layout) >= self.min_layout
            and (self.scale or problem.scale is None)
            and (self.per_axis or uniform)
            and (self.rpb or not problem.rpb)
            and (self.gqa or problem.heads == problem.heads_kv)
            and (self.extra_keys or not problem.extra_keys)
            and (self.head_dim_v or problem.head_dim == problem.head_dim_v)
            and self.has(problem.dtype_name)
            and (self.head_dims is None or {problem.head_dim, problem.head_dim_v} <= set(self.head_dims))
            and (self.strided or not problem.strided)
            and (self.empty_batch or problem.batch > 0)
            and (self.max_tokens is None or problem.neighborhood.num_tokens <= self.max_tokens)
            and (self.accepts is None or self.accepts(problem))
        )

    def fit(self, problem: Problem) -> Problem:
        """The same problem with its axes made as long as the kernel needs them."""
        if min(problem.layout) >= self.min_layout:
            return problem
        return problem.but(layout=tuple(max(length, self.min_layout) for length in problem.layout))

    def restrictions(self) -> list[str]:
        """What the declaration leaves out, in words: a report repeats it, so that nobody reads more into a pass."""
        words = []
        if set(self.ndim) != {1, 2, 3}:
            words.append(f"ndim: {', '.join(str(n) for n in self.ndim)} only")
        names = {"even": "even kernel sizes", "per_axis": "other parameters on each axis", "extra_keys": "extra keys"}
        names |= {"errors": "errors for illegal arguments", "nan_outside": "NaN outside a window without effect"}
        names |= {"head_dim_v": "head_dim_v other than head_dim", "empty_batch": "empty batch"}
        for item in fields(self):
            if item.default is True and not getattr(self, item.name):
                words.append(f"{names.get(item.name, item.name)}: no")
        if set(self.dtypes) != set(DTYPES):
            words.append(f"dtypes: {', '.join(str(name) for name in self.dtypes)} only")
        if self.head_dims is not None:
            words.append(f"head_dims: {', '.join(str(size) for size in sorted(self.head_dims))} only")
        if not self.double_backward:
            words.append("double backward: no")
        if not self.rpb:
            words.append("rpb: no")
        if self.causal and self.causal_rows:
            words.append("causality on the first axis only")
        if self.min_layout > 1:
            words.append(f"axes of at least {self.min_layout} tokens")
        if self.max_tokens is not None:
            words.append(f"layouts of at most {self.max_tokens} tokens")
        if self.accepts is not None:
            summary = (self.accepts.__doc__ or "").strip().partition("\n")[0].rstrip(".")
            words.append(f"only problems that {summary or getattr(self.accepts, '__name__', 'accepts')}")
        return words


def _is_size(value: object, most: int) -> bool:
    """Whether a value is a whole number from 1 to a limit."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _shown(values: Collection[object]) -> str:
    """A few values for an error."""
    return ", ".join(map(repr, list(values)[:5])) or "none"
