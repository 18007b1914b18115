"""The control stream of a layer: what a host writes to registers so that the array moves and multiplies.

Data and weights go from DDR through a shim and a memory tile to cores, results back. Memory tiles hold rings, cores two
buffers of each kind, so that all of it runs at once; locks count what is full and what is free. `modes` says which channels
are used for what; `core_control`, `memory_control`, `memory_sending` and `shim_control` make what tiles are told.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import groupby

from sparsec.backends.aie.descriptor_forms import MOST_TURNS, WORD_BYTES
from sparsec.backends.aie.lower.core_control import CoreControl
from sparsec.backends.aie.lower.leaving import Leaving
from sparsec.backends.aie.lower.memory_control import MemoryControl, arrives_in_turn
from sparsec.backends.aie.lower.memory_places import Arrival
from sparsec.backends.aie.lower.memory_sending import MemorySending
from sparsec.backends.aie.lower.modes import ARRIVING, CORE_DATA, CORE_WEIGHTS, LEAVING
from sparsec.backends.aie.lower.plan import LayerPlan
from sparsec.backends.aie.lower.shim_control import ShimControl
from sparsec.backends.aie.lower.tile_control import ALONE, Links, Traffic
from sparsec.backends.aie.lower.writer import MM2S, S2MM, Parts, Writer, queue_of
from sparsec.backends.aie.registers import CORE_ENABLE, Direction, Grid, Kind, Tile
from sparsec.backends.aie.transaction import Operation, Sync, write


class Stage(Enum):
    """What an operation has to wait for."""

    CONFIGURE = "nothing: it changes nothing that the layer before uses"
    QUEUE = "nothing but room in queues"
    FOLLOW = "the results of the layer before in DDR, but those of its last tiles"
    ARRIVE = "the results of the layer before in DDR"
    TAKE = "the cores, which the layer before uses"
    PREFETCH = "the circuits, and cores that have what they still compute"
    SEND = "the circuits, and cores that have finished"
    LEAVE = "room among descriptors and in queues"


Staged = tuple[Stage, Operation]
Early = Sequence[Sequence[float]]  # words by column and channel


@dataclass(frozen=True, slots=True)
class _Tasks:
    """A chain that is written: its queue, its first descriptor, and how often it runs for each tile."""

    queue: tuple[Tile, Direction, int]
    first: int
    each: int = 1


def enable(grid: Grid) -> Iterator[Operation]:
    """Start all cores."""
    for tile in grid.cores():
        yield write(grid, tile, "core.control", CORE_ENABLE.put(1))


class LayerControl:
    """Makes the operations of one layer. `turn` counts the layers before.

    With `early`, weights come into memory tiles while the layer before computes: so many words through each channel of each
    column's shim at most. Operations are in the order in which an idle array wants them: what lets data and weights arrive, what
    computes, then what lets results leave memory tiles and the array. `weights_late` are the words of weights by column and
    channel that do not come early, `cut_short` says that equal pieces leave out most of what might. `arrived` are the
    descriptors of shims and memory tiles that arriving takes, and those of cores, `needed`, `kept` and `taken` all up to the
    second, third and last of these.
    """

    def __init__(
        self,
        grid: Grid,
        plan: LayerPlan,
        traffic: Traffic,
        turn: int = 0,
        links: Links = ALONE,
        *,
        early: Early | None = None,
    ) -> None:
        self.grid, self.plan, self.tiling, self.links, self.early = grid, plan, plan.tiling, links, early
        self.writer = Writer(grid, plan.layer.node, turn)
        tools = (grid, plan, traffic, self.writer, turn, links)
        self.core, self.memory, self.shim = CoreControl(*tools), MemoryControl(*tools), ShimControl(*tools)
        self.sending = MemorySending(*tools)
        self.weights_late: dict[tuple[int, int], int] = {}
        self.cut_short = False
        self.arriving = list(self._arrive())
        self.arrived = self.writer.taken()
        self.computing = list(self._compute())
        self.needed = self.writer.taken()
        self.arrived |= {tile: count for tile, count in self.needed.items() if grid.kind(tile) is Kind.CORE}
        self.leaving = [op for c in range(grid.columns) for op in self.memory.results(Tile(c, 1))]
        self.kept = self.writer.taken()
        self.leaving_array = [op for c in range(grid.columns) for op in self.shim.results(Tile(c, 0))]
        self.taken = self.writer.taken()

    def _arrive(self) -> Iterator[Staged]:
        """Let data and weights come from DDR into memory tiles: needs the circuits of these."""
        for c in range(self.grid.columns):
            yield from _all(Stage.CONFIGURE, self.memory.empty(Tile(c, 1)))
            for i, arrival in enumerate(self.plan.memory[c].arrivals):
                yield from self._arrive_through(c, i, arrival)

    def _compute(self) -> Iterator[Staged]:
        """Cores and what moves to and from them."""
        for c in range(self.grid.columns):
            yield from _all(Stage.TAKE, self.memory.begin(Tile(c, 1)))
        for c in range(self.grid.columns):
            data = self._sent(self.sending.data(Tile(c, 1)), early=self.links.prefetch[0], once=self.links.here)
            weights = self._sent(self.sending.weights(Tile(c, 1)), early=self.links.prefetch[1])
            for sent in (weights, data) if self.tiling.mode.weights_first else (data, weights):
                yield from sent
        for c in range(self.grid.columns):
            for r in range(self.grid.core_rows):
                yield from self._tasks(Stage.QUEUE if self.links.queued[0] else Stage.TAKE, self.core.run(c, r), S2MM)

    @property
    def operations(self) -> list[Operation]:
        """All of the layer's, without the circuits and the wait."""
        return [*(op for _, op in (*self.arriving, *self.computing)), *self.leaving, *self.leaving_array]

    def in_ddr(self) -> Iterator[Operation]:
        """Wait for the results in DDR, if they go there; those of the last tiles, if they go `apart`."""
        if self.links.leaves:
            leaving = Leaving(self.tiling)
            yield from self._awaited(lambda column, i: bool(leaving.patterns(column, i)))

    def first_in_ddr(self) -> Iterator[Operation]:
        """Wait for the results in DDR before those of the last tiles, where these go apart."""
        if self.links.apart:
            yield from self._awaited(Leaving(self.tiling).several)

    def _awaited(self, wanted: Callable[[int, int], bool]) -> Iterator[Operation]:
        """Wait for a token of each column and channel to DDR that is wanted."""
        for i in range(len(LEAVING)):
            found = [wanted(c, i) for c in range(self.grid.columns)]
            for there, group in groupby(range(self.grid.columns), key=found.__getitem__):
                columns = list(group)
                if there:
                    yield Sync(Tile(columns[0], 0), S2MM, i, columns=len(columns))

    def finish(self) -> Iterator[Operation]:
        """Wait for the cores, which make more than leaves for DDR, and for results that stay in memory tiles."""
        mode = self.tiling.mode
        for r in range(0, self.grid.core_rows if self.links.stays else 0, mode.chain):
            yield Sync(Tile(0, 1), S2MM, r, self.grid.columns)
        if self.all_cores:
            for r in range(0, self.grid.core_rows if mode.chain > 1 else 1, mode.chain):
                yield Sync(mode.core(0, r), MM2S, 0, self.grid.columns, self.grid.core_rows if mode.chain == 1 else 1)
            return
        for c in range(self.grid.columns):
            for r in range(self.grid.core_rows):
                if self._has_results(c, r):
                    yield Sync(self.tiling.mode.core(c, r), MM2S, 0)

    def delivered(self) -> Iterator[Operation]:
        """Wait until all cores have all of their data and weights, where they tell (`Links.tells`)."""
        channels = (CORE_DATA,) if self.tiling.mode.weights_first else (CORE_DATA, CORE_WEIGHTS)
        for channel in channels if self.links.tells else ():
            yield Sync(self.tiling.mode.core(0, 0), S2MM, channel, self.grid.columns, self.grid.core_rows)

    def tidy(self) -> Iterator[Operation]:
        """What is left to do when cores have finished and results are where they go."""
        for c in range(self.grid.columns):
            yield from self.memory.tidy(Tile(c, 1))

    @property
    def all_cores(self) -> bool:
        """Whether all cores have results, or pass sums on to one that has, so that one knows when they have finished."""
        rows = range(0, self.grid.core_rows, self.tiling.mode.chain)
        return all(self._has_results(c, r) for c in range(self.grid.columns) for r in rows)

    def _has_results(self, column: int, row: int) -> bool:
        mode = self.tiling.mode
        return mode.finishes(row) and bool(self.tiling.output_blocks(mode.parts(column, row)[1]))

    def _arrive_through(self, column: int, channel: int, arrival: Arrival) -> Iterator[Staged]:
        """Weights that come early, the first tiles of data, the rest of the weights, then that of the data."""
        memory, shim = (Tile(column, 1), S2MM, ARRIVING[channel]), (Tile(column, 0), MM2S, channel)
        ahead = yield from self._data(column, channel, replace(arrival, residual=())) if self.links.ahead else _nothing()
        data = yield from self._data(column, channel, replace(arrival, data=()) if self.links.ahead else arrival)
        chains = self.memory.weights(Tile(column, 1), arrival)
        early = self._early(column, channel, arrival, chains)
        words = early * sum(part[0].length for part in chains[0][0]) if chains else 0
        weights: list[tuple[_Tasks, int, int]] = []  # so often early, so often later
        for parts, times in chains:
            first = yield from _configured(self.writer.write(memory[0], memory[2], parts))
            now = times if words and len(chains) > 1 else early
            weights.append((_Tasks(memory, first), now, times - now))
        if len(chains) > 1 and early:
            words = sum(times * sum(part[0].length for part in parts) for parts, times in chains)
        for part, now, then in self.shim.weights(Tile(column, 0), channel, arrival, words):
            first = yield from _configured(self.writer.write(shim[0], shim[2], [part]))
            weights.append((_Tasks(shim, first), now, then))
        brought = sum(times * part[0].length for parts, times in chains for part in parts)
        self.weights_late[column, channel] = brought - words
        before = min(arrival.before, self.tiling.tiles)
        late = {S2MM: Stage.CONFIGURE if self.early is not None else Stage.ARRIVE, MM2S: Stage.ARRIVE}
        following = Stage.FOLLOW if self.early is not None and self.links.follow else Stage.ARRIVE
        for task in ahead:
            stage = Stage.ARRIVE if self.early is None else Stage.CONFIGURE
            yield from _all(stage, self.writer.start(*task.queue, task.first, before * task.each))
        for task, now, _ in weights:
            yield from _all(Stage.CONFIGURE, self.writer.start(*task.queue, task.first, now))
        for task in data:
            stage = following if task.queue[1] is MM2S else late[S2MM]
            yield from _all(stage, self.writer.start(*task.queue, task.first, before * task.each))
        for task, _, then in weights:
            yield from _all(late[task.queue[1]], self.writer.start(*task.queue, task.first, then))
        for task in (*ahead, *data):
            rest = (self.tiling.tiles - before) * task.each
            yield from _all(late[task.queue[1]], self.writer.start(*task.queue, task.first, rest))

    def _data(self, column: int, channel: int, arrival: Arrival) -> Generator[Staged, None, list[_Tasks]]:
        """Tiles of data, each with its residual behind it: into the rings of a memory tile, and out of DDR."""
        memory, shim = Tile(column, 1), Tile(column, 0)
        turns = self.plan.memory[column].data[arrival.data[0]].count if arrives_in_turn(self.tiling, arrival) else 1
        found: list[_Tasks] = []
        arriving, leaving, pieces = (memory, S2MM, ARRIVING[channel]), (shim, MM2S, channel), self.tiling.residual_pieces
        made = [(arriving, self.memory.data(memory, arrival), turns), (leaving, self.shim.data(shim, arrival), 1)]
        if self.tiling.residual_in_turn:
            made += [(arriving, self.memory.residual(memory, arrival), pieces)]
            made += [(leaving, self.shim.residual(shim, arrival), pieces)]
        for queue, parts, each in made:
            if parts:
                found.append(_Tasks(queue, (yield from _configured(self.writer.write(queue[0], queue[2], parts))), each))
        return found

    def _early(self, column: int, channel: int, arrival: Arrival, chains: Sequence[tuple[Parts, int]]) -> int:
        """How often the chain of weights runs before the layer before has finished: as far as there is time, and room where data
        come behind them, which cores wait for."""
        if self.early is None or not chains or self.plan.layer.computed:  # which the layer before may make
            return 0
        time = self.early[column][channel]
        if self.links.ahead:
            count = sum(self.plan.memory[column].data[i].count for i in arrival.data)
            time = max(0.0, time - min(arrival.before, self.tiling.tiles) * count * self.tiling.part_bytes / WORD_BYTES)
        if len(chains) > 1:
            return int(sum(times * sum(part[0].length for part in parts) for parts, times in chains) <= time)
        (parts, times), slots = chains[0], self.plan.memory[column].slots
        often = min(times, round(time / sum(part[0].length for part in parts)))  # times are about right, and pages long
        once = times // self.tiling.streamed if slots else times
        if slots and (arrival.data or arrival.residual):
            often = min(often, slots)
        often = min(often, once)
        if self.links.at_once and 0 < often < once:  # in equal pieces, of which one descriptor brings all
            pieces = (n for n in range(often, 0, -1) if once % n == 0 and once // n <= MOST_TURNS)
            found = next(pieces, 0) if self.tiling.streamed == 1 else 0
            self.cut_short = self.cut_short or 2 * found < often
            return found
        return often

    def _tasks(self, stage: Stage, operations: Iterable[Operation], direction: Direction | None = None) -> Iterator[Staged]:
        """Operations of which those that start tasks (of channels of a direction) have to wait."""
        for op in operations:
            queue = queue_of(self.grid, op)
            yield stage if queue and direction in (None, queue[1]) else Stage.CONFIGURE, op

    def _sent(self, operations: Iterable[Operation], *, early: bool, once: bool = False) -> Iterator[Staged]:
        """What memory tiles send, some of it early: all that there is, or `once` the first task of each channel."""
        begun: set[object] = set()
        for op in operations:
            queue = queue_of(self.grid, op)
            yield Stage.CONFIGURE if not queue else Stage.PREFETCH if early and not (once and queue in begun) else Stage.SEND, op
            begun.add(queue)


def _all(stage: Stage, operations: Iterable[Operation]) -> Iterator[Staged]:
    return ((stage, op) for op in operations)


def _nothing() -> Generator[Staged, None, list[_Tasks]]:
    """No tasks."""
    yield from ()
    return []


def _configured(operations: Generator[Operation, None, int]) -> Generator[Staged, None, int]:
    """Descriptors that are written at once, and what their writer returns."""
    while True:
        try:
            op = next(operations)
        except StopIteration as stop:
            return int(stop.value)
        yield Stage.CONFIGURE, op
