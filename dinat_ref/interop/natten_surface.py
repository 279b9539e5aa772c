"""What each release of NATTEN offers: modules, names, order of arguments and defaults.

    SURFACES[release][module] -> its names, as ``def`` would write them; {1,2,3} stands for three names

A name without parentheses is a type, a class without arguments or a value. Only what can be served without NATTEN's own
kernels is listed. ``natten_releases`` holds a module for each release, which implements these names; what a release
dropped, the stand-in lends it from the release before (transformers' Dinat asks the newest for functions of 0.17).

Source: the public releases 0.14.4, 0.14.6, 0.15.1, 0.17.5 and 0.21.7, read on 2026-11-25.
"""

import itertools
import re

FLAGS_015 = """
    has_cuda() has_half(device_index=None) has_bfloat(device_index=None) has_gemm(device_index=None)
    has_tf32_gemm(device_index=None) has_fp32_gemm(device_index=None) has_fp64_gemm(device_index=None)
    enable_tf32() disable_tf32() enable_tiled_na() disable_tiled_na() enable_gemm_na() disable_gemm_na()
"""
FLAGS_017 = f"""
    {FLAGS_015}
    has_fna(device_index=None) has_fused_na(device_index=None)
    use_fused_na(mode=True, kv_parallel=True, use_flex_attention=False, force_flex_attention=False)
    use_fna(mode=True, kv_parallel=True, use_flex_attention=False, force_flex_attention=False)
    is_fused_na_enabled() is_fna_enabled() use_flex_attention() force_flex_attention()
    use_tiled_na(mode=True) is_tiled_na_enabled() use_gemm_na(mode=True) is_gemm_na_enabled()
    use_tf32_in_gemm_na(mode=True) is_tf32_in_gemm_na_enabled()
    use_autotuner(forward_pass=None, backward_pass=None, thorough_mode_forward=None, thorough_mode_backward=None,
        warmup_steps_forward=None, warmup_steps_backward=None, steps_forward=None, steps_backward=None)
    disable_autotuner() is_autotuner_enabled() is_autotuner_enabled_for_forward() is_autotuner_enabled_for_backward()
    is_autotuner_thorough_for_forward() is_autotuner_thorough_for_backward()
"""
PREFERENCES = """
    set_memory_usage_preference(pref='default') get_memory_usage_preference()
    is_memory_usage_default() is_memory_usage_strict() is_memory_usage_unrestricted()
    use_deterministic_algorithms(mode=True) are_deterministic_algorithms_enabled()
    use_kv_parallelism_in_fused_na(mode=True) is_kv_parallelism_in_fused_na_enabled()
"""
FLEX = """
    is_flex_compile_allowed() is_flex_compile_backprop_allowed() allow_flex_compile(mode=True, backprop=False)
    allow_flex_compile_backprop(mode=True) disable_flex_compile() disable_flex_compile_backprop()
"""
CONFIGS = """
    get_{configs,bwd_configs}_for_cutlass_{fmha,fna}(query, key, value)
    get_{configs,bwd_configs}_for_cutlass_{hopper,blackwell}_{fmha,fna}(query, key, value)
    get_configs_for_flex_{fmha,fna}(query, key, value, torch_compile=False)
"""
TYPES = """
    NoneType Dimension{1,2,3}DType Dimension{1,2,3}DTypeOrDed CausalArg{1,2,3}DType CausalArg{1,2,3}DTypeOrDed
    DimensionType CausalArgType
"""
TENSOR_CHECKS = """
    make_attn_tensor_from_input(input_tensor, attention_dim) check_additional_keys(input_tensor, additional_keys)
    check_additional_values(attn_tensor, additional_values, value, expected_attn_weights)
"""
ARGUMENT_CHECKS = """
    check_input_size_arg(na_dim, input_size) check_kernel_size_arg(na_dim, kernel_size)
    check_dilation_arg(na_dim, dilation) check_causal_arg(na_dim, is_causal)
"""
CHECKS_017 = (
    f"{ARGUMENT_CHECKS} get_num_na_weights(kernel_size) check_all_args(na_dim, kernel_size, dilation, is_causal)"
)
CROSS = "qk_cross_forward(query, key, out) av_cross_forward(attn, value, output)"

