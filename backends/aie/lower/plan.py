"""The plan of a layer: how it is cut and tiled, its chunks of weights, and what every memory holds while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsec.backends.aie.core.program import Kind, entries
from sparsec.backends.aie.lower.chunks import Chunk
from sparsec.backends.aie.lower.geometry import BFLOAT16
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.modes import Stream
from sparsec.backends.aie.lower.tiling import LOCK_MAXIMUM, RING, SUM_BYTES, Tiling
from sparsec.backends.aie.machine import Machine
from sparsec.compiler.errors import FitError

Array = np.ndarray[Any, Any]

WEIGHT_SLOTS = 48  # of a memory tile's ring at most
_DISCARDED_BYTES = 2048
_GRANULES = 60  # that a lock and an iteration count, of weights that a memory tile holds whole


@dataclass(frozen=True, slots=True)
class CorePlaces:
    """Byte addresses in every core's data memory: of the first buffer of each kind, and the bytes to the next one."""

    data: int
    data_step: int
    skipped: int
    residual: int
    weights: int
    results: int
    results_step: int
    partial: tuple[int, int]
    parameters: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """What comes through one shim channel: streams of data and of weights of the column's memory tile, by their number there.
    So many tiles of data come `before` the weights, the rest behind them."""

    data: tuple[int, ...]
    weights: tuple[int, ...]
    before: int


@dataclass(frozen=True, slots=True)
class MemoryPlaces:
    """Byte addresses in one memory tile. `data` and `weights` by stream; data are a ring of `ring` tiles, weights a ring of
    `slots` chunks a stream, or whole (0).

    Results are a ring for each core of the column, tiles behind the last valid row go to `discarded`, which is in one place for
    all layers: they may come when the next one's data do.
    """

    data: tuple[int, ...]
    ring: int
    weights: tuple[int, ...]
    slots: int
    results: tuple[int, ...]
    discarded: int
    arrivals: tuple[Arrival, Arrival]


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
        """All chunks as memory tiles read them, channel by channel."""
        arrivals = [(c, i) for c in range(len(self.memory)) for i in range(2)]
        return b"".join(b"".join(self.stream_order(c, i)) for c, i in arrivals)

    def stream_order(self, column: int, arrival: int) -> list[bytes]:
        """The chunks that come through one channel of a shim in their order: in turns where streams are of one length."""
        streams, places = weight_streams(self.tiling, column), self.memory[column]
        found = [self.chunks[streams[i].part] for i in places.arrivals[arrival].weights]
        if len({len(f) for f in found}) > 1:
            return [c for chunks in found for c in chunks]
        size = 1 if places.slots or not found else granule(len(found[0]))
        return [c for at in range(0, len(found[0]) if found else 0, size) for f in found for c in f[at : at + size]]


