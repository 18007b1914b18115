"""The control stream of a layer: what a host writes to registers so that the array moves and multiplies.

Data and weights go from DDR through a shim and a memory tile to cores, results back. Memory tiles hold rings, cores two
buffers of each kind, so that all of it runs at once; locks count what is full and what is free. `modes` says which channels
are used for what.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np

from sparsec.backends.aie.core.program import LOCKS, PARAMETER_BYTES, Parameters
from sparsec.backends.aie.descriptor_forms import OWN_WORDS
from sparsec.backends.aie.descriptors import (
    OWN_LOCKS,
    Acquire,
    CoreDescriptor,
    Descriptor,
    Dim,
    Iteration,
    MemoryDescriptor,
    Release,
    ShimDescriptor,
)
from sparsec.backends.aie.lower.geometry import BFLOAT16, BLOCK, LANES, Image
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.modes import ARRIVING, CORE_DATA, CORE_WEIGHTS, LEAVING, Mode, Stream
from sparsec.backends.aie.lower.plan import Arrival, LayerPlan, data_streams, granule, weight_streams
from sparsec.backends.aie.registers import CORE_ENABLE, DMAS, Direction, Grid, Kind, Tile, register_address
from sparsec.backends.aie.switch import Routing, route
from sparsec.backends.aie.transaction import (
    BlockWrite,
    MaskWrite,
    Operation,
    Patch,
    Sync,
    Task,
    Write,
    start,
    write,
    write_descriptor,
)
from sparsec.compiler.errors import FitError

WEIGHTS, ACTIVATIONS = 0, 1  # the program's arguments
_Parts = list[tuple[Descriptor, int | None, int]]  # descriptors; for a shim the argument and offset of the base
_S2MM, _MM2S = Direction.S2MM, Direction.MM2S
_Pattern = tuple[int, int, list[tuple[int, int]]]
_LEAVING_PARTS = 5  # descriptors for the results that leave through a channel, if so many do
_CORE_DATA = 14  # descriptors of a core for data
_REPEATS = 256  # that one task does
_OVER_EACH_OTHER = (Dim(1, 8), Dim(1, 255), Dim(1))  # words that nobody needs: 2,040 of them in 262
_SKIPPED = 8 * 255 * 8  # of them for one descriptor of a core


@dataclass(frozen=True, slots=True)
class _Pair:
    """The locks of a ring: of full and of free places."""

    full: int
    free: int


def _data_locks(stream: int) -> _Pair:
    return _Pair(2 * stream, 2 * stream + 1)


def _weight_locks(stream: int) -> _Pair:
    return _Pair(8 + 2 * stream, 9 + 2 * stream)


def _result_locks(row: int) -> _Pair:
    return _Pair(16 + 2 * row, 17 + 2 * row)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Where a layer's tensors are in the arguments: images, and the byte offset of the layer's weights."""

    x: Image
    y: Image
    residual: Image | None
    weights: int

    @staticmethod
    def of(layer: ConvLayer, images: Mapping[str, Image], weights: int) -> Traffic:
        """A layer's images, or its channels' parts of them."""
        first, (read, made) = layer.first_block, layer.channels
        residual = images[layer.residual].part(first, made) if layer.residual else None
        return Traffic(images[layer.x].part(first, read), images[layer.y].part(first, made), residual, weights)


def enable(grid: Grid) -> Iterator[Operation]:
    """Start all cores."""
    for tile in grid.cores():
        yield write(grid, tile, "core.control", CORE_ENABLE.put(1))


