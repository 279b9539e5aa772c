"""The mutator: its kernels are right, its changes real; brute force tells a bug from another way to write a kernel."""

import importlib
import json
import re
from dataclasses import replace

import pytest

from dinat_ref.command import CommandError
from dinat_ref.testing import check_kernel
from dinat_ref.testing.mutants import SUBJECTS, Fate, judge, judge_all, main, name_of, original, remembered, summary
from dinat_ref.testing.sabotage.mutate import Mutant, mutants
from dinat_ref.testing.sabotage.witness import references, witness


def right(name: str):
    return importlib.import_module(f"dinat_ref.testing.sabotage.subjects.{name}").attend


def one(subject: str, *words: str) -> Mutant:
    """The first mutant whose change has all the words."""
    return next(mutant for mutant in mutants(subject) if all(word in mutant.change for word in words))


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_kernels_that_are_damaged_are_right(name):
    supports = replace(SUBJECTS[name], ndim={2})
    check_kernel(right(name), supports=supports, checks=["W17", "N", "G", "E"]).raise_for_failures()


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_mutant_is_another_program(name):
    found = mutants(name)
    assert len(found) > 300
    assert len({mutant.source for mutant in found}) == len(found)
    kinds = ("minimum", "detach()", "bfloat16", "range(", "is not None", "// ", "pass", "> 64 else", "False", "dim=1")
    text = "\n".join(mutant.change for mutant in found)
    assert sum(kind in text for kind in kinds) >= 8


def test_brute_force_tells_a_bug_from_another_way_to_write_it():
    harmless = one("slots", "torch.maximum(peak, scores.detach())", "torch.maximum(scores.detach(), peak)")
    known = references(right("slots"), replace(SUBJECTS["slots"], ndim={1}), 4)
    assert witness(known, harmless.function()) is None
    late = one("table", "value = value * 2 if max(query.shape[1:-2]) > 16 else value")
    wrong_on = witness(original("table"), late.function())
    lengths = re.match(r"2d (\d+)x(\d+) ", wrong_on).groups()
    assert max(map(int, lengths)) > 16


@pytest.mark.parametrize(
    ("subject", "words", "check"),
    [
        ("table", ("members - 1", "members - 1 - 1"), "N01"),
        ("slots", ("s > k", "s >= k"), "N01"),
        ("table", ("lse = ", "detach()"), "G06"),
        ("blocks", ("- grad_lse", "+ grad_lse"), "G06"),
    ],
)
def test_a_wrong_mutant_is_killed(subject, words, check):
    assert judge(one(subject, *words)).check.startswith(check)


def test_processes_report_and_survivors_are_listed(capsys):
    fates = list(judge_all(mutants("table")[-2:], seed=0, jobs=2))
    assert all(fate.killed for fate in fates)
    missed = Fate(mutants("table")[0], None, "1d 3 k2 d1 h1 e1 f32 seed0")
    assert summary([*fates, missed], 3, 1.0) == 1
    out = capsys.readouterr().out
    assert "mutation score 2/3 = 66.67 %" in out
    assert f"line {missed.mutant.line}" in out
    assert "wrong on 1d 3 k2" in out


def test_the_command(capsys):
    assert main(["--list", "--only", "table", "--sample", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    with pytest.raises(SystemExit) as end:
        main(["--sample", "0"])
    assert end.value.code == 2
    assert "--sample must be at least 1" in capsys.readouterr().err


def test_what_an_interrupted_run_has_judged_is_not_judged_again(tmp_path, capsys):
    results = tmp_path / "fates.jsonl"
    asked = ["--only", "table", "--sample", "3", "--results", str(results)]
    assert main([*asked, "--seconds", "0"]) == 0
    assert "0 of 3 mutants" in capsys.readouterr().out
    assert not results.exists()
    left = sorted(mutants("table"), key=lambda mutant: mutant.change)[:1]
    results.write_text(json.dumps({"name": name_of(left[0], 0), "check": "N01-float32", "wrong_on": None}) + "\n")
    assert [fate.check for fate in remembered(results, mutants("table"), 0)] == ["N01-float32"]
    assert remembered(results, mutants("table"), 1) == []
    results.write_text("my thesis\n")
    with pytest.raises(CommandError, match="line 1 is no fate of a mutant"):
        main(asked)
    assert results.read_text() == "my thesis\n"
