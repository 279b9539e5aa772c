"""``dinat-ref run``: run a program that needs NATTEN, unedited, with a stand-in for it.

The program is run by a Python process of its own, as plain ``python`` would run it: arguments, ``__main__``, exit
status and tracebacks are its own. The environment tells that process, and every one that it starts, to find the
stand-in: subprocesses, workers of a DataLoader (forked or spawned), torchrun.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from dinat_ref.command import CommandError, whole_file
from dinat_ref.interop import natten_startup
from dinat_ref.interop.natten_startup import RUN_NAME, VARIABLE
from dinat_ref.interop.natten_surface import find_release

EXAMPLES = f"""
examples:
  dinat-ref run --natten 0.14.4 train.py --epochs 3
  dinat-ref run --natten 0.17 -m my_package.evaluate --data images
  dinat-ref run -c 'import natten; print(natten.__version__)'
  dinat-ref run --natten 0.15 -m torch.distributed.run --nproc-per-node 2 train.py

  dinat-ref run --always             once; then, in this environment and whatever starts Python:
  {VARIABLE}=0.17 python train.py
  dinat-ref run --never              takes it back

--natten names the release that the program was written for, in full or by its series: orders of arguments and defaults
are that release's (0.14.4: requirements of 2022; 0.17: na2d_qk and rel_pos_bias; 0.21: stride).
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> parser.parse_args(["--natten", "0.17", "train.py", "--natten", "mine"]).program
        ['train.py', '--natten', 'mine']
    """
    rest = argparse.REMAINDER
    default = os.environ.get(VARIABLE) or "0.21"
    release = "the release the program was written for, such as 0.14.4 or 0.17"
    parser.add_argument("--natten", metavar="VERSION", default=default, help=f"{release} (default: {default})")
    parser.add_argument("-m", dest="module", nargs=rest, metavar="MODULE", help="run a module, as python -m does")
    parser.add_argument("-c", dest="code", nargs=rest, metavar="CODE", help="run code, as python -c does")
    lasting = parser.add_mutually_exclusive_group()
    lasting.add_argument("--always", action="store_true", help=f"let every Python of this environment heed {VARIABLE}")
    lasting.add_argument("--never", action="store_true", help="take back --always")
    parser.add_argument("program", nargs=rest, metavar="SCRIPT.py ARGS", help="run a file")
    parser.usage = (
        "dinat-ref run [--natten VERSION] SCRIPT.py ARGS... | -m MODULE ARGS... | -c CODE ARGS...\n"
        "       dinat-ref run --always | --never"
    )
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """Run the program in this one's place, where the system can do that.

    Raises:
        CommandError: no program, a release that nobody serves, or the real NATTEN is installed.
    """
    program = [f"-{letter}" for letter, given in (("m", args.module), ("c", args.code)) if given]
    program += [*(args.module or args.code or []), *args.program]
    if args.always or args.never:
        if program:
            raise CommandError("--always and --never run nothing: give no program with them")
        print(write_always() if args.always else remove_always())
        return 0
    if not program:
        raise CommandError("give a script, -m MODULE or -c CODE; examples: dinat-ref run --help")
    command, environment = [sys.executable, *program], prepare(args.natten, os.environ)
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(sys.executable, command, environment)
    return subprocess.run(command, env=environment, check=False).returncode


def prepare(version: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Make the environment in which Python finds the stand-in.

    Raises:
        CommandError: a release that nobody serves, or the real NATTEN is installed.
    Example:
        >>> prepare("0.17", {"HOME": "/home/me"})["DINAT_REF_NATTEN"]
        '0.17'
    """
    try:
        find_release(version)
    except ValueError as error:
        raise CommandError(str(error).replace("version", "--natten", 1)) from None
    from dinat_ref.interop.natten import is_natten_installed  # needs PyTorch

    if is_natten_installed():
        raise CommandError("NATTEN is installed here, and would be used: uninstall it, or run plain python")
    return {**environment, **natten_startup.child_environment(version, environment)}


def always_file() -> Path:
    """Where --always writes: a file that Python reads at its start, in this environment's site-packages.

    Example:
        >>> always_file().name
        'dinat_ref_natten.pth'
    """
    return Path(sysconfig.get_paths()["purelib"]) / "dinat_ref_natten.pth"


def write_always() -> str:
    """Let every Python of this environment heed DINAT_REF_NATTEN.

    Returns:
        What was done, in words.
    Raises:
        CommandError: the environment cannot be written.
    """
    startup = natten_startup.__file__
    call = f"exec(compile(open(p, encoding='utf-8').read(), p, 'exec'), {{'__name__': {RUN_NAME!r}, '__file__': p}})"
    line = f"import os; p = {startup!r}; os.environ.get({VARIABLE!r}) and os.path.exists(p) and {call}\n"
    with whole_file(always_file()) as temporary:
        temporary.write_text(line, encoding="utf-8")
    return (
        f"wrote {always_file()}: from now on, {VARIABLE}=0.17 python ... finds the stand-in for NATTEN 0.17 in this\n"
        f"environment; without the variable nothing changes. `dinat-ref run --never` takes it back."
    )


def remove_always() -> str:
    """Take back ``write_always``.

    Returns:
        What was done, in words.
    Raises:
        CommandError: the environment cannot be written.
    """
    file = always_file()
    if not file.exists():
        return f"nothing to take back: there is no {file}"
    try:
        file.unlink()
    except OSError as error:
        raise CommandError(f"cannot remove {file}: {error.strerror}") from None
    return f"removed {file}"
