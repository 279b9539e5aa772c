"""Golden vectors: problems with their answers, as .npz files and a JSON manifest, for kernels far from PyTorch.

``export(directory)`` writes ``manifest.json`` and ``cases/NAME.npz``. A case holds the arguments' tensors, the exact
output and lse in float64; the manifest holds the other arguments and the budgets. Put a kernel's answers into
``outputs/NAME.npz`` (arrays ``output`` and, if it has one, ``lse``); ``check(directory)`` compares them.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy
import torch

import dinat_ref
from dinat_ref.command import CommandError, whole_file
from dinat_ref.outside import brief, open_regular, read_json
from dinat_ref.testing.checks.enumeration import MIXED, combine, product_problems, window_problems
from dinat_ref.testing.checks.numbers import long_windows
from dinat_ref.testing.checks.sampling import Wish, random_problems
from dinat_ref.testing.checks.yardstick import Yardstick, demand
from dinat_ref.testing.kernel import Wrong
from dinat_ref.testing.ports.npz import MOST_BYTES, read_arrays
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.report.results import Report, Result
from dinat_ref.testing.supports import Supports

SCHEMA_VERSION = 1
MOST_MANIFEST = 16 * 2**20  # bytes
ENTRIES: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str) and re.fullmatch(r"[0-9a-z-]{1,80}", value) is not None,
    "kind": lambda value: isinstance(value, str),
    "problem": lambda value: isinstance(value, str),
    "sha256": lambda value: isinstance(value, str),
    "output_budget": lambda value: type(value) in (int, float) and 0 < value < math.inf,
    "lse_budget": lambda value: type(value) in (int, float) and 0 < value < math.inf,
}
TITLES = {
    "window": "zero queries and values that name their token: the output is the mean over the window",
    "number": "random tensors: output and lse within their budgets",
}


def golden_problems() -> Iterator[tuple[str, Problem]]:
    """The problems of the golden vectors, each with its kind: windows of every family first, then numbers.

    Shapes:
        yields: ("window" or "number", Problem)
    Example:
        >>> next(golden_problems())
        ('window', Problem("1d 1 k1 d1 h1 e1 f32 seed0"))
    """
    supports = Supports(rpb=True)
    for problem in window_problems(None, Supports(ndim={1}), "quick"):
        if max(problem.layout) <= 6:
            yield "window", problem
    for axes in zip(MIXED, MIXED[1:] + MIXED[:1], strict=True):
        mixed = combine(axes, supports)
        if mixed is not None:
            yield "window", mixed
    yield from (("window", problem) for problem in list(product_problems(3, supports, "quick"))[-9:])
    for dtype in ("f32", "f64", "f16"):  # NumPy has no bfloat16
        for problem in random_problems(0, f"golden {dtype}", supports, Wish(dtype=dtype, scale=None), 20):
            yield "number", problem
    yield from (("number", p) for p in long_windows(Supports(dtypes=["float16"]), "quick"))


def make_case(kind: str, problem: Problem) -> tuple[dict[str, numpy.ndarray[Any, Any]], dict[str, Any]]:
    """One case: its arrays, and its entry in the manifest.

    Shapes:
        arrays by the names of the arguments, and output [B, *layout, H, Dv], lse [B, *layout, H] in float64
    Example:
        >>> arrays, entry = make_case("window", Problem("1d 5 k3 d1 h1 e1 f32 seed0"))
        >>> arrays["output"].flatten()
        array([2., 2., 3., 4., 4.])
    """
    inputs = problem.inputs()
    if kind == "window":
        names = torch.arange(1, problem.neighborhood.num_tokens + 1, dtype=problem.dtype)  # each value names its token
        inputs.query = torch.zeros_like(inputs.query)
        inputs.value = names.reshape(1, *problem.layout, 1, 1).expand_as(inputs.value).contiguous()
    ruler = Yardstick(problem, inputs)
    arrays = {name: tensor.contiguous().numpy() for name, tensor in inputs.named().items()}
    arrays |= {"output": ruler.output.numpy(), "lse": ruler.lse.numpy()}
    scale = problem.head_dim**-0.5 if problem.scale is None else problem.scale
    names_of = ("layout", "kernel_size", "stride", "dilation", "is_causal")
    entry: dict[str, Any] = {name: list(getattr(problem, name)) for name in names_of}
    entry |= {"kind": kind, "problem": str(problem), "scale": scale, "dtype": str(problem.dtype).removeprefix("torch.")}
    return arrays, entry | {"output_budget": ruler.output_budget, "lse_budget": ruler.lse_budget}


def export(directory: Path | str) -> int:
    """Write the golden vectors; say how many.

    Raises:
        CommandError: the directory cannot be written.
    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     count = export(directory)
        ...     count == len(list(Path(directory).glob("cases/*.npz"))) > 100
        True
    """
    directory, cases = Path(directory), []
    for number, (kind, problem) in enumerate(golden_problems()):
        arrays, entry = make_case(kind, problem)
        name = f"{number:03}-{kind}"
        path = directory / "cases" / f"{name}.npz"
        with whole_file(path) as temporary, open(temporary, "wb") as file:
            numpy.savez(file, **arrays)  # type: ignore[arg-type]
        cases.append({"name": name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} | entry)
    about = "scores = scale * <q, k> + rpb; softmax over the window and the additional keys; heads-last; lse natural"
    manifest = {"schema_version": SCHEMA_VERSION, "dinat_ref": dinat_ref.__version__, "about": about, "cases": cases}
    with whole_file(directory / "manifest.json") as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return len(cases)


def check(directory: Path | str) -> Report:
    """Compare a kernel's answers, ``outputs/NAME.npz``, with the golden vectors; a missing answer is a skip.

    Shapes:
        return: a Report with one result for each case
    Raises:
        CommandError: there is no manifest, it has another schema, a file is damaged, too large or changed, or there
            is no answer at all.
    Example:
        >>> check("nowhere")
        Traceback (most recent call last):
        dinat_ref.command.CommandError: no golden vectors in nowhere: manifest.json is missing (--export writes them)
    """
    directory = Path(directory)
    report = Report(f"answers in {directory / 'outputs'}", "golden", 0, "cpu", torch.__version__, [])
    report.results = [_compare(directory, case) for case in read_manifest(directory)]
    if all(result.verdict == "skipped" for result in report.results):
        raise CommandError(f"no answers in {directory / 'outputs'}: expected NAME.npz with an array named output")
    return report


def read_manifest(directory: Path) -> list[dict[str, Any]]:
    """The cases that a manifest lists.

    Raises:
        CommandError: there is no manifest, it has another schema, or an entry is not what ``export`` writes.
    """
    path = directory / "manifest.json"
    if not path.exists():
        raise CommandError(f"no golden vectors in {directory}: manifest.json is missing (--export writes them)")
    try:
        manifest = read_json(path, MOST_MANIFEST)
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} is no manifest of golden vectors: {error}") from None
    if manifest.get("schema_version") != SCHEMA_VERSION:
        found = brief(manifest.get("schema_version"))
        raise CommandError(f"{path} has schema_version {found}, this version reads {SCHEMA_VERSION}")
    cases = manifest.get("cases")
    if not isinstance(cases, list) or not cases:
        raise CommandError(f"{path}: cases must be a list of cases, got {brief(cases)}")
    for case in cases:
        for name, fits in ENTRIES.items():
            if not isinstance(case, dict) or not fits(case.get(name)):
                found = brief(case.get(name) if isinstance(case, dict) else case)
                raise CommandError(f"{path}: the {name} of a case is not what --export writes: {found}")
    return cases


def _compare(directory: Path, case: dict[str, Any]) -> Result:
    """Compare one answer."""
    name = case["name"]
    result = Result(name, TITLES.get(case["kind"], case["kind"]), problem=case["problem"])
    exact = _read(directory / "cases" / f"{name}.npz", case["sha256"])
    answer = directory / "outputs" / f"{name}.npz"
    if not answer.exists():
        result.verdict, result.reason = "skipped", f"no {answer.name} in {answer.parent}"
        return result
    got = _read(answer)
    result.problems, result.worst = 1, 0.0
    try:
        if "output" not in got:
            raise Wrong(f"{answer.name} has no array named output")
        for part in got:
            if got[part].dtype.kind == "c":
                raise Wrong(f"the {part} is complex, {got[part].dtype}: no answer is")
            have, want = (torch.from_numpy(source[part].astype("float64")) for source in (got, exact))
            result.worst = max(result.worst, demand(f"the {part}", have, want, case[f"{part}_budget"]))
        result.verdict = "passed"
    except Wrong as error:
        result.verdict, result.failing, result.message, result.worst = "failed", 1, str(error), error.multiple
    return result


def _read(path: Path, sha256: str | None = None) -> Mapping[str, Any]:
    """Read output and lse; of a golden vector, only what the manifest says it is."""
    try:
        if sha256 is not None:
            with open_regular(path) as file:
                if hashlib.sha256(file.read(MOST_BYTES)).hexdigest() != sha256:
                    raise ValueError("it is not what the manifest says; export the golden vectors again")
        return read_arrays(path, ("output", "lse"))
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else error
        raise CommandError(f"{path} cannot be read: {text}") from None
