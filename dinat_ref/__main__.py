"""``python -m dinat_ref`` is ``dinat-ref``.

Ctrl-C is ``cli.main``'s to answer. Before it can, while Python still imports it, and after it has, Ctrl-C simply ends
the process: without a traceback, and with the status that a shell knows.
"""

import signal
import sys

answers = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not in the background, where it is ignored
if answers:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from dinat_ref.cli import main  # noqa: E402  # now that it may be interrupted


def script() -> int:
    """Run ``main``, which answers Ctrl-C.

    Example:
        >>> script()
        Traceback (most recent call last):
        SystemExit: 2
    """
    try:
        if answers:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return main()
    finally:
        if answers:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(script())
