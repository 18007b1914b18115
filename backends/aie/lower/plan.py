"""The plan of a layer: how it is cut and tiled, its chunks of weights, and what every memory holds while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparsec.backends.aie.core.program import Kind
from sparsec.backends.aie.lower.chunks import Chunk, Steps
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.modes import Stream
from sparsec.backends.aie.lower.tiling import QUAD_BYTES, RING, SUM_BYTES, Tiling
from sparsec.backends.aie.machine import Machine
from sparsec.backends.aie.registers import Tile
from sparsec.compiler.errors import FitError

WEIGHT_SLOTS = 48  # of a memory tile's ring at most


@dataclass(frozen=True, slots=True)
class CorePlaces:
    """Byte addresses in every core's data memory: of the first buffer of each kind, and the bytes to the next one."""

    data: int
    data_step: int
    weights: int
    results: int
    results_step: int
    partial: int
    parameters: int


@dataclass(frozen=True, slots=True)
class MemoryPlaces:
    """Byte addresses in one memory tile. `data` and `weights` by stream; weights are a ring of `slots` chunks a stream, or
    whole (0).

    Results are a ring for each core of the column, tiles behind the last valid row go to `discarded`.
    """

    data: tuple[int, ...]
    weights: tuple[int, ...]
    slots: int
    results: tuple[int, ...]
    discarded: int


@dataclass(frozen=True)
class LayerPlan:
    """A layer on the array. `chunks` are packed by part of the channels; `memory` by column."""

    tiling: Tiling
    chunks: tuple[tuple[bytes, ...], ...]
    core: CorePlaces
    memory: tuple[MemoryPlaces, ...]

    @property
    def layer(self) -> ConvLayer:
        """What is computed."""
        return self.tiling.layer

    @property
    def weights(self) -> bytes:
        """All chunks as memory tiles read them, tile by tile."""
        return b"".join(b"".join(self.stream_order(tile)) for tile in sorted(self.weight_streams()))

    def weight_streams(self) -> dict[Tile, list[Stream]]:
        """The streams of weights by memory tile, those that have any chunks."""
        found: dict[Tile, list[Stream]] = {}
        for s in self.tiling.mode.weights():
            if self.chunks[s.part]:
                found.setdefault(s.memory, []).append(s)
        return found

    def stream_order(self, memory: Tile) -> list[bytes]:
        """The chunks of a memory tile in the order in which they come: stream by stream, or in turns where they are rings."""
        streams = [self.chunks[s.part] for s in self.weight_streams()[memory]]
        if not self.memory[memory.column].slots:
            return [c for chunks in streams for c in chunks]
        return [c for together in zip(*streams, strict=True) for c in together]


def kinds_of(tiling: Tiling) -> tuple[Kind, ...]:
    """The kinds of product that a layer asks of cores."""
    return tuple(dict.fromkeys(k for b in range(tiling.layer.output_blocks) for k in _kinds(tiling, b)))


def _kinds(tiling: Tiling, block: int) -> list[Kind]:
    n, layer = tiling.pieces(block), tiling.layer
    found = []
    for i in range(n):
        last = i == n - 1
        residual = layer.residual is not None and last
        signed = (layer.signed[0], layer.signed[1] and residual, layer.signed[2] and last)
        low, high = (b is not None and last for b in layer.shifts.bounds)
        made = Kind(layer.depthwise, signed, residual, starts_partial=i > 0, ends_partial=not last, cuts=(low, high))
        found.append(replace(made, maximum=layer.maximum, wide=layer.wide and last))
    return found


def plan_layer(machine: Machine, tiling: Tiling, kinds: Sequence[Kind]) -> LayerPlan:
    """Place everything. FitError when something is too large."""
    chunks = tuple(
        tuple(c for b in tiling.output_blocks(part) for c in _chunks(tiling, b, kinds))
        for part in range(tiling.mode.channel_parts)
    )
    memory = tuple(in_memory(machine, tiling, column) for column in range(machine.columns))
    return LayerPlan(tiling, chunks, in_core(machine, tiling), memory)


