"""The command ``dinat-ref explore``: a page in which one picks a token of a photo and sees what it attends."""

import argparse
from pathlib import Path

from dinat_ref.command import CommandError, check_writable, printable, whole_file

EXAMPLES = """examples:
  dinat-ref explore
  dinat-ref explore cat.jpg --out cat.html
  dinat-ref explore street.jpg --whole --tokens 64
"""
FEWEST_TOKENS, MOST_TOKENS = 8, 80  # on the longer axis: more of them could not be told apart, or tapped


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> parser.parse_args([]).tokens
        56
    """
    parser.epilog = EXAMPLES
    parser.add_argument("image", nargs="?", help="a photo; the portrait that matplotlib ships by default")
    parser.add_argument("--out", type=Path, default=Path("explorer.html"), help="file to write (default explorer.html)")
    words = f"tokens on the longer axis, {FEWEST_TOKENS} to {MOST_TOKENS} (default 56: DiNAT's first level)"
    parser.add_argument("--tokens", type=int, default=56, help=words)
    parser.add_argument("--whole", action="store_true", help="keep the whole photo, not the square in its middle")


def run(args: argparse.Namespace) -> int:
    """Write the page.

    Raises:
        CommandError: bad input, or a file that cannot be read or written.
    Example:
        >>> parser = argparse.ArgumentParser()
        >>> configure(parser)
        >>> run(parser.parse_args(["--tokens", "3"]))
        Traceback (most recent call last):
        dinat_ref.command.CommandError: tokens must be in 8 .. 80, got 3
    """
    if args.out.suffix.lower() not in (".html", ".htm"):
        raise CommandError(f"the page is written as .html, got {args.out.name}")
    if not FEWEST_TOKENS <= args.tokens <= MOST_TOKENS:
        raise CommandError(f"tokens must be in {FEWEST_TOKENS} .. {MOST_TOKENS}, got {args.tokens}")
    check_writable(args.out)
    from dinat_ref.analysis.photo import load_photo
    from dinat_ref.viz.explorer.page import explorer_page, square

    try:
        photo = load_photo(args.image)
        page = explorer_page(photo if args.whole else square(photo), args.tokens)
    except (ValueError, FileNotFoundError) as error:
        raise CommandError(str(error)) from None
    with whole_file(args.out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(printable(args.out))
    return 0
