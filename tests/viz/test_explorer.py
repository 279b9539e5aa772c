"""The page in a real browser: what it highlights, and every number that it shows, is what Python says."""

import base64
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dinat_ref import Neighborhood, na2d, neighborhood_weights
from dinat_ref.analysis.receptive_field import (
    FullAttention,
    Layer,
    WindowedAttention,
    layers_to_reach,
    receptive_field,
)
from dinat_ref.cli import main
from dinat_ref.viz.explorer.page import explorer_page, square
from dinat_ref.viz.explorer.tables import OPTIONS, axis_layers, axis_tables
from tests.viz.browser import DARK, browse

LAYOUT = (12, 16)
MODES = ("window", "inverse", "field", "attention")


def probe(name: str, links: Sequence[str] = ()) -> str:
    """A script that looks at the page."""
    text = Path(__file__).parent.joinpath("probes", f"explorer_{name}.js").read_text(encoding="utf-8")
    return f"const links = {json.dumps(links)};\n{text}"


@pytest.fixture(scope="module")
def page() -> str:
    return explorer_page(torch.rand(36, 48, 3, generator=torch.Generator().manual_seed(0)), tokens=16)


def page_data(page: str) -> dict[str, Any]:
    return dict(json.loads(page.split('id="data">')[1].split("</script>")[0]))


def unpack(text: str) -> Tensor:
    numbers = np.frombuffer(base64.b64decode(text), dtype="<f4")
    return torch.from_numpy(numbers.copy()).double().reshape(*LAYOUT, -1)


def link(settings: dict[str, Any]) -> str:
    """Settings as the page writes them behind the #."""
    joined = {name: "-".join(map(str, value)) if name == "d" else value for name, value in settings.items()}
    return "&".join(f"{name}={','.join(map(str, v)) if name == 'token' else v}" for name, v in joined.items())


def draw_settings(count: int) -> list[dict[str, Any]]:
    """Random settings, legal or not, each mode in turn."""
    chance = random.Random(0)
    return [
        {
            "token": [chance.randrange(length) for length in LAYOUT],
            "k": chance.choice(OPTIONS["k"]),
            "d": (dilations := [chance.choice(OPTIONS["d"]) for _ in range(chance.randint(1, 4))]),
            "s": chance.choice(OPTIONS["s"]),
            "c": chance.randrange(2),
            "layer": chance.randint(1, len(dilations)),
            "mode": MODES[number % len(MODES)],
            "view": "side",
            "bias": chance.randrange(2),
        }
        for number in range(count)
    ]


