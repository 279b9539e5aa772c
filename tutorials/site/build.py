"""Build the site: python tutorials/site/build.py, or make site; it comes to lie in build/site.

    python tutorials/site/build.py            everything
    python tutorials/site/build.py --check    look for dead links in what is built

Pages, tutorials as they were executed, figures, sources beside their explanation, an index of everything public, a
recorded run to step through and the explorer are put together in build/site-sources; Sphinx sets them, and every
warning is an error; then every internal link and anchor is followed. Needs pip install 'dinat-ref[site]'.
"""

import argparse
import json
import pkgutil
import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import dinat_ref
from dinat_ref.cli import main as dinat_ref_command
from dinat_ref.command import show_progress

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCES, SITE = ROOT / "build" / "site-sources", ROOT / "build" / "site"
PACKAGE = ROOT / "dinat_ref"
FORMULATIONS = ("loops", "gather", "unfold", "masked", "tiled")
ANNOTATED = ["window.py", "neighborhood.py", *(f"attention/{name}.py" for name in FORMULATIONS)]
OPENED = {"stepping": "step.html", "exploring": "explorer.html"}  # pages that show one that a command writes
FRAME = """
```{{raw}} html
<p><a href="{0}">Open it on a page of its own.</a></p>
<iframe class="page" src="{0}" title="{0}"></iframe>
```
"""
TUTORIALS = "\n```{toctree}\n:hidden:\n:glob:\n\ntutorials/*\n```\n"
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.S | re.M)
ROOMS = {
    "window": "the definition",
    "neighborhood": "any number of axes",
    "attention": "the operator",
    "layers": "layers",
    "rotary": "rotary embeddings",
    "models": "models",
    "analysis": "numbers about windows, fields and costs",
    "viz": "drawings",
    "testing": "the verification kit",
    "interop": "other projects' names and interfaces",
    "parallel": "several machines",
    "training": "training",
    "bench": "benchmarks",
}


def relinked(text: str, page: Path, at: Path, linked: set[str]) -> str:
    """Let the links of a page lead to where things lie on the site; collect the source files it links to.

    ``page`` is the file in the repository, ``at`` its place among the site's sources.
    """

    def target(found: re.Match[str]) -> str:
        path = (page.parent / found[1]).resolve()
        up = "../" * (len(at.relative_to(SOURCES).parts) - 1)
        if path.parent == HERE:
            return f"]({up}{path.name}"
        if path.parent == ROOT / "figures":
            return f"]({up}figures/{path.name}"
        if path.parent == HERE.parent and path.suffix == ".ipynb":
            return f"]({up}tutorials/{path.name}"
        if path.parent == HERE.parent / "thumbnails":
            return f"]({up}thumbnails/{path.name}"
        if path.is_relative_to(PACKAGE) and path.suffix == ".py":
            linked.add(str(path.relative_to(PACKAGE)))
            return f"]({up}source/{path.relative_to(PACKAGE).with_suffix('.md')}"
        raise SystemExit(f"{page.relative_to(ROOT)} links to {found[1]}, which is not on the site")

    parts = CODE.split(text)  # prose and code by turns
    parts[::2] = [LINK.sub(target, part) for part in parts[::2]]
    return "".join(parts)


def put_together() -> None:
    """Write the sources of the site."""
    import annotate

    shutil.rmtree(SOURCES, ignore_errors=True)
    shutil.copytree(HERE / "templates", SOURCES / "templates")
    shutil.copytree(
        ROOT / "figures", SOURCES / "figures", ignore=lambda _, names: [n for n in names if n[-4:] != ".svg"]
    )
    shutil.copytree(HERE.parent / "thumbnails", SOURCES / "thumbnails")
    shutil.copytree(HERE / "static", SOURCES / "static")
    for script in ("conf.py", "docstrings.py"):
        shutil.copy(HERE / script, SOURCES)
    linked = {*ANNOTATED}
    for page in HERE.glob("*.md"):
        text = relinked(page.read_text(encoding="utf-8"), page, SOURCES / page.name, linked)
        text += FRAME.format(OPENED[page.stem]) if page.stem in OPENED else ""
        (SOURCES / page.name).write_text(text, encoding="utf-8")
    tutorials = HERE.parent / "README.md"
    text = relinked(tutorials.read_text(encoding="utf-8"), tutorials, SOURCES / "learn.md", linked)
    (SOURCES / "learn.md").write_text(text + TUTORIALS, encoding="utf-8")
    for notebook in HERE.parent.glob("[0-9][0-9]_*.ipynb"):
        copy_notebook(notebook, linked)
    others = sorted(linked - {*ANNOTATED})
    for name in [*ANNOTATED, *others]:
        place = (SOURCES / "source" / name).with_suffix(".md")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(annotate.page(PACKAGE / name, f"dinat_ref/{name}"), encoding="utf-8")
    (SOURCES / "source" / "index.md").write_text(source_index(others), encoding="utf-8")
    (SOURCES / "api").mkdir()
    (SOURCES / "api" / "index.rst").write_text(api_index(), encoding="utf-8")
    (SOURCES / "extra").mkdir()
    dinat_ref_command(["explore", "--out", str(SOURCES / "extra" / "explorer.html")])
    dinat_ref_command(["step", "--out", str(SOURCES / "extra" / "step.html")])