def granule(chunks: int) -> int:
    """Chunks that come together into a memory tile which holds all of them."""
    return next(n for n in range(-(-chunks // _GRANULES), chunks + 1) if chunks % n == 0)


def data_streams(tiling: Tiling, column: int) -> list[Stream]:
    """The streams of data from a column's memory tile."""
    return [s for s in tiling.mode.data() if s.memory.column == column]


def weight_streams(tiling: Tiling, column: int) -> list[Stream]:
    """The streams of weights from a column's memory tile, those that have any chunks."""
    return [s for s in tiling.mode.weights() if s.memory.column == column and tiling.chunks(s.part)]


def kinds_of(tiling: Tiling) -> tuple[Kind, ...]:
    """The kinds of product that a layer asks of cores."""
    return tuple(dict.fromkeys(k for b in range(tiling.layer.output_blocks) for k in _kinds(tiling, b)))


def _kinds(tiling: Tiling, block: int) -> list[Kind]:
    n, layer = tiling.splits * tiling.pieces(block), tiling.layer
    found = []
    for i in range(n):
        last = i == n - 1
        residual = layer.residual is not None and last
        signed = (layer.signed[0], layer.signed[1] and residual, layer.signed[2] and last)
        low, high = (b is not None and last for b in layer.shifts.bounds)
        made = Kind(layer.depthwise, signed, residual, starts_partial=i > 0, ends_partial=not last, cuts=(low, high))
        found.append(replace(made, maximum=layer.maximum, wide=layer.wide and last, bfloat16=layer.element is BFLOAT16))
    return found


def plan_layer(machine: Machine, tiling: Tiling, kinds: Sequence[Kind]) -> LayerPlan:
    """Place everything. FitError when something is too large."""
    core = in_core(machine, tiling)
    chunks = []
    for part in range(tiling.mode.channel_parts):
        blocks = tiling.output_blocks(part)
        made = [_chunks(tiling, b, b - blocks[0], core, kinds) for b in blocks]
        each = max(1, len(made) // tiling.groups)
        units = [(at, split) for at in range(0, len(made), each) for split in range(tiling.splits)]
        chunks.append(tuple(c for at, split in units for block in made[at : at + each] for c in block[split]))
    memory = tuple(in_memory(machine, tiling, column) for column in range(machine.columns))
    return LayerPlan(tiling, tuple(chunks), core, memory)


def _chunks(tiling: Tiling, block: int, own: int, core: CorePlaces, kinds: Sequence[Kind]) -> list[list[bytes]]:
    """The nonzero blocks of 8 output channels, which are a core's `own`-th, packed, by part of the input channels."""
    layer, share = tiling.layer, tiling.share
    bias = np.zeros(8, layer.shifts.bias.dtype)
    there = layer.shifts.bias[8 * block : 8 * block + 8]
    bias[: there.size] = there
    residual = core.residual + own * tiling.residual_stride if layer.residual else 0
    group = max(1, tiling.most_results // tiling.groups)
    further = own % group * tiling.partial_bytes if tiling.splits > 1 else 0
    partial = core.partial[0] + further if tiling.in_parts else 0
    wanted, begins = iter(_kinds(tiling, block)), dict(zip(kinds, entries(tuple(kinds)), strict=True))
    packed: list[list[bytes]] = []
    for split in range(tiling.splits):
        offsets, whole = _blocks(tiling, block, split)
        packed.append([])
        for i in range(tiling.pieces(block)):
            part, kind = slice(i * tiling.chunk_blocks, (i + 1) * tiling.chunk_blocks), next(wanted)
            made = Chunk(bias, whole[part], offsets[part], begins[kind], residual, partial, kind.starts_partial)
            packed[-1].append(made.pack(share.steps, tiling.chunk_start).ljust(tiling.chunk_bytes, b"\0"))
    return packed


def _blocks(tiling: Tiling, block: int, split: int) -> tuple[list[int], Array]:
    """The nonzero blocks of 8 output channels and a part of the input channels: where their data are, and the blocks."""
    layer, share = tiling.layer, tiling.share
    w = layer.weights[block]  # [8, input blocks, 8, rows, columns]
    within = range(1 if layer.depthwise else share.blocks)
    offsets, blocks = [], []
    for i, j in ((i, j) for i in range(w.shape[3]) for j in range(w.shape[4])):
        for b in within:
            found = w[:, split * share.blocks + b, :, i, j]
            if found.any():
                offsets.append(share.offset(block if layer.depthwise else b, i, j))
                blocks.append(found.reshape(8) if layer.depthwise else found.T)
    return offsets, np.array(blocks, w.dtype).reshape((-1, 8) if layer.depthwise else (-1, 8, 8))


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
    weights = demand["data"] + demand["residual"]
    first = tiling.chunk_bytes if not tiling.kept else 0  # so that one buffer of weights comes where the other is not read
    gap = -(weights + first) % bank
    if gap <= spare:
        spare, weights = spare - gap, weights + gap
    results = weights + demand["weights"]
    gap = -(results + demand["results"]) % bank
    at = results + demand["results"] + (gap if gap <= spare else 0)
    return CorePlaces(
        0,
        tiling.unit_bytes,
        tiling.buffers * tiling.unit_bytes,
        demand["data"],
        weights,
        results + tiling.result_quad,  # the first store of a chunk lands before its results
        tiling.result_bytes + tiling.result_quad,
        _partial(tiling, at, bank, size - at - demand["parameters"]),
        size - demand["parameters"],
    )


def _partial(tiling: Tiling, at: int, bank: int, room: int) -> tuple[int, int]:
    """Both halves of partial sums from `at` on, behind their gaps, a bank apart if there is room."""
    half = tiling.half_sums
    apart = max(half, bank) if max(half, bank) + half <= room else half
    return at + SUM_BYTES // 2, at + apart + SUM_BYTES // 2


def in_memory(machine: Machine, tiling: Tiling, column: int) -> MemoryPlaces:
    """Rings and weights in the memory tile of a column. FitError when they are too large."""
    mode, size = tiling.mode, machine.memory.data_bytes
    data, weights = data_streams(tiling, column), weight_streams(tiling, column)
    rows = range(mode.grid.core_rows)
    tile = tiling.source_bytes + tiling.residual_source_bytes
    rings = [tiling.result_ring * len(tiling.output_blocks(mode.parts(column, r)[1])) * tiling.stored_bytes for r in rows]
    room = size - sum(rings) - _DISCARDED_BYTES
    ring, slots = _rings(tiling, tile * len(data), weights, room)
    chunk = tiling.chunk_bytes
    arrivals = _arrivals(tiling, tile, data, weights, ring, slots)
    uneven = slots and any(len({tiling.chunks(weights[i].part) for i in a.weights}) > 1 for a in arrivals)
    if not ring or uneven:  # rings are filled in turns
        raise FitError(
            f"layer {tiling.layer.node!r} in a memory tile",
            demand=f"{min(RING, tiling.tiles) * tile * len(data):,} bytes of data, {sum(rings):,} of results, "
            f"at least {2 * chunk * len(weights):,} of weights",
            bound=f"{size:,} bytes",
            remedy="use an array with more columns",
            node=tiling.layer.node,
        )
    at = ring * tile * len(data)
    places = []
    for s in weights:
        places.append(at)
        at += (slots or tiling.chunks(s.part)) * chunk
    ring_at = [at + sum(rings[:r]) for r in rows]
    data_at = tuple(ring * tile * i for i in range(len(data)))
    return MemoryPlaces(data_at, ring, tuple(places), slots, tuple(ring_at), size - _DISCARDED_BYTES, arrivals)


def _rings(tiling: Tiling, data: int, weights: Sequence[Stream], room: int) -> tuple[int, int]:
    """Tiles of data (0: none fit) and chunks of a stream of weights (0: all of them) that a memory tile holds at a time.

    Weights that cores ask for again are held whole if at all possible, then data of all tiles, so that they can come before
    the weights through the same channel.
    """
    chunk = tiling.chunk_bytes * len(weights)
    whole = sum(tiling.chunks(s.part) for s in weights) * tiling.chunk_bytes
    fewest = min(RING, tiling.tiles)
    all_tiles = tiling.tiles if tiling.tiles * (tiling.splits + tiling.residual_parts) <= LOCK_MAXIMUM else fewest
    most = max((tiling.chunks(s.part) for s in weights), default=0)
    for ring in dict.fromkeys((all_tiles, fewest)):
        if ring * data + whole <= room and tiling.streamed > 1:
            return ring, 0
    for ring in dict.fromkeys((all_tiles, fewest)):
        slots = min((room - ring * data) // chunk, WEIGHT_SLOTS, most) if weights else 0
        if ring * data <= room and (not weights or slots >= min(2, most)):
            return ring, slots
    return 0, 0


def _arrivals(
    tiling: Tiling, tile: int, data: Sequence[Stream], weights: Sequence[Stream], ring: int, slots: int
) -> tuple[Arrival, Arrival]:
    """Streams by shim channel. Data and weights share channels where the first of them never wait for the second.

    Weights that have places of their own come behind the first tile of data, others behind all tiles if these have.
    """
    held = ring >= tiling.tiles
    before = 1 if tiling.kept or not slots else tiling.tiles
    sizes = {("data", i): tile * tiling.tiles for i in range(len(data))}
    again = tiling.streamed if slots else 1
    sizes |= {("weights", i): again * tiling.chunks(s.part) * tiling.chunk_bytes for i, s in enumerate(weights)}
    found: list[dict[str, list[int]]] = [{"data": [], "weights": []}, {"data": [], "weights": []}]
    loads = [0, 0]
    apart = not held and slots > 0 and not tiling.kept
    for (what, i), size in sorted(sizes.items(), key=lambda s: -s[1]):
        channel = int(what == "weights") if apart else loads.index(min(loads))
        found[channel][what].append(i)
        loads[channel] += size
    first, second = (Arrival(tuple(sorted(f["data"])), tuple(sorted(f["weights"])), before) for f in found)
    return first, second
