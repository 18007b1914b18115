"""The plan of a layer: how it is cut and tiled, its chunks of weights, and what every memory holds while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise
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
_FEW_SLOTS = 8  # of a ring that is not made smaller so that the next layer's weights have room beside it
_DISCARDED_BYTES = 2048
_HALVED = 2  # columns at most that a stream comes from whose portions come in halves: each is a task of its sender
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


class What(Enum):
    """What memory tiles hold until it goes to cores."""

    DATA = "data"
    RESIDUAL = "residual"
    WEIGHTS = "weights"


@dataclass(frozen=True, slots=True)
class Portion:
    """What a memory tile holds of a stream at byte address `at`: `count` of the parts of a tile, or of the pages, from the
    `first` on."""

    stream: Stream
    first: int
    count: int
    at: int = 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """What comes through one shim channel: portions by their number in the column's memory tile. So many tiles of data and
    residual come `before` the weights, the rest behind them."""

    data: tuple[int, ...]
    residual: tuple[int, ...]
    weights: tuple[int, ...]
    before: int


@dataclass(frozen=True, slots=True)
class MemoryPlaces:
    """What one memory tile holds. Portions of data and residual are rings of `ring` tiles, those of weights rings of `slots`
    pages, or whole (0).

    Byte addresses: results are a ring for each core of the column, tiles behind the last valid row go to `discarded`, which is
    in one place for all layers: they may come when the next one's data do.
    """

    data: tuple[Portion, ...]
    residual: tuple[Portion, ...]
    weights: tuple[Portion, ...]
    ring: int
    slots: int
    results: tuple[int, ...]
    discarded: int
    arrivals: tuple[Arrival, Arrival]

    def portions(self, what: What) -> tuple[Portion, ...]:
        """Those of one kind."""
        return {What.DATA: self.data, What.RESIDUAL: self.residual, What.WEIGHTS: self.weights}[what]


@dataclass(frozen=True)
class LayerPlan:
    """A layer on the array. `pages` of weights are by part of the channels; `memory` by column."""

    tiling: Tiling
    pages: tuple[tuple[bytes, ...], ...]
    core: CorePlaces
    memory: tuple[MemoryPlaces, ...]

    @property
    def layer(self) -> ConvLayer:
        """What is computed."""
        return self.tiling.layer

    @property
    def weights(self) -> bytes:
        """All pages as memory tiles read them, channel by channel."""
        arrivals = [(c, i) for c in range(len(self.memory)) for i in range(2)]
        return b"".join(b"".join(self.stream_order(c, i)) for c, i in arrivals)

    def stream_order(self, column: int, arrival: int) -> list[bytes]:
        """The pages that come through one channel of a shim in their order: in turns where streams are of one length."""
        places = self.memory[column]
        portions = [places.weights[i] for i in places.arrivals[arrival].weights]
        found = [self.pages[p.stream.part][p.first : p.first + p.count] for p in portions]
        if len({len(f) for f in found}) > 1:
            return [page for pages in found for page in pages]
        size = 1 if places.slots or not found else granule(len(found[0]))
        return [page for at in range(0, len(found[0]) if found else 0, size) for f in found for page in f[at : at + size]]

    def sources(self, what: What, stream: Stream) -> list[tuple[int, int]]:
        """Where a stream's portions are, in their order: columns, and numbers in these."""
        found = [(c, i) for c, m in enumerate(self.memory) for i, p in enumerate(m.portions(what)) if p.stream is stream]
        return sorted(found, key=lambda at: self.memory[at[0]].portions(what)[at[1]].first)


