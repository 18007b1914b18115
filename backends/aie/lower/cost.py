"""What a way to compute a layer takes, by a model of each resource.

Tiles are a pipeline: cores multiply one tile while the next one's data arrive and the last one's results leave. So a layer
takes what its slowest resource takes for all tiles, and one tile through everything else. The model counts what the streams
will carry; the simulator is the judge of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsec.backends.aie.core.program import LEAST_BLOCKS
from sparsec.backends.aie.lower.core_places import weights_gap
from sparsec.backends.aie.lower.geometry import BFLOAT16, BYTE
from sparsec.backends.aie.lower.leaving import Leaving
from sparsec.backends.aie.lower.memory_places import MemoryPlaces, Portion, in_memory
from sparsec.backends.aie.lower.modes import ARRIVING
from sparsec.backends.aie.lower.tiling import CONFLICTS, TRANSFER, Tiling
from sparsec.backends.aie.machine import Machine

Array = np.ndarray[Any, Any]

_CHUNK, _TILE = 32, 40  # cycles of a core for a chunk and a unit of data beside products
_MEETING = 1.08  # times as long a chain takes whose weights come meanwhile: what stops one core stops the others, too
_CHAIN_CHUNK = 27  # the same for a chunk of a chain of cores
_SPARSE_CHUNK = 40  # the same for a chunk of sparse products
_BIASES, _RESIDUAL = 2, 8  # cycles of 4 vectors and 16 channels beside sparse products
_FIRST_PART, _MIDDLE_PART, _LAST_PART = 21, 32, 16  # where these are parts of sums
_ADDING = 9  # more for a chunk with a residual: its code, and a lock
_SCALING = 18  # cycles of 4 vectors beside products to scale them
_GOING_ON = {BYTE: 6, BFLOAT16: 2}  # cycles of 4 vectors beside products to fetch partial sums
_FETCHED = {BYTE: 6, BFLOAT16: 5}  # for a residual, behind what the cascade brings
_ARRIVING, _CONFIGURED = 300, 1500  # until data begin to come from DDR, and until the last core can take them
_HERE = 150  # until data that are in memory tiles begin to come
_MANY_DESCRIPTORS, _LATE = 12, 3500  # from so many on a layer often begins late, by so many cycles
USED, BEGUN = 0.95, 2000  # of the time of a layer, to bring weights of the next one, and cycles until it begins to
TAIL = 4000.0  # for that, of a channel that is busy all the time, between its last words and the end of a layer
_RESULTS = 25  # cycles of a core's channel from the results of one chunk to the next
_PIECES = 4  # that a residual comes in, some of which wait until cores have added that of the tile before
_JITTER = 0.03  # of what is less busy, that the busiest waits for


@dataclass(frozen=True, slots=True)
class Arriving:
    """Cycles of a channel from DDR: for a tile's data and residual, and for the weights, of which a memory tile has `room` for
    some at a time; `sent` is what comes until all cores have what they begin with. It is `busy` for that share of the layer, as
    rings do not hold all of its weights."""

    data: float
    residual: float
    weights: float
    room: float
    sent: float
    busy: float = 0.0


@dataclass(frozen=True, slots=True)
class Context:
    """What a layer finds when it begins: its data in memory tiles (`here`), the residual that is `added`, and what each channel
    may have brought of its weights by then, in cycles. It `follows` another layer: it is configured by then. The share of its
    results that leaves for DDR, which nobody waits for if they stay for the next layer as well. It may be configured `late`,
    when the layer before has finished. Its first tiles may come to memory tiles before that (`ready`), and its first unit to
    cores, so many cycles of it at most (`soon`)."""

    here: bool = False
    added: bool = False
    early: float = 0.0
    follows: bool = False
    leaves: float = 1.0
    stays: bool = False
    late: bool = False
    ready: bool = False
    soon: float = 0.0


ALONE = Context()


@dataclass(frozen=True, slots=True)
class Estimate:
    """Cycles of all tiles by resource (`channels` that are alike are one), what comes before and after, and the cycles of data
    that cores cannot use to compute. Of data the first unit counts as what comes before, and cores compute `behind_last`: the
    difference; `meanwhile` is what may come while cores compute the first tile. A `ring` of weights, or all of them if they are
    `kept`, may come before cores begin. `first_residual` is the share of a tile's residual that comes first; a tile's may come
    behind its data or, in so many cycles, `beside` them, with the weights, of which a `page` takes so many."""

    compute: float
    data: float
    weights: float
    results: float
    channels: tuple[Arriving, ...]
    ddr_out: float
    tiles: int
    unit: float
    late: float
    last: float
    block: float
    waiting: float
    first_waits: bool
    ring: float
    kept: bool
    behind_last: float
    meanwhile: float
    first_residual: float
    beside: float
    page: float

    def ddr_in(self, context: Context = ALONE) -> float:
        """Cycles of the channel from DDR that has most to bring while the layer runs."""
        return max((self.tiles * self._brought(c, context) + self._weights(c, context) for c in self.channels), default=0.0)

    def first(self, context: Context = ALONE) -> float:
        """Cycles until cores multiply."""
        sent = max((self._begun(c, context) for c in self.channels), default=0.0)
        wanted = [self._brought(c, context) for c in self.channels if c.weights and not min(context.early, c.room)]
        arriving = max([sent, *wanted])
        begun = _ARRIVING + arriving if arriving else _HERE
        return (
            (begun if context.follows else max(_CONFIGURED, begun))
            + max(0.0, self.unit - context.soon)
            + max(self.late, _LATE * context.late)
            + self.behind(context)
        )

    def behind(self, context: Context = ALONE) -> float:
        """Cycles for which the first tile waits for weights."""
        if not self.first_waits:
            return 0.0
        return max([0.0, *(self._weights(c, context) - self.compute / self.tiles for c in self.channels)])

    def spare(self, context: Context, cycles: float) -> float:
        """Cycles that a channel has for the weights of the next layer, if this one takes `cycles`; none of a layer that begins
        late, whose own words come last."""
        busy = cycles * max((c.busy for c in self.channels), default=0.0)
        return 0.0 if context.late else max(TAIL, USED * cycles - max(BEGUN, busy, self.ddr_in(context)))

    def _begun(self, c: Arriving, context: Context) -> float:
        """Cycles of a channel until all cores have what they begin with, and may end it: the first of the residual, too."""
        if context.ready:
            return 0.0
        return (0.0 if context.here else c.sent) + (0.0 if context.added else c.residual * self.first_residual)

    @staticmethod
    def _brought(c: Arriving, context: Context) -> float:
        return (0.0 if context.added else c.residual) + (0.0 if context.here else c.data)

    @staticmethod
    def _weights(c: Arriving, context: Context) -> float:
        return c.weights - min(context.early, c.room)

    @property
    def bound_by(self) -> str:
        """The slowest resource."""
        parts = {
            "compute": self.compute,
            "data stream": self.data,
            "weights stream": self.weights,
            "results stream": self.results,
            "DDR reads": self.ddr_in(),
            "DDR writes": self.ddr_out,
        }
        return max(parts, key=lambda k: parts[k])

    @property
    def cycles(self) -> float:
        """Of the layer by itself."""
        return self.within(ALONE)

    def within(self, context: Context) -> float:
        """Cycles of the layer, from the end of the one before."""
        first, ddr_in = self.first(context), self.ddr_in(context)
        usual = self.first(replace(context, ready=False, soon=0.0))  # data go on coming from DDR all the same
        begun = min(self.ring + self.beside, first - _HERE + (self.page + self.beside if context.soon else 0.0))
        weights = max(0.0, self.weights + self.tiles * self.beside - begun)
        wanted = self.weights + self.beside - begun  # by the first tile
        taken = max(0.0, wanted - self.compute / self.tiles) if self.kept and self.tiles > 1 else 0.0
        cores = max(self.compute + taken, weights) + self.waiting
        if self.tiles > 1 and any(self._brought(c, context) for c in self.channels):
            ddr_in += self.compute / self.tiles  # of the last tile
        waited = max(0.0, self.compute / self.tiles + taken - self.meanwhile) if self.tiles > 1 else 0.0
        data = self.data + waited + self.behind_last
        moved = max(data, weights, self.results, self.ddr_out * context.leaves, ddr_in - usual)
        last = self.block + (0.0 if context.stays else self.last * context.leaves)
        return first + max(cores, moved) + _JITTER * (first + min(cores, moved)) + last


def estimate(machine: Machine, t: Tiling, memory: Sequence[MemoryPlaces] | None = None) -> Estimate:
    """What a tiling takes, whose places in memory tiles may be known."""
    memory = in_memory(machine, t) if memory is None else memory
    mode, word = t.mode, machine.streams.bytes_per_cycle
    residual, beside = _behind(machine, t), _beside(machine, t)
    compute = compute_cycles(t) * (1 if weights_gap(machine, t) is not None else CONFLICTS)
    unit = first = _unit(machine, t)
    data = _data(machine, t)
    pages = t.streamed * max(n * (size / word + TRANSFER) for size, n in zip(t.paging.sizes, t.paging.counts, strict=True))
    if t.mode.weights_first:
        first, data, pages = unit + pages, data + pages, 0.0
    block = _results(machine, t)
    arriving, leaving, held = list[Arriving](), 0.0, True
    for column, places in enumerate(memory):
        again = t.streamed if places.slots else 1
        for arrival in places.arrivals:
            tile = sum(places.data[i].count for i in arrival.data) * t.part_bytes
            more = sum(places.residual[i].count for i in arrival.residual) * t.residual_part_bytes
            sizes = [(places.weights[i].count, t.page_bytes[places.weights[i].stream.part]) for i in arrival.weights]
            weights = sum(count * size for count, size in sizes)
            room = 0 if t.layer.computed else sum((places.slots or count) * size for count, size in sizes)
            sent = _until_begun(t, [places.data[i] for i in arrival.data])
            busy = 1 - min((places.slots / (again * count) for count, _ in sizes), default=1.0) if places.slots else 0.0
            arriving.append(Arriving(tile / word, more / word, again * weights / word, room / word, sent / word, max(0.0, busy)))
            held = held and not places.slots
        for i in range(mode.leaving(column)):
            out = 0
            for r in mode.leave_through(column, i):
                positions, part = mode.parts(column, r)
                out += len(t.output_blocks(part)) * 8 * t.layer.result_size * t.width * t.valid_rows(positions)
            leaving = max(leaving, out / word)
    made = compute / t.splits if t.tiles == 1 else compute / t.tiles  # while so much computes, results of a tile leave
    behind = max(leaving / t.tiles / _turns(t), leaving / t.tiles - made)
    return Estimate(
        compute,
        data,
        pages,
        t.tiles * t.most_results * block,
        tuple(dict.fromkeys(arriving)),
        leaving,
        t.tiles,
        first,
        _LATE if explicit_descriptors(t) > _MANY_DESCRIPTORS else 0,
        behind,
        block,
        ((t.units - 1) * unit if t.buffers == 1 else 0.0) + (t.tiles * (residual + beside) if t.splits > 1 else 0.0),
        t.tiles > 1 and (t.kept or held),
        t.paging.bytes / word,
        t.kept,
        max(compute / t.units - residual, compute / t.units / _PIECES) - first,
        t.splits * unit + residual * (2 - 1 / _PIECES),
        1 / (max(1, t.residual_pieces if t.mode.residual_streams > 1 else t.residual_parts) if t.tiles == 1 else 1),
        beside,
        max(t.paging.sizes) / word,
    )


def _turns(t: Tiling) -> int:
    """In how many pieces the results of a tile leave through a channel."""
    leaving = Leaving(t)
    if t.tiles > 1:
        return leaving.pieces_of(0, len(t.mode.leave_through(0, 0)))
    patterns = leaving.patterns(0, 0)
    return leaving.parts(0, patterns[0]) if patterns else 1


def _until_begun(t: Tiling, portions: Sequence[Portion]) -> float:
    """Bytes that come through a channel, one portion of the data behind the other, up to the last that any core begins with, less
    those that cores get meanwhile: parts of a unit are sent as soon as they are there."""
    found, before, each = 0.0, 0, t.parts // t.splits
    for p in portions:
        begun = min(p.first + p.count, each) - p.first
        meanwhile = (begun - 1) * min(t.part_bytes, t.data_bytes / each)
        found = max(found, before + begun * t.part_bytes - meanwhile) if begun > 0 else found
        before += p.count * t.part_bytes
    return found


def at_least(machine: Machine, t: Tiling) -> float:
    """Cycles that a tiling takes at least, without a look at pages and memory tiles."""
    weights = t.streamed * t.least_stream + t.tiles * _beside(machine, t)
    data = _data(machine, t) + (weights if t.mode.weights_first else 0.0)
    moved = data, weights, t.tiles * t.most_results * _results(machine, t)
    return max(compute_cycles(t), *moved)


def _unit(machine: Machine, t: Tiling) -> float:
    """Cycles of a core's channel for a unit of data, and those of other positions that come with it."""
    return t.mode.together * (t.data_bytes / machine.streams.bytes_per_cycle + TRANSFER)


