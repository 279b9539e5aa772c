"""Processes of their own: what they measure, and how they end; and what the head says of a machine."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from dinat_ref.bench.machine import describe
from dinat_ref.bench.processes import peak_megabytes, plain_process
from dinat_ref.bench.shapes import SHAPES, square
from dinat_ref.bench.turns import CannotRunError, page_faults

TINY = SHAPES["tiny"][0]
LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are measured on Linux")


def test_a_plain_process_runs_when_it_is_told_to() -> None:
    with plain_process(TINY, "gather") as plain:
        found = [plain.run() for _ in range(2)]
        assert all(sample.seconds > 0 for sample in found)
        assert (found[0].faults is None) == (page_faults() is None)
        plain.process.kill()
        plain.process.wait()
        with pytest.raises(CannotRunError, match="its process ended"):
            plain.run()
    assert plain.process.returncode == -signal.SIGKILL if hasattr(signal, "SIGKILL") else plain.process.returncode


def test_who_cannot_run_in_a_plain_process_says_why() -> None:
    with plain_process(replace(TINY, layout=(100, 100)), "loops") as plain, pytest.raises(CannotRunError) as stop:
        plain.run()
    assert str(stop.value) == "10,000 tokens one by one would take minutes"


@LINUX
def test_peaks_are_those_of_what_is_alive() -> None:
    """The split form holds all scores and all weights, tiled neither; backward needs more than forward."""
    problem = square(96, heads=1, batch=2)
    weights = 4e-6 * problem.batch * problem.num_tokens * problem.num_keys
    forward, both = peak_megabytes(problem, "split form", backward=True)
    fused, nothing = peak_megabytes(problem, "tiled")
    assert forward is not None
    assert both is not None
    assert fused is not None
    assert nothing is None
    assert forward >= 2 * weights  # softmax is not done in place
    assert both > forward
    assert fused < forward


MACHINES = {
    "model name: Xeon\ncpu family: 6\nmodel: 143\nflags: fpu amx_bf16 avx512_bf16 sse\n": "with avx512_bf16 amx_bf16",
    "model name: Old\nflags: fpu avx2\n": "no bf16 instructions",
    "processor: 0\nFeatures: fp asimd fphp bf16\n": "with bf16 fphp",
    "": "half-precision instructions unknown",
}


@pytest.mark.parametrize("cpuinfo", MACHINES)
def test_the_head_says_whether_a_cpu_has_half_precision(cpuinfo: str, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo.replace(":", "\t:"), encoding="utf-8")
    line = describe(file)[0]
    assert line.endswith(f", {os.cpu_count()} cores, {MACHINES[cpuinfo]}")
    if "Xeon" in cpuinfo:
        assert line.startswith("CPU: Xeon (family 6, model 143), ")
