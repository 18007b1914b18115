"""The control of memory tiles for a layer: rings of data, weights and results, and what fills and empties them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sparsec.backends.aie.descriptor_forms import OWN_WORDS
from sparsec.backends.aie.descriptors import OWN_LOCKS, Acquire, Dim, Iteration, MemoryDescriptor, Release
from sparsec.backends.aie.lower.chaining import behind, counted, counts_tiles, sent_by_block, tiles_at_once
from sparsec.backends.aie.lower.geometry import LANES
from sparsec.backends.aie.lower.leaving import Pattern, Rows, every_of
from sparsec.backends.aie.lower.memory_places import Arrival, MemoryPlaces, Portion, What, granule
from sparsec.backends.aie.lower.modes import LEAVING, Stream
from sparsec.backends.aie.lower.operands import sent
from sparsec.backends.aie.lower.tile_control import OVER_EACH_OTHER, Pair, TileControl
from sparsec.backends.aie.lower.tiling import LOCK_MAXIMUM, Tiling
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

    def send(self, tile: Tile) -> Iterator[Operation]:
        """Data as vectors, and weights, from a memory tile to the cores."""
        for stream, carriers in zip(self.mode.data(), self.mode.carriers(), strict=True):
            for number, carrier in enumerate(carriers):
                if carrier.memory == tile and stream.part % self.mode.together == 0:
                    yield from self._send_data(tile, stream, number, carrier.channel)
        for stream in self.mode.weights():
            if stream.memory == tile and self.tiling.pages(stream.part):
                yield from self._send_weights(tile, stream)

    def _source(self, tile: Tile, what: What, at: tuple[int, int]) -> tuple[Portion, int, Acquire, Release]:
        """A portion as the tile's descriptors reach it: the word where it begins, and what they take and give back."""
        column, i = at
        own, lock = self.locks(self.plan.memory[column], what, i), (1 + column - tile.column) * OWN_LOCKS
        return *self._place(tile, what, at), Acquire(lock + own.full), Release(lock + own.free)

    def _place(self, tile: Tile, what: What, at: tuple[int, int]) -> tuple[Portion, int]:
        """A portion, and the word where it begins as the tile's descriptors count."""
        column, i = at
        p = self.plan.memory[column].portions(what)[i]
        return p, (1 + column - tile.column) * OWN_WORDS + p.at // 4

    def _send_data(self, tile: Tile, stream: Stream, number: int, channel: int) -> Iterator[Operation]:
        """Planes of data, of one part of the input channels after the other, then the residual, unless it comes with weights;
        through one channel, which has a number among those of the stream's data, and may carry those of other positions, too."""
        every: Parts = []
        behind: list[tuple[MemoryDescriptor, int]] = []
        count = self.mode.together
        for s in self.mode.data()[stream.part : stream.part + count] if count > 1 else (stream,):
            chains = self._data_chains(tile, s, number)
            if chains is None:
                every += [(d, None, 0) for d in self._tile_of_data(tile, s, number)]
            for chain, times in chains or ():
                yield from self.writer.chain(tile, MM2S, channel, chain, times)
            behind += () if self.mode.own else self._residual(tile, s, number)
        if not every:
            for made, times in behind:
                yield from self.writer.chain(tile, MM2S, channel, [(made, None, 0)], times)
            return
        if all(times == 1 for _, times in behind):
            yield from self.writer.chain(tile, MM2S, channel, [*every, *((d, None, 0) for d, _ in behind)], self.tiling.tiles)
            return
        tasks = []
        alone: list[tuple[Parts, int]] = [([(made, None, 0)], times) for made, times in behind]
        for chain, times in ((every, 1), *alone):
            tasks.append(((yield from self.writer.write(tile, channel, chain)), times))
        for first, times in tasks * self.tiling.tiles:
            yield from self.writer.start(tile, MM2S, channel, first, times)

    def _data_chains(self, tile: Tile, stream: Stream, number: int) -> list[tuple[Parts, int]] | None:
        """What sends all tiles of data, and how often it runs, where parts of tiles are sent one like the other; None where tiles
        are sent one by one."""
        t, tiles, sources = self.tiling, self._held(tile, What.DATA), self.plan.sources(What.DATA, stream)
        if self.links.here and self.mode.streams == 1:
            return None
        if not ((t.in_turn or t.residual_in_turn) and (t.tiles == 1 or len(sources) == 1)):
            return None
        found: list[tuple[Parts, int]] = []
        for at in sources:
            p, base, leaving = self._portion(tile, at, number)
            turns = Iteration(t.part_bytes // 4, tiles * p.count)
            found.append(([(replace(d, base=base + d.base, iteration=turns), None, 0) for d in leaving], t.tiles * p.count))
        return found

    def _tile_of_data(self, tile: Tile, stream: Stream, number: int) -> list[MemoryDescriptor]:
        """What sends a tile of data, all parts of it; those of several groups of output channels each time."""
        t, tiles, sources = self.tiling, self._held(tile, What.DATA), self.plan.sources(What.DATA, stream)
        if self.links.here and self.mode.streams == 1:
            return [self._whole(tile, at) for at in sources] * t.groups
        size, every = t.part_bytes // 4, list[MemoryDescriptor]()
        for group in range(t.groups):
            for at in sources:
                p, base, planes = self._portion(tile, at, number)
                turns = Iteration(p.count * size, tiles)
                for n in range(p.count):
                    leaving = [replace(d, base=base + n * size + d.base, iteration=turns) for d in planes]
                    leaving[0] = replace(leaving[0], acquire=None) if group else leaving[0]
                    leaving[-1] = replace(leaving[-1], release=None) if group < t.groups - 1 else leaving[-1]
                    every += leaving
        return every

    def _whole(self, tile: Tile, at: tuple[int, int]) -> MemoryDescriptor:
        """What sends a tile of data that are here, all parts of it: for chains of cores, the input channels of one of these."""
        t, (p, base, _, _) = self.tiling, self._source(tile, What.DATA, at)
        (made,) = self._planes()
        turns = Iteration(self.mode.chain * t.source_bytes // 4, t.tiles)
        return replace(made, base=base, length=made.length * p.count, iteration=turns)

    def _portion(self, tile: Tile, at: tuple[int, int], number: int) -> tuple[Portion, int, list[MemoryDescriptor]]:
        """A portion of data, the word where it begins, and what sends a part of it, counted from there. Of several streams, each
        lets the next one follow when it has sent the first row, and nobody gives places back."""
        p, base, full, free = self._source(tile, What.DATA, at)
        planes, streams = self._planes(), self.mode.streams
        if streams == 1:
            planes[0] = replace(planes[0], acquire=full)
            planes[-1] = replace(planes[-1], release=free)
            return p, base, planes
        column, i = at
        places, side = self.plan.memory[column], (1 + column - tile.column) * OWN_LOCKS
        planes[0] = replace(planes[0], acquire=Acquire(side + self.stream_lock(places, i, number)))
        if number == streams - 1:
            return p, base, planes
        row = LANES * self.tiling.layer.element.position_words * self.share.pitch
        head = replace(planes[0], length=row, release=Release(side + self.stream_lock(places, i, number + 1)))
        rest = replace(planes[0], base=planes[0].base + planes[0].dims[-1].step, length=planes[0].length - row, acquire=None)
        return p, base, [head, *([rest] if rest.length else []), *planes[1:]]

    def _residual(self, tile: Tile, stream: Stream, number: int) -> Iterator[tuple[MemoryDescriptor, int]]:
        """What sends the residual of a tile through one of a stream's channels, and how often that runs for the tile."""
        t, share = self.tiling, self.share
        if not t.layer.residual:
            return
        words = t.layer.element.position_words
        dims = (
            Dim(1, words),
            Dim(words * share.lane, LANES),
            Dim(words, share.result_pitch),
            Dim(words * share.residual_columns),
        )
        for at in self.plan.sources(What.RESIDUAL, stream):
            p, base = self._place(tile, What.RESIDUAL, at)
            if self.mode.residual_streams > 1 and p.first // t.residual_pieces != number:
                continue
            length, size = t.layer.output_blocks * t.residual_words // t.residual_parts, t.residual_part_bytes // 4
            if self.links.added:
                yield self._added(base, length, p.count, dims)
                continue
            *_, full, free = self._source(tile, What.RESIDUAL, at)
            if t.residual_in_turn:
                yield MemoryDescriptor(base, length, dims, Iteration(size, p.count), full, free), p.count
                continue
            turns = Iteration(p.count * size, self._held(tile, What.RESIDUAL))
            yield from ((MemoryDescriptor(base + n * size, length, dims, turns, full, free), 1) for n in range(p.count))

    def _added(self, base: int, length: int, count: int, dims: tuple[Dim, ...]) -> tuple[MemoryDescriptor, int]:
        """What sends the residual of a tile that is here, and how often it runs for the tile: all blocks of channels at once, or
        those of one of several streams; of several rows these are sent one by one."""
        t, streams = self.tiling, self.mode.residual_streams
        if sent_by_block(t):
            blocks = t.layer.output_blocks // streams
            turns = Iteration(streams * t.residual_source_bytes // t.layer.output_blocks // 4, t.tiles * blocks)
            return MemoryDescriptor(base, t.residual_words, dims, turns), blocks
        if streams > 1:
            dims = (*dims[:-1], Dim(streams * dims[-1].step))
        if t.residual_in_turn:
            return MemoryDescriptor(base, length, dims, Iteration(streams * t.residual_part_bytes // 4, count)), count
        return MemoryDescriptor(base, length * count, dims, Iteration(t.residual_source_bytes // 4, t.tiles)), 1

    def _held(self, tile: Tile, what: What) -> int:
        """Tiles that memory holds at a time."""
        return self.tiling.tiles if self.links.finds(what) else self.plan.memory[tile.column].ring

    def _planes(self) -> list[MemoryDescriptor]:
        """A part of the input channels, counted from its start."""
        t, share, s = self.tiling, self.share, self.share.window.stride
        words = t.layer.element.position_words
        row = words * t.source.source_columns
        dims = (Dim(1, words), Dim(words * s * share.lane, LANES), Dim(words * s, share.pitch), Dim(share.row_step * row))
        length = LANES * words * share.plane_vectors * t.splits // t.parts
        return [MemoryDescriptor(i * row + words * j, length, dims) for i, j in share.window.planes]

    def _send_weights(self, tile: Tile, stream: Stream) -> Iterator[Operation]:
        """Pages of weights, and the residual of a core that has a stream of its own: that of the first tile behind the first page
        (no task of the core's channel that is queued early may begin with it), those of further tiles behind all pages."""
        if not self.mode.own:
            yield from self._send_pages(tile, stream)
            return
        t, channel = self.tiling, stream.channel
        size, slots = t.page_bytes[stream.part] // 4, self.plan.memory[tile.column].slots
        p, base, full, free = self._source(tile, What.WEIGHTS, self.plan.sources(What.WEIGHTS, stream)[0])
        assert slots, "weights that go to cores once come through rings"
        page = MemoryDescriptor(base, size, iteration=Iteration(size, slots), acquire=full, release=free)
        (core,) = stream.cores
        positions, number = self.mode.parts(core.column, core.row - self.grid.first_core_row)
        residual = list(self._residual(tile, self.mode.data()[positions], number))
        together: Parts = [(made, None, 0) for made, times in residual if times == 1]
        alone: list[tuple[Parts, int]] = [([(made, None, 0)], times) for made, times in residual if times > 1]
        first = yield from self.writer.write(tile, channel, [(page, None, 0)])
        tasks = []
        for chain, times in (*([(together, 1)] if together else []), *alone):
            tasks.append(((yield from self.writer.write(tile, channel, chain)), times))
        for begin, times in ((first, 1), *tasks, (first, p.count - 1), *((n, times * (t.tiles - 1)) for n, times in tasks)):
            yield from self.writer.start(tile, MM2S, channel, begin, times)

    def _send_pages(self, tile: Tile, stream: Stream) -> Iterator[Operation]:
        """All pages of weights, as often as tiles ask for them."""
        t, size, slots = self.tiling, self.tiling.page_bytes[stream.part] // 4, self.plan.memory[tile.column].slots
        sources = self.plan.sources(What.WEIGHTS, stream)
        if slots:
            p, base, full, free = self._source(tile, What.WEIGHTS, sources[0])
            if t.layer.computed:
                page, times = sent(t, stream.part, base, slots, full, free)
                yield from self.writer.chain(tile, MM2S, stream.channel, [(d, None, 0) for d in page], times * t.streamed)
                return
            out = MemoryDescriptor(base, size, iteration=Iteration(size, slots), acquire=full, release=free)
            yield from self.writer.chain(tile, MM2S, stream.channel, [(out, None, 0)], p.count * t.streamed)
            return
        whole: Parts = []
        for at in sources:
            p, base, full, _ = self._source(tile, What.WEIGHTS, at)
            some = granule(p.count)
            first = MemoryDescriptor(base, some * size, iteration=Iteration(some * size, p.count // some), acquire=full)
            yield from self.writer.chain(tile, MM2S, stream.channel, [(first, None, 0)], p.count // some)
            whole.append((MemoryDescriptor(base, p.count * size), None, 0))
        yield from self.writer.chain(tile, MM2S, stream.channel, whole, t.streamed - 1)

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
        free = Acquire(OWN_LOCKS + locks.free) if self.links.leaves and not counted(t) else None
        once = tiles_at_once(t, laid)
        for first in range(0, t.tiles, once):
            tiles = range(first, min(first + once, t.tiles))
            turns = Iteration(step * block // 4, blocks * len(tiles))
            made = self._taken(places.results[row] + first * whole, turns, free, full)
            if laid != t.rows:
                made = replace(made, dims=(*made.dims[:-1], Dim(t.layer.output_blocks * block // 4)))
            yield made, len(tiles) * blocks, tiles.stop == t.tiles

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
        columns, line, thin = self.traffic.y.columns, words * self.share.stored_columns, every_of(t)
        every = t.output_blocks(self.mode.parts(tile.column, rows.row)[1])
        locks, stays = self.result_locks(places, rows.row), self.links.stays
        begins, by_tiles = blocks[0] == every[0], stays and counts_tiles(t)
        counted_up = rows.waits * begins if by_tiles else len(blocks) + (rows.waits - 1) * len(every) * begins
        apart = stored * (every.step if stays else 1)
        tile_words = t.layer.output_blocks * stored if stays else len(every) * stored
        first, ring, period = pattern.first + rows.tile, t.tiles if stays else t.result_ring, pattern.period
        turns = Iteration(period * tile_words, -(-ring // period), first % ring // period)
        if parts > 1:
            turns = Iteration(len(blocks) * apart, parts)
        begin = first % ring * tile_words - turns.step * turns.current
        positions = (Dim(1, words * columns),) if thin == 1 else (Dim(1, words), Dim(thin * words, columns))
        return MemoryDescriptor(
            OWN_WORDS + places.results[rows.row] // 4 + every.index(blocks[0]) * apart + rows.above * line + begin,
            len(blocks) * rows.height * words * columns,
            (*positions, Dim(thin * line, rows.height), Dim(apart)),
            iteration=turns,
            acquire=Acquire(OWN_LOCKS + locks.full, counted_up) if counted_up else None,
            release=None if by_tiles or (stays and counted(t)) else Release(OWN_LOCKS + locks.free, counted_up),
        )