def _residual(machine: Machine, t: Tiling) -> float:
    """The same for a tile's residual, of all cores that share the stream."""
    if not t.layer.residual:
        return 0.0
    own = t.layer.output_blocks / t.mode.residual_streams
    return 4 * own * t.residual_words / machine.streams.bytes_per_cycle + TRANSFER * 6


def _behind(machine: Machine, t: Tiling) -> float:
    """The same if it comes behind the tile's data."""
    return 0.0 if t.mode.own else _residual(machine, t)


def _beside(machine: Machine, t: Tiling) -> float:
    """The same if it comes with weights."""
    return _residual(machine, t) if t.mode.own else 0.0


def _data(machine: Machine, t: Tiling) -> float:
    return t.units * _unit(machine, t) + t.tiles * _behind(machine, t)


def _results(machine: Machine, t: Tiling) -> float:
    """Cycles of a core's channel for 8 channels of a tile's results."""
    return t.rows * t.share.lane * 32 * t.layer.result_size / machine.streams.bytes_per_cycle + _RESULTS


def compute_cycles(t: Tiling) -> float:
    """Cycles of the core that has most to do."""
    if t.mode.chain > 1:
        return _chained_cycles(t)
    each = _sparse_chunks(t) if t.sparse else _dense_chunks(t)
    return t.units * _TILE + max(float(each[t.counts_of(part)].sum()) for part in range(t.mode.weight_parts))


