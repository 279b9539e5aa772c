"""Convolutions and poolings over split rows: the plan against brute force, the numbers against PyTorch."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dinat_ref.parallel.halo import Sliding, slide, sliding_of
from tests.parallel.ranks import Ranks, mesh_of
from tests.parallel.test_plan import splits

WINDOWS = [(3, 2, 1), (3, 1, 1), (2, 2, 0), (1, 1, 0), (5, 3, 2), (4, 2, 1)]


def test_every_split_brings_what_the_outputs_see(count_cases: Callable[[str, int], None]) -> None:
    plans = 0
    for window, length in itertools.product(WINDOWS, range(1, 9)):
        size, stride, padding = window
        if length + 2 * padding < size:
            continue
        count = (length + 2 * padding - size) // stride + 1
        for sizes in splits(length, 3):
            sliding = Sliding(sizes, *window)
            owner = [rank for rank, own in enumerate(sizes) for _ in range(own)]
            assert list(itertools.chain(*sliding.output_shards)) == list(range(count))
            for rank, outputs in enumerate(sliding.output_shards):
                assert all(owner[stride * o] == rank for o in outputs)
                seen = {stride * o - padding + tap for o in outputs for tap in range(size)} & set(range(length))
                received = {(s, i) for s, ranges in sliding.receives(rank).items() for r in ranges for i in r}
                assert received == {(owner[i], i) for i in seen if owner[i] != rank}
                for target, ranges in sliding.sends(rank).items():
                    assert sliding.receives(target)[rank] == ranges
            plans += 1
    count_cases("plans", plans)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "convolution": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
    "wide": lambda: nn.Conv2d(4, 2, (5, 3), stride=(1, 2), padding=(2, 0), bias=False),
    "max": lambda: nn.MaxPool2d(3, stride=2, padding=1),
    "mean": lambda: nn.AvgPool2d(3, stride=2, padding=1),
    "blocks": lambda: nn.AvgPool2d(2),
}


def slid(name: str, sizes: tuple[int, ...] | None) -> list[Any]:
    """The output, and the gradients of the input and of the parameters, of a rank or of one process."""
    torch.manual_seed(0)
    module = MODULES[name]().double()
    whole = torch.randn(2, 4, 11, 7, dtype=torch.float64)
    whole_output = module(whole)
    upstream = torch.randn_like(whole_output)
    if sizes is None:
        x = whole.requires_grad_()
        output = module(x)
    else:
        mesh = mesh_of((4,))
        sliding, apply, fill = sliding_of(module, sizes)
        own, outputs = sliding.shards[mesh.get_rank()], sliding.output_shards[mesh.get_rank()]
        x = whole[:, :, own.start : own.stop].clone().requires_grad_()
        output = slide(apply, x, sliding, mesh.get_group(0), fill)
        upstream = upstream[:, :, outputs.start : outputs.stop]
    output.backward(upstream)
    return [output.detach().numpy(), x.grad.numpy(), *(weights.grad.numpy() for weights in module.parameters())]


@pytest.mark.parametrize("sizes", [(3, 3, 3, 2), (1, 0, 9, 1), (0, 0, 0, 11), (5, 1, 1, 4)])
@pytest.mark.parametrize("name", MODULES)
def test_ranks_slide_as_one_process(ranks: Ranks, name: str, sizes: tuple[int, ...]) -> None:
    found, expected = ranks.run(slid, name, sizes), slid(name, None)
    for number, whole in enumerate(expected):
        pieces = [answer[number] for answer in found]
        joined = np.concatenate(pieces, 2) if number < 2 else sum(pieces)
        assert_close(torch.from_numpy(joined), torch.from_numpy(whole), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Conv2d(1, 1, 3, dilation=2), "module must be a convolution padded with zeros, or a pooling, without gaps"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "module must be a convolution padded with zeros"),
        (nn.Conv2d(1, 1, 3, padding="same"), "windows must have a kernel_size, a stride and a padding in numbers"),
        (nn.Conv2d(1, 1, 3, padding=2), r"2 \* padding must be below kernel_size, got 2 \* 2 and 3"),
        (nn.MaxPool2d(2, ceil_mode=True), "without gaps, got MaxPool2d"),
        (nn.Linear(2, 2), "windows must have a kernel_size"),
        (nn.AvgPool2d(20), "an axis of 7 is too short for a window of 20"),
    ],
)
def test_other_modules_are_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sliding_of(module, (3, 4))
