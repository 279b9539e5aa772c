"""What programs set before they attend: taken and remembered.

``is_...`` then answers as NATTEN's does; no result changes.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any, ClassVar


class MemoryUsagePreference(Enum):
    """How much memory NATTEN's kernels may take for a faster backward pass.

    Example:
        >>> get_memory_usage_preference()
        <MemoryUsagePreference.Default: 0>
    """

    Default = 0
    Strict = 1
    Unrestricted = 2


class NattenContext:
    """What was set, under NATTEN's names; ``reset`` takes it back.

    Example:
        >>> use_fused_na()
        >>> NattenContext.is_fused_na_enabled
        True
        >>> NattenContext.reset()
        >>> is_fna_enabled()
        False
    """

    DEFAULTS: ClassVar[dict[str, Any]] = {
        "is_deterministic_mode_enabled": False,
        "is_fused_na_enabled": False,
        "is_kv_parallelism_enabled": False,
        "use_flex_attention": False,
        "force_flex_attention": False,
        "training_memory_preference": MemoryUsagePreference.Default,
        "flex_compile_allowed": False,
        "flex_compile_backprop_allowed": False,
        "is_tiled_na_enabled": True,
    }
    is_deterministic_mode_enabled: bool
    is_fused_na_enabled: bool
    is_kv_parallelism_enabled: bool
    use_flex_attention: bool
    force_flex_attention: bool
    training_memory_preference: MemoryUsagePreference
    flex_compile_allowed: bool
    flex_compile_backprop_allowed: bool
    is_tiled_na_enabled: bool

    @classmethod
    def reset(cls) -> None:
        """Set everything as it was at first."""
        for name, value in cls.DEFAULTS.items():
            setattr(cls, name, value)


class AutotunerContext(NattenContext):
    """What was set of the auto-tuner, which has nothing to tune here.

    Example:
        >>> use_autotuner(True)
        >>> is_autotuner_enabled(), is_autotuner_enabled_for_backward()
        (True, False)
        >>> disable_autotuner()
        >>> is_autotuner_enabled()
        False
    """

    DEFAULTS: ClassVar[dict[str, Any]] = {
        "enabled_for_forward": False,
        "enabled_for_backward": False,
        "thorough_mode_forward": False,
        "thorough_mode_backward": False,
        "warmup_steps_forward": 5,
        "warmup_steps_backward": 5,
        "steps_forward": 5,
        "steps_backward": 5,
    }
    enabled_for_forward: bool
    enabled_for_backward: bool
    thorough_mode_forward: bool
    thorough_mode_backward: bool


NattenContext.reset()
AutotunerContext.reset()


def _is(attribute: str, context: type[NattenContext] = NattenContext) -> Callable[[], bool]:
    """Make the function that tells a setting."""

    def is_set() -> bool:
        """Whether it was set."""
        return bool(getattr(context, attribute))

    return is_set


def use_fused_na(
    mode: bool = True, kv_parallel: bool = True, use_flex_attention: bool = False, force_flex_attention: bool = False
) -> None:
    """Remember whether layers should attend in one call."""
    NattenContext.is_fused_na_enabled = mode
    NattenContext.is_kv_parallelism_enabled = mode and kv_parallel
    NattenContext.use_flex_attention = mode and use_flex_attention
    NattenContext.force_flex_attention = mode and force_flex_attention


use_fna = use_fused_na
is_fused_na_enabled = is_fna_enabled = _is("is_fused_na_enabled")
should_use_flex_attention, should_force_flex_attention = _is("use_flex_attention"), _is("force_flex_attention")


def use_flex_attention() -> None:
    """Remember that FlexAttention may be used."""
    use_fused_na(use_flex_attention=True)


def force_flex_attention() -> None:
    """Remember that FlexAttention must be used; the result is the same."""
    use_fused_na(use_flex_attention=True, force_flex_attention=True)


def use_kv_parallelism_in_fused_na(mode: bool = True) -> None:
    """Remember whether the backward pass may be split over keys."""
    NattenContext.is_kv_parallelism_enabled = mode


is_kv_parallelism_in_fused_na_enabled = _is("is_kv_parallelism_enabled")


def use_deterministic_algorithms(mode: bool = True) -> None:
    """Remember whether results must be the same every time; on a CPU they are."""
    NattenContext.is_deterministic_mode_enabled = mode


are_deterministic_algorithms_enabled = _is("is_deterministic_mode_enabled")


def set_memory_usage_preference(pref: str = "default") -> None:
    """Remember "default", "strict" or "unrestricted".

    Raises:
        ValueError: another word.
    """
    if pref not in ("default", "strict", "unrestricted"):
        raise ValueError(f"pref must be 'default', 'strict' or 'unrestricted', got {pref!r}")
    NattenContext.training_memory_preference = MemoryUsagePreference[pref.capitalize()]


def get_memory_usage_preference() -> MemoryUsagePreference:
    """What ``set_memory_usage_preference`` was told last."""
    return NattenContext.training_memory_preference


def is_memory_usage_default() -> bool:
    """Whether the preference is "default"."""
    return get_memory_usage_preference() is MemoryUsagePreference.Default


def is_memory_usage_strict() -> bool:
    """Whether the preference is "strict"."""
    return get_memory_usage_preference() is MemoryUsagePreference.Strict


def is_memory_usage_unrestricted() -> bool:
    """Whether the preference is "unrestricted"."""
    return get_memory_usage_preference() is MemoryUsagePreference.Unrestricted


def use_tiled_na(mode: bool = True) -> None:
    """Remember whether NATTEN's tiled kernels may be used."""
    NattenContext.is_tiled_na_enabled = mode


