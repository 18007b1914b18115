"""In which order results leave memory tiles for DDR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from sparsec.backends.aie.lower.geometry import BLOCK
from sparsec.backends.aie.lower.tiling import Tiling

Pattern = tuple[int, int, list[tuple[int, int]]]
_LEAVING_PARTS = 5  # descriptors for the results that leave through a channel, if so many do
_MOST_TURNS = 32  # of descriptors for one tile
_LEAST_WORDS = 192  # of a descriptor in turns: to start it takes some cycles


@dataclass(frozen=True, slots=True)
class Leaving:
    """The order for a layer."""

    tiling: Tiling

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
                if leaving < channels and rows > 0 and t.output_blocks(part):
                    found.append((r, rows))
            wanted.append((i, found))
        groups = [list(g) for _, g in groupby(wanted, key=lambda w: w[1])]
        return [(g[0][0], len(g), g[0][1]) for g in groups if g[0][1]]

    def turns(self, column: int, patterns: Sequence[Pattern]) -> int:
        """How often the descriptors of `together` are carried out for a tile, each time for further blocks of channels: more
        than once where there is one tile, and all cores have as many blocks."""
        if self.tiling.tiles > 1 or not patterns:
            return 1
        counts = {len(self._own(column, r)): height for r, height in patterns[0][2]}
        (blocks, height) = next(iter(counts.items()))
        words = height * self.tiling.width * BLOCK * self.tiling.layer.result_size // 4
        fitting = (n for n in range(min(blocks, _MOST_TURNS), 1, -1) if blocks % n == 0 and blocks // n * words >= _LEAST_WORDS)
        return next(fitting, 1) if len(counts) == 1 else 1

    def _own(self, column: int, row: int) -> range:
        return self.tiling.output_blocks(self.tiling.mode.parts(column, row)[1])

    def together(self, column: int, patterns: Sequence[Pattern], rows: Sequence[tuple[int, int]]) -> list[tuple[int, int, range]]:
        """(row of cores, output rows, blocks of channels) of results of a tile, in the order in which they leave: some blocks
        of each core at a time, where there are descriptors for that; the first ones if there are several turns."""
        if (turns := self.turns(column, patterns)) > 1:
            return [(r, height, own[: len(own) // turns]) for r, height in rows if (own := self._own(column, r))]
        most = sum(len(p[2]) for p in patterns)
        found = []
        parts = max(1, _LEAVING_PARTS // most)
        for part in range(parts):
            for r, height in rows:
                blocks = self._own(column, r)
                own = blocks[len(blocks) * part // parts : len(blocks) * (part + 1) // parts]
                if own:
                    found.append((r, height, own))
        return found
