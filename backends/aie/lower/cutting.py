"""How a layer is cut: positions and channels over the cores, rows over tiles, and input channels over parts of these."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sparsec.backends.aie.lower.geometry import Share
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.modes import Mode

Array = np.ndarray[Any, Any]

RING = 2  # tiles of data that a memory tile holds at a time, if it does not hold all
LOCK_MAXIMUM = 63  # that a lock counts to
_PARTS = 4  # of a tile in a memory tile, if cores get it in fewer
_FEW_PARTS = 2  # where each takes several descriptors
_TRIMMED = 8  # blocks of channels at most that come one by one, so that their planes have only the rows that are read


@dataclass(frozen=True)
class Cutting:
    """The parts of a layer. `rows` of outputs are one tile; chunks have at most `chunk_blocks` blocks of weights; `kept`
    weights stay in cores for all tiles; `buffers` of data are in a core, whose memory has `core_bytes` in banks of `bank_bytes`.
    `height` and `width` are the output's.

    With `splits`, tiles come to cores in so many parts of the input channels, which are units; sums of all output channels of a
    core are kept from one to the next. With `groups`, these are taken some at a time, and tiles come again for each.

    Chunks of `sparse` products make two blocks of a core's output channels, out of pairs of blocks of input channels.
    """

    layer: ConvLayer
    mode: Mode
    height: int
    width: int
    rows: int
    chunk_blocks: int
    kept: bool
    buffers: int
    core_bytes: int
    bank_bytes: int
    splits: int = 1
    groups: int = 1
    sparse: bool = False

    @cached_property
    def share(self) -> Share:
        """What a core computes of one tile, and reads at a time."""
        blocks = self.layer.input_blocks // self.inputs
        parts = self.parts // self.splits
        return Share(self.layer.window, blocks, self.rows, self.width, self.layer.element, self.sparse, parts, self.trimmed)

    @property
    def inputs(self) -> int:
        """Parts of the input channels: those that come to a core one after the other, or those of the cores of a chain."""
        return self.splits * self.mode.chain

    @property
    def diagonal(self) -> bool:
        """Whether parts of the input channels are heads, and each output block has all of its weights in one of them."""
        return self.layer.computed is not None and self.splits > 1

    @cached_property
    def bands(self) -> int:
        """Parts of the output rows: those of the positions that have the same part of the channels."""
        return self.mode.position_parts // self.layer.fan

    @property
    def told(self) -> str:
        """How it is cut, in words."""
        if self.layer.fan == 1:
            return self.mode.told
        bands = f", rows of each in {self.bands} bands" if self.bands > 1 else ""
        return f"channels in {self.layer.fan} parts{bands}, in place of positions: {self.mode.told}"

    @cached_property
    def band(self) -> int:
        """Output rows of one part of the positions."""
        return -(-self.height // self.bands)

    @cached_property
    def tiles(self) -> int:
        """Tiles of a band."""
        return -(-self.band // self.rows)

    @cached_property
    def parts(self) -> int:
        """Parts of a tile in memory tiles, some of which come through one channel and others through the next: there may be more
        than cores get it in, where a column has one stream of data, or two of which each has a channel; of several planes where
        one descriptor of each serves all parts."""
        streams, blocks = self.mode.column_streams, self.source_blocks
        several = self.planes > 1
        if self.groups > 1 or streams > (2 if self.in_turn else 1) or (several and not self.serves_all):
            return self.splits
        most = _PARTS if self.mode.streams == 1 or self.tiles == 1 else _FEW_PARTS
        if self.tiles == 1 and self.in_turn:  # each unit, so that cores have the first one soon
            most *= self.splits
        if several and blocks <= _TRIMMED and not self.sparse:
            most = max(most, blocks)
        found = range(max(min(most, LOCK_MAXIMUM // min(RING, self.tiles)), self.splits), 0, -1)
        together = 2 if self.sparse else 1  # blocks of a pair are in one part
        return next(n for n in found if n % self.splits == 0 and (blocks % (n * together) == 0 or n == self.splits))

    @property
    def trimmed(self) -> bool:
        """Whether planes of even and odd rows have as many as the kernel reads of each, and not all as many as the longest: of
        parts that are single blocks, so that descriptors do not walk from one block to the next."""
        return self.planes > 1 and self.parts == self.source_blocks and not self.sparse

    @cached_property
    def planes(self) -> int:
        """Planes of a block of channels: rows and columns of each remainder by the stride."""
        return len(Share(self.layer.window, self.source_blocks, self.rows, self.width).planes)

    @property
    def in_turn(self) -> bool:
        """Whether parts of tiles lie and move one like the other, so that one descriptor serves all."""
        return self.layer.residual is None and self.groups == 1

    @property
    def serves_all(self) -> bool:
        """Whether a descriptor of a memory tile for each plane sends all parts of all tiles."""
        return self.in_turn and (self.tiles == 1 or self.mode.column_streams > 1)

    @property
    def units(self) -> int:
        """Parts of tiles, as they come to a core one after the other."""
        return self.tiles * self.groups * self.splits

    def valid_rows(self, part: int) -> int:
        """Rows of a part's band that the output has."""
        return max(0, min(self.band, self.height - self.first_row(part)))

    def full_tiles(self, part: int) -> int:
        """Tiles of a part's band of which the output has all rows."""
        return self.valid_rows(part) // self.rows

    def last_vectors(self, part: int) -> int:
        """How often a core multiplies 4 vectors of the tile behind those, of which the output has some rows, or none."""
        return replace(self.share, rows=max(1, self.valid_rows(part) % self.rows)).tiles

    @cached_property
    def quads(self) -> int:
        """How often a core multiplies 4 vectors of all tiles, for a chunk: the one that has most to do."""
        full = ((self.full_tiles(p), self.last_vectors(p)) for p in range(self.mode.position_parts))
        return max(n * self.share.tiles + (self.tiles - n) * last for n, last in full)

    def first_row(self, part: int) -> int:
        """The output's first row of a part's band."""
        return self._fan_place(part)[1] * self.band

    def first_block(self, part: int) -> int:
        """The first block of channels of a part of the positions, where these are parts of the channels, too."""
        return self.layer.fan_block(self._fan_place(part)[0])

    def _fan_place(self, part: int) -> tuple[int, int]:
        """The part of the channels, and the band, of a part of the positions: two that come and leave through one channel have
        channels that follow one another, so that a descriptor of a shim serves both."""
        if self.layer.fan == 1:
            return 0, part
        column, row = divmod(part, self.mode.groups[1])
        place = column * self.mode.groups[1] + row // 2 + row % 2 * -(-self.mode.groups[1] // 2)
        if self.layer.fan % 2:
            return divmod(place, self.bands)
        pair, second = divmod(place, 2)
        return 2 * (pair // self.bands) + second, pair % self.bands

    @property
    def all_cores(self) -> bool:
        """Whether all cores have results."""
        return self.height > (self.bands - 1) * self.band and self.layer.output_blocks >= self.mode.channel_parts

    def output_blocks(self, part: int) -> range:
        """The blocks of output channels of a part of the channels: parts take turns, so that what comes for all of them in the
        order of channels serves them alike."""
        return range(part, self.layer.output_blocks, self.mode.channel_parts)

    @property
    def counts(self) -> Array:
        """Nonzero blocks of weights, int [blocks of output channels, parts of the input channels]; of sparse products, operands
        of pairs of these."""
        return self.layer.sparse_counts(self.inputs, self.mode.channel_parts) if self.sparse else self.layer.counts(self.inputs)

    @property
    def results_together(self) -> int:
        """Blocks of output channels that a chunk makes."""
        return 2 if self.sparse else 1

    def made_by(self, row: int) -> tuple[int, ...]:
        """The blocks of output channels that a row of `counts` makes."""
        if not self.sparse:
            return (row,)
        every = self.mode.channel_parts
        first = row % every + row // every * 2 * every
        return first, first + every

    @property
    def rows_of_counts(self) -> int:
        """Blocks of output channels, or their pairs."""
        return self.layer.output_blocks // self.results_together

    def counts_of(self, part: int) -> range:
        """The rows of `counts` that cores with a part of the weights have, of all input channels if a chain shares these."""
        if self.mode.channelwise:
            first = self.first_block(part)
            return range(first, first + self.layer.output_blocks)
        return range(part, self.rows_of_counts, self.mode.channel_parts)

    @cached_property
    def all_pieces(self) -> Array:
        """Chunks of each part of the input channels, int [blocks of output channels]."""
        most = self.counts.max(axis=1)
        if self.groups > 1:
            most[:] = most.max()
        found: Array = np.maximum(1, -(-most // self.chunk_blocks))
        return found

    def pieces(self, block: int) -> int:
        """Chunks that a block of output channels takes of each part of the input channels."""
        return int(self.all_pieces[block])

    @cached_property
    def _chunks(self) -> tuple[int, ...]:
        return tuple(int(self.all_pieces[list(self.counts_of(p))].sum()) for p in range(self.mode.channel_parts))

    def unit_chunks(self, part: int) -> int:
        """Chunks of a part of the channels that a unit is multiplied by."""
        return self._chunks[part] // (self.splits if self.diagonal else self.groups)

    @property
    def streamed(self) -> int:
        """How often weights go to the cores."""
        return 1 if self.kept else self.tiles

    @property
    def residual_in_turn(self) -> bool:
        """Whether pieces of the residual move one like the other, behind all data: that of the only tile, of several streams."""
        return self.mode.residual_streams > 1 and self.tiles == 1

    @cached_property
    def in_parts(self) -> bool:
        """Whether some sums are made of several chunks."""
        return (self.splits > 1 and not self.diagonal) or bool(self.all_pieces.max() > 1)

    @cached_property
    def source(self) -> Share:
        """What a memory tile holds of one tile: all input channels, or those of one core of a chain."""
        of = self.layer.window, self.source_blocks, self.rows, self.width
        return Share(*of, self.layer.element, trimmed=self.trimmed)

    @property
    def source_blocks(self) -> int:
        """Blocks of input channels of a tile in memory tiles: all, or those of one core of a chain."""
        return self.layer.input_blocks // self.mode.chain

    @cached_property
    def most_results(self) -> int:
        """Blocks of output channels of the part that has most."""
        return len(self.output_blocks(0))
