"""Operations of every published variant: the papers' figures, by formula and by counting what runs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dinat_ref.analysis.cost import attention_cost, formula_cost, published_cost, traced_cost
from dinat_ref.models import create_model, list_models
from dinat_ref.models.variants import find_variant

# 10^9 operations, as published, at each variant's own resolution
GIGA = {
    "nat_mini": 2.713,
    "dinat_mini": 2.713,
    "nat_tiny": 4.321,
    "dinat_tiny": 4.321,
    "nat_small": 7.811,
    "dinat_small": 7.811,
    "nat_base": 13.728,
    "dinat_base": 13.728,
    "dinat_large": 30.534,
    "dinat_large_384": 89.730,
    "dinat_large_384_11x11": 92.350,
    "dinat_s_tiny": 4.511,
    "dinat_s_small": 8.772,
    "dinat_s_base": 15.473,
    "dinat_s_large": 34.538,
    "dinat_s_large_384": 101.497,
    "nat_isotropic_small": 4.320,
    "dinat_isotropic_small": 4.320,
    "nat_isotropic_base": 16.963,
    "dinat_isotropic_base": 16.963,
    "vitrpb_small": 4.584,
    "vitrpb_base": 17.491,
}


def test_the_table_names_every_variant():
    assert sorted(GIGA) == list_models()


@pytest.mark.parametrize("name", GIGA)
def test_published_operations_by_formula_and_by_tracing(name):
    by_formula = formula_cost(name)
    assert round(published_cost(name, by_formula) / 1e9, 3) == GIGA[name]
    assert traced_cost(create_model(name, device="meta"), find_variant(name).image_size) == by_formula


@pytest.mark.parametrize("name", ["dinat_mini", "dinat_s_tiny", "dinat_isotropic_small"])
@pytest.mark.parametrize("size", [97, 161])
def test_both_agree_on_odd_sizes_and_padded_maps(name, size):
    model = create_model(name, num_classes=7, device="meta")
    assert traced_cost(model, size) == formula_cost(name, size, num_classes=7)


def test_tracing_leaves_the_model_as_it_was():
    model = create_model("dinat_mini", device="meta").train()
    impls = [layer.attn.impl for level in model.levels for layer in level.blocks]
    traced_cost(model, 64)
    assert model.training
    assert [layer.attn.impl for level in model.levels for layer in level.blocks] == impls


def test_tracing_wants_a_model_without_memory():
    with pytest.raises(ValueError, match="meta device, got parameters on cpu"):
        traced_cost(torch.nn.Linear(2, 2), 32)


@pytest.mark.parametrize(("tokens", "dim", "keys"), [(56 * 56, 64, 49), (15, 7, 3)])
def test_the_papers_table(tokens, dim, keys):
    windowed = (3 * tokens * dim**2 + 2 * tokens * dim * keys, 3 * dim**2 + tokens * keys)
    full = (3 * tokens * dim**2 + 2 * tokens**2 * dim, 3 * dim**2 + tokens**2)
    assert {attention_cost(kind, tokens, dim, keys) for kind in ("NA", "DiNA", "WSA")} == {windowed}
    assert attention_cost("SA", tokens, dim, keys) == full
    with pytest.raises(ValueError, match="kind must be"):
        attention_cost("MSA", tokens, dim, keys)


def test_pytorchs_own_counter_counts_what_is_executed():
    """As the module says: the same convolutions and linear maps, whole slabs of keys, no biases or norms."""
    model = create_model("dinat_mini", device="meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 224, 224, device="meta"))
    ours, theirs = traced_cost(model, 224), counter.get_flop_counts()["Global"]
    halved = {str(name).removeprefix("aten."): count / 2 for name, count in theirs.items()}
    assert halved.pop("convolution") == ours["convolution"]
    assert halved.pop("addmm") == ours["linear"]
    assert ours["attention"] < sum(halved.values()) < 3 * ours["attention"]
    assert counter.get_total_flops() / 2e9 == pytest.approx(2.77, abs=0.005)
