"""Who watches the watchmen: every wrong kernel is rejected by the check that names it, and diagnosed."""

from functools import cache

import pytest

from dinat_ref.testing.registry import CHECKS
from dinat_ref.testing.report.diagnosis import diagnose
from dinat_ref.testing.report.results import Result
from dinat_ref.testing.runner import run_check
from dinat_ref.testing.sabotage import CORPUS
from dinat_ref.testing.session import Session


@cache
def verdict(name: str) -> tuple[Result, str | None]:
    """Run the check that names a bug, with budget quick, and diagnose what it found."""
    entry = CORPUS[name]
    if entry.symptom == "ended the process":  # it would end this one
        with Session(entry.kernel) as session:
            result = session.explain(session.check(entry.found_by[0]))
            return result, result.looks_like
    kernel = entry.kernel()
    result = run_check(kernel, CHECKS[entry.found_by[0]], "quick", seed=0)
    return result, diagnose(kernel, result) if result.verdict == "failed" else None


def test_the_corpus_is_large_enough():
    assert len(CORPUS) >= 45


@pytest.mark.parametrize("name", CORPUS)
def test_every_wrong_kernel_names_checks_that_exist(name):
    assert CORPUS[name].found_by
    assert set(CORPUS[name].found_by) <= set(CHECKS)


@pytest.mark.parametrize("name", CORPUS)
def test_a_wrong_kernel_is_rejected_by_the_check_that_names_it(name):
    result, _ = verdict(name)
    assert result.verdict == "failed", f"{result.id} let {name} pass on {result.problems} problems"


def test_at_least_nine_of_ten_diagnoses_are_right(capsys):
    named = [entry for entry in CORPUS.values() if entry.looks_like]
    wrong = [(e.name, e.diagnosis, verdict(e.name)[1]) for e in named if verdict(e.name)[1] != e.diagnosis]
    killed = sum(verdict(name)[0].verdict == "failed" for name in CORPUS)
    with capsys.disabled():
        print(f"\nmutation score {killed}/{len(CORPUS)}, right diagnoses {len(named) - len(wrong)}/{len(named)}")
    assert len(wrong) <= 0.1 * len(named), wrong
