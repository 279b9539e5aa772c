"""Draws have what a check wishes for."""

import pytest

from dinat_ref.testing import Supports
from dinat_ref.testing.checks.sampling import RandomChooser, draw_problem
from dinat_ref.testing.registry import CHECKS

EVERYTHING = Supports(rpb=True)


@pytest.mark.parametrize("id", [check.id for check in CHECKS.values() if check.wish is not None])
def test_every_wish_is_fulfilled(id):
    wish = CHECKS[id].wish
    for seed in range(40):
        problem = draw_problem(RandomChooser(seed), EVERYTHING, wish)
        features = {
            "stride": max(problem.stride) > 1,
            "dilation": max(problem.dilation) > 1,
            "causal": any(problem.is_causal),
            "gqa": problem.heads > problem.heads_kv,
            "extra_keys": problem.extra_keys > 0,
            "rpb": problem.rpb,
            "strided": problem.strided,
        }
        for name, present in features.items():
            wanted = getattr(wish, name)
            assert wanted is None or wanted == present, f"{id}: {name} of {problem!r}"
