"""``dinat-ref tiles``: what it prints, and how it refuses bad input."""

import json
from pathlib import Path

import pytest

from dinat_ref.cli import main

VIDEO = ["tiles", "30x48x80", "18x24x24", "--q-tile", "4x8x8", "--kv-tile", "2x8x8"]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["tiles", *arguments] if arguments[0] != "tiles" else list(arguments)) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_words_of_a_stride_that_wastes(capsys):
    out = printed(capsys, *VIDEO)
    assert "Stride 1x1x1 wastes 53 % of the tiles it visits; 16x8x8 wastes none.\n" in out
    assert "At most it is 3.27 times as fast as full attention; 16x8x8 is 11.11.\n" in out
    assert "69,696 of 82,368 visited tiles need a mask.\n" in out


def test_words_of_a_perfect_stride(capsys):
    out = printed(capsys, *VIDEO, "--stride", "16x8x8")
    assert out.endswith("Stride 16x8x8 wastes none of the tiles it visits: the window is perfectly block-sparse.\n")


def test_words_of_a_stride_that_a_smaller_one_beats(capsys):
    out = printed(capsys, *VIDEO, "--stride", "18x24x24")
    assert "Stride 1x8x8 is as fast, and closer to a sliding window.\n" in out


def test_words_name_the_tiles_where_others_are_better(capsys):
    """Of Blackwell's shapes the fastest for sliding windows is not the fastest of all."""
    out = printed(capsys, "30x48x80", "18x24x24", "--preset", "blackwell")
    assert "18x24x24    91 %   1x1x1  4x4x16, 2x4x16" in out
    assert "16x8x8 on tiles of 8x4x8 and 2x8x8 wastes none.\n" in out


def test_words_where_nothing_helps(capsys):
    out = printed(capsys, "64", "9", "--q-tile", "1", "--kv-tile", "4")
    assert "Stride 1 wastes" in out
    assert "no stride is faster." in out


def test_the_table_has_the_paper_end_to_end(capsys):
    out = printed(capsys, *VIDEO, "--search", "--share", ".607", "--full-steps", "15/50")
    rows = [line.split() for line in out.splitlines() if line.startswith("18x24x24")]
    assert [(row[3], float(row[-1])) for row in rows[1:]] == [
        ("1x1x1", 1.42),
        ("2x1x1", 1.44),
        ("1x1x8", 1.53),
        ("2x1x8", 1.55),
        ("1x8x8", 1.61),
        ("2x8x8", 1.62),
        ("16x8x8", 1.63),
    ]


def test_json_has_what_the_table_has(capsys):
    rows = json.loads(printed(capsys, *VIDEO, "--stride", "16x8x8", "--json", "--share", ".607"))
    assert len(rows) == 1
    assert (rows[0]["worst"], rows[0]["partial"], rows[0]["perfectly_block_sparse"]) == (81, 0, True)
    assert (rows[0]["speedup"], rows[0]["end_to_end"]) == (pytest.approx(100 / 9), pytest.approx(2.234, abs=5e-4))
    assert rows[0]["layout"] == [30, 48, 80]


def test_windows_are_searched(capsys):
    rows = json.loads(printed(capsys, "30x48x80", "--search", "--sparsity", ".9", "--at-least", "8x16x16", "--json"))
    assert all(row["query_tile"] and row["kernel_size"] >= [8, 16, 16] for row in rows)
    assert [row["speedup"] for row in rows] == sorted({row["speedup"] for row in rows})
    assert rows[-1]["perfectly_block_sparse"]


def test_flattened_tokens_are_counted_beside(capsys):
    out = printed(capsys, "64x64", "24x24", "--preset", "flex", "--flat", "--stride", "8")
    assert "128, 128" in out
    assert "Flattened, it wastes" in out


