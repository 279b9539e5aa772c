"""Large steps for accelerators: the same results, counted in operations on tensors that pose as an accelerator's."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from dinat_ref import na2d
from dinat_ref.attention import large_steps, spread
from tests.attention.test_outside import BITS, REPORTED, assert_no_leak, by_definition, poisoned, results
from tests.attention.test_part import crop, in_the_whole, of_the_part
from tests.strategies import Problem, boxes_of, problems

EXACT = {"rtol": 1e-11, "atol": 1e-11}


@contextmanager
def on_an_accelerator(numbers_per_step: int = large_steps.NUMBERS_PER_STEP) -> Iterator[None]:
    """Take the road of accelerators with tensors of a CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_steps, "suit", lambda tensor: True)
        patch.setattr(large_steps, "NUMBERS_PER_STEP", numbers_per_step)
        if numbers_per_step == 0:
            patch.setattr(large_steps, "QUERIES_PER_STEP", 0)
        yield


@given(problem=problems(), masked=st.booleans(), numbers_per_step=st.sampled_from([0, 2**26]), data=st.data())
@example(Problem((40,), (5,), (1,), (2,), (False,), heads=4, heads_kv=2, extra=2, rpb=True, seed=4), True, 0, None)
def test_the_same_results(problem: Problem, masked: bool, numbers_per_step: int, data: st.DataObject | None) -> None:
    """Output, lse and all gradients, by one step a tile and by one a geometry; of all queries or of a part."""
    generator = torch.Generator().manual_seed(problem.seed + 1)
    key_mask = torch.rand(problem.batch, *problem.layout, generator=generator) < 0.6
    changes = {"key_mask": key_mask} if masked else {}
    boxes = None if data is None else data.draw(st.none() | boxes_of(problem))
    found = []
    for steps in (True, False):
        tensors = problem.tensors(requires_grad=True)
        with on_an_accelerator(numbers_per_step):
            if boxes is None:
                output, lse = problem.attend("tiled" if steps else "gather", tensors, **changes)
            else:
                output, lse = (of_the_part if steps else in_the_whole)(problem, tensors, boxes, **changes)
            loss = output.sin().sum() + torch.where(lse.isfinite(), lse, 0.0).sin().sum()
            found.append([output, lse, *torch.autograd.grad(loss, list(tensors.values()), materialize_grads=True)])
    assert_close(found[0], found[1], **EXACT)


@pytest.mark.parametrize("name", ["query", "key", "value"])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("problem", REPORTED.values(), ids=REPORTED.keys())
def test_what_lies_outside_does_not_matter(problem: Problem, bits: float, name: str) -> None:
    tensors = poisoned(problem, name, bits, 0.45)
    chosen, expected = by_definition(problem, name, bits, 0.45)
    with on_an_accelerator():
        assert_no_leak(expected, results("tiled", problem, tensors, chosen))


@pytest.mark.parametrize("problem", REPORTED.values(), ids=REPORTED.keys())
def test_a_gradient_that_is_no_number_reaches_the_window_alone(problem: Problem) -> None:
    """One number of the incoming gradient is nan: its query's values get nan in that place, no others."""
    found = []
    for impl in ("tiled", "loops"):
        tensors = problem.tensors(requires_grad=True)
        output, _ = problem.attend(impl, tensors)
        incoming = torch.ones_like(output)
        incoming.flatten(1, -3)[0, 7, 0, 1] = torch.nan
        with on_an_accelerator():
            output, _ = problem.attend(impl, tensors)
            found.append(torch.autograd.grad(output, tensors["value"], incoming)[0])
    assert 0 < int(found[1].isnan().sum()) < found[1].numel() / 4
    assert_close(found[0], found[1], **EXACT, equal_nan=True)


@given(problem=problems(empty=False), data=st.data())
def test_marks_spread_along_windows(problem: Problem, data: st.DataObject) -> None:
    """From keys to queries and back, as the dense matrix says."""
    boxes = data.draw(boxes_of(problem))
    generator = torch.Generator().manual_seed(problem.seed)
    whole = problem.neighborhood.mask()  # [N, N]
    attends = crop(whole.reshape(1, *problem.layout, -1), boxes.queries).flatten(0, -2)  # [queries, N]
    attends = crop(attends.mT.reshape(1, *problem.layout, attends.shape[0]), boxes.keys).flatten(0, -2).mT
    keys = torch.rand(2, *boxes.key_layout, 3, generator=generator) < 0.1
    queries = torch.rand(2, *boxes.query_layout, 3, generator=generator) < 0.1
    expected = (attends.double() @ keys.flatten(1, -2).double()) > 0  # [2, queries, 3]
    assert_close(spread.to_queries(keys, problem.neighborhood, boxes).flatten(1, -2), expected)
    expected = (attends.mT.double() @ queries.flatten(1, -2).double()) > 0
    assert_close(spread.to_keys(queries, problem.neighborhood, boxes).flatten(1, -2), expected)


class Operations(TorchDispatchMode):
    """Counts what PyTorch does, and the dtypes that it makes."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.number, self.dtypes = 0, Counter[torch.dtype]()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one."""
        result = operation(*args, **(kwargs or {}))
        self.number += 1
        made = result if isinstance(result, tuple | list) else [result]
        self.dtypes.update(x.dtype for x in made if isinstance(x, Tensor))
        return result


def operations(batch: int, size: int, dilation: int, dtype: torch.dtype = torch.float32) -> list[int]:
    """How many a forward and a backward pass take on tensors without numbers: nobody can wait for their values."""
    tensors = [torch.empty(batch, size, size, 2, 32, device="meta", dtype=dtype, requires_grad=True) for _ in range(3)]
    na2d(*tensors, kernel_size=7, dilation=dilation, impl="tiled")  # cuts the tiles, which are kept
    with Operations() as forward:
        output = na2d(*tensors, kernel_size=7, dilation=dilation, impl="tiled")
    assert isinstance(output, Tensor)
    with Operations() as backward:
        torch.autograd.grad(output, tensors, torch.empty_like(output))
    assert not {torch.float64, torch.complex128} & {*forward.dtypes, *backward.dtypes}  # Metal has none of them
    return [forward.number, backward.number]


@pytest.mark.parametrize(("size", "dilation"), [(56, 1), (56, 8), (28, 1), (28, 4), (14, 1), (14, 2), (7, 1)])
def test_few_operations_whatever_the_batch(size: int, dilation: int) -> None:
    forward, backward = operations(64, size, dilation)
    assert forward <= 250
    assert backward <= 600
    assert operations(1024, size, dilation) == operations(1, size, dilation) == [forward, backward]
    assert operations(64, size, dilation, torch.bfloat16)[0] <= 260
