"""The control of shims for a layer: data and weights out of DDR, results back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from sparsec.backends.aie.descriptors import Dim, Iteration, ShimDescriptor
from sparsec.backends.aie.lower.geometry import Image
from sparsec.backends.aie.lower.leaving import every_of
from sparsec.backends.aie.lower.memory_places import Arrival
from sparsec.backends.aie.lower.modes import ARRIVING, LEAVING
from sparsec.backends.aie.lower.operands import from_image
from sparsec.backends.aie.lower.tile_control import TileControl
from sparsec.backends.aie.lower.writer import S2MM, Part, Parts
from sparsec.backends.aie.registers import Tile
from sparsec.backends.aie.transaction import Operation

WEIGHTS, ACTIVATIONS = 0, 1  # the program's arguments


class _Piece(NamedTuple):
    """A piece of an image: its first block and row, and how many rows, and blocks `step` apart, it has."""

    block: int
    row: int
    rows: int
    blocks: int
    step: int = 1


def _joined(pieces: Iterable[_Piece]) -> list[_Piece]:
    """Pieces of an image, one behind the other, as one where blocks of the same rows follow one another."""
    found: list[_Piece] = []
    for p in pieces:
        if found and found[-1]._replace(block=found[-1].block + found[-1].blocks, blocks=p.blocks) == p and p.step == 1:
            found[-1] = found[-1]._replace(blocks=found[-1].blocks + p.blocks)
        else:
            found.append(p)
    return found


class ShimControl(TileControl):
    """Makes the operations of shims."""

    def results(self, tile: Tile) -> Iterator[Operation]:
        """Results into their image."""
        t, every = self.tiling, every_of(self.tiling)
        for i in range(len(LEAVING) if self.links.leaves else 0):
            patterns = self.leaving.patterns(tile.column, i)
            for n, pattern in enumerate(patterns):
                parts, count, times = [], pattern.times, self.leaving.parts(tile.column, pattern)
                pieces: list[_Piece] = []
                for rows, blocks in self.leaving.together(tile.column, patterns, pattern):
                    part = self.mode.parts(tile.column, rows.row)[0]
                    first = t.first_row(part) + (pattern.first + rows.tile) * t.rows + rows.above
                    at = (t.first_block(part) + blocks[0], first // every)
                    pieces.append(_Piece(*at, rows.height, len(blocks), blocks.step))
                for p in _joined(pieces) if times == 1 else pieces:
                    size = (p.blocks, p.rows, self.traffic.y.columns)
                    further = p.blocks * p.step * self.traffic.y.height  # rows from one part of channels to the next
                    turns = Iteration(pattern.period * t.rows // every, count) if count > 1 else Iteration(further, times)
                    parts.append(self._image(self.traffic.y, (p.block, p.row, 0), size, turns, (p.step, 1)))
                last, apart = n == len(patterns) - 1, self.links.apart
                before_last = apart and n == len(patterns) - 2 and patterns[-1].times == 1
                begin = yield from self.writer.write(tile, i, parts)
                for repeat in (count - 1, 1) if last and apart and count > 1 else (count * times,):
                    yield from self.writer.start(tile, S2MM, i, begin, repeat, token=last or before_last)

    def weights(self, tile: Tile, channel: int, arrival: Arrival, early: int) -> list[tuple[Part, int, int]]:
        """The pages that come through a channel, how often early and how often later: `early` words of the first time by
        themselves, and the rest, in as large pieces where one descriptor has to do. Where blocks are computed, their frames, and
        then the blocks."""
        plan = self.plan
        if not arrival.weights:
            return []
        order = [(c, i) for c in range(self.grid.columns) for i in range(len(ARRIVING))]
        before = sum(len(page) for c, i in order if (c, i) < (tile.column, channel) for page in plan.stream_order(c, i))
        words = sum(map(len, plan.stream_order(tile.column, channel))) // 4
        times = self.tiling.streamed if plan.memory[tile.column].slots else 1
        if self.traffic.computed is not None:
            (stream,) = (plan.memory[tile.column].weights[i].stream for i in arrival.weights)
            made, where, turns = from_image(self.tiling, self.traffic.computed, stream.part)
            frames = ShimDescriptor(0, words), WEIGHTS, self.traffic.weights + before
            return [(frames, 0, 1), ((made, ACTIVATIONS, where), 0, turns * times)]
        at = self.traffic.weights + before
        whole = ShimDescriptor(0, words), WEIGHTS, at
        if early in (0, words):
            now = int(early > 0)
            return [(whole, now, times - now)]
        if self.links.at_once:
            pieces = words // early
            return [((ShimDescriptor(0, early, iteration=Iteration(early, pieces)), WEIGHTS, at), 1, pieces - 1)]
        first, rest = (ShimDescriptor(0, early), WEIGHTS, at), (ShimDescriptor(0, words - early), WEIGHTS, at + 4 * early)
        return [(first, 1, 0), (rest, 0, 1), *([(whole, 0, times - 1)] if times > 1 else [])]

    def data(self, tile: Tile, arrival: Arrival) -> Parts:
        """Tiles of data that come through a channel, each with its residual behind it, if that does not move by itself."""
        t, share, s = self.tiling, self.tiling.source, self.share.window.stride
        parts: Parts = []
        pieces: list[_Piece] = []
        places = self.plan.memory[tile.column]
        above, left = share.window.pads
        for portion in (places.data[i] for i in arrival.data):
            row, each = t.first_row(portion.stream.part), share.blocks // t.parts
            block = t.first_block(portion.stream.part) + portion.stream.step * share.blocks + portion.first * each
            pieces.append(_Piece(block, row * s - above, share.source_rows, portion.count * each))
        steps, tiles = (1, s // share.row_step), Iteration(t.rows * s, t.tiles)
        for p in _joined(pieces):
            size = (p.blocks, p.rows, share.source_columns)
            parts.append(self._image(self.traffic.x, (p.block, p.row, -left), size, tiles, steps))
        return parts if t.residual_in_turn else [*parts, *self.residual(tile, arrival)]

    def residual(self, tile: Tile, arrival: Arrival) -> Parts:
        """Residuals of tiles that come through a channel; a piece of each stream's, where they move by themselves."""
        t, image, parts = self.tiling, self.traffic.residual, []
        for p in (self.plan.memory[tile.column].residual[i] for i in arrival.residual):
            assert image is not None
            row, each = p.stream.part * t.band, t.layer.output_blocks // t.residual_parts
            streams = self.mode.residual_streams
            stream, piece = divmod(p.first, t.residual_pieces) if streams > 1 else (0, p.first)
            first, count, turns = (stream + streams * piece * each, row, 0), p.count, Iteration(t.rows, t.tiles)
            if t.residual_in_turn:
                count, turns = 1, Iteration(each * streams * image.height, p.count)
            size = (count * each, self.share.rows, self.share.residual_columns)
            parts.append(self._image(image, first, size, turns, (streams, 1)))
        return parts

    def _image(
        self,
        image: Image,
        first: tuple[int, int, int],
        size: tuple[int, int, int],
        tiles: Iteration,
        steps: tuple[int, int] = (1, 1),
    ) -> Part:
        """A part of an image in DDR: `size` blocks, rows and columns from `first` on, blocks and rows `steps` apart; then
        that of the next of the `tiles`, or turns, whose step is in rows."""
        blocks, rows, columns = size
        words = 2 * image.size
        row = words * image.width
        dims = (Dim(1, words * columns), Dim(steps[1] * row, rows), Dim(steps[0] * row * image.height))
        made = ShimDescriptor(0, blocks * rows * columns * words, dims, iteration=replace(tiles, step=row * tiles.step))
        return made, ACTIVATIONS, image.at(*first)