def _dense_chunks(t: Tiling) -> Array:
    """Cycles of the chunks of each block of output channels, for all tiles."""
    size = t.layer.element.bytes
    counts, pieces = t.counts, t.all_pieces
    least = np.full(counts.shape, LEAST_BLOCKS[t.layer.element is BYTE] * pieces[:, None])
    least[:, 0] += LEAST_BLOCKS[False] - LEAST_BLOCKS[t.layer.element is BYTE]
    products = np.maximum(least, counts + counts % 2).sum(axis=1)
    chunks = t.splits * pieces
    if t.diagonal:  # in one of the parts
        products, chunks = counts.max(axis=1), pieces
    going_on = _GOING_ON[t.layer.element] * (chunks - 1) + _SCALING * (t.layer.shifts.scaling is not None)
    beside = _CHUNK * chunks + _ADDING * bool(t.layer.residual)
    each: Array = t.quads * (4 * size * products + going_on) + t.tiles * beside
    return each


def _sparse_chunks(t: Tiling) -> Array:
    """The same of each pair of blocks, of sparse products."""
    last = (_MIDDLE_PART if t.layer.wide else _LAST_PART) if t.splits > 1 else _FIRST_PART if t.layer.wide else _BIASES
    parts = last + (_FIRST_PART + _MIDDLE_PART * (t.splits - 2) if t.splits > 1 else 0)
    beside = _SPARSE_CHUNK * t.splits + _ADDING * bool(t.layer.residual)
    products = np.maximum(LEAST_BLOCKS[False], t.counts + t.counts % 2).sum(axis=1)
    each: Array = t.quads * (8 * products + parts + _RESIDUAL * bool(t.layer.residual)) + t.tiles * beside
    return each


