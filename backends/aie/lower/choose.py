"""The cheapest way to compute a layer on the array, by a model of what each resource takes.

Tiles are a pipeline: cores multiply one tile while the next one's data arrive and the last one's results leave. So a layer
takes what its slowest resource takes for all tiles, and one tile through everything else. The model counts what the streams
will carry; the simulator is the judge of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparsec.backends.aie.core.program import LEAST_BLOCKS
from sparsec.backends.aie.lower.geometry import BFLOAT16, BYTE
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.leaving import Leaving
from sparsec.backends.aie.lower.memory_places import MemoryPlaces, in_memory
from sparsec.backends.aie.lower.modes import ARRIVING, Mode
from sparsec.backends.aie.lower.operands import does_not_fit, regular
from sparsec.backends.aie.lower.plan import weights_gap
from sparsec.backends.aie.lower.tiling import CONFLICTS, LOCK_MAXIMUM, TRANSFER, Tiling
from sparsec.backends.aie.machine import Machine
from sparsec.compiler.errors import FitError

_CHUNK, _TILE = 32, 36  # cycles of a core for a chunk and a unit of data beside products
_ADDING = 9  # more for a chunk with a residual: its code, and a lock
_GOING_ON = {BYTE: 6, BFLOAT16: 2}  # cycles of 4 vectors beside products to fetch partial sums
_ARRIVING, _CONFIGURED = 800, 1500  # until data begin to come from DDR, and until the last core can take them
_PIECES = (1, 2, 3, 4, 6, 8, 12)  # of the sums of 8 channels
_SPLITS = (1, 2, 4, 8, 16, 32)  # of input channels
_LEAST, _TAPS = 8, 4  # products of 8 output channels in a part of the input channels, so many at most for each of its blocks
_GROUPS = (1, 2, 4)  # of output channels
_MOST_DESCRIPTORS = 16  # of a memory tile for the data of a stream, or of all, so that there are enough for the rest
_MANY_DESCRIPTORS, _LATE = 12, 3500  # from so many on a layer often begins late, by so many cycles
_MOST_SKIPPED = 255  # words that a dimension of a core's descriptor counts
_JITTER = 0.1  # of what is less busy, that the busiest waits for
_LONGER = 1.5  # than the best way, from where on others are not looked at
_LONGEST = 64  # what a descriptor's iteration counts
_STEP_BYTES = 32 * 1024 - 256  # from one buffer of a core to the next: what a descriptor's iteration steps


@dataclass(frozen=True, slots=True)
class Estimate:
    """Cycles of all tiles by resource, what comes before and after, and the cycles of data that cores cannot use to compute."""

    compute: float
    data: float
    weights: float
    results: float
    ddr_in: float
    ddr_out: float
    first: float
    last: float
    waiting: float

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
    def cycles_behind_weights(self) -> float:
        """Cycles of the layer when its weights have come early."""
        return self.first + max(self.compute, self.data, self.weights, self.results, self.ddr_out) + self.last

    @property
    def cycles(self) -> float:
        """Of the layer."""
        cores = max(self.compute, self.weights) + self.waiting
        moved = max(self.data, self.weights, self.results, self.ddr_out, self.ddr_in - self.first)
        return self.first + max(cores, moved) + _JITTER * min(cores, moved) + self.last


def estimate(machine: Machine, t: Tiling) -> Estimate:
    """What a tiling takes."""
    return _estimate(machine, t, in_memory(machine, t))


def _estimate(machine: Machine, t: Tiling, memory: Sequence[MemoryPlaces]) -> Estimate:
    share, mode = t.share, t.mode
    word = machine.streams.bytes_per_cycle
    residual = 4 * t.layer.output_blocks / mode.streams * t.residual_words / word + TRANSFER * 6 if t.layer.residual else 0
    compute = _compute(t) * (1 if weights_gap(machine, t) is not None else CONFLICTS)
    unit = t.data_bytes / word + TRANSFER
    pages = t.streamed * max(n * (size / word + TRANSFER) for size, n in zip(t.paging.sizes, t.paging.counts, strict=True))
    block = t.rows * share.lane * 32 * t.layer.result_size / word + TRANSFER
    arriving, first, leaving, waiting = 0.0, 0.0, 0.0, 0.0
    for column, places in enumerate(memory):
        again = t.streamed if places.slots else 1
        for arrival in places.arrivals:
            data = sum(places.data[i].count for i in arrival.data) * t.part_bytes
            first = max(first, min(data, t.source_bytes / t.splits) / word)
            data += sum(places.residual[i].count for i in arrival.residual) * t.residual_part_bytes
            weights = again * sum(places.weights[i].count * t.page_bytes[places.weights[i].stream.part] for i in arrival.weights)
            arriving = max(arriving, (t.tiles * data + weights) / word)
            if weights:
                first = max(first, data / word)
                if t.tiles > 1 and (t.kept or not places.slots):  # all weights come while the first tile is multiplied
                    waiting = max(waiting, weights / word - compute / t.tiles)
        channels = mode.leaving(column)
        for i in range(channels):
            out = 0
            for r in range(i, mode.grid.core_rows, channels):
                positions, part = mode.parts(column, r)
                out += len(t.output_blocks(part)) * 8 * t.layer.result_size * t.width * t.valid_rows(positions)
            leaving = max(leaving, out / word)
    leave = Leaving(t).patterns(0, 0) if t.tiles == 1 else []
    turns = Leaving(t).parts(0, leave[0]) if leave else 1
    return Estimate(
        compute,
        t.units * unit + t.tiles * residual,
        pages,
        t.tiles * t.most_results * block,
        arriving,
        leaving,
        max(_CONFIGURED, _ARRIVING + first) + unit + waiting + (_LATE if _explicit(t) > _MANY_DESCRIPTORS else 0),
        leaving / (t.tiles * turns) + block,
        ((t.units - 1) * unit if t.buffers == 1 else 0.0) + (t.tiles * residual if t.splits > 1 else 0.0),
    )


def _compute(t: Tiling) -> float:
    """Cycles of the core that has most to do."""
    size = t.layer.element.bytes
    counts, pieces = t.counts, t.all_pieces
    products = np.maximum(LEAST_BLOCKS[False] * pieces[:, None], counts + counts % 2).sum(axis=1)
    if t.diagonal:  # a chunk in one of the parts
        products, chunks = counts.max(axis=1), pieces
    else:
        chunks = t.splits * pieces
    going_on = _GOING_ON[t.layer.element] * (chunks - 1)
    each = t.share.tiles * (4 * size * products + going_on) + _CHUNK * chunks + _ADDING * bool(t.layer.residual)
    return t.units * _TILE + t.tiles * float(np.bincount(np.arange(len(each)) % t.mode.channel_parts, each).max())


def candidates(machine: Machine, layer: ConvLayer, modes: tuple[Mode, ...], height: int, width: int) -> Iterator[Tiling]:
    """All tilings that fit."""
    yield from (t for t in _candidates(machine, layer, modes, height, width) if _places(machine, t) is not None)


def _candidates(machine: Machine, layer: ConvLayer, modes: tuple[Mode, ...], height: int, width: int) -> Iterator[Tiling]:
    """All tilings that descriptors and locks can count and a core may have room for."""
    core, bank = machine.core.data_bytes, machine.core.data_bytes // machine.core.data_banks
    taps = min(_TAPS, layer.window.kernel[0] * layer.window.kernel[1])
    for mode in modes:
        if mode.streams > 1 and (layer.residual is None or layer.output_blocks % mode.channel_parts):
            continue
        band = -(-height // mode.position_parts)
        rows = sorted({-(-band // n) for n in range(1, min(band, _LONGEST) + 1)})
        for splits in _splits(layer, taps):
            most = max(1, int(layer.counts(splits).max()))
            for height_of in rows:
                for blocks in _chunk_blocks(
                    most, (1,) if layer.maximum or layer.computed else _PIECES if splits == 1 else (1, 2)
                ):
                    for kept in (True, False):
                        for buffers in (2, 1):
                            made = Tiling(layer, mode, height, width, height_of, blocks, kept, buffers, core, bank, splits)
                            for groups in _GROUPS if splits > 1 and not layer.computed else (1,):
                                made = replace(made, groups=groups)
                                if _fits(machine, made):
                                    yield made


def _splits(layer: ConvLayer, taps: int) -> Iterator[int]:
    """Parts of the input channels: of products of computed tensors, whole heads."""
    if layer.computed:
        yield from (n for n in range(1, layer.computed.heads + 1) if layer.computed.heads % n == 0)
        return
    for n in _SPLITS:
        if n == 1 or not (layer.depthwise or layer.input_blocks % n or layer.input_blocks * taps < _LEAST * n):
            yield n


def _chunk_blocks(most: int, pieces: Sequence[int]) -> list[int]:
    """Blocks of a chunk, of at most so many in so many pieces: even numbers."""
    found = (-(-most // n) for n in pieces)
    return sorted({n + n % 2 for n in found}, reverse=True)


def _fits(machine: Machine, t: Tiling) -> bool:
    """Whether descriptors and locks can count it, and a core has room."""
    parts = {len(t.output_blocks(p)) for p in range(t.mode.channel_parts)} - {0}
    if t.layer.computed and not regular(t):
        return False
    if t.groups > 1 and (t.layer.residual or len(parts) > 1 or t.most_results % t.groups):
        return False
    if _explicit(t) > _MOST_DESCRIPTORS:
        return False
    if t.layer.residual and t.splits > 8:
        return False
    if t.skips and t.residual_words > _MOST_SKIPPED:
        return False
    if t.tiles > _LONGEST or t.most_results > LOCK_MAXIMUM:
        return False
    if t.buffers > 1 and (t.unit_bytes > _STEP_BYTES or t.units == 1):
        return False
    return t.least_demand <= machine.core.data_bytes


def _explicit(t: Tiling) -> int:
    """Descriptors of a memory tile for parts of data, where each takes its own."""
    streams = t.mode.groups[1]
    if t.mode.streams > 1:  # one of them with even channels, one with odd ones
        return (len(t.share.window.planes) + 1) * (len(ARRIVING) if t.residual_in_turn else t.parts)
    if t.in_turn and (t.tiles == 1 or streams > 1):
        return 0
    return max(t.groups * len(t.share.window.planes), streams) * t.parts


def _places(machine: Machine, t: Tiling) -> tuple[MemoryPlaces, ...] | None:
    """What memory tiles hold; None where that or what cores hold does not fit."""
    if sum(t.core_demand.values()) > machine.core.data_bytes or (t.kept and max(t.paging.counts) > LOCK_MAXIMUM):
        return None
    try:
        return in_memory(machine, t)
    except FitError:
        return None


def ranked(machine: Machine, layer: ConvLayer, modes: tuple[Mode, ...], height: int, width: int) -> list[Tiling]:
    """The tilings that fit, the cheapest first by the model, without those that take much longer.

    FitError when there are none.
    """
    found: list[tuple[float, int, Tiling]] = []
    least = float("inf")
    for i, t in enumerate(_candidates(machine, layer, modes, height, width)):
        if max(_compute(t), t.streamed * t.least_stream) > _LONGER * least or (places := _places(machine, t)) is None:
            continue
        cycles = _estimate(machine, t, places).cycles
        least = min(least, cycles)
        found.append((cycles, i, t))
    if not found and layer.computed:
        raise does_not_fit(machine, layer)
    if not found:
        raise FitError(
            f"layer {layer.node!r} on {machine.name}",
            demand=f"one row of {width} x {layer.channels[0]} inputs and {layer.channels[1]} outputs, and weights of 8 channels",
            bound=f"{machine.core.data_bytes:,} bytes of a core and {machine.memory.data_bytes:,} of a memory tile",
            remedy="use a larger array",
            node=layer.node,
        )
    return [t for _, _, t in sorted(found)]