class Circuits:
    """The circuits that the switches make, and the writes that change them."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._mode: Mode | None = None
        self._writes: Mapping[tuple[int, int], Write | MaskWrite] = {}  # by address and mask

    def change(self, mode: Mode) -> tuple[list[Operation], list[Operation]]:
        """Make the circuits of a mode: the writes that data and weights need to come from DDR, and the rest. What the mode before
        needed and this one does not is switched off."""
        if mode == self._mode:
            return [], []
        routing = route(self.grid, mode.flows())
        shims = tuple(r for r in routing.routes if self.grid.kind(r.flow.source.tile) is Kind.SHIM)
        near = {_key(w) for w in Routing(self.grid, shims).writes()}
        wanted = {_key(w): w for w in routing.writes()}
        made: list[Write | MaskWrite] = []
        for key, old in self._writes.items():
            if key not in wanted:
                made.append(Write(old.address, 0) if isinstance(old, Write) else MaskWrite(old.address, 0, old.mask))
        changed = [w for key, w in wanted.items() if self._writes.get(key) != w]
        early = [w for w in changed if _key(w) in near]
        again = self._mode is not None and bool(early)  # then circuits of the mode before may be in the way
        self._mode, self._writes = mode, wanted
        if again:
            return _merged([*made, *changed]), []
        return _merged(early), _merged([*made, *(w for w in changed if _key(w) not in near)])


def _merged(writes: Iterable[Write | MaskWrite]) -> list[Operation]:
    """The same writes with neighbouring registers in one, which takes fewer words."""
    found: list[Operation] = []
    for w in sorted(writes, key=lambda w: w.address):
        last = found[-1] if found else None
        if isinstance(w, Write) and isinstance(last, Write) and w.address == last.address + 4:
            found[-1] = BlockWrite(last.address, (last.value, w.value))
        elif isinstance(w, Write) and isinstance(last, BlockWrite) and w.address == last.address + 4 * len(last.values):
            found[-1] = BlockWrite(last.address, (*last.values, w.value))
        else:
            found.append(w)
    return found


def _key(w: Write | MaskWrite) -> tuple[int, int]:
    return w.address, w.mask if isinstance(w, MaskWrite) else 0


@dataclass
class _Descriptors:
    """Gives out the numbers of a tile's descriptors."""

    grid: Grid
    tile: Tile
    node: str
    used: Counter[int] = field(default_factory=Counter)

    def take(self, channel: int) -> int:
        """A descriptor that a channel can run: in a memory tile, even and odd channels have half of them each."""
        kind = self.grid.kind(self.tile)
        halves = 2 if kind is Kind.MEMORY else 1
        each, half = DMAS[kind].descriptors // halves, channel % halves
        if self.used[half] == each:
            raise FitError(
                f"layer {self.node!r} in {kind.value} tile {self.tile}",
                demand=f"more than {each} descriptors",
                bound=f"{each} for its {'even and odd channels each' if halves == 2 else 'channels'}",
                remedy="cut the layer in another way",
                node=self.node,
            )
        self.used[half] += 1
        return half * each + self.used[half] - 1


