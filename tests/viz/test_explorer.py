"""The page in a real browser: the tokens that it highlights are the ones that ``window.py`` says."""

import base64
import html
import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from dinat_ref import Neighborhood
from dinat_ref.analysis.receptive_field import receptive_field
from dinat_ref.cli import main
from dinat_ref.viz.explorer import OPTIONS, STRENGTH, explorer_page, window_tables

PROBE = """
<output id="probe"></output>
<script>
const answers = JSON.parse(`SETTINGS`).map(words => {
  history.replaceState(null, "", "#" + words);
  recall(); draw();
  return {cells: JSON.parse(canvas.dataset.cells), weights: JSON.parse(canvas.dataset.weights), says: says.textContent};
});
for (const key of ["ArrowUp", "ArrowLeft"]) canvas.dispatchEvent(new KeyboardEvent("keydown", {key}));
answers.push({moved: token});
const area = canvas.getBoundingClientRect();
canvas.dispatchEvent(new PointerEvent("pointerdown", {clientX: area.left + area.width * .999, clientY: area.top + 1}));
answers.push({pointed: token});
document.getElementById("probe").textContent = JSON.stringify(answers);
</script>
"""
MODES = ("window", "inverse", "field", "attention")


def draw_settings(layout: tuple[int, int], count: int) -> list[dict[str, Any]]:
    """Random settings, legal or not, each mode in turn."""
    random_numbers = random.Random(0)
    settings: list[dict[str, Any]] = []
    for number in range(count):
        choice: dict[str, Any] = {name: random_numbers.choice(values) for name, values in OPTIONS.items()}
        choice |= {"c": random_numbers.randrange(2), "mode": MODES[number % len(MODES)]}
        choice["token"] = [random_numbers.randrange(length) for length in layout]
        settings.append(choice)
    return settings


def ask(page: str, settings: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Open a page in a headless browser, go through settings, and read what it highlights."""
    browser = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if browser is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    words = [
        "&".join(f"{name}={','.join(map(str, value)) if name == 'token' else value}" for name, value in choice.items())
        for choice in settings
    ]
    path = folder / "page.html"
    path.write_text(page + PROBE.replace("SETTINGS", json.dumps(words)), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    result = subprocess.run([browser, *flags, path.as_uri()], capture_output=True, text=True, check=False, timeout=120)
    found = re.search(r'<output id="probe">(.*?)</output>', result.stdout, flags=re.DOTALL)
    assert found, result.stderr[-2000:]
    return list(json.loads(html.unescape(found[1])))


def test_the_page_highlights_what_the_definition_says(tmp_path: Path) -> None:
    photo = torch.rand(36, 48, 3, generator=torch.Generator().manual_seed(0))
    page = explorer_page(photo, tokens=16)
    layout = (12, 16)
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["layout"] == list(layout)
    settings = draw_settings(layout, 200)
    *answers, moved, pointed = ask(page, settings, tmp_path)

    checked = dict.fromkeys(("illegal", *MODES), 0)
    for choice, answer in zip(settings, answers, strict=True):
        k, d, s, layers = (choice[name] for name in ("k", "d", "s", "l"))
        if k * d > min(layout) or s > k:
            assert answer["cells"] is None
            assert answer["says"].startswith("Not legal")
            checked["illegal"] += 1
            continue
        neighborhood = Neighborhood(layout, k, s, d, bool(choice["c"]))
        neighbors = [neighborhood.number(token) for token in neighborhood.neighbors(choice["token"])]
        if choice["mode"] == "inverse":
            expected = neighborhood.attended_by(choice["token"])
        elif choice["mode"] == "field":
            expected = receptive_field([neighborhood] * layers, choice["token"]).flatten().nonzero().flatten().tolist()
        else:
            expected = neighbors
        assert answer["cells"] == sorted(expected), choice
        if choice["mode"] == "attention":
            features = (
                torch.tensor(list(base64.b64decode(data["features"])), dtype=torch.float64).reshape(12 * 16, -1) / 255
            )
            query = features[neighborhood.number(choice["token"])]
            weights = (-(features[neighbors] - query).square().sum(1) / (2 * STRENGTH**2)).softmax(0)
            torch.testing.assert_close(
                torch.tensor(answer["weights"], dtype=torch.float64), weights, rtol=1e-9, atol=1e-12
            )
        checked[choice["mode"]] += 1
    assert min(checked.values()) >= 10, checked

    row, column = settings[-1]["token"]
    assert moved["moved"] == [max(row - 1, 0), max(column - 1, 0)]
    assert pointed["pointed"] == [0, 15]


def test_tables_are_the_windows() -> None:
    tables = window_tables((12, 16))
    for settings, axes in tables.items():
        k, d, s, causal = (int(word) for word in settings.split(","))
        neighborhood = Neighborhood((12, 16), k, s, d, bool(causal))
        for axis, positions in enumerate(axes):
            windows = [list(range(start, start + d * count, d)) for start, count in positions]
            assert windows == [list(keys) for keys in neighborhood.windows(axis)]


def test_the_page_is_one_file_without_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "explorer.html"
    assert main(["explore", "--tokens", "20", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    page = out.read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)\s*=|https?://|@import|fetch\(|XMLHttpRequest", page.replace("photo.src =", ""))
    assert len(page) < 1_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "7"], "tokens must be in 8 .. 600"),
        (["--tokens", "601"], "tokens must be in 8 .. 600"),
        (["no-such-photo.jpg"], "image not found"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explore", *arguments, "--out", str(tmp_path / "explorer.html")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
