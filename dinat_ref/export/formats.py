"""The three kinds of file, each written from the same traced program and read back as whoever runs it would."""

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from dinat_ref.command import CommandError, show_progress
from dinat_ref.models.optional import need

Runner = Callable[[Tensor], Tensor]  # images [B, C, H, W] -> what the model says of them

MOST_ONNX_BYTES = 2**31 - 2**20  # of one file: its format, protobuf, counts them in 31 bits


@contextmanager
def without_chatter() -> Iterator[None]:
    """Keep back what PyTorch's exporters say to their own developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def write_pt2(program: ExportedProgram, path: Path) -> None:
    """Write what ``torch.export.load`` reads."""
    torch.export.save(program, path)


def read_pt2(path: Path) -> Runner:
    """Read such a file: the program as a module."""
    return torch.export.load(path).module()


def write_aoti(program: ExportedProgram, path: Path) -> None:
    """Compile for this machine and write what ``torch._inductor.aoti_load_package`` reads."""
    package = path.with_suffix(".pt2")  # the only one that it writes and reads
    try:
        torch._inductor.aoti_compile_and_package(program, package_path=str(package))
        package.replace(path)
    finally:
        package.unlink(missing_ok=True)


def read_aoti(path: Path) -> Runner:
    """Load the compiled program into this process."""
    package = path.with_suffix(".pt2")
    package.symlink_to(path.resolve())
    try:
        return torch._inductor.aoti_load_package(str(package))
    finally:
        package.unlink()


def write_onnx(program: ExportedProgram, path: Path) -> None:
    """Convert to ONNX, simplify, and write one file with everything."""
    shape = symbols(program)
    converted = torch.onnx.export(program, dynamic_shapes=(shape,), dynamo=True, optimize=False, verbose=False)
    assert converted is not None
    show_progress("simplifying the ONNX graph")
    converted.optimize()
    share_constants(converted.model)
    size = sum(value.const_value.nbytes for value in converted.model.graph.initializers.values() if value.const_value)
    if size > MOST_ONNX_BYTES:
        raise CommandError(f"an .onnx file holds at most 2 GB, and this model is {size / 1e9:.1f} GB: use .pt2")
    converted.save(path, external_data=False)


def symbols(program: ExportedProgram) -> dict[int, Dim]:
    """Name the axes of the image that a program left open; the program itself calls them s40 or s77."""
    wanted = program.graph_signature.user_inputs[0]
    image = next(node.meta["val"] for node in program.graph.nodes if node.name == wanted)
    names = {0: "batch", 2: "height", 3: "width"}
    return {axis: Dim(name) for axis, name in names.items() if isinstance(image.shape[axis], torch.SymInt)}


def share_constants(model: "onnx_ir.Model") -> None:  # type: ignore[name-defined] # noqa: F821
    """Keep one of equal tables."""
    common = importlib.import_module("onnx_ir.passes.common")
    common.DeduplicateInitializersPass(size_limit=2**18)(model)


def read_onnx(path: Path) -> Runner:
    """Load a model into onnxruntime, on the processor, with as many threads as PyTorch has."""
    runtime = need("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: image.numpy()})[0])

    return run


class Format:
    """A kind of file: how it is written and read, and which packages that takes."""

    def __init__(
        self,
        what: str,
        write: Callable[[ExportedProgram, Path], None],
        read: Callable[[Path], Runner],
        packages: tuple[str, ...] = (),
    ) -> None:
        """Take the parts."""
        self.what, self.write, self.read, self.packages = what, write, read, packages


FORMATS = {
    ".onnx": Format("ONNX, for onnxruntime and others", write_onnx, read_onnx, ("onnx", "onnxscript", "onnxruntime")),
    ".pt2": Format("torch.export, for PyTorch", write_pt2, read_pt2),
    ".aoti": Format("AOTInductor, compiled for this machine", write_aoti, read_aoti),
}