def _chained_cycles(t: Tiling) -> float:
    """Cycles of a chain of cores: for each 8 output channels they wait for the one that has most to do."""
    size, residual = t.layer.element.bytes, bool(t.layer.residual)
    products = np.maximum(LEAST_BLOCKS[False], t.counts + t.counts % 2).max(axis=1)
    each = t.quads * (4 * size * products + _FETCHED[t.layer.element] * residual) + t.tiles * (_CHAIN_CHUNK + _ADDING * residual)
    begun = (t.mode.chain - 1) * 4 * size * float(products.max())
    most = float(np.bincount(np.arange(len(each)) % t.mode.channel_parts, each).max())
    return t.units * _TILE + begun + most * (1 if t.kept else _MEETING)


def last_unit(t: Tiling, compute: float) -> float:
    """Cycles of these, which a core computes, for the last unit of a layer."""
    parts = range(t.mode.position_parts)
    last = max(t.share.tiles if t.full_tiles(p) == t.tiles else t.last_vectors(p) for p in parts)
    return compute * last / t.quads / (t.splits * t.groups)


def explicit_descriptors(t: Tiling) -> int:
    """Descriptors of a memory tile for parts of data, where each takes its own."""
    streams = t.mode.column_streams
    if t.mode.streams > 1:  # one of them with even channels, one with odd ones
        return (len(t.share.planes) + 1) * (len(ARRIVING) if t.residual_in_turn else t.parts)
    if t.serves_all or (t.mode.own and t.tiles == 1):
        return 0
    return max(t.groups * len(t.share.planes), streams) * t.parts
