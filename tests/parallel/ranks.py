"""A few processes that wait for work: ranks of a gloo group that tests hand functions to.

They find each other through a file, so no port has to be free. A rank that fails or dies ends the test with its
traceback, ranks that hang end it after a while; the next test finds new ones.
"""

import contextlib
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

PATIENCE = 120.0  # seconds for one function; on a busy machine processes need ten to start
GRACE = 1.0  # seconds for the others' errors once a rank has failed


class RankError(AssertionError):
    """What went wrong on a rank."""


class Ranks:
    """So many processes, started when they are first needed."""

    def __init__(self, count: int, patience: float = PATIENCE) -> None:
        self.count, self.patience = count, patience
        self.processes: list[Any] = []
        self.connections: list[Connection] = []

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call a function of a module on every rank, and return what each returns."""
        if not self.processes:
            self._start()
        for connection in self.connections:
            connection.send((function, arguments))
        results: dict[int, Any] = {}
        failures: dict[int, str] = {}
        deadline = time.monotonic() + self.patience
        while len(results) + len(failures) < self.count and time.monotonic() < deadline:
            for rank in self._ready(deadline - time.monotonic(), {*results, *failures}):
                try:
                    text, result = self.connections[rank].recv()
                except EOFError:
                    self.processes[rank].join(GRACE)
                    text, result = f"it died with exit code {self.processes[rank].exitcode}", None
                if text is None:
                    results[rank] = result
                else:
                    failures[rank] = text
                    deadline = min(deadline, time.monotonic() + GRACE)
        if len(results) < self.count:
            silent = sorted({*range(self.count)} - {*results, *failures})
            self.stop()
            texts = [f"rank {rank}: {text}" for rank, text in sorted(failures.items())]
            hang = [f"nothing was heard of ranks {silent} for {self.patience:.0f} s"] if silent and not failures else []
            raise RankError("\n".join(texts + hang))
        return [results[rank] for rank in range(self.count)]

    def _ready(self, seconds: float, done: set[int]) -> list[int]:
        waiting = {id(connection): rank for rank, connection in enumerate(self.connections) if rank not in done}
        heard = wait([self.connections[rank] for rank in waiting.values()], max(seconds, 0))
        return [waiting[id(connection)] for connection in heard]

    def _start(self) -> None:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context = multiprocessing.get_context(method)
        context.set_forkserver_preload(["dinat_ref.parallel.sharded", "torch.distributed.tensor"])  # once for all ranks
        folder = Path(tempfile.mkdtemp(prefix="ranks-"))
        for rank in range(self.count):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(rank, self.count, str(folder), theirs), daemon=True)
            process.start()
            theirs.close()  # so that a death is heard
            self.processes.append(process)
            self.connections.append(ours)

    def stop(self) -> None:
        """End the processes."""
        for connection in self.connections:
            connection.close()
        for process in self.processes:
            process.kill()
            process.join()
        self.processes, self.connections = [], []


def serve(rank: int, count: int, folder: str, connection: Connection) -> None:
    """What a rank does: it waits for a function, calls it, and tells what came of it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            os._exit(0)  # nobody is there any more
        try:
            connection.send((None, function(*arguments)))
        except BaseException:
            text = traceback.format_exc()
            with contextlib.suppress(OSError):
                connection.send((text, None))


@cache
def mesh_of(shape: tuple[int, ...]) -> DeviceMesh:
    """The ranks as a mesh of that shape; where it is smaller than they are, several of it do the same side by side."""
    copies = dist.get_world_size() // torch.Size(shape).numel()
    names = ("copy", *(f"axis {dim}" for dim in range(len(shape))))
    return init_device_mesh("cpu", (copies, *shape), mesh_dim_names=names)[names[1:]]
