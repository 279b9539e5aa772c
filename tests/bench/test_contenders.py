"""Contenders compute what they should, and say why they cannot; tiled stays linear in memory."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from dinat_ref.attention import na1d, na2d, neighborhood_attention
from dinat_ref.attention.chunks import NUMBERS_PER_CHUNK
from dinat_ref.bench import plan
from dinat_ref.bench.contenders import CONTENDERS
from dinat_ref.bench.model import MODELS
from dinat_ref.bench.shapes import SHAPES, Problem, square
from dinat_ref.bench.turns import CannotRunError


class CountBytes(TorchDispatchMode):
    """Count the bytes of everything that the operations inside the block make, and the largest piece."""

    def __init__(self):
        super().__init__()
        self.total = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        known = {x.untyped_storage().data_ptr() for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for x in tree_iter(result):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in known:
                self.total += x.untyped_storage().nbytes()
                self.largest = max(self.largest, x.untyped_storage().nbytes())
        return result


def made_bytes(layout, kernel_size, **options):
    query, key, value = torch.randn(3, 1, *layout, 2, 16).unbind(0)
    with CountBytes() as count, torch.no_grad():
        neighborhood_attention(query, key, value, kernel_size, impl="tiled", **options)
    return count, query.nbytes


@pytest.mark.parametrize("options", [{}, {"dilation": 4}, {"stride": 3}, {"is_causal": True}])
def test_tiled_makes_twice_the_bytes_for_twice_the_tokens(options):
    totals = [made_bytes(layout, 7, **options)[0].total for layout in ((96, 96), (96, 192))]
    for smaller, larger in itertools.pairwise(totals):
        assert 1.8 < larger / smaller < 2.2  # tables of tiles do not grow


@pytest.mark.parametrize(
    ("layout", "kernel_size"), [((128, 128), 7), ((16384,), 129), ((8192,), 1025), ((8, 32, 32), (3, 7, 7))]
)
def test_no_temporary_of_tiled_is_larger_than_query_or_a_chunk(layout, kernel_size):
    count, query_bytes = made_bytes(layout, kernel_size)
    assert count.largest <= max(query_bytes, 4 * NUMBERS_PER_CHUNK)


def test_the_backward_pass_of_tiled_keeps_no_weights():
    query, key, value = (torch.randn(1, 64, 64, 2, 16, requires_grad=True) for _ in range(3))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.nbytes) or x, lambda x: x):
        na2d(query, key, value, 7, impl="tiled")
    assert sum(kept) <= 6 * query.nbytes  # query twice (before and after scaling), key, value, output


def test_a_contender_that_cannot_run_says_why():
    long = Problem((65536,), (129,), heads=2)
    for name in ("loops", "masked", "dense attention", "flex, compiled"):
        if name == "dense attention":
            long = Problem((262144,), (129,), heads=2)
        with pytest.raises(CannotRunError, match=r"\w{3,}"):
            CONTENDERS[name].make(long)


@pytest.mark.parametrize("name", ["gather", "unfold", "masked", "tiled", "auto", "split form"])
def test_contenders_attend(name):
    problem = SHAPES["tiny"][0]
    query, key, value = problem.operands()
    expected = na2d(query, key, value, problem.kernel_size, dilation=problem.dilations, impl="loops")
    torch.testing.assert_close(CONTENDERS[name].make(problem)(query, key, value), expected, rtol=1e-5, atol=1e-5)


def test_dense_attention_is_the_window_of_everything():
    problem = Problem((6,), (6,), heads=2)
    query, key, value = problem.operands()
    expected = na1d(query, key, value, 6, impl="loops")
    actual = CONTENDERS["dense attention"].make(problem)(query, key, value)
    torch.testing.assert_close(actual.reshape(expected.shape), expected, rtol=1e-5, atol=1e-5)


def test_every_shape_is_legal():
    for problems in SHAPES.values():
        for problem in problems:
            assert problem.neighborhood.num_tokens == problem.num_tokens
    assert square(14, 8, dilation=2) in SHAPES["dinat"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_contenders_in_half_precision_attend_in_it(dtype):
    problem = replace(SHAPES["tiny"][0], dtype=dtype)
    operands = problem.operands()
    assert CONTENDERS[f"auto, {dtype}"].dtype == CONTENDERS[f"limit, {dtype}"].dtype == dtype
    output = CONTENDERS[f"auto, {dtype}"].make(problem)(*operands)
    assert output.dtype == operands[0].dtype == getattr(torch, dtype)
    assert CONTENDERS[f"limit, {dtype}"].make(problem)(*operands).dtype == output.dtype
    in_float64 = na2d(*(x.double() for x in operands), problem.kernel_size, dilation=problem.dilations, impl="loops")
    torch.testing.assert_close(output.double(), in_float64, rtol=torch.finfo(output.dtype).eps, atol=1e-3)


def test_a_layer_drops_weights_where_it_is_to():
    problem = SHAPES["tiny"][0]
    operands = problem.operands()
    for name, drops in (("layer", False), ("layer, dropout", True)):
        torch.manual_seed(0)
        attend = CONTENDERS[name].make(problem)
        first, second = attend(*operands), attend(*operands)
        assert bool((first != second).any()) == drops
        assert first.requires_grad


def test_the_plan_knows_everybody():
    assert list(plan.CONTENDERS) == list(CONTENDERS)
    assert list(plan.MODELS) == list(MODELS)
