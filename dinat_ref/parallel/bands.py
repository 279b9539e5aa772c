"""A run of steps over maps in files, band by band: what is done is written down, and not done again."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dinat_ref.attention import neighborhood_attention_part
from dinat_ref.command import show_progress, whole_file
from dinat_ref.layers import NeighborhoodAttention2D
from dinat_ref.models.layers import Layer, WindowAttention
from dinat_ref.neighborhood import Neighborhood
from dinat_ref.outside import read_json
from dinat_ref.parallel.halo import outputs_of, sliding_of
from dinat_ref.parallel.rowfile import RowFile, create
from dinat_ref.parallel.walk import PerToken

Prepare = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Map:
    """A map [X, Y, C] in a file that may not exist yet, or not any more."""

    path: Path
    shape: tuple[int, ...]


class Streaming:
    """A run: files of maps in a folder, and how far it has come. Its steps are made in the order of ``walk``."""

    def __init__(
        self, folder: Path, memory: int, dtype: torch.dtype, prepare: Prepare | None, fingerprint: str
    ) -> None:
        """Find out where an earlier run stopped."""
        self.folder, self.memory, self.dtype, self.prepare = folder, memory, dtype, prepare
        self.fingerprint, self.notes, self.step = fingerprint, folder / "progress.json", 0
        done = read_json(self.notes) if self.notes.exists() else {}
        same = done.get("run") == fingerprint
        self.done = (int(done["steps"]), int(done["bands"])) if same else (0, 0)

    def slide(self, image: Map, convolution: nn.Conv2d, norm: PerToken | None) -> Map:
        """Apply a convolution, and a LayerNorm to its tokens."""
        rows, columns, channels = image.shape
        sliding, apply, fill = sliding_of(convolution, (rows,))
        (count,) = sliding.outputs
        width = (columns + 2 * convolution.padding[1] - convolution.kernel_size[1]) // convolution.stride[1] + 1  # type: ignore[operator]
        shape = (count, width, convolution.out_channels)
        a_row = 2 * sliding.stride * columns * channels + 4 * width * convolution.out_channels
        halo = 2 * sliding.kernel_size * columns * channels

        def compute(outputs: range) -> tuple[range, Callable[[Tensor], Tensor]]:
            seen = sliding.window(outputs)
            seen = range(max(seen.start, 0), min(seen.stop, rows))

            def convolve(x: Tensor) -> Tensor:
                y = outputs_of(apply, x.movedim(-1, 0)[None], seen.start, outputs, sliding, fill)[0].movedim(0, -1)
                return y if norm is None else norm(y)

            return seen, convolve

        return self._pass(image, shape, list(self._bands(range(count), a_row, halo)), compute)

    def layer(self, x: Map, layer: Layer) -> Map:
        """Apply a layer of attention and MLP."""
        hidden = layer.mlp.fc1.out_features
        return self.attention(x, layer.attn, layer.norm1, layer._add, 4 * hidden)

    def tokens(self, x: Map, norm: nn.Module) -> Map:
        """Apply a LayerNorm, and keep its input."""
        bands = list(self._bands(range(x.shape[0]), 4 * x.shape[1] * x.shape[2], 0))
        return self._pass(x, x.shape, bands, lambda rows: (rows, norm), keep=True)

    def attention(
        self,
        x: Map,
        attention: NeighborhoodAttention2D,
        norm: nn.Module | None = None,
        add: Callable[[Tensor, Tensor], Tensor] | None = None,
        hidden: int = 0,
    ) -> Map:
        """Attend, one dilation group of rows after the other, and add to what came in."""
        rows, columns = x.shape[:2]
        width, dilation = attention.embed_dim, attention.dilation
        filled_rows, filled_columns = rows, columns
        if isinstance(attention, WindowAttention):  # small maps are filled up
            filled, _, dilation = attention._fit(torch.empty(1, rows, columns, 1, device="meta"), None)
            filled_rows, filled_columns = filled.shape[1:3]
        step = dilation[0]
        a_row = filled_columns * (16 * width + hidden)
        halo = 10 * filled_columns * width * attention.kernel_size[0]
        bands = [band for group in range(step) for band in self._bands(range(group, rows, step), a_row, halo)]

        def compute(outputs: range) -> tuple[range, Callable[[Tensor], Tensor]]:
            group = outputs[0] % step
            layout = (-(-(filled_rows - group) // step), filled_columns)  # of the group, an axis without dilation
            window = (attention.kernel_size, attention.stride, (1, dilation[1]), attention.is_causal)
            own = range(outputs[0] // step, outputs[-1] // step + 1)
            keys = Neighborhood(layout, *window).reach([own, range(filled_columns)])[0]
            held = range(group + step * keys.start, min(group + step * (keys.stop - 1) + 1, rows), step)
            before = own.start - keys.start

            def attend(tokens: Tensor) -> Tensor:
                mine = tokens[None, before : before + len(own)]  # [1, own, Y, C]
                normed = tokens if norm is None else norm(tokens)
                normed = pad(normed, (0, 0, 0, filled_columns - columns, 0, len(keys) - len(held)))
                query, key, value = attention._project(normed[None])
                box: dict[str, Any] = {"layout": layout, "query_start": (own.start, 0), "key_start": (keys.start, 0)}
                query = query[:, before : before + len(own)]
                output = neighborhood_attention_part(
                    query, key, value, *window, attention.scale, rpb=attention.rpb, **box
                )
                assert isinstance(output, Tensor)
                output = attention._finish(output[:, :, :columns])
                return (output if add is None else add(mine, output))[0]

            return held, attend

        return self._pass(x, (rows, columns, width), bands, compute)

    def _bands(self, rows: range, a_row: int, halo: int) -> Iterator[range]:
        """Cut rows into bands whose tensors fit into the memory: numbers for a row, and for the halo of a band."""
        size = self.dtype.itemsize
        count = (self.memory // size - halo) // a_row
        if count < 1:
            raise ValueError(f"memory must be at least {size * (a_row + halo):,} bytes for a row, got {self.memory:,}")
        for start in range(0, len(rows), count):
            yield rows[start : start + count]

    def _pass(
        self,
        source: Map,
        shape: tuple[int, ...],
        bands: list[range],
        compute: Callable[[range], tuple[range, Callable[[Tensor], Tensor]]],
        keep: bool = False,
    ) -> Map:
        """Make a step, band by band, from where an earlier run stopped."""
        number, self.step = self.step, self.step + 1
        steps, done = self.done
        target = Map(self.folder / f"map{number}.npy", shape)
        if number < steps:
            return target
        first = done if number == steps else 0
        rows_in = RowFile(source.path)
        rows_out = RowFile(target.path) if first else create(target.path, shape, str(self.dtype).removeprefix("torch."))
        for band in range(first, len(bands)):
            show_progress(f"step {number + 1}: {band:,} of {len(bands):,} bands of {source.shape[1]:,} columns")
            rows, apply = compute(bands[band])
            x = torch.from_numpy(rows_in.read(rows))
            x = self.prepare(x) if number == 0 and self.prepare is not None else x.to(self.dtype)
            rows_out.write(bands[band], apply(x).numpy())
            self._note(number, band + 1)
        self._note(number + 1, 0)
        if source.path.parent == self.folder and not keep:
            source.path.unlink(missing_ok=True)
        return target

    def _note(self, steps: int, bands: int) -> None:
        """Write down what is done."""
        with whole_file(self.notes) as temporary:
            temporary.write_text(
                json.dumps({"run": self.fingerprint, "steps": steps, "bands": bands}), encoding="utf-8"
            )

    def forget(self) -> None:
        """Remove the files of the run."""
        for path in (self.notes, *self.folder.glob("map*.npy"), self.folder / "source.npy", self.folder / "bands.npy"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something of somebody else's lies there
            self.folder.rmdir()
