"""The layers: what they hold, how they begin, and that they are projections around the operator."""

import copy
import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dinat_ref import (
    Neighborhood,
    NeighborhoodAttention1D,
    NeighborhoodAttention2D,
    NeighborhoodAttention3D,
    neighborhood_attention,
)
from dinat_ref.rotary import rotate
from tests.strategies import IMPLS

EXACT = {"rtol": 1e-12, "atol": 1e-12}
LAYERS: dict[int, Any] = {1: NeighborhoodAttention1D, 2: NeighborhoodAttention2D, 3: NeighborhoodAttention3D}
LAYOUTS = {1: (11,), 2: (5, 7), 3: (4, 6, 5)}
SIZES: dict[int, dict[str, Any]] = {
    1: {"kernel_size": 4, "stride": 2, "dilation": 2, "is_causal": True},
    2: {"kernel_size": (3, 2), "stride": (1, 2), "dilation": (1, 3), "is_causal": (False, True)},
    3: {"kernel_size": (2, 3, 2), "stride": (2, 1, 1), "dilation": (1, 2, 2), "is_causal": (True, False, False)},
}

every_ndim = pytest.mark.parametrize("ndim", LAYERS)


def made(ndim: int = 2, **changes: Any) -> Any:
    torch.manual_seed(0)
    arguments = {"embed_dim": 12, "num_heads": 3, **SIZES[ndim], "rpb": True, "dtype": torch.float64, **changes}
    return LAYERS[ndim](**arguments)


