"""Every block of the pages on models and on NATTEN's names runs as it stands, on weights made here."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dinat_ref.cli import main
from dinat_ref.interop.natten import is_natten_installed, remove_natten
from dinat_ref.models import DinatForImageClassification, create_model
from tests.models.tiny import tiny

ROOT = Path(__file__).parents[2]
PAGES = "".join((ROOT / "tutorials" / "site" / f"{name}.md").read_text() for name in ("models", "natten"))
BLOCKS = re.findall(r"```python\n(.*?)```", PAGES, re.S)
NAMES = ["ant", "bee", "cat", "dog", "emu"]
HUB_NAME = "shi-labs/dinat-mini-in1k-224"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working directory with a photo and a folder of the hub's name, which comes before the hub itself."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("cat.jpg")
    torch.manual_seed(0)
    config = tiny(num_labels=None, id2label=dict(enumerate(NAMES)))
    folder = Path(HUB_NAME)
    folder.mkdir(parents=True)
    model = DinatForImageClassification(config)
    if "safetensors" in installed():
        model.save_pretrained(folder)
    else:
        config.to_json(folder / "config.json")
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    yield tmp_path
    remove_natten()


def installed() -> set[str]:
    import importlib.util

    return {name for name in ("safetensors", "transformers") if importlib.util.find_spec(name)}


def run(block: str) -> list[str]:
    """Run a block as it stands: the lines it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block, "models.md", "exec"), {"__name__": "page"})
    return printed.getvalue().splitlines()


def block_with(text: str) -> str:
    blocks = [block for block in BLOCKS if text in block]
    assert len(blocks) == 1
    return blocks[0]


def test_there_are_these_blocks_and_no_others():
    assert len(BLOCKS) == 4
    assert PAGES.count("```") == 8


def test_our_own_way(desk):
    label, shapes = run(block_with("from dinat_ref.models import DinatForImageClassification"))
    assert label in NAMES
    assert shapes == "[(1, 2, 56, 56, 9), (1, 3, 28, 28, 9), (1, 4, 14, 14, 9)]"


def test_the_original_repositorys_files(desk):
    torch.save(create_model("dinat_mini").state_dict(), "dinat_mini_in1k_224.pth")
    assert run(block_with("load_checkpoint")) == []


def test_the_transformers_way_gives_the_same_label(desk):
    if "transformers" not in installed():
        pytest.skip("transformers is not installed: dinat-ref[hf]")
    theirs = run(block_with("enable_dinat"))
    assert theirs == run(block_with("from dinat_ref.models import DinatForImageClassification"))[:1]


def test_nattens_names(desk):
    if is_natten_installed():
        pytest.skip("the real NATTEN is installed: it is left alone")
    printed, *_ = run(block_with("install_as_natten"))
    assert printed.startswith("NeighborhoodAttention2D(")


def test_the_command(desk, capsys):
    (command,) = re.findall(r"`dinat-ref (classify [^`]+)`", PAGES)
    assert main(shlex.split(command.replace("FOLDER", HUB_NAME))) == 0
    assert capsys.readouterr().out.startswith("cat.jpg\n")
    assert Path("attention.png").stat().st_size > 1000
