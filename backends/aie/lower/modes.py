"""How a layer is cut over the cores: positions, output channels, or both; and which circuits that takes.

Each core has two streams, data and weights. A stream serves one core, a column, a row, or all, and what it serves it serves at 4
bytes a cycle: positions over all cores suit large images with few channels (every core reads a part of the data, all read the
same weights), channels over all cores suit small images with many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from sparsec.backends.aie.registers import Grid, Tile
from sparsec.backends.aie.switch import Channel, Flow


class Cut(Enum):
    """Which cores share data or weights."""

    BOTH = "positions over columns, channels over rows"
    POSITIONS = "positions over all cores"
    CHANNELS = "channels over all cores"


DATA_IN, WEIGHTS_IN = 4, 5  # S2MM channels of a memory tile; those below take the results of the column's cores
RESULTS_OUT = 5  # its MM2S channel to the shim
CORE_DATA, CORE_WEIGHTS = 0, 1  # S2MM channels of a core


@dataclass(frozen=True, slots=True)
class Stream:
    """One MM2S channel of a memory tile, the part of the data or weights that it sends, and the cores that take it."""

    memory: Tile
    channel: int
    part: int
    cores: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Mode:
    """A cut on an array."""

    cut: Cut
    grid: Grid

    @property
    def position_parts(self) -> int:
        """Parts that positions are cut in."""
        g = self.grid
        return {Cut.BOTH: g.columns, Cut.POSITIONS: g.columns * g.core_rows, Cut.CHANNELS: 1}[self.cut]

    @property
    def channel_parts(self) -> int:
        """Parts that output channels are cut in."""
        g = self.grid
        return {Cut.BOTH: g.core_rows, Cut.POSITIONS: 1, Cut.CHANNELS: g.columns * g.core_rows}[self.cut]

    def parts(self, column: int, row: int) -> tuple[int, int]:
        """The part of positions and of channels of the core in a column and a row of cores."""
        own = column * self.grid.core_rows + row
        return {Cut.BOTH: (column, row), Cut.POSITIONS: (own, 0), Cut.CHANNELS: (0, own)}[self.cut]

    def core(self, column: int, row: int) -> Tile:
        """The tile of the core in a column and a row of cores."""
        return Tile(column, self.grid.first_core_row + row)

    def data(self) -> Sequence[Stream]:
        """The streams of data."""
        g = self.grid
        columns, rows = range(g.columns), range(g.core_rows)
        if self.cut is Cut.BOTH:
            return [Stream(Tile(c, 1), 0, c, tuple(self.core(c, r) for r in rows)) for c in columns]
        if self.cut is Cut.POSITIONS:
            return [Stream(Tile(c, 1), r, c * g.core_rows + r, (self.core(c, r),)) for c in columns for r in rows]
        return [Stream(Tile(0, 1), 0, 0, tuple(g.cores()))]

    def weights(self) -> Sequence[Stream]:
        """The streams of weights."""
        g = self.grid
        columns, rows = range(g.columns), range(g.core_rows)
        if self.cut is Cut.BOTH:
            return [Stream(Tile(r % g.columns, 1), 4, r, tuple(self.core(c, r) for c in columns)) for r in rows]
        if self.cut is Cut.POSITIONS:
            return [Stream(Tile(0, 1), 4, 0, tuple(g.cores()))]
        return [Stream(Tile(c, 1), 1 + r, c * g.core_rows + r, (self.core(c, r),)) for c in columns for r in rows]

    def flows(self) -> list[Flow]:
        """All circuits."""
        g = self.grid
        found = []
        for c in range(g.columns):
            shim, memory = Tile(c, 0), Tile(c, 1)
            found += [Flow(Channel(shim, i), (Channel(memory, to),)) for i, to in enumerate((DATA_IN, WEIGHTS_IN))]
            found += [Flow(Channel(self.core(c, r), 0), (Channel(memory, r),)) for r in range(g.core_rows)]
            found.append(Flow(Channel(memory, RESULTS_OUT), (Channel(shim, 0),)))
        for streams, channel in ((self.data(), CORE_DATA), (self.weights(), CORE_WEIGHTS)):
            found += [Flow(Channel(s.memory, s.channel), tuple(Channel(t, channel) for t in s.cores)) for s in streams]
        return found


def modes(grid: Grid) -> tuple[Mode, ...]:
    """The cuts that an array has channels for: a memory tile feeds, and is fed by, up to four cores of its column."""
    if grid.core_rows > RESULTS_OUT - 1 or grid.core_rows > grid.columns:
        return ()
    return tuple(Mode(cut, grid) for cut in Cut)
