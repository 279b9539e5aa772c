"""Before any token moves the ranks compare notes: a rank that disagrees is an error on every rank, never a hang.

The header that travels is a few numbers: a digest of all that must be the same, and the sizes of the rank's shard.
Only where digests differ do the texts behind them travel, too, to say what differs.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

REFUSED = "refused"


def agree(
    groups: Sequence[dist.ProcessGroup],
    device: torch.device | str,
    facts: Mapping[str, object],
    sizes: Sequence[int],
    error: Exception | None = None,
) -> Tensor:
    """Check that all ranks know the same facts, and tell everybody the sizes of all shards.

    Shapes:
        return: int64 [*ranks of each group, len(sizes)], on the CPU
    Args:
        groups: one for each dimension of a mesh.
        device: of the ranks, where their groups take tensors.
        facts: what must be the same on all ranks, by name; compared as text.
        sizes: what may differ, numbers; equally many on all ranks.
        error: what a rank found wrong before it could tell any facts.
    Raises:
        ValueError: the ranks disagree, or another one has an error.
        Exception: the error, on the rank that has it.
    """
    told = {name: str(value) for name, value in facts.items()}
    if error is not None:
        told = {REFUSED: f"{type(error).__name__}: {error}"}
    text = json.dumps(told).encode()
    digest = hashlib.sha256(text).digest()
    header = [int.from_bytes(digest[:8], "big", signed=True), *(sizes if error is None else [0] * len(sizes))]
    headers = gather(groups, torch.tensor(header, device=device)).cpu()  # [*ranks, 1 + sizes]
    digests, shards = headers[..., 0], headers[..., 1:]
    if error is None and bool((digests == digests.flatten()[0]).all()):
        return shards
    texts = _texts(groups, device, text)
    if error is not None:
        raise error
    raise ValueError(_difference(texts))


def gather(groups: Sequence[dist.ProcessGroup], numbers: Tensor) -> Tensor:
    """Collect equally many numbers of every rank: [n] -> [*ranks of each group, n]."""
    for group in reversed(groups):
        pieces = [torch.empty_like(numbers) for _ in range(dist.get_world_size(group))]
        dist.all_gather(pieces, numbers, group=group)
        numbers = torch.stack(pieces)
    return numbers


def _texts(groups: Sequence[dist.ProcessGroup], device: torch.device | str, text: bytes) -> dict[int, dict[str, str]]:
    """What every rank has told, by its number in the whole run."""
    own = [dist.get_rank(), len(text)]
    numbered = gather(groups, torch.tensor(own, device=device)).flatten(0, -2).tolist()
    longest = max(length for _, length in numbered)
    padded = torch.tensor([*text.ljust(longest)], dtype=torch.uint8, device=device)
    rows = gather(groups, padded).flatten(0, -2).tolist()
    return {rank: json.loads(bytes(row)) for (rank, _), row in zip(numbered, rows, strict=True)}


def _difference(texts: Mapping[int, Mapping[str, str]]) -> str:
    """Say who has an error, or about what two ranks disagree."""
    for rank, told in texts.items():
        if REFUSED in told:
            return f"rank {rank} refused its arguments: {told[REFUSED]}"
    first, known = next(iter(texts.items()))
    for rank, told in texts.items():
        for name in {**known, **told}:
            if known.get(name) != told.get(name):
                ours, theirs = f"{known.get(name)} on rank {first}", f"{told.get(name)} on rank {rank}"
                return f"ranks disagree about {name}: {ours}, {theirs}"
    raise AssertionError("digests differ, texts do not")
