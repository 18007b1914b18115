"""The control stream of a layer: what a host writes to registers so that the array moves and multiplies.

Data and weights go from DDR through a shim and a memory tile to cores, results back. Memory tiles hold rings, cores two
buffers of each kind, so that all of it runs at once; locks count what is full and what is free. `modes` says which channels
are used for what.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

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
from sparsec.backends.aie.lower.geometry import VECTOR_BYTES, Image
from sparsec.backends.aie.lower.modes import CORE_DATA, CORE_WEIGHTS, DATA_IN, RESULTS_OUT, WEIGHTS_IN, Mode, Stream
from sparsec.backends.aie.lower.plan import LayerPlan
from sparsec.backends.aie.lower.tiling import RING
from sparsec.backends.aie.registers import CORE_ENABLE, DMAS, Direction, Grid, Kind, Tile, register_address
from sparsec.backends.aie.switch import route
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
_S2MM, _MM2S = Direction.S2MM, Direction.MM2S
_REPEATS = 256  # that one task does


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

    def change(self, mode: Mode) -> Iterator[Operation]:
        """Make the circuits of a mode; what the one before needed and this one does not is switched off."""
        if mode == self._mode:
            return
        writes = route(self.grid, mode.flows()).writes()
        wanted = {(w.address, w.mask if isinstance(w, MaskWrite) else 0): w for w in writes}
        for key, old in self._writes.items():
            if key not in wanted:
                yield Write(old.address, 0) if isinstance(old, Write) else MaskWrite(old.address, 0, old.mask)
        yield from (w for key, w in wanted.items() if self._writes.get(key) != w)
        self._mode, self._writes = mode, wanted


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

    def operations(self, turn: int) -> Iterator[Operation]:
        """Memory tiles first, then cores, then shims; then wait for the results in DDR. `turn` counts the layers before."""
        for c in range(self.grid.columns):
            yield from self._memory_data(Tile(c, 1))
            yield from self._memory_weights(Tile(c, 1))
            yield from self._memory_results(Tile(c, 1))
        for c in range(self.grid.columns):
            for r in range(self.grid.core_rows):
                yield from self._core(c, r, turn)
        for c in range(self.grid.columns):
            yield from self._shim_results(Tile(c, 0))
            yield from self._shim_weights(Tile(c, 0))
            yield from self._shim_data(Tile(c, 0))
        for c in range(self.grid.columns):
            if self._patterns(c):
                yield Sync(Tile(c, 0), _S2MM, 0)

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
        numbers = [self._take(tile, channel) for _ in parts]
        for i, (made, argument, offset) in enumerate(parts):
            following = numbers[i + 1] if i + 1 < len(numbers) else None
            yield write_descriptor(self.grid, tile, numbers[i], replace(made, next=following))
            if argument is not None:
                yield Patch(register_address(self.grid, tile, f"bd{numbers[i]}.1"), argument, offset)
        while repeat:
            times = min(repeat, _REPEATS)
            repeat -= times
            yield start(self.grid, tile, direction, channel, Task(numbers[0], times, token and not repeat))

    def _take(self, tile: Tile, channel: int) -> int:
        made = self._descriptors.setdefault(tile, _Descriptors(self.grid, tile, self.plan.layer.node))
        return made.take(channel)

    def _core(self, column: int, row: int, turn: int) -> Iterator[Operation]:
        p, t, core, tile = self.plan, self.tiling, self.plan.core, self.mode.core(column, row)
        _, part = self.mode.parts(column, row)
        chunks, blocks = len(p.chunks[part]), len(t.output_blocks(part))
        slots = max(1, chunks) if t.kept else 2
        told = Parameters(
            tiles=t.tiles,
            chunks=chunks,
            vectors=self.share.tiles,
            data=core.data,
            data_sum=2 * core.data + core.data_step * (t.buffers - 1),
            weights=core.weights,
            weights_size=t.chunk_bytes,
            weights_end=core.weights + slots * t.chunk_bytes,
            kept=int(t.kept),
            results=core.results,
            results_sum=2 * core.results + core.results_step,
            within=(VECTOR_BYTES,) * 3,
            partial=core.partial,
            data_buffers=t.buffers,
            weights_buffers=slots,
            results_buffers=2,
            bounds=self._bounds(),
        )
        at = core.parameters + turn % 2 * PARAMETER_BYTES
        yield BlockWrite(register_address(self.grid, tile, f"data+{at:#x}"), told.words())
        data = CoreDescriptor(
            core.data // 4,
            t.tile_bytes // 4,
            iteration=Iteration(core.data_step // 4, t.buffers) if t.buffers > 1 else Iteration(),
            acquire=Acquire(LOCKS.data_free),
            release=Release(LOCKS.data_full),
        )
        yield from self._chain(tile, _S2MM, CORE_DATA, [(data, None, 0)], t.tiles)
        weights = CoreDescriptor(
            core.weights // 4,
            t.chunk_bytes // 4,
            iteration=Iteration(t.chunk_bytes // 4, slots),
            acquire=Acquire(LOCKS.weights_free),
            release=Release(LOCKS.weights_full),
        )
        yield from self._chain(tile, _S2MM, CORE_WEIGHTS, [(weights, None, 0)], chunks * t.streamed)
        vector = VECTOR_BYTES // 4 * t.layer.result_size
        results = CoreDescriptor(
            core.results // 4,
            t.rows * self.share.lane * vector,
            (Dim(1, vector), Dim(vector, self.share.lane), Dim(vector * self.share.pitch)),
            iteration=Iteration(core.results_step // 4, 2),
            acquire=Acquire(LOCKS.results_full),
            release=Release(LOCKS.results_free),
        )
        yield from self._chain(tile, _MM2S, 0, [(results, None, 0)], blocks * t.tiles)
        yield write(self.grid, tile, f"lock{LOCKS.layer_full}", 1)

    def _bounds(self) -> tuple[int, int] | None:
        """The bounds of results as words of 4 bytes, where there are any."""
        low, high = self.tiling.layer.shifts.bounds
        return None if low is high is None else (0x01010101 * ((low or 0) % 256), 0x01010101 * ((high or 0) % 256))

    def _data_streams(self, column: int) -> Sequence[Stream]:
        return [s for s in self.mode.data() if s.memory.column == column]

    def _set(self, tile: Tile, locks: _Pair, free: int) -> Iterator[Operation]:
        """A ring that is empty."""
        yield write(self.grid, tile, f"lock{locks.full}", 0)
        yield write(self.grid, tile, f"lock{locks.free}", free)

    def _memory_data(self, tile: Tile) -> Iterator[Operation]:
        """Tiles from DDR into rings, and from there as vectors to the cores: planes of data, then the residual."""
        t, places = self.tiling, self.plan.memory[tile.column]
        ring = Iteration((t.source_bytes + t.residual_source_bytes) // 4, RING)
        arriving: list[tuple[Descriptor, int | None, int]] = []
        for i, stream in enumerate(self._data_streams(tile.column)):
            locks, base = _data_locks(i), OWN_WORDS + places.data[i] // 4
            yield from self._set(tile, locks, RING)
            full = Release(OWN_LOCKS + locks.full)
            residual = bool(t.residual_source_bytes)
            free = Acquire(OWN_LOCKS + locks.free)
            made = MemoryDescriptor(base, t.source_bytes // 4, iteration=ring, acquire=free, release=None if residual else full)
            arriving.append((made, None, 0))
            if residual:
                behind = base + t.source_bytes // 4
                arriving.append((MemoryDescriptor(behind, t.residual_source_bytes // 4, iteration=ring, release=full), None, 0))
            yield from self._send_data(tile, stream, base, ring, locks)
        yield from self._chain(tile, _S2MM, DATA_IN, arriving, t.tiles if arriving else 0)

    def _send_data(self, tile: Tile, stream: Stream, base: int, ring: Iteration, locks: _Pair) -> Iterator[Operation]:
        t, share, s = self.tiling, self.share, self.share.window.stride
        dims = (Dim(1, 2), Dim(2 * s * share.lane, 4), Dim(2 * s, share.pitch), Dim(2 * s * share.source_columns))
        leaving = [
            MemoryDescriptor(base + 2 * (i * share.source_columns + j), 8 * share.plane_vectors, dims, iteration=ring)
            for i, j in share.window.planes
        ]
        if t.residual_source_bytes:
            dims = (Dim(1, 2), Dim(2 * share.lane, 4), Dim(2, share.pitch), Dim(2 * share.residual_columns))
            length = t.layer.output_blocks * t.residual_stride // 4
            leaving.append(MemoryDescriptor(base + t.source_bytes // 4, length, dims, iteration=ring))
        leaving[0] = replace(leaving[0], acquire=Acquire(OWN_LOCKS + locks.full))
        leaving[-1] = replace(leaving[-1], release=Release(OWN_LOCKS + locks.free))
        yield from self._chain(tile, _MM2S, stream.channel, [(d, None, 0) for d in leaving], t.tiles)

    def _memory_weights(self, tile: Tile) -> Iterator[Operation]:
        """Chunks from DDR: all of them once, or through a ring where they are too many."""
        t, places = self.tiling, self.plan.memory[tile.column]
        streams = self.plan.weight_streams().get(tile, [])
        size = t.chunk_bytes // 4
        arriving: list[tuple[Descriptor, int | None, int]] = []
        for i, stream in enumerate(streams):
            locks, count = _weight_locks(i), len(self.plan.chunks[stream.part])
            base = OWN_WORDS + places.weights[i] // 4
            yield from self._set(tile, locks, places.slots)
            full, free = OWN_LOCKS + locks.full, OWN_LOCKS + locks.free
            if places.slots:
                ring = Iteration(size, places.slots)
                into = MemoryDescriptor(base, size, iteration=ring, acquire=Acquire(free), release=Release(full))
                out = MemoryDescriptor(base, size, iteration=ring, acquire=Acquire(full), release=Release(free))
                yield from self._chain(tile, _MM2S, stream.channel, [(out, None, 0)], count * t.streamed)
            else:
                into = MemoryDescriptor(base, count * size, release=Release(full))
                out = MemoryDescriptor(base, count * size)
                first = replace(out, acquire=Acquire(full))
                yield from self._chain(tile, _MM2S, stream.channel, [(first, None, 0)], 1)
                yield from self._chain(tile, _MM2S, stream.channel, [(out, None, 0)], t.streamed - 1)
            arriving.append((into, None, 0))
        count = len(self.plan.chunks[streams[0].part]) * t.streamed if streams and places.slots else 1
        yield from self._chain(tile, _S2MM, WEIGHTS_IN, arriving, count if arriving else 0)

    def _patterns(self, column: int) -> list[tuple[int, int, list[tuple[int, int]]]]:
        """Results that leave a column's memory tile: (first tile, tiles, the rows of cores and the output rows of each of
        their tiles), tile by tile; tiles without valid rows are left out."""
        t = self.tiling
        wanted = []
        for i in range(t.tiles):
            found = []
            for r in range(self.grid.core_rows):
                positions, channels = self.mode.parts(column, r)
                rows = min(t.rows, t.valid_rows(positions) - i * t.rows)
                if rows > 0 and t.output_blocks(channels):
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
            discarded = MemoryDescriptor(OWN_WORDS + places.discarded // 4, length, dims)
            yield from self._chain(tile, _S2MM, r, [(discarded, None, 0)], (t.tiles - valid) * blocks)
        for first, count, rows in self._patterns(tile.column):
            leaving = [self._leaving(tile, r, n, first) for r, n in rows]
            yield from self._chain(tile, _MM2S, RESULTS_OUT, [(d, None, 0) for d in leaving], count)

    def _leaving(self, tile: Tile, row: int, rows: int, first: int) -> MemoryDescriptor:
        """One tile's results of a core, on their way to the shim."""
        t, words, stored = self.tiling, 2 * self.traffic.y.size, self.tiling.stored_bytes // 4
        columns = words * self.traffic.y.columns
        blocks = len(t.output_blocks(self.mode.parts(tile.column, row)[1]))
        locks = _result_locks(row)
        return MemoryDescriptor(
            OWN_WORDS + self.plan.memory[tile.column].results[row] // 4,
            blocks * rows * columns,
            (Dim(1, columns), Dim(words * self.share.stored_columns, rows), Dim(stored)),
            iteration=Iteration(blocks * stored, t.result_ring, first % t.result_ring),
            acquire=Acquire(OWN_LOCKS + locks.full, blocks),
            release=Release(OWN_LOCKS + locks.free, blocks),
        )

    def _shim_results(self, tile: Tile) -> Iterator[Operation]:
        t = self.tiling
        patterns = self._patterns(tile.column)
        for n, (first, count, rows) in enumerate(patterns):
            parts = []
            for r, height in rows:
                positions, channels = self.mode.parts(tile.column, r)
                blocks = t.output_blocks(channels)
                row = positions * t.band + first * t.rows
                size = (len(blocks), height, self.traffic.y.columns)
                parts.append(self._image(self.traffic.y, (blocks[0], row, 0), size, t.rows, count))
            yield from self._chain(tile, _S2MM, 0, parts, count, token=n == len(patterns) - 1)

    def _shim_weights(self, tile: Tile) -> Iterator[Operation]:
        tiling, memory = self.tiling, Tile(tile.column, 1)
        by_tile = self.plan.weight_streams()
        if memory not in by_tile:
            return
        before = sum(len(self.plan.stream_order(t)) for t in by_tile if t < memory)
        chunks = len(self.plan.stream_order(memory))
        made = ShimDescriptor(0, chunks * tiling.chunk_bytes // 4)
        offset = self.traffic.weights + before * tiling.chunk_bytes
        times = tiling.streamed if self.plan.memory[tile.column].slots else 1
        yield from self._chain(tile, _MM2S, 1, [(made, WEIGHTS, offset)], times)

    def _shim_data(self, tile: Tile) -> Iterator[Operation]:
        t, share, s = self.tiling, self.share, self.share.window.stride
        parts: list[tuple[Descriptor, int | None, int]] = []
        for stream in self._data_streams(tile.column):
            row = stream.part * t.band
            above, left = share.window.pads
            size = (share.blocks, share.source_rows, share.source_columns)
            parts.append(self._image(self.traffic.x, (0, row * s - above, -left), size, t.rows * s, t.tiles))
            if self.traffic.residual is not None:
                size = (t.layer.output_blocks, share.residual_rows, share.residual_columns)
                parts.append(self._image(self.traffic.residual, (0, row, 0), size, t.rows, t.tiles))
        yield from self._chain(tile, _MM2S, 0, parts, t.tiles if parts else 0)

    def _image(
        self, image: Image, first: tuple[int, int, int], size: tuple[int, int, int], step: int, count: int
    ) -> tuple[Descriptor, int | None, int]:
        """A part of an image in DDR: `size` blocks, rows and columns from `first` on, `count` times, `step` rows apart."""
        blocks, rows, columns = size
        words = 2 * image.size
        dims = (Dim(1, words * columns), Dim(words * image.width, rows), Dim(words * image.width * image.height))
        made = ShimDescriptor(0, blocks * rows * columns * words, dims, iteration=Iteration(words * image.width * step, count))
        return made, ACTIVATIONS, image.at(*first)


def joined(parts: Iterable[Iterable[Operation]]) -> tuple[tuple[Operation, ...], tuple[int, ...]]:
    """All operations, and how many there are up to the end of each part."""
    operations: list[Operation] = []
    ends = []
    for part in parts:
        operations += part
        ends.append(len(operations))
    return tuple(operations), tuple(ends)
