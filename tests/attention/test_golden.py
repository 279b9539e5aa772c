"""Parity with real NATTEN kernels: every golden case, every formulation, gradients too."""

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dinat_ref import neighborhood_attention
from tests.strategies import IMPLS

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = 48

Count = Callable[[str, int], None]


@lru_cache
def load(name: str) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
    """The cases of a file: what was asked, and the tensors."""
    with np.load(GOLDEN / name, allow_pickle=False) as file:
        cases = []
        for i in range(int(file["count"])):
            names = [entry for entry in file.files if entry.startswith(f"{i}/") and not entry.endswith("/meta")]
            tensors = {entry.split("/")[1]: torch.tensor(file[entry]) for entry in names}
            cases.append((json.loads(str(file[f"{i}/meta"])), tensors))
    return cases


def where(meta: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the call, one entry per axis."""
    return {name: tuple(meta[name]) for name in ("kernel_size", "stride", "dilation", "is_causal") if name in meta}


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("case", range(CASES))
def test_natten_017_float64_with_gradients(impl: str, case: int, count_cases: Count) -> None:
    meta, tensors = load("natten017.npz")[case]
    names = ["q", "k", "v", *(["rpb"] if meta["rpb"] else [])]
    inputs = [tensors[name].clone().requires_grad_() for name in names]
    rpb = inputs[3] if meta["rpb"] else None
    output = neighborhood_attention(*inputs[:3], **where(meta), rpb=rpb, impl=impl)
    gradients = torch.autograd.grad(output, inputs, tensors["go"])
    assert_close(output.detach(), tensors["out"], rtol=0, atol=1e-10)
    for name, gradient in zip(names, gradients, strict=True):
        assert_close(gradient, tensors["d" + name], rtol=0, atol=1e-10, msg=lambda text, name=name: f"d{name}: {text}")
    count_cases("golden cases", 1)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("case", range(CASES))
def test_natten_021_float32_with_lse(impl: str, case: int, count_cases: Count) -> None:
    meta, tensors = load("natten021.npz")[case]
    output, lse = neighborhood_attention(
        tensors["q"],
        tensors["k"],
        tensors["v"],
        **where(meta),
        additional_keys=tensors.get("ek"),
        additional_values=tensors.get("ev"),
        return_lse=True,
        impl=impl,
    )
    assert_close(output, tensors["out"], rtol=0, atol=2e-5)
    assert_close(lse, tensors["lse"], rtol=0, atol=2e-5)
    count_cases("golden cases", 1)


def test_files_hold_what_their_note_says() -> None:
    """Nothing in a file goes unread, and each feature occurs."""
    old, new = load("natten017.npz"), load("natten021.npz")
    assert len(old) == len(new) == CASES
    for meta, tensors in old:
        expected = {"q", "k", "v", "out", "go", "dq", "dk", "dv"} | ({"rpb", "drpb"} if meta["rpb"] else set())
        assert set(tensors) == expected
        assert tuple(tensors["q"].shape[1:-2]) == tuple(meta["shape"])
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float64}
    for meta, tensors in new:
        assert set(tensors) == {"q", "k", "v", "out", "lse"} | ({"ek", "ev"} if meta["extra"] else set())
        assert tuple(tensors["q"].shape[1:-2]) == tuple(meta["shape"])
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    for cases in (old, new):
        assert {meta["ndim"] for meta, _ in cases} == {1, 2, 3}
        assert any(max(meta["dilation"]) > 1 for meta, _ in cases)
        assert any(any(meta["is_causal"]) for meta, _ in cases)
    assert any(size % 2 == 0 for meta, _ in new for size in meta["kernel_size"])
    assert any(max(meta["stride"]) > 1 for meta, _ in new)
    assert any(meta["heads"] != meta["heads_kv"] for meta, _ in new)