is_tiled_na_enabled = _is("is_tiled_na_enabled")


def enable_tiled_na() -> bool:
    """Remember that NATTEN's tiled kernels may be used."""
    use_tiled_na()
    return True


def disable_tiled_na() -> bool:
    """Remember that NATTEN's tiled kernels may not be used."""
    use_tiled_na(False)
    return False


def use_gemm_na(mode: bool = True) -> None:
    """Take the wish for GEMM kernels; there are none."""


def enable_gemm_na() -> bool:
    """Take the wish for, or against, GEMM kernels: they stay off."""
    return False


def is_gemm_na_enabled() -> bool:
    """Whether GEMM kernels are in use: no."""
    return False


use_tf32_in_gemm_na, is_tf32_in_gemm_na_enabled = use_gemm_na, is_gemm_na_enabled
disable_gemm_na = enable_tf32 = disable_tf32 = enable_gemm_na


def use_autotuner(
    forward_pass: bool | None = None,
    backward_pass: bool | None = None,
    thorough_mode_forward: bool | None = None,
    thorough_mode_backward: bool | None = None,
    warmup_steps_forward: int | None = None,
    warmup_steps_backward: int | None = None,
    steps_forward: int | None = None,
    steps_backward: int | None = None,
) -> None:
    """Remember how kernels should be tuned; None leaves a setting as it is."""
    wanted = {
        "enabled_for_forward": forward_pass,
        "enabled_for_backward": backward_pass,
        "thorough_mode_forward": thorough_mode_forward,
        "thorough_mode_backward": thorough_mode_backward,
        "warmup_steps_forward": warmup_steps_forward,
        "warmup_steps_backward": warmup_steps_backward,
        "steps_forward": steps_forward,
        "steps_backward": steps_backward,
    }
    for name, value in wanted.items():
        if value is not None:
            setattr(AutotunerContext, name, value)


def disable_autotuner() -> None:
    """Remember that nothing should be tuned."""
    use_autotuner(False, False, False, False)


is_autotuner_enabled_for_forward = _is("enabled_for_forward", AutotunerContext)
is_autotuner_enabled_for_backward = _is("enabled_for_backward", AutotunerContext)
is_autotuner_thorough_for_forward = _is("thorough_mode_forward", AutotunerContext)
is_autotuner_thorough_for_backward = _is("thorough_mode_backward", AutotunerContext)


def is_autotuner_enabled() -> bool:
    """Whether the tuner is on for either pass."""
    return AutotunerContext.enabled_for_forward or AutotunerContext.enabled_for_backward


def allow_flex_compile(mode: bool = True, backprop: bool = False) -> None:
    """Remember whether FlexAttention may be compiled."""
    NattenContext.flex_compile_allowed = mode
    NattenContext.flex_compile_backprop_allowed = mode and backprop


is_flex_compile_allowed = _is("flex_compile_allowed")
is_flex_compile_backprop_allowed = _is("flex_compile_backprop_allowed")


def allow_flex_compile_backprop(mode: bool = True) -> None:
    """Remember whether FlexAttention may be compiled for the backward pass."""
    allow_flex_compile(is_flex_compile_allowed(), mode)


def disable_flex_compile() -> None:
    """Remember that FlexAttention may not be compiled."""
    allow_flex_compile(False)


def disable_flex_compile_backprop() -> None:
    """Remember that FlexAttention may not be compiled for the backward pass."""
    allow_flex_compile_backprop(False)
