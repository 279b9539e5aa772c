"""What a kernel is declared without is never asked of it; whatever is left is."""

import pytest
import torch

from dinat_ref import na1d, na2d
from dinat_ref.testing import Supports, check_kernel
from dinat_ref.testing.registry import select


def careless(query, key, value, kernel_size, **arguments):
    """Right for what is legal; for what is not, it returns something."""
    try:
        return na1d(query, key, value, kernel_size, **arguments)
    except (ValueError, TypeError):
        return torch.zeros_like(query)


def test_a_kernel_that_does_not_validate_can_say_so():
    asked = {"checks": ["E", "W12"], "supports": Supports(ndim={1}, dtypes=["float32"])}
    assert len(check_kernel(careless, **asked).failures) > 5
    asked["supports"] = Supports(ndim={1}, dtypes=["float32"], errors=False)
    report = check_kernel(careless, **asked)
    assert report.passed
    assert "errors for illegal arguments: no" in report.restrictions
    assert all(result.verdict == "skipped" for result in report.results if result.id[0] == "E")


def rows_only(query, key, value, kernel_size, stride=1, dilation=1, is_causal=False, **arguments):
    if isinstance(is_causal, tuple) and any(is_causal[1:]):
        raise NotImplementedError("only the first axis can be causal")
    return na2d(query, key, value, kernel_size, stride, dilation, is_causal, **arguments)


@pytest.mark.parametrize("per_axis", [True, False])
def test_causality_of_rows_alone(per_axis):
    supports = Supports(ndim={2}, dtypes=["float32"], causal_rows=True, per_axis=per_axis)
    report = check_kernel(rows_only, supports=supports, checks=["W", "N01", "G12", "X09"])
    assert report.passed, str(report)
    assert report["W15-causal"].problems > 10
    assert "causality on the first axis only" in report.restrictions


def tiled(query, key, value, kernel_size, **arguments):
    if min(query.shape[1:-2]) < 16:
        raise NotImplementedError("an axis is shorter than a tile")
    return na2d(query, key, value, kernel_size, **arguments)


def test_the_shortest_axis_that_a_kernel_takes():
    supports = Supports(ndim={2}, dtypes=["float32"], min_layout=16, extra_keys=False, gqa=False)
    report = check_kernel(tiled, supports=supports, checks=["W11", "W12", "W13", "W17", "N01", "D10", "E03", "X07"])
    assert report.passed, str(report)
    assert "axes of at least 16 tokens" in report.restrictions
    for check in select(["W", "N", "G", "D", "X"]):
        for problem in list(check.problems(supports, "quick", 0))[:50]:
            assert min(problem.layout) >= 16


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ndim": ()}, "ndim must"),
        ({"ndim": {5}}, "1 to 4"),
        ({"ndim": {True}}, "ndim must"),
        ({"head_dims": set()}, "head_dims must"),
        ({"head_dims": {0}}, "head_dims must"),
        ({"head_dims": {10**9}}, "head_dims must"),
        ({"min_layout": 0}, "min_layout must"),
        ({"min_layout": 10**9}, "min_layout must"),
        ({"max_tokens": -1}, "max_tokens must"),
        ({"dtypes": ["int8"]}, "dtypes must"),
    ],
)
def test_what_no_kernel_can_be_declared_to_take(wrong, words):
    with pytest.raises(ValueError, match=words):
        Supports(**wrong)
