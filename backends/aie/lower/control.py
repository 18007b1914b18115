"""The control stream of a layer: what a host writes to registers so that the array moves and multiplies.

Data and weights go from DDR through a shim and a memory tile to cores, results back. Memory tiles hold rings, cores two
buffers of each kind, so that all of it runs at once; locks count what is full and what is free. `modes` says which channels
are used for what; `core_control`, `memory_control` and `shim_control` make what each kind of tile is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from sparsec.backends.aie.lower.core_control import CoreControl
from sparsec.backends.aie.lower.leaving import Leaving
from sparsec.backends.aie.lower.memory_control import MemoryControl, arrives_in_turn
from sparsec.backends.aie.lower.modes import ARRIVING, LEAVING
from sparsec.backends.aie.lower.plan import Arrival, LayerPlan
from sparsec.backends.aie.lower.shim_control import ShimControl
from sparsec.backends.aie.lower.tile_control import Traffic
from sparsec.backends.aie.lower.writer import MM2S, S2MM, Parts, Writer
from sparsec.backends.aie.registers import CORE_ENABLE, Grid, Tile
from sparsec.backends.aie.transaction import Operation, Sync, write


def enable(grid: Grid) -> Iterator[Operation]:
    """Start all cores."""
    for tile in grid.cores():
        yield write(grid, tile, "core.control", CORE_ENABLE.put(1))


class LayerControl:
    """Makes the operations of one layer."""

    def __init__(self, grid: Grid, plan: LayerPlan, traffic: Traffic) -> None:
        self.grid, self.plan, self.tiling = grid, plan, plan.tiling
        self.writer = Writer(grid, plan.layer.node)
        self.core = CoreControl(grid, plan, traffic, self.writer)
        self.memory = MemoryControl(grid, plan, traffic, self.writer)
        self.shim = ShimControl(grid, plan, traffic, self.writer)

    def arrive(self) -> Iterator[Operation]:
        """Let data and weights come from DDR into memory tiles: needs the circuits of these."""
        for c in range(self.grid.columns):
            yield from self._arrive(c)

    def compute(self, turn: int) -> Iterator[Operation]:
        """Cores and what moves to and from them, then wait for the results in DDR. `turn` counts the layers before."""
        for c in range(self.grid.columns):
            yield from self.memory.send(Tile(c, 1))
        for c in range(self.grid.columns):
            for r in range(self.grid.core_rows):
                yield from self.core.run(c, r, turn)
        for c in range(self.grid.columns):
            yield from self.memory.results(Tile(c, 1))
            yield from self.shim.results(Tile(c, 0))
        leaving = Leaving(self.tiling)
        for i in range(len(LEAVING)):
            wanted = [bool(leaving.patterns(c, i)) for c in range(self.grid.columns)]
            for there, group in groupby(range(self.grid.columns), key=wanted.__getitem__):
                columns = list(group)
                if there:
                    yield Sync(Tile(columns[0], 0), S2MM, i, columns=len(columns))

    def _arrive(self, column: int) -> Iterator[Operation]:
        """From DDR through both channels of a column's shim into rings, or to where weights are whole."""
        yield from self.memory.empty(Tile(column, 1))
        for i, arrival in enumerate(self.plan.memory[column].arrivals):
            yield from self._arrive_through(column, i, arrival)

    def _arrive_through(self, column: int, channel: int, arrival: Arrival) -> Iterator[Operation]:
        """The first tiles of data, weights, then the rest of data."""
        ends = (Tile(column, 1), S2MM, ARRIVING[channel]), (Tile(column, 0), MM2S, channel)
        before = min(arrival.before, self.tiling.tiles)
        tasks = []
        places = self.plan.memory[column]
        turns = places.data[arrival.data[0]].count if arrives_in_turn(self.tiling, arrival) else 1
        for (tile, direction, number), parts, each in zip(ends, self._data_parts(column, arrival), (turns, 1), strict=True):
            if parts:
                first = yield from self.writer.write(tile, number, parts)
                tasks.append(((tile, direction, number, first), each))
        for task, each in tasks:
            yield from self.writer.start(*task, before * each)
        yield from self.memory.weights(Tile(column, 1), ARRIVING[channel], arrival)
        yield from self.shim.weights(Tile(column, 0), channel, arrival)
        for task, each in tasks:
            yield from self.writer.start(*task, (self.tiling.tiles - before) * each)

    def _data_parts(self, column: int, arrival: Arrival) -> tuple[Parts, Parts]:
        """Tiles of data, each with its residual behind it: into the rings of a memory tile, and out of DDR."""
        return self.memory.data(Tile(column, 1), arrival), self.shim.data(Tile(column, 0), arrival)


def joined(parts: Iterable[Iterable[Operation]]) -> tuple[tuple[Operation, ...], tuple[int, ...]]:
    """All operations, and how many there are up to the end of each part."""
    operations: list[Operation] = []
    ends = []
    for part in parts:
        operations += part
        ends.append(len(operations))
    return tuple(operations), tuple(ends)