LAYERS_0144 = """
    NeighborhoodAttention{1D,2D}(dim, kernel_size, num_heads, qkv_bias=True, qk_scale=None, attn_drop=0.0,
        proj_drop=0.0, dilation=None)
"""
LAYERS_0146 = """
    NeighborhoodAttention{1D,2D}(dim, num_heads, kernel_size, dilation=1, bias=True, qkv_bias=True, qk_scale=None,
        attn_drop=0.0, proj_drop=0.0)
"""
LAYERS_015 = f"""
    {LAYERS_0146}
    NeighborhoodAttention3D(dim, num_heads, kernel_size, kernel_size_d=None, dilation=1, dilation_d=None, bias=True,
        qkv_bias=True, qk_scale=None, attn_drop=0.0, proj_drop=0.0)
"""
LAYERS_017 = """
    NeighborhoodAttention{1D,2D,3D}(dim, num_heads, kernel_size, dilation=1, is_causal=False, rel_pos_bias=False,
        qkv_bias=True, qk_scale=None, attn_drop=0.0, proj_drop=0.0, use_experimental_ops=False)
"""
LAYERS_021 = """
    NeighborhoodAttention{1D,2D,3D}(embed_dim, num_heads, kernel_size, stride=1, dilation=1, is_causal=False,
        qkv_bias=True, qk_scale=None, proj_drop=0.0)
"""
FUSED_017 = """
    na{1,2,3}d(query, key, value, kernel_size, dilation=1, is_causal=False, rpb=None, scale=None, additional_keys=None,
        additional_values=None, xformers_kwargs=None)
"""
FUSED_021 = """
    {neighborhood_attention_generic,na1d,na2d,na3d}(query, key, value, kernel_size, stride=1, dilation=1,
        is_causal=False, scale=None, additional_keys=None, additional_values=None, attention_kwargs=None, backend=None,
        q_tile_shape=None, kv_tile_shape=None, backward_q_tile_shape=None, backward_kv_tile_shape=None,
        backward_kv_splits=None, backward_use_pt_reduction=False, run_persistent_kernel=True, kernel_schedule=None,
        torch_compile=False, return_lse=False)
    attention(query, key, value, is_causal=False, scale=None, seqlens_Q=None, seqlens_KV=None,
        cumulative_seqlen_Q=None, cumulative_seqlen_KV=None, max_seqlen_Q=None, max_seqlen_KV=None, backend=None,
        q_tile_size=None, kv_tile_size=None, backward_q_tile_size=None, backward_kv_tile_size=None,
        backward_kv_splits=None, backward_use_pt_reduction=False, run_persistent_kernel=True, kernel_schedule=None,
        torch_compile=False, return_lse=False)
    merge_attentions(outputs, lse_tensors, torch_compile=True, use_autograd_fix=True)
"""
COUNTS = "add_natten_handle(flop_ctr) get_flops(model, input, disable_warnings=False)"

