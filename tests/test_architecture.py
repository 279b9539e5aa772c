"""The rules of the house: imports go downwards, heavy ones happen late, every public name is documented."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dinat_ref
from dinat_ref.attention.functional import FORMULATIONS

PACKAGE = Path(dinat_ref.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
FLOORS = [
    {"command"},  # shared by all commands, imports nothing of the package
    {"outside"},  # files that somebody sent
    {"images"},
    {"window"},
    {"neighborhood"},
    {"attention"},
    {"rotary"},
    {"layers"},
    {"dinat_ref"},  # the package itself offers the names of the floors below
    {"models"},
    {"analysis"},
    {"parallel"},
    {"viz"},
    {"interop"},
    {"options"},  # what commands take
    {"testing", "bench", "training", "tour", "tiles", "classify", "export", "run"},
    {"cli"},
    {"__main__"},
]
FILLER = re.compile(r"Source: the project's own|Raises:\s+Nothing\.|Shapes:\s+none\b")
HEAVY = ("matplotlib", "hypothesis", "pytest", "transformers", "safetensors", "PIL", "jupytext", "natten")


def module_name(file: Path) -> str:
    parts = ("dinat_ref", *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The first name below the package, or the package."""
    return module.split(".")[1] if "." in module else module


def floor(module: str) -> int:
    floors = [number for number, rooms in enumerate(FLOORS) if room(module) in rooms]
    assert floors, f"{module} is in no room of the house: add it to FLOORS"
    return floors[0]


def imports(file: Path) -> Iterator[str]:
    """Every module of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "dinat_ref")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} has a relative import"
            if node.module and node.module.split(".")[0] == "dinat_ref":
                for alias in node.names:
                    below = PACKAGE.joinpath(*node.module.split(".")[1:], alias.name)
                    is_module = below.with_suffix(".py").exists() or below.is_dir()
                    yield f"{node.module}.{alias.name}" if is_module else node.module


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_imports_go_downwards(file: Path) -> None:
    importer = module_name(file)
    for imported in imports(file):
        if importer == "dinat_ref":
            assert floor(imported) < floor("dinat_ref"), f"import dinat_ref loads {imported}"
        elif room(imported) != room(importer):
            assert floor(imported) < floor(importer), f"{importer} imports {imported}"


def test_formulations_are_independent() -> None:
    """No formulation imports another, so that equality between them is evidence."""
    modules = {function.__module__ for function in FORMULATIONS.values()}
    assert len(modules) == len(FORMULATIONS)
    for module in modules:
        file = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
        assert not modules & set(imports(file)), module


def test_window_needs_no_torch() -> None:
    """The definition is plain integers."""
    for node in ast.walk(ast.parse((PACKAGE / "window.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= {"argparse", "operator", "sys"}
        assert not isinstance(node, ast.ImportFrom)


@pytest.mark.parametrize("rooms", [[], ["models", "analysis", "cli"]], ids=["package", "rooms"])
def test_heavy_imports_happen_late(rooms: list[str]) -> None:
    """In a fresh interpreter, warnings as errors."""
    present = [room for room in rooms if (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").exists()]
    modules = ", ".join(["dinat_ref", *(f"dinat_ref.{room}" for room in present)])
    code = f"import sys, {modules}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) & set(HEAVY)
    assert run.stderr == ""


def test_the_package_offers_its_names_without_importing_pytorch() -> None:
    """Names come when they are asked for; ``window`` stays the function, although a module has the same name."""
    code = """if True:
        import sys, dinat_ref
        assert "torch" not in sys.modules
        assert {*dinat_ref.__all__} <= {*dir(dinat_ref)}
        import dinat_ref.layers
        names = {name: getattr(dinat_ref, name) for name in dinat_ref.__all__}
        assert all(value.__name__ == name for name, value in names.items()), names
        assert dinat_ref.attention.na2d is dinat_ref.na2d
        assert not hasattr(dinat_ref, "na4d")
    """
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def text_without_encoding(tree: ast.Module) -> Iterator[str]:
    """Calls that read or write text in whatever encoding the system prefers: on Windows that is not UTF-8."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and "encoding" not in {keyword.arg for keyword in node.keywords}:
            method = isinstance(node.func, ast.Attribute)
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            constants = {leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)}
            opens_text = name in ("open", "fdopen") and not any("b" in str(value) for value in constants)
            opens_text &= not (method and ast.unparse(node.func) in ("os.open", "Image.open", "archive.open"))
            starts_text = any(keyword.arg in ("text", "universal_newlines") for keyword in node.keywords)
            reads_text = method and name in ("read_text", "write_text")
            if opens_text or reads_text or (starts_text and name in ("run", "Popen", "check_output")):
                yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_text_files_name_their_encoding(file: Path) -> None:
    assert not list(text_without_encoding(ast.parse(file.read_text(encoding="utf-8"))))


def test_a_call_without_encoding_is_seen() -> None:
    calls = ["open(p)", "open(p, 'w')", "p.open()", "p.read_text()", "p.write_text(t)", "run(c, text=True)"]
    named = ["open(p, 'rb')", "open(p, encoding='utf-8')", "p.read_text(encoding='ascii')", "os.open(p, 0)", "run(c)"]
    assert all(list(text_without_encoding(ast.parse(call))) for call in calls)
    assert not any(list(text_without_encoding(ast.parse(call))) for call in named)


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_every_module_says_what_it_is(file: Path) -> None:
    if file.read_text(encoding="utf-8").strip():
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))


def offers_names(file: Path) -> bool:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


def wanted_sections(value: Callable[..., object]) -> set[str]:
    """What the docstring of a public name must have: Shapes where tensors come or go, Raises where it raises."""
    wanted = {">>>"}
    if inspect.isfunction(value):
        if any("Tensor" in str(annotation) for annotation in inspect.get_annotations(value).values()):
            wanted.add("Shapes:")
        if any(isinstance(node, ast.Raise) for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(value))))):
            wanted.add("Raises:")
    return wanted


@pytest.mark.parametrize("file", [file for file in FILES if offers_names(file)], ids=module_name)
def test_every_public_name_is_documented(file: Path, count_cases: Callable[[str, int], None]) -> None:
    """Everything in ``__all__`` has the sections that say something about it, and an example that doctest runs."""
    try:
        module = importlib.import_module(module_name(file))
    except ModuleNotFoundError as error:
        pytest.skip(f"{module_name(file)} needs {error.name}, which the testing extra does not install")
    assert module.__all__ == sorted(set(module.__all__)), "__all__ is sorted and has each name once"
    missing = []
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            sections = wanted_sections(value)
            missing += [f"{name}: {section}" for section in sections if section not in (value.__doc__ or "")]
            count_cases("public names", 1)
    assert not missing


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_docstrings_have_no_filler(file: Path) -> None:
    """A section that says nothing teaches readers to skip."""
    assert not FILLER.findall(file.read_text(encoding="utf-8"))


def test_every_formulation_is_documented() -> None:
    for name, function in FORMULATIONS.items():
        sections = ("Shapes:", "Cost:", "Source:", ">>>")
        assert all(section in (function.__doc__ or "") for section in sections), name
        assert f'"{name}"' in (sys.modules["dinat_ref.attention.functional"].__doc__ or ""), name
