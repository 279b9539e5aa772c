"""What cannot be imported without Triton is not looked through for doctests."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("triton") else ["triton_kernels.py"]