class LayerControl:
    """Makes the operations of one layer."""

    def __init__(self, grid: Grid, plan: LayerPlan, traffic: Traffic) -> None:
        self.grid, self.plan, self.traffic = grid, plan, traffic
        self.tiling, self.share, self.mode = plan.tiling, plan.tiling.share, plan.tiling.mode
        self._descriptors: dict[Tile, _Descriptors] = {}

    def arrive(self) -> Iterator[Operation]:
        """Let data and weights come from DDR into memory tiles: needs the circuits of these."""
        for c in range(self.grid.columns):
            yield from self._arrive(c)

    def compute(self, turn: int) -> Iterator[Operation]:
        """Cores and what moves to and from them, then wait for the results in DDR. `turn` counts the layers before."""
        for c in range(self.grid.columns):
            yield from self._leave_memory(Tile(c, 1))
        for c in range(self.grid.columns):
            for r in range(self.grid.core_rows):
                yield from self._core(c, r, turn)
        for c in range(self.grid.columns):
            yield from self._memory_results(Tile(c, 1))
            yield from self._shim_results(Tile(c, 0))
        for i in range(len(LEAVING)):
            wanted = [bool(self._patterns(c, i)) for c in range(self.grid.columns)]
            for there, group in groupby(range(self.grid.columns), key=wanted.__getitem__):
                columns = list(group)
                if there:
                    yield Sync(Tile(columns[0], 0), _S2MM, i, columns=len(columns))

    def _chain(
        self,
        tile: Tile,
        direction: Direction,
        channel: int,
        parts: Sequence[tuple[Descriptor, int | None, int]],
        repeat: int,
        *,
        token: bool = False,
    ) -> Iterator[Operation]:
        """Descriptors one after the other, the whole chain `repeat` times. A part is a descriptor, and for a shim the
        argument and offset of its base."""
        if not repeat:
            return
        first = yield from self._write(tile, channel, parts)
        yield from self._start(tile, direction, channel, first, repeat, token=token)

    def _write(
        self, tile: Tile, channel: int, parts: Sequence[tuple[Descriptor, int | None, int]]
    ) -> Generator[Operation, None, int]:
        """Write a chain; returns the number of its first descriptor."""
        numbers = [self._take(tile, channel) for _ in parts]
        for i, (made, argument, offset) in enumerate(parts):
            following = numbers[i + 1] if i + 1 < len(numbers) else None
            yield write_descriptor(self.grid, tile, numbers[i], replace(made, next=following))
            if argument is not None:
                yield Patch(register_address(self.grid, tile, f"bd{numbers[i]}.1"), argument, offset)
        return numbers[0]

    def _start(
        self, tile: Tile, direction: Direction, channel: int, first: int, repeat: int, *, token: bool = False
    ) -> Iterator[Operation]:
        while repeat:
            times = min(repeat, _REPEATS)
            repeat -= times
            yield start(self.grid, tile, direction, channel, Task(first, times, token and not repeat))

    def _take(self, tile: Tile, channel: int) -> int:
        made = self._descriptors.setdefault(tile, _Descriptors(self.grid, tile, self.plan.layer.node))
        return made.take(channel)

    def _core(self, column: int, row: int, turn: int) -> Iterator[Operation]:
        p, t, core, tile = self.plan, self.tiling, self.plan.core, self.mode.core(column, row)
        _, part = self.mode.parts(column, row)
        chunks, blocks = len(p.chunks[part]), len(t.output_blocks(part))
        slots = max(1, chunks) if t.kept else 2
        told = Parameters(
            units=t.units,
            vectors=self.share.tiles,
            data=core.data,
            data_sum=2 * core.data + core.data_step * (t.buffers - 1),
            results=core.results - t.result_quad,
            results_sum=2 * (core.results - t.result_quad) + core.results_step,
            awaited=t.units // t.tiles * t.streamed,
            kept=t.units // t.tiles * (t.tiles - 1) if t.kept else 0,
            within=self.share.steps.registers,
            chunks=t.unit_chunks(part),
            weights=core.weights,
            weights_size=t.chunk_bytes,
            weights_end=core.weights + slots * t.chunk_bytes,
            shift=t.layer.shifts.shift,
            added_shift=t.layer.shifts.residual_shift,
            blocks=t.chunk_start,
            halves=core.partial[1] - core.partial[0],
            data_buffers=t.buffers,
            weights_buffers=slots,
            results_buffers=2,
            residual_buffers=blocks if t.layer.residual else 0,
            bounds=self._bounds(),
        )
        at = core.parameters + turn % 2 * PARAMETER_BYTES
        yield BlockWrite(register_address(self.grid, tile, f"data+{at:#x}"), told.words())
        yield from self._core_data(tile, part)
        weights = CoreDescriptor(
            core.weights // 4,
            t.chunk_bytes // 4,
            iteration=Iteration(t.chunk_bytes // 4, slots),
            acquire=Acquire(LOCKS.weights_free),
            release=Release(LOCKS.weights_full),
        )
        yield from self._chain(tile, _S2MM, CORE_WEIGHTS, [(weights, None, 0)], chunks * t.streamed)
        vector = LANES * BLOCK * t.layer.result_size // 4
        results = CoreDescriptor(
            core.results // 4,
            t.rows * self.share.lane * vector,
            (Dim(1, vector), Dim(vector, self.share.lane), Dim(vector * self.share.result_pitch)),
            iteration=Iteration(core.results_step // 4, 2),
            acquire=Acquire(LOCKS.results_full),
            release=Release(LOCKS.results_free),
        )
        yield from self._chain(tile, _MM2S, 0, [(results, None, 0)], blocks * t.tiles)
        yield write(self.grid, tile, f"lock{LOCKS.layer_full}", 1)

    def _bounds(self) -> tuple[int, int] | None:
        """The bounds of results as words of 4 bytes, or of a float32, where there are any."""
        low, high = self.tiling.layer.shifts.bounds
        if low is high is None:
            return None
        if self.tiling.layer.element is BFLOAT16:
            first, second = np.array([low or 0, high or 0], np.float32).view(np.uint32).tolist()
            return first, second
        return 0x01010101 * (int(low or 0) % 256), 0x01010101 * (int(high or 0) % 256)

    def _core_data(self, tile: Tile, part: int) -> Iterator[Operation]:
        """Units of data in turns into the buffers; behind a tile's units the residual of the core's channels."""
        t, core = self.tiling, self.plan.core
        step = core.data_step // 4
        free, full = Acquire(LOCKS.data_free), Release(LOCKS.data_full)
        made = CoreDescriptor(core.data // 4, t.data_bytes // 4, acquire=free, release=full)
        if t.layer.residual is None:
            turns = replace(made, iteration=_turns(0, 1, step, t.buffers))
            yield from self._chain(tile, _S2MM, CORE_DATA, [(turns, None, 0)], t.units)
            return
        behind = [replace(made, **_buffer(made.base, i, t.splits, step, t.buffers)) for i in range(t.splits)]
        own, words = t.output_blocks(part), t.residual_stride // 4
        first = own[0] if own else t.layer.output_blocks
        before, after = self._skip(first * words), self._skip((t.layer.output_blocks - first - len(own)) * words)
        parts = max(1, min(4, len(own), _CORE_DATA - len(behind) - len(before) - len(after)))
        some = [own[len(own) * i // parts : len(own) * (i + 1) // parts] for i in range(parts)]
        kept = [
            CoreDescriptor(
                core.residual // 4 + (blocks[0] - own[0]) * words,
                len(blocks) * words,
                acquire=Acquire(LOCKS.residual_free, len(blocks)),
                release=Release(LOCKS.residual_full, len(blocks)),
            )
            for blocks in some
            if blocks
        ]
        yield from self._chain(tile, _S2MM, CORE_DATA, [(d, None, 0) for d in (*behind, *before, *kept, *after)], t.tiles)

    def _skip(self, words: int) -> list[CoreDescriptor]:
        """Take words that the core does not need: over each other, into a place that nothing reads."""
        found = []
        while words:
            taken = min(words, _SKIPPED)
            words -= taken
            found.append(CoreDescriptor(self.plan.core.skipped // 4, taken, _OVER_EACH_OTHER))
        return found

    def _set(self, tile: Tile, locks: _Pair, free: int) -> Iterator[Operation]:
        """A ring that is empty: nothing is full, as it was before the first layer and is after each."""
        yield write(self.grid, tile, f"lock{locks.free}", free)

    def _arrive(self, column: int) -> Iterator[Operation]:
        """From DDR through both channels of a column's shim into rings, or to where weights are whole."""
        memory, places = Tile(column, 1), self.plan.memory[column]
        for i in range(len(places.data)):
            yield from self._set(memory, _data_locks(i), places.ring * (self.tiling.splits + self.tiling.residual_parts))
        for i in range(len(places.weights)):
            yield from self._set(memory, _weight_locks(i), places.slots)
        for i, arrival in enumerate(places.arrivals):
            yield from self._arrive_through(column, i, arrival)

    def _arrive_through(self, column: int, channel: int, arrival: Arrival) -> Iterator[Operation]:
        """The first tiles of data, weights, then the rest of data."""
        ends = (Tile(column, 1), _S2MM, ARRIVING[channel]), (Tile(column, 0), _MM2S, channel)
        before = min(arrival.before, self.tiling.tiles)
        tasks = []
        for (tile, direction, number), parts in zip(ends, self._data_parts(column, arrival), strict=True):
            if parts:
                first = yield from self._write(tile, number, parts)
                tasks.append((tile, direction, number, first))
        for task in tasks:
            yield from self._start(*task, before)
        yield from self._memory_weights(Tile(column, 1), ARRIVING[channel], arrival)
        yield from self._shim_weights(Tile(column, 0), channel, arrival)
        for task in tasks:
            yield from self._start(*task, self.tiling.tiles - before)

    def _data_parts(self, column: int, arrival: Arrival) -> tuple[_Parts, _Parts]:
        """Tiles of data, each with its residual behind it: into the rings of a memory tile, and out of DDR."""
        return self._memory_data(Tile(column, 1), arrival), self._shim_data(Tile(column, 0), arrival)

    def _memory_data(self, tile: Tile, arrival: Arrival) -> _Parts:
        """Units of a tile each into its place in the ring."""
        t, places = self.tiling, self.plan.memory[tile.column]
        ring = Iteration((t.source_bytes + t.residual_source_bytes) // 4, places.ring)
        arriving: _Parts = []
        for i in arrival.data:
            locks, base = _data_locks(i), OWN_WORDS + places.data[i] // 4
            free, full = Acquire(OWN_LOCKS + locks.free), Release(OWN_LOCKS + locks.full)
            words = t.source_bytes // 4 // t.splits
            made = [MemoryDescriptor(base + n * words, words, (), ring, free, full) for n in range(t.splits)]
            behind = base + t.source_bytes // 4
            words = t.residual_source_bytes // 4 // max(1, t.residual_parts)
            made += [MemoryDescriptor(behind + n * words, words, (), ring, free, full) for n in range(t.residual_parts)]
            arriving += [(d, None, 0) for d in made]
        return arriving

    def _memory_weights(self, tile: Tile, channel: int, arrival: Arrival) -> Iterator[Operation]:
        """Chunks from DDR: through a ring, or some at a time until all are there."""
        t, places = self.tiling, self.plan.memory[tile.column]
        streams, size = weight_streams(t, tile.column), t.chunk_bytes // 4
        found: list[tuple[MemoryDescriptor, int]] = []  # and how often
        for i in arrival.weights:
            locks, count = _weight_locks(i), t.chunks(streams[i].part)
            base, full = OWN_WORDS + places.weights[i] // 4, Release(OWN_LOCKS + locks.full)
            if places.slots:
                free = Acquire(OWN_LOCKS + locks.free)
                ring = Iteration(size, places.slots)
                found.append((MemoryDescriptor(base, size, iteration=ring, acquire=free, release=full), count * t.streamed))
            else:
                some = granule(count) * size
                rest = Iteration(some, count // granule(count))
                found.append((MemoryDescriptor(base, some, iteration=rest, release=full), rest.wrap))
        if len({times for _, times in found}) == 1:
            yield from self._chain(tile, _S2MM, channel, [(d, None, 0) for d, _ in found], found[0][1])
            return
        for made, times in found:
            yield from self._chain(tile, _S2MM, channel, [(made, None, 0)], times)

    def _leave_memory(self, tile: Tile) -> Iterator[Operation]:
        """Data as vectors, and weights, from a memory tile to the cores."""
        t, places = self.tiling, self.plan.memory[tile.column]
        ring = Iteration((t.source_bytes + t.residual_source_bytes) // 4, places.ring)
        for i, stream in enumerate(data_streams(t, tile.column)):
            yield from self._send_data(tile, stream, OWN_WORDS + places.data[i] // 4, ring, _data_locks(i))
        for i, stream in enumerate(weight_streams(t, tile.column)):
            yield from self._send_weights(tile, stream, OWN_WORDS + places.weights[i] // 4, _weight_locks(i))

    def _send_data(self, tile: Tile, stream: Stream, base: int, ring: Iteration, locks: _Pair) -> Iterator[Operation]:
        """Planes of data, of one part of the input channels after the other, then the residual."""
        t, share, source, s = self.tiling, self.share, self.tiling.source, self.share.window.stride
        words = t.layer.element.position_words
        row = words * source.source_columns
        dims = (Dim(1, words), Dim(words * s * share.lane, LANES), Dim(words * s, share.pitch), Dim(s * row))
        leaving = [
            MemoryDescriptor(
                base + part * share.blocks * source.source_rows * row + i * row + words * j,
                LANES * words * share.plane_vectors,
                dims,
                iteration=ring,
            )
            for part in range(t.splits)
            for i, j in share.window.planes
        ]
        full, free = Acquire(OWN_LOCKS + locks.full), Release(OWN_LOCKS + locks.free)
        planes = len(share.window.planes)
        leaving *= t.groups
        for i in range(0, t.splits * planes, planes):
            leaving[i] = replace(leaving[i], acquire=full)
            leaving[-i - 1] = replace(leaving[-i - 1], release=free)
        behind = base + t.source_bytes // 4
        dims = (
            Dim(1, words),
            Dim(words * share.lane, LANES),
            Dim(words, share.result_pitch),
            Dim(words * share.residual_columns),
        )
        for n in range(t.residual_parts):
            length = t.layer.output_blocks * t.residual_stride // 4 // t.residual_parts
            at = behind + n * (t.residual_source_bytes // 4 // t.residual_parts)
            leaving.append(MemoryDescriptor(at, length, dims, ring, full, free))
        yield from self._chain(tile, _MM2S, stream.channel, [(d, None, 0) for d in leaving], t.tiles)

    def _send_weights(self, tile: Tile, stream: Stream, base: int, locks: _Pair) -> Iterator[Operation]:
        t, places, size = self.tiling, self.plan.memory[tile.column], self.tiling.chunk_bytes // 4
        count = t.chunks(stream.part)
        full, free = OWN_LOCKS + locks.full, OWN_LOCKS + locks.free
        if places.slots:
            ring = Iteration(size, places.slots)
            out = MemoryDescriptor(base, size, iteration=ring, acquire=Acquire(full), release=Release(free))
            yield from self._chain(tile, _MM2S, stream.channel, [(out, None, 0)], count * t.streamed)
            return
        some = granule(count)
        first = MemoryDescriptor(base, some * size, iteration=Iteration(some * size, count // some), acquire=Acquire(full))
        yield from self._chain(tile, _MM2S, stream.channel, [(first, None, 0)], count // some)
        yield from self._chain(tile, _MM2S, stream.channel, [(MemoryDescriptor(base, count * size), None, 0)], t.streamed - 1)

    def _patterns(self, column: int, leaving: int) -> list[_Pattern]:
        """Results that leave a column's memory tile through one channel: (first tile, tiles, the rows of cores and the output
        rows of each of their tiles), tile by tile; tiles without valid rows are left out."""
        t, channels = self.tiling, self.mode.leaving(column)
        wanted = []
        for i in range(t.tiles):
            found = []
            for r in range(leaving, self.grid.core_rows, channels):
                positions, part = self.mode.parts(column, r)
                rows = min(t.rows, t.valid_rows(positions) - i * t.rows)
                if leaving < channels and rows > 0 and t.output_blocks(part):
                    found.append((r, rows))
            wanted.append((i, found))
        groups = [list(g) for _, g in groupby(wanted, key=lambda w: w[1])]
        return [(g[0][0], len(g), g[0][1]) for g in groups if g[0][1]]

    def _memory_results(self, tile: Tile) -> Iterator[Operation]:
        """Results from cores into rings, as images; and out of them to the shim."""
        t, share, places = self.tiling, self.share, self.plan.memory[tile.column]
        stored, words = t.stored_bytes // 4, 2 * t.layer.result_size
        dims = (Dim(1, words), Dim(words * share.lane, 4), Dim(words, share.lane), Dim(words * share.stored_columns))
        length = t.rows * share.lane * 4 * words
        for r in range(self.grid.core_rows):
            positions, channels = self.mode.parts(tile.column, r)
            blocks = len(t.output_blocks(channels))
            if not blocks:
                continue
            locks, valid = _result_locks(r), -(-t.valid_rows(positions) // t.rows)
            yield from self._set(tile, locks, t.result_ring * blocks)
            kept = MemoryDescriptor(
                OWN_WORDS + places.results[r] // 4,
                length,
                dims,
                iteration=Iteration(stored, t.result_ring * blocks),
                acquire=Acquire(OWN_LOCKS + locks.free),
                release=Release(OWN_LOCKS + locks.full),
            )
            yield from self._chain(tile, _S2MM, r, [(kept, None, 0)], valid * blocks)
            discarded = MemoryDescriptor(OWN_WORDS + places.discarded // 4, length, _OVER_EACH_OTHER)
            yield from self._chain(tile, _S2MM, r, [(discarded, None, 0)], (t.tiles - valid) * blocks)
        for i, channel in enumerate(LEAVING):
            patterns = self._patterns(tile.column, i)
            for first, count, rows in patterns:
                leaving = [self._leaving(tile, r, n, first, own) for r, n, own in self._together(tile.column, patterns, rows)]
                yield from self._chain(tile, _MM2S, channel, [(d, None, 0) for d in leaving], count)

    def _leaving(self, tile: Tile, row: int, rows: int, first: int, blocks: range) -> MemoryDescriptor:
        """Some of one tile's results of a core, on their way to the shim."""
        t, words, stored = self.tiling, 2 * self.traffic.y.size, self.tiling.stored_bytes // 4
        columns = words * self.traffic.y.columns
        every = t.output_blocks(self.mode.parts(tile.column, row)[1])
        locks = _result_locks(row)
        return MemoryDescriptor(
            OWN_WORDS + self.plan.memory[tile.column].results[row] // 4 + (blocks[0] - every[0]) * stored,
            len(blocks) * rows * columns,
            (Dim(1, columns), Dim(words * self.share.stored_columns, rows), Dim(stored)),
            iteration=Iteration(len(every) * stored, t.result_ring, first % t.result_ring),
            acquire=Acquire(OWN_LOCKS + locks.full, len(blocks)),
            release=Release(OWN_LOCKS + locks.free, len(blocks)),
        )

    def _together(
        self, column: int, patterns: Sequence[_Pattern], rows: Sequence[tuple[int, int]]
    ) -> list[tuple[int, int, range]]:
        """(row of cores, output rows, blocks of channels) of results of a tile, in the order in which they leave: some blocks
        of each core at a time, where there are descriptors for that."""
        most = sum(len(p[2]) for p in patterns)
        found = []
        parts = max(1, _LEAVING_PARTS // most)
        for part in range(parts):
            for r, height in rows:
                blocks = self.tiling.output_blocks(self.mode.parts(column, r)[1])
                own = blocks[len(blocks) * part // parts : len(blocks) * (part + 1) // parts]
                if own:
                    found.append((r, height, own))
        return found

    def _shim_results(self, tile: Tile) -> Iterator[Operation]:
        t = self.tiling
        for i in range(len(LEAVING)):
            patterns = self._patterns(tile.column, i)
            for n, (first, count, rows) in enumerate(patterns):
                parts = []
                for r, height, blocks in self._together(tile.column, patterns, rows):
                    row = self.mode.parts(tile.column, r)[0] * t.band + first * t.rows
                    size = (len(blocks), height, self.traffic.y.columns)
                    parts.append(self._image(self.traffic.y, (blocks[0], row, 0), size, t.rows, count))
                yield from self._chain(tile, _S2MM, i, parts, count, token=n == len(patterns) - 1)

    def _shim_weights(self, tile: Tile, channel: int, arrival: Arrival) -> Iterator[Operation]:
        plan, size = self.plan, self.tiling.chunk_bytes
        if not arrival.weights:
            return
        order = [(c, i) for c in range(self.grid.columns) for i in range(len(ARRIVING))]
        before = sum(len(plan.stream_order(c, i)) for c, i in order if (c, i) < (tile.column, channel))
        chunks = len(plan.stream_order(tile.column, channel))
        times = self.tiling.streamed if plan.memory[tile.column].slots else 1
        made = ShimDescriptor(0, chunks * size // 4)
        yield from self._chain(tile, _MM2S, channel, [(made, WEIGHTS, self.traffic.weights + before * size)], times)

    def _shim_data(self, tile: Tile, arrival: Arrival) -> _Parts:
        t, share, s = self.tiling, self.tiling.source, self.share.window.stride
        parts: _Parts = []
        streams = data_streams(t, tile.column)
        for i in arrival.data:
            row = streams[i].part * t.band
            above, left = share.window.pads
            size = (share.blocks, share.source_rows, share.source_columns)
            parts.append(self._image(self.traffic.x, (0, row * s - above, -left), size, t.rows * s, t.tiles))
            if self.traffic.residual is not None:
                size = (t.layer.output_blocks, share.residual_rows, share.residual_columns)
                parts.append(self._image(self.traffic.residual, (0, row, 0), size, t.rows, t.tiles))
        return parts

    def _image(
        self, image: Image, first: tuple[int, int, int], size: tuple[int, int, int], step: int, count: int
    ) -> tuple[Descriptor, int | None, int]:
        """A part of an image in DDR: `size` blocks, rows and columns from `first` on, `count` times, `step` rows apart."""
        blocks, rows, columns = size
        words = 2 * image.size
        dims = (Dim(1, words * columns), Dim(words * image.width, rows), Dim(words * image.width * image.height))
        made = ShimDescriptor(0, blocks * rows * columns * words, dims, iteration=Iteration(words * image.width * step, count))
        return made, ACTIVATIONS, image.at(*first)


def _turns(first: int, each: int, step: int, buffers: int) -> Iteration:
    """Which of the buffers, `step` words apart, are taken one after the other: number `first`, then always `each` later."""
    if buffers == 1 or each % buffers == 0:
        return Iteration()
    return Iteration(step, buffers, first % buffers)


def _buffer(base: int, first: int, each: int, step: int, buffers: int) -> dict[str, Any]:
    """Base and iteration of a descriptor that takes buffers in such turns."""
    turns = _turns(first, each, step, buffers)
    return {"base": base if turns.wrap > 1 else base + first % buffers * step, "iteration": turns}


def joined(parts: Iterable[Iterable[Operation]]) -> tuple[tuple[Operation, ...], tuple[int, ...]]:
    """All operations, and how many there are up to the end of each part."""
    operations: list[Operation] = []
    ends = []
    for part in parts:
        operations += part
        ends.append(len(operations))
    return tuple(operations), tuple(ends)
