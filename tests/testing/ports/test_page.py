"""The page "Verify your port": its code runs, up to the kernel that is the reader's own."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import dinat_ref.testing
from dinat_ref.testing import Kernel, Supports

PAGE = Path(__file__).parents[3] / "tutorials" / "site" / "verify_your_port.md"
SECTIONS = re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.S | re.M)
NEEDS = {"JAX": "jax", "MLX": "mlx.core", "Triton": "triton", "NumPy": "numpy", "ONNX": "onnxruntime"}


@pytest.mark.parametrize(("title", "text"), [section for section in SECTIONS if "```python" in section[1]])
def test_the_ten_lines_reach_the_kernel(title, text, monkeypatch, capsys):
    pytest.importorskip(NEEDS[title], reason=f"{title} is optional: pip install 'dinat-ref[ports]'")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len([line for line in code.splitlines() if line]) <= 11

    def mine(*arrays, **arguments):
        """Stands for the reader's function."""

    port = ModuleType("my_port")
    port.na1d = port.na1d_backward = port.export_model = mine
    asked = []

    def check(kernel, supports=None, checks=None, name=None):
        asked.append(kernel if isinstance(kernel, Kernel) else Kernel(kernel, supports))
        return f"report of {name}"

    monkeypatch.setitem(sys.modules, "my_port", port)
    monkeypatch.setattr(dinat_ref.testing, "check_kernel", check)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    exec(compile(code, PAGE.name, "exec"), {})
    assert f"report of my {title}" in capsys.readouterr().out
    assert isinstance(asked[0].supports, Supports)
