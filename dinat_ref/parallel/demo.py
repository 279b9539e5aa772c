"""Denoise a photograph across processes: each owns some rows, and receives the halo that its windows reach.

    torchrun --nproc-per-node 2 -m dinat_ref.parallel.demo PHOTO

The layer is that of ``dinat-ref tour``: non-local means, without any learned weight.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from dinat_ref.analysis.denoising import KERNEL_SIZE, NOISE, STRENGTH
from dinat_ref.analysis.photo import load_photo, patch_operands, psnr
from dinat_ref.attention import na2d
from dinat_ref.command import CommandError
from dinat_ref.parallel.exchange import count_traffic
from dinat_ref.parallel.header import gather
from dinat_ref.parallel.plan import even_split
from dinat_ref.parallel.sharded import neighborhood_attention_sharded

EXAMPLES = """examples:
  torchrun --nproc-per-node 2 -m dinat_ref.parallel.demo                          the photo that matplotlib ships
  torchrun --nproc-per-node 4 -m dinat_ref.parallel.demo cat.jpg --dilation 3     the halo is three times as high
"""


def main(argv: list[str] | None = None) -> int:
    """Denoise, count, and compare with one process; the exit status is 2 when the arguments are not legal.

    Raises:
        SystemExit: after --help.
    Example:
        >>> main(["no such.jpg"])
        2
    """
    parser = Parser(
        prog="python -m dinat_ref.parallel.demo",
        description="Denoise a photograph whose rows are split over processes, and check it against one process.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("image", nargs="?", metavar="PHOTO", help="a photo; by default the one that matplotlib ships")
    size = f"window width in pixels (default {KERNEL_SIZE})"
    parser.add_argument("--kernel-size", type=int, default=KERNEL_SIZE, metavar="K", help=size)
    parser.add_argument("--dilation", type=int, default=1, metavar="D", help="distance of its pixels (default 1)")
    try:
        args = parser.parse_args(argv)
        photo = _photo(args)
    except CommandError as error:
        if int(os.environ.get("RANK", "0")) == 0:
            print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    with _ranks() as mesh:
        _run(photo, mesh, args)
    return 0


class Parser(argparse.ArgumentParser):
    """A parser that tells bad input in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise what ``main`` prints."""
        raise CommandError(message)


def _photo(args: argparse.Namespace) -> Tensor:
    """The photo [X, Y, 3], once all arguments are known to fit it."""
    try:
        photo = load_photo(args.image)
    except (FileNotFoundError, ValueError) as error:
        raise CommandError(error) from None
    for name in ("kernel_size", "dilation"):
        if getattr(args, name) < 1:
            raise CommandError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    rows, columns = photo.shape[:2]
    if args.kernel_size * args.dilation > min(rows, columns):
        reach = (
            f"--kernel-size * --dilation = {args.kernel_size} * {args.dilation} = {args.kernel_size * args.dilation}"
        )
        raise CommandError(f"{reach} must be at most the side of the photo, {rows} x {columns} pixels")
    return photo


@contextmanager
def _ranks() -> Iterator[DeviceMesh]:
    """The processes that torchrun has started, or this one alone."""
    with tempfile.TemporaryDirectory() as folder:
        if "WORLD_SIZE" in os.environ:
            dist.init_process_group("gloo")
        else:
            dist.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=0, world_size=1)
        try:
            yield init_device_mesh("cpu", (dist.get_world_size(),))
        finally:
            dist.destroy_process_group()


def _run(photo: Tensor, mesh: DeviceMesh, args: argparse.Namespace) -> None:
    """Denoise the rows of this rank; the first rank tells and checks."""
    rank, ranks = mesh.get_rank(), mesh.size()
    noisy = photo + NOISE * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    sizes = even_split(len(photo), ranks)
    own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    patches = patch_operands(noisy, patch_size=3, strength=STRENGTH)
    query, key = (x[:, own] for x in patches)
    value, window = noisy[None, own, :, None], {"kernel_size": args.kernel_size, "dilation": args.dilation}
    began = time.perf_counter()
    with torch.no_grad(), count_traffic() as traffic:
        output = neighborhood_attention_sharded(query, key, value, **window, scale=1.0, mesh=mesh, how="halo")
    assert isinstance(output, Tensor)
    seconds = time.perf_counter() - began
    groups = [mesh.get_group(0)]
    counts = gather(groups, torch.tensor([traffic.sent, traffic.received])).tolist()
    rows = torch.nn.functional.pad(output[0, :, :, 0], (0, 0, 0, 0, 0, max(sizes) - len(value[0])))  # one size for all
    shards = gather(groups, rows.reshape(-1)).view(ranks, *rows.shape)
    if rank > 0:
        return
    whole = torch.cat([shard[:size] for shard, size in zip(shards, sizes, strict=True)])
    print(f"{len(photo)} x {photo.shape[1]} pixels, a window of {args.kernel_size} x {args.kernel_size}", end="")
    print(f" at dilation {args.dilation}, over {ranks} {'process' if ranks == 1 else 'processes'}")
    print("rank      rows    bytes sent    bytes received")
    for number, (size, (sent, received)) in enumerate(zip(sizes, counts, strict=True)):
        print(f"{number:>4}{size:>10,}{sent:>14,}{received:>18,}")
    print(f"PSNR {psnr(noisy, photo):.1f} dB before, {psnr(whole, photo):.1f} dB after; {seconds:.1f} s")
    with torch.no_grad():
        alone = na2d(*patches, noisy[None, :, :, None], **window, scale=1.0)
    assert isinstance(alone, Tensor)
    print(f"largest difference to one process {float((whole - alone[0, :, :, 0]).abs().max()):.1e}")


if __name__ == "__main__":
    sys.exit(main())
