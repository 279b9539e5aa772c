"""The numbers behind each figure, as plain lists and dictionaries. Nothing is drawn here."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dinat_ref import Neighborhood, neighborhood_attention
from dinat_ref.analysis.cost import attention_cost
from dinat_ref.analysis.equivariance import unchanged_share
from dinat_ref.analysis.growth import reachable_share
from dinat_ref.analysis.kernel_tiles import count_tiles, end_to_end
from dinat_ref.analysis.levels import level_coverage
from dinat_ref.analysis.receptive_field import Layer, WindowedAttention, axis_fields
from dinat_ref.analysis.tile_cases import USE_CASES
from dinat_ref.parallel.plan import Plan, even_split, received_bytes
from dinat_ref.viz.atlas import patterns
from dinat_ref.viz.grid import lay_out

Numbers = dict[str, Any]


def hero() -> Numbers:
    """The keys of the three queries."""
    plain, dilated = Neighborhood((12, 12), 5), Neighborhood((12, 12), 5, dilation=2)
    return {
        "interior": {"query": [5, 6], "keys": plain.neighbors((5, 6))},
        "edge": {"query": [0, 11], "keys": plain.neighbors((0, 11))},
        "dilated": {"query": [5, 6], "keys": dilated.neighbors((5, 6))},
    }


def walk() -> Numbers:
    """The windows of a query that walks along a row, and back with a dilation."""
    layout, kernel_size, row = (10, 16), 5, 4
    steps = []
    for dilation, columns in ((1, range(layout[1])), (2, range(layout[1] - 1, -1, -1))):
        neighborhood = Neighborhood(layout, kernel_size, dilation=dilation)
        for column in columns:
            sheet = lay_out(neighborhood, (row, column))
            spans = {
                "window": [list(keys) for keys in sheet.window],
                "unshifted": [list(keys) for keys in sheet.unshifted],
            }
            steps.append({"query": [row, column], "dilation": dilation, **spans})
    return {"layout": layout, "kernel_size": kernel_size, "steps": steps}


def comparison() -> Numbers:
    """What a query and the token on its right attend, under five kinds of attention."""
    layout, query, neighbour = (15, 15), (7, 9), (7, 10)
    layers: dict[str, Layer] = {
        "full attention": Neighborhood(layout, 15),
        "Swin, one layer": WindowedAttention(layout, 5),
        "Swin, the next layer": WindowedAttention(layout, 5, 2),
        "neighborhood (NA)": Neighborhood(layout, 5),
        "dilated by 3 (DiNA)": Neighborhood(layout, 5, dilation=3),
    }
    panels = []
    for title, layer in layers.items():
        mine, other = ([layer.windows(axis)[token[axis]] for axis in (0, 1)] for token in (query, neighbour))
        shared = math.prod(len({*mine[axis]} & {*other[axis]}) for axis in (0, 1))
        spans = {"keys": [list(keys) for keys in mine], "neighbour's keys": [list(keys) for keys in other]}
        blocks = [sorted({keys.start for keys in layer.windows(axis)}) for axis in (0, 1)]
        if not isinstance(layer, WindowedAttention):
            blocks = [[], []]
        counts = {"number of keys": math.prod(map(len, mine)), "shared": shared}
        panels.append({"title": title, **counts, **spans, "blocks": blocks})
    return {"layout": layout, "query": query, "neighbour": neighbour, "panels": panels}


def atlas() -> Numbers:
    """The keys of every query, per pattern."""
    return {name: [list(keys) for keys in layer.windows(0)] for name, layer in patterns(16).items()}


def receptive_field_growth() -> Numbers:
    """Tokens seen on an axis of 343 after 0 .. 5 layers, kernel size 7."""
    layout, layers = (343,), 5
    plain = [Neighborhood(layout, 7)] * layers
    growing = [Neighborhood(layout, 7, dilation=7 ** min(layer, 2)) for layer in range(layers)]
    alternating = [Neighborhood(layout, 7, dilation=8 if layer % 2 else 1) for layer in range(layers)]
    swin = [WindowedAttention(layout, 7, 3 if layer % 2 else 0) for layer in range(layers)]
    middle = 171

    def widths(stack: list[Any], token: int) -> list[int]:
        return [int(field[token].sum()) for field in axis_fields(stack)]

    return {
        "DiNA, dilations 1, 7, 49": widths(growing, middle),
        "DiNA, dilations 1, 8, 1, 8, 1": widths(alternating, middle),
        "shifted windows": widths(swin, middle),
        "NA": widths(plain, middle),
        "NA, seen from a corner": widths(plain, 0),
        "windows": widths([WindowedAttention(layout, 7)] * layers, middle),
    }


def level_by_level() -> Numbers:
    """Mean share of an axis that a token sees at the end of each level."""
    names = ("nat_mini", "nat_tiny", "dinat_mini", "dinat_tiny", "dinat_s_tiny", "dinat_s_small")
    return {name: [shares[-1] for shares in level_coverage(name)] for name in names}


def gridding() -> Numbers:
    """The share of 56 tokens that layers of one dilation can reach, by law and by sets."""
    rows = {}
    for dilation in range(1, 9):
        fields = axis_fields([Neighborhood((56,), 7, dilation=dilation)] * 20)[-1]
        rows[str(dilation)] = {"reached": float(fields[28].double().mean()), "law": reachable_share(56, [dilation], 28)}
    return rows


def equivariance() -> Numbers:
    """The share of 48 tokens that attend the same tokens in two crops, by the distance of the crops."""
    makers = {
        "NA, kernel 7": lambda layout: Neighborhood(layout, 7),
        "DiNA, kernel 7, dilation 3": lambda layout: Neighborhood(layout, 7, dilation=3),
        "NA, kernel 7, stride 4": lambda layout: Neighborhood(layout, 7, stride=4),
        "windows of 8": lambda layout: WindowedAttention(layout, 8),
    }
    return {name: [unchanged_share(make, 48, shift) for shift in range(25)] for name, make in makers.items()}


def cost() -> Numbers:
    """Multiply-adds and stored numbers of one layer of 64 channels, window 7 x 7, by the papers' formulas."""
    sides = [14, 28, 56, 112, 224]
    rows: Numbers = {"tokens": [side**2 for side in sides]}
    for kind in ("NA", "SA"):
        amounts = [attention_cost(kind, side**2, 64, 49) for side in sides]
        rows[kind] = {"operations": [amount[0] for amount in amounts], "memory": [amount[1] for amount in amounts]}
    return rows