SURFACES = {
    "0.14.4": {
        "natten": LAYERS_0144 + "NeighborhoodAttention(dim, kernel_size, num_heads, qkv_bias=True, qk_scale=None,"
        " attn_drop=0.0, proj_drop=0.0, dilation=None)",
        "natten.natten1d natten.natten2d": LAYERS_0144,
        "natten.functional": """
            natten{1,2}dqkrpb(query, key, rpb, dilation) natten{1,2}dav(attn, value, dilation)
            NATTEN{1,2}DQKRPBFunction(query, key, rpb, dilation) NATTEN{1,2}DAVFunction(attn, value, dilation)
        """,
        "natten.flops": COUNTS,
    },
    "0.14.6": {
        "natten natten.natten1d natten.natten2d": LAYERS_0146,
        "natten.functional": """
            natten{1,2}dqkrpb(query, key, rpb, kernel_size, dilation) natten{1,2}dqk(query, key, kernel_size, dilation)
            natten{1,2}dav(attn, value, kernel_size, dilation)
            NATTEN{1,2}DQKRPBFunction(query, key, rpb, kernel_size, dilation)
            NATTEN{1,2}DAVFunction(attn, value, kernel_size, dilation)
        """,
        "natten.flops": COUNTS,
    },
    "0.15.1": {
        "natten": LAYERS_015 + FLAGS_015,
        "natten.natten1d natten.natten2d natten.natten3d": LAYERS_015,
        "natten.functional": f"""
            {FLAGS_015} {TENSOR_CHECKS} get_device_cc(device_index=None)
            na{{1,2}}d_qk(query, key, kernel_size, dilation, additional_keys=None)
            na{{1,2}}d_qk_with_bias(query, key, bias, kernel_size, dilation, additional_keys=None)
            na{{1,2}}d_av(attn, value, kernel_size, dilation, additional_values=None)
            na3d_qk(query, key, kernel_size_d, kernel_size, dilation_d, dilation, additional_keys=None)
            na3d_qk_with_bias(query, key, bias, kernel_size_d, kernel_size, dilation_d, dilation, additional_keys=None)
            na3d_av(attn, value, kernel_size_d, kernel_size, dilation_d, dilation, additional_values=None)
            natten{{1,2}}dqkrpb(query, key, rpb, kernel_size, dilation)
            natten{{1,2}}dqk(query, key, kernel_size, dilation, additional_keys=None)
            natten{{1,2}}dav(attn, value, kernel_size, dilation, additional_values=None)
            natten3dqkrpb(query, key, rpb, kernel_size_d, kernel_size, dilation_d, dilation)
            natten3dqk(query, key, kernel_size_d, kernel_size, dilation_d, dilation, additional_keys=None)
            natten3dav(attn, value, kernel_size_d, kernel_size, dilation_d, dilation, additional_values=None)
            NeighborhoodAttention{{1,2}}DQKAutogradFunction(query, key, bias, additional_key, kernel_size, dilation)
            NeighborhoodAttention{{1,2}}DAVAutogradFunction(attn, value, additional_value, kernel_size, dilation)
            NeighborhoodAttention3DQKAutogradFunction(query, key, bias, additional_key, kernel_size_d, kernel_size,
                dilation_d, dilation)
            NeighborhoodAttention3DAVAutogradFunction(attn, value, additional_value, kernel_size_d, kernel_size,
                dilation_d, dilation)
        """,
        "natten.flops": COUNTS,
        "natten.ops": CROSS,
        "natten.utils": f"{TENSOR_CHECKS} NoneType",
        "natten.utils.tensor": TENSOR_CHECKS,
        "natten.utils.typing": "NoneType",
    },
    "0.17.5": {
        "natten": LAYERS_017 + FLAGS_017 + PREFERENCES,
        "natten.na1d natten.na2d natten.na3d natten.natten1d natten.natten2d natten.natten3d": LAYERS_017,
        "natten.context": f"""
            {FLAGS_017} {PREFERENCES} MemoryUsagePreference NattenContext AutotunerContext
            should_use_flex_attention() should_force_flex_attention()
        """,
        "natten.functional": f"""
            {FUSED_017} {TENSOR_CHECKS} {CHECKS_017}
            na{{1,2,3}}d_qk(query, key, kernel_size, dilation=1, additional_keys=None, is_causal=False, rpb=None)
            na{{1,2,3}}d_av(attn, value, kernel_size, dilation=1, additional_values=None, is_causal=False)
            NeighborhoodAttention{{1,2,3}}DQKAutogradFunction(query, key, bias, additional_key, kernel_size_, dilation_,
                is_causal_)
            NeighborhoodAttention{{1,2,3}}DAVAutogradFunction(attn, value, additional_value, kernel_size_, dilation_,
                is_causal_)
            FusedNeighborhoodAttention{{1D,2D,3D}}(query, key, value, bias, kernel_size_, dilation_, is_causal_, scale,
                tiling_config_, tiling_config_backward_)
        """,
        "natten.experimental": FUSED_017,
        "natten.flops": f"""
            {COUNTS}
            fna_flop_count(q_shape, k_shape, v_shape, kernel_size, dilation, is_causal, is_heads_last,
                return_macs=False)
            na_qk_flop_count(q_shape, k_shape, kernel_size, dilation, is_causal, is_heads_last, return_macs=False)
            na_av_flop_count(a_shape, v_shape, kernel_size, dilation, is_causal, is_heads_last, return_macs=False)
        """,
        "natten.ops": f"""
            {CROSS} additional_sdpa(query, key, value, scale=None, attn_kwargs=None)
            merge_attentions(output_fna, output_sdpa, lse_fna, lse_sdpa)
        """,
        "natten.types": f"{TYPES} create_dim_from_int(na_dim, value) create_causal_arg_from_bool(na_dim, value)",
        "natten.utils": f"{TENSOR_CHECKS} {CHECKS_017} get_device_cc(device_index=None)",
        "natten.utils.checks": CHECKS_017,
        "natten.utils.log": "get_logger(name)",
        "natten.utils.misc": "get_device_cc(device_index=None)",
        "natten.utils.tensor": TENSOR_CHECKS,
    },
    "0.21.7": {
        "natten": f"""
            {LAYERS_021} {PREFERENCES} {FLEX} {CONFIGS} HAS_LIBNATTEN
            {FUSED_021.replace("neighborhood_attention_generic,", "")}
        """,
        "natten.modules": LAYERS_021,
        "natten.context": f"{PREFERENCES} {FLEX} MemoryUsagePreference NattenContext",
        "natten.functional": FUSED_021,
        "natten.attn_merge": "merge_attentions(outputs, lse_tensors, torch_compile=True, use_autograd_fix=True)",
        "natten.backends natten.backends.configs": CONFIGS,
        "natten.types": f"{TYPES} DimensionTypeOrDed CausalArgTypeOrDed KernelSchedule",
        "natten.utils.checks": f"""
            {ARGUMENT_CHECKS} check_stride_arg(na_dim, stride)
            check_all_args(na_dim, kernel_size, stride, dilation, is_causal)
        """,
        "natten.utils.device": "is_cuda(device) is_cpu(device) get_device_cc(device=None)",
        "natten.utils.log": "get_logger(name)",
        "natten.utils.tensor": TENSOR_CHECKS,
        "natten.utils.tuples": "create_dim_from_int(na_dim, value) create_causal_arg_from_bool(na_dim, value)",
        "natten.utils.varlen": "generate_varlen_parameters(query, key, value, seqlens_Q=None, seqlens_KV=None)",
        "natten.version": "__version__",
    },
}
SERIES = {"0.14": "0.14.6", "0.15": "0.15.1", "0.17": "0.17.5", "0.20": "0.21.7", "0.21": "0.21.7"}


