"""``dinat-ref verify``, for continuous integration: exit status 0 passed, 1 a check failed, 2 could not run."""

import argparse
import importlib
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from dinat_ref.command import CommandError, check_writable, whole_file
from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.ports import golden
from dinat_ref.testing.ports.adapters import from_split
from dinat_ref.testing.ports.foreign import from_arrays
from dinat_ref.testing.ports.masks import from_mask_mod
from dinat_ref.testing.ports.peers import PEERS
from dinat_ref.testing.registry import select
from dinat_ref.testing.report.html import as_html
from dinat_ref.testing.report.results import Report
from dinat_ref.testing.supports import Supports
from dinat_ref.testing.verify import verify


def run(args: argparse.Namespace) -> int:
    """Run ``dinat-ref verify``: 0 only after a whole report in which nothing failed."""
    for path in args.report:
        if Path(path).suffix not in (".json", ".html"):
            raise CommandError(f"--report must end in .json or .html, got {path}")
        check_writable(path)
    if args.list:
        for check in select(None):
            print(f"{check.id:<24} {check.title}")
        return 0
    if args.export:
        print(f"{golden.export(args.export)} golden vectors in {args.export}")
        return 0
    report = golden.check(args.check) if args.check else verify_target(args)
    encoding = sys.stdout.encoding or "utf-8"
    print(str(report).encode(encoding, "backslashreplace").decode(encoding))
    for path in args.report:
        write_report(report, path)
    if report.interrupted and not report.failures:
        return 130
    if not report.failures and not report.passed:
        print("dinat-ref verify: error: no check applies to this kernel", file=sys.stderr)
        return 2
    return 0 if report.passed else 1


def verify_target(args: argparse.Namespace) -> Report:
    """Verify the kernel that the arguments name; its module is imported in the process where it is examined.

    Raises:
        CommandError: the arguments do not go together, or the kernel is not there.
    Example:
        >>> from dinat_ref.options.verify import configure
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> verify_target(parser.parse_args(["dinat_ref:na2d", "--supports", "ndim=2", "--only", "W02"])).passed
        True
    """
    chosen = [name for name in ("target", "mask_mod", "qk") if getattr(args, name)]
    if len(chosen) != 1 or bool(args.qk) != bool(args.av):
        raise CommandError("name one kernel: TARGET, or --mask-mod M:F, or --qk M:F with --av M:F (see --help)")
    read_supports(args.supports)
    expected = dict(_split(entry, "--expect", "ID=REASON") for entry in args.expect)
    only = [id.strip() for id in args.only.split(",") if id.strip()] or None
    name = args.target or args.mask_mod or f"{args.qk} {args.av}"
    try:
        return verify(
            partial(read_target, args), name, args.device, args.budget, args.seed, expected, only, args.seconds
        )
    except ValueError as error:
        raise CommandError(error) from None


def write_report(report: Report, path: str | Path) -> None:
    """Write a report as JSON or HTML, by its suffix.

    Raises:
        CommandError: the file cannot be written.
    Example:
        >>> import tempfile
        >>> report = Report("kernel", "quick", 0, "cpu", "2.13.0", [])
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     write_report(report, Path(directory) / "report.json")
        ...     (Path(directory) / "report.json").read_text().startswith("{")
        True
    """
    text = as_html(report) if Path(path).suffix == ".html" else report.as_json()
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_target(args: argparse.Namespace) -> Kernel:
    """Import the kernel that the arguments name.

    Raises:
        CommandError: the target is not there.
    Example:
        >>> from dinat_ref.options.verify import configure
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> read_target(parser.parse_args(["dinat_ref:na2d", "--supports", "ndim=2"])).supports.ndim
        (2,)
    """
    if args.target in PEERS:
        missing = PEERS[args.target].missing()
        if missing is not None:
            raise CommandError(missing)
        kernel = PEERS[args.target].make()
        return replace(kernel, supports=read_supports(args.supports, kernel.supports))
    supports = read_supports(args.supports)
    if args.mask_mod:
        return from_mask_mod(load(args.mask_mod), supports, args.device)
    if args.qk:
        qk, av = (load_by_axes(path, supports) for path in (args.qk, args.av))
        return Kernel(from_split(qk, av, args.legacy), supports, device=args.device)
    function = load(args.target)
    if args.arrays:
        function = from_arrays(function, None if args.arrays == "numpy" else load(args.arrays))
    return Kernel(function, supports, args.layout, args.device)


def load(path: str) -> Callable[..., Any]:
    """Import MODULE:CALLABLE, from the current directory too.

    Raises:
        CommandError: there is no such module, or nothing callable of that name in it.
    Source: the form of console-script entry points.
    Example:
        >>> load("dinat_ref:na1d").__name__
        'na1d'
        >>> load("dinat_ref:na9d")
        Traceback (most recent call last):
        dinat_ref.command.CommandError: dinat_ref has no na9d
    """
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise CommandError(f"expected MODULE:CALLABLE or the name of a peer ({', '.join(PEERS)}), got {path!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise CommandError(f"cannot import {module_name}: {type(error).__name__}: {error}") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise CommandError(f"{module_name} has no {name}")
        found = getattr(found, part)
    if not callable(found):
        raise CommandError(f"{path} is not callable: {type(found).__name__}")
    result: Callable[..., Any] = found
    return result


def load_by_axes(path: str, supports: Supports) -> Callable[..., Any] | dict[int, Callable[..., Any]]:
    """Import one function, or one for each number of axes where the path has {n}.

    Raises:
        CommandError: as ``load``.
    Source: the names of NATTEN.
    Example:
        >>> sorted(load_by_axes("dinat_ref:na{n}d", Supports(ndim={1, 2})))
        [1, 2]
    """
    return {n: load(path.replace("{n}", str(n))) for n in supports.ndim} if "{n}" in path else load(path)


def read_supports(words: str, base: Supports | None = None) -> Supports:
    """Read a declaration such as "ndim=2,no-stride,dtypes=float32".

    Raises:
        CommandError: an unknown word.
    Example:
        >>> read_supports("ndim=2,no-stride,rpb").restrictions()
        ['ndim: 2 only', 'stride: no', 'double backward: no']
    """
    supports = base or Supports()
    flags = {item.name for item in fields(Supports) if isinstance(item.default, bool)}
    changes: dict[str, Any] = {}
    for word in (word.strip() for word in words.split(",") if word.strip()):
        name, equals, value = word.partition("=")
        flag = name.removeprefix("no-").replace("-", "_")
        try:
            if equals and name in ("ndim", "head_dims"):
                changes[name] = {int(part) for part in value.split("+")}
            elif equals and name == "dtypes":
                changes[name] = value.split("+")
            elif equals and name in ("max_tokens", "min_layout"):
                changes[name] = int(value)
            elif not equals and flag in flags:
                changes[flag] = not name.startswith("no-")
            else:
                raise CommandError(f"--supports has no word {word!r}; the features are {', '.join(sorted(flags))}")
        except ValueError:
            raise CommandError(f"--supports expects whole numbers in {word!r}") from None
    try:
        return replace(supports, **changes)
    except ValueError as error:
        raise CommandError(f"--supports: {error}") from None


def _split(entry: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = entry.partition("=")
    if not equals or not value:
        raise CommandError(f"{option} expects {form}, got {entry!r}")
    return name, value
