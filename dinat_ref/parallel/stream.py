"""Maps larger than memory through one process: a layer of attention, or a whole backbone, band by band.

The plan is that of several ranks, carried out one after the other. A map lies in a file; a step reads the rows that a
band of its outputs sees, computes them, and writes them to the next file. With dilation a band is one of a dilation
group, for the rows of a group see each other alone. What is done is written down after each band: a run that was
interrupted goes on where it was when it is started again in the same way.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dinat_ref.command import check_writable, make_folder, show_progress
from dinat_ref.layers import NeighborhoodAttention2D
from dinat_ref.models.backbone import DinatBackbone, norm_name
from dinat_ref.parallel.bands import Map, Prepare, Streaming
from dinat_ref.parallel.rowfile import Array, RowFile, spool
from dinat_ref.parallel.walk import walk

MEMORY = 2**30  # bytes, for the tensors of a band


def stream(
    module: NeighborhoodAttention2D | DinatBackbone,
    source: Path | str | np.memmap[Any, Any] | Iterable[Array],
    out: Path | str,
    *,
    memory: int = MEMORY,
    prepare: Prepare | None = None,
) -> list[Path]:
    """Run a layer or a backbone on a map in a file, and write what it gives to a file, within so much memory.

    Shapes:
        source: [X, Y, C] in a .npy file
        out: for a layer a .npy file [X, Y, embed_dim]; for a backbone a folder with a .npy file [X / 4, Y / 4, C] ...
            for each stage in the model's out_features: stage1.npy, stage2.npy, ...
    Args:
        source: the file, a memory map of one, or bands of rows [rows, Y, C], which are written to a file first.
        memory: bytes for the tensors of a band; the process takes its libraries and parameters beside them.
        prepare: turns rows of the source into the module's input, [rows, Y, C] -> [rows, Y, C']: to floating point,
            normalised. None: to the dtype of the parameters.
    Returns:
        The files.
    Raises:
        OSError: a file that cannot be read.
        UnwritableError: a file that cannot be written.
        ValueError: another module or map; not even one row fits into the memory.
    Cost: room on the disk for two maps beside what is returned.
    Example:
        >>> import tempfile
        >>> layer = NeighborhoodAttention2D(8, num_heads=2, kernel_size=3, dilation=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/map.npy", np.random.randn(20, 9, 8).astype(np.float32))
        ...     (path,) = stream(layer, f"{folder}/map.npy", f"{folder}/out.npy")
        ...     np.load(path).shape
        (20, 9, 8)
    """
    out = Path(out)
    _check_module(module)
    check_writable(out / "stage.npy" if isinstance(module, DinatBackbone) else out)
    work = out.parent / f".{out.name}.unfinished"
    make_folder(work)
    file = _open(source, work)
    dtype = next(module.parameters()).dtype
    run = Streaming(work, memory, dtype, prepare, _fingerprint(module, file, memory))
    was_training = module.training
    try:
        with torch.inference_mode():
            module.eval()
            image = Map(file.path, file.shape)
            if isinstance(module, DinatBackbone):
                found = dict(_stages(module, image, run, out))
            else:
                found = {out: run.attention(image, module)}
    except ValueError:
        run.forget()  # it would end in the same way again
        raise
    finally:
        module.train(was_training)
        show_progress("")
    for path, result in found.items():
        result.path.replace(path)
    run.forget()
    return list(found)


def _check_module(module: nn.Module) -> None:
    """Raise unless the module is one whose rows can be had band by band."""
    if not isinstance(module, NeighborhoodAttention2D | DinatBackbone):
        kinds = "a NeighborhoodAttention2D or a DinatBackbone"
        raise ValueError(f"module must be {kinds}, got {type(module).__name__}")
    if getattr(module, "rotary", None) is not None:
        raise ValueError("module must not be rotary: a band does not know its place")
    if next(module.parameters()).dtype not in (torch.float16, torch.float32, torch.float64):
        raise ValueError("parameters must be of a dtype that .npy files have: float16, float32 or float64")


def _open(source: Any, work: Path) -> RowFile:
    """The file of a map; bands of rows are written to one first, unless an earlier run has done so."""
    if isinstance(source, str | Path):
        return RowFile(source)
    if isinstance(source, np.memmap) and isinstance(source.filename, str | Path):
        file = RowFile(source.filename)
        if (file.shape, file.dtype) == (source.shape, source.dtype):
            return file
    path = work / "source.npy"
    if not path.exists():
        spool([source] if isinstance(source, np.ndarray) else source, work / "bands.npy").path.replace(path)
    return RowFile(path)


def _fingerprint(module: nn.Module, file: RowFile, memory: int) -> str:
    """What makes two runs the same: the module and its parameters, the file, and how it is cut into bands."""
    digest = hashlib.sha256(f"{module} {file.path.resolve()} {file.shape} {memory}".encode())
    digest.update(str(file.path.stat().st_mtime_ns).encode())
    for tensor in module.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _stages(model: Any, image: Map, run: Streaming, out: Path) -> Iterator[tuple[Path, Map]]:
    """The normalised maps that a backbone returns, and where they go."""
    last = max(model.out_indices)
    for index, x in enumerate(walk(model, image, run)):
        if index in model.out_indices:
            yield out / f"{model.stage_names[index]}.npy", run.tokens(x, model.get_submodule(norm_name(index)))
        if index == last:
            return
