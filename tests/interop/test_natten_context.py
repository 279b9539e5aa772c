"""What programs ask and set before they attend, the checks they import, and counting operations."""

import importlib.util
import sys

import pytest
import torch
from torch import nn

from dinat_ref.interop import natten, natten_context, natten_flops, natten_legacy, natten_utils
from dinat_ref.interop.natten_context import AutotunerContext, NattenContext
from dinat_ref.interop.natten_releases import v0_15_1, v0_17_5, v0_21_7


@pytest.fixture(autouse=True)
def forget():
    """Take the stand-in away again, and what was set."""
    if natten.is_natten_installed():
        pytest.skip("the real NATTEN is installed: the stand-in would refuse, see the test of that")
    yield
    natten.remove_natten()
    NattenContext.reset()
    AutotunerContext.reset()


@pytest.mark.parametrize("version", ["0.15", "0.17", "0.21"])
def test_questions_are_answered_truthfully(version):
    package = natten.install_as_natten(version)
    assert package.has_cuda() == torch.cuda.is_available()
    assert not package.has_gemm()
    assert not package.has_tf32_gemm(0)
    for question, dtype in (("has_half", torch.float16), ("has_bfloat", torch.bfloat16)):
        x = torch.randn(1, 5, 6, 2, 4).to(dtype)
        assert getattr(package, question)()
        assert package.functional.na2d(x, x, x, 3).dtype == dtype if version != "0.15" else True
    if version != "0.15":
        assert package.context.get_memory_usage_preference().name == "Default"
    if version == "0.17":
        assert package.has_fused_na() is package.has_fna(0) is True
    if version == "0.21":
        assert package.HAS_LIBNATTEN is False


def test_what_is_set_is_remembered_and_changes_no_result():
    x = torch.randn(1, 5, 6, 2, 4, generator=torch.Generator().manual_seed(0))
    expected = natten_legacy.na2d(x, x, x, 3)
    package = natten.install_as_natten("0.17")
    assert not package.is_fused_na_enabled()
    package.use_fused_na(True)
    package.use_autotuner(True, backward_pass=False)
    package.use_deterministic_algorithms()
    package.set_memory_usage_preference("unrestricted")
    package.use_gemm_na()
    package.context.force_flex_attention()
    assert package.context.is_fna_enabled()
    assert package.is_kv_parallelism_in_fused_na_enabled()
    assert package.are_deterministic_algorithms_enabled()
    assert (package.is_autotuner_enabled(), package.is_autotuner_enabled_for_backward()) == (True, False)
    assert package.is_memory_usage_unrestricted()
    assert not package.is_memory_usage_default()
    assert package.context.should_force_flex_attention()
    assert not package.is_gemm_na_enabled(), "there is no such kernel"
    torch.testing.assert_close(package.functional.na2d(x, x, x, 3), expected, rtol=0, atol=0)
    package.disable_autotuner()
    package.use_fused_na(False)
    assert not package.is_autotuner_enabled()
    assert not package.context.should_use_flex_attention()
    package.context.NattenContext.reset()
    assert package.is_memory_usage_default()
    with pytest.raises(ValueError, match="pref must be 'default', 'strict' or 'unrestricted', got 'much'"):
        package.set_memory_usage_preference("much")


def test_compiling_flex_attention_can_be_allowed_and_forbidden():
    package = natten.install_as_natten("0.21")
    package.allow_flex_compile(backprop=True)
    assert package.is_flex_compile_allowed()
    assert package.is_flex_compile_backprop_allowed()
    package.disable_flex_compile_backprop()
    assert (package.is_flex_compile_allowed(), package.is_flex_compile_backprop_allowed()) == (True, False)
    package.disable_flex_compile()
    assert not natten_context.is_flex_compile_allowed()


def test_no_settings_of_kernels_fit():
    package = natten.install_as_natten("0.21")
    x = torch.randn(1, 5, 6, 2, 4)
    names = [name for name in package.__all__ if "configs_for" in name]
    assert len(names) == 14
    for name in names:
        assert getattr(package, name)(x, x, x) == []
    assert package.get_configs_for_flex_fna(x, x, x, torch_compile=True) == []


