"""The figures in the repository are the ones that the code draws, and the check would notice if they were not."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert same_drawing(curve, curve)
    number = re.search(rb"\d+\.\d{6}", curve)
    assert number is not None
    nudged = b"%.6f" % (float(number[0]) + 1e-4)
    moved = b"%.6f" % (float(number[0]) + 1)
    assert same_drawing(curve, curve.replace(number[0], nudged))
    assert not same_drawing(curve, curve.replace(number[0], moved))
    assert not same_drawing(curve, curve.replace(b"#0072b2", b"#d55e00"))


@pytest.mark.parametrize("path", sorted((FIGURES / "data").glob("[!m]*.json")), ids=lambda path: path.stem)
def test_every_figure_says_in_words_what_it_shows(path: Path) -> None:
    assert len(json.loads(path.read_text())["alt"]) > 60
    assert (FIGURES / f"{path.stem}.svg").stat().st_size < 1_000_000


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


def test_every_figure_is_shown_somewhere_and_nothing_else_lies_there() -> None:
    root = FIGURES.parent
    shown = [root / "README.md", *(root / "tutorials").glob("*.py"), *(root / "tutorials" / "site").glob("*.md")]
    texts = "".join(path.read_text(encoding="utf-8") for path in shown)
    drawings = sorted(path.stem for path in FIGURES.glob("*.svg"))
    assert [name for name in drawings if f"figures/{name}.svg)" not in texts] == []
    assert drawings == sorted(path.stem for path in (FIGURES / "data").glob("*.json") if path.stem != "made_with")
    assert not list(FIGURES.glob("*.png"))


def luminance(colour: str) -> float:
    """How bright a colour is, as WCAG 2.2 counts it."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_drawings_read_on_a_dark_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every colour of a drawing is one that keeps its contrast on the dark ground, or has a rule that changes it."""
    monkeypatch.syspath_prepend(str(FIGURES))
    dark = {light.lower(): colour for light, colour in importlib.import_module("dark").DARK.items()}
    grounds = {"#f1f1f1", "#a6cfe8", "#c8c8c8", "#e4e4e4", "#b5dccb", "#f3c6a5", "#ffffff"}  # nothing to be read
    for path in FIGURES.glob("*.svg"):
        drawing = path.read_text(encoding="utf-8")
        assert drawing.count("prefers-color-scheme: dark") == 1, path.name
        light, _, night = drawing.partition("prefers-color-scheme: dark")
        rules, _, rest = night.partition("</style>")
        for colour in {*re.findall(r"(?:fill|stroke): (#[0-9a-fA-F]{6})", light + rest)}:
            now = dark.get(colour.lower(), colour)
            assert now == colour or now in rules, f"{path.name}: {colour} has no dark rule"
            if colour.lower() not in grounds:
                contrast = (luminance(now) + 0.05) / (luminance(dark["#ffffff"]) + 0.05)
                assert contrast > 4.5, f"{path.name}: {colour} is {now} on a dark screen, contrast {contrast:.1f}"
