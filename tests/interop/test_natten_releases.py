"""Each release of NATTEN by itself: the table of its names, its orders of arguments, and what its layers do."""

import importlib
import importlib.util
import inspect
import io
import pickle

import pytest
import torch
from torch.testing import assert_close

import dinat_ref
from dinat_ref.interop import natten, natten_legacy
from dinat_ref.interop.natten_releases import v0_14_4, v0_14_6, v0_15_1, v0_17_5, v0_21_7
from dinat_ref.interop.natten_surface import SURFACES, find_release, read_surface

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
PADDING = {"0.14.4": v0_14_4, "0.14.6": v0_14_6, "0.15.1": v0_15_1}
LAYERS = {**PADDING, "0.17.5": v0_17_5, "0.21.7": v0_21_7}


@pytest.fixture
def stand_in():
    """Take the stand-in away again, so that other tests meet no natten."""
    if natten.is_natten_installed():
        pytest.skip("the real NATTEN is installed: the stand-in would refuse, see the test of that")
    yield
    natten.remove_natten()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def signature(value: object) -> str:
    """The arguments of a function or class as the table writes them; what can only be named is our own addition."""
    called = value.apply if hasattr(value, "apply") and not hasattr(value, "forward") else value
    parameters = [p for p in inspect.signature(called).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    return ", ".join(p.name + ("" if p.default is p.empty else f"={p.default!r}") for p in parameters)


@pytest.mark.parametrize("release", SURFACES)
def test_every_name_of_the_table_is_there_with_its_arguments(release, count_cases):
    contents = natten.offered(release)
    for module, names in read_surface(release).items():
        for name, arguments in names.items():
            value = contents[module][name]
            if arguments is not None:
                assert signature(value) == arguments, f"{release}: {module}.{name}"
            count_cases("names of NATTEN", 1)


def test_a_version_is_served_by_the_release_of_its_series():
    served = {"0.14": "0.14.6", "0.14.2.post4": "0.14.4", "0.14.5": "0.14.6", "0.15.0": "0.15.1", "0.20.1": "0.21.7"}
    assert {version: find_release(version) for version in served} == served
    for wrong in ("0.16", "1.0", "", "0.17.x", "0.170"):
        with pytest.raises(ValueError, match="version must be a release of"):
            find_release(wrong)


@pytest.mark.parametrize("release", SURFACES)
@pytest.mark.usefixtures("stand_in")
def test_every_module_of_the_table_can_be_imported(release):
    natten.install_as_natten(release)
    for module, names in read_surface(release).items():
        imported = importlib.import_module(module)
        assert set(names) <= set(vars(imported)), module
        assert importlib.util.find_spec(module).name == module
    exec("from natten import *; from natten.functional import *", namespace := {})
    assert "NeighborhoodAttention2D" in namespace


@pytest.mark.usefixtures("stand_in")
def test_a_release_has_what_older_ones_dropped_and_not_what_newer_ones_brought():
    package = natten.install_as_natten("0.15")
    assert not hasattr(package, "context"), "programs tell 0.17 by it"
    assert not hasattr(package, "use_fused_na")
    package = natten.install_as_natten("0.21")
    assert hasattr(package, "context")
    from natten.functional import na2d_qk_with_bias, natten3dqkrpb, neighborhood_attention_generic
    from natten.na2d import NeighborhoodAttention2D

    assert NeighborhoodAttention2D is v0_17_5.NeighborhoodAttention2D
    assert package.na2d is v0_21_7.na2d, "a function, though there was a module of this name"
    assert na2d_qk_with_bias is v0_15_1.na2d_qk_with_bias
    assert natten3dqkrpb is v0_15_1.natten3dqkrpb
    assert neighborhood_attention_generic is v0_21_7.neighborhood_attention_generic


@pytest.mark.usefixtures("stand_in")
def test_a_name_that_nobody_can_serve_says_so():
    package = natten.install_as_natten("0.17")
    for module, name in ((package, "libnatten"), (package.functional, "na4d"), (package.context, "flux_capacitor")):
        with pytest.raises(
            AttributeError, match=f"no attribute '{name}'. dinat_ref stands in .* tutorials/site/natten.md"
        ):
            getattr(module, name)
    with pytest.raises(ImportError, match=r"cannot import name 'na4d' from 'natten\.functional' .*natten_surface"):
        from natten.functional import na4d  # noqa: F401


# orders of arguments


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_functions_of_0_15(ndim):
    layout, (size, first) = (7, 9, 8)[:ndim], (3, 2)
    query, key, value = draw(3, 2, 2, *layout, 4).unbind(0)
    kernel, step = ((size,) * ndim, (1,) * ndim) if ndim < 3 else ((first, size, size), (3, 2, 2))
    rpb = draw(2, *(2 * k - 1 for k in kernel), seed=1)
    more_keys, more_values = draw(2, 2, 2, 5, 4, seed=2).unbind(0)
    where = (size, 1) if ndim < 3 else (first, size, 3, 2)
    qk, biased, av = (getattr(v0_15_1, f"na{ndim}d_{kind}") for kind in ("qk", "qk_with_bias", "av"))
    heads_last = [tensor.movedim(1, -2) for tensor in (query, key, value)]
    extra = [tensor.transpose(1, 2) for tensor in (more_keys, more_values)]
    for scores, table in ((qk(query, key, *where, more_keys), None), (biased(query, key, rpb, *where, more_keys), rpb)):
        output = av(scores.softmax(-1), value, *where, more_values)
        expected = dinat_ref.neighborhood_attention(*heads_last, kernel, 1, step, False, 1.0, *extra, rpb=table)
        assert_close(output.movedim(1, -2), expected, **CLOSE)
    if ndim == 3:
        plain = v0_15_1.natten3dqkrpb(query, key, rpb, first, size, 3, 2)
        assert_close(plain, biased(query, key, rpb, *where), rtol=0, atol=0)
        for short in (natten_legacy.natten3dqkrpb, v0_15_1.natten3dqkrpb):  # one number, or three, for all axes
            assert_close(short(query, key, rpb, kernel, step), plain, rtol=0, atol=0)
        cubic = v0_15_1.natten3dqk(query, key, 3, 2)
        assert_close(cubic, qk(query, key, 3, 3, 2, 2), rtol=0, atol=0)
        assert_close(v0_15_1.natten3dav(cubic, value, 3, 2), av(cubic, value, 3, 3, 2, 2), rtol=0, atol=0)
    classes = [getattr(v0_15_1, f"NeighborhoodAttention{ndim}D{kind}AutogradFunction") for kind in ("QK", "AV")]
    assert_close(classes[0].apply(query, key, rpb, more_keys, *where), biased(query, key, rpb, *where, more_keys))
    assert_close(classes[1].apply(scores, value, more_values, *where), av(scores, value, *where, more_values))


@pytest.mark.parametrize("ndim", [1, 2])
def test_functions_of_0_14_4_read_the_kernel_size_off_tensors(ndim):
    layout = (11, 12)[:ndim]
    query, key, value = draw(3, 2, 2, *layout, 4).unbind(0)
    rpb = draw(2, *[5] * ndim, seed=1)
    scores = getattr(v0_14_4, f"natten{ndim}dqkrpb")(query, key, rpb, 2)
    assert_close(scores, getattr(v0_14_6, f"natten{ndim}dqkrpb")(query, key, rpb, 3, 2), rtol=0, atol=0)
    output = getattr(v0_14_4, f"natten{ndim}dav")(scores, value, 2)
    assert_close(output, getattr(v0_14_6, f"natten{ndim}dav")(scores, value, 3, 2), rtol=0, atol=0)
    name = f"NATTEN{ndim}DQKRPBFunction"
    assert_close(getattr(v0_14_4, name).apply(query, key, rpb, 2), scores, rtol=0, atol=0)
    assert_close(getattr(v0_14_6, name).apply(query, key, rpb, 3, 2), scores, rtol=0, atol=0)


def test_none_and_zero_mean_the_default():
    query, key, value = draw(3, 1, 6, 7, 2, 4).unbind(0)
    expected = dinat_ref.na2d(query, key, value, 3)
    for function in (natten_legacy.na2d, v0_21_7.na2d):
        assert_close(function(query, key, value, 3, dilation=None, is_causal=None, scale=0.0), expected, **CLOSE)
    assert_close(v0_21_7.na2d(query, key, value, 3, stride=None), expected, **CLOSE)
    first = [tensor.movedim(-2, 1) for tensor in (query, key)]
    for function in (natten_legacy.na2d_qk, natten_legacy.natten2dqk, v0_15_1.na2d_qk):
        assert_close(function(*first, 3, None), natten_legacy.na2d_qk(*first, 3), rtol=0, atol=0)
    for module in (v0_17_5, v0_21_7):
        layer = module.NeighborhoodAttention2D(8, 2, 3, dilation=None, is_causal=None, qk_scale=0.0)
        assert (layer.dilation, layer.is_causal, layer.scale) == ((1, 1), (False, False), 4**-0.5)
        with pytest.raises(ValueError, match="dilation"):
            module.NeighborhoodAttention2D(8, 2, 3, dilation=0)
    for function in (natten_legacy.na2d, v0_21_7.na2d):
        with pytest.raises(ValueError, match="dilation"):
            function(query, key, value, 3, dilation=0)
    with pytest.raises(ValueError, match="dilation"):
        v0_15_1.na2d_qk(*first, 3, 0)


def test_fused_autograd_functions_give_output_and_lse():
    query, key, value = draw(3, 1, 6, 7, 2, 4).unbind(0)
    rpb = draw(2, 5, 5, seed=1)
    pair = v0_17_5.FusedNeighborhoodAttention2D.apply(
        query, key, value, rpb, (3, 3), (2, 1), (False, False), 0.3, (), ()
    )
    expected = dinat_ref.na2d(query, key, value, 3, 1, (2, 1), scale=0.3, rpb=rpb, return_lse=True)
    for own, other in zip(pair, expected, strict=True):
        assert_close(own, other, rtol=0, atol=0)


def test_additional_keys_merge_as_in_0_17():
    query, key, value = draw(3, 1, 6, 7, 2, 4).unbind(0)
    extra = draw(2, 1, 5, 2, 4, seed=1).unbind(0)
    output, lse = dinat_ref.na2d(query, key, value, 3, return_lse=True)
    from dinat_ref.interop.natten_attention import additional_sdpa

    other, other_lse = additional_sdpa(query, *extra)
    assert (other.shape, other_lse.shape) == ((1, 42, 2, 4), (1, 2, 42))
    joint = natten_legacy.na2d(query, key, value, 3, additional_keys=extra[0], additional_values=extra[1])
    assert_close(v0_17_5.merge_attentions(output, other, lse, other_lse), joint, **CLOSE)


# layers


@pytest.mark.parametrize("release", LAYERS)
def test_layers_have_a_bias_where_their_release_has_one(release):
    names = {"dim": 32} if release != "0.21.7" else {"embed_dim": 32}
    layer = LAYERS[release].NeighborhoodAttention2D(num_heads=2, kernel_size=7, **names)
    assert (layer.rpb is not None) == (release in PADDING)
    assert (layer.scale, layer.head_dim, layer.num_heads) == (16**-0.5, 16, 2)
    if layer.rpb is not None:
        assert layer.rpb.shape == (2, 13, 13)
        assert (layer.kernel_size, layer.dilation, layer.window_size) == (7, 1, 7), "numbers, not pairs"


def test_a_positional_true_is_bias_to_0_15_and_refused_by_0_17():
    layer = v0_15_1.NeighborhoodAttention2D(32, 2, 7, 1, True)
    assert (layer.is_causal, layer.rpb.shape) == ((False, False), (2, 13, 13))
    assert v0_15_1.NeighborhoodAttention2D(32, 2, 7, 1, False).rpb is None
    with pytest.raises(TypeError, match=r"positional True is is_causal .* bias in another: pass it by name .*0\.15"):
        v0_17_5.NeighborhoodAttention2D(32, 2, 7, 1, True)
    with pytest.raises(TypeError, match="positional True is is_causal"):
        v0_21_7.NeighborhoodAttention2D(32, 2, 7, 1, 1, True)
    with pytest.raises(TypeError, match="dilation"):
        v0_21_7.NeighborhoodAttention2D(32, 2, 7, 1, True)
    assert v0_17_5.NeighborhoodAttention2D(32, 2, 7, 1, is_causal=True).is_causal == (True, True)
    assert v0_17_5.NeighborhoodAttention2D(32, 2, 7, 1, (True, False)).is_causal == (True, False)
    assert v0_17_5.NeighborhoodAttention2D(32, 2, 7, 1, False).rpb is None


def test_a_bias_can_be_asked_for_by_either_name():
    for module in (v0_17_5, v0_21_7):
        for name in ("bias", "rel_pos_bias"):
            assert module.NeighborhoodAttention2D(32, num_heads=2, kernel_size=7, **{name: True}).rpb is not None


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("release", PADDING)
def test_old_layers_pad_maps_smaller_than_a_window(release, ndim):
    if not hasattr(LAYERS[release], f"NeighborhoodAttention{ndim}D"):
        assert ndim == 3, "three axes came with 0.15"
        return
    cls = getattr(LAYERS[release], f"NeighborhoodAttention{ndim}D")
    layer = cls(8, num_heads=2, kernel_size=3, dilation=2)
    small = (4, 7, 5)[:ndim]
    x = draw(2, *small, 8)
    padded = torch.zeros(2, *(max(length, 6) for length in small), 8)  # zeros behind, before qkv gives them its bias
    inside = (slice(None), *(slice(length) for length in small))
    padded[inside] = x
    assert_close(layer(x), layer(padded)[inside], **CLOSE)
    large = draw(1, *[8, 9, 7][:ndim], 8, seed=1)
    query, key, value = layer.qkv(large).unflatten(-1, (3, 2, 4)).unbind(-3)
    expected = dinat_ref.neighborhood_attention(query, key, value, 3, dilation=2, rpb=layer.rpb).flatten(-2)
    assert_close(layer(large), layer.proj(expected), **CLOSE)
    assert layer(x[:0]).shape == x[:0].shape
    with pytest.raises(ValueError, match="input must be"):
        layer(x[0])


def test_a_dilation_in_words_fits_the_map():
    layer = v0_14_4.NeighborhoodAttention2D(8, 3, 2, dilation="adaptive")
    x = draw(1, 9, 13, 8)
    fixed = v0_14_4.NeighborhoodAttention2D(8, 3, 2, dilation=3)
    fixed.load_state_dict(layer.state_dict())
    assert_close(layer(x), fixed(x), rtol=0, atol=0)
    assert layer(draw(1, 2, 2, 8)).shape == (1, 2, 2, 8)


def test_the_first_axis_of_0_15_has_sizes_of_its_own():
    layer = v0_15_1.NeighborhoodAttention3D(8, 2, 3, 2, 1, 4)
    x = draw(1, 9, 5, 6, 8)
    assert layer.rpb.shape == (2, 3, 5, 5)
    assert (layer.kernel_size, layer.kernel_size_d, layer.dilation, layer.dilation_d) == (3, 2, 1, 4)
    query, key, value = layer.qkv(x).unflatten(-1, (3, 2, 4)).unbind(-3)
    expected = dinat_ref.na3d(query, key, value, (2, 3, 3), 1, (4, 1, 1), rpb=layer.rpb).flatten(-2)
    assert_close(layer(x), layer.proj(expected), **CLOSE)


def test_weights_with_a_bias_that_a_layer_lacks_are_not_dropped_without_a_word():
    state = v0_15_1.NeighborhoodAttention2D(8, 2, 3).state_dict()
    with pytest.warns(UserWarning, match=r"rpb is in the weights, .* made without relative positional bias: .*0\.15"):
        v0_17_5.NeighborhoodAttention2D(8, 2, 3).load_state_dict(state, strict=False)
    v0_17_5.NeighborhoodAttention2D(8, 2, 3, rel_pos_bias=True).load_state_dict(state)


@pytest.mark.parametrize("release", LAYERS)
def test_layers_can_be_pickled(release):
    layer = LAYERS[release].NeighborhoodAttention2D(8, kernel_size=3, num_heads=2).eval()
    x = draw(1, 5, 6, 8)
    assert_close(pickle.loads(pickle.dumps(layer))(x), layer(x), rtol=0, atol=0)
    buffer = io.BytesIO()
    torch.save(torch.nn.Sequential(layer), buffer)
    buffer.seek(0)
    assert_close(torch.load(buffer, weights_only=False)(x), layer(x), rtol=0, atol=0)


@pytest.mark.parametrize("release", LAYERS)
@pytest.mark.usefixtures("stand_in")
def test_pickles_that_natten_wrote_are_read(release):
    """They hold only what NATTEN's own layers have, under NATTEN's own module names."""
    package = natten.install_as_natten(release)
    layer = package.NeighborhoodAttention2D(8, kernel_size=3, num_heads=2).eval()
    x = draw(1, 5, 6, 8)
    expected = layer(x)
    for name in {"impl", "stride", "is_causal", "embed_dim"} - (
        {"stride", "embed_dim"} if release == "0.21.7" else set()
    ):
        del layer.__dict__[name]
    state = layer.__dict__
    if release == "0.21.7":
        del state["_modules"]["attn_drop"], state["rpb"]
    module = {"0.17.5": "natten.na2d", "0.21.7": "natten.modules"}.get(release, "natten.natten2d")
    own = f"c{LAYERS[release].__name__}\nNeighborhoodAttention2D\n".encode()
    written = pickle.dumps(layer, protocol=2)
    assert own in written
    again = pickle.loads(written.replace(own, f"c{module}\nNeighborhoodAttention2D\n".encode()))
    assert_close(again(x), expected, rtol=0, atol=0)
    assert repr(again).startswith("NeighborhoodAttention2D(")


def test_attention_weights_are_dropped_in_training_only():
    layer = v0_15_1.NeighborhoodAttention2D(8, 2, 3, attn_drop=0.9)
    x = draw(1, 5, 6, 8)
    assert (layer(x) != layer(x)).any()
    assert_close(layer.eval()(x), layer(x), rtol=0, atol=0)
