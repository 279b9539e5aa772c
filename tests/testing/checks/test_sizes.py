"""Realistic sizes are posed to every kernel that can take them, and illegal calls to every rule."""

import pytest

from dinat_ref.testing import Supports
from dinat_ref.testing.checks.errors import dilation_too_large, small, stride_above_kernel
from dinat_ref.testing.checks.sizes import far_apart, long_axes, realistic

NARROW = {
    "everything": Supports(),
    "one axis": Supports(ndim={1}),
    "no stride": Supports(stride=False),
    "no gqa, no extra keys": Supports(gqa=False, extra_keys=False),
    "float32": Supports(dtypes=["float32"]),
    "odd": Supports(even=False, ndim={2}),
    "uniform": Supports(per_axis=False, ndim={2}),
    "plain": Supports(stride=False, dilation=False, causal=False, lse=False, ndim={3}),
}


@pytest.mark.parametrize("supports", NARROW.values(), ids=NARROW)
@pytest.mark.parametrize("budget", ["quick", "full"])
def test_every_limit_is_passed(supports, budget):
    posed = list(realistic(supports, budget))
    assert all(supports.takes(problem) for problem in posed)
    for ndim in supports.ndim:
        here = [problem for problem in posed if problem.ndim == ndim]
        windows = here + [problem for problem in long_axes(supports, budget) if problem.ndim == ndim]
        assert {17, 32, 64, 80, 128, 256} <= {problem.head_dim for problem in here}
        assert max(problem.head_dim_v for problem in here) == 256
        assert max(problem.heads for problem in here) == 20
        assert max(problem.heads_kv for problem in here if problem.heads > problem.heads_kv or not supports.gqa) >= 10
        assert max(problem.batch for problem in here) == 6
        assert max(problem.heads // problem.heads_kv for problem in here) == (8 if supports.gqa else 1)
        assert max(problem.extra_keys for problem in here) == (33 if supports.extra_keys else 0)
        assert {"f16", "bf16", "f64"} & set(supports.dtypes) <= {problem.dtype_name for problem in here}
        assert max(max(problem.kernel_size) for problem in windows) >= (8 if supports.per_axis else 4)
        assert max(max(problem.layout) for problem in windows) >= 33
        if supports.per_axis:
            assert max(max(problem.stride) for problem in windows) >= (8 if supports.stride and ndim < 3 else 1)
            assert max(max(problem.dilation) for problem in windows) >= (7 if supports.dilation else 1)


def test_declared_head_dims_are_posed_and_no_others():
    supports = Supports(ndim={2}, head_dims={32, 64, 96})
    assert {problem.head_dim for problem in realistic(supports, "quick")} == {32, 64, 96}


def test_far_strides_are_for_the_deep_budget_alone():
    assert list(far_apart(Supports(), "full")) == []
    assert [problem.ndim for problem in far_apart(Supports(), "deep")] == [1, 2, 3]


def test_the_smallest_violations_are_there():
    (problem,) = small(Supports(ndim={2}), "quick")
    broken = [(legal, arguments) for _, legal, arguments, _ in dilation_too_large(problem, Supports(ndim={2}))]
    axes = set()
    for legal, arguments in broken:
        (axis,) = [n for n in range(2) if arguments["dilation"][n] * legal.kernel_size[n] > legal.layout[n]]
        axes.add((axis, legal.layout[axis], legal.kernel_size[axis], arguments["dilation"][axis]))
    assert {(0, 6, 3, 3), (1, 6, 3, 3), (0, 5, 3, 2), (1, 3, 2, 2)} <= axes
    strides = [arguments["stride"] for _, _, arguments, _ in stride_above_kernel(problem, Supports(ndim={2}))]
    assert (3, 1) in strides
    assert (1, 3) in strides
