"""How the process ends: interrupted before it has begun or after, and printing into a full disk."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

POSIX = pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is another thing on Windows")
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
INTERRUPTED_IMPORT = """if True:
    import os, runpy, signal, sys
    class Interrupt:
        def find_spec(self, name, path=None, target=None):
            if name == MODULE:
                os.kill(os.getpid(), signal.SIGINT)
    sys.meta_path.insert(0, Interrupt())
    sys.argv = ["dinat-ref", *ARGV]
    runpy.run_module("dinat_ref", run_name="__main__")
"""


def interrupted(module: str, argv: list[str], before: str = "") -> tuple[int, str]:
    """Status and stderr of a run in which Ctrl-C is pressed when a module is about to be imported."""
    code = before + INTERRUPTED_IMPORT.replace("MODULE", repr(module)).replace("*ARGV", f"*{argv}")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return run.returncode, run.stderr


@POSIX
@pytest.mark.parametrize("module", ["dinat_ref.cli", "argparse", "dinat_ref.command", "unicodedata"])
def test_ctrl_c_before_anything_could_answer_it(module: str) -> None:
    """The process ends by the signal, as ``sleep`` does: no traceback, and 130 in a shell."""
    assert interrupted(module, ["--version"]) == (-signal.SIGINT, "")


@POSIX
@pytest.mark.parametrize("module", ["dinat_ref.bench.command", "dinat_ref.bench.machine"])
def test_ctrl_c_while_a_command_is_imported(module: str) -> None:
    argv = ["bench", "--shapes", "tiny"]
    assert interrupted(module, argv) == (130, "\ndinat-ref bench: stopped\n")


@POSIX
def test_ctrl_c_that_is_ignored_stays_ignored() -> None:
    """As of a job in the background."""
    before = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    for module in ("dinat_ref.cli", "dinat_ref.bench.command"):
        assert interrupted(module, ["bench", "--help"], before) == (0, "")


@POSIX
def test_whoever_calls_main_keeps_their_own_answer_to_ctrl_c() -> None:
    code = """if True:
        import signal, sys
        from dinat_ref.cli import main
        before = signal.getsignal(signal.SIGINT)
        try: main(["--version"])
        except SystemExit: pass
        assert signal.getsignal(signal.SIGINT) is before is signal.default_int_handler
    """
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@FULL
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["bench", "--help"], ["draw", "windows", "--help"]])
def test_help_that_cannot_be_printed(argv: list[str], unbuffered: str) -> None:
    """argparse itself passes over what a full disk says, so that nothing printed looked like a success."""
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "dinat_ref", *argv]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    speaker = "dinat-ref" if argv[0].startswith("-") else f"dinat-ref {argv[0]}"
    assert (run.returncode, run.stderr) == (2, f"{speaker}: error: cannot write: No space left on device\n")


@FULL
def test_a_usage_error_that_cannot_be_printed_keeps_its_status() -> None:
    with open("/dev/full", "w") as full:
        run = subprocess.run([sys.executable, "-u", "-m", "dinat_ref", "paint"], stderr=full, check=False)
    assert run.returncode == 2
