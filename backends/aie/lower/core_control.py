"""The control of a core for a layer: its parameters, its buffers' descriptors, and what it is told to begin with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from sparsec.backends.aie.core.program import BLOCKS_OFFSET, CONTROL_OFFSET, LOCKS, PARAMETER_BYTES, SPARSE_BYTES, Parameters
from sparsec.backends.aie.descriptors import Acquire, CoreDescriptor, Dim, Iteration, Release
from sparsec.backends.aie.lower.chaining import by_lanes
from sparsec.backends.aie.lower.geometry import BFLOAT16, BLOCK, LANES
from sparsec.backends.aie.lower.modes import CORE_DATA, CORE_WEIGHTS
from sparsec.backends.aie.lower.tile_control import OVER_EACH_OTHER, TileControl, behind_first
from sparsec.backends.aie.lower.writer import MM2S, S2MM
from sparsec.backends.aie.registers import CASCADE_INPUT, CASCADE_OUTPUT, Tile, register_address
from sparsec.backends.aie.transaction import BlockWrite, Operation, write

_LEAST_WORDS = 400  # of a residual at a time: a descriptor takes some cycles to begin
_CORE_DATA = 14  # descriptors of a core for data


class CoreControl(TileControl):
    """Makes the operations of cores."""

    def run(self, column: int, row: int) -> Iterator[Operation]:
        """All of a core. A token tells when its results have left."""
        p, t, core, tile = self.plan, self.tiling, self.plan.core, self.mode.core(column, row)
        positions, part = self.mode.parts(column, row)
        weights_of, finishes = self.mode.weight_part(column, row), self.mode.finishes(row)
        pages, size, blocks = len(p.pages[weights_of]), t.page_bytes[weights_of], len(t.output_blocks(part))
        residual = blocks if t.layer.residual and finishes else 0
        held, layout = t.paging.held(weights_of), t.layout(weights_of)
        told = Parameters(
            units=t.units,
            vectors=self.share.tiles,
            data=core.data,
            data_sum=2 * core.data + core.data_step * (t.buffers - 1),
            results=core.results - t.result_quad,
            results_sum=2 * (core.results - t.result_quad) + t.results_together * core.results_step,
            awaited=t.units // t.tiles * t.streamed,
            within=self.share.steps.registers,
            chunks=t.unit_chunks(part),
            weights=core.weights + layout.lead + CONTROL_OFFSET,
            weights_end=core.weights + held * size,
            weights_bytes=held * size,
            shift=t.layer.shifts.shift,
            added_shift=t.layer.shifts.residual_shift,
            blocks=BLOCKS_OFFSET + SPARSE_BYTES * t.sparse,
            halves=core.partial[1] - core.partial[0],
            first_pages=layout.first,
            weights_pages=held - self.links.queued[1] + (self.links.left[1] if t.kept else 0),
            data_buffers=t.buffers - self.links.queued[0],
            residual_buffers=residual - self.links.queued[2] + self.links.left[2],
            results_buffers=t.results_buffers,
            residual_left=residual,
            data_left=t.buffers - self.links.left[0],
            weights_left=held - pages if t.kept else held - self.links.left[1],
            weights_rest=layout.rest,
            apart=core.results_step if t.sparse else 0,
            last_units=(t.tiles - t.full_tiles(positions)) * t.units // t.tiles,
            last_vectors=t.last_vectors(positions),
            bounds=self._bounds(),
            scaling=self._scaling(),
        )
        at = core.parameters + self.turn % 2 * PARAMETER_BYTES
        yield BlockWrite(register_address(self.grid, tile, f"data+{at:#x}"), tuple(w % 2**32 for w in told.words()))
        if self.mode.chain > 1:
            yield write(self.grid, tile, "accumulators", CASCADE_INPUT.put(0) | CASCADE_OUTPUT.put(0))  # from north to south
        page = CoreDescriptor(
            core.weights // 4,
            size // 4,
            iteration=Iteration(size // 4, held) if held > 1 else Iteration(),
            acquire=Acquire(LOCKS.weights_free),
            release=Release(LOCKS.weights_full),
        )
        data, weights = self._core_data(tile, column, row), self._core_weights(tile, part, page, pages * t.streamed)
        for taken in (weights, data) if self.mode.weights_first else (data, weights):
            yield from taken
        if finishes:
            yield from self._results(tile, blocks)
        yield write(self.grid, tile, f"lock{(LOCKS.layer_even, LOCKS.layer_odd)[self.turn % 2]}", 1)

    def _results(self, tile: Tile, blocks: int) -> Iterator[Operation]:
        """Results of all tiles out of a core, so many blocks of channels of each: vector by vector, or lane by lane."""
        t, core = self.tiling, self.plan.core
        vector, vectors = LANES * BLOCK * t.layer.result_size // 4, t.rows * self.share.lane
        dims = Dim(1, vector), Dim(vector, self.share.lane), Dim(vector * self.share.result_pitch)
        if self.links.stays and by_lanes(t, self.links.laid):
            dims = Dim(1, vector // LANES), Dim(vector, vectors), Dim(vector // LANES)
        results = CoreDescriptor(
            core.results // 4,
            vectors * vector,
            dims,
            iteration=Iteration(core.results_step // 4, t.results_buffers),
            acquire=Acquire(LOCKS.results_full),
            release=Release(LOCKS.results_free),
        )
        yield from self.writer.chain(tile, MM2S, 0, [(results, None, 0)], blocks * t.tiles, token=True)

    def _bounds(self) -> tuple[int, int] | None:
        """The bounds of results as words of 4 bytes, or of a float32, where there are any."""
        low, high = self.tiling.layer.shifts.bounds
        if low is high is None:
            return None
        if self.tiling.layer.element is BFLOAT16:
            first, second = np.array([low or 0, high or 0], np.float32).view(np.uint32).tolist()
            return first, second
        return 0x01010101 * (int(low or 0) % 256), 0x01010101 * (int(high or 0) % 256)

    def _scaling(self) -> tuple[int, int, int] | None:
        """What sums are multiplied by, what is added to that, as a word, and by how much it is shifted."""
        way = self.tiling.layer.shifts.scaling
        return None if way is None else (way.factor, way.added % (1 << 32), way.shift)

    def _core_weights(self, tile: Tile, part: int, weights: CoreDescriptor, times: int) -> Iterator[Operation]:
        """Pages of weights, through the stream of data if they come before these; and the residual of a core that has a stream of
        its own (`behind_first`)."""
        t = self.tiling
        residual: list[tuple[list[CoreDescriptor], int]] = []
        if self.mode.own and t.tiles == 1:
            residual = [([d], n) for d, n in self._residual(part)]
        elif self.mode.own:
            residual = [(self._residual_pieces(part, _CORE_DATA), 1)]
        if self.mode.weights_first:
            yield from self.writer.chain(tile, S2MM, CORE_DATA, [(weights, None, 0)], times)
            return
        first = yield from self.writer.write(tile, CORE_WEIGHTS, [(weights, None, 0)])
        behind: list[tuple[int, int]] = []
        for chain, turns in residual:
            behind.append(((yield from self.writer.write(tile, CORE_WEIGHTS, [(d, None, 0) for d in chain])), turns))
        tasks = [(begin, turns) for begin, turns in behind_first((first, times), behind, t.tiles) if turns]
        for i, (begin, turns) in enumerate(tasks, 1):
            token = self.links.tells and i == len(tasks)
            yield from self.writer.start(tile, S2MM, CORE_WEIGHTS, begin, turns, token=token)

    def _core_data(self, tile: Tile, column: int, row: int) -> Iterator[Operation]:
        """Units of data in turns into the buffers; behind a tile's units the residual of the core's channels, unless that comes
        with weights. Data of other positions that the stream carries are passed over."""
        t, core, finishes = self.tiling, self.plan.core, self.mode.finishes(row)
        positions, part = self.mode.parts(column, row)
        step = core.data_step // 4
        free, full = Acquire(LOCKS.data_free), Release(LOCKS.data_full)
        made = CoreDescriptor(core.data // 4, t.data_bytes // 4, acquire=free, release=full)
        turns = replace(made, **_buffer(made.base, 0, 1, step, t.buffers))
        chains = [([turns], t.units)]
        if self.mode.together > 1:
            chains = self._among_others(made, positions)
        elif t.layer.residual is not None and finishes and not self.mode.own:
            if t.tiles == 1:
                chains += [([one], times) for one, times in self._residual(part)]
            else:
                behind = [replace(made, **_buffer(made.base, i, t.splits, step, t.buffers)) for i in range(t.splits)]
                behind += self._residual_pieces(part, _CORE_DATA - len(behind))
                chains = [(behind, t.tiles)]
        for i, (each, times) in enumerate(chains, 1):
            token = self.links.tells and i == len(chains)
            yield from self.writer.chain(tile, S2MM, CORE_DATA, [(d, None, 0) for d in each], times, token=token)

    def _among_others(self, made: CoreDescriptor, positions: int) -> list[tuple[list[CoreDescriptor], int]]:
        """Units of data where a stream carries those of several parts of the positions, one after the other in each tile: others'
        land over each other."""
        t, step, count = self.tiling, self.plan.core.data_step // 4, self.mode.together
        own, place = positions % count, self.plan.core.skipped // 4
        before, behind = (
            [CoreDescriptor(place, n * t.splits * t.data_bytes // 4, OVER_EACH_OTHER)] if n else []
            for n in (own, count - 1 - own)
        )
        if t.tiles == 1:
            turns = replace(made, **_buffer(made.base, 0, 1, step, t.buffers))
            return [(chain, times) for chain, times in ((before, 1), ([turns], t.splits), (behind, 1)) if chain]
        units = [replace(made, **_buffer(made.base, i, t.splits, step, t.buffers)) for i in range(t.splits)]
        return [([*before, *units, *behind], t.tiles)]

    def _residual(self, part: int) -> list[tuple[CoreDescriptor, int]]:
        """The residual of the only tile: the first of the core's blocks alone, further ones a few at a time, fewer that are left,
        what comes behind them; and how often each."""
        t = self.tiling
        own, every = len(t.output_blocks(part)), self.mode.sharing
        alone = int(own > 0 and every > 1)
        found = [(self._piece(part, 0, 1), 1)] if alone else []
        if rest := own - alone:
            few = min(rest, -(-_LEAST_WORDS // (every * t.residual_words)))
            turns = Iteration(few * t.residual_stride // 4, rest // few)
            found.append((replace(self._piece(part, alone, alone + few), iteration=turns), rest // few))
            found += [(self._piece(part, own - rest % few, own), 1)] if rest % few else []
        return [*found, *((d, 1) for d in self._others(part))]

    def _residual_pieces(self, part: int, most: int) -> list[CoreDescriptor]:
        """The residual of one of several tiles in at most so many descriptors."""
        own = len(self.tiling.output_blocks(part))
        alone = int(own > 0 and self.mode.sharing > 1)
        pieces = max(1, min(4, own - alone, most - 2))
        cuts = sorted({0, *(alone + (own - alone) * i // pieces for i in range(pieces + 1))}) if own else [0]
        return [*(self._piece(part, first, end) for first, end in pairwise(cuts)), *self._others(part)]

    def _piece(self, part: int, first: int, end: int) -> CoreDescriptor:
        """The residual of some of the core's blocks: of those that come, one for each core that shares the stream is its own, and
        lands on those before it, each a word further, so that it is what stays."""
        t, every = self.tiling, self.mode.sharing
        words, stride, blocks = t.residual_words, t.residual_stride // 4, end - first
        over = every if first else part // self.mode.residual_streams + 1  # fewer blocks come before the first one
        return CoreDescriptor(
            self.plan.core.residual // 4 + first * stride - (over - 1) * (every > 1),
            blocks * over * words if every > 1 else blocks * words,
            (Dim(1, words), Dim(1, over), Dim(stride)) if every > 1 else (),
            acquire=Acquire(LOCKS.residual_free, blocks),
            release=Release(LOCKS.residual_full, blocks),
        )

    def _others(self, part: int) -> list[CoreDescriptor]:
        """What comes behind the core's last block."""
        t, every = self.tiling, self.mode.sharing
        own, words = len(t.output_blocks(part)), t.residual_words
        taken = (own - 1) * every + part // self.mode.residual_streams + 1 if own else 0
        rest = t.layer.output_blocks // self.mode.residual_streams - taken
        place = self.plan.core.skipped // 4
        return [CoreDescriptor(place, rest * words, (Dim(1, words), Dim(1, rest), Dim(1)))] if rest else []


def _buffer(base: int, first: int, each: int, step: int, buffers: int) -> dict[str, Any]:
    """Base and iteration of a descriptor that takes the buffers, `step` words apart, in turns: number `first`, then always `each`
    later. Where the second of two lies before the first, it is what descriptors count from, as they step onward only."""
    if buffers == 1 or each % buffers == 0:
        return {"base": base + first % buffers * step, "iteration": Iteration()}
    if step < 0:
        return {"base": base + step, "iteration": Iteration(-step, buffers, (first + 1) % buffers)}
    return {"base": base, "iteration": Iteration(step, buffers, first % buffers)}
