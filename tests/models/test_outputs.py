"""Outputs are dicts of what is there: they survive being taken apart, gathered, copied and sent."""

import copy
import pickle

import pytest
import torch
from torch.testing import assert_close

from dinat_ref.models import DinatBackbone, DinatForImageClassification, DinatModel
from dinat_ref.models.outputs import ImageClassifierOutput, ModelOutput
from tests.models.tiny import image, tiny

EXACT = {"rtol": 0, "atol": 0}


def outputs() -> list[ModelOutput]:
    torch.manual_seed(0)
    models = [DinatModel(tiny()), DinatForImageClassification(tiny()), DinatBackbone(tiny())]
    with torch.no_grad():
        return [model.eval()(image(), output_hidden_states=True) for model in models]


def assert_same(one: ModelOutput, other: ModelOutput) -> None:
    assert type(one) is type(other)
    assert list(one) == list(other)
    for name in one:
        assert_close(one[name], other[name], **EXACT)


@pytest.mark.parametrize("output", outputs(), ids=lambda output: type(output).__name__)
def test_they_are_put_together_again_as_they_were(output):
    assert_same(type(output)(output), output)
    assert_same(type(output)(iter(output.items())), output)
    assert_same(type(output)(**output), output)
    assert_same(copy.deepcopy(output), output)
    assert_same(pickle.loads(pickle.dumps(output)), output)
    leaves, spec = torch.utils._pytree.tree_flatten(output)
    assert_same(torch.utils._pytree.tree_unflatten(leaves, spec), output)


@pytest.mark.parametrize("output", outputs(), ids=lambda output: type(output).__name__)
def test_data_parallel_gathers_every_value(output, monkeypatch):
    """Its gather takes dicts apart by name; only its last step, the copy between devices, needs more than a CPU."""

    class Concatenate:
        @staticmethod
        def apply(target, dim, *parts):
            return torch.cat(parts, dim)

    monkeypatch.setattr("torch.nn.parallel.scatter_gather.Gather", Concatenate)
    gathered = torch.nn.parallel.gather([output, output], "cpu")
    assert type(gathered) is type(output)
    assert list(gathered) == list(output)
    for name in output:
        twice = output[name]
        for whole, part in zip(
            *([x] if isinstance(x, torch.Tensor) else x for x in (gathered[name], twice)), strict=True
        ):
            assert_close(whole, torch.cat([part, part]), **EXACT)


def test_values_can_be_set_and_taken_away():
    output = ImageClassifierOutput(logits=torch.zeros(1, 2))
    output.loss = torch.ones(())
    assert output.to_tuple()[0] is output["loss"] is output.loss  # in the order of the fields
    output.loss = None
    assert list(output) == ["logits"]
    with pytest.raises(AttributeError, match="ImageClassifierOutput has no lose"):
        output.lose = 1
    with pytest.raises(AttributeError, match=r"has no logit$"):
        _ = output.logit


def test_values_it_does_not_have_are_refused():
    with pytest.raises(TypeError, match="has no logit: its values are loss, logits, hidden_states"):
        ImageClassifierOutput(logit=torch.zeros(1, 2))
    with pytest.raises(TypeError, match="has 5 values, got 6"):
        ImageClassifierOutput(*range(6))


def test_a_compiled_model_returns_the_same_kind():
    torch._dynamo.reset()
    model = DinatForImageClassification(tiny()).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert_same(compiled(image(), output_hidden_states=True), model(image(), output_hidden_states=True))
    torch._dynamo.reset()
