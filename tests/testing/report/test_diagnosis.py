"""A wrong name is worse than none: bugs that no entry of the corpus explains are described, not named."""

import itertools

import pytest
import torch

from dinat_ref import na1d, na2d
from dinat_ref.testing import Supports, check_kernel
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.report.description import which_problems
from dinat_ref.testing.report.diagnosis import same
from dinat_ref.testing.sabotage import DenseKernel

ONE = Supports(ndim={1}, dtypes=["float32"])


def half_of_long_windows(query, key, value, kernel_size, **arguments):
    """Right up to 200 keys."""
    output = na1d(query, key, value, kernel_size, **arguments)
    return output * 1.001 if kernel_size[0] > 200 and isinstance(output, torch.Tensor) else output


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_wrong_long_window_is_not_said_to_be_summed_in_half_precision(dtype):
    report = check_kernel(half_of_long_windows, supports=Supports(ndim={1}, dtypes=[dtype]), checks=["N05"])
    result = report["N05-long-windows"]
    assert result.verdict == "failed"
    assert result.looks_like == ""
    assert "all 300 queries are wrong" in result.seen


@pytest.mark.parametrize(("number", "words"), [(float("nan"), "NaN"), (float("inf"), "infinite")])
def test_output_that_is_not_finite_is_said_to_be_that(number, words):
    def kernel(query, key, value, kernel_size, **arguments):
        output = na2d(query, key, value, kernel_size, **arguments)
        return torch.full_like(output, number) if isinstance(output, torch.Tensor) else output

    report = check_kernel(kernel, supports=Supports(ndim={2}, dtypes=["float32"]), checks=["N01", "D02", "D05", "D07"])
    assert report.diagnoses == {}
    assert f"the output is {words} for all" in report["N01-float32"].seen
    assert {result.id for result in report.failures} == {"N01-float32"}  # the others follow


def test_stale_numbers_behind_a_ragged_end_are_no_race():
    count = itertools.count()

    def kernel(query, key, value, kernel_size, **arguments):
        output = na1d(query, key, value, kernel_size, **arguments)
        if isinstance(output, torch.Tensor) and query.shape[1] % 2:
            stale = torch.zeros_like(output)
            stale[:, -1] = next(count)
            output = output + stale
        return output

    result = check_kernel(kernel, supports=ONE, checks=["D05"])["D05-repeatable"]
    assert result.verdict == "failed"
    assert result.looks_like == ""
    assert "wrong exactly where a length is odd" in result.seen


class CausalWhereDilated(DenseKernel):
    """is_causal is read from the wrong argument."""

    def check(self, query, key, value, arguments, *rest):
        kernel_size, stride, dilation, _ = arguments
        return super().check(query, key, value, (kernel_size, stride, dilation, tuple(d > 1 for d in dilation)), *rest)


class HalfWidthOfTwo(DenseKernel):
    """2 where k // 2 should stand: right for k of 4 and 5."""

    def axis_window(self, i, length, k, s, d, causal):
        start = min(max(i - 2, 0), length - k)
        return range(start, start + k)


@pytest.mark.parametrize(
    ("kernel", "supports", "never"),
    [
        (CausalWhereDilated(), Supports(ndim={2}, dtypes=["float32"]), "one axis taken for all"),
        (HalfWidthOfTwo(), Supports(ndim={1}, stride=False, dilation=False, causal=False), "starts one token early"),
    ],
)
def test_a_bug_that_is_not_in_the_corpus_is_not_given_a_name(kernel, supports, never):
    report = check_kernel(kernel, supports=supports, checks=["W"])
    assert not report.passed
    assert not any(never in words for words in report.diagnoses)
    assert all(result.seen or result.looks_like for result in report.failures)


def test_nothing_is_named_where_every_call_raised_the_same():
    def kernel(*tensors, **arguments):
        raise NotImplementedError("no backend")

    report = check_kernel(kernel, supports=ONE, checks=["W", "N", "D"])
    assert report.diagnoses == {}


def test_what_separates_failing_problems_from_passing_ones():
    lines = "1d 9 k3 d1 h1 e{} f32 seed0"
    sizes = [Problem(lines.format(size)) for size in (1, 8, 16, 17, 32)]
    assert which_problems(sizes[3:], sizes[:3]) == "wrong from head_dim 17 on"
    causal = [Problem("1d 9 k3 d1 causal h1 e1 f32 seed0"), Problem("1d 9 k3 d2 causal h1 e1 f32 seed0")]
    assert which_problems(causal, sizes) == "wrong exactly where is_causal"
    assert which_problems(causal[:1], [*sizes, causal[1]]) == (
        "wrong only where is_causal and head_dim is odd, though not always there"
    )


def test_the_same_mistake_is_one_of_the_same_size():
    right, mistaken = [torch.zeros(5)], [torch.full((5,), 1e-3)]
    assert same(mistaken, [torch.full((5,), 1.05e-3)], right)
    assert not same(mistaken, right, right)
    assert not same(mistaken, [torch.full((5,), 2e-3)], right)


def grouped_heads_above_four(query, key, value, kernel_size, **arguments):
    """Right up to four heads of keys, or without groups."""
    value = value.flip(-2) if query.shape[-2] > key.shape[-2] > 4 else value
    return na1d(query, key, value, kernel_size, **arguments)


def narrow_numbers_above_sixteen(query, key, value, kernel_size, **arguments):
    """Right up to a head_dim of 16."""
    return na1d(query * (torch.arange(query.shape[-1]) < 16), key, value, kernel_size, **arguments)


@pytest.mark.parametrize(
    ("kernel", "problem", "words"),
    [
        (grouped_heads_above_four, "1d 1 k1 d1 h10 hkv5 e1 f32 seed0", "heads_kv 5: with 4 it is right"),
        (narrow_numbers_above_sixteen, None, "it takes head_dim 17: with 16 it is right"),
    ],
)
def test_a_bug_above_a_size_is_one_finding_with_that_size_in_it(kernel, problem, words):
    report = check_kernel(kernel, supports=ONE, checks=["N01", "N31", "G01", "G16", "X04"])
    assert [result.id for result in report.failures] == ["N31-realistic-sizes"]
    result = report["N31-realistic-sizes"]
    assert words in result.seen
    assert problem in (None, result.problem)
    assert "from N31-realistic-sizes" in report["G16-realistic-sizes"].reason


def stride_of_six_at_most(query, key, value, kernel_size, stride=1, **arguments):
    """Right up to a stride of 6."""
    return na1d(query, key, value, kernel_size, min(stride[0], 6), **arguments)


def test_a_comparison_of_windows_follows_from_the_law_that_says_more():
    report = check_kernel(stride_of_six_at_most, supports=ONE, checks=["W"])
    assert [result.id for result in report.failures] == ["W03-key-count", "W06-stride-group"]
    assert "from W06-stride-group" in report["W14-stride"].reason