def tokens(ndim: int = 2, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, *LAYOUTS[ndim], 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@every_ndim
@pytest.mark.parametrize("impl", IMPLS)
def test_is_the_operator_between_two_projections(ndim: int, impl: str) -> None:
    layer, x = made(ndim, impl=impl), tokens(ndim)
    nn.init.normal_(layer.qkv.bias)
    nn.init.normal_(layer.proj.bias)
    flat = x.flatten(0, -2) @ layer.qkv.weight.T + layer.qkv.bias  # [tokens, 3 * 12]
    query, key, value = (flat[:, 12 * i : 12 * i + 12].reshape(*x.shape[:-1], 3, 4) for i in range(3))
    attended = neighborhood_attention(query, key, value, **SIZES[ndim], rpb=layer.rpb, impl="loops")
    assert isinstance(attended, torch.Tensor)
    expected = attended.reshape(x.shape) @ layer.proj.weight.T + layer.proj.bias
    assert_close(layer(x), expected, **EXACT)


@every_ndim
def test_state_dict_holds_parameters_only(ndim: int) -> None:
    """No index tables: published checkpoints load strictly, and one state fits every layout."""
    layer = made(ndim)
    before = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
    layer(tokens(ndim))
    sizes = layer.kernel_size
    assert before == {
        "rpb": (3, *(2 * size - 1 for size in sizes)),
        "qkv.weight": (36, 12),
        "qkv.bias": (36,),
        "proj.weight": (12, 12),
        "proj.bias": (12,),
    }
    assert set(layer.state_dict()) == set(before) == {name for name, _ in layer.named_parameters()}
    assert list(layer.buffers()) == []


def test_options_decide_which_parameters_there_are() -> None:
    assert set(made(rpb=False).state_dict()) == {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias"}
    assert set(made(qkv_bias=False).state_dict()) == {"rpb", "qkv.weight", "proj.weight", "proj.bias"}
    assert made(rpb=False).rpb is None


def test_state_moves_to_another_layer() -> None:
    one, other = made(), made()
    nn.init.normal_(one.rpb)
    other.load_state_dict(one.state_dict(), strict=True)
    assert_close(other(tokens()), one(tokens()), rtol=0, atol=0)


def test_initialisation() -> None:
    """Weights and bias table normal with deviation 0.02, cut at two; biases zero; drawn from PyTorch's generator."""
    torch.manual_seed(0)
    layer = NeighborhoodAttention2D(128, 4, kernel_size=13, rpb=True)
    for weight in (layer.qkv.weight, layer.proj.weight, layer.rpb):
        assert weight is not None
        deviation = float(weight.detach().std())
        assert 0.019 < deviation < 0.021
        assert abs(float(weight.detach().mean())) < 0.002
        assert float(weight.detach().abs().max()) <= 2
    assert int(layer.qkv.bias.count_nonzero()) == int(layer.proj.bias.count_nonzero()) == 0
    before = copy.deepcopy(layer.state_dict())
    torch.manual_seed(0)
    again = NeighborhoodAttention2D(128, 4, kernel_size=13, rpb=True)
    assert_close(dict(again.state_dict()), dict(before), rtol=0, atol=0)
    again.reset_parameters()
    assert float((again.qkv.weight - layer.qkv.weight).detach().abs().max()) > 0


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_device_and_dtype(device: str, dtype: torch.dtype) -> None:
    layer = made(device=device, dtype=dtype)
    for parameter in layer.parameters():
        assert (parameter.device.type, parameter.dtype) == (device, dtype)
    output = layer(tokens(dtype=dtype).to(device))
    assert (output.device.type, output.dtype, output.shape) == (device, dtype, (2, 5, 7, 12))


@every_ndim
def test_gradients_reach_every_parameter(ndim: int) -> None:
    layer, x = made(ndim), tokens(ndim).requires_grad_()
    layer(x).square().sum().backward()
    for name, tensor in [("input", x), *layer.named_parameters()]:
        assert tensor.grad is not None, name
        assert float(tensor.grad.abs().max()) > 0, name


def test_attention_dropout() -> None:
    """In training weights are dropped and the others scaled up, so that the mean stays; in evaluation nothing is."""
    layer, plain, x = made(attn_drop=0.5), made(), tokens()
    layer.eval()
    assert_close(layer(x), plain(x), **EXACT)
    layer.train()
    torch.manual_seed(1)
    first = layer(x)
    torch.manual_seed(1)
    assert_close(layer(x), first, rtol=0, atol=0)
    samples = torch.stack([layer(x).detach() for _ in range(200)])
    assert float((samples[0] - samples[1]).abs().max()) > 0
    spread = samples.std(0) / 200**0.5
    errors = (samples.mean(0) - plain(x).detach()) / spread  # in standard errors, some 800 of them
    assert float(errors.square().mean()) < 2
    assert float(errors.abs().max()) < 7


def test_attention_dropout_drops_weights_not_outputs() -> None:
    """With values of one and weights that are all dropped, the output is zero; else a multiple of the kept weights."""
    layer = NeighborhoodAttention1D(4, 1, kernel_size=4, qkv_bias=True, attn_drop=0.5, dtype=torch.float64)
    nn.init.zeros_(layer.qkv.weight)
    nn.init.constant_(layer.qkv.bias, 1.0)
    layer.proj = nn.Identity()  # type: ignore[assignment]
    torch.manual_seed(0)
    output = layer(torch.zeros(1, 50, 4, dtype=torch.float64))
    kept = output[0, :, 0] * 4 * 0.5  # number of weights kept: each is 1/4, scaled by 1 / (1 - 0.5)
    assert_close(kept, kept.round(), **EXACT)
    assert set(kept.round().int().tolist()) == {0, 1, 2, 3, 4}
    assert_close(output, output[..., :1].expand_as(output), **EXACT)


@every_ndim
def test_a_hook_of_the_dropout_sees_the_weights_in_evaluation_too(ndim: int) -> None:
    layer, x = made(ndim, attn_drop=0.5).eval(), tokens(ndim)
    expected, seen = layer(x), []
    handle = layer.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert_close(layer(x), expected, **EXACT)
    (weights,) = seen
    assert_close(weights, layer.attention_weights(x), rtol=0, atol=0)
    assert_close(weights.sum(-1), torch.ones(weights.shape[:-1], dtype=torch.float64), **EXACT)
    handle.remove()
    layer(x)
    assert len(seen) == 1


@every_ndim
def test_masked_keys_count_as_outside_every_window(ndim: int) -> None:
    """Read off with one-hot values: the same softmax over fewer keys, and zeros where none is left."""
    layer = LAYERS[ndim](12, 3, **SIZES[ndim], rpb=True, dtype=torch.float64)
    nn.init.normal_(layer.rpb)
    x, layout = tokens(ndim), LAYOUTS[ndim]
    mask = torch.rand(2, *layout, generator=torch.Generator().manual_seed(2)) > 0.6
    mask[0, :3] = False
    query, key, value = layer.qkv(x).unflatten(-1, (3, 3, -1)).unbind(-3)
    neighborhood = Neighborhood(layout, **SIZES[ndim])
    number = neighborhood.num_tokens
    one_hot = torch.eye(number, dtype=torch.float64).reshape(1, *layout, 1, number).expand(2, *layout, 3, number)
    where = {**SIZES[ndim], "rpb": layer.rpb, "impl": "loops"}
    weights = neighborhood_attention(query, key, one_hot, **where)
    assert isinstance(weights, torch.Tensor)
    kept = weights * mask.flatten(1).reshape(2, *[1] * ndim, 1, number)  # [B, *layout, H, N]
    total = kept.sum(-1, keepdim=True)
    assert (total == 0).any()
    kept = torch.where(total > 0, kept / total, 0.0)
    mixed = torch.einsum("bnhm,bmhd->bnhd", kept.flatten(1, ndim), value.flatten(1, ndim)).reshape(x.shape)
    assert_close(layer(x, mask), layer.proj(mixed), **EXACT)
    assert_close(layer(x, torch.ones_like(mask)), layer(x), **EXACT)
    layer(x, mask).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_bad_masks_are_refused() -> None:
    with pytest.raises(TypeError, match=r"key_mask must be a bool tensor, got torch\.float32"):
        made()(tokens(), torch.ones(2, 5, 7))
    with pytest.raises(
        ValueError, match=r"key_mask must have query's batch and layout: expected \(2, 5, 7\), got \(1, 5, 7\)"
    ):
        made()(tokens(), torch.ones(1, 5, 7, dtype=torch.bool))


@every_ndim
def test_rotary_layers_are_the_operator_between_turned_projections(ndim: int) -> None:
    layer, x = made(ndim, rpb=False, rotary=100.0, num_heads=1 if ndim == 3 else 2), tokens(ndim)
    assert layer.rpb is None
    assert set(layer.state_dict()) == {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias"}
    query, key, value = layer.qkv(x).unflatten(-1, (3, layer.num_heads, -1)).unbind(-3)
    attended = neighborhood_attention(rotate(query, 100.0), rotate(key, 100.0), value, **SIZES[ndim], impl="loops")
    assert isinstance(attended, torch.Tensor)
    assert_close(layer(x), layer.proj(attended.flatten(-2)), **EXACT)
    assert "rotary=100.0" in layer.extra_repr()


def test_output_dropout() -> None:
    layer, x = made(proj_drop=0.5), tokens()
    expected = made()(x)
    output = layer(x)
    dropped = output == 0
    assert 0.3 < float(dropped.double().mean()) < 0.7
    assert_close(output[~dropped], 2 * expected[~dropped], **EXACT)
    assert_close(layer.eval()(x), expected, **EXACT)


def test_one_layer_serves_every_layout() -> None:
    layer = made()
    for layout in ((3, 6), (5, 7), (16, 9)):
        assert layer(torch.zeros(1, *layout, 12, dtype=torch.float64)).shape == (1, *layout, 12)


@every_ndim
def test_batch_may_be_empty(ndim: int) -> None:
    layer = made(ndim)
    layer(tokens(ndim)[:0]).sum().backward()
    assert layer(tokens(ndim)[:0]).shape == (0, *LAYOUTS[ndim], 12)


def test_repr() -> None:
    assert made().extra_repr() == (
        "12, num_heads=3, kernel_size=(3, 2), stride=(1, 2), dilation=(1, 3), is_causal=(False, True), rpb=True"
    )
    assert NeighborhoodAttention1D(8, 2, 3).extra_repr() == "8, num_heads=2, kernel_size=(3,), rpb=False"
    assert NeighborhoodAttention1D(8, 2, 3, impl="gather").extra_repr().endswith("impl='gather'")


def test_compiles() -> None:
    torch._dynamo.reset()
    layer, x = made(), tokens()
    assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x), **EXACT)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_heads": 5}, "embed_dim must be a positive multiple of num_heads, got 12 and 5"),
        ({"num_heads": 0}, "num_heads"),
        ({"num_heads": -3}, "num_heads"),
        ({"embed_dim": 0}, "embed_dim"),
        ({"kernel_size": (3, 2, 2)}, "kernel_size must have one entry per axis"),
        ({"stride": (1,)}, "stride must have one entry per axis"),
        ({"dilation": (1, 1, 1)}, "dilation must have one entry per axis"),
        ({"is_causal": (True,)}, "is_causal must have one entry per axis"),
        ({"kernel_size": 0}, "kernel_size on axis 0 must be at least 1, got 0"),
        ({"kernel_size": (3, -1)}, "kernel_size on axis 1 must be at least 1, got -1"),
        ({"stride": (1, 3)}, "stride on axis 1 must be at most kernel_size, got 3 > 2"),
        ({"dilation": (0, 1)}, "dilation on axis 0 must be at least 1, got 0"),
        ({"rotary": 100.0}, "rotary takes the place of rpb"),
        ({"rpb": False, "rotary": 0.0}, "rotary must be above 0, the base of the angles, got 0.0"),
        (
            {"rpb": False, "rotary": 9.0, "num_heads": 6},
            "head_dim must be at least 4, a pair of channels for each axis",
        ),
        ({"impl": "fast"}, "impl must be 'auto' or one of"),
    ],
)
def test_bad_arguments_are_refused_when_the_layer_is_made(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        made(**changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kernel_size": 3.0}, "kernel_size on axis 0 must be an integer, got 3.0"),
        ({"dilation": (1, True)}, "dilation on axis 1 must be an integer, got True"),
        ({"is_causal": 1}, "is_causal on axis 0 must be a bool, got 1"),
    ],
)
def test_bad_types_are_refused_when_the_layer_is_made(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=re.escape(text)):
        made(**changes)


@pytest.mark.parametrize("shape", [(2, 5, 12), (2, 5, 7, 5, 12), (2, 5, 7, 11), (12,)])
def test_bad_input_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"^input must be \[batch, 2 axes, 12\], got {re.escape(str(shape))}$"):
        made()(torch.zeros(shape, dtype=torch.float64))


def test_too_small_an_input_names_the_axis() -> None:
    with pytest.raises(ValueError, match=r"kernel_size \* dilation on axis 1 must be at most .*: 2 \* 3 = 6 > 5"):
        made()(torch.zeros(1, 5, 5, 12, dtype=torch.float64))