def test_checks_of_arguments():
    assert v0_21_7.check_all_args(2, [3, 5], 1, None, True) == ((3, 5), (1, 1), (1, 1), (True, True))
    assert natten_utils.check_all_args(1, 7, (2,), None) == ((7,), (2,), (False,))
    for wrong in ((2, 3.0), (2, (3,)), (2, True), (2, "3")):
        with pytest.raises(ValueError, match="kernel_size"):
            natten_utils.check_kernel_size_arg(*wrong)
    with pytest.raises(ValueError, match="is_causal must be a bool or one per axis, got 1"):
        natten_utils.check_causal_arg(2, 1)
    query, extra = torch.zeros(2, 3, 4, 5, 8), torch.zeros(2, 3, 7, 8)
    assert natten_utils.check_additional_keys(query, extra) == 7
    with pytest.raises(ValueError, match="additional_keys must be"):
        natten_utils.check_additional_keys(query, extra[:1])
    with pytest.raises(ValueError, match="expected 16 weights a token, got 9"):
        natten_utils.check_additional_values(torch.zeros(2, 3, 4, 5, 9), extra, query, 9)


@pytest.mark.parametrize("module", [v0_15_1, v0_17_5, v0_21_7])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # sizes are compared, as anywhere
def test_operations_are_counted_by_formula_in_a_trace(module):
    """fvcore reads a trace; here a counter in its place does."""
    layer = module.NeighborhoodAttention2D(8, 2, 3, bias=True).eval()
    x = torch.zeros(1, 5, 6, 8)

    class Counter:
        def set_op_handle(self, **handles):
            self.handles = handles
            return self

        def _analyze(self):
            graph, _ = torch.jit._get_trace_graph(layer, (x,))
            nodes = [node for node in graph.nodes() if node.kind() == "prim::PythonOp"]
            assert len(nodes) == 1, "one operation, however many it consists of"
            (handle,) = self.handles.values()
            return handle(list(nodes[0].inputs()), list(nodes[0].outputs()))

    tokens, keys = 30, 9
    bias = tokens * 2 * keys
    assert natten_flops.add_natten_handle(Counter())._analyze() == 2 * tokens * 8 * keys + bias
    assert "PythonOp" not in str(torch.jit._get_trace_graph(layer, (x,))[0]), "other traces are left as they are"


def test_halves_and_additional_keys_are_counted():
    calls = []
    apply = natten_flops.NeighborhoodAttentionOperation.apply

    class Recorded(natten_flops.NeighborhoodAttentionOperation):
        @staticmethod
        def apply(operations, *rest):
            calls.append(operations.numel())
            return apply(operations, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(natten_flops, "NeighborhoodAttentionOperation", Recorded)
        patch.setattr(natten_flops.Counting, "on", True)
        query, extra = torch.randn(2, 3, 4, 5, 8), torch.randn(2, 3, 7, 8)
        attn = natten_legacy.na2d_qk(query, query, 3, additional_keys=extra)
        natten_legacy.na2d_av(attn, query, 3, additional_values=extra)
        last, more = query.movedim(1, -2), extra.transpose(1, 2)
        natten_legacy.na2d(last, last, last, 3, additional_keys=more, additional_values=more)
    half = 2 * 3 * 4 * 5 * 8 * (9 + 7)
    assert calls == [half, half, 2 * half]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_fvcore_counts_a_model():
    pytest.importorskip("fvcore", reason="fvcore is not in any extra; the tests above read its trace themselves")
    model = nn.Sequential(v0_15_1.NeighborhoodAttention1D(8, 2, 3))
    expected = 5 * (8 * 24 + 8 * 3 + 2 * 3 + 8 * 3 + 8 * 8)
    assert natten_flops.get_flops(model, torch.zeros(1, 5, 8), disable_warnings=True) == expected


def test_counting_a_model_needs_fvcore():
    if importlib.util.find_spec("fvcore"):
        pytest.skip("fvcore is installed: the test above counts with it")
    with pytest.raises(ImportError, match="fvcore"):
        natten_flops.get_flops(nn.Linear(2, 2), torch.zeros(1, 2))
    assert "fvcore" not in sys.modules