def granule(pages: int) -> int:
    """Pages that come together into a memory tile which holds all of them."""
    return next(n for n in range(-(-pages // _GRANULES), pages + 1) if pages % n == 0)


def _portions(arriving: Sequence[tuple[Stream, int, int]], total: int, *, halves: bool = False) -> list[Portion]:
    """What comes through a column's shim, of streams of `total` parts each. With `halves`, in two where it is all of one stream,
    so that both channels bring it."""
    found = []
    for s, i, n in arriving:
        first, end = total * i // n, total * (i + 1) // n
        if end - first > 1 and halves and len(arriving) == 1 and n <= _HALVED:
            half = (first + end + 1) // 2
            return [Portion(s, first, half - first), Portion(s, half, end - half)]
        if end > first:
            found.append(Portion(s, first, end - first))
    return found


def _by_stream(portion: Portion, pieces: int) -> list[Portion]:
    """A portion of the residual, cut where one stream's pieces end and the next one's begin."""
    end = portion.first + portion.count
    cuts = [n for n in range(portion.first, end + 1) if n in (portion.first, end) or n % pieces == 0]
    return [replace(portion, first=a, count=b - a) for a, b in pairwise(cuts)]


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
    pages = []
    for part in range(tiling.mode.channel_parts):
        blocks = tiling.output_blocks(part)
        made = [_chunks(tiling, b, own, core, kinds) for own, b in enumerate(blocks)]
        each = max(1, len(made) // tiling.groups)
        units = [(at, split) for at in range(0, len(made), each) for split in range(tiling.splits)]
        pages.append(_pages(tiling, part, [c for at, split in units for block in made[at : at + each] for c in block[split]]))
    return LayerPlan(tiling, tuple(pages), core, in_memory(machine, tiling))


def _pages(tiling: Tiling, part: int, chunks: Sequence[Chunk]) -> tuple[bytes, ...]:
    """The chunks of a part of the channels, packed, as pages."""
    layout, size = tiling.layout(part), tiling.page_bytes[part]
    stream = bytearray(layout.pages * size)
    for chunk, at, spot in zip(chunks, layout.starts, layout.spots, strict=True):
        made = chunk.pack(tiling.share.steps, tiling.chunk_start, spot)
        stream[at : at + len(made)] = made
    return tuple(bytes(stream[at : at + size]) for at in range(0, len(stream), size))


def _chunks(tiling: Tiling, block: int, own: int, core: CorePlaces, kinds: Sequence[Kind]) -> list[list[Chunk]]:
    """The nonzero blocks of 8 output channels, which are a core's `own`-th, by part of the input channels."""
    layer = tiling.layer
    bias = np.zeros(8, layer.shifts.bias.dtype)
    there = layer.shifts.bias[8 * block : 8 * block + 8]
    bias[: there.size] = there
    residual = core.residual + own * tiling.residual_stride if layer.residual else 0
    group = max(1, tiling.most_results // tiling.groups)
    further = own % group * tiling.partial_bytes if tiling.splits > 1 else 0
    partial = core.partial[0] + further if tiling.in_parts else 0
    wanted = iter(_kinds(tiling, block))
    begins = dict(zip(kinds, entries(tuple(kinds)), strict=True))
    found: list[list[Chunk]] = []
    for split in range(tiling.splits):
        offsets, whole = _blocks(tiling, block, split)
        found.append([])
        for i in range(tiling.pieces(block)):
            part, kind = slice(i * tiling.chunk_blocks, (i + 1) * tiling.chunk_blocks), next(wanted)
            sums = partial if kind.starts_partial or kind.ends_partial else 0  # sums of one chunk have no other place
            found[-1].append(Chunk(bias, whole[part], offsets[part], begins[kind], residual, sums, kind.starts_partial))
    return found


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
    gap = weights_gap(machine, tiling) or 0
    spare = size - sum(demand.values()) - gap
    weights = demand["data"] + demand["residual"] + gap
    results = weights + demand["weights"]
    gap = -(results + demand["results"]) % bank
    at = results + demand["results"] + (gap if gap <= spare else 0)
    return CorePlaces(
        0,
        tiling.unit_bytes,
        tiling.buffers * tiling.unit_bytes,
        demand["data"] + tiling.residual_lead * bool(tiling.layer.residual),
        weights,
        results + tiling.result_quad,  # the first store of a chunk lands before its results
        tiling.result_bytes + tiling.result_quad,
        _partial(tiling, at, bank, size - at - demand["parameters"]),
        size - demand["parameters"],
    )


def weights_gap(machine: Machine, tiling: Tiling) -> int | None:
    """Bytes in a core between data and weights, so that both are apart in banks; None where there is no room for that."""
    gap = tiling.gap_of(tiling.paging)
    return gap if gap <= machine.core.data_bytes - sum(tiling.core_demand.values()) else None


def _partial(tiling: Tiling, at: int, bank: int, room: int) -> tuple[int, int]:
    """Both halves of partial sums from `at` on, behind their gaps, a bank apart if there is room."""
    half = tiling.half_sums
    apart = max(half, bank) if max(half, bank) + half <= room else half
    return at + SUM_BYTES // 2, at + apart + SUM_BYTES // 2


def in_memory(machine: Machine, tiling: Tiling) -> tuple[MemoryPlaces, ...]:
    """Rings and weights in the memory tiles, by column. FitError when they are too large.

    Streams of weights that come through several columns' shims are held whole: if that does not fit, they come through one.
    """
    if any(len(s.sources) > 1 for s in tiling.mode.weights()):
        try:
            return tuple(_in_memory(machine, tiling, column, spread=True) for column in range(machine.columns))
        except FitError:
            pass
    return tuple(_in_memory(machine, tiling, column, spread=False) for column in range(machine.columns))


def _in_memory(machine: Machine, tiling: Tiling, column: int, *, spread: bool) -> MemoryPlaces:
    mode, size = tiling.mode, machine.memory.data_bytes
    arriving = mode.arriving(column, weights=False)
    data = _portions(arriving, tiling.parts, halves=True)
    residual = _portions(arriving, tiling.residual_parts, halves=True)
    if mode.streams > 1:
        residual = [q for p in _portions(arriving, tiling.residual_parts) for q in _by_stream(p, tiling.residual_pieces)]
    streams = mode.arriving(column, weights=True, spread=spread)
    weights = [p for s in streams for p in _portions([s], tiling.pages(s[0].part))]
    rows = range(mode.grid.core_rows)
    tile = tiling.part_bytes * sum(p.count for p in data) + tiling.residual_part_bytes * sum(p.count for p in residual)
    rings = [tiling.result_ring * len(tiling.output_blocks(mode.parts(column, r)[1])) * tiling.stored_bytes for r in rows]
    room = size - sum(rings) - _DISCARDED_BYTES
    ring, slots = _rings(tiling, tile, weights, room, whole=spread or tiling.streamed > 1)
    arrivals = _arrivals(tiling, data, residual, weights, ring, slots)
    uneven = slots and any(len({weights[i].count for i in a.weights}) > 1 for a in arrivals)
    if not ring or uneven or (spread and slots):  # rings are filled in turns
        raise FitError(
            f"layer {tiling.layer.node!r} in a memory tile",
            demand=f"{min(RING, tiling.tiles) * tile:,} bytes of data, {sum(rings):,} of results, "
            f"at least {2 * sum(tiling.page_bytes[p.stream.part] for p in weights):,} of weights",
            bound=f"{size:,} bytes",
            remedy="use an array with more columns",
            node=tiling.layer.node,
        )
    at = 0
    placed: list[list[Portion]] = []
    for portions, each in ((data, ring * tiling.part_bytes), (residual, ring * tiling.residual_part_bytes), (weights, 0)):
        placed.append([])
        for p in portions:
            placed[-1].append(replace(p, at=at))
            at += (slots or p.count) * tiling.page_bytes[p.stream.part] if portions is weights else p.count * each
    ring_at = tuple(at + sum(rings[:r]) for r in rows)
    parts = tuple(map(tuple, placed))
    return MemoryPlaces(parts[0], parts[1], parts[2], ring, slots, ring_at, size - _DISCARDED_BYTES, arrivals)


def _rings(tiling: Tiling, data: int, weights: Sequence[Portion], room: int, *, whole: bool) -> tuple[int, int]:
    """Tiles of data (0: none fit) and pages of a stream of weights (0: all of them) that a memory tile holds at a time.

    Weights that cores ask for again are held whole if at all possible, then data of all tiles, so that they can come before
    the weights through the same channel.
    """
    page = sum(tiling.page_bytes[p.stream.part] for p in weights)
    every = sum(p.count * tiling.page_bytes[p.stream.part] for p in weights)
    fewest = min(RING, tiling.tiles)
    parts = tiling.parts + tiling.residual_parts
    all_tiles = tiling.tiles if tiling.tiles * parts <= LOCK_MAXIMUM else fewest
    if tiling.mode.streams > 1:  # none of these streams knows when the others have sent a tile
        if all_tiles < tiling.tiles:
            return 0, 0
        fewest = all_tiles
    most = max((p.count for p in weights), default=0)
    if fewest * tiling.parts > LOCK_MAXIMUM:
        return 0, 0
    for ring in dict.fromkeys((all_tiles, fewest)):
        if ring * data + every <= room and whole:
            return ring, 0
    for ring in dict.fromkeys((all_tiles, fewest)):
        left = (room - ring * data) // page if weights else 0
        slots = min(max(left // 2, min(left, _FEW_SLOTS)), WEIGHT_SLOTS, most)
        if ring * data <= room and (not weights or slots >= min(2, most)):
            return ring, slots
    return 0, 0


def _arrivals(
    tiling: Tiling, data: Sequence[Portion], residual: Sequence[Portion], weights: Sequence[Portion], ring: int, slots: int
) -> tuple[Arrival, Arrival]:
    """Portions by shim channel. Data and weights share channels where the first of them never wait for the second.

    Weights that have places of their own come behind the first tile of data, others behind all tiles if these have.
    """
    held = ring >= tiling.tiles
    before = 1 if tiling.kept or not slots else tiling.tiles
    again = tiling.streamed if slots else 1
    sizes = {(What.DATA, i): p.count * tiling.tiles * tiling.part_bytes for i, p in enumerate(data)}
    sizes |= {(What.RESIDUAL, i): p.count * tiling.tiles * tiling.residual_part_bytes for i, p in enumerate(residual)}
    sizes |= {(What.WEIGHTS, i): p.count * again * tiling.page_bytes[p.stream.part] for i, p in enumerate(weights)}
    found: list[dict[What, list[int]]] = [{what: [] for what in What} for _ in range(2)]
    loads = [0, 0]
    apart = not held and slots > 0 and not tiling.kept
    for (what, i), size in sorted(sizes.items(), key=lambda s: -s[1]):
        channel = int(what is What.WEIGHTS) if apart else loads.index(min(loads))
        found[channel][what].append(i)
        loads[channel] += size
    first, second = (
        Arrival(tuple(sorted(f[What.DATA])), tuple(sorted(f[What.RESIDUAL])), tuple(sorted(f[What.WEIGHTS])), before)
        for f in found
    )
    return first, second