class LargestTensor(TorchDispatchMode):
    """Remember the most numbers that any operation stored in one tensor of a device; on "meta" nothing is computed."""

    def __init__(self, device: str) -> None:
        """Begin with nothing."""
        super().__init__()
        self.device, self.numbers = torch.device(device), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and look at what it returns."""
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.device == self.device:
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.itemsize)
        return result


def formulations() -> Numbers:
    """The largest tensor that each formulation makes, in numbers, per number of tokens."""
    rows: Numbers = {"tokens": [], "numbers": {}, "unit": "floating-point numbers, head_dim 32, kernel 7 x 7"}
    for side in (14, 28, 56, 112):
        rows["tokens"].append(side**2)
        for impl in ("gather", "unfold", "masked", "tiled"):
            device = "cpu" if impl == "tiled" else "meta"  # tiled alone takes other steps on other devices
            x = torch.zeros(1, side, side, 1, 32, device=device)
            with LargestTensor(device) as largest:
                neighborhood_attention(x, x, x, 7, impl=impl)
            rows["numbers"].setdefault(impl, []).append(largest.numbers)
    return rows


def scaling() -> Numbers:
    """Time and memory against tokens, out of measured/scaling.json: measured, so read and not computed again.

    The file is written by ``dinat-ref bench --shapes scaling --json figures/measured/scaling.json``.
    """
    measured = json.loads((Path(__file__).parent / "measured" / "scaling.json").read_text())
    numbers: Numbers = {"machine": measured["machine"], "milliseconds": {}, "megabytes": {}}
    for row in measured["rows"]:
        if row["contender"] in ("gather", "unfold", "masked", "tiled", "dense attention") and row["skipped"] is None:
            for unit in ("milliseconds", "megabytes"):
                tokens, amounts = numbers[unit].setdefault(row["contender"], [[], []])
                tokens.append(row["tokens"])
                amounts.append(row[unit])
    return numbers


def tiles() -> Numbers:
    """What strides buy a video model, counted and as published: speedups of a whole run."""
    case = USE_CASES[0]
    rows: Numbers = {"layout": case.layout, "window": case.window, "q_tile": case.query_tile, "kv_tile": case.key_tile}
    rows |= {"without tiles": end_to_end(math.prod(case.layout) / math.prod(case.window), case.share), "strides": {}}
    for stride, (published, _) in case.published.items():
        count = count_tiles(Neighborhood(case.layout, case.window, stride), case.query_tile, case.key_tile)
        ours = {"counted": end_to_end(count.speedup, case.share), "worst": count.worst, "waste": count.waste}
        rows["strides"]["x".join(map(str, stride))] = {"published": published, **ours}
    return rows


def traffic() -> Numbers:
    """Bytes that the busiest rank receives in one layer: 4,096 x 4,096 tokens, rows split, 32 heads of 32, 16 bits."""
    side, heads, ranks = 4096, 32, [2**power for power in range(1, 11)]
    rows: Numbers = {"ranks": ranks}

    def received(way: str, count: int, dilation: int) -> int | None:
        if way == "heads" and count > heads:
            return None
        return side * received_bytes(Plan(even_split(side, count), 7, dilation=dilation), heads, 32, 2)[way]

    for dilation in (1, 32, side // 7):
        rows[f"halo, dilation {dilation}"] = [received("halo", count, dilation) for count in ranks]
    for way in ("heads", "all-gather"):
        rows[way] = [received(way, count, 1) for count in ranks]
    return rows


def experiment(name: str) -> Numbers:
    """The numbers of a training experiment, out of measured/NAME.json: measured, so read and not computed again.

    The file is written by ``python -m dinat_ref.training.experiments NAME --out figures/measured``.
    """
    measured = json.loads((Path(__file__).parent / "measured" / f"{name}.json").read_text())
    return {key: value for key, value in measured.items() if key not in ("experiment", "versions", "commit", "threads")}


FIGURES = {
    "walk": walk,
    "comparison": comparison,
    "hero": hero,
    "atlas": atlas,
    "receptive_field_growth": receptive_field_growth,
    "level_by_level": level_by_level,
    "gridding": gridding,
    "equivariance": equivariance,
    "cost": cost,
    "formulations": formulations,
    "scaling": scaling,
    "tiles": tiles,
    "traffic": traffic,
    "patterns": partial(experiment, "patterns"),
    "distance": partial(experiment, "distance"),
    "digits": partial(experiment, "digits"),
}
