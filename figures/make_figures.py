"""Draw all figures of the project, with the numbers behind each in data/.

    python figures/make_figures.py                  compute and draw all
    python figures/make_figures.py hero cost        only these
    python figures/make_figures.py --check          compute again and compare, exactly; exit status 1 on a difference

Numbers are compared with data/NAME.json, to the byte. Drawings are compared where the matplotlib that drew them is the
one at hand (data/made_with.json): another version sets type a hair's breadth differently.
"""

import argparse
import json
import sys
import tempfile
import tomllib
from pathlib import Path

import matplotlib
from compare import same_drawing
from computed import FIGURES
from dark import follow_screen
from drawn import DRAWINGS

from dinat_ref.command import show_progress, whole_file
from dinat_ref.viz.theme import save_figure

HERE = Path(__file__).resolve().parent
ALT = tomllib.loads((HERE / "alt.toml").read_text())
MADE_WITH = HERE / "data" / "made_with.json"


def as_text(numbers: object) -> str:
    """Write numbers as JSON, one key a line."""
    if not isinstance(numbers, dict):
        return json.dumps(numbers) + "\n"
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in numbers.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def make(name: str, folder: Path) -> tuple[Path, Path]:
    """Compute and draw one figure into a folder: the paths of its numbers and its drawing."""
    text = as_text({"alt": ALT[name], **FIGURES[name]()})
    data = folder / "data" / f"{name}.json"
    with whole_file(data) as temporary:
        temporary.write_text(text)
    numbers = json.loads(text)
    del numbers["alt"]
    drawing, path = DRAWINGS[name](numbers), folder / f"{name}.svg"
    if not isinstance(drawing, str):
        drawing = follow_screen(save_figure(drawing, path).read_text(encoding="utf-8"))
    with whole_file(path) as temporary:
        temporary.write_text(drawing, encoding="utf-8")
    return data, path


def differences(name: str) -> list[str]:
    """Make one figure again and name the files that differ from the ones here."""
    same_drawing = json.loads(MADE_WITH.read_text()) == versions()
    with tempfile.TemporaryDirectory() as folder:
        made = make(name, Path(folder))
        compared = made if same_drawing else made[:1]
        here = [HERE / path.relative_to(folder) for path in compared]
        return [
            str(mine.relative_to(HERE.parent))
            for mine, again in zip(here, compared, strict=True)
            if not mine.is_file() or not same(mine, again)
        ]


def same(mine: Path, again: Path) -> bool:
    """Compare two files: numbers to the byte, drawings as ``same_drawing`` does."""
    if mine.suffix == ".json":
        return mine.read_bytes() == again.read_bytes()
    return same_drawing(mine.read_bytes(), again.read_bytes())


def versions() -> dict[str, str]:
    """Name what decides on the bytes of a drawing."""
    return {"matplotlib": matplotlib.__version__}


def main(argv: list[str] | None = None) -> int:
    """Make or check figures: exit status 0 when all is well, 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"figures, of {', '.join(DRAWINGS)}; all by default")
    parser.add_argument("--check", action="store_true", help="write nothing, compare with what is there")
    args = parser.parse_args(argv)
    unknown = [name for name in args.names if name not in DRAWINGS]
    if unknown:
        parser.error(f"no figure is called {unknown[0]!r}; there are {', '.join(DRAWINGS)}")

    changed = []
    names = args.names or list(DRAWINGS)
    for number, name in enumerate(names, start=1):
        show_progress(f"{name} ({number} of {len(names)})")
        if args.check:
            changed += differences(name)
        else:
            make(name, HERE)
    show_progress("")
    if not args.check:
        MADE_WITH.write_text(json.dumps(versions()) + "\n")
        print(f"{len(names)} figures drawn in {HERE}")
        return 0
    for path in changed:
        print(f"differs: {path}", file=sys.stderr)
    if json.loads(MADE_WITH.read_text()) != versions():
        print(f"drawings not compared: made with {MADE_WITH.read_text().strip()}, here {versions()}")
    print(f"{len(names)} figures checked, {len(changed)} files differ")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
