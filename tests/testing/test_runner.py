"""check_kernel and its report."""

import os

import pytest
import torch

from dinat_ref import na1d, na2d
from dinat_ref.testing import Kernel, KernelFailure, Supports, check_kernel, parametrize_with_checks
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.registry import CHECKS, KINDS
from dinat_ref.testing.sabotage import CORPUS
from dinat_ref.testing.strategies import Bench, BoundCheck

LEAN = CORPUS["even_kernel_leans_right"].function


def test_a_failure_shows_the_smallest_case_and_says_what_it_looks_like():
    report = check_kernel(LEAN, supports=Supports(ndim={1}), checks=["W"])
    result = report["W12-even-kernels"]
    assert not report.passed
    assert result.verdict == "failed"
    assert Problem(result.problem).layout == (3,)
    assert "expected" in result.drawing
    assert "leans right" in result.looks_like
    assert result.problem in str(report)
    with pytest.raises(KernelFailure, match="even kernel leans right"):
        report.raise_for_failures()


def test_failures_of_random_checks_are_shrunk():
    def shifts_values(query, key, value, kernel_size, **arguments):
        output = na1d(query, key, value, kernel_size, **arguments)
        return output + 1.0 if isinstance(output, torch.Tensor) and query.shape[-2] > 1 else output

    result = check_kernel(shifts_values, supports=Supports(ndim={1}), checks=["N01"])["N01-float32"]
    problem = Problem(result.problem)
    assert (problem.heads, problem.batch, problem.head_dim, problem.layout) == (2, 1, 1, (1,))


def test_expected_failures_are_no_failures_and_unexpected_passes_are():
    expected = {"W12-even-kernels": "known"}
    report = check_kernel(LEAN, supports=Supports(ndim={1}), checks=["W11", "W12"], expected_failures=expected)
    assert report.passed
    assert report["W12-even-kernels"].verdict == "expected failure"
    report = check_kernel(na1d, supports=Supports(ndim={1}), checks=["W11", "W12"], expected_failures=expected)
    assert not report.passed
    assert report["W12-even-kernels"].verdict == "unexpected pass"


@pytest.mark.parametrize(
    "argument", [{"budget": "huge"}, {"expected_failures": {"W99": "no"}}, {"checks": ["Q"]}, {"layout": "first"}]
)
def test_unknown_names_are_errors(argument):
    with pytest.raises(ValueError, match=r"must be one of|names no check|no check is named"):
        check_kernel(na1d, supports=Supports(ndim={1}), **argument)


def test_arguments_that_a_kernel_lacks_are_never_passed():
    def few(query, key, value, kernel_size):
        return na2d(query, key, value, kernel_size)

    supports = Supports(ndim={2}, stride=False, dilation=False, causal=False, scale=False, lse=False, extra_keys=False)
    report = check_kernel(few, supports=supports)
    assert report.passed, str(report)
    assert "stride: no" in report.restrictions
    assert report["W14-stride"].verdict == "skipped"


def test_heads_first_kernels_are_called_heads_first():
    def first(query, key, value, **arguments):
        assert query.ndim == 4
        extra = {n: arguments.pop(n).transpose(1, 2) for n in list(arguments) if n.startswith("additional")}
        tensors = (tensor.movedim(1, -2) for tensor in (query, key, value))
        result = na1d(*tensors, **arguments, **extra)
        if isinstance(result, tuple):
            return result[0].movedim(-2, 1), result[1].movedim(-1, 1)
        return result.movedim(-2, 1)

    report = check_kernel(first, supports=Supports(ndim={1}), layout="heads_first", checks=["W12", "N", "X"])
    assert report.passed, str(report)


def test_a_dtype_that_ends_the_process_is_reported_and_left_out():
    def dies(query, key, value, kernel_size, **arguments):
        if query.dtype == torch.float16:
            os._exit(7)
        return na1d(query, key, value, kernel_size, **arguments)

    report = check_kernel(dies, supports=Supports(ndim={1}), checks=["D10", "N04", "N01"])
    assert [result.id for result in report.failures] == ["D10-survives"]
    assert "status 7" in report["D10-survives"].message
    assert report["N04-float16"].verdict == "skipped"
    assert report["N01-float32"].verdict == "passed"


def test_ids_are_letter_number_words():
    assert all(id[0] in KINDS and id[1:3].isdigit() and id[3] == "-" for id in CHECKS)
    assert len({id[:3] for id in CHECKS}) == len(CHECKS)


@parametrize_with_checks(
    na2d, supports=Supports(ndim={2}), checks=["W02", "N01", "G02", "X07", "E01", "T01"], max_examples=10
)
def test_the_door_for_pytest(check):
    check()


def test_the_door_for_pytest_fails_with_a_shrunk_problem():
    supports = Supports(ndim={1})
    with pytest.raises(KernelFailure, match="W12"):
        BoundCheck(CHECKS["W12-even-kernels"], Bench(Kernel(LEAN, supports)))()
    scaled = CORPUS["scale_ignored"].function
    with pytest.raises(KernelFailure, match=r"Problem\(.1d"):
        BoundCheck(CHECKS["N18-scale"], Bench(Kernel(scaled, supports)))()
    with pytest.raises(KernelFailure, match="expected to fail"):
        BoundCheck(CHECKS["N01-float32"], Bench(Kernel(na1d, supports)), reason="never", max_examples=5)()
