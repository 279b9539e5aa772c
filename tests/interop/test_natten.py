"""NATTEN's names: both its interfaces give the operator, and can stand in for the package."""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import dinat_ref
from dinat_ref.interop import natten, natten_legacy
from dinat_ref.interop.natten_releases import v0_17_5, v0_21_7

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
LAYOUTS = {1: (11,), 2: (7, 9), 3: (4, 5, 6)}
GOLDEN = Path(__file__).parents[1] / "golden" / "natten017.npz"


@pytest.fixture
def stand_in():
    """Take the stand-in away again, so that other tests meet no natten."""
    if natten.is_natten_installed():
        pytest.skip("the real NATTEN is installed: the stand-in would refuse, see the test of that")
    yield
    natten.remove_natten()


def draw(ndim: int, heads: int = 2, channels: int = 6, count: int = 3) -> list[torch.Tensor]:
    """Queries, keys and values with heads first."""
    generator = torch.Generator().manual_seed(ndim)
    return [torch.randn(2, heads, *LAYOUTS[ndim], channels, generator=generator) for _ in range(count)]


@lru_cache(maxsize=1)
def recorded() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as archive:
        return dict(archive)


@pytest.mark.parametrize("number", range(48))
def test_the_split_functions_give_what_natten_0_17_gave(number):
    arrays = recorded()
    meta = json.loads(str(arrays[f"{number}/meta"]))
    tensors = {name: torch.from_numpy(arrays[f"{number}/{name}"]) for name in ("q", "k", "v", "out")}
    query, key, value = (tensors[name].movedim(-2, 1) for name in "qkv")  # to heads first
    assert meta["ndim"] == len(meta["shape"]) == query.ndim - 3
    rpb = torch.from_numpy(arrays[f"{number}/rpb"]) if f"{number}/rpb" in arrays else None
    query = query * query.shape[-1] ** -0.5
    where = {name: tuple(meta[name]) for name in ("kernel_size", "dilation", "is_causal")}
    qk, av = (getattr(natten_legacy, f"na{meta['ndim']}d_{half}") for half in ("qk", "av"))
    output = av(qk(query, key, rpb=rpb, **where).softmax(-1), value, **where)
    assert_close(output.movedim(1, -2), tensors["out"], **CLOSE)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_older_names_are_the_same_functions(ndim):
    query, key, value = draw(ndim)
    rpb = torch.randn(2, *[5] * ndim, generator=torch.Generator().manual_seed(0))
    biased, unbiased, values = (getattr(natten_legacy, f"natten{ndim}d{kind}") for kind in ("qkrpb", "qk", "av"))
    scores = biased(query, key, rpb, 3, 1)
    assert scores.shape == (2, 2, *LAYOUTS[ndim], 3**ndim)
    plain = unbiased(query, key, 3, 1)
    assert_close(plain, biased(query, key, None, 3, 1), rtol=0, atol=0)
    assert_close(getattr(natten_legacy, f"na{ndim}d_qk")(query, key, 3, rpb=rpb), scores, rtol=0, atol=0)
    centre = (..., *[length // 2 for length in LAYOUTS[ndim]], 3**ndim // 2)
    assert_close((query * key).sum(-1)[centre[:-1]], plain[centre], **CLOSE)  # the middle key is the query's own
    output = values(scores.softmax(-1), value, 3, 1)
    heads_last = [tensor.movedim(1, -2) for tensor in (query, key, value)]
    expected = dinat_ref.neighborhood_attention(*heads_last, 3, scale=1.0, rpb=rpb)
    assert_close(output.movedim(1, -2), expected, **CLOSE)


def test_additional_keys_come_last_and_causal_rows_are_filled_with_minus_infinity():
    query, key, value = draw(2)
    extra_key, extra_value = torch.randn(2, 2, 2, 4, 6, generator=torch.Generator().manual_seed(9)).unbind(0)
    scores = natten_legacy.na2d_qk(query, key, (3, 2), (2, 1), extra_key, (True, False))
    assert scores.shape == (2, 2, 7, 9, 10)
    assert_close(scores[..., 6:], torch.einsum("bhxyd,bhmd->bhxym", query, extra_key), **CLOSE)
    assert scores[:, :, 0, :, 2:6].isneginf().all(), "the first row attends itself alone: two keys"
    output = natten_legacy.na2d_av(scores.softmax(-1), value, (3, 2), (2, 1), extra_value, (True, False))
    joint = dinat_ref.na2d(
        *(tensor.movedim(1, -2) for tensor in (query, key, value)),
        *((3, 2), 1, (2, 1), (True, False), 1.0),
        *(tensor.transpose(1, 2) for tensor in (extra_key, extra_value)),
    )
    assert_close(output.movedim(1, -2), joint, **CLOSE)


def test_gradients_reach_everything_twice():
    tensors = [tensor.double()[:1, :1, :6] for tensor in draw(1, channels=1)]
    rpb = torch.randn(1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def attend(query, key, value, rpb):
        return natten_legacy.natten1dav(natten_legacy.natten1dqkrpb(query, key, rpb, 3, 2).softmax(-1), value, 3, 2)

    small = [tensor.clone().requires_grad_() for tensor in tensors]
    assert torch.autograd.gradcheck(attend, (*small, rpb))
    assert torch.autograd.gradgradcheck(attend, (*small, rpb))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_fused_functions_differ_in_the_order_of_arguments(ndim):
    tensors = [tensor.movedim(1, -2) for tensor in draw(ndim)]
    old, new = getattr(natten_legacy, f"na{ndim}d"), getattr(natten, f"na{ndim}d")
    # 2 is the dilation to one and the stride to the other
    assert_close(old(*tensors, 2, 2), dinat_ref.neighborhood_attention(*tensors, 2, dilation=2), rtol=0, atol=0)
    assert_close(new(*tensors, 2, 2), dinat_ref.neighborhood_attention(*tensors, 2, stride=2), rtol=0, atol=0)
    output, lse = new(*tensors, kernel_size=3, backend="hopper-fna", torch_compile=True, return_lse=True)
    assert_close(output, old(*tensors, 3), **CLOSE)
    assert lse.shape == output.shape[:-1]
    with pytest.raises(TypeError, match="unexpected keyword argument 'tile_shape'"):
        new(*tensors, 3, tile_shape=(8, 8))
    for function in (old, new):
        with pytest.raises(ValueError, match=f"na{ndim}d takes tensors of {ndim + 3} dimensions"):
            function(*(tensor[0] for tensor in tensors), 3)


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_is_attention(is_causal):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 9, heads, 8, generator=generator) for heads in (4, 2, 2))
    output, lse = natten.attention(query, key, value, is_causal=is_causal, return_lse=True, backend="cutlass-fmha")
    heads_first = [tensor.transpose(1, 2) for tensor in (query, key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(*heads_first, is_causal=is_causal, enable_gqa=True)
    assert_close(output, expected.transpose(1, 2), **CLOSE)
    assert_close(output, natten.attention(query, key, value, is_causal), **CLOSE)
    first, second = (
        natten.attention(query, key[:, part], value[:, part], return_lse=True) for part in (slice(4), slice(4, 9))
    )
    if not is_causal:
        merged, merged_lse = natten.merge_attentions([first[0], second[0]], [first[1], second[1]], torch_compile=False)
        assert_close(merged, output, **CLOSE)
        assert_close(merged_lse, lse, **CLOSE)
    with pytest.raises(ValueError, match="as many queries as keys, got 9 and 4"):
        natten.attention(query, key[:, :4], value[:, :4], is_causal=True)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_layers_of_both_versions(ndim):
    name = f"NeighborhoodAttention{ndim}D"
    new = getattr(v0_21_7, name)(12, 2, 3, 1, 1, False, True, 0.25)
    old = getattr(v0_17_5, name)(12, 2, 3, 1, rel_pos_bias=True, qk_scale=0.25)
    assert new.__class__.__name__ == old.__class__.__name__ == f"NeighborhoodAttention{ndim}D"
    assert set(old.state_dict()) - set(new.state_dict()) == {"rpb"}
    old.load_state_dict(new.state_dict() | {"rpb": torch.zeros_like(old.rpb)})
    x = torch.randn(1, *LAYOUTS[ndim], 12, generator=torch.Generator().manual_seed(0))
    assert_close(new(x), old(x), **CLOSE)
    query, key, value = new.qkv(x).unflatten(-1, (3, 2, 6)).unbind(-3)
    expected = dinat_ref.neighborhood_attention(query, key, value, 3, scale=0.25)
    assert_close(new(x), new.proj(expected.flatten(-2)), **CLOSE)
    dropped = getattr(v0_17_5, name)(12, 2, 3, attn_drop=0.9)
    assert (dropped(x) != dropped(x)).any()


# the stand-in


@pytest.mark.usefixtures("stand_in")
def test_import_natten_finds_the_stand_in():
    assert importlib.util.find_spec("natten") is None
    package = natten.install_as_natten()
    import natten as imported
    from natten.functional import na2d, natten2dav, natten2dqkrpb

    assert imported is package
    assert importlib.util.find_spec("natten").name == "natten"
    assert importlib.util.find_spec("natten.functional") is not None
    assert imported.__version__ == importlib.metadata.version("natten") == "0.21.7"
    assert natten2dav.__name__ == "na2d_av", "lent from 0.15"
    assert natten2dqkrpb is natten_legacy.natten2dqkrpb
    assert na2d is imported.na2d is natten.na2d
    assert imported.NeighborhoodAttention2D is v0_21_7.NeighborhoodAttention2D


@pytest.mark.usefixtures("stand_in")
def test_the_version_decides_whose_argument_order_it_is():
    assert natten.install_as_natten("0.17").functional.na2d is natten_legacy.na2d
    assert importlib.metadata.version("natten") == "0.17.5"
    assert natten.install_as_natten("0.21").na2d is natten.na2d
    with pytest.raises(
        ValueError, match=r"version must be a release of 0\.14, 0\.15, 0\.17, 0\.20, 0\.21, .* got '0\.16'"
    ):
        natten.install_as_natten("0.16")
    natten.remove_natten()
    assert importlib.util.find_spec("natten") is None
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("natten")


@pytest.mark.usefixtures("stand_in")
def test_processes_that_are_started_find_it_where_that_is_asked_for(monkeypatch):
    for name in ("DINAT_REF_NATTEN", "PYTHONPATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # so that they are restored
    ask = [sys.executable, "-c", "import importlib.metadata; print(importlib.metadata.version('natten'))"]
    natten.install_as_natten("0.15")
    assert subprocess.run(ask, capture_output=True, check=False).returncode == 1
    natten.install_as_natten("0.15", children=True)
    assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout == "0.15.1\n"
    natten.remove_natten()
    assert subprocess.run(ask, capture_output=True, check=False).returncode == 1


def test_a_real_natten_is_left_alone(monkeypatch, tmp_path):
    natten.remove_natten()
    (tmp_path / "natten").mkdir()
    (tmp_path / "natten" / "__init__.py").write_text("__version__ = '0.21.7'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert natten.is_natten_installed()
    with pytest.raises(ImportError, match="NATTEN is installed here: it is left as it is"):
        natten.install_as_natten()
    try:
        importlib.import_module("natten")
        assert natten.is_natten_installed()
        natten.remove_natten()
        assert "natten" in sys.modules
    finally:
        sys.modules.pop("natten")