def find_release(version: str) -> str:
    """Find the release that stands for a version: that of its series, but 0.14.4 for the releases up to it.

    Raises:
        ValueError: a version that none of them stands for.
    Example:
        >>> find_release("0.17"), find_release("0.17.1"), find_release("0.14.2")
        ('0.17.5', '0.17.5', '0.14.4')
    """
    if re.fullmatch(r"0\.14\.[1-4](\.post\d+)?", version):
        return "0.14.4"
    series = re.fullmatch(r"(0\.\d+)(\.\d+)?(\.post\d+)?", version)
    if series is None or series[1] not in SERIES:
        raise ValueError(f"version must be a release of {', '.join(SERIES)}, such as 0.14.4, got {version!r}")
    return SERIES[series[1]]


def read_surface(release: str) -> dict[str, dict[str, str | None]]:
    """Read the table: module -> name -> the text of its arguments, None for what takes none.

    Example:
        >>> read_surface("0.14.6")["natten.functional"]["natten2dav"]
        'attn, value, kernel_size, dilation'
    """
    surface: dict[str, dict[str, str | None]] = {}
    for modules, text in SURFACES[release].items():
        names: dict[str, str | None] = {}
        for pattern, call, arguments in re.findall(r"((?:\w|\{[^}]*\})+)(\(([^)]*)\))?", text):
            names |= dict.fromkeys(_expand(pattern), " ".join(arguments.split()) if call else None)
        surface |= dict.fromkeys(modules.split(), names)
    return surface


def _expand(pattern: str) -> list[str]:
    """Write out braces: a{b,c}d is abd and acd."""
    parts = [part.strip("{}").split(",") for part in re.split(r"(\{[^}]*\})", pattern)]
    return ["".join(choice) for choice in itertools.product(*parts)]
