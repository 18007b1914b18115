"""The part of an array that layers are cut over, and where it lies.

Layers are lowered for columns 0, 1, .. of a small array in which every column has a memory tile above a shim that reaches DDR.
Where only some of a machine's shims do (`aie2:ve2802`: 12 of 38), that small array is some adjacent columns of it: a column whose
own shim has no way to DDR is served by one further west or east, over the wires between switches in the row of shims. There are
four of these each way between two neighbours, and a shim has two channels each way, so that two shims at most serve columns
beyond any border. Memory tiles above the first of a column only pass streams on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

from sparsec.backends.aie.machine import Machine
from sparsec.backends.aie.registers import Grid, Tile, address, split
from sparsec.backends.aie.switch import Channel, Flow
from sparsec.backends.aie.transaction import Operation, Sync

CORE_ROWS = 4  # a memory tile has as many channels to take results from the cores of its column
_ACROSS = 2  # shims whose streams cross a border one way: two channels each, of four wires
_MOST_COLUMNS = 8


@dataclass(frozen=True)
class Part:
    """Columns `first`, .. of `machine`, as a small array `grid` has them; `shims` are the columns of what serves each."""

    machine: Grid
    grid: Grid
    first: int
    shims: tuple[int, ...]

    @property
    def whole(self) -> bool:
        """Whether columns are the machine's."""
        return self.grid.columns == self.machine.columns

    @property
    def columns(self) -> range:
        """The machine's columns."""
        return range(self.first, self.first + self.grid.columns)

    def tile(self, tile: Tile) -> Tile:
        """Where a tile of the small array lies."""
        return Tile(self.first + tile.column if tile.row else self.shims[tile.column], tile.row)

    def cores(self) -> Iterator[Tile]:
        """The machine's cores in these columns, row by row: the lowest ones, but all rows of a whole machine."""
        return iter(self.machine.cores()) if self.whole else map(self.tile, self.grid.cores())

    def flows(self, flows: Iterable[Flow]) -> list[Flow]:
        """Circuits between the same channels in the machine."""

        def moved(channel: Channel) -> Channel:
            return replace(channel, tile=self.tile(channel.tile))

        return [Flow(moved(f.source), tuple(map(moved, f.destinations))) for f in flows]

    def moved(self, operations: Iterable[Operation]) -> list[Operation]:
        """Operations for the small array as operations for the machine."""
        return list(operations) if self.whole else [m for op in operations for m in self._moved(op)]

    def _moved(self, op: Operation) -> Iterator[Operation]:
        if isinstance(op, Sync):
            yield from self._syncs(op)
            return
        tile, offset = split(op.address)
        yield replace(op, address=address(self.tile(tile), offset))

    def _syncs(self, op: Sync) -> Iterator[Sync]:
        """One for all columns that are neighbours in the machine, too."""
        tiles = [self.tile(Tile(op.tile.column + c, op.tile.row)) for c in range(op.columns)]
        begun = 0
        for i in range(1, len(tiles) + 1):
            if i == len(tiles) or tiles[i].column != tiles[i - 1].column + 1:
                yield replace(op, tile=tiles[begun], columns=i - begun)
                begun = i

    def told(self) -> str:
        """Which columns and rows compute, and how data reach them, in words."""
        rows = f"rows {self.grid.first_core_row} to {self.grid.first_core_row + self.grid.core_rows - 1}"
        cores = self.machine.columns * self.machine.core_rows
        where = f"columns {self.columns[0]} to {self.columns[-1]}, {rows}"
        used = f"{self.grid.columns * self.grid.core_rows} of {cores} cores compute: {where}"
        if self.whole:
            return used
        far = [f"{c} by that of {s}" for c, s in zip(self.columns, self.shims, strict=True) if c != s]
        return f"{used}; memory tiles of row 1; columns are served by their own shims" + (f", {', '.join(far)}" if far else "")

    @property
    def why(self) -> str:
        """What keeps more of the machine from computing, in words; "" where all of it does."""
        found = []
        if self.grid.core_rows < min(self.machine.core_rows, CORE_ROWS):
            found.append(f"columns have streams for as many rows of cores as there are columns, {self.grid.columns}")
        elif self.grid.core_rows < self.machine.core_rows:
            found.append(f"a memory tile takes results of {CORE_ROWS} cores")
        if not self.whole:
            shims = f"{len(set(self.machine.shim_columns or ()))} of {self.machine.columns} shims reach DDR"
            found.append(f"{shims}, and {_ACROSS} of them at most serve columns beyond a border between two")
        return "; ".join(found)


def peak(machine: Machine, element: str) -> int:
    """Dense products of an element that can start in a cycle in a machine, or in the cores of a part of its columns."""
    part = part_of(machine.grid)
    if part is None or part.whole:
        return machine.peak(element)
    return machine.peak(element) // machine.cores * part.grid.columns * part.grid.core_rows


@cache
def part_of(machine: Grid) -> Part | None:
    """The part of a machine that layers are cut over: all columns where every shim reaches DDR, else the most adjacent ones that
    shims can serve, and of these the nearest to their shims; None where there are not two. Rows are no
    more than columns."""
    small = replace(machine, core_rows=min(machine.core_rows, CORE_ROWS, machine.columns), shim_columns=None)
    shims = sorted(range(machine.columns) if machine.shim_columns is None else set(machine.shim_columns))
    if len(shims) == machine.columns > 1:
        return Part(machine, small, 0, tuple(shims))
    for columns in range(min(_MOST_COLUMNS, len(shims)), 1, -1):
        found = []
        for first in range(machine.columns - columns + 1):
            near = sorted(sorted(shims, key=lambda s: (abs(2 * s - 2 * first - columns + 1), s))[: columns + 2])
            for chosen in combinations(near, columns):
                ways = [(s, first + i) for i, s in enumerate(chosen)]
                if _crossings(ways) <= _ACROSS:
                    found.append((sum(abs(s - c) for s, c in ways), first, chosen))
        if found:
            _, first, chosen = min(found)
            return Part(machine, replace(small, columns=columns, core_rows=min(small.core_rows, columns)), first, chosen)
    return None


def _crossings(ways: Sequence[tuple[int, int]]) -> int:
    """The most ways (from a shim's column to a column) that cross a border between columns in one direction."""
    columns = [c for way in ways for c in way]
    borders = range(min(columns), max(columns))
    return max((max(sum(a <= b < c for a, c in w) for w in (ways, [(c, a) for a, c in ways])) for b in borders), default=0)
