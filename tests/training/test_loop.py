"""The loop: it learns, it repeats itself to the bit, it goes on where it stopped, it stops when numbers break."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from dinat_ref.models.weight_files import CheckpointError, latest_checkpoint
from dinat_ref.training.checkpoint import load_training, save_checkpoint
from dinat_ref.training.data import Examples, hold_out, load_digits
from dinat_ref.training.loop import NonFiniteLossError, start, train
from dinat_ref.training.recipe import Recipe
from dinat_ref.training.small_models import PATTERNS, make_model, pattern_model
from dinat_ref.training.synthetic import texture

RECIPE = Recipe(epochs=3, batch_size=8, average_decay=0.9, augmentation="affine", seed=5)


@pytest.fixture
def examples():
    return texture(40, seed=0, size=6)


def model(drop_path_rate: float = 0.5) -> nn.Module:
    torch.manual_seed(3)
    made = pattern_model("na_dina", size=6, num_channels=1)
    made.layers[1].drop_path.rate = drop_path_rate
    return made


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert sorted(first) == sorted(second)
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_the_loss_on_digits_falls_in_20_steps():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: dinat-ref[training]")
    stays, held_out = hold_out(load_digits("train"), 0.2, seed=0)
    recipe = Recipe(epochs=20, batch_size=64, learning_rate=4e-3, label_smoothing=0.0)
    digits = stays.pick(torch.arange(64))  # one step an epoch
    made = make_model("dinat_nano_digits", digits)
    history = train(start(made, recipe), digits, held_out, recipe).history
    losses = [row["train_loss"] for row in history]
    assert len(losses) == 20
    assert max(losses[-5:]) < min(losses[:5])
    assert losses[-1] < math.log(10)  # better than any guess
    assert history[-1]["held_out_loss"] < history[0]["held_out_loss"]


def test_the_same_recipe_gives_the_same_bits(examples):
    runs = []
    for global_seed in (1, 2):
        state = start(model(), RECIPE)
        torch.manual_seed(global_seed)  # nothing may depend on it
        runs.append(train(state, examples, examples, RECIPE))
    assert_same(runs[0].tensors(), runs[1].tensors())
    names = ("train_loss", "held_out_loss", "held_out_accuracy")
    assert [[row[name] for name in names] for row in runs[0].history] == [
        [row[name] for name in names] for row in runs[1].history
    ]
    other = train(start(model(), replace(RECIPE, seed=6)), examples, examples, replace(RECIPE, seed=6))
    assert other.history[0]["train_loss"] != runs[0].history[0]["train_loss"]


def test_training_leaves_the_users_random_numbers_alone(examples):
    state = start(model(), RECIPE)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(state, examples, examples, RECIPE)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_a_run_goes_on_to_the_same_bits(examples, tmp_path):
    whole = train(start(model(), RECIPE), examples, examples, RECIPE)

    class StopError(Exception):
        pass

    def stop_after_two(row):
        if row["epoch"] == 2:
            raise StopError

    with pytest.raises(StopError):
        train(start(model(), RECIPE), examples, examples, RECIPE, tmp_path, report=stop_after_two)
    (tmp_path / ".checkpoint-of-a-killed-run").mkdir()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-0002"]

    torch.manual_seed(99)
    other = start(pattern_model("na_dina", size=6, num_channels=1), RECIPE)
    other.model.layers[1].drop_path.rate = 0.5
    tensors, content = load_training(latest_checkpoint(tmp_path))
    other.restore(tensors, content["history"])
    resumed = train(other, examples, examples, RECIPE, tmp_path)
    assert_same(resumed.tensors(), whole.tensors())
    assert [row["train_loss"] for row in resumed.history] == [row["train_loss"] for row in whole.history]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-0003"]  # leftovers are gone
    assert set(content["versions"]) == {"dinat_ref", "torch", "python"}


def test_a_checkpoint_is_a_model_folder(examples, tmp_path):
    state = train(start(model(), RECIPE), examples, examples, RECIPE, tmp_path)
    loaded = type(state.model).from_pretrained(tmp_path / "checkpoint-0003")
    assert_same(dict(loaded.state_dict()), dict(state.average.module.state_dict()))
    with torch.no_grad():
        kept, raw = loaded(examples.images), state.model.eval()(examples.images)
    assert not torch.allclose(kept, raw, rtol=1e-3, atol=1e-3)  # noqa: TID251 the average is another model


def test_the_learning_rate_and_the_decay_are_those_of_the_formula():
    """One step of one weight, by hand: AdamW moves it by the learning rate, and decays it first."""
    layer = nn.Linear(1, 2, bias=True)
    nn.init.constant_(layer.weight, 0.5)
    nn.init.constant_(layer.bias, 0.5)
    recipe = Recipe(epochs=1, batch_size=2, learning_rate=0.01, warm_up=0.0, weight_decay=0.1, label_smoothing=0.0)
    images = torch.ones(2, 1, 1, 1)
    examples = Examples(images, torch.tensor([0, 0]), ("a", "b"))
    network = nn.Sequential(nn.Flatten(), layer)
    train(start(network, recipe), examples, examples, recipe)
    torch.testing.assert_close(layer.bias, torch.tensor([0.51, 0.49]), rtol=0, atol=1e-6)
    decayed = 0.5 * (1 - 0.01 * 0.1)
    torch.testing.assert_close(layer.weight[:, 0], torch.tensor([decayed + 0.01, decayed - 0.01]), rtol=0, atol=1e-6)


def test_the_schedule_rises_and_falls():
    recipe = Recipe(learning_rate=2.0, warm_up=0.25)
    rates = [recipe.learning_rate_at(step, 400) for step in range(400)]
    assert rates[:100] == sorted(rates[:100])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[99] == rates[100] == 2.0
    assert math.isclose(rates[250], 1.0)
    assert 0 < rates[-1] < 1e-3


def test_broken_numbers_stop_the_run_and_keep_the_last_checkpoint(examples, tmp_path):
    state = start(model(), RECIPE)

    def break_it(row):
        if row["epoch"] == 1:
            with torch.no_grad():
                state.model.head.bias.fill_(torch.inf)

    with pytest.raises(NonFiniteLossError, match=r"at step 1 of epoch 2 the loss is (nan|inf)"):
        train(state, examples, examples, RECIPE, tmp_path, report=break_it)
    last = latest_checkpoint(tmp_path)
    assert last.name == "checkpoint-0001"
    tensors, _ = load_training(last)
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_bf16_learns_nearly_the_same(examples):
    recipe = replace(RECIPE, augmentation="none")
    plain = train(start(model(0.0), recipe), examples, examples, recipe)
    recipe = replace(recipe, bf16=True)
    rounded = train(start(model(0.0), recipe), examples, examples, recipe)
    assert all(parameter.dtype == torch.float32 for parameter in rounded.model.parameters())
    difference = abs(plain.history[-1]["train_loss"] - rounded.history[-1]["train_loss"])
    assert 0 < difference < 0.05  # another rounding, the same learning


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq", "step", "head.bias", "extra"])
def test_checkpoints_of_other_runs_are_refused(examples, tmp_path, name):
    recipe = Recipe(epochs=1, batch_size=8)
    state = train(start(model(), recipe), examples, examples, recipe)
    save_checkpoint(tmp_path, state, {})
    tensors, content = load_training(latest_checkpoint(tmp_path))
    if name == "extra":
        tensors["optimizer.0.secret"] = torch.zeros(2)
    elif name == "step":
        tensors.pop("optimizer.0.step")
    else:
        key = next(key for key in tensors if key.endswith(name))
        tensors[key] = torch.zeros(7, 7, 7)
    with pytest.raises(CheckpointError, match="the checkpoint does not fit the run"):
        start(model(), recipe).restore(tensors, content["history"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"learning_rate": math.nan}, "learning_rate must be a finite number above 0, got nan"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number from 0 on, got -1.0"),
        ({"label_smoothing": 1.0}, "label_smoothing must be within 0 <= label_smoothing < 1, got 1.0"),
        ({"augmentation": "colour"}, "augmentation must be one of none, affine, photo, got 'colour'"),
        ({"seed": -1}, "seed must be within 0 .. 2\\*\\*31 - 1, got -1"),
    ],
)
def test_settings_outside_their_limits(setting, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**setting)


def test_a_batch_must_fit_the_data(examples):
    recipe = Recipe(batch_size=41)
    with pytest.raises(ValueError, match="batch_size must be at most the number of training images, 40, got 41"):
        train(start(model(), recipe), examples, examples, recipe)


def test_patterns_have_equal_parameters_but_for_the_bias_table():
    counts = {}
    for pattern in PATTERNS:
        made = pattern_model(pattern, size=9, num_channels=2)
        table = sum(parameter.numel() for name, parameter in made.named_parameters() if name.endswith("rpb"))
        counts[pattern] = sum(parameter.numel() for parameter in made.parameters()) - table
    assert len(set(counts.values())) == 1
    with pytest.raises(ValueError, match=r"pattern must be one of na_na, .* got 'na_wsa'"):
        pattern_model("na_wsa", 9, 2)
