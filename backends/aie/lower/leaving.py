"""In which order results leave memory tiles for DDR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from sparsec.backends.aie.lower.geometry import BLOCK
from sparsec.backends.aie.lower.tiling import Tiling

Pattern = tuple[int, int, list[tuple[int, int]]]
RESULT_PIECES = 10  # descriptors at most for the results that leave, half of them through each channel, if cores are not more
_LEAVING_PARTS = 32  # of the results of one tile
_LEAST_WORDS = 192  # of a part: to start a descriptor takes some cycles


@dataclass(frozen=True, slots=True)
class Leaving:
    """The order for a layer."""

    tiling: Tiling
    pieces: int = RESULT_PIECES

    def patterns(self, column: int, leaving: int) -> list[Pattern]:
        """Results that leave a column's memory tile through one channel: (first tile, tiles, the rows of cores and the output
        rows of each of their tiles), tile by tile; tiles without valid rows are left out."""
        t, channels = self.tiling, self.tiling.mode.leaving(column)
        wanted = []
        for i in range(t.tiles):
            found = []
            for r in range(leaving, t.mode.grid.core_rows, channels):
                positions, part = t.mode.parts(column, r)
                rows = min(t.rows, t.valid_rows(positions) - i * t.rows)
                if leaving < channels and rows > 0 and t.output_blocks(part) and t.mode.finishes(r):
                    found.append((r, rows))
            wanted.append((i, found))
        groups = [list(g) for _, g in groupby(wanted, key=lambda w: w[1])]
        return [(g[0][0], len(g), g[0][1]) for g in groups if g[0][1]]

    def several(self, column: int, leaving: int) -> bool:
        """Whether more than one tile leaves through a channel."""
        return sum(count for _, count, _ in self.patterns(column, leaving)) > 1

    def parts(self, column: int, pattern: Pattern) -> int:
        """In how many parts of equal size the results of a single tile leave, by one descriptor for each core; 1 for tiles."""
        blocks = [len(self.tiling.output_blocks(self.tiling.mode.parts(column, r)[1])) for r, _ in pattern[2]]
        if pattern[1] > 1 or len(set(blocks)) > 1:
            return 1
        t = self.tiling
        words = min(height for _, height in pattern[2]) * t.width * BLOCK * t.layer.result_size // 4
        found = range(min(_LEAVING_PARTS, blocks[0]), 1, -1)
        return next((n for n in found if blocks[0] % n == 0 and blocks[0] // n * words >= _LEAST_WORDS), 1)

    def together(self, column: int, patterns: Sequence[Pattern], pattern: Pattern) -> list[tuple[int, int, range]]:
        """(row of cores, output rows, blocks of channels) of results of a tile, in the order in which they leave: some blocks
        of each core at a time, as many as there are `parts`, or descriptors."""
        once = self.parts(column, pattern)
        most = sum(len(p[2]) for p in patterns)
        mode = self.tiling.mode
        crowded = self.tiling.layer.residual is not None and mode.groups[1] * mode.streams > 2  # by what arrives
        second = pattern[2][0][0] % mode.leaving(column)
        parts = once if once > 1 or crowded else max(1, (self.pieces + 1 - second) // 2 // most)
        found = []
        for part in range(parts if once == 1 else 1):
            for r, height in pattern[2]:
                blocks = self.tiling.output_blocks(self.tiling.mode.parts(column, r)[1])
                own = blocks[len(blocks) * part // parts : len(blocks) * (part + 1) // parts]
                if own:
                    found.append((r, height, own))
        return found