def stacks(choice: dict[str, Any]) -> list[list[Layer] | None]:
    """The layers of the four photos: NA, DiNA, Swin, full; None where kernel size, stride and dilation do not fit."""
    k, s, causal = choice["k"], choice["s"], bool(choice["c"])
    dilations = choice["d"] if choice["mode"] == "field" else [choice["d"][choice["layer"] - 1]] * len(choice["d"])

    def neighborhoods(dilations: list[int]) -> list[Layer] | None:
        if s > k or k * max(dilations) > min(LAYOUT):
            return None
        return [Neighborhood(LAYOUT, k, s, d, causal) for d in dilations]

    swin = [WindowedAttention(LAYOUT, k, (k // 2) * (n % 2)) for n in range(len(dilations))]
    return [neighborhoods([1] * len(dilations)), neighborhoods(dilations), [*swin], [FullAttention(LAYOUT)] * len(swin)]


def expected_cells(layers: list[Layer], choice: dict[str, Any]) -> list[int]:
    """The tokens that a photo must highlight, straight from the layers' windows."""
    made, token = layers[choice["layer"] - 1], choice["token"]
    if choice["mode"] == "field":
        return list(receptive_field(layers, token).flatten().nonzero().flatten().tolist())
    axes = [made.windows(axis) for axis in (0, 1)]
    if choice["mode"] == "inverse":
        found = [[i for i, keys in enumerate(axis) if j in keys] for axis, j in zip(axes, token, strict=True)]
    else:
        found = [list(axis[i]) for axis, i in zip(axes, token, strict=True)]
    return sorted(row * LAYOUT[1] + column for row in found[0] for column in found[1])


def test_the_page_highlights_what_the_definition_says(page: str, tmp_path: Path) -> None:
    settings, data = draw_settings(120), page_data(page)
    answers = browse(page, probe("read", [link(s) for s in settings]), tmp_path)["answers"]
    query, key, value = (unpack(data[name]) for name in ("query", "key", "value"))
    bias = torch.tensor(data["bias"], dtype=torch.float64)

    checked = dict.fromkeys(("illegal", "numbers", *MODES), 0)
    for choice, answer in zip(settings, answers, strict=True):
        assert {name: answer["state"][name] for name in choice} == choice  # a link restores all of it
        for shown, field, layers in zip(answer["shown"], answer["fields"], stacks(choice), strict=True):
            if layers is None:
                assert shown is None
                checked["illegal"] += 1
                continue
            assert shown == expected_cells(layers, choice), choice
            checked[choice["mode"]] += 1
            if choice["mode"] == "field":
                counts = layers_to_reach(layers, choice["token"]).flatten().tolist()
                assert dict(field) == {n: count for n, count in enumerate(counts) if count >= 0}
        made = stacks({**choice, "mode": "window"})[1]
        assert answer["says"].startswith("Not legal") == (stacks(choice)[1] is None)
        if made is None:
            assert answer["numbers"] is None
            continue
        k, s, d, causal = choice["k"], choice["s"], choice["d"][choice["layer"] - 1], bool(choice["c"])
        steps = bias[(torch.arange(2 * k - 1) - (k - 1)).abs()]  # [2k - 1]
        rpb = (steps[:, None] + steps)[None] * choice["bias"]  # [1, 2k - 1, 2k - 1]
        heads = [operand[None, :, :, None] for operand in (query, key, value)]  # [1, X, Y, 1, D]
        arguments = (k, s, d, causal, 1.0)
        row, column = choice["token"]
        output = na2d(*heads, *arguments, rpb=rpb, impl="gather")[0, row, column, 0]
        weights = neighborhood_weights(*heads[:2], *arguments, rpb=rpb)[0, row, column, 0]
        numbers = answer["numbers"]
        count = len(numbers["keys"])
        neighborhood = Neighborhood(LAYOUT, k, s, d, causal)
        assert numbers["keys"] == [neighborhood.number(token) for token in neighborhood.neighbors((row, column))]
        dots = (query[row, column] * key.flatten(0, 1)[numbers["keys"]]).sum(-1)
        for name, wanted in (("dots", dots), ("weights", weights[:count]), ("output", output)):
            found = torch.tensor(numbers[name], dtype=torch.float64)
            torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)
        checked["numbers"] += 1
    assert min(checked.values()) >= 20, checked


def test_tables_are_the_windows() -> None:
    for length in LAYOUT:
        layers, tables = axis_layers(length), axis_tables(length)
        assert layers.keys() == tables.keys()
        for name, table in tables.items():
            step = int(name.split(",")[2]) if name.startswith("na,") else 1  # as the page reads them
            windows = [list(range(first, first + step * count, step)) for first, count in table]
            assert windows == [list(keys) for keys in layers[name].windows(0)], name


def test_a_click_pins_the_query(page: str, tmp_path: Path) -> None:
    found = browse(page, probe("pin"), tmp_path)
    assert found["clicked"] == found["moved"] == found["controls"] == [3, 4]
    assert found["under"].startswith("under the mouse: (11, 15)")
    kept = Neighborhood(LAYOUT, 3).neighbors((3, 4))
    assert json.loads(found["kept"]) == [16 * row + column for row, column in kept]
    assert found["k"] == 4
    assert found["dragged"] == found["touched"] == [5, 6]
    assert found["tapped"] == [8, 8]
    assert found["keys"] == [7, 7]
    assert found["action"] in ("auto", "manipulation", "pan-y")  # the page scrolls under a finger


def test_every_layer_has_its_dilation(page: str, tmp_path: Path) -> None:
    found = browse(page, probe("layers"), tmp_path)
    assert len(found["one"]) == 1
    assert found["three"] == [1, 4, 1]
    neighborhoods = [Neighborhood(LAYOUT, 3, dilation=d) for d in (1, 4, 1)]
    assert found["second"] == [neighborhoods[1].number(token) for token in neighborhoods[1].neighbors((6, 6))]
    assert found["field"] == receptive_field(neighborhoods, (6, 6)).flatten().nonzero().flatten().tolist()
    assert found["four"] == [1, 4, 1, 1]
    assert found["most"]
    assert found["preset"] == [1, 1, 1]
    assert "d=1-1-1" in found["hash"]
    assert found["disabled"] == [d for d in OPTIONS["d"] if 3 * d > 12]


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_tour_sets_the_controls(width: int, height: int, tmp_path: Path) -> None:
    photo = torch.rand(112, 112, 3, generator=torch.Generator().manual_seed(0))
    page = explorer_page(photo, tokens=56)
    found = browse(page, probe("tour"), tmp_path, width, height, *([DARK] if width == 390 else []))
    stops = page_data(page)["stops"]
    assert 6 <= len(stops) <= 8
    for stop, seen in zip(stops, found["stops"], strict=True):
        assert {name: seen["state"][name] for name in stop["settings"]} == stop["settings"]
        assert (seen["title"], seen["caption"]) == (stop["title"], stop["text"])
        assert not seen["isLeft"]
        assert len(seen["shown"]) == (4 if stop["settings"]["view"] == "side" else 1)
        assert min(seen["shown"]) > 0  # every stop is legal
        assert seen["cells"] == (3 * 49 if stop["settings"]["numbers"] else 0)
        assert seen["top"] >= 0
        assert seen["bottom"] <= height  # the words and the photo are seen together
    shown = [seen["shown"] for seen in found["stops"]]
    assert shown[:4] == [[49], [49], [100], [49]]
    assert shown[4] == [49, 49, 49, 3136]
    assert shown[5] == [49]
    assert shown[6] == [361, 3136, 441, 3136]
    texts = [stop["text"] for stop in stops]
    assert "is attended by 100 queries, the corner by 16" in texts[2]
    assert "knows 49 of 3136 tokens" in texts[5]
    assert "knows all of the photo; three layers of dilation 1 reach 11.5\N{NO-BREAK SPACE}%" in texts[6]
    assert found["again"] == f"1 / {len(stops)}"
    assert found["line"] == "the key (37, 24), 3 up, 0 right"
    assert found["left"]
    assert found["back"]
    assert found["wide"] <= 0
    assert found["paper"] == ("rgb(21, 23, 26)" if width == 390 else "rgb(255, 255, 255)")
    if width == 390:
        assert found["scrolled"] > 0
        assert 0 <= found["photo"] < 60  # it stays while the controls are used


def test_a_hostile_link_is_ignored(page: str, tmp_path: Path) -> None:
    links = [
        "k=99&d=0-5-x&s=-1&layer=9&mode=evil&view=&token=999999,NaN&stop=-3",
        "d=" + "-".join(["8"] * 99),
        "%00=<b>",
        "stop=8",
    ]
    answers = browse(page, probe("read", links), tmp_path)["answers"]
    stops = page_data(page)["stops"]
    first, last = stops[0]["settings"], stops[-1]["settings"]
    assert {name: answers[2]["state"][name] for name in first} == first
    assert answers[0]["state"]["token"] == [11, first["token"][1]]
    assert answers[0]["state"]["d"] == first["d"]
    assert len(answers[1]["state"]["d"]) == 4
    assert {name: answers[3]["state"][name] for name in last} == last  # a link to a stop needs no settings


def test_the_page_is_one_file_without_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "explorer.html"
    assert main(["explore", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    page = out.read_text(encoding="utf-8")
    assert page_data(page)["layout"] == [56, 56]
    assert not re.findall(r"(?:src|href)\s*=|https?://|@import|fetch\(|XMLHttpRequest", page.replace("photo.src =", ""))
    assert not re.findall(r"/\*(DATA|\w+\.(js|css))\*/", page)
    assert len(page) < 1_000_000


def test_the_largest_page_is_bounded() -> None:
    assert len(explorer_page(torch.rand(160, 160, 3), tokens=80)) < 2_000_000


def test_the_square_is_the_middle() -> None:
    photo = torch.arange(5 * 8).reshape(5, 8, 1)
    torch.testing.assert_close(square(photo), photo[:, 1:6], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "7"], "tokens must be in 8 .. 80, got 7"),
        (["--tokens", "81"], "tokens must be in 8 .. 80, got 81"),
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
