"""One process or several: who am I, and how do we add up?

``torchrun`` starts the processes and tells each its number in the environment; gloo connects CPUs, nccl GPUs. A run
that was not started by torchrun is one process, and nothing here does anything.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Process:
    """One of the processes of a run.

    Args:
        number: from 0 on; process 0 writes files and talks.
        count: how many there are.
        device: where its model lives.
    Source: PyTorch's torchrun.
    Example:
        >>> Process().is_first, Process().add_up(torch.tensor([1.5, 2.0]))
        (True, tensor([1.5000, 2.0000]))
    """

    number: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """Whether this process writes and talks."""
        return self.number == 0

    def share(self, whole: Tensor) -> Tensor:
        """Give this process its part of something for all: [count * n, ...] -> [n, ...]."""
        return whole.chunk(self.count)[self.number]

    def add_up(self, numbers: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count > 1:
            torch.distributed.all_reduce(numbers)
        return numbers

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            torch.distributed.barrier()


@contextmanager
def join_processes(device: str | None = None) -> Iterator[Process]:
    """Connect with the other processes that torchrun started; without torchrun be the only one.

    Args:
        device: "cpu", "cuda", "mps", ...; None means a GPU of CUDA where there is one.
    Raises:
        RuntimeError: the other processes cannot be reached, or no such device.
    Source: PyTorch's torchrun and init_process_group.
    Example:
        >>> with join_processes("cpu") as process:
        ...     process.count
        1
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    kind = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if count == 1:
        torch.empty(0, device=kind)  # raises where there is no such device
        yield Process(device=kind)
        return
    if kind.type == "cuda" and kind.index is None:
        kind = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(kind)
    torch.distributed.init_process_group("nccl" if kind.type == "cuda" else "gloo")
    try:
        yield Process(torch.distributed.get_rank(), count, kind)
    finally:
        torch.distributed.destroy_process_group()
