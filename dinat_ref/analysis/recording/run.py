"""Record a formulation, or the windows themselves, on a small problem."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from dinat_ref.analysis.recording.problem import Problem
from dinat_ref.analysis.recording.recorder import Recorder, Step
from dinat_ref.analysis.recording.source import Source
from dinat_ref.analysis.recording.values import Values
from dinat_ref.attention.functional import FORMULATIONS
from dinat_ref.window import dilation_group, window

RECORDED = ("window", *FORMULATIONS)
PLUMBING = (
    "dinat_ref.attention.operands",
    "dinat_ref.attention.cache",
    "dinat_ref.attention.outside",
    "dinat_ref.attention.boxes",
    "dinat_ref.attention.large_steps",
)  # compute nothing


@dataclass(frozen=True)
class Recording:
    """A recorded run: of ``window`` for each position of each axis, or of a formulation for all queries at once.

    Example:
        >>> from dinat_ref import Neighborhood
        >>> recording = record("loops", Problem("one axis", Neighborhood((5,), 3)))
        >>> recording.text(recording.steps[-1]).strip(), recording.output.shape
        ('return output, lse if return_lse else None', torch.Size([1, 5, 1, 1]))
    """

    formulation: str
    problem: Problem
    sources: dict[str, Source]
    steps: list[Step]
    parents: list[int | None]  # of each call: the call that it came from
    values: Values
    output: Tensor | None  # [B, *layout, H, Dv], of a formulation

    def text(self, step: Step) -> str:
        """The statement of a step, as it stands in the file."""
        return "\n".join(self.sources[step.source].text.splitlines()[step.statement.first - 1 : step.statement.last])

    def explanation(self, step: Step) -> str:
        """What the file says about a step: the comment on its statement, else the docstring of its function."""
        source = self.sources[step.source]
        return source.note(step.statement) or source.summaries[step.function]

    def states(self) -> Iterator[tuple[Step, "State"]]:
        """Every step with all variables as they are after it."""
        variables: dict[int, dict[str, int]] = {}
        for step in self.steps:
            variables[step.call] = {**variables.get(step.call, {}), **step.changed}
            yield step, State(self, step, variables)

    @cached_property
    def keys(self) -> Tensor:
        """The keys of every query, as token numbers, -1 where a causal window has fewer: [N, K]."""
        neighborhood = self.problem.neighborhood
        return neighborhood.indices().masked_fill(~neighborhood.valid(), -1)

    @cached_property
    def groups(self) -> Tensor:
        """The dilation group of every token, as a number: [N]."""
        numbers = []
        for token in self.problem.neighborhood.tokens():
            number = 0
            for i, (length, _, _, dilation, _) in zip(token, self.problem.neighborhood.axes, strict=True):
                number = number * dilation + dilation_group(i, length, dilation)[0]
            numbers.append(number)
        return torch.tensor(numbers)


@dataclass(frozen=True)
class State:
    """All variables after a step, of the function that it belongs to and of those that wait for it."""

    recording: Recording
    step: Step
    variables: dict[int, dict[str, int]]  # by call

    def own(self, name: str) -> Any:
        """The value of a variable of this function, or None."""
        number = self.variables[self.step.call].get(name)
        return None if number is None else self.recording.values.get(number)

    def find(self, name: str) -> Any:
        """The value of a variable of this function, or of the innermost that waits for it and has one of this name."""
        call: int | None = self.step.call
        while call is not None:
            if name in self.variables[call]:
                return self.recording.values.get(self.variables[call][name])
            call = self.recording.parents[call]
        return None


def record(formulation: str, problem: Problem, values: Values | None = None) -> Recording:
    """Run real code and record it.

    Shapes:
        return: output [B, *layout, H, Dv]
    Args:
        values: keep the values beside those of other runs, each once.
    Raises:
        ValueError: an unknown formulation.
    Example:
        >>> from dinat_ref import Neighborhood
        >>> recording = record("window", Problem("one axis", Neighborhood((5,), 3)))
        >>> ends = [step for step in recording.steps if step.depth == 0 and step.event == "return"]
        >>> [recording.values.get(step.returned) for step in ends]
        [range(0, 3), range(0, 3), range(1, 4), range(2, 5), range(2, 5)]
    """
    if formulation not in RECORDED:
        raise ValueError(f"formulation must be one of {', '.join(RECORDED)}, got {formulation!r}")
    operands = problem.operands()
    module = sys.modules[(window if formulation == "window" else FORMULATIONS[formulation]).__module__]
    used = [*_used_by(module), sys.modules[window.__module__]]
    forget(used)
    for axis in range(problem.neighborhood.ndim):
        problem.neighborhood.windows(axis)  # made once for all formulations: they have a recording of their own
    output = None
    with torch.no_grad(), Recorder({str(part.__file__) for part in used}, values) as recorder:
        if formulation == "window":
            for arguments in problem.neighborhood.axes:
                for i in range(arguments[0]):
                    window(i, *arguments)
        else:
            # with the lse, so that products and softmax are written out where a fused kernel would hide them
            output = FORMULATIONS[formulation](operands, True)[0]
    sources = {source.name: source for source in recorder.sources.values()}
    return Recording(formulation, problem, sources, recorder.steps, recorder.parents, recorder.values, output)


def _used_by(module: ModuleType) -> list[ModuleType]:
    """A module, and what it uses of the room that it stands in, and what these use."""
    found = [module]
    for used in found:
        names = (getattr(value, "__module__", None) for value in vars(used).values())
        new = {n for n in names if isinstance(n, str) and n.startswith("dinat_ref.attention.") and n not in PLUMBING}
        found += [sys.modules[name] for name in sorted(new) if sys.modules[name] not in found]
    return found


def forget(modules: Iterable[ModuleType]) -> None:
    """Empty the caches of some modules, so that what fills them is executed again, and can be recorded.

    Example:
        >>> forget([sys.modules["dinat_ref.neighborhood"]])
    """
    for module in modules:
        for value in vars(module).values():
            clear: Callable[[], None] | None = getattr(value, "cache_clear", None)
            if clear is not None and not isinstance(value, type):
                clear()
