"""In which order results leave memory tiles for DDR: all of them, or every n-th row and column of a layer that is `thinned`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import gcd

from sparsec.backends.aie.lower.geometry import BLOCK
from sparsec.backends.aie.lower.tiling import Tiling

RESULT_PIECES = 10  # descriptors at most for the results that leave, half of them through each channel, if cores are not more
_LEAVING_PARTS = 32  # of the results of one tile
_LEAST_WORDS = 192  # of a part: to start a descriptor takes some cycles


@dataclass(frozen=True, slots=True)
class Rows:
    """What leaves of a tile of the core in a `row`: so many output rows (`height`) behind those `above`. The tile's number is
    counted from the pattern's first; `waits` says how many tiles a lock has counted since the last one of which rows left."""

    tile: int
    row: int
    above: int
    height: int
    waits: int


@dataclass(frozen=True, slots=True)
class Pattern:
    """Tiles that leave alike, from the `first` on: `times` what `rows` has of `period` tiles."""

    first: int
    period: int
    times: int
    rows: tuple[Rows, ...]


@dataclass(frozen=True, slots=True)
class Leaving:
    """The order for a layer; of `whole_tiles`, where a lock counts these."""

    tiling: Tiling
    pieces: int = RESULT_PIECES
    whole_tiles: bool = False

    def patterns(self, column: int, leaving: int) -> list[Pattern]:
        """Results that leave a column's memory tile through one channel, tile by tile; tiles without rows that leave are left
        out."""
        wanted = self._tiles(column, leaving)
        period = period_of(self.tiling)
        found: list[Pattern] = []
        i = 0
        while i < len(wanted):
            each, times = max(((n, _repeated(wanted[i:], n)) for n in dict.fromkeys((1, period))), key=lambda f: f[0] * f[1])
            if times == 1:
                each = 1
            rows = tuple(replace(r, tile=n) for n in range(each) for r in wanted[i + n])
            if rows:
                found.append(Pattern(i, each, times, rows))
            i += each * times
        return found

    def _tiles(self, column: int, leaving: int) -> list[list[Rows]]:
        """What leaves of each tile."""
        t = self.tiling
        found: list[list[Rows]] = [[] for _ in range(t.tiles)]
        for r in t.mode.leave_through(column, leaving) if leaving < t.mode.leaving(column) else ():
            positions, part = t.mode.parts(column, r)
            if not t.output_blocks(part):
                continue
            before = -1
            for tile, above, height in leaving_rows(t, positions):
                found[tile].append(Rows(0, r, above, height, tile - before))
                before = tile
        return found

    def several(self, column: int, leaving: int) -> bool:
        """Whether more than one tile leaves through a channel."""
        return sum(p.times for p in self.patterns(column, leaving)) > 1

    def parts(self, column: int, pattern: Pattern) -> int:
        """In how many parts of equal size the results of a single tile leave, by one descriptor for each core; 1 for tiles."""
        blocks = [len(self.tiling.output_blocks(self.tiling.mode.parts(column, r.row)[1])) for r in pattern.rows]
        if self.whole_tiles or pattern.times > 1 or len(set(blocks)) > 1 or any(r.waits > 1 for r in pattern.rows):
            return 1
        t = self.tiling
        width = len(range(0, t.width, every_of(t)))
        words = min(r.height for r in pattern.rows) * width * BLOCK * t.layer.result_size // 4
        found = range(min(_LEAVING_PARTS, blocks[0]), 1, -1)
        return next((n for n in found if blocks[0] % n == 0 and blocks[0] // n * words >= _LEAST_WORDS), 1)

    def pieces_of(self, channel: int, cores: int) -> int:
        """In how many pieces the results of a tile leave through a channel, for which so many descriptors of cores are needed."""
        mode, added = self.tiling.mode, self.tiling.layer.residual is not None
        crowded = added and mode.groups[1] * mode.residual_streams * mode.chain > 2  # by what arrives
        return 1 if crowded else max(1, (self.pieces + 1 - channel) // 2 // cores)

    def together(self, column: int, patterns: Sequence[Pattern], pattern: Pattern) -> list[tuple[Rows, range]]:
        """Rows and blocks of channels of results, in the order in which they leave: some blocks of each core at a time, as many
        as there are `parts`, or descriptors."""
        once = self.parts(column, pattern)
        most = sum(len(p.rows) for p in patterns)
        mode = self.tiling.mode
        second = pattern.rows[0].row // mode.chain % mode.leaving(column)
        parts = once if once > 1 else self.pieces_of(second, most)
        found = []
        for tile in dict.fromkeys(r.tile for r in pattern.rows):
            for part in range(parts if once == 1 else 1):
                for rows in (r for r in pattern.rows if r.tile == tile):
                    blocks = self.tiling.output_blocks(self.tiling.mode.parts(column, rows.row)[1])
                    own = blocks[len(blocks) * part // parts : len(blocks) * (part + 1) // parts]
                    if own:
                        found.append((rows, own))
        return found


def every_of(t: Tiling) -> int:
    """Which rows and columns leave for DDR: every so many-th."""
    return t.layer.thinned.every if t.layer.thinned else 1


def period_of(t: Tiling) -> int:
    """Tiles after which the rows that leave are the same of each."""
    return every_of(t) // gcd(every_of(t), t.rows)


def leaving_rows(t: Tiling, positions: int) -> Iterator[tuple[int, int, int]]:
    """Tiles of a part of the positions of which rows leave, the rows above these, and how many they are."""
    every, valid = every_of(t), t.valid_rows(positions)
    for tile in range(t.tiles):
        above = -(t.first_row(positions) + tile * t.rows) % every
        rows = range(above, min(t.rows, valid - tile * t.rows), every)
        if rows:
            yield tile, above, len(rows)


def _repeated(tiles: Sequence[Sequence[Rows]], period: int) -> int:
    """How often a list begins with the same `period` tiles, at least once."""
    first = tiles[:period]
    times = 1
    while len(tiles) >= (times + 1) * period and tiles[times * period : (times + 1) * period] == first:
        times += 1
    return times
