"""Programs written for NATTEN: small models of ours that call it in the manner of its users, release by release.

Each calls the same names with the same arguments in the same order as the project it is named after. What was run of
the projects themselves is told in tutorials/site/clients.md.
"""

import importlib

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import dinat_ref
from dinat_ref.interop import natten

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def stand_in():
    """Install a release as a function; take the stand-in away again."""
    if natten.is_natten_installed():
        pytest.skip("the real NATTEN is installed: the stand-in would refuse, see the test of that")
    yield natten.install_as_natten
    natten.remove_natten()
    importlib.import_module("dinat_ref.interop.natten_context").NattenContext.reset()
    importlib.import_module("dinat_ref.interop.natten_context").AutotunerContext.reset()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def check_gradients(module: nn.Module, output: Tensor) -> None:
    """Every parameter has a gradient."""
    output.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


class Heads(nn.Module):
    """Queries, keys and values of a map, with the heads where a client wants them."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)  # each [B, *layout, H, D]


def expected(heads: Heads, x: Tensor, kernel_size: int, dilation: int = 1, **more: object) -> Tensor:
    """The same layer, written with the operator."""
    return heads.out(
        dinat_ref.neighborhood_attention(*heads.split(x), kernel_size, dilation=dilation, **more).flatten(-2)
    )


@pytest.mark.parametrize("version", ["0.17", "0.21"])
@pytest.mark.parametrize("fused", [True, False])
def test_k_diffusion_and_pmrf_ask_whether_there_is_a_fused_one(stand_in, version, fused, monkeypatch):
    package = stand_in(version)
    monkeypatch.setattr(package, "has_fused_na", package.has_fused_na if fused else lambda: False)

    class HourglassBlock(Heads):
        def forward(self, x: Tensor) -> Tensor:
            import natten

            q, k, v = self.split(x)
            q = q * q.shape[-1] ** -0.5
            if natten.has_fused_na():
                y = natten.functional.na2d(q, k, v, 5, scale=1.0)
            else:
                q, k, v = (tensor.movedim(-2, 1) for tensor in (q, k, v))
                weights = torch.softmax(natten.functional.na2d_qk(q, k, 5), dim=-1).to(v.dtype)
                y = natten.functional.na2d_av(weights, v, 5).movedim(1, -2)
            return self.out(y.flatten(-2))

    block, x = HourglassBlock(8, 2), draw(2, 6, 9, 8)
    assert_close(block(x), expected(block, x, 5), **CLOSE)
    check_gradients(block, block(x))


@pytest.mark.parametrize("version", ["0.14.6", "0.15", "0.17", "0.21"])
def test_allin1_looks_along_time_and_over_time_and_instruments(stand_in, version):
    stand_in(version)
    from natten.functional import natten1dav, natten1dqkrpb, natten2dav, natten2dqkrpb

    class Dinat(Heads):
        def __init__(self, dim: int, heads: int, scores: object, values: object, ndim: int) -> None:
            super().__init__(dim, heads)
            self.scores, self.values = scores, values
            self.rpb = nn.Parameter(draw(heads, *[5] * ndim, seed=1))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (tensor.movedim(-2, 1) for tensor in self.split(x))
            scores = self.scores(q / q.shape[-1] ** 0.5, k, self.rpb, 3, 2)
            y = self.values(scores.softmax(dim=-1), v, 3, 2)
            return self.out(y.movedim(1, -2).flatten(-2))

    for layer, x in (
        (Dinat(8, 2, natten1dqkrpb, natten1dav, 1), draw(2, 11, 8)),
        (Dinat(8, 2, natten2dqkrpb, natten2dav, 2), draw(2, 6, 11, 8)),
    ):
        assert_close(layer(x), expected(layer, x, 3, 2, rpb=layer.rpb), **CLOSE)
        check_gradients(layer, layer(x))


@pytest.mark.parametrize("version", ["0.14.4", "0.14.6", "0.15", "0.17", "0.21"])
def test_the_nat_repository_tells_0_17_by_its_context(stand_in, version):
    package = stand_in(version)
    from natten import NeighborhoodAttention2D as NeighborhoodAttention
    from natten.flops import add_natten_handle

    assert callable(add_natten_handle)
    extra = {"rel_pos_bias": True} if hasattr(package, "context") else {"bias": True}
    for dilation in (None, 2):
        layer = NeighborhoodAttention(
            8,
            kernel_size=3,
            dilation=dilation,
            num_heads=2,
            qkv_bias=True,
            qk_scale=None,
            attn_drop=0.0,
            proj_drop=0.0,
            **extra,
        )
        x = draw(2, 7, 6, 8)
        q, k, v = layer.qkv(x).unflatten(-1, (3, 2, 4)).unbind(-3)
        attended = dinat_ref.na2d(q, k, v, 3, dilation=dilation or 1, rpb=layer.rpb).flatten(-2)
        assert_close(layer(x), layer.proj(attended), **CLOSE)
        check_gradients(layer, layer(x))


@pytest.mark.parametrize("version", ["0.14.4", "0.14.6", "0.15"])
def test_oneformers_backbone_has_its_bias(stand_in, version):
    stand_in(version)
    from natten import NeighborhoodAttention2D

    layer = NeighborhoodAttention2D(
        8, kernel_size=3, dilation=4, num_heads=2, qkv_bias=True, qk_scale=None, attn_drop=0.0, proj_drop=0.0
    )
    assert layer.rpb.shape == (2, 5, 5)
    x = draw(1, 7, 20, 8)  # fewer rows than a window reaches over
    check_gradients(layer, layer(x))
    assert layer(x).shape == x.shape


def test_stylenat_gives_its_heads_different_windows(stand_in):
    package = stand_in("0.17")
    from natten import use_autotuner, use_fused_na
    from natten.functional import na2d_av, na2d_qk

    use_fused_na(True)
    use_autotuner(True)
    assert package.is_fused_na_enabled()

    class Hydra(Heads):
        def __init__(self) -> None:
            super().__init__(8, 4)
            self.windows = [(3, 2), (5, 1)]
            self.rpb = nn.ParameterList(draw(2, 2 * k - 1, 2 * k - 1) for k, _ in self.windows)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (tensor.movedim(-2, 1).chunk(2, dim=1) for tensor in self.split(x))
            parts = []
            for q_, k_, v_, (size, step), rpb in zip(q, k, v, self.windows, self.rpb, strict=True):
                scores = na2d_qk(q_ * q_.shape[-1] ** -0.5, k_, kernel_size=size, dilation=step, rpb=rpb)
                parts.append(na2d_av(scores.softmax(dim=-1), v_, kernel_size=size, dilation=step))
            return self.out(torch.cat(parts, dim=1).movedim(1, -2).flatten(-2))

    layer, x = Hydra(), draw(1, 7, 8, 8)
    halves = zip(*(tensor.chunk(2, dim=-2) for tensor in layer.split(x)), layer.windows, layer.rpb, strict=True)
    both = [dinat_ref.na2d(*qkv, size, dilation=step, rpb=rpb) for *qkv, (size, step), rpb in halves]
    assert_close(layer(x), layer.out(torch.cat(both, dim=-2).flatten(-2)), **CLOSE)
    check_gradients(layer, layer(x))


@pytest.mark.parametrize("version", ["0.15", "0.17", "0.21"])
def test_agileformer_pads_by_itself_and_adds_the_bias_by_a_name_of_0_15(stand_in, version):
    stand_in(version)
    from natten.functional import na2d_av, na2d_qk_with_bias

    class Agile(Heads):
        def __init__(self) -> None:
            super().__init__(8, 2)
            self.rpb = nn.Parameter(draw(2, 5, 5))

        def forward(self, x: Tensor) -> Tensor:
            height, width = x.shape[1:3]
            x = nn.functional.pad(x, (0, 0, 0, max(0, 6 - width), 0, max(0, 6 - height)))
            q, k, v = (tensor.movedim(-2, 1) for tensor in self.split(x))
            weights = na2d_qk_with_bias(q * q.shape[-1] ** -0.5, k, self.rpb, 3, 2).softmax(dim=-1)
            y = na2d_av(weights, v, 3, 2).movedim(1, -2).flatten(-2)
            return self.out(y[:, :height, :width])

    layer, x = Agile(), draw(1, 4, 9, 8)
    padded = nn.functional.pad(x, (0, 0, 0, 0, 0, 2))
    assert_close(layer(x), expected(layer, padded, 3, 2, rpb=layer.rpb)[:, :4], **CLOSE)
    check_gradients(layer, layer(x))


def test_cosmos_predict2_imports_the_generic_function(stand_in):
    stand_in("0.21")
    import natten
    from natten.functional import neighborhood_attention_generic

    natten.use_kv_parallelism_in_fused_na(True)
    natten.set_memory_usage_preference("unrestricted")
    performance = {
        "backend": "hopper-fna",
        "q_tile_shape": (4, 4, 4),
        "kv_tile_shape": (2, 4, 8),
        "kernel_schedule": "coop",
    }
    q, k, v = draw(3, 1, 5, 6, 8, 2, 4).unbind(0)
    where = {"kernel_size": (3, 4, 6), "stride": (1, 2, 3), "dilation": (1, 1, 1), "is_causal": (False, False, False)}
    output = neighborhood_attention_generic(query=q, key=k, value=v, **where, **performance)
    assert_close(output, dinat_ref.na3d(q, k, v, (3, 4, 6), (1, 2, 3)), **CLOSE)


def test_physicsnemo_makes_three_calls(stand_in):
    package = stand_in("0.21")
    for ndim, layout in ((1, (11,)), (2, (6, 9)), (3, (4, 6, 5))):
        q, k, v = draw(3, 1, *layout, 2, 4).unbind(0)
        output = getattr(package.functional, f"na{ndim}d")(q, k, v, 3, dilation=1, stride=2)
        assert_close(output, dinat_ref.neighborhood_attention(q, k, v, 3, 2), **CLOSE)


def test_lightx2v_tries_a_backend_first(stand_in):
    package = stand_in("0.21")
    q, k, v = draw(3, 1, 4, 6, 5, 2, 4).unbind(0)
    output = package.na3d(q, k, v, kernel_size=(3, 5, 5), scale=1.0, backend="cutlass-fna")
    assert_close(output, dinat_ref.na3d(q, k, v, (3, 5, 5), scale=1.0), **CLOSE)


def test_overlock_gives_weights_of_its_own(stand_in):
    stand_in("0.17")
    from natten.functional import na2d_av

    weights, value = draw(1, 2, 7, 8, 25).softmax(-1), draw(1, 2, 7, 8, 4, seed=1)
    output = na2d_av(weights, value, kernel_size=5)
    rows = dinat_ref.Neighborhood((7, 8), 5).indices()  # [N, K]
    gathered = value.flatten(2, 3)[:, :, rows]  # [B, H, N, K, D]
    assert_close(output.flatten(2, 3), torch.einsum("bhnk,bhnkd->bhnd", weights.flatten(2, 3), gathered), **CLOSE)


def test_a_client_can_be_compiled_without_breaks(stand_in):
    package = stand_in("0.17")

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return package.functional.na2d(q, k, v, 3, scale=1.0)

    q, k, v = draw(3, 1, 6, 7, 2, 4).unbind(0)
    compiled = torch.compile(attend, backend="eager", fullgraph=True)
    assert_close(compiled(q, k, v), attend(q, k, v), **CLOSE)
