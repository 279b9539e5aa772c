"""What ``dinat-ref verify`` takes."""

import argparse

LAYOUTS = ("heads_last", "heads_first")
BUDGETS = ("quick", "full", "deep")
SECONDS = {"quick": 120.0, "full": 600.0, "deep": 600.0}  # about how long each may take
EPILOG = """\
TARGET is MODULE:CALLABLE with the argument names of NATTEN 0.21, or the name of a peer: natten, natten-mps,
attention-gym. In M:F, {n} stands for the number of axes: natten.functional:na{n}d_qk.

--supports takes words that are separated by commas: no-NAME or NAME for a feature, NAME=VALUE+VALUE for a list.
Features: even stride dilation causal scale per_axis rpb lse gqa extra_keys head_dim_v backward double_backward
strided empty_batch autocast compile vmap errors nan_outside causal_rows; lists: ndim, dtypes, head_dims; numbers:
min_layout, max_tokens.

examples:
  dinat-ref verify dinat_ref:na2d --supports ndim=2
  dinat-ref verify my_package.kernels:na2d --supports ndim=2,no-stride,dtypes=float32+bfloat16 --report report.html
  dinat-ref verify natten
  dinat-ref verify --qk natten.functional:na{n}d_qk --av natten.functional:na{n}d_av --supports ndim=1+2,no-stride
  dinat-ref verify --mask-mod my_masks:factory --supports ndim=2,no-causal
  dinat-ref verify my_jax:na1d --arrays jax.numpy:from_dlpack --supports ndim=1,no-backward
  dinat-ref verify --export golden            then write your answers into golden/outputs
  dinat-ref verify --check golden
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dinat-ref verify``.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> parser.parse_args(["natten"]).budget
        'quick'
    """
    parser.epilog = EPILOG
    parser.add_argument("target", nargs="?", metavar="TARGET", help="MODULE:CALLABLE, or the name of a peer")
    parser.add_argument("--supports", default="", metavar="WORDS", help="what the kernel takes, see below")
    parser.add_argument("--layout", choices=LAYOUTS, default="heads_last", help="where its heads are")
    parser.add_argument("--device", default="cpu", help="where to run it (default cpu)")
    parser.add_argument("--budget", choices=BUDGETS, default="quick", help="how thorough (default quick)")
    parser.add_argument("--seed", type=int, default=0, help="of the random problems (default 0)")
    seconds = ", ".join(f"{name} {allowed:.0f}" for name, allowed in SECONDS.items())
    parser.add_argument("--seconds", type=float, help=f"about how long it may take (default: {seconds})")
    parser.add_argument("--only", default="", metavar="IDS", help="ids of checks, or their beginnings, by commas")
    parser.add_argument("--expect", action="append", default=[], metavar="ID=REASON", help="a check known to fail")
    parser.add_argument("--report", action="append", default=[], metavar="FILE", help="write FILE.json or FILE.html")
    parser.add_argument("--qk", metavar="M:F", help="heads-first scores (with --av instead of TARGET)")
    parser.add_argument("--av", metavar="M:F", help="heads-first weighted sum")
    parser.add_argument("--legacy", action="store_true", help="--qk takes (query, key, rpb, kernel_size, dilation)")
    parser.add_argument("--mask-mod", metavar="M:F", help="F(layout, kernel_size=...) gives a FlexAttention mask_mod")
    parser.add_argument("--arrays", metavar="numpy|M:F", help="TARGET takes NumPy arrays, or what from_dlpack F makes")
    parser.add_argument("--export", metavar="DIR", help="write golden vectors")
    parser.add_argument("--check", metavar="DIR", help="compare the answers in DIR/outputs with golden vectors")
    parser.add_argument("--list", action="store_true", help="list the checks")
