"""The head of the benchmark: whatever of a machine and a process decides how fast something is."""

import os
import platform
import re
import time
from pathlib import Path

import torch

# what the C library, or another one loaded instead, does with memory that is freed
MEMORY = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES")
OTHERS = ("LD_PRELOAD", "THP_MEM_ALLOC_ENABLE", "OMP_NUM_THREADS", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")
HALF = ("avx512_bf16", "amx_bf16", "avx512_fp16", "amx_fp16", "bf16", "sve_bf16", "fphp")  # x86, then Arm


def describe(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Describe CPU, PyTorch and memory, a line each.

    Example:
        >>> [line.split(":")[0] for line in describe()]
        ['CPU', 'PyTorch', 'memory']
    """
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    set_ones = [f"{name}={os.environ[name]}" for name in (*MEMORY, *OTHERS) if name in os.environ]
    unset = "MALLOC_MMAP_THRESHOLD_ not set" if "MALLOC_MMAP_THRESHOLD_" not in os.environ else ""
    library = " ".join(platform.libc_ver()) or "another C library than glibc"
    threads, capability = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    return [
        f"CPU: {_model(text)}, {os.cpu_count()} cores, {_half_precision(text)}",
        f"PyTorch: {torch.__version__}, {threads} thread{'s' * (threads > 1)}, {capability}",
        "memory: " + ", ".join(filter(None, (library, unset, *set_ones, _huge_pages()))),
    ]


def _model(cpuinfo: str) -> str:
    """The CPU's name; many servers tell no more than a family and a model beside it."""
    field = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", cpuinfo, re.MULTILINE))
    name = field.get("model name") or platform.processor() or platform.machine()
    numbers = [f"{key.removeprefix('cpu ')} {field[key]}" for key in ("cpu family", "model") if key in field]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def _half_precision(cpuinfo: str) -> str:
    """Which instructions for bfloat16 and float16 it has."""
    found = re.search(r"^(?:flags|Features)\s*: (.*)$", cpuinfo, re.MULTILINE)
    if found is None:
        return "half-precision instructions unknown"
    flags = found[1].split()
    return "with " + " ".join(flag for flag in HALF if flag in flags) if {*HALF} & {*flags} else "no bf16 instructions"


def _huge_pages() -> str:
    """Whether the kernel gives large pages, which cost a 512th of the faults."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists():
        return ""
    chosen = re.search(r"\[(\w+)\]", setting.read_text(encoding="ascii"))
    return f"huge pages {chosen[1]}" if chosen else ""


def seconds_of_a_product(size: int = 512) -> float:
    """Time a multiply-add of large matrices, to estimate by.

    Example:
        >>> 0 < seconds_of_a_product(64) < 1e-3
        True
    """
    matrix = torch.randn(size, size)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - began)
    return best / size**3
