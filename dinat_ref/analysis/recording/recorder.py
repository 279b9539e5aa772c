"""Recording a run: each statement of chosen files as it is executed, and what it did to the variables.

``sys.settrace`` reports a line before it is executed. A step is the other way round: a statement and what it made, so
that all that a reader sees is the effect of the line that is marked. A statement that enters a recorded function is two
steps, one before and one after; between them lie those of the function::

    enter   output, lse = _attend(operands, token, head)
    call        def _attend(operands, token, head):                       its arguments
    line        head_kv = head // operands.group_size                     head_kv = 0
    ...
    return      return output, lse
    line    output, lse = _attend(operands, token, head)                  output = ..., lse = ...

What torch computes inside of a statement without giving it a name is noted, too: ``softmax(scores) @ value`` has made
weights. Memory that was reserved and not yet filled is set to nan, so that a run is the same each time.
"""

import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dinat_ref.analysis.recording.source import Source, Statement
from dinat_ref.analysis.recording.values import Values

UNFILLED = ("empty", "new_empty", "empty_like")


@dataclass
class Step:
    """A statement, and what it did.

    Values are numbers of entries of ``Values``; a call is a number, too: each time a function is called is another one.
    """

    source: str
    statement: Statement
    function: str
    call: int
    depth: int
    event: str  # "enter", "call", "line", "return"
    changed: dict[str, int] = field(default_factory=dict)  # variables that it bound or changed
    made: list[tuple[str, int]] = field(default_factory=list)  # by operations of torch, without a name
    returned: int | None = None


@dataclass
class Call:
    """A function while it runs: its variables as they were last seen, and the statement that is being executed."""

    number: int
    parent: "Call | None"
    source: Source
    function: str
    variables: dict[str, int] = field(default_factory=dict)
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)  # by name: which object, and its version
    pending: Statement | None = None
    entered: bool = False
    made: list[tuple[str, Tensor]] = field(default_factory=list)

    @property
    def depth(self) -> int:
        """How many recorded functions wait for this one."""
        return 0 if self.parent is None else self.parent.depth + 1


class Recorder(TorchFunctionMode):
    """Record what is executed inside a ``with`` block, in functions of some files.

    Example:
        >>> from dinat_ref.window import leader
        >>> with Recorder([leader.__code__.co_filename]) as recorder:
        ...     leader(3, n=8)
        3
        >>> [(step.event, step.changed and list(step.changed)) for step in recorder.steps]
        [('call', ['m', 'n', 'stride', 'is_causal']), ('line', ['first']), ('return', {})]
    """

    def __init__(self, files: Collection[str], values: Values | None = None) -> None:
        """Choose the files, and where values are kept: beside those of other runs, or alone."""
        super().__init__()
        self.sources = {file: Source.of(file) for file in files}
        self.values, self.steps = Values() if values is None else values, list[Step]()
        self.parents: list[int | None] = []  # of each call: the call that it came from
        self._calls: dict[FrameType, Call] = {}  # a generator's frame may sleep between two values
        self._tracer_before: Any = None

    def __enter__(self) -> "Recorder":
        """Begin."""
        super().__enter__()  # type: ignore[no-untyped-call]
        self._tracer_before = sys.gettrace()
        sys.settrace(self._enter_function)
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        """End, and leave everything as it was."""
        sys.settrace(self._tracer_before)
        self._calls.clear()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _enter_function(self, frame: FrameType, event: str, _: object) -> Any:
        """Decide about a function that begins, or a generator that goes on; comprehensions belong to their line."""
        code = frame.f_code
        if code.co_filename not in self.sources or code.co_name.startswith("<"):
            return None
        if frame not in self._calls:
            parent = self._caller(frame.f_back)
            if parent is not None and parent.pending is not None and not parent.entered:
                parent.entered = True
                self._add(parent, parent.pending, "enter")
            call = Call(len(self.parents), parent, self.sources[code.co_filename], code.co_name)
            self._calls[frame] = call
            self.parents.append(None if parent is None else parent.number)
            self._add(call, call.source.statements[self._first_line(frame)], "call", frame)
        return self._trace

    def _trace(self, frame: FrameType, event: str, returned: object) -> Any:
        """Close the statement before, and note the one that begins."""
        call = self._calls[frame]
        if event == "line":
            statement = call.source.statements[frame.f_lineno]
            if statement != call.pending:  # a statement of several lines is one step
                self._close(call, frame)
                call.pending = statement
        elif event == "return":
            self._close(call, frame, returned)
        return self._trace

    def _close(self, call: Call, frame: FrameType, *returned: object) -> None:
        if call.pending is not None:
            step = self._add(call, call.pending, "return" if returned else "line", frame)
            step.returned = self.values.add(returned[0]) if returned else None
            call.pending, call.entered = None, False

    def _add(self, call: Call, statement: Statement, event: str, frame: FrameType | None = None) -> Step:
        """Add a step; with a frame, what has changed among its variables, and what was made."""
        step = Step(call.source.name, statement, call.function, call.number, call.depth, event)
        if frame is not None:
            step.changed = self._changes(call, frame)
            made = [(name, self.values.add(tensor)) for name, tensor in call.made]
            step.made = [(name, number) for name, number in made if number not in step.changed.values()]
            call.made = []
        self.steps.append(step)
        return step

    def _changes(self, call: Call, frame: FrameType) -> dict[str, int]:
        changed = {}
        for name, value in frame.f_locals.items():
            version = value._version if isinstance(value, Tensor) else 0
            if name in call.seen and call.seen[name] == (id(value), version) and _is_lasting(value):
                continue
            call.seen[name] = (id(value), version)
            number = self.values.add(value)
            if call.variables.get(name) != number:
                call.variables[name] = changed[name] = number
        return changed

    def _caller(self, frame: FrameType | None) -> Call | None:
        """The innermost recorded function that waits for a frame."""
        while frame is not None and frame not in self._calls:
            frame = frame.f_back
        return None if frame is None else self._calls[frame]

    @staticmethod
    def _first_line(frame: FrameType) -> int:
        """The line of ``def``; a decorator stands above it."""
        lines = Path(frame.f_code.co_filename).read_text(encoding="utf-8").splitlines()
        line = frame.f_code.co_firstlineno
        while not lines[line - 1].lstrip().startswith("def "):
            line += 1
        return line

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let torch compute, and note what it made for a statement that is being recorded."""
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, Tensor):
            return result
        name = getattr(func, "__name__", "")
        if name in UNFILLED and result.is_floating_point():
            result.fill_(torch.nan)
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and (Path(frame.f_code.co_filename).is_relative_to(TORCH) or _is_comprehension(frame)):
            frame = frame.f_back
        views = {tensor.untyped_storage().data_ptr() for tensor in _tensors(args)}
        if frame in self._calls and name and result.untyped_storage().data_ptr() not in views:
            self._calls[frame].made.append((name.strip("_"), result.detach().clone()))
        return result


TORCH = Path(torch.__file__).parent


def _is_lasting(value: object) -> bool:
    """Whether an object that is still the same still says the same; tensors count their changes themselves."""
    parameters = getattr(type(value), "__dataclass_params__", None)
    return isinstance(value, Tensor | int | str | range) or (parameters is not None and parameters.frozen)


def _is_comprehension(frame: FrameType) -> bool:
    return frame.f_code.co_name.startswith("<")


def _tensors(arguments: Any) -> list[Tensor]:
    """All tensors among the arguments of an operation."""
    if isinstance(arguments, Tensor):
        return [arguments]
    return [t for part in arguments for t in _tensors(part)] if isinstance(arguments, list | tuple) else []
