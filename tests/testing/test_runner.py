"""check_kernel and its report."""

import os
import re
import time

import pytest
import torch

from dinat_ref import na1d, na2d
from dinat_ref.testing import Kernel, KernelFailure, Supports, check_kernel, isolate, parametrize_with_checks
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
    assert re.search(r"status 7|_exit\(7\)", report["D10-survives"].message)  # of its own process, or of this one
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


def test_a_slow_kernel_is_posed_fewer_problems_and_the_report_says_so(monkeypatch):
    """The clock is the kernel's own, so that nothing here depends on the machine."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(isolate, "start_method", lambda load, device="cpu": None)

    def slow(query, key, value, kernel_size, **arguments):
        now[0] += 0.15
        return na1d(query, key, value, kernel_size, **arguments)

    supports = Supports(ndim={1}, dtypes=["float32"], lse=False)
    report = check_kernel(slow, supports=supports, checks=["W", "N"], seconds=20)
    assert report.passed
    assert now[0] < 60
    assert "slow: one of every" in str(report)
    assert "to end within about 20 s" in str(report)
    assert 0 < report["W12-even-kernels"].problems < 30
    assert all(result.problems > 0 for result in report.results if result.verdict == "passed")


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_there_must_be_time(seconds):
    with pytest.raises(ValueError, match="seconds must be more than 0"):
        check_kernel(na1d, supports=Supports(ndim={1}), seconds=seconds)


operators = torch.library.Library("dinat_ref_tests", "FRAGMENT")
SCHEMA = "(Tensor query, Tensor key, Tensor value, int kernel_size) -> Tensor"


def registered(name, fake):
    """A custom operator, as a project would register its kernel; the fake says what shape comes out."""
    operators.define(f"{name}{SCHEMA}")
    operators.impl(name, lambda query, key, value, kernel_size: na1d(query, key, value, kernel_size), "CPU")
    torch.library.register_fake(f"dinat_ref_tests::{name}", fake, lib=operators)
    return getattr(torch.ops.dinat_ref_tests, name).default


@pytest.mark.parametrize(
    ("name", "fake", "verdict"),
    [
        ("right", lambda query, key, value, kernel_size: torch.empty_like(query), "passed"),
        ("wrong", lambda query, key, value, kernel_size: query.new_empty(query.shape[:-1]), "failed"),
    ],
)
def test_a_registered_operator_is_checked_as_one(name, fake, verdict):
    operator = registered(name, fake)

    def arguments(problem):
        inputs = problem.inputs()
        return operator, (inputs.query, inputs.key, inputs.value, problem.kernel_size[0])

    def kernel(query, key, value, kernel_size):
        return operator(query, key, value, kernel_size[0])

    none = {name: False for name in ("stride", "dilation", "causal", "scale", "lse", "extra_keys", "backward")}
    supports = Supports(ndim={1}, dtypes=["float32"], gqa=False, head_dim_v=False, opcheck=arguments, **none)
    report = check_kernel(kernel, supports=supports, checks=["T03", "W11"])
    assert report["W11-odd-kernels"].verdict == "passed"
    assert report["T03-opcheck"].verdict == verdict, report["T03-opcheck"].message


def test_at_every_door_a_leaning_kernel_is_one_finding():
    """As many failures under pytest as by check_kernel."""
    supports = Supports(ndim={1}, dtypes=["float32"])
    ids = ["W11", "W12", "W13", "W14", "W17", "N01", "N16", "G01", "G03", "X05", "X11"]
    marks = parametrize_with_checks(LEAN, supports=supports, checks=ids, max_examples=8)
    verdicts = {}
    for bound in marks.args[1]:
        try:
            bound()
            verdicts[bound.check.id] = "passed"
        except pytest.skip.Exception as skipped:
            verdicts[bound.check.id] = str(skipped)
        except KernelFailure as failure:
            verdicts[bound.check.id] = f"failed: {failure}"
    failed = {id: verdict for id, verdict in verdicts.items() if verdict.startswith("failed")}
    assert list(failed) == ["W12-even-kernels"]
    assert "even kernel leans right" in failed["W12-even-kernels"]
    report = check_kernel(LEAN, supports=supports, checks=ids)
    assert [result.id for result in report.failures] == ["W12-even-kernels"]
