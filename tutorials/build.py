"""Turn the tutorials into notebooks: run each NN_verb_object.py and write what it shows into the .ipynb beside it.

    python tutorials/build.py               all of them
    python tutorials/build.py 03 08         only these
    python tutorials/build.py --check 01    run again, write nothing, compare what is printed; exit 1 if it differs

The .py is the source: notebooks are never edited. They hold no execution times and no widget state. Where
pyproject.toml names a GitHub address as [project.urls] Repository, each begins with a badge that opens it in Colab, and
a cell that installs the project there. Needs pip install 'dinat-ref[tutorials]'.
"""

import argparse
import base64
import io
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from dinat_ref.command import show_progress, whole_file

HERE = Path(__file__).resolve().parent
LARGEST = 300_000  # bytes of a notebook; above, its pictures are stored with fewer colours
COLAB = "https://colab.research.google.com"
BADGE = "[![Open in Colab]({colab}/assets/colab-badge.svg)]({colab}/github/{name}/blob/main/tutorials/{stem}.ipynb)"
INSTALL = """# Where the project is not installed yet, as on Colab
import importlib.util

if importlib.util.find_spec("dinat_ref") is None:
    %pip install -q git+https://github.com/{name}"""


def sources(numbers: list[str]) -> list[Path]:
    """Find the tutorials by their numbers; all of them without any."""
    return [path for path in sorted(HERE.glob("[0-9][0-9]_*.py")) if not numbers or path.name[:2] in numbers]


def repository(pyproject: Path = HERE.parent / "pyproject.toml") -> str | None:
    """Read where the project is published, as OWNER/NAME; None where it does not say, or not on GitHub."""
    address = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"].get("urls", {}).get("Repository", "")
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", address)
    return found[1] if found else None


def opening(source: Path, name: str | None) -> list[tuple[str, str]]:
    """Make the cells that come before a tutorial's own, as kind and text; none for a project without an address."""
    if name is None:
        return []
    return [("markdown", BADGE.format(colab=COLAB, name=name, stem=source.stem)), ("code", INSTALL.format(name=name))]


def execute(source: Path, name: str | None = None) -> Any:
    """Run a tutorial in a kernel of its own, in its own folder: a notebook with outputs and nothing that changes."""
    import jupytext
    import nbformat
    from nbclient import NotebookClient

    notebook = jupytext.read(source)
    make = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    notebook.cells[:0] = [make[kind](text) for kind, text in opening(source, name)]
    folder = {"metadata": {"path": str(source.parent)}}
    NotebookClient(notebook, timeout=300, resources=folder, record_timing=False).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell["metadata"] = {}
        if cell["cell_type"] == "code":
            cell["outputs"] = merged(cell["outputs"])
    if len(nbformat.writes(notebook)) > LARGEST:
        reduce_colours(notebook)
    return notebook


def merged(outputs: list[Any]) -> list[Any]:
    """Join what was printed in pieces, and leave out progress; both depend on the machine's load."""
    result: list[Any] = []
    for output in outputs:
        is_stream = output["output_type"] == "stream"
        if is_stream and output["name"] == "stderr" and "Warning" not in output["text"]:
            continue
        if result and is_stream and output["name"] == result[-1].get("name"):
            result[-1]["text"] += output["text"]
        else:
            result.append(output)
    return result


def pictures(notebook: Any) -> list[Any]:
    """List the outputs of a notebook that are pictures."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["data"] for output in outputs if "image/png" in output.get("data", {})]


def reduce_colours(notebook: Any) -> None:
    """Store the pictures of a notebook with 256 colours each: a third of the bytes where they show photos."""
    from PIL import Image

    for data in pictures(notebook):
        picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
        buffer = io.BytesIO()
        picture.quantize(256, kmeans=1, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
        data["image/png"] = base64.b64encode(buffer.getvalue()).decode()


def thumbnail(notebook: Any, width: int = 240) -> bytes | None:
    """Shrink the first picture of a notebook to a PNG for the list of tutorials; None where there is no picture."""
    from PIL import Image

    for data in pictures(notebook)[:1]:
        picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
        small = picture.resize((width, width * picture.height // picture.width), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.save(buffer, format="PNG", optimize=True)
        return buffer.getvalue()
    return None


def printed(notebook: Any) -> list[str]:
    """List what the cells of a notebook print."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["text"] for output in outputs if output["output_type"] == "stream"]


def main(argv: list[str] | None = None) -> int:
    """Build or check notebooks: exit status 0 when all is well, 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", metavar="NN", help="tutorials, by number; all by default")
    parser.add_argument("--check", action="store_true", help="write nothing, compare what is printed")
    args = parser.parse_args(argv)
    try:
        import ipykernel  # noqa: F401
        import jupytext  # noqa: F401
        import nbformat
    except ImportError as error:
        parser.error(f"{error.name} is missing; install it with: pip install 'dinat-ref[tutorials]'")

    name, different = repository(), []
    chosen = sources(args.numbers)
    for number, source in enumerate(chosen, start=1):
        show_progress(f"{source.stem} ({number} of {len(chosen)})")
        notebook, target = execute(source, name), source.with_suffix(".ipynb")
        if args.check:
            if printed(nbformat.read(target, as_version=4)) != printed(notebook):
                different.append(target.name)
        else:
            with whole_file(target) as temporary:
                nbformat.write(notebook, temporary)
            if (small := thumbnail(notebook)) is not None:
                with whole_file(HERE / "thumbnails" / f"{source.stem}.png") as temporary:
                    temporary.write_bytes(small)
    show_progress("")
    for target_name in different:
        print(f"prints something else now: {target_name}", file=sys.stderr)
    if name is None and not args.check:
        print("without Colab badges: pyproject.toml has no GitHub address as [project.urls] Repository")
    print(f"{len(chosen)} notebooks {'checked' if args.check else 'written'}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
