"""Golden vectors: problems with their answers, as .npz files and a JSON manifest, for kernels far from PyTorch.

``export(directory)`` writes ``manifest.json`` and ``cases/NAME.npz``. A case holds the arguments' tensors, the exact
output and lse in float64; the manifest holds the other arguments and the budgets. Put a kernel's answers into
``outputs/NAME.npz`` (arrays ``output`` and, if it has one, ``lse``); ``check(directory)`` compares them.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch

import dinat_ref
from dinat_ref.command import CommandError, whole_file
from dinat_ref.testing.checks.enumeration import MIXED, combine, product_problems, window_problems
from dinat_ref.testing.checks.numbers import long_windows
from dinat_ref.testing.checks.sampling import Wish, random_problems
from dinat_ref.testing.checks.yardstick import Yardstick, demand
from dinat_ref.testing.kernel import Wrong
from dinat_ref.testing.problem import Problem
from dinat_ref.testing.report.results import Report, Result
from dinat_ref.testing.supports import Supports

FORMAT = 1
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
    manifest = {"format": FORMAT, "dinat_ref": dinat_ref.__version__, "about": about, "cases": cases}
    with whole_file(directory / "manifest.json") as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")
    return len(cases)


def check(directory: Path | str) -> Report:
    """Compare a kernel's answers, ``outputs/NAME.npz``, with the golden vectors; a missing answer is a skip.

    Shapes:
        return: a Report with one result for each case
    Raises:
        CommandError: there is no manifest, it has another format, a case was changed, or there is no answer at all.
    Example:
        >>> check("nowhere")
        Traceback (most recent call last):
        dinat_ref.command.CommandError: no golden vectors in nowhere: manifest.json is missing (--export writes them)
    """
    directory = Path(directory)
    path = directory / "manifest.json"
    if not path.is_file():
        raise CommandError(f"no golden vectors in {directory}: manifest.json is missing (--export writes them)")
    try:
        manifest = json.loads(path.read_text())
        cases = manifest["cases"]
        found = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CommandError(f"{path} is no manifest of golden vectors: {error}") from None
    if found != FORMAT:
        raise CommandError(f"{path} has format {found}, this version reads format {FORMAT}")
    report = Report(f"answers in {directory / 'outputs'}", "golden", 0, "cpu", torch.__version__, [])
    for case in cases:
        report.results.append(_compare(directory, case))
    if all(result.verdict == "skipped" for result in report.results):
        raise CommandError(f"no answers in {directory / 'outputs'}: expected NAME.npz with an array named output")
    return report


def _compare(directory: Path, case: dict[str, Any]) -> Result:
    """Compare one answer."""
    name = case["name"]
    result = Result(name, TITLES.get(case["kind"], case["kind"]), problem=case["problem"])
    given = directory / "cases" / f"{name}.npz"
    if not given.is_file() or hashlib.sha256(given.read_bytes()).hexdigest() != case["sha256"]:
        raise CommandError(f"{given} is missing or is not what the manifest says; export the golden vectors again")
    answer = directory / "outputs" / f"{name}.npz"
    if not answer.is_file():
        result.verdict, result.reason = "skipped", f"no {answer.name} in {answer.parent}"
        return result
    result.problems = 1
    try:
        with numpy.load(given, allow_pickle=False) as exact, numpy.load(answer, allow_pickle=False) as got:
            result.worst = 0.0
            for part in ("output", "lse"):
                if part in got.files or part == "output":
                    if part not in got.files:
                        raise Wrong(f"{answer.name} has no array named output")
                    have, want = (torch.from_numpy(source[part].astype("float64")) for source in (got, exact))
                    result.worst = max(result.worst, demand(f"the {part}", have, want, case[f"{part}_budget"]))
        result.verdict = "passed"
    except Wrong as error:
        result.verdict, result.failing, result.message, result.worst = "failed", 1, str(error), error.multiple
    except (OSError, ValueError) as error:
        result.verdict, result.failing, result.message = "failed", 1, f"{answer} cannot be read: {error}"
    return result
