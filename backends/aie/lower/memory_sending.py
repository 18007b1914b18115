"""The control of memory tiles for a layer: what they send to cores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sparsec.backends.aie.descriptor_forms import OWN_WORDS
from sparsec.backends.aie.descriptors import OWN_LOCKS, Acquire, Dim, Iteration, MemoryDescriptor, Release
from sparsec.backends.aie.lower.chaining import sent_by_block
from sparsec.backends.aie.lower.geometry import LANES
from sparsec.backends.aie.lower.memory_places import Portion, What, granule
from sparsec.backends.aie.lower.modes import Stream
from sparsec.backends.aie.lower.operands import sent
from sparsec.backends.aie.lower.tile_control import TileControl, behind_first
from sparsec.backends.aie.lower.writer import MM2S, Parts
from sparsec.backends.aie.registers import Tile
from sparsec.backends.aie.transaction import Operation


class MemorySending(TileControl):
    """Makes the operations by which memory tiles send data, residuals and weights."""

    def data(self, tile: Tile) -> Iterator[Operation]:
        """Data as vectors, and residuals, from a memory tile to the cores."""
        for stream, carriers in zip(self.mode.data(), self.mode.carriers(), strict=True):
            for number, carrier in enumerate(carriers):
                if carrier.memory == tile and stream.part % self.mode.together == 0:
                    yield from self._send_data(tile, stream, number, carrier.channel)

    def weights(self, tile: Tile) -> Iterator[Operation]:
        """Weights, and residuals that come with them, from a memory tile to the cores."""
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
            first = yield from self.writer.write(tile, channel, [*every, *((d, None, 0) for d, _ in behind)])
            tiles = self.tiling.tiles
            for often in (1, tiles - 1) if self.links.here and self.links.prefetch[0] else (tiles,):
                yield from self.writer.start(tile, MM2S, channel, first, often)
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
        row = LANES * self.tiling.layer.element.position_words * self.share.row_vectors
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
        step, rows = (1, 1) if share.strided else (s, share.row_step)
        dims = (Dim(1, words), Dim(words * s * share.lane, LANES), Dim(words * step, share.row_vectors), Dim(rows * row))
        each = LANES * words * share.row_vectors * t.source.blocks // t.parts
        return [MemoryDescriptor(i * row + words * j, each * share.plane_rows(i), dims) for i, j in share.planes]

    def _send_weights(self, tile: Tile, stream: Stream) -> Iterator[Operation]:
        """Pages of weights, and the residual of a core that has a stream of its own (`behind_first`)."""
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
        behind: list[tuple[int, int]] = []
        for chain, times in (*([(together, 1)] if together else []), *alone):
            behind.append(((yield from self.writer.write(tile, channel, chain)), times))
        for begin, times in behind_first((first, p.count), behind, t.tiles):
            yield from self.writer.start(tile, MM2S, channel, begin, times)

    def _counted_by(self, at: tuple[int, int]) -> int | None:
        """The lock that counts a portion of weights with others (`evenly_apart`), if one does."""
        places, number = self.plan.memory[at[0]], at[1]
        arrival = next(a for a in places.arrivals if number in a.weights)
        if not self.evenly_apart(places, arrival):
            return None
        return OWN_LOCKS + self.locks(places, What.WEIGHTS, arrival.weights[0]).full

    def _send_pages(self, tile: Tile, stream: Stream) -> Iterator[Operation]:
        """All pages of weights, as often as tiles ask for them."""
        t, size, slots = self.tiling, self.tiling.page_bytes[stream.part] // 4, self.plan.memory[tile.column].slots
        sources = self.plan.sources(What.WEIGHTS, stream)
        counted_by = self._counted_by(sources[0])
        if counted_by is not None:
            only = MemoryDescriptor(self._place(tile, What.WEIGHTS, sources[0])[1], size, acquire=Acquire(counted_by))
            yield from self.writer.chain(tile, MM2S, stream.channel, [(only, None, 0)], 1)
            return
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
