"""Run by every Python process under ``dinat-ref run``, for Python looks for a module of this name when it starts.

It starts the stand-in for NATTEN, then makes itself invisible: the environment's own sitecustomize, if there is one, is
run in its place.
"""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


def _start() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.path.join(os.path.dirname(here), "natten_startup.py")
    with open(path, encoding="utf-8") as file:
        exec(compile(file.read(), path, "exec"), {"__name__": "dinat_ref_natten_startup", "__file__": path})
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    own = PathFinder.find_spec("sitecustomize")
    if own is not None and own.loader is not None:
        sys.modules["sitecustomize"] = module_from_spec(own)
        own.loader.exec_module(sys.modules["sitecustomize"])


if __name__ == "sitecustomize":
    _start()
