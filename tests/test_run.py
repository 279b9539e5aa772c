"""``dinat-ref run``: programs that need NATTEN, unedited, and every process that they start."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dinat_ref
from dinat_ref import run
from dinat_ref.cli import main
from dinat_ref.command import CommandError
from dinat_ref.interop import natten_startup
from dinat_ref.interop.natten import is_natten_installed, remove_natten
from dinat_ref.interop.natten_startup import VARIABLE

ROOT = str(Path(dinat_ref.__file__).parents[1])
STARTUP = Path(natten_startup.__file__)


@pytest.fixture(autouse=True)
def no_natten():
    """Tell the real NATTEN, which would be used, and take away what doctests left."""
    remove_natten()
    if is_natten_installed():
        pytest.skip("the real NATTEN is installed: it would be used")


def environment(version: str = "0.17", *path: Path) -> dict[str, str]:
    """What a program under ``dinat-ref run --natten VERSION`` has, with more folders to import from."""
    entries = [*map(str, path), ROOT, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return run.prepare(version, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, entries))})


def python(*arguments: str, env: dict[str, str], status: int = 0, **options: object) -> str:
    """Run Python and return what it printed."""
    done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=False, **options)
    assert done.returncode == status, done.stderr
    return done.stdout


# as plain python


@pytest.mark.parametrize("kind", ["script", "module", "code"])
def test_a_program_runs_as_plain_python_runs_it(kind, tmp_path):
    """Arguments, name, file, output, traceback and exit status, through the command."""
    code = "import sys\nprint(sys.argv, __name__, globals().get('__file__'), sys.path[0])\nraise KeyError('lost')\n"
    (tmp_path / "program.py").write_text(code)
    how = {"script": ["program.py"], "module": ["-m", "program"], "code": ["-c", code]}[kind]
    arguments = [*how, "--epochs", "3", "-m", "--help", "--natten", "mine"]
    plain = {**os.environ, "PYTHONPATH": ROOT}
    command = [sys.executable, "-m", "dinat_ref", "run", "--natten", "0.17", *arguments]
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "check": False, "env": plain}
    expected = subprocess.run([sys.executable, *arguments], **options)
    actual = subprocess.run(command, **options)
    assert expected.returncode == 1
    assert (actual.returncode, actual.stdout, actual.stderr) == (expected.returncode, expected.stdout, expected.stderr)


def test_exit_status_and_missing_file(tmp_path):
    assert python("-c", "raise SystemExit(7)", env=environment(), status=7) == ""
    python(str(tmp_path / "missing.py"), env=environment(), status=2)


def test_starting_costs_nothing_before_natten_is_imported():
    code = """
import importlib.metadata, importlib.util, sys
assert importlib.metadata.version("natten") == "0.14.4", "known before it is imported"
assert importlib.util.find_spec("natten").name == "natten"
list(importlib.metadata.entry_points())
assert not {"torch", "numpy", "dinat_ref"} & set(sys.modules)
assert not [entry for entry in sys.path if entry.endswith("startup")]
print("ok")
"""
    assert python("-c", code, env=environment("0.14.2")) == "ok\n"


def test_what_starts_with_every_process_needs_the_standard_library_alone():
    for file in (STARTUP, STARTUP.parent / "startup" / "sitecustomize.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_the_environment_keeps_its_own_sitecustomize_and_a_real_natten(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.own = __file__\n")
    (tmp_path / "natten.py").write_text("__version__ = 'real'\n")
    code = "import natten, sitecustomize, sys; print(natten.__version__, sitecustomize.__file__ == own)"
    assert python("-c", code, env=environment("0.17", tmp_path)) == "real True\n"


# every process

WORKERS = """
import multiprocessing, pickle, subprocess, sys
import torch
from natten import NeighborhoodAttention2D, __version__
from torch.utils.data import DataLoader, Dataset

class Attended(Dataset):
    def __init__(self):
        self.layer = NeighborhoodAttention2D(8, num_heads=2, kernel_size=3, rel_pos_bias=True)
    def __len__(self):
        return 2
    def __getitem__(self, number):
        import natten
        return self.layer(torch.ones(1, 4, 5, 8)).detach(), natten.__version__

if __name__ == "__main__":
    dataset = Attended()
    expected = dataset[0][0]
    for output, version in DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn"):
        torch.testing.assert_close(output, expected)
        assert version == __version__ == "0.17.5"
    torch.save(dataset.layer, sys.argv[1])
    code = "import sys, torch; print(torch.load(sys.argv[1], weights_only=False).head_dim, 'natten' in sys.modules)"
    print(subprocess.run([sys.executable, "-c", code, sys.argv[1]], capture_output=True, text=True, check=True).stdout)
