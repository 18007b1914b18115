"""The cheapest way to compute a layer on the array, by a model of what each resource takes.

Tiles are a pipeline: cores multiply one tile while the next one's data arrive and the last one's results leave. So a layer
takes what its slowest resource takes for all tiles, and one tile through everything else. The model counts what the streams
will carry; the simulator is the judge of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.modes import Cut, Mode
from sparsec.backends.aie.lower.plan import in_core, in_memory
from sparsec.backends.aie.lower.tiling import LOCK_MAXIMUM, Tiling
from sparsec.backends.aie.machine import Machine
from sparsec.compiler.errors import FitError

_CHUNK, _TILE, _LAYER = 70, 60, 3000  # cycles of a core for a chunk and a tile beside products, of an array for a layer
_PIECES = (1, 2, 3, 4, 6, 8, 12)  # of the sums of 8 channels
_LONGEST = 64  # what a descriptor's iteration counts, and a lock
_STEP_BYTES = 32 * 1024 - 256  # from one buffer of a core to the next: what a descriptor's iteration steps


@dataclass(frozen=True, slots=True)
class Estimate:
    """Cycles of all tiles by resource."""

    compute: float
    data: float
    weights: float
    results: float
    ddr_in: float
    ddr_out: float
    tiles: int
    overlapped: bool

    @property
    def bound_by(self) -> str:
        """The slowest resource."""
        parts = {
            "compute": self.compute,
            "data stream": self.data,
            "weights stream": self.weights,
            "results stream": self.results,
            "DDR reads": self.ddr_in,
            "DDR writes": self.ddr_out,
        }
        return max(parts, key=lambda k: parts[k])

    @property
    def cycles(self) -> float:
        """Of the layer."""
        most = max(self.compute, self.data, self.weights, self.results, self.ddr_in, self.ddr_out)
        if not self.overlapped:
            most = max(most, self.compute + self.data)
        fill = (self.data + self.ddr_in + self.results + self.ddr_out) / self.tiles
        return most + fill + _LAYER


def estimate(machine: Machine, t: Tiling) -> Estimate:
    """What a tiling takes."""
    share, mode, layer = t.share, t.mode, t.layer
    word = machine.streams.bytes_per_cycle
    per_row = [t.output_blocks(p) for p in range(mode.channel_parts)]
    quad = 4 if layer.residual else 0  # cycles of 4 vectors that add it
    worst = 0.0
    for blocks in per_row:
        products = sum(4 * max(2, t.block_counts[b] + t.block_counts[b] % 2) for b in blocks)
        ends = sum(4 + quad + 32 * (t.pieces(b) - 1) for b in blocks)
        worst = max(worst, share.tiles * (products + ends) + _CHUNK * sum(t.pieces(b) for b in blocks))
    compute = t.tiles * (worst + _TILE)
    streams = len([s for s in mode.data() if s.memory.column == 0])
    columns = len({s.memory for s in mode.data()})
    source = t.source_bytes + t.residual_source_bytes
    chunk_bytes = t.most_chunks * t.chunk_bytes
    loads = [
        sum(t.chunks(s.part) for s in mode.weights() if s.memory.column == c) * t.chunk_bytes for c in range(mode.grid.columns)
    ]
    again = t.streamed if any(in_memory(machine, t, c).slots for c in range(mode.grid.columns)) else 1
    results = t.most_results * t.rows * share.lane * 32 * layer.result_size
    writers = max(1, min(mode.grid.columns, -(-t.height // t.band) if mode.cut is Cut.BOTH else mode.grid.columns))
    out_bytes = layer.output_blocks * 8 * t.height * t.width * layer.result_size
    return Estimate(
        compute,
        t.tiles * t.tile_bytes / word,
        t.streamed * chunk_bytes / word,
        t.tiles * results / word,
        max(t.tiles * source * streams * columns / (columns * word), again * max(loads) / word),
        out_bytes / (writers * word),
        t.tiles,
        t.buffers == 2,
    )


def candidates(machine: Machine, layer: ConvLayer, modes: tuple[Mode, ...], height: int, width: int) -> Iterator[Tiling]:
    """All tilings that fit."""
    most = max(1, *layer.block_counts)
    for mode in modes:
        band = -(-height // mode.position_parts)
        rows = sorted({-(-band // n) for n in range(1, min(band, _LONGEST) + 1)})
        for height_of in rows:
            for pieces in (1,) if layer.maximum else _PIECES:
                blocks = -(-most // pieces)
                blocks += blocks % 2
                for kept in (True, False):
                    for buffers in (2, 1):
                        made = Tiling(layer, mode, height, width, height_of, blocks, kept, buffers)
                        if _fits(machine, made):
                            yield made
                if blocks <= 2:
                    break


def _fits(machine: Machine, t: Tiling) -> bool:
    if t.tiles > _LONGEST or (t.kept and t.most_chunks > _LONGEST) or t.most_results > LOCK_MAXIMUM:
        return False
    if t.buffers > 1 and t.tile_bytes > _STEP_BYTES:
        return False
    try:
        in_core(machine, t)
        for column in range(machine.columns):
            in_memory(machine, t, column)
    except FitError:
        return False
    return True


def ranked(machine: Machine, layer: ConvLayer, modes: tuple[Mode, ...], height: int, width: int) -> list[Tiling]:
    """The tilings that fit, the cheapest first by the model. FitError when there are none."""
    found = [(estimate(machine, t).cycles, i, t) for i, t in enumerate(candidates(machine, layer, modes, height, width))]
    if not found:
        raise FitError(
            f"layer {layer.node!r} on {machine.name}",
            demand=f"one row of {width} x {layer.channels[0]} inputs and {layer.channels[1]} outputs, and weights of 8 channels",
            bound=f"{machine.core.data_bytes:,} bytes of a core and {machine.memory.data_bytes:,} of a memory tile",
            remedy="use a larger array",
            node=layer.node,
        )
    return [t for _, _, t in sorted(found)]
