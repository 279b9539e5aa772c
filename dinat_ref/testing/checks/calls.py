"""D11 and D12: how arguments are given. Left out they have their usual value; by position they stand as in NATTEN."""

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from dinat_ref.testing.checks.yardstick import Yardstick, run
from dinat_ref.testing.kernel import Kernel, Moot
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.registry import check
from dinat_ref.testing.supports import Supports

EXTRA = ("additional_keys", "additional_values")
ORDER = ("kernel_size", "stride", "dilation", "is_causal", "scale", *EXTRA)  # behind the tensors, as in NATTEN >= 0.20
NOTHING = {"scale": None, "return_lse": False, "rpb": None, **dict.fromkeys(EXTRA)}  # what may be said by not saying it


def one_left_out(supports: Supports, budget: str) -> Iterator[Problem]:
    """For each argument a problem in which all others are unusual; then one of nothing but a kernel size."""
    head_dim = 6 if supports.head_dims is None else min(supports.head_dims)
    for ndim in supports.ndim:
        has = {"stride": supports.stride, "dilation": supports.dilation, "is_causal": supports.causal}
        unusual = {"stride": 2, "dilation": 2, "is_causal": True} | ({"scale": 0.3} if supports.scale else {})
        unusual = {name: value for name, value in unusual.items() if has.get(name, True)}
        layout = tuple(9 + axis for axis in range(ndim))
        for name in (*unusual, None):
            given: dict[str, Any] = {} if name is None else {n: value for n, value in unusual.items() if n != name}
            problem = Problem(
                layout=layout, kernel_size=3, heads=2, head_dim=head_dim, dtype_name=supports.main_dtype, **given
            )
            if supports.takes(problem):
                yield problem


def called(
    kernel: Kernel, by_position: Sequence[str], left_out: Sequence[str], said: dict[str, Any] | None = None
) -> Kernel:
    """The kernel, with some arguments given by position, others not at all, and some said beside."""

    def function(*tensors: torch.Tensor, **named: Any) -> Any:
        values = [named.pop(name) for name in by_position]
        return kernel.function(
            *tensors, *values, **{n: v for n, v in ((said or {}) | named).items() if n not in left_out}
        )

    return replace(kernel, function=function, cache={})


@check("D11-defaults", enumerate=one_left_out)
def defaults(kernel: Kernel, problem: Problem) -> float:
    """An argument left out has its usual value, as has one of None: stride 1, dilation 1, head_dim ** -0.5, no lse."""
    usual = {"stride": (1,), "dilation": (1,), "is_causal": (False,)}
    left_out = [name for name, value in usual.items() if getattr(problem, name) == value * problem.ndim]
    left_out = [name for name in left_out if not required(kernel.function, name)]
    inputs, what = problem.inputs(kernel.device), ", ".join(left_out or ["scale"])
    ruler = Yardstick(problem, inputs)
    worst = ruler.output_is(run(called(kernel, (), left_out), problem, inputs), f"with {what} left out, the output")
    said = {name: value for name, value in NOTHING.items() if name in parameters(kernel.function)}
    said = {name: value for name, value in said.items() if name != "scale" or problem.scale is None}
    output = run(called(kernel, (), (), said), problem, inputs)
    words = ", ".join(f"{name}={value}" for name, value in said.items())
    return max(worst, ruler.output_is(output, f"with {words} said, the output"))


def parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters that a signature names; none of a built-in, which does not say.

    Example:
        >>> list(parameters(lambda query, key, value, kernel_size, **others: None))
        ['query', 'key', 'value', 'kernel_size', 'others']
    """
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def required(function: Any, name: str) -> bool:
    """Whether the signature says that an argument must be given.

    Example:
        >>> required(lambda query, key, value, kernel_size, stride: None, "stride")
        True
    """
    parameter = parameters(function).get(name)
    return parameter is not None and parameter.default is parameter.empty


def none_left_out(supports: Supports, budget: str) -> Iterator[Problem]:
    """Those, and one with all arguments; additional keys stand behind the scale, if there is one."""
    for problem in one_left_out(supports, budget):
        yield problem
        full = problem.but(stride=2 if supports.stride else 1, extra_keys=3)
        if problem.scale is not None and max(problem.stride) == 1 and supports.takes(full):
            yield full


@check("D12-by-position", enumerate=none_left_out)
def by_position(kernel: Kernel, problem: Problem) -> float:
    """Arguments given by position mean what they mean by name, in NATTEN's order."""
    given = {*kernel.arguments(problem), *(EXTRA if problem.extra_keys else ())}
    names = positions(kernel.function, [name for name in ORDER if name in given])
    if not names:
        raise Moot("the kernel takes its arguments by name only")
    inputs = problem.inputs(kernel.device)
    output = run(called(kernel, names, ()), problem, inputs)
    return Yardstick(problem, inputs).output_is(output, f"with {', '.join(names)} by position, the output")


def positions(function: Any, names: list[str]) -> list[str]:
    """Those of the arguments, in order, that the signature allows to be given by position.

    An argument that the kernel has, but is not declared to understand, cannot be stepped over.

    Example:
        >>> def kernel(query, key, value, kernel_size, stride=1, *, dilation=1): ...
        >>> positions(kernel, ["kernel_size", "stride", "dilation", "is_causal"])
        ['kernel_size', 'stride']
        >>> positions(kernel, ["stride"])
        []
    """
    found = list(parameters(function).values())
    by_name = [parameter.name for parameter in found if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    anything = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in found)
    undeclared = [name for name in by_name if name in ORDER and name not in names]
    reachable = by_name[: by_name.index(undeclared[0])] if undeclared else by_name
    return list(itertools.takewhile(lambda name: (anything and not undeclared) or name in reachable, names))