def _chunks(tiling: Tiling, block: int, kinds: Sequence[Kind]) -> list[bytes]:
    """The nonzero blocks of 8 output channels, packed."""
    layer, share = tiling.layer, tiling.share
    w = layer.weights[block]  # [8, input blocks, 8, rows, columns]
    offsets, blocks = [], []
    for i, j in ((i, j) for i in range(w.shape[3]) for j in range(w.shape[4])):
        for b in range(w.shape[1]):
            found = w[:, b, :, i, j]
            if found.any():
                offsets.append(share.offset(block if layer.depthwise else b, i, j))
                blocks.append(found.reshape(8) if layer.depthwise else found.T)
    shape = (-1, 8) if layer.depthwise else (-1, 8, 8)
    whole = np.array(blocks, np.int8).reshape(shape)
    bias = np.zeros(8, np.int32)
    own = layer.shifts.bias[8 * block : 8 * block + 8]
    bias[: own.size] = own
    residual = tiling.data_bytes + block * tiling.residual_stride if layer.residual else 0
    packed = []
    for i, kind in enumerate(_kinds(tiling, block)):
        part = slice(i * tiling.chunk_blocks, (i + 1) * tiling.chunk_blocks)
        s = layer.shifts
        made = Chunk(bias, whole[part], offsets[part], s.shift, s.residual_shift, residual, kinds.index(kind))
        packed.append(made.pack(Steps()).ljust(tiling.chunk_bytes, b"\0"))
    return packed


def in_core(machine: Machine, tiling: Tiling) -> CorePlaces:
    """Buffers in a core, data and weights in banks of their own where they fit, so that loads and DMA do not meet."""
    demand = tiling.core_demand
    size, bank = machine.core.data_bytes, machine.core.data_bytes // machine.core.data_banks
    if sum(demand.values()) > size:
        told = ", ".join(f"{n:,} bytes of {what}" for what, n in demand.items() if n)
        raise FitError(
            f"layer {tiling.layer.node!r} in a core",
            demand=told,
            bound=f"{size:,} bytes of data memory",
            remedy="use an array with more cores",
            node=tiling.layer.node,
        )
    spare = size - sum(demand.values())
    at, places = 0, []
    for need in (demand["data"], demand["weights"], demand["results"]):
        places.append(at)
        gap = -(at + need) % bank
        if gap > spare:
            gap = 0
        spare -= gap
        at += need + gap
    return CorePlaces(
        0,
        tiling.tile_bytes + QUAD_BYTES,
        places[1],
        places[2] + tiling.result_quad,  # the first store of a chunk lands before its results
        tiling.result_bytes + tiling.result_quad,
        at + SUM_BYTES,
        size - demand["parameters"],
    )


def in_memory(machine: Machine, tiling: Tiling, column: int) -> MemoryPlaces:
    """Rings and weights in the memory tile of a column. FitError when they are too large."""
    mode, size = tiling.mode, machine.memory.data_bytes
    data = [s for s in mode.data() if s.memory.column == column]
    weights = [s for s in mode.weights() if s.memory.column == column and tiling.chunks(s.part)]
    rows = range(mode.grid.core_rows)
    tile = tiling.source_bytes + tiling.residual_source_bytes
    rings = [tiling.result_ring * len(tiling.output_blocks(mode.parts(column, r)[1])) * tiling.stored_bytes for r in rows]
    fixed = RING * tile * len(data) + sum(rings) + tiling.stored_bytes
    chunk, slots = tiling.chunk_bytes, 0
    room = size - fixed
    whole = sum(tiling.chunks(s.part) for s in weights) * chunk
    if weights and whole > room:
        slots = min(room // (chunk * len(weights)), WEIGHT_SLOTS)
    uneven = slots and len({tiling.chunks(s.part) for s in weights}) > 1  # rings are filled in turns
    if room < 0 or uneven or (weights and whole > room and slots < 2):
        raise FitError(
            f"layer {tiling.layer.node!r} in a memory tile",
            demand=f"{RING * tile * len(data):,} bytes of data, {sum(rings):,} of results, "
            f"at least {2 * chunk * len(weights):,} of weights",
            bound=f"{size:,} bytes",
            remedy="use an array with more columns",
            node=tiling.layer.node,
        )
    at = RING * tile * len(data)
    places = []
    for s in weights:
        places.append(at)
        at += (slots or tiling.chunks(s.part)) * chunk
    ring_at = [at + sum(rings[:r]) for r in rows]
    return MemoryPlaces(tuple(RING * tile * i for i in range(len(data))), tuple(places), slots, tuple(ring_at), at + sum(rings))