def test_causal_axes_dilation_and_additional_keys(capsys):
    one, every = (
        json.loads(
            printed(
                capsys, "24x44x80", "allx4x16", "--dilation", "1x11x5", "--additional-keys", "77", "--json", *causal
            )
        )[0]
        for causal in (["--causal", "0"], ["--causal"])
    )
    assert (one["is_causal"], every["is_causal"]) == ([True, False, False], [True] * 3)
    assert (one["kernel_size"], one["dilation"]) == ([24, 4, 16], [1, 11, 5])
    assert one["flop_speedup"] == (24 * 44 * 80 + 77) / (24 * 4 * 16 + 77)
    assert every["partial"] >= one["partial"] > 0


@pytest.mark.parametrize("suffix", [".svg", ".png"])
@pytest.mark.parametrize(
    "arguments", [VIDEO[1:], ["40x60", "8x8", "--stride", "4"], ["300", "64", "--preset", "flex", "--search"]]
)
def test_draws_the_same_file_twice(arguments, suffix, tmp_path: Path, capsys):
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    assert printed(capsys, *arguments, "--draw", str(first)).endswith(f"\n{first}\n")
    printed(capsys, *arguments, "--draw", str(second))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["30x48x80"], "give a window, such as 8x8, or --search --sparsity .9 to find one"),
        (["30,48", "3x3"], "layout must be numbers joined by x, such as 30x48x80, got '30,48'"),
        (["64x64", "3x"], "window must be numbers joined by x, such as 30x48x80, got '3x'"),
        (
            ["64x64", "65x3"],
            "kernel_size * dilation on axis 0 must be at most the length of the axis: 65 * 1 = 65 > 64",
        ),
        (["64x64", "3x3x3"], "kernel_size must have one entry per axis: the layout (64, 64) has 2, got (3, 3, 3)"),
        (["64x64", "8", "--stride", "9"], "stride on axis 0 must be at most kernel_size, got 9 > 8"),
        (["64x64", "8", "--q-tile", "8x8"], "--q-tile and --kv-tile go together"),
        (["64x64", "8", "--q-tile", "8x8", "--kv-tile", "8x8x8"], "--kv-tile must have one entry per axis: the layout"),
        (["64x64", "8", "--q-tile", "8x0", "--kv-tile", "8x8"], "query_tile on axis 1 must be at least 1, got 0"),
        (["9x9x9x9", "3"], "presets have tiles of one to three axes, not 4; give --q-tile and --kv-tile"),
        (["64x64", "8", "--share", "1.5"], "share must be in 0 .. 1, got 1.5"),
        (["64x64", "8", "--share", "nan"], "share must be in 0 .. 1, got nan"),
        (["64x64", "8", "--full-steps", "15/0"], "--full-steps must be a share such as 15/50 or .3, got '15/0'"),
        (["64x64", "8", "--full-steps", "50/15"], "full_steps must be in 0 .. 1, got 3.33"),
        (["64x64", "8", "--sparsity", ".9"], "--sparsity goes with --search"),
        (["64x64", "--search", "--sparsity", "1"], "sparsity must be at least 0 and below 1, got 1.0"),
        (["64x64", "--search", "--sparsity", ".9", "--flat"], "--flat counts a window: give one, such as 8x8"),
        (["64x64", "8", "--causal", "2"], "--causal takes axes in 0 .. 1, got 2"),
        (["64x64", "8", "--additional-keys", "-1"], "additional_keys must be at least 0, got -1"),
        (["999999999", "3", "--q-tile", "1", "--kv-tile", "1"], "at most 250,000 are counted"),
        (["9x9x9x9", "3", "--q-tile", "2", "--kv-tile", "2", "--draw", "DRAWING"], "layouts of up to three axes"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path: Path, capsys):
    assert main(["tiles", *(str(tmp_path / "a.png") if part == "DRAWING" else part for part in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("dinat-ref tiles: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert list(tmp_path.iterdir()) == []


def test_other_suffixes_are_refused_before_anything_is_printed(tmp_path: Path, capsys):
    assert main([*VIDEO, "--draw", str(tmp_path / "tiles.gif")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "written as .pdf, .png or .svg, got tiles.gif" in captured.err