def copy_notebook(notebook: Path, linked: set[str]) -> None:
    """Copy an executed tutorial, its links turned to the site."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    place = SOURCES / "tutorials" / notebook.name
    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = relinked("".join(cell["source"]), notebook, place, linked)
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps(content), encoding="utf-8")


def source_index(others: list[str]) -> str:
    """The list of annotated sources."""
    title = "# Sources, beside their explanation\n\nIn the order in which one reads them.\n"
    more = "\nFiles that a page or a tutorial points to:\n"
    lists = [
        "```{toctree}\n:maxdepth: 1\n" + "\n".join(name[:-3] for name in names) + "\n```\n"
        for names in (ANNOTATED, others)
    ]
    return "\n".join([title, lists[0], more, lists[1]])


def modules() -> list[str]:
    """Name every public module of the package."""
    found = [module.name for module in pkgutil.walk_packages([str(PACKAGE)], "dinat_ref.")]
    return [name for name in found if not any(part.startswith("_") for part in name.split("."))]


def api_index() -> str:
    """The index of everything public, room by room, for autosummary."""
    title = "Everything public"
    lines = [title, "=" * len(title), "", "What ``from dinat_ref import ...`` gives:", "", ".. autosummary::", ""]
    lines += [f"   ~{getattr(dinat_ref, name).__module__}.{name}" for name in dinat_ref.__all__] + [""]
    lines += ["And every module, with what it offers.", ""]
    rooms: dict[str, list[str]] = {}
    for name in modules():
        room = name.split(".")[1]
        rooms.setdefault(room if room in ROOMS else "commands", []).append(name)
    for room in [*ROOMS, "commands"]:
        heading = ROOMS.get(room, "commands, and what they share").capitalize()
        lines += [
            heading,
            "-" * len(heading),
            "",
            ".. autosummary::",
            "   :toctree: modules",
            "   :template: module.rst",
            "",
        ]
        lines += [f"   {name}" for name in rooms.get(room, [])] + [""]
    return "\n".join(lines)


class Links(HTMLParser):
    """The links of a page, and the anchors that it has."""

    def __init__(self, page: Path) -> None:
        """Read a page."""
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag points to, and its name."""
        for name, value in attrs:
            if name in ("href", "src", "srcset") and value:
                self.links.add(value)
            if name in ("id", "name") and value:
                self.anchors.add(value)


def dead_links(site: Path) -> Iterator[str]:
    """Follow every internal link of a site: say which page has a link to nothing."""
    pages = {page: Links(page) for page in site.rglob("*.html") if "_static" not in page.parts}
    for page, content in sorted(pages.items()):
        for link in sorted(content.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            known = pages[target].anchors if target in pages else set()
            missing_anchor = parts.fragment and target in pages and unquote(parts.fragment) not in known | {"top"}
            if not target.is_file() or missing_anchor:
                yield f"{page.relative_to(site)}: {link}"


def main(argv: list[str] | None = None) -> int:
    """Build the site and follow its links: exit status 1 where Sphinx warns or a link is dead."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="build nothing, look for dead links in what is there")
    args = parser.parse_args(argv)
    if not args.check:
        try:
            from sphinx.cmd.build import main as sphinx
        except ImportError as error:
            parser.error(f"{error.name} is missing; install it with: pip install 'dinat-ref[site]'")
        show_progress("putting pages together")
        put_together()
        show_progress("")
        shutil.rmtree(SITE, ignore_errors=True)
        doctrees = str(ROOT / "build" / "site-doctrees")
        status = sphinx(["-q", "-W", "--keep-going", "-j", "auto", "-d", doctrees, str(SOURCES), str(SITE)])
        if status:
            return status
    if not SITE.is_dir():
        parser.error(f"there is no site in {SITE}")
    dead = list(dead_links(SITE))
    for line in dead:
        print(f"dead link: {line}", file=sys.stderr)
    pages = sum("_static" not in page.parts for page in SITE.rglob("*.html"))
    print(f"{pages} pages in {SITE}, {len(dead)} dead links, dinat_ref {dinat_ref.__version__}")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
