"""Problems: lines that round-trip, draws that are legal, shrinking that ends."""

import pytest
import torch
from hypothesis import given, settings

from dinat_ref.testing import Problem, Supports, problems
from dinat_ref.testing.checks.sampling import Wish
from dinat_ref.testing.shrink import shrink, simpler, size

EVERYTHING = Supports(rpb=True)


@given(problems(EVERYTHING, Wish(scale=None, strided=None)))
def test_the_line_of_a_problem_gives_the_problem_back(problem):
    assert Problem(str(problem)) == problem
    assert eval(repr(problem), {"Problem": Problem}) == problem


@given(problems(EVERYTHING, Wish(scale=None, strided=None)))
@settings(max_examples=30)
def test_strided_tensors_hold_the_numbers_of_contiguous_ones(problem):
    strided = problem.but(strided=True).inputs().named()
    for name, tensor in problem.but(strided=False).inputs().named().items():
        torch.testing.assert_close(strided[name], tensor, rtol=0, atol=0)
        assert tensor.numel() < 2 or name == "rpb" or not strided[name].is_contiguous() or 1 in tensor.shape


@given(problems(EVERYTHING))
@settings(max_examples=50)
def test_simpler_problems_are_legal_and_smaller_ones_lead_to_an_end(problem):
    for candidate in simpler(problem):
        assert candidate != problem
    smallest = shrink(problem, lambda candidate: True, tries=2000)
    assert all(size(candidate) >= size(smallest) for candidate in simpler(smallest))


@pytest.mark.parametrize(
    "line",
    ["", "2d 4x3", "1d 4x3 k3", "2d 4 k3", "1d 4 k5", "1d 4 k2 q7", "1d 4 k2 h3 hkv2", "1d 4 kx", "1d 4 k2 causal2y"],
)
def test_a_wrong_line_is_refused(line):
    with pytest.raises(ValueError, match=r"problem|axis|heads"):
        Problem(line)
