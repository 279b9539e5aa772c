"""The experiments: what their theory says, that they run from end to end, and that the numbers kept are theirs."""

import json
from pathlib import Path

import pytest
import torch

from dinat_ref import Neighborhood
from dinat_ref.analysis.pairs import pairs_that_meet, share_that_meets
from dinat_ref.analysis.receptive_field import receptive_field
from dinat_ref.training.experiments.__main__ import EXPERIMENTS, main
from dinat_ref.training.experiments.patterns import layers_of, touching_pairs
from dinat_ref.training.small_models import PATTERNS, pattern_model

MEASURED = Path(__file__).parents[2] / "figures" / "measured"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_gradient_leads_from_what_a_token_does_not_see(pattern):
    """The layers that the theory talks about are those of the model: one token's output depends on its field alone."""
    torch.manual_seed(0)
    model = pattern_model(pattern, size=9, num_channels=2).double()
    images = torch.randn(1, 2, 9, 9, dtype=torch.float64, requires_grad=True)
    for token in ((0, 0), (4, 4), (1, 7)):
        last = model.encode(images).after[-1]  # [1, 9, 9, 32]
        seen = torch.autograd.grad(last[0][token].sum(), images)[0][0].abs().sum(0) > 0
        torch.testing.assert_close(seen, receptive_field(layers_of(pattern), token), rtol=0, atol=0)


def test_pairs_meet_where_some_receptive_field_holds_both():
    """Against the definition on two axes, every pair of tokens."""
    layers = [Neighborhood((4, 6), (2, 3)), Neighborhood((4, 6), (2, 3), dilation=(2, 2))]
    tokens = torch.cartesian_prod(torch.arange(4), torch.arange(6))
    fields = torch.stack([receptive_field(layers, token.tolist()).flatten() for token in tokens])  # [24, 24]
    together = (fields[:, :, None] & fields[:, None, :]).any(0)
    rows, columns = pairs_that_meet(layers)
    found = rows[tokens[:, 0][:, None], tokens[:, 0]] & columns[tokens[:, 1][:, None], tokens[:, 1]]
    torch.testing.assert_close(found, together, rtol=0, atol=0)
    first, second = tokens.repeat_interleave(24, 0), tokens.repeat(24, 1)
    assert share_that_meets(layers, first, second) == pytest.approx(together.float().mean().item())


def test_a_sum_over_tokens_cannot_compare_what_no_token_sees():
    """The bound drawn in the figure: of AA, AB, BA, BB no score f(first) + g(second) has more than three right."""
    values = torch.arange(-3.0, 4)
    f = torch.cartesian_prod(values, values)  # f of A and of B
    scores = (f[:, None, :, None] + f[None, :, None, :]).flatten(0, 1)  # [functions, first, second]
    says_same = scores > 0
    right = (says_same == torch.eye(2, dtype=torch.bool)).sum((1, 2))
    assert right.max() == 3


def test_two_dilated_layers_never_see_pixels_that_touch():
    assert share_that_meets(layers_of("dina_dina"), *touching_pairs()) == 0
    assert share_that_meets(layers_of("na_dina"), *touching_pairs()) == 1


@pytest.mark.parametrize("name", ["patterns", "distance"])
def test_an_experiment_from_end_to_end(name, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    arguments = [name, "--seeds", "2", "--epochs", "1", "--images", "64", "--workers", "0", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.json", f"{name}.svg"]
    content = json.loads((tmp_path / f"{name}.json").read_text())
    assert content["settings"] == {"seeds": 2, "images": 64, "epochs": 1}
    assert set(content["versions"]) == {"dinat_ref", "torch", "python"}
    assert "\n".join(EXPERIMENTS[name].module.lines(content)) in capsys.readouterr().out
    again = main([*arguments[:-1], str(tmp_path / "again")])
    assert again == 0
    other = json.loads((tmp_path / "again" / f"{name}.json").read_text())
    assert other["accuracy"] == content["accuracy"]  # the same seeds, the same numbers


def test_digits_measures_every_change(tmp_path, capsys):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: dinat-ref[training]")
    assert main(["digits", "--seeds", "1", "--epochs", "1", "--workers", "1", "--out", str(tmp_path)]) == 0
    accuracy = json.loads((tmp_path / "digits.json").read_text())["accuracy"]
    for name in ("DiNAT", "NAT"):
        assert {tokens: list(of_dilations) for tokens, of_dilations in accuracy[name].items()} == {
            "8": ["1", "2"],
            "16": ["1", "2"],
        }
    assert "DiNAT  8 x 8, second layer's dilation 2 (as trained)" in capsys.readouterr().out


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_kept_results_are_of_five_seeds_of_the_command(name):
    content = json.loads((MEASURED / f"{name}.json").read_text())
    experiment = EXPERIMENTS[name]
    assert content["settings"] == {"seeds": 5, "images": experiment.images, "epochs": experiment.epochs}
    keys = {run.key for run in experiment.module.runs(1, 64, 1)}
    if name == "patterns":
        assert {(task, pattern) for task, found in content["accuracy"].items() for pattern in found} == keys
    else:
        assert {(key,) for key in content["accuracy"]} == keys


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--workers", "-1"], "--workers must be at least 0, got -1"),
        (["--images", "5"], "--images must be at least 64, a batch, got 5"),
    ],
)
def test_bad_arguments(arguments, message, capsys, tmp_path):
    assert main(["patterns", *arguments, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"python -m dinat_ref.training.experiments: error: {message}\n"


def test_an_unknown_experiment_and_help(capsys):
    for arguments, status in ((["accuracy"], 2), (["--help"], 0)):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == status
    captured = capsys.readouterr()
    assert "invalid choice: 'accuracy'" in captured.err
    assert "experiments distance --seeds 2" in captured.out
