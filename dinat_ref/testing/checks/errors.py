"""E: illegal arguments must raise something, whatever its text; neither compute nonsense nor end the process."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from dinat_ref.testing.kernel import Kernel, Wrong
from dinat_ref.testing.problem import Inputs, Problem
from dinat_ref.testing.registry import check
from dinat_ref.testing.supports import Supports

Spoil = Callable[[Problem, Inputs, dict[str, Any]], None]


def small(supports: Supports, budget: str) -> Iterator[Problem]:
    """A small legal problem for each number of axes, to be spoilt."""
    head_dim = 4 if supports.head_dims is None else min(supports.head_dims)
    for ndim in supports.ndim:
        layout = tuple(4 + axis for axis in range(ndim))
        problem = Problem(layout=layout, kernel_size=3, heads=2, head_dim=head_dim, dtype_name=supports.main_dtype)
        if supports.takes(problem):
            yield problem


def must_raise(id: str, title: str, needs: tuple[str, ...], spoil: Spoil) -> None:
    """Enter a check: a call that is legal but for one thing must raise."""

    def examine(kernel: Kernel, problem: Problem) -> None:
        inputs, arguments = problem.inputs(kernel.device), kernel.arguments(problem)
        spoil(problem, inputs, arguments)
        try:
            result = kernel.call(inputs, arguments)
        except Exception:
            return
        shape = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
        raise Wrong(f"accepted silently: {title}; returned {shape}")

    examine.__doc__ = f"Raises: {title}"
    check(id, enumerate=small, needs=needs)(examine)


def set_argument(name: str, value: Callable[[Problem], Any]) -> Spoil:
    """Spoil an argument."""

    def spoil(problem: Problem, inputs: Inputs, arguments: dict[str, Any]) -> None:
        arguments[name] = value(problem)

    return spoil


def set_tensor(name: str, value: Callable[[Inputs], Any]) -> Spoil:
    """Spoil a tensor."""

    def spoil(problem: Problem, inputs: Inputs, arguments: dict[str, Any]) -> None:
        setattr(inputs, name, value(inputs))

    return spoil


def first_axis(problem: Problem, value: int, others: int) -> tuple[int, ...]:
    """One value on the first axis, another on the rest."""
    return (value, *(others for _ in problem.layout[1:]))


def longer(tensor: torch.Tensor) -> torch.Tensor:
    """One token more on the first axis."""
    return torch.cat([tensor, tensor[:, :1]], dim=1)


must_raise("E01-kernel-size-zero", "kernel_size 0", (), set_argument("kernel_size", lambda p: first_axis(p, 0, 3)))
must_raise("E02-kernel-negative", "kernel_size -3", (), set_argument("kernel_size", lambda p: first_axis(p, -3, 3)))
must_raise(
    "E03-kernel-too-large",
    "a kernel larger than the layout",
    (),
    set_argument("kernel_size", lambda p: first_axis(p, p.layout[0] + (1 if p.layout[0] % 2 == 0 else 2), 3)),
)
must_raise(
    "E04-dilation-too-large",
    "kernel_size * dilation larger than the layout",
    ("dilation",),
    set_argument("dilation", lambda p: first_axis(p, p.layout[0], 1)),
)
must_raise("E05-dilation-zero", "dilation 0", ("dilation",), set_argument("dilation", lambda p: first_axis(p, 0, 1)))
must_raise("E06-stride-zero", "stride 0", ("stride",), set_argument("stride", lambda p: first_axis(p, 0, 1)))
must_raise(
    "E07-stride-above-kernel",
    "a stride larger than the kernel",
    ("stride",),
    set_argument("stride", lambda p: first_axis(p, 4, 1)),
)
must_raise(
    "E08-axes-of-kernel", "a kernel_size entry too many", (), set_argument("kernel_size", lambda p: (3,) * (p.ndim + 1))
)
must_raise("E09-key-layout", "a key with another layout", (), set_tensor("key", lambda i: longer(i.key)))
must_raise("E10-value-layout", "a value with another layout", (), set_tensor("value", lambda i: longer(i.value)))
must_raise("E11-batch", "a key with another batch", (), set_tensor("key", lambda i: torch.cat([i.key] * 3)))
must_raise("E12-head-dim", "a key with another head_dim", (), set_tensor("key", lambda i: torch.cat([i.key] * 2, -1)))
must_raise(
    "E13-heads",
    "a value with other heads than the key",
    (),
    set_tensor("value", lambda i: torch.cat([i.value] * 2, -2)),
)


def _three_of_two(problem: Problem, inputs: Inputs, arguments: dict[str, Any]) -> None:
    inputs.query = torch.cat([inputs.query, inputs.query[..., :1, :]], dim=-2)  # 3 heads over 2


def _lonely_keys(problem: Problem, inputs: Inputs, arguments: dict[str, Any]) -> None:
    inputs.additional_keys = inputs.key.flatten(1, -3)[:, :2]


def _small_table(problem: Problem, inputs: Inputs, arguments: dict[str, Any]) -> None:
    inputs.rpb = torch.zeros(inputs.query.shape[-2], *(2 * size - 2 for size in problem.kernel_size))


def _even_kernel(problem: Problem, inputs: Inputs, arguments: dict[str, Any]) -> None:
    arguments["kernel_size"] = (2,) * problem.ndim


must_raise("E14-head-groups", "query heads that are no multiple of the key heads", (), _three_of_two)
must_raise("E15-lonely-extra-keys", "additional keys without values", ("extra_keys",), _lonely_keys)
must_raise("E16-rpb-shape", "a bias table of 2k - 2 offsets", ("rpb",), _small_table)


def odd_only(supports: Supports, budget: str) -> Iterator[Problem]:
    """The small problems, of a kernel declared without even kernel sizes."""
    return iter(()) if supports.even else small(supports, budget)


def _undeclared_even() -> None:
    before = "E17-even-undeclared"

    def examine(kernel: Kernel, problem: Problem) -> None:
        inputs, arguments = problem.inputs(kernel.device), kernel.arguments(problem)
        _even_kernel(problem, inputs, arguments)
        try:
            kernel.call(inputs, arguments)
        except Exception:
            return
        raise Wrong("accepted silently: an even kernel size, though the kernel is declared without them")

    examine.__doc__ = "Raises: an even kernel size, where the kernel is declared without them"
    check(before, enumerate=odd_only)(examine)


_undeclared_even()
