"""The figures in the repository are the ones that the code draws, and the check would notice if they were not."""

import importlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dinat_ref import window

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


def test_the_check_notices_a_changed_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FIGURES))
    same_drawing = importlib.import_module("compare").same_drawing
    curve = (FIGURES / "gridding.svg").read_bytes()
    picture = (FIGURES / "attention_maps.png").read_bytes()
    assert same_drawing(curve, curve, ".svg")
    assert same_drawing(picture, picture, ".png")
    number = re.search(rb"\d+\.\d{6}", curve)
    assert number is not None
    nudged = b"%.6f" % (float(number[0]) + 1e-4)
    moved = b"%.6f" % (float(number[0]) + 1)
    assert same_drawing(curve, curve.replace(number[0], nudged), ".svg")
    assert not same_drawing(curve, curve.replace(number[0], moved), ".svg")
    assert not same_drawing(curve, curve.replace(b"#0072b2", b"#d55e00"), ".svg")
    pixels = Image.open(io.BytesIO(picture)).convert("RGB")
    pixels.putpixel((9, 9), (255, 0, 0))
    changed = io.BytesIO()
    pixels.save(changed, format="PNG")
    assert not same_drawing(picture, changed.getvalue(), ".png")


@pytest.mark.parametrize("path", sorted((FIGURES / "data").glob("[!m]*.json")), ids=lambda path: path.stem)
def test_every_figure_says_in_words_what_it_shows(path: Path) -> None:
    assert len(json.loads(path.read_text())["alt"]) > 60
    drawings = [found for found in FIGURES.glob(f"{path.stem}.*") if found.suffix in (".svg", ".png")]
    assert len(drawings) == 1
    assert drawings[0].stat().st_size < 1_000_000


def test_the_animation_shows_one_frame_at_any_time_and_its_windows_are_right() -> None:
    drawing = (FIGURES / "walk.svg").read_text(encoding="utf-8")
    (duration,) = (float(number) for number in re.findall(r"animation: show ([\d.]+)s step-end infinite", drawing))
    (share,) = (float(number) for number in re.findall(r"visible \} ([\d.]+)%, 100% \{ visibility: hidden \}", drawing))
    frames = re.findall(r'<g class="frame[^"]*" style="animation-delay: (-[\d.]+)s">(.*?)</g>', drawing, re.S)
    starts = [duration + float(delay) for delay, _ in frames]
    assert starts == pytest.approx([number * duration / len(frames) for number in range(len(frames))])
    assert share == pytest.approx(100 / len(frames), abs=1e-4)
    assert drawing.count("frame still") == 1
    for _, content in frames:
        query, length, kernel_size, dilation, keys = re.search(
            r"window\((\d+), (\d+), (\d+)(?:, dilation=(\d+))?\) = ([\d ]+)<", content
        ).groups()
        keys = [int(key) for key in keys.split()]
        assert keys == list(window(int(query), int(length), int(kernel_size), dilation=int(dilation or 1)))
        drawn = re.search(r'class="key" d="([^"]*)"', content).group(1)
        columns = {(int(x) - 110) // 24 for x in re.findall(r"M(\d+) ", drawn)}
        assert sorted(columns) == keys
