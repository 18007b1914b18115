"""The control stream of a layer: what a host writes to registers so that the array moves and multiplies.

Channels: shim MM2S 0 brings data, 1 weights, S2MM 0 takes results; a memory tile's S2MM 0-3 take the results of its cores, 4
data, 5 weights, its MM2S 0 sends data to its column of cores, 1 weights to the row of cores with its number, 2 results to
the shim; a core's S2MM 0 takes data, 1 weights, its MM2S 0 gives results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sparsec.backends.aie.core.program import LOCKS
from sparsec.backends.aie.descriptors import (
    OWN_LOCKS,
    OWN_WORDS,
    Acquire,
    CoreDescriptor,
    Dim,
    Iteration,
    MemoryDescriptor,
    Release,
    ShimDescriptor,
)
from sparsec.backends.aie.lower.geometry import TILE_VECTORS, VECTOR_BYTES, Image
from sparsec.backends.aie.lower.plan import LayerPlan
from sparsec.backends.aie.registers import CORE_ENABLE, Direction, Grid, Tile, register_address
from sparsec.backends.aie.switch import Channel, Flow, route
from sparsec.backends.aie.transaction import (
    BlockWrite,
    Operation,
    Patch,
    Sync,
    Task,
    start,
    write,
    write_descriptor,
)

WEIGHTS, ACTIVATIONS = 0, 1  # the program's arguments
DATA_LOCK, WEIGHTS_LOCK, RESULT_LOCK = 0, 1, 2  # of a memory tile; results: one a row of cores from the third on
_S2MM, _MM2S = Direction.S2MM, Direction.MM2S


@dataclass(frozen=True, slots=True)
class Traffic:
    """Where a layer's tensors are in the arguments: images, and the byte offset of each row of cores' weights."""

    x: Image
    y: Image
    residual: Image | None
    weights: Sequence[int]


def flows(grid: Grid) -> list[Flow]:
    """All circuits of the array; they stay for the whole program."""
    found = []
    for c in range(grid.columns):
        shim, memory = Tile(c, 0), Tile(c, 1)
        cores = [Tile(c, grid.first_core_row + r) for r in range(grid.core_rows)]
        found += [Flow(Channel(shim, i), (Channel(memory, 4 + i),)) for i in range(2)]
        found.append(Flow(Channel(memory, 0), tuple(Channel(t, 0) for t in cores)))
        found += [Flow(Channel(t, 0), (Channel(memory, r),)) for r, t in enumerate(cores)]
        found.append(Flow(Channel(memory, 2), (Channel(shim, 0),)))
    for r in range(grid.core_rows):
        ends = tuple(Channel(Tile(c, grid.first_core_row + r), 1) for c in range(grid.columns))
        found.append(Flow(Channel(Tile(r, 1), 1), ends))
    return found


def prologue(grid: Grid) -> Iterator[Operation]:
    """Circuits, and cores that start."""
    yield from route(grid, flows(grid)).writes()
    for tile in grid.cores():
        yield write(grid, tile, "core.control", CORE_ENABLE.put(1))


@dataclass(frozen=True)
class LayerControl:
    """Makes the operations of one layer."""

    grid: Grid
    plan: LayerPlan
    traffic: Traffic

    def operations(self) -> Iterator[Operation]:
        """Cores first, then memory tiles, then shims; then wait for the results in DDR."""
        for c in range(self.grid.columns):
            for r in range(self.grid.core_rows):
                yield from self._core(Tile(c, self.grid.first_core_row + r), r)
        for c in range(self.grid.columns):
            yield from self._memory(Tile(c, 1))
        for c in range(self.grid.columns):
            yield from self._shim(Tile(c, 0))
        for c in range(self.grid.columns):
            if self._valid_rows(c):
                yield Sync(Tile(c, 0), _S2MM, 0)

    def _valid_rows(self, column: int) -> int:
        rows = self.plan.share.rows
        return max(0, min(rows, self.traffic.y.rows - column * rows))

    def _core(self, tile: Tile, row: int) -> Iterator[Operation]:
        p, share, core = self.plan, self.plan.share, self.plan.core
        count = len(p.chunks[row])
        slot, result = core.weights[1] - core.weights[0], core.results[1] - core.results[0]
        residual = share.data_vectors * VECTOR_BYTES + p.first_blocks[row] * p.result_bytes
        words = [
            1,
            count,
            share.tiles,
            core.data,
            2 * core.data,
            core.weights[0],
            sum(core.weights),
            core.results[0],
            sum(core.results),
        ]
        words += [VECTOR_BYTES] * 3 + [residual]
        yield BlockWrite(
            register_address(self.grid, tile, f"data+{core.parameters:#x}"),
            tuple(np.array(words, np.int32).view(np.uint32).tolist()),
        )
        data = share.data_vectors * VECTOR_BYTES + p.residual_bytes
        yield write_descriptor(
            self.grid,
            tile,
            0,
            CoreDescriptor(core.data // 4, data // 4, acquire=Acquire(LOCKS.data_free), release=Release(LOCKS.data_full)),
        )
        yield start(self.grid, tile, _S2MM, 0, Task(0))
        if count:
            yield write_descriptor(
                self.grid,
                tile,
                1,
                CoreDescriptor(
                    core.weights[0] // 4,
                    p.chunk_bytes // 4,
                    iteration=Iteration(slot // 4, 2),
                    acquire=Acquire(LOCKS.weights_free),
                    release=Release(LOCKS.weights_full),
                ),
            )
            yield start(self.grid, tile, _S2MM, 1, Task(1, count))
            yield write_descriptor(
                self.grid,
                tile,
                2,
                CoreDescriptor(
                    core.results[0] // 4,
                    share.rows * share.lane * VECTOR_BYTES // 4,
                    (Dim(1, 8), Dim(8, share.lane), Dim(8 * share.pitch)),
                    iteration=Iteration(result // 4, 2),
                    acquire=Acquire(LOCKS.results_full),
                    release=Release(LOCKS.results_free),
                ),
            )
            yield start(self.grid, tile, _MM2S, 0, Task(2, count))
        yield write(self.grid, tile, f"lock{LOCKS.layer_full}", 1)

    def _memory(self, tile: Tile) -> Iterator[Operation]:
        yield from self._memory_in(tile)
        yield from self._memory_data(tile)
        p, share, places = self.plan, self.plan.share, self.plan.memory
        own = len(p.chunks[tile.column]) if tile.column < len(p.chunks) else 0
        if own:
            length = own * p.chunk_bytes // 4
            yield from self._task(
                tile,
                _MM2S,
                1,
                24,
                MemoryDescriptor(OWN_WORDS + places.weights // 4, length, acquire=self._acquire(WEIGHTS_LOCK, 1)),
            )
        for row, chunks in enumerate(p.chunks):
            if not chunks:
                continue
            stored = p.stored_bytes // 4
            yield write(self.grid, tile, f"lock{RESULT_LOCK + row}", 0)
            yield from self._task(
                tile,
                _S2MM,
                row,
                10 + row // 2 if row % 2 == 0 else 30 + row // 2,
                MemoryDescriptor(
                    OWN_WORDS + places.results[row] // 4,
                    share.rows * share.lane * VECTOR_BYTES // 4,
                    (Dim(1, 2), Dim(2 * share.lane, 4), Dim(2, share.lane), Dim(2 * share.stored_columns)),
                    iteration=Iteration(stored, len(chunks)),
                    release=Release(OWN_LOCKS + RESULT_LOCK + row),
                ),
                len(chunks),
            )
            if rows := self._valid_rows(tile.column):
                columns = 2 * self.traffic.y.columns
                yield from self._task(
                    tile,
                    _MM2S,
                    2,
                    14 + row,
                    MemoryDescriptor(
                        OWN_WORDS + places.results[row] // 4,
                        len(chunks) * rows * columns,
                        (Dim(1, columns), Dim(2 * share.stored_columns, rows), Dim(stored)),
                        acquire=self._acquire(RESULT_LOCK + row, len(chunks)),
                    ),
                )

    def _acquire(self, lock: int, value: int) -> Acquire:
        return Acquire(OWN_LOCKS + lock, value)

    def _task(
        self,
        tile: Tile,
        direction: Direction,
        channel: int,
        number: int,
        descriptor: MemoryDescriptor | ShimDescriptor,
        repeat: int = 1,
    ) -> Iterator[Operation]:
        yield write_descriptor(self.grid, tile, number, descriptor)
        yield start(self.grid, tile, direction, channel, Task(number, repeat))

    def _memory_in(self, tile: Tile) -> Iterator[Operation]:
        """What comes from DDR: data, the residual, and the weights of the row of cores with the tile's number."""
        p, share, places = self.plan, self.plan.share, self.plan.memory
        for number, place, length in (
            (0, places.data, share.blocks * share.source_rows * share.source_columns * 2),
            (
                1,
                places.residual,
                p.layer.output_blocks * share.residual_rows * share.residual_columns * 2 if p.layer.residual else 0,
            ),
        ):
            if length:
                made = MemoryDescriptor(OWN_WORDS + place // 4, length, release=Release(OWN_LOCKS + DATA_LOCK))
                yield from self._task(tile, _S2MM, 4, number, made)
        own = len(p.chunks[tile.column]) if tile.column < len(p.chunks) else 0
        if own:
            made = MemoryDescriptor(
                OWN_WORDS + places.weights // 4, own * p.chunk_bytes // 4, release=Release(OWN_LOCKS + WEIGHTS_LOCK)
            )
            yield from self._task(tile, _S2MM, 5, 25, made)

    def _memory_data(self, tile: Tile) -> Iterator[Operation]:
        """Planes of data, then the residual by blocks of channels, to the column's cores, as vectors."""
        p, share, places = self.plan, self.plan.share, self.plan.memory
        s = share.window.stride
        for n, (i, j) in enumerate(share.window.planes):
            base = OWN_WORDS + places.data // 4 + 2 * (i * share.source_columns + j)
            dims = (Dim(1, 2), Dim(2 * s * share.lane, 4), Dim(2 * s, share.pitch), Dim(2 * s * share.source_columns))
            acquire = self._acquire(DATA_LOCK, 2 if p.layer.residual else 1) if n == 0 else None
            yield from self._task(tile, _MM2S, 0, 2 + n, MemoryDescriptor(base, 8 * share.plane_vectors, dims, acquire=acquire))
        if p.layer.residual:
            dims = (Dim(1, 2), Dim(2 * share.lane, 4), Dim(2, share.pitch), Dim(2 * share.residual_columns))
            plane = share.residual_rows * share.residual_columns * 2
            base = OWN_WORDS + places.residual // 4
            count = p.layer.output_blocks
            made = MemoryDescriptor(base, 8 * TILE_VECTORS * share.tiles, dims, iteration=Iteration(plane, count))
            yield from self._task(tile, _MM2S, 0, 8, made, count)

    def _shim(self, tile: Tile) -> Iterator[Operation]:
        p, share, t = self.plan, self.plan.share, self.traffic
        c, s = tile.column, share.window.stride
        top, left = (c * share.rows * s - share.window.pads[0], -share.window.pads[1])
        yield from self._image(tile, _MM2S, 0, 0, t.x, (top, left), (share.blocks, share.source_rows, share.source_columns))
        if t.residual is not None:
            size = (p.layer.output_blocks, share.residual_rows, share.residual_columns)
            yield from self._image(tile, _MM2S, 0, 1, t.residual, (c * share.rows, 0), size)
        own = len(p.chunks[c]) if c < len(p.chunks) else 0
        if own:
            yield write_descriptor(self.grid, tile, 2, ShimDescriptor(0, own * p.chunk_bytes // 4))
            yield Patch(register_address(self.grid, tile, "bd2.1"), WEIGHTS, t.weights[c])
            yield start(self.grid, tile, _MM2S, 1, Task(2))
        if rows := self._valid_rows(c):
            yield from self._image(tile, _S2MM, 0, 3, t.y, (c * share.rows, 0), (t.y.blocks, rows, t.y.columns), token=True)

    def _image(
        self,
        tile: Tile,
        direction: Direction,
        channel: int,
        number: int,
        image: Image,
        first: tuple[int, int],
        size: tuple[int, int, int],
        *,
        token: bool = False,
    ) -> Iterator[Operation]:
        """A part of an image in DDR: `size` blocks, rows and columns from (row, column) `first` on."""
        blocks, rows, columns = size
        dims = (Dim(1, 2 * columns), Dim(2 * image.width, rows), Dim(2 * image.width * image.height))
        yield write_descriptor(self.grid, tile, number, ShimDescriptor(0, blocks * rows * columns * 2, dims))
        yield Patch(register_address(self.grid, tile, f"bd{number}.1"), ACTIVATIONS, image.at(0, *first))
        yield start(self.grid, tile, direction, channel, Task(number, token=token))
