"""The demonstration, by its launcher and alone."""

import re
import subprocess
import sys

import pytest
import torch
from PIL import Image

from dinat_ref.parallel.demo import main
from dinat_ref.parallel.plan import Plan


@pytest.fixture
def photo(tmp_path):
    noise = torch.randint(0, 256, (31, 20, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(noise.numpy()).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_two_processes_denoise_a_photo(photo):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = [*launcher, "dinat_ref.parallel.demo", str(photo), "--kernel-size", "5", "--dilation", "2"]
    result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, timeout=180)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "31 x 20 pixels, a window of 5 x 5 at dilation 2, over 2 processes" in result.stdout
    plan = Plan((16, 15), kernel_size=5, dilation=2)
    numbers = 3 * 9 + 1 + 3  # of a key, a patch of three colours and its length, and of a value
    received = [4 * 20 * numbers * plan.halo(rank) for rank in (0, 1)]
    rows = re.findall(r"^ +(\d) +(\d+) +([\d,]+) +([\d,]+)$", result.stdout, re.M)
    expected = [("0", "16", received[1], received[0]), ("1", "15", received[0], received[1])]
    assert rows == [(number, size, f"{sent:,}", f"{received:,}") for number, size, sent, received in expected]
    difference = re.search(r"largest difference to one process ([\d.e+-]+)", result.stdout)
    assert float(difference[1]) <= 1e-5


def test_one_process_needs_no_launcher(photo, capsys):
    assert main([str(photo), "--kernel-size", "3"]) == 0
    printed = capsys.readouterr().out
    assert "over 1 process\n" in printed
    assert "   0        31             0                 0\n" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kernel-size", "7", "--dilation", "3"], "7 * 3 = 21 must be at most the side of the photo, 31 x 20 pixels"),
        (["--dilation", "0"], "--dilation must be at least 1, got 0"),
        (["--kernel-size", "x"], "argument --kernel-size: invalid int value: 'x'"),
    ],
)
def test_bad_input_is_refused_in_one_line(photo, arguments, message, capsys):
    assert main([str(photo), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("python -m dinat_ref.parallel.demo: error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
