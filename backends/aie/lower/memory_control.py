"""The control of memory tiles for a layer: rings of data, weights and results, and what comes from DDR and goes there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sparsec.backends.aie.descriptor_forms import OWN_WORDS
from sparsec.backends.aie.descriptors import OWN_LOCKS, Acquire, Dim, Iteration, MemoryDescriptor, Release
from sparsec.backends.aie.lower.chaining import behind, by_lanes, counted, counts_tiles, tiles_at_once
from sparsec.backends.aie.lower.cutting import LOCK_MAXIMUM
from sparsec.backends.aie.lower.geometry import LANES
from sparsec.backends.aie.lower.leaving import Pattern, Rows, every_of
from sparsec.backends.aie.lower.memory_places import Arrival, MemoryPlaces, What, granule
from sparsec.backends.aie.lower.modes import LEAVING
from sparsec.backends.aie.lower.tile_control import OVER_EACH_OTHER, Pair, TileControl
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.lower.writer import MM2S, S2MM, Parts
from sparsec.backends.aie.registers import Tile
from sparsec.backends.aie.transaction import Operation, write


def arrives_in_turn(tiling: Tiling, arrival: Arrival) -> bool:
    """Whether one descriptor takes all parts of all tiles that come through a channel."""
    return (tiling.in_turn or tiling.residual_in_turn) and len(arrival.data) == 1


class MemoryControl(TileControl):
    """Makes the operations of memory tiles."""

    def _set(self, tile: Tile, pair: Pair, free: int) -> Iterator[Operation]:
        """A ring that is empty: nothing is full, as it was before the first layer and is after each."""
        yield write(self.grid, tile, f"lock{pair.free}", free)

    def empty(self, tile: Tile) -> Iterator[Operation]:
        """Rings that are empty, for what comes from DDR."""
        places = self.plan.memory[tile.column]
        for what in What:
            for i, p in enumerate(places.portions(what)):
                free = places.slots if what is What.WEIGHTS else places.ring * p.count
                if not self.links.finds(what):
                    yield from self._set(tile, self.locks(places, what, i), free)
        for i in range(len(places.data) if self.mode.streams > 1 else 0):  # which may have been locks of free places
            for stream in range(1, self.mode.streams):
                yield write(self.grid, tile, f"lock{self.stream_lock(places, i, stream)}", 0)

    def begin(self, tile: Tile) -> Iterator[Operation]:
        """Data that are here may be sent to cores through several streams, which follow one another by locks."""
        places = self.plan.memory[tile.column]
        for i, p in enumerate(places.data if self.links.here and self.mode.streams > 1 else ()):
            yield write(self.grid, tile, f"lock{self.locks(places, What.DATA, i).full}", self.tiling.tiles * p.count)

    def data(self, tile: Tile, arrival: Arrival) -> Parts:
        """Parts of a tile each into its place in the ring, then those of its residual, if that does not move by itself."""
        t, places = self.tiling, self.plan.memory[tile.column]
        arriving: Parts = []
        for what, chosen, size in (
            (What.DATA, arrival.data, t.part_bytes // 4),
            (What.RESIDUAL, () if t.residual_in_turn else arrival.residual, t.residual_part_bytes // 4),
        ):
            for i in chosen:
                p, own = places.portions(what)[i], self.locks(places, what, i)
                base, ring, count = OWN_WORDS + p.at // 4, Iteration(p.count * size, places.ring), p.count
                if arrives_in_turn(t, arrival):
                    ring, count = Iteration(size, places.ring * p.count), 1
                made = MemoryDescriptor(base, size, (), ring, Acquire(OWN_LOCKS + own.free), Release(OWN_LOCKS + own.full))
                arriving += [(replace(made, base=base + n * size), None, 0) for n in range(count)]
        return arriving

    def residual(self, tile: Tile, arrival: Arrival) -> Parts:
        """A piece of each stream's residual that comes through a channel, where that moves by itself."""
        t, places = self.tiling, self.plan.memory[tile.column]
        size = t.residual_part_bytes // 4
        arriving: Parts = []
        for i in arrival.residual:
            p, own = places.residual[i], self.locks(places, What.RESIDUAL, i)
            turns, free, full = Iteration(size, p.count), Acquire(OWN_LOCKS + own.free), Release(OWN_LOCKS + own.full)
            made = MemoryDescriptor(OWN_WORDS + p.at // 4, size, (), turns, free, full)
            arriving.append((made, None, 0))
        return arriving

    def weights(self, tile: Tile, arrival: Arrival) -> list[tuple[Parts, int]]:
        """Pages from DDR: through a ring, or some at a time until all are there. Chains, and how often each of them runs."""
        t, places = self.tiling, self.plan.memory[tile.column]
        found: list[tuple[MemoryDescriptor, int]] = []  # and how often
        if t.layer.computed:
            return [chain for i in arrival.weights for chain in self._computed(places, i)]
        if even := self.evenly_apart(places, arrival):
            first, count = arrival.weights[0], len(arrival.weights)
            size, step = even
            dims = (Dim(1, size), Dim(step)) if step > size else ()
            full = Release(OWN_LOCKS + self.locks(places, What.WEIGHTS, first).full, count)
            made = MemoryDescriptor(OWN_WORDS + places.weights[first].at // 4, count * size, dims, release=full)
            return [([(made, None, 0)], 1)]
        for i in arrival.weights:
            own, count = self.locks(places, What.WEIGHTS, i), places.weights[i].count
            size = t.page_bytes[places.weights[i].stream.part] // 4
            base, full = OWN_WORDS + places.weights[i].at // 4, Release(OWN_LOCKS + own.full)
            if places.slots:
                free = Acquire(OWN_LOCKS + own.free)
                ring = Iteration(size, places.slots)
                found.append((MemoryDescriptor(base, size, iteration=ring, acquire=free, release=full), count * t.streamed))
            else:
                some = granule(count) * size
                rest = Iteration(some, count // granule(count))
                found.append((MemoryDescriptor(base, some, iteration=rest, release=full), rest.wrap))
        if len({times for _, times in found}) == 1:
            return [([(d, None, 0) for d, _ in found], found[0][1])]
        return [([(made, None, 0)], times) for made, times in found]

    def _computed(self, places: MemoryPlaces, number: int) -> list[tuple[Parts, int]]:
        """All frames of a stream at once, then blocks of a page at a time into a ring."""
        t, p, own = self.tiling, places.weights[number], self.locks(places, What.WEIGHTS, number)
        base, frames, blocks = OWN_WORDS + p.at // 4, p.count * t.frame_bytes // 4, t.blocks_bytes // 4
        free, full = Acquire(OWN_LOCKS + own.free), Release(OWN_LOCKS + own.full)
        ring = MemoryDescriptor(base + frames, blocks, (), Iteration(blocks, places.slots), free, full)
        return [([(MemoryDescriptor(base, frames), None, 0)], 1), ([(ring, None, 0)], p.count * t.streamed)]

    def results(self, tile: Tile) -> Iterator[Operation]:
        """Results from cores into rings, as images, or to where they stay; and out of memory to the shim."""
        t, places = self.tiling, self.plan.memory[tile.column]
        for r in range(self.grid.core_rows):
            positions, channels = self.mode.parts(tile.column, r)
            blocks = len(t.output_blocks(channels)) if self.mode.finishes(r) else 0
            if not blocks:
                continue
            if self.links.stays:
                if self.links.leaves and not (counted(t) or counts_tiles(t)):
                    yield from self._set(tile, self.result_locks(places, r), LOCK_MAXIMUM)
                for made, times, last in self._staying(tile, r):
                    yield from self.writer.chain(tile, S2MM, r, [(made, None, 0)], times, token=last)
                continue
            locks, valid = self.result_locks(places, r), -(-t.valid_rows(positions) // t.rows)
            yield from self._set(tile, locks, t.result_ring * blocks)
            turns = Iteration(t.stored_bytes // 4, t.result_ring * blocks)
            free, full = Acquire(OWN_LOCKS + locks.free), Release(OWN_LOCKS + locks.full)
            kept = self._taken(places.results[r], turns, free, full)
            yield from self.writer.chain(tile, S2MM, r, [(kept, None, 0)], valid * blocks)
            discarded = MemoryDescriptor(OWN_WORDS + places.discarded // 4, kept.length, OVER_EACH_OTHER)
            yield from self.writer.chain(tile, S2MM, r, [(discarded, None, 0)], (t.tiles - valid) * blocks)
        for i, channel in enumerate(LEAVING if self.links.leaves else ()):
            patterns = self.leaving.patterns(tile.column, i)
            for pattern in patterns:
                times, together = self.leaving.parts(tile.column, pattern), self.leaving.together(tile.column, patterns, pattern)
                leaving = [self._leaving(tile, pattern, rows, own, times) for rows, own in together]
                yield from self.writer.chain(tile, MM2S, channel, [(d, None, 0) for d in leaving], pattern.times * times)

    def tidy(self, tile: Tile) -> Iterator[Operation]:
        """Take back what tiles behind the last row that leaves have counted, where results stay and leave."""
        t, places = self.tiling, self.plan.memory[tile.column]
        for r in range(self.grid.core_rows if self.links.stays and self.links.leaves else 0):
            if self.mode.finishes(r) and behind(t, self.mode.parts(tile.column, r)[0]):
                yield write(self.grid, tile, f"lock{self.result_locks(places, r).full}", 0)

    def _staying(self, tile: Tile, row: int) -> Iterator[tuple[MemoryDescriptor, int, bool]]:
        """Results of a core among those of other cores, blocks of channels that are theirs lie between; of all tiles, or of as
        many as a descriptor counts. They lie in tiles as the next layer has them, which may be of one row. How often each
        descriptor runs, and whether it is the last."""
        t, places, laid = self.tiling, self.plan.memory[tile.column], self.links.laid
        block, whole = t.stored_bytes * laid // t.rows, t.layer.output_blocks * t.stored_bytes  # a tile that is laid, and a tile
        blocks = len(t.output_blocks(self.mode.parts(tile.column, row)[1]))
        step = self.mode.channel_parts if blocks > 1 else t.layer.output_blocks
        locks = self.result_locks(places, row)
        full = Release(OWN_LOCKS + locks.full) if self.links.leaves else None
        if self.links.leaves and counts_tiles(t):
            made = self._taken(places.results[row], Iteration(whole // 4, t.tiles), None, full)
            dims = (*made.dims[:-1], Dim(step * block // 4))
            yield replace(made, length=blocks * made.length, dims=dims), t.tiles, True
            return
        taking = self.links.leaves and not counted(t)
        if by_lanes(t, laid):
            yield self._by_lanes(places.results[row], blocks, step, locks, taking=taking), t.tiles, True
            return
        free = Acquire(OWN_LOCKS + locks.free) if taking else None
        once = tiles_at_once(t, laid)
        for first in range(0, t.tiles, once):
            tiles = range(first, min(first + once, t.tiles))
            turns = Iteration(step * block // 4, blocks * len(tiles))
            made = self._taken(places.results[row] + first * whole, turns, free, full)
            if laid != t.rows:
                made = replace(made, dims=(*made.dims[:-1], Dim(t.layer.output_blocks * block // 4)))
            yield made, len(tiles) * blocks, tiles.stop == t.tiles

    def _by_lanes(self, base: int, blocks: int, step: int, locks: Pair, *, taking: bool) -> MemoryDescriptor:
        """So many blocks of a tile's results, `step` apart, lane by lane, to tiles of one row: a row of all blocks behind the
        other. They are counted by block, and take places if `taking`."""
        t, line = self.tiling, 2 * self.tiling.layer.result_size * self.share.lane
        columns = LANES * line  # words of a row of a block
        return MemoryDescriptor(
            OWN_WORDS + base // 4,
            blocks * t.rows * columns,
            (Dim(1, line), Dim(t.layer.output_blocks * columns, t.rows), Dim(line, LANES), Dim(step * columns)),
            Iteration(t.layer.output_blocks * t.rows * columns, t.tiles),
            Acquire(OWN_LOCKS + locks.free, blocks) if taking else None,
            Release(OWN_LOCKS + locks.full, blocks) if self.links.leaves else None,
        )

    def _taken(self, base: int, turns: Iteration, free: Acquire | None, full: Release | None) -> MemoryDescriptor:
        """Vectors of results of 8 channels of a tile, as an image."""
        t, words = self.tiling, 2 * self.tiling.layer.result_size
        lane = self.share.lane
        dims = (Dim(1, words), Dim(words * lane, 4), Dim(words, lane), Dim(words * self.share.stored_columns))
        return MemoryDescriptor(OWN_WORDS + base // 4, t.rows * lane * 4 * words, dims, turns, free, full)

    def _leaving(self, tile: Tile, pattern: Pattern, rows: Rows, blocks: range, parts: int) -> MemoryDescriptor:
        """Some of one tile's results of a core, on their way to the shim; with `parts`, one of these after the other. The first
        of them takes what the lock has counted for tiles of which nothing leaves."""
        t, words, stored = self.tiling, 2 * self.traffic.y.size, self.tiling.stored_bytes // 4
        places = self.plan.memory[tile.column]
        columns, thin = self.traffic.y.columns, every_of(t)
        line = pitch = words * self.share.stored_columns  # of a row, and from one to the next
        every = t.output_blocks(self.mode.parts(tile.column, rows.row)[1])
        locks, stays = self.result_locks(places, rows.row), self.links.stays
        begins, by_tiles = blocks[0] == every[0], stays and counts_tiles(t)
        counted_up = rows.waits * begins if by_tiles else len(blocks) + (rows.waits - 1) * len(every) * begins
        apart = stored * (every.step if stays else 1)
        if stays and self.links.laid != t.rows:
            apart, pitch = line * every.step, t.layer.output_blocks * line
        tile_words = t.layer.output_blocks * stored if stays else len(every) * stored
        first, ring, period = pattern.first + rows.tile, t.tiles if stays else t.result_ring, pattern.period
        turns = Iteration(period * tile_words, -(-ring // period), first % ring // period)
        if parts > 1:
            turns = Iteration(len(blocks) * apart, parts)
        begin = first % ring * tile_words - turns.step * turns.current
        positions = (Dim(1, words * columns),) if thin == 1 else (Dim(1, words), Dim(thin * words, columns))
        return MemoryDescriptor(
            OWN_WORDS + places.results[rows.row] // 4 + every.index(blocks[0]) * apart + rows.above * pitch + begin,
            len(blocks) * rows.height * words * columns,
            (*positions, Dim(thin * pitch, rows.height), Dim(apart)),
            iteration=turns,
            acquire=Acquire(OWN_LOCKS + locks.full, counted_up) if counted_up else None,
            release=None if by_tiles or (stays and counted(t)) else Release(OWN_LOCKS + locks.free, counted_up),
        )
