"""The kernel under test, as the checks call it: one way in, whatever its layout, its device and its arguments."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dinat_ref.testing.guard import interrupts_are_exits, settings_kept
from dinat_ref.testing.problem import Inputs, Problem
from dinat_ref.testing.supports import Supports

LAYOUTS = ("heads_last", "heads_first")


class Wrong(AssertionError):  # noqa: N818 (a finding)
    """What a check found on one problem, in words.

    Shapes:
        expected and got: bool [N, N] windows, where the finding is about windows
    Example:
        >>> raise Wrong("the output is all zeros")
        Traceback (most recent call last):
        dinat_ref.testing.kernel.Wrong: the output is all zeros
    """

    def __init__(
        self,
        message: str,
        multiple: float | None = None,
        expected: Tensor | None = None,
        got: Tensor | None = None,
    ) -> None:
        """Keep the words, the error as a multiple of the budget, and the windows to draw."""
        super().__init__(message)
        self.multiple, self.expected, self.got = multiple, expected, got


class Moot(Exception):  # noqa: N818 (no error)
    """A problem that a check cannot judge: its law does not hold there, or another check reports what is wrong.

    Example:
        >>> raise Moot("the law is about odd kernels")
        Traceback (most recent call last):
        dinat_ref.testing.kernel.Moot: the law is about odd kernels
    """


@dataclass
class Kernel:
    """A kernel: a function, what it takes, and where its heads are.

    Shapes:
        heads_last: [B, *layout, H, D]; heads_first: [B, H, *layout, D], the lse [B, H, *layout]
    Raises:
        ValueError: an unknown layout.
    Source: heads-last as NATTEN >= 0.20, heads-first as before.
    Example:
        >>> from dinat_ref import neighborhood_attention
        >>> problem = Problem("1d 5 k3 d1 h2 e4 f32 seed0")
        >>> Kernel(neighborhood_attention, Supports()).attend(problem, problem.inputs())[0].shape
        torch.Size([1, 5, 2, 4])
    """

    function: Callable[..., Any]
    supports: Supports = field(default_factory=Supports)
    layout: str = "heads_last"
    device: str = "cpu"
    windows_only: bool = False
    declared: Supports | None = None  # what decides the arguments, where supports was narrowed for the problems
    sparse: int = 1  # beyond windows, every so manieth problem is posed: for kernels that are slow, or proved otherwise
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)
    noticed: set[str] = field(default_factory=set, repr=False)  # global settings that calls have changed

    def __post_init__(self) -> None:
        """Check the layout."""
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {self.layout!r}")

    def arguments(self, problem: Problem, return_lse: bool = False) -> dict[str, Any]:
        """The arguments beside the tensors; those that the kernel does not have are left out."""
        supports = self.declared or self.supports
        given: dict[str, Any] = {"kernel_size": problem.kernel_size}
        for name, has in (("stride", supports.stride), ("dilation", supports.dilation)):
            if has:
                given[name] = getattr(problem, name)
        if supports.causal:
            given["is_causal"] = problem.is_causal
        if problem.scale is not None:
            given["scale"] = problem.scale
        if return_lse:
            given["return_lse"] = True
        return given

    def call(self, inputs: Inputs, arguments: dict[str, Any]) -> Any:
        """Call the function as it wants to be called; tensors come back heads-last."""
        first = self.layout == "heads_first"
        optional = {name: getattr(inputs, name) for name in ("rpb", "additional_keys", "additional_values")}
        optional = {name: tensor for name, tensor in optional.items() if tensor is not None}
        if first:
            optional |= {n: t.transpose(1, 2) for n, t in optional.items() if n != "rpb"}  # [B, Hkv, M, D]
        tensors = [inputs.query, inputs.key, inputs.value]
        tensors = [tensor.movedim(-2, 1) for tensor in tensors] if first else tensors
        if torch.compiler.is_compiling():  # the guard cannot be traced
            result = self.function(*tensors, **arguments, **optional)
        else:
            with settings_kept(self.noticed), interrupts_are_exits():
                result = self.function(*tensors, **arguments, **optional)
        if not first:
            return result
        if isinstance(result, Tensor):
            return result.movedim(1, -2)
        output, lse = result
        return output.movedim(1, -2), lse.movedim(1, -1)

    def attend(self, problem: Problem, inputs: Inputs, return_lse: bool = False) -> tuple[Tensor, Tensor | None]:
        """Run the kernel on a problem and see that it returned tensors of the right shape."""
        result = self.call(inputs, self.arguments(problem, return_lse))
        lse: Tensor | None = None
        if return_lse:
            if not isinstance(result, (tuple, list)) or len(result) != 2:
                raise Wrong(f"return_lse=True must give the pair (output, lse), got {type(result).__name__}")
            result, lse = result
        expected = (*inputs.query.shape[:-1], inputs.value.shape[-1])
        if not isinstance(result, Tensor):
            raise Wrong(f"the output must be a tensor, got {type(result).__name__}")
        if tuple(result.shape) != expected:
            raise Wrong(f"the output must keep the query's shape {expected}, got {tuple(result.shape)}")
        if lse is not None and tuple(lse.shape) != expected[:-1]:
            raise Wrong(f"the lse must be [batch, *layout, heads] = {expected[:-1]}, got {tuple(lse.shape)}")
        return result, lse

    def weights(self, problem: Problem) -> Tensor:
        """Read the weights of every query over every token: float32 [N, N], with q = 0 and one-hot values.

        With zero queries all scores are equal, so a row shows the window: 1 / count at its keys, 0 elsewhere.
        The result is remembered, since many checks look at the same windows.
        """
        if problem not in self.cache:
            try:
                self.cache[problem] = self._read_weights(problem)
            except Exception as error:
                self.cache[problem] = error
        found = self.cache[problem]
        if isinstance(found, Exception):
            raise found
        return found

    def _read_weights(self, problem: Problem) -> Tensor:
        count = problem.neighborhood.num_tokens
        width = one_hot_width(self.supports, count)
        batch = -(-count // width)
        head_dim = width if self.supports.head_dims is not None or not self.supports.head_dim_v else 1
        kwargs: dict[str, Any] = {"dtype": problem.dtype, "device": self.device}
        query = torch.zeros((batch, *problem.layout, 1, head_dim), **kwargs)
        hot = torch.eye(batch * width, **kwargs)[:count]  # [N, batch * width]
        value = hot.unflatten(1, (batch, width)).transpose(0, 1)  # [batch, N, width]
        value = value.unflatten(1, problem.layout).unsqueeze(-2).contiguous()  # [batch, *layout, 1, width]
        with torch.no_grad():
            output, _ = self.attend(problem.but(batch=batch), Inputs(query, torch.ones_like(query), value))
        rows = output.squeeze(-2).flatten(1, -2).transpose(0, 1).flatten(1)  # [N, batch * width]
        return rows[:, :count].float().cpu()


def one_hot_width(supports: Supports, count: int) -> int:
    """How many one-hot values a single call can carry: one per token, or as many as the head dims allow.

    Shapes:
        return: one int
    Example:
        >>> one_hot_width(Supports(), 35), one_hot_width(Supports(head_dims={8, 16, 32}), 35)
        (35, 32)
    """
    if supports.head_dims is None:
        return count
    fitting = [size for size in supports.head_dims if size >= count]
    return min(fitting) if fitting else max(supports.head_dims)
