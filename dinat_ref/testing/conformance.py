"""The conformance table: the kit on every kernel that can be run here, this project's own and other people's.

python -m dinat_ref.testing.conformance                    a table in Markdown; peers that are missing say so
python -m dinat_ref.testing.conformance --out FILE         the table in a file, too
python -m dinat_ref.testing.conformance --reports DIR      each report beside it, as HTML and JSON
python -m dinat_ref.testing.conformance --seeds 20         right kernels over 20 seeds: no false alarm
"""

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from dinat_ref import neighborhood_attention
from dinat_ref.attention.functional import FORMULATIONS
from dinat_ref.command import CommandError, check_writable, whole_file
from dinat_ref.testing.command import write_report
from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.ports.masks import from_flex
from dinat_ref.testing.ports.peers import PEERS
from dinat_ref.testing.registry import BUDGETS
from dinat_ref.testing.report.results import Report
from dinat_ref.testing.supports import Supports
from dinat_ref.testing.verify import check_kernel

OWN = Supports(rpb=True, double_backward=True, vmap=True)
LIMITS = {"loops": 40, "masked": 8192}  # tokens: one steps through Python, the other has N x N scores


def formulations() -> dict[str, Kernel]:
    """The project's own formulations as kernels.

    Example:
        >>> "gather" in formulations()
        True
    """
    own = {}
    for name in FORMULATIONS:
        function = partial(neighborhood_attention, impl=name)
        own[name] = Kernel(function, replace(OWN, max_tokens=LIMITS.get(name)))
    return own


def right_mask(layout: tuple[int, ...], **arguments: object) -> object:
    """A mask_mod for FlexAttention that looks the neighborhood's mask up."""
    from dinat_ref.neighborhood import Neighborhood

    mask = Neighborhood(layout, **arguments).mask()  # type: ignore[arg-type]
    return lambda b, h, query, key: mask[query, key]


def flex() -> Kernel:
    """PyTorch's flex_attention with a right mask: forward only on a CPU."""
    return from_flex(right_mask)


def row(name: str, package: str, report: Report) -> str:
    """One line of the table.

    Example:
        >>> row("mine", "mine==1", Report("mine", "quick", 0, "cpu", "2.13.0", []))
        '| mine | mine==1 | 0 | 0 | 0 | - | - |'
    """
    skipped = report.count("skipped")
    failed = ", ".join(f"`{result.id}`" for result in report.failures) or "-"
    words = "; ".join(report.diagnoses) or "-"
    return (
        f"| {name} | {package} | {report.count('passed')} | {len(report.failures)} | {skipped} | {failed} | {words} |"
    )


def main(argv: list[str] | None = None) -> int:
    """Print the conformance table; exit status 1 when one of this project's own formulations fails."""
    parser = argparse.ArgumentParser(
        prog="python -m dinat_ref.testing.conformance",
        description="Run the verification kit on every kernel that can be run here and print a table.",
    )
    parser.add_argument("--budget", choices=tuple(BUDGETS), default="quick", help="how thorough (default quick)")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds for kernels that are right (default 1)")
    parser.add_argument("--only", default="", help="names of kernels, by commas (default: all)")
    parser.add_argument("--out", metavar="FILE", help="write the table to FILE, too")
    parser.add_argument("--reports", metavar="DIR", help="write each report to DIR, as HTML and JSON")
    args = parser.parse_args(argv)
    wanted = [name for name in args.only.split(",") if name]

    own = formulations() | {"flex_attention with a right mask": flex()}
    entries = {name: (kernel, "dinat_ref" if name in FORMULATIONS else "torch") for name, kernel in own.items()}
    missing = []
    for name, peer in PEERS.items():
        reason = peer.missing()
        if reason is not None:
            missing.append(f"{name}: skipped, {reason}")
            continue
        entries[name] = (peer.make(), peer.package)
    if args.out:
        check_writable(args.out)
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    say("| kernel | package | passed | failed | not applicable | failed checks | in words |")
    say("|---|---|---|---|---|---|---|")
    failed = False
    for name, (kernel, package) in entries.items():
        if wanted and name not in wanted:
            continue
        for seed in range(args.seeds):
            report = check_kernel(kernel, budget=args.budget, seed=seed, name=name)
            if seed == 0 or report.failures:
                say(row(name if seed == 0 else f"{name}, seed {seed}", package, report))
            if args.reports and seed == 0:
                for suffix in ("html", "json"):
                    stem = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
                    write_report(report, Path(args.reports) / f"{stem}.{suffix}")
            failed |= name in own and not report.passed
    for line in missing:
        say(f"\n{line}")
    if missing:
        say(f"\n{len(missing)} kernels skipped")
    if args.out:
        with whole_file(args.out) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandError as error:
        print(f"python -m dinat_ref.testing.conformance: error: {error}", file=sys.stderr)
        sys.exit(2)
