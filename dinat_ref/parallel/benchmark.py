"""What it costs to split attention over two processes: ``dinat-ref bench --shapes parallel``.

Two processes with a thread each, by halos, by heads, and by gathering all keys and values, against one process with
two threads: the same cores, so that whatever is above 1 is the price of the split on one machine.
"""

import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from dinat_ref.attention import na2d, neighborhood_attention_part
from dinat_ref.command import CommandError, show_progress, whole_file
from dinat_ref.parallel.exchange import Pieces, count_traffic
from dinat_ref.parallel.sharded import neighborhood_attention_sharded

RANKS = 2
PATIENCE = 60.0  # seconds for two processes to start, and for one round


@dataclass(frozen=True)
class Problem:
    """One call: a square map of tokens."""

    side: int
    dilation: int
    kernel_size: int = 7
    heads: int = 4
    head_dim: int = 32

    def __str__(self) -> str:
        """What is computed, in a line."""
        tokens = f"{self.side} x {self.side} tokens, {self.heads} heads of {self.head_dim}"
        return f"{tokens}, kernel {self.kernel_size}, dilation {self.dilation}"


PROBLEMS = (Problem(192, 1), Problem(192, 4), Problem(192, 27))


@dataclass
class Row:
    """What was measured of one way: the median time, and the bytes that the first rank receives in a forward pass."""

    problem: str
    way: str
    milliseconds: float
    ratio: float
    received: int


def measure(problem: Problem, rounds: int = 5, backward: bool = False) -> list[Row]:
    """Measure all ways in processes of their own, in rounds in which everybody runs in turn.

    Shapes:
        return: a Row for each way, one process first
    Raises:
        CommandError: a process that fails, or does not answer.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        ends = [context.Pipe(duplex=False) for _ in range(RANKS)]
        arguments = (folder, problem, rounds, backward)
        processes = [context.Process(target=_rank, args=(r, ends[r][1], *arguments), daemon=True) for r in range(RANKS)]
        try:
            for process, (_, theirs) in zip(processes, ends, strict=True):
                process.start()
                theirs.close()
            times, received = _answer(ends[0][0], rounds)
        finally:
            for process in processes:
                process.kill()
                process.join()
    medians = {way: 1e3 * statistics.median(taken) for way, taken in times.items()}
    alone = medians["one process"]
    return [Row(str(problem), way, median, median / alone, received[way]) for way, median in medians.items()]


def _answer(connection: Connection, rounds: int) -> tuple[dict[str, list[float]], dict[str, int]]:
    """What the first rank tells when it is done; each round it says that it is alive."""
    for number in range(rounds + 2):  # one to warm up, and the last for the answer
        show_progress(f"round {number} of {rounds}")
        try:
            told = connection.recv() if connection.poll(PATIENCE) else None
        except EOFError:
            told = None
        if told is None:
            raise CommandError(f"a process has failed, or did not answer for {PATIENCE:.0f} seconds")
    show_progress("")
    times, received = told or ({}, {})
    return times, received


def _rank(rank: int, connection: Connection, folder: str, problem: Problem, rounds: int, backward: bool) -> None:
    """What a process does: all ways in turn, once to warm up and then in rounds."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=RANKS)
    mesh = init_device_mesh("cpu", (RANKS,))
    shape = (1, problem.side, problem.side, problem.heads, problem.head_dim)
    whole = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)).requires_grad_(backward)
    half = problem.side // RANKS
    own = whole.detach()[:, :, rank * half : (rank + 1) * half].clone().requires_grad_(backward)
    times: dict[str, list[float]] = {}
    received: dict[str, int] = {}
    for number in range(rounds + 1):
        for way, attend in _ways(problem, mesh).items():
            alone = way == "one process"
            torch.set_num_threads(RANKS if alone else 1)
            dist.barrier()
            began = time.perf_counter()
            if not alone or rank == 0:
                with count_traffic() as traffic:
                    output = attend(*(whole if alone else own))
                received[way] = traffic.received
                if backward:
                    output.sum().backward()
            dist.barrier()
            if number > 0:
                times.setdefault(way, []).append(time.perf_counter() - began)
        if rank == 0:
            connection.send(number)
    if rank == 0:
        connection.send((times, received))
    dist.barrier()


def _ways(problem: Problem, mesh: DeviceMesh) -> dict[str, Callable[..., Any]]:
    """Each way, as a function of query, key and value."""
    window: dict[str, Any] = {"kernel_size": problem.kernel_size, "dilation": problem.dilation}
    layout, group, rank = (problem.side,) * 2, mesh.get_group(0), mesh.get_rank()

    def gathered(query: Tensor, key: Tensor, value: Tensor) -> Any:
        both = torch.cat([key, value], -1)
        key, value = torch.cat(Pieces([both] * RANKS, [both.shape] * RANKS, group).wait(), 1).chunk(2, -1)
        start = (rank * query.shape[1], 0)
        return neighborhood_attention_part(
            query, key, value, **window, layout=layout, query_start=start, key_start=(0, 0)
        )

    ways = {how: partial(neighborhood_attention_sharded, **window, mesh=mesh, how=how) for how in ("halo", "heads")}
    return {"one process": partial(na2d, **window), **ways, "all-gather": gathered}


def run(rounds: int, backward: bool, path: Path | None) -> int:
    """Measure all problems, print a table for each, and write the rows to a file.

    Raises:
        CommandError: as ``measure``.
    """
    what = "forward + backward" if backward else "forward"
    print(f"{what} on {RANKS} processes with a thread each; one process with {RANKS} threads is 1")
    print(f"medians of {rounds} rounds in which everybody runs in turn; PyTorch {torch.__version__}")
    rows = []
    for problem in PROBLEMS:
        found = measure(problem, rounds, backward)
        rows += found
        print(f"\n{problem}\n{table(found)}", flush=True)
        if path is not None:
            with whole_file(path) as temporary:
                text = json.dumps({"rows": [asdict(row) for row in rows]}, indent=1) + "\n"
                temporary.write_text(text, encoding="utf-8")
    return 0


def table(rows: list[Row]) -> str:
    """Set rows as an aligned table.

    Example:
        >>> print(table([Row("", "one process", 80.0, 1.0, 0), Row("", "halo", 90.0, 1.125, 3_538_944)]))
        way                 ms   ratio   MB received, forward
        one process       80.0    1.00                    0.0
        halo              90.0    1.12                    3.5
    """
    lines = ["way                 ms   ratio   MB received, forward"]
    lines += [f"{row.way:<12}{row.milliseconds:>10.1f}{row.ratio:>8.2f}{row.received / 1e6:>23.1f}" for row in rows]
    return "\n".join(lines)
