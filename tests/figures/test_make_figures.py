"""The figures in the repository are the ones that the code draws, and the check would notice if they were not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FIGURES = Path(__file__).parents[2] / "figures"


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(FIGURES.parent)}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)


def test_all_figures_are_current() -> None:
    result = run(FIGURES / "make_figures.py", "--check")
    assert result.returncode == 0, result.stderr
    assert "0 files differ" in result.stdout


def test_the_check_notices_a_changed_number(tmp_path: Path) -> None:
    for source in FIGURES.rglob("*"):
        if source.is_file() and source.suffix in (".py", ".toml", ".json", ".svg"):
            target = tmp_path / source.relative_to(FIGURES)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    path = tmp_path / "data" / "level_by_level.json"
    numbers = json.loads(path.read_text())
    numbers["nat_mini"][0] += 1e-9
    path.write_text(json.dumps(numbers))
    result = run(tmp_path / "make_figures.py", "--check", "level_by_level")
    assert result.returncode == 1
    assert "differs: " in result.stderr
    assert "level_by_level.json" in result.stderr


@pytest.mark.parametrize("path", sorted((FIGURES / "data").glob("[!m]*.json")), ids=lambda path: path.stem)
def test_every_figure_says_in_words_what_it_shows(path: Path) -> None:
    assert len(json.loads(path.read_text())["alt"]) > 60
    drawings = [found for found in FIGURES.glob(f"{path.stem}.*") if found.suffix in (".svg", ".png")]
    assert len(drawings) == 1
    assert drawings[0].stat().st_size < 1_000_000
