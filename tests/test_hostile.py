"""Whatever is wrong with a file, a command says so in one line, ends with status 2, and takes little memory for it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_every_hostile_file_is_one_line(count_cases: Callable[[str, int], None]) -> None:
    """In a process that forks a child for each case; ``python -m tests.hostile`` shows what each takes."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "tests.hostile", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    results = json.loads(done.stdout)
    assert len(results) > 60
    for result in results:
        said = result["said"]
        assert result["status"] == 2, result
        assert said.count("\n") == 1, result
        assert said.startswith("dinat-ref "), result
        assert said.strip("\n").isprintable(), result
        assert result["expected"] in said, result
        assert result["megabytes"] < 200, result
    count_cases("hostile files", len(results))
