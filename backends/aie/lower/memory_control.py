"""The control of memory tiles for a layer: rings of data, weights and results, and what fills and empties them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sparsec.backends.aie.descriptor_forms import OWN_WORDS
from sparsec.backends.aie.descriptors import OWN_LOCKS, Acquire, Dim, Iteration, MemoryDescriptor, Release
from sparsec.backends.aie.lower.geometry import LANES
from sparsec.backends.aie.lower.modes import LEAVING, Stream
from sparsec.backends.aie.lower.plan import Arrival, data_streams, granule, weight_streams
from sparsec.backends.aie.lower.tile_control import OVER_EACH_OTHER, Pair, TileControl
from sparsec.backends.aie.lower.writer import MM2S, S2MM, Parts
from sparsec.backends.aie.registers import Tile
from sparsec.backends.aie.transaction import Operation, write


@dataclass(frozen=True, slots=True)
class _Ring:
    """Where parts of tiles lie: the first word, what changes from tile to tile, and locks."""

    base: int
    turns: Iteration
    locks: Pair


class MemoryControl(TileControl):
    """Makes the operations of memory tiles."""

    def _set(self, tile: Tile, locks: Pair, free: int) -> Iterator[Operation]:
        """A ring that is empty: nothing is full, as it was before the first layer and is after each."""
        yield write(self.grid, tile, f"lock{locks.free}", free)

    def empty(self, tile: Tile) -> Iterator[Operation]:
        """Rings that are empty, for what comes from DDR."""
        t, places = self.tiling, self.plan.memory[tile.column]
        for i in range(len(places.data)):
            if not self.links.here:
                yield from self._set(tile, self.data_locks(i), places.ring * (t.splits + t.residual_parts))
            elif t.residual_parts:
                yield from self._set(tile, self.residual_locks(i), places.ring * t.residual_parts)
        for i in range(len(places.weights)):
            yield from self._set(tile, self.weight_locks(i), places.slots)

    def begin(self, tile: Tile) -> Iterator[Operation]:
        """Data that are here may be sent to cores."""
        for i in range(len(self.plan.memory[tile.column].data) if self.links.here else 0):
            yield write(self.grid, tile, f"lock{self.data_locks(i).full}", self.tiling.tiles * self.tiling.splits)

    def data(self, tile: Tile, arrival: Arrival) -> Parts:
        """Units of a tile each into its place in the ring; only the residual where the data are here."""
        t, places = self.tiling, self.plan.memory[tile.column]
        arriving: Parts = []
        for i in arrival.data:
            ring, residual = self._data_ring(tile, i), self._residual_ring(tile, i)
            words = t.source_bytes // 4 // t.splits
            free, full = Acquire(OWN_LOCKS + ring.locks.free), Release(OWN_LOCKS + ring.locks.full)
            if t.in_turn and len(arrival.data) == 1 and not self.links.here:
                turns = Iteration(words, places.ring * t.splits)
                return [(MemoryDescriptor(ring.base, words, (), turns, free, full), None, 0)]
            for n in range(0 if self.links.here else t.splits):
                arriving.append((MemoryDescriptor(ring.base + n * words, words, (), ring.turns, free, full), None, 0))
            words = t.residual_source_bytes // 4 // max(1, t.residual_parts)
            free, full = Acquire(OWN_LOCKS + residual.locks.free), Release(OWN_LOCKS + residual.locks.full)
            for n in range(t.residual_parts):
                arriving.append((MemoryDescriptor(residual.base + n * words, words, (), residual.turns, free, full), None, 0))
        return arriving

    def _data_ring(self, tile: Tile, stream: int) -> _Ring:
        t, places = self.tiling, self.plan.memory[tile.column]
        base, locks = OWN_WORDS + places.data[stream] // 4, self.data_locks(stream)
        if self.links.here:
            return _Ring(base, Iteration(t.source_bytes // 4, t.tiles), locks)
        return _Ring(base, Iteration((t.source_bytes + t.residual_source_bytes) // 4, places.ring), locks)

    def _residual_ring(self, tile: Tile, stream: int) -> _Ring:
        t, places = self.tiling, self.plan.memory[tile.column]
        if self.links.here:
            turns = Iteration(max(1, t.residual_source_bytes // 4), places.ring)
            return _Ring(OWN_WORDS + places.residual[stream] // 4, turns, self.residual_locks(stream))
        ring = self._data_ring(tile, stream)
        return replace(ring, base=ring.base + t.source_bytes // 4)

    def weights(self, tile: Tile, channel: int, arrival: Arrival) -> Iterator[Operation]:
        """Chunks from DDR: through a ring, or some at a time until all are there."""
        t, places = self.tiling, self.plan.memory[tile.column]
        streams, size = weight_streams(t, tile.column), t.chunk_bytes // 4
        found: list[tuple[MemoryDescriptor, int]] = []  # and how often
        for i in arrival.weights:
            locks, count = self.weight_locks(i), t.chunks(streams[i].part)
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
            yield from self.writer.chain(tile, S2MM, channel, [(d, None, 0) for d, _ in found], found[0][1])
            return
        for made, times in found:
            yield from self.writer.chain(tile, S2MM, channel, [(made, None, 0)], times)

    def send(self, tile: Tile) -> Iterator[Operation]:
        """Data as vectors, and weights, from a memory tile to the cores."""
        t, places = self.tiling, self.plan.memory[tile.column]
        for i, stream in enumerate(data_streams(t, tile.column)):
            yield from self._send_data(tile, stream, self._data_ring(tile, i), self._residual_ring(tile, i))
        for i, stream in enumerate(weight_streams(t, tile.column)):
            yield from self._send_weights(tile, stream, OWN_WORDS + places.weights[i] // 4, self.weight_locks(i))

    def _send_data(self, tile: Tile, stream: Stream, ring: _Ring, residual: _Ring) -> Iterator[Operation]:
        """Planes of data, of one part of the input channels after the other, then the residual."""
        t, share, source, s = self.tiling, self.share, self.tiling.source, self.share.window.stride
        planes = len(share.window.planes)
        words = t.layer.element.position_words
        row = words * source.source_columns
        dims = (Dim(1, words), Dim(words * s * share.lane, LANES), Dim(words * s, share.pitch), Dim(share.row_step * row))
        size, parts, turns = share.blocks * source.source_rows * row, t.splits, ring.turns
        if t.in_turn:
            turns, parts = Iteration(size, turns.wrap * t.splits), 1
        leaving = [
            MemoryDescriptor(ring.base + part * size + i * row + words * j, LANES * words * share.plane_vectors, dims, turns)
            for part in range(parts)
            for i, j in share.window.planes
        ]
        full, free = Acquire(OWN_LOCKS + ring.locks.full), Release(OWN_LOCKS + ring.locks.free)
        leaving *= t.groups
        for i in range(0, parts * planes, planes):
            leaving[i] = replace(leaving[i], acquire=full)
            leaving[-i - 1] = replace(leaving[-i - 1], release=free)
        full, free = Acquire(OWN_LOCKS + residual.locks.full), Release(OWN_LOCKS + residual.locks.free)
        dims = (
            Dim(1, words),
            Dim(words * share.lane, LANES),
            Dim(words, share.result_pitch),
            Dim(words * share.residual_columns),
        )
        for n in range(t.residual_parts):
            length = t.layer.output_blocks * t.residual_words // t.residual_parts
            at = residual.base + n * (t.residual_source_bytes // 4 // t.residual_parts)
            leaving.append(MemoryDescriptor(at, length, dims, residual.turns, full, free))
        yield from self.writer.chain(tile, MM2S, stream.channel, [(d, None, 0) for d in leaving], t.tiles * t.splits // parts)

    def _send_weights(self, tile: Tile, stream: Stream, base: int, locks: Pair) -> Iterator[Operation]:
        t, places, size = self.tiling, self.plan.memory[tile.column], self.tiling.chunk_bytes // 4
        count = t.chunks(stream.part)
        full, free = OWN_LOCKS + locks.full, OWN_LOCKS + locks.free
        if places.slots:
            ring = Iteration(size, places.slots)
            out = MemoryDescriptor(base, size, iteration=ring, acquire=Acquire(full), release=Release(free))
            yield from self.writer.chain(tile, MM2S, stream.channel, [(out, None, 0)], count * t.streamed)
            return
        some = granule(count)
        first = MemoryDescriptor(base, some * size, iteration=Iteration(some * size, count // some), acquire=Acquire(full))
        yield from self.writer.chain(tile, MM2S, stream.channel, [(first, None, 0)], count // some)
        yield from self.writer.chain(
            tile, MM2S, stream.channel, [(MemoryDescriptor(base, count * size), None, 0)], t.streamed - 1
        )

    def results(self, tile: Tile) -> Iterator[Operation]:
        """Results from cores into rings, as images, or to where they stay; and out of memory to the shim."""
        t = self.tiling
        for r in range(self.grid.core_rows):
            positions, channels = self.mode.parts(tile.column, r)
            blocks = len(t.output_blocks(channels))
            if not blocks:
                continue
            if self.links.stays:
                yield from self.writer.chain(tile, S2MM, r, [(self._staying(tile, r), None, 0)], t.tiles * blocks, token=True)
                continue
            locks, valid = self.result_locks(r), -(-t.valid_rows(positions) // t.rows)
            yield from self._set(tile, locks, t.result_ring * blocks)
            turns = Iteration(t.stored_bytes // 4, t.result_ring * blocks)
            free, full = Acquire(OWN_LOCKS + locks.free), Release(OWN_LOCKS + locks.full)
            kept = self._taken(self.plan.memory[tile.column].results[r], turns, free, full)
            yield from self.writer.chain(tile, S2MM, r, [(kept, None, 0)], valid * blocks)
            discarded = MemoryDescriptor(OWN_WORDS + self.plan.memory[tile.column].discarded // 4, kept.length, OVER_EACH_OTHER)
            yield from self.writer.chain(tile, S2MM, r, [(discarded, None, 0)], (t.tiles - valid) * blocks)
        for i, channel in enumerate(LEAVING if self.links.leaves else ()):
            patterns = self.leaving.patterns(tile.column, i)
            for first, count, rows in patterns:
                leaving = [
                    self._leaving(tile, r, n, first, own) for r, n, own in self.leaving.together(tile.column, patterns, rows)
                ]
                yield from self.writer.chain(tile, MM2S, channel, [(d, None, 0) for d in leaving], count)

    def _staying(self, tile: Tile, row: int) -> MemoryDescriptor:
        """Results of a core, of all tiles, among those of other cores: blocks of channels that are theirs lie between."""
        t = self.tiling
        blocks = len(t.output_blocks(self.mode.parts(tile.column, row)[1]))
        step = self.mode.channel_parts if blocks > 1 else t.layer.output_blocks
        turns = Iteration(step * t.stored_bytes // 4, blocks * t.tiles)
        full = Release(OWN_LOCKS + self.result_locks(row).full) if self.links.leaves else None
        return self._taken(self.plan.memory[tile.column].results[row], turns, None, full)

    def _taken(self, base: int, turns: Iteration, free: Acquire | None, full: Release | None) -> MemoryDescriptor:
        """Vectors of results of 8 channels of a tile, as an image."""
        t, words = self.tiling, 2 * self.tiling.layer.result_size
        lane = self.share.lane
        dims = (Dim(1, words), Dim(words * lane, 4), Dim(words, lane), Dim(words * self.share.stored_columns))
        return MemoryDescriptor(OWN_WORDS + base // 4, t.rows * lane * 4 * words, dims, turns, free, full)

    def _leaving(self, tile: Tile, row: int, rows: int, first: int, blocks: range) -> MemoryDescriptor:
        """Some of one tile's results of a core, on their way to the shim."""
        t, words, stored = self.tiling, 2 * self.traffic.y.size, self.tiling.stored_bytes // 4
        columns = words * self.traffic.y.columns
        every = t.output_blocks(self.mode.parts(tile.column, row)[1])
        locks, stays = self.result_locks(row), self.links.stays
        apart = stored * (every.step if stays else 1)
        tile_words = t.layer.output_blocks * stored if stays else len(every) * stored
        ring = t.tiles if stays else t.result_ring
        return MemoryDescriptor(
            OWN_WORDS + self.plan.memory[tile.column].results[row] // 4 + every.index(blocks[0]) * apart,
            len(blocks) * rows * columns,
            (Dim(1, columns), Dim(words * self.share.stored_columns, rows), Dim(apart)),
            iteration=Iteration(tile_words, ring, first % ring),
            acquire=Acquire(OWN_LOCKS + locks.full, len(blocks)),
            release=None if stays else Release(OWN_LOCKS + locks.free, len(blocks)),
        )
