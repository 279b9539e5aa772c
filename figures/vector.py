"""Pictures written as SVG by hand: small, moving where they should, and dark where the reader's screen is."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import product
from typing import Any

from dark import DARK, PAPER

from dinat_ref.viz.theme import GROUP, INK, KEY, QUERY, TOKEN

Numbers = dict[str, Any]
Cells = Iterable[tuple[int, int]]

FILLS = {"page": PAPER, "dot": PAPER, "token": TOKEN, "group": GROUP, "key": KEY, "query": QUERY, "text": INK}
STYLE = f"""\
text {{ font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif }}
.bold {{ font-weight: 600 }}
.code {{ font-family: ui-monospace, Menlo, Consolas, monospace }}
.middle {{ text-anchor: middle }}
.outline, .border {{ fill: none; stroke: {INK}; stroke-width: 1.4 }}
.outline {{ stroke-dasharray: 4 3 }}
"""
SECONDS = 0.7  # that a frame of the animation stays


def page(width: int, height: int, parts: Sequence[str], style: str = "") -> str:
    """A whole picture, in the colours of the house or, on a dark screen, in their dark ones."""
    light = [f".{name} {{ fill: {colour} }}" for name, colour in FILLS.items()]
    dark = [f".{name} {{ fill: {DARK[colour]} }}" for name, colour in FILLS.items()]
    night = ["@media (prefers-color-scheme: dark) {", *dark, f".outline, .border {{ stroke: {DARK[INK]} }}", "}"]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">',
            "<style>",
            STYLE + "\n".join([*light, *night]),
            style + "</style>",
            '<rect class="page" width="100%" height="100%"/>',
            *parts,
            "</svg>\n",
        ]
    )


def cells(tokens: Cells, kind: str, corner: tuple[int, int], size: int) -> str:
    """A square per token, all in one path; ``corner`` is the x and y of token (0, 0)."""
    side, (left, top) = size - max(size // 12, 1), corner
    squares = [f"M{left + column * size} {top + row * size}h{side}v{side}h-{side}z" for row, column in tokens]
    return f'<path class="{kind}" d="{"".join(squares)}"/>'


def dots(tokens: Cells, corner: tuple[int, int], size: int, radius: float, kind: str = "dot") -> str:
    """A dot on each token."""
    middle = (size - max(size // 12, 1)) / 2
    centres = [(corner[0] + column * size + middle, corner[1] + row * size + middle) for row, column in tokens]
    return "".join(f'<circle class="{kind}" cx="{x:g}" cy="{y:g}" r="{radius}"/>' for x, y in centres)


def words(x: float, y: float, text: str, kind: str = "") -> str:
    """One line of text."""
    return f'<text x="{x:g}" y="{y:g}" class="{f"text {kind}".strip()}">{escape(text)}</text>'


def walk(numbers: Numbers) -> str:
    """The animation: a query walks along a row and back with a dilation, and its window follows it to the edges."""
    layout, steps = numbers["layout"], numbers["steps"]
    size, corner = 24, (110, 44)
    parts = [cells(product(*map(range, layout)), "token", corner, size)]
    for column in range(layout[1]):
        parts.append(words(corner[0] + (column + 0.45) * size, 62 + layout[0] * size, str(column), "middle"))
    still = next(number for number, step in enumerate(steps) if step["query"][1] == layout[1] // 2)
    for number, step in enumerate(steps):
        kind = "frame still" if number == still else "frame"
        delay = (number - len(steps)) * SECONDS  # negative: every frame is already on its round when the picture opens
        parts += [f'<g class="{kind}" style="animation-delay: {delay:.1f}s">']
        parts += [*frame(step, layout, numbers["kernel_size"], corner, size), "</g>"]
    style = (
        f".frame {{ visibility: hidden; animation: show {len(steps) * SECONDS:.1f}s step-end infinite }}\n"
        f"@keyframes show {{ 0% {{ visibility: visible }} {100 / len(steps):.4f}%, 100% {{ visibility: hidden }} }}\n"
        ".still { visibility: visible }\n"
        "@media (prefers-reduced-motion: reduce) { .frame { animation: none } }\n"
    )
    return page(2 * corner[0] + layout[1] * size, 124 + layout[0] * size, parts, style)


def frame(step: Numbers, layout: Sequence[int], kernel_size: int, corner: tuple[int, int], size: int) -> list[str]:
    """One query of the walk: its dilation group, its window, where that would lie without the edge, and words."""
    query, dilation, (rows, columns) = step["query"], step["dilation"], step["window"]
    group = product(*(range(place % dilation, length, dilation) for place, length in zip(query, layout, strict=True)))
    shifted = step["unshifted"] != step["window"]
    top, left = (keys[0] for keys in step["unshifted"])
    height, width = (keys[-1] - keys[0] + 1 for keys in step["unshifted"])
    outline = (
        f'<rect class="outline" x="{corner[0] + left * size - 3}" y="{corner[1] + top * size - 3}"'
        f' width="{width * size + 4}" height="{height * size + 4}" rx="3"/>'
    )
    call = f"window({query[1]}, {layout[1]}, {kernel_size}" + (f", dilation={dilation})" if dilation > 1 else ")")
    if shifted:
        told = (
            f"at an edge the window is shifted, from the dashed outline: {kernel_size} by {kernel_size} keys as before"
        )
    elif dilation > 1:
        told = f"every {dilation}nd token: {kernel_size} by {kernel_size} keys again, twice as far"
    else:
        told = f"every query attends the {kernel_size} by {kernel_size} tokens around it"
    middle, below = corner[0] + layout[1] * size / 2, corner[1] + layout[0] * size
    return [
        words(middle, 26, f"kernel_size {kernel_size}, dilation {dilation}", "bold middle"),
        cells(group, "group", corner, size) if dilation > 1 else "",
        cells(product(rows, columns), "key", corner, size),
        outline if shifted else "",
        cells([query], "query", corner, size),
        dots([query], corner, size, 4),
        words(middle, below + 46, f"{call} = {' '.join(map(str, columns))}", "middle code"),
        words(middle, below + 68, told, "middle"),
    ]


def comparison(numbers: Numbers) -> str:
    """A query and the token on its right under full attention, both kinds of Swin's layers, NA and DiNA."""
    layout, size, gap, top = numbers["layout"], 11, 18, 30
    width, bottom = layout[1] * size, top + layout[0] * size
    parts = []
    for number, panel in enumerate(numbers["panels"]):
        corner = (gap // 2 + number * (width + gap), top)
        amount = {0: "none", panel["number of keys"]: "all"}.get(panel["shared"], panel["shared"])
        parts += [
            words(corner[0], 19, panel["title"], "bold"),
            cells(product(*map(range, layout)), "token", corner, size),
            cells(product(*panel["keys"]), "key", corner, size),
            cells([numbers["query"]], "query", corner, size),
            dots(product(*panel["neighbour's keys"]), corner, size, 1.8, "text"),
            borders(panel["blocks"], layout, corner, size),
            words(corner[0], bottom + 19, f"{panel['number of keys']} keys, {amount} shared"),
        ]
    x, y = gap // 2, bottom + 42
    for kind, text in {"query": "a query", "key": "its keys", "token": "keys of the token on its right"}.items():
        parts += [cells([(0, 0)], kind, (x, y), 12), words(x + 18, y + 11, text)]
        parts += [dots([(0, 0)], (x, y), 12, 1.8, "text")] if kind == "token" else []
        x += 50 + 7 * len(text)
    return page(len(numbers["panels"]) * (width + gap), y + 22, parts)


def borders(starts: Sequence[Sequence[int]], layout: Sequence[int], corner: tuple[int, int], size: int) -> str:
    """Lines between the blocks of a window attention, where the first of each axis begins at 0."""
    (left, top), (height, width) = corner, (length * size for length in layout)
    across = [f"M{left - 1} {top + row * size - 0.5:g}h{width}" for row in starts[0][1:]]
    down = [f"M{left + column * size - 0.5:g} {top - 1}v{height}" for column in starts[1][1:]]
    return f'<path class="border" d="{"".join(across + down)}"/>' if across or down else ""