"""


def test_spawned_workers_subprocesses_and_pickles_find_it(tmp_path):
    (tmp_path / "program.py").write_text(WORKERS)
    out = python(str(tmp_path / "program.py"), str(tmp_path / "layer.pt"), env=environment())
    assert out.split() == ["4", "False"], "a pickled layer needs no stand-in"


RANKS = """
import torch.distributed as dist
from natten.functional import natten2dqkrpb
dist.init_process_group("gloo")
ranks = [None] * dist.get_world_size()
dist.all_gather_object(ranks, (dist.get_rank(), natten2dqkrpb.__name__))
if dist.get_rank() == 0:
    print(ranks)
dist.destroy_process_group()
"""


def test_torchrun_finds_it(tmp_path):
    (tmp_path / "program.py").write_text(RANKS)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tmp_path / "program.py")]
    out = python(*launch, env={**environment("0.15"), "OMP_NUM_THREADS": "1"})
    assert out == "[(0, 'natten2dqkrpb'), (1, 'natten2dqkrpb')]\n"


def test_transformers_dinat_is_enabled_when_it_is_imported():
    pytest.importorskip("transformers", reason="transformers is in the extra 'hf'")
    code = """
import sys
import transformers
assert "dinat_ref" not in sys.modules, "lazily"
from transformers import DinatConfig, DinatModel
import torch
model = DinatModel(DinatConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 2], dilations=[[1], [1]])).eval()
print(tuple(model(torch.zeros(1, 3, 64, 64)).last_hidden_state.shape), "natten" in sys.modules)
"""
    assert python("-W", "ignore", "-c", code, env=environment()) == "(1, 8, 8, 16) True\n"


def test_whatever_happens_to_dinat_the_program_goes_on(tmp_path, monkeypatch):
    folder = tmp_path / "transformers" / "models" / "dinat"
    folder.mkdir(parents=True)
    for package in (folder, *folder.parents[:2]):
        (package / "__init__.py").write_text("")
    (folder / "modeling_dinat.py").write_text("value = 42\n")
    code = "import sys, transformers; from transformers.models.dinat.modeling_dinat import value; print(value)"
    path = run.prepare("0.17", {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), ROOT])})
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=True)
    assert done.stdout == "42\n"
    assert "UserWarning: transformers' Dinat could not be enabled: " in done.stderr


# --always and --never


def test_always_heeds_the_variable_and_never_takes_it_back(tmp_path, monkeypatch, capsys):
    file = tmp_path / "dinat_ref_natten.pth"
    monkeypatch.setattr(run, "always_file", lambda: file)
    assert main(["run", "--never"]) == 0
    assert capsys.readouterr().out == f"nothing to take back: there is no {file}\n"
    assert main(["run", "--always"]) == 0
    assert f"wrote {file}" in capsys.readouterr().out
    code = f"import importlib.util, site; site.addsitedir({str(tmp_path)!r}); print(importlib.util.find_spec('natten'))"
    plain = {**os.environ, "PYTHONPATH": ROOT}
    plain.pop(VARIABLE, None)
    assert python("-c", code, env=plain) == "None\n"
    assert "natten_startup" in python("-c", code, env={**plain, VARIABLE: "0.17"})
    used = code + "; import natten; print(natten.__version__)"
    assert python("-c", used, env={**plain, VARIABLE: "0.15"}).split()[-1] == "0.15.1"
    assert main(["run", "--never"]) == 0
    assert capsys.readouterr().out == f"removed {file}\n"
    assert not file.exists()


def test_the_file_lies_in_the_environment():
    assert run.always_file().parent == Path(importlib.util.find_spec("torch").origin).parents[1]


# bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a script, -m MODULE or -c CODE"),
        (["--natten", "0.16", "train.py"], "--natten must be a release of 0.14, 0.15, 0.17, 0.20, 0.21"),
        (["--always", "train.py"], "--always and --never run nothing"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    assert main(["run", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"dinat-ref run: error: {message}")
    assert error.count("\n") == 1


def test_a_real_natten_is_not_hidden(monkeypatch, tmp_path):
    (tmp_path / "natten.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CommandError, match="NATTEN is installed here, and would be used"):
        run.prepare("0.17", {})


def test_an_environment_that_cannot_be_written_says_so(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(run, "always_file", lambda: tmp_path / "file" / "dinat_ref_natten.pth")
    assert main(["run", "--always"]) == 2
    assert "cannot write" in capsys.readouterr().err
