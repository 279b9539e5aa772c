"""The colours of the house on a dark screen, and how an SVG changes to them by itself."""

from dinat_ref.viz.theme import GRID, GROUP, INK, KEY, QUERY, TOKEN

PAPER = "#ffffff"
DARK = {
    PAPER: "#0d1117",  # GitHub's dark ground
    TOKEN: "#262c36",
    GROUP: "#1d466b",
    GRID: "#484f58",
    INK: "#e6edf3",
    KEY: "#3d94dd",
    QUERY: "#f07a3a",
    "#009E73": "#2ec498",
    "#56B4E9": "#a3dafc",
    "#000000": "#e6edf3",
    "#E4E4E4": "#30363d",  # lines behind curves
    "#B5DCCB": "#1f5c46",  # pale grounds, on which words stand
    "#F3C6A5": "#6b4024",
}


def follow_screen(drawing: str) -> str:
    """Let a drawing of matplotlib be dark where the reader's screen is: its colours stand in ``style`` attributes."""
    rules = [
        f'[style*="{property}: {light.lower()}"] {{ {property}: {dark} !important }}'
        for light, dark in DARK.items()
        for property in ("fill", "stroke")
        if f"{property}: {light.lower()}" in drawing
    ]
    if "<image" in drawing:  # matrices of few colours
        rules.append("image { filter: invert(1) hue-rotate(180deg) }")
    style = "\n".join(["<style>@media (prefers-color-scheme: dark) {", *rules, "}</style>"])
    opening, defs, rest = drawing.partition(" <defs>")
    return opening + style + "\n" + defs + rest
