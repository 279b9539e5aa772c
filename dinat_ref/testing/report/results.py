"""What came of the checks: verdicts, numbers, the smallest failing problem; as aligned text and as JSON."""

import json
import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any

from dinat_ref.command import printable
from dinat_ref.testing.problem import Problem

VERDICTS = ("passed", "failed", "expected failure", "unexpected pass", "follows", "skipped", "not run")
BAD = ("failed", "unexpected pass")


class KernelFailure(AssertionError):  # noqa: N818 (a finding)
    """A kernel failed checks; the message is the report.

    Example:
        >>> raise KernelFailure("W12-even-kernels failed")
        Traceback (most recent call last):
        dinat_ref.testing.report.results.KernelFailure: W12-even-kernels failed
    """


@dataclass
class Result:
    """What came of one check.

    Args:
        worst: the worst error as a multiple of the budget: 1 is all of it, None where nothing is measured.
        problem: the smallest problem found that fails.
        drawing: the windows of that problem, expected beside the kernel's.
        looks_like: the known bug that does the same on all the evidence, if there is one.
        seen: the failure in words that were made from the failing problems and outputs themselves.
        origins: how many problems failed and follow from the failure of another check, by its id.
        reason: why it was skipped or expected to fail, or which failure it follows from.
        evidence: problems that failed and some that passed, for the diagnosis.
    Example:
        >>> Result("W02-own-query", "every query attends itself").verdict
        'not run'
    """

    id: str
    title: str
    verdict: str = "not run"
    problems: int = 0
    failing: int = 0
    worst: float | None = None
    seconds: float = 0.0
    message: str = ""
    problem: str = ""
    drawing: str = ""
    looks_like: str = ""
    seen: str = ""
    reason: str = ""
    origins: dict[str, int] = field(default_factory=dict)
    evidence: tuple[list[Problem], list[Problem]] = field(default_factory=lambda: ([], []), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON takes it."""
        values = {name: value for name, value in self.__dict__.items() if name != "evidence"}
        values["worst"] = None if self.worst is None or self.worst != self.worst else min(self.worst, 1e300)
        return values


@dataclass
class Report:
    """What came of all checks of one kernel. ``print(report)`` shows it.

    Example:
        >>> from dinat_ref import na1d
        >>> from dinat_ref.testing import Supports, check_kernel
        >>> report = check_kernel(na1d, supports=Supports(ndim={1}), checks=["W02"])
        >>> report.passed
        True
    """

    kernel: str
    budget: str
    seed: int
    device: str
    torch: str
    restrictions: list[str]
    results: list[Result] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def passed(self) -> bool:
        """Whether nothing failed, no expected failure passed, at least one check ran, and all could run."""
        ran = any(result.verdict in ("passed", "expected failure") for result in self.results)
        return ran and not self.failures and not self.interrupted

    @property
    def failures(self) -> list[Result]:
        """The checks that failed, and those that passed although they were expected to fail."""
        return [result for result in self.results if result.verdict in BAD]

    @property
    def problems(self) -> int:
        """The number of problems examined."""
        return sum(result.problems for result in self.results)

    def __getitem__(self, id: str) -> Result:
        """The result of one check, by its id."""
        for result in self.results:
            if result.id == id:
                return result
        raise KeyError(id)

    def count(self, verdict: str) -> int:
        """How many checks have a verdict."""
        return sum(result.verdict == verdict for result in self.results)

    def raise_for_failures(self) -> None:
        """Raise ``KernelFailure`` with the whole report unless the kernel passed."""
        if not self.passed:
            raise KernelFailure(str(self))

    @property
    def diagnoses(self) -> dict[str, list[str]]:
        """What the failures look like, each with the checks that say so."""
        found: dict[str, list[str]] = {}
        for result in self.results:
            if result.looks_like and result.verdict != "follows":
                found.setdefault(result.looks_like, []).append(result.id)
        return found

    def totals(self) -> str:
        """The closing line."""
        counts = ", ".join(f"{self.count(verdict)} {verdict}" for verdict in VERDICTS if self.count(verdict))
        return f"{len(self.results)} checks: {counts} | {self.problems} problems | {self.seconds:.1f} s"

    def __str__(self) -> str:
        lines = [f"verify {self.kernel}: budget {self.budget}, seed {self.seed}, {self.device}, torch {self.torch}"]
        lines += textwrap.wrap(
            "restricted: " + ("; ".join(self.restrictions) or "nothing"), 110, subsequent_indent="    "
        )
        lines += self.notes
        width = max([len(result.id) for result in self.results], default=2)
        lines += ["", f"{'check':<{width}}  {'verdict':<16}  problems   worst error"]
        for result in self.results:
            worst = "" if result.worst is None else f"{result.worst:.2f} of the budget"
            count = f"{result.problems or '':>8}"
            reason = f"{'  ' if worst else ''}({result.reason})" if result.reason else ""
            shown = result.verdict.upper() if result.verdict in BAD else result.verdict
            lines.append(f"{result.id:<{width}}  {shown:<16}  {count}   {worst}{reason}".rstrip())
        if self.diagnoses:
            lines += ["", "in words, this kernel looks like:"]
            lines += [f"  {words}: {', '.join(ids)}" for words, ids in self.diagnoses.items()]
        for result in self.failures:
            lines += ["", *self._describe(result)]
        if self.interrupted:
            lines += ["", "interrupted: only what has run is reported"]
        return "\n".join(printable(line) for line in [*lines, "", self.totals()])

    def _describe(self, result: Result) -> list[str]:
        lines = [f"{result.verdict.upper()} {result.id}: {result.title}"]
        if result.verdict == "unexpected pass":
            return [*lines, f"  it was expected to fail ({result.reason}); take it out of expected_failures"]
        lines += textwrap.wrap(result.message, 110, initial_indent="  ", subsequent_indent="  ")
        if result.problem:
            lines.append(f"  fails on {result.failing} of {result.problems} problems, for example on")
            lines.append(f'  Problem("{result.problem}")')
        if result.drawing:
            lines += textwrap.indent(result.drawing, "    ").splitlines()
        lines += [f"  seen: {result.seen}"] if result.seen else []
        return [*lines, f"  looks like: {result.looks_like}"] if result.looks_like else lines

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        values = asdict(self) | {"results": [result.as_dict() for result in self.results]}
        return values | {
            "passed": self.passed,
            "problems": self.problems,
            "diagnoses": self.diagnoses,
            "totals": self.totals(),
        }

    def as_json(self) -> str:
        """The report as a JSON text."""
        return json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n"
