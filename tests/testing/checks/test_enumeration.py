"""Every legal axis once, every problem in one family."""

from dinat_ref.testing import Supports
from dinat_ref.testing.checks.enumeration import axes_up_to, family, window_problems


def test_the_enumeration_has_every_legal_axis_once():
    axes = list(axes_up_to(8))
    brute = {
        (length, k, s, d, causal)
        for length in range(1, 9)
        for k in range(1, 9)
        for s in range(1, 9)
        for d in range(1, 9)
        for causal in (False, True)
        if k * d <= length and s <= k
    }
    assert len(axes) == len(set(axes))
    assert set(axes) == brute
    assert {family(axis) for axis in axes} == {"odd", "even", "dilation", "stride", "causal", "causal stride"}


def test_the_families_share_out_the_enumeration():
    supports = Supports(ndim={2})
    whole = window_problems(None, supports, "quick")
    names = ("odd", "even", "dilation", "stride", "causal", "causal stride")
    parts = [problem for name in names for problem in window_problems(name, supports, "quick")]
    assert sorted(map(str, whole)) == sorted(map(str, parts))
