"""The checks of the puzzles accept what is right, refuse what is nearly right, and draw the case that fails."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dinat_ref import Neighborhood, na2d, window
from dinat_ref.viz.puzzles import (
    Verdict,
    check_attended_by,
    check_attention,
    check_causal_leader,
    check_gather,
    check_group,
    check_window,
)
from dinat_ref.window import leader


def clipped(i: int, length: int, kernel_size: int) -> range:
    """Cut at the edges, where it should be shifted."""
    return range(max(i - kernel_size // 2, 0), min(i - kernel_size // 2 + kernel_size, length))


def leans_right(i: int, length: int, kernel_size: int) -> range:
    """Right for odd kernels."""
    start = min(max(i - (kernel_size - 1) // 2, 0), length - kernel_size)
    return range(start, start + kernel_size)


WRONG = [
    (check_window, clipped, "i = 0, length = 2, kernel_size = 2: wanted 0 1, got 0"),
    (check_window, leans_right, "i = 1, length = 3, kernel_size = 2: wanted 0 1, got 1 2"),
    (check_window, lambda i, length, k: range(k), "wanted 1, got 0"),
    (check_window, lambda i, length, k: [*window(i, length, k), i], "wanted 0, got 0 0"),
    (check_causal_leader, leader, "m = 0, n = 3, stride = 3: wanted 2, got 1"),
    (check_causal_leader, lambda m, n, s: m // s * s + s - 1, "m = 2, n = 3, stride = 2: wanted 2, got 3"),
    (check_group, lambda i, length, d: range(i, length, d), "i = 1, length = 2, dilation = 1: wanted 0 1, got 1"),
    (check_attended_by, window, "j = 1, length = 3, kernel_size = 2: wanted 0 1 2, got 0 1"),
    (check_window, lambda *_: None, "got TypeError: 'NoneType' object is not iterable"),
    (check_window, lambda: None, "got TypeError"),
    (check_window, lambda *_: [], "wanted 0, got nothing"),
    (check_window, lambda *_: range(10**9), "got more than 1000 positions"),
]


def attend(query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int) -> Tensor:
    batch = [tensor[None, :, :, None] for tensor in (query, key, value)]
    return na2d(*batch, kernel_size=kernel_size, dilation=dilation)[0, :, :, 0]


def gather(query: Tensor, key: Tensor, value: Tensor, indices: Tensor) -> Tensor:
    scores = torch.einsum("nd,nkd->nk", query, key[indices]) * query.shape[-1] ** -0.5
    return torch.einsum("nk,nkd->nd", scores.softmax(-1), value[indices])


def is_drawn(verdict: Verdict) -> bool:
    shown = verdict._repr_png_()
    return shown is not None and shown[0].startswith(b"\x89PNG")


def test_the_definition_solves_all() -> None:
    solved = [
        check_window(window),
        check_causal_leader(lambda m, n, stride: leader(m, n, stride, is_causal=True)),
        check_group(lambda i, length, dilation: range(i % dilation, length, dilation)),
        check_attended_by(lambda j, length, k: Neighborhood((length,), k).attended_by((j,))),
        check_gather(gather),
        check_attention(attend),
    ]
    for verdict in solved:
        assert verdict.solved, verdict
        assert repr(verdict).startswith("solved: all")
        assert verdict._repr_png_() is None


@pytest.mark.parametrize(("check", "function", "says"), WRONG)
def test_what_is_wrong_is_said_and_drawn(
    check: Callable[..., Verdict], function: Callable[..., Any], says: str
) -> None:
    verdict = check(function)
    assert not verdict.solved
    assert says in repr(verdict)
    assert is_drawn(verdict)


@pytest.mark.parametrize(
    "damage",
    [
        lambda *arguments: 2 * attend(*arguments),
        lambda query, *rest: attend(2 * query, *rest),
        lambda query, key, value, kernel_size, dilation: attend(query, key, value, kernel_size, 1),
        lambda query, key, value, kernel_size, dilation: (
            attend(query, key, value, 3, dilation) if kernel_size > 2 else value
        ),
        lambda *arguments: attend(*arguments).flip(0),
        lambda *arguments: attend(*arguments)[:-1],
        lambda *arguments: attend(*arguments) * float("nan"),
        lambda *arguments: None,
        lambda *arguments: attend(*arguments).transpose(0, 1).reshape(*arguments[0].shape[:2], -1),
    ],
)
def test_a_damaged_kernel_is_refused(damage: Callable[..., Any]) -> None:
    verdict = check_attention(damage)
    assert not verdict.solved
    assert is_drawn(verdict)
