"""Sizes that follow from how a layer is cut: tiles, chunks, and the bytes of both in cores and memory tiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sparsec.backends.aie.core.program import PARAMETER_BYTES
from sparsec.backends.aie.lower.chunks import HEADER_BYTES
from sparsec.backends.aie.lower.geometry import BLOCK, TILE_VECTORS, VECTOR_BYTES, Share
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.modes import Mode

QUAD_BYTES = TILE_VECTORS * VECTOR_BYTES  # what a core multiplies together
SUM_BYTES = 512  # int32 sums of it for 8 channels
RING = 2  # tiles of data that a memory tile holds at a time
LOCK_MAXIMUM = 63


@dataclass(frozen=True)
class Tiling:
    """A way to compute a layer. `rows` of outputs are one tile; chunks have at most `chunk_blocks` blocks of weights; `kept`
    weights stay in cores for all tiles; `buffers` of data are in a core. `height` and `width` are the output's."""

    layer: ConvLayer
    mode: Mode
    height: int
    width: int
    rows: int
    chunk_blocks: int
    kept: bool
    buffers: int

    @cached_property
    def share(self) -> Share:
        """What one tile computes and reads."""
        return Share(self.layer.window, self.layer.input_blocks, self.rows, self.width)

    @property
    def band(self) -> int:
        """Output rows of one part of the positions."""
        return -(-self.height // self.mode.position_parts)

    @property
    def tiles(self) -> int:
        """Tiles of a band."""
        return -(-self.band // self.rows)

    def valid_rows(self, part: int) -> int:
        """Rows of a part's band that the output has."""
        return max(0, min(self.band, self.height - part * self.band))

    def output_blocks(self, part: int) -> range:
        """The blocks of output channels of a part of the channels."""
        each = -(-self.layer.output_blocks // self.mode.channel_parts)
        return range(min(part * each, self.layer.output_blocks), min((part + 1) * each, self.layer.output_blocks))

    @property
    def block_counts(self) -> tuple[int, ...]:
        """Nonzero blocks of each block of output channels."""
        return self.layer.block_counts

    def pieces(self, block: int) -> int:
        """Chunks that a block of output channels takes."""
        return max(1, -(-self.block_counts[block] // self.chunk_blocks))

    @cached_property
    def chunk_bytes(self) -> int:
        """Bytes of the largest chunk: all take as much."""
        most = max(min(n, self.chunk_blocks) for n in self.block_counts)
        n = max(2, most + most % 2)
        block = VECTOR_BYTES if self.layer.depthwise else BLOCK * BLOCK
        return -(-(HEADER_BYTES + -(-2 * n // 32) * 32 + n * block) // QUAD_BYTES) * QUAD_BYTES

    def chunks(self, part: int) -> int:
        """Chunks of a part of the channels."""
        return sum(self.pieces(b) for b in self.output_blocks(part))

    @cached_property
    def most_chunks(self) -> int:
        """Chunks of the part that has most."""
        return max(self.chunks(p) for p in range(self.mode.channel_parts))

    @property
    def streamed(self) -> int:
        """How often weights go to the cores."""
        return 1 if self.kept else self.tiles

    @property
    def data_bytes(self) -> int:
        """Vectors of one tile in a core."""
        return self.share.data_vectors * VECTOR_BYTES

    @property
    def residual_stride(self) -> int:
        """Bytes of the residual of 8 channels in a core: whole rows."""
        return self.share.residual_rows * self.share.pitch * VECTOR_BYTES

    @property
    def tile_bytes(self) -> int:
        """One tile of data and residual in a core."""
        return self.data_bytes + (self.layer.output_blocks * self.residual_stride if self.layer.residual else 0)

    @property
    def result_bytes(self) -> int:
        """Results of one chunk in a core."""
        return self.share.tiles * self.result_quad

    @property
    def result_quad(self) -> int:
        """Results of 4 vectors."""
        return QUAD_BYTES * self.layer.result_size

    @property
    def in_parts(self) -> bool:
        """Whether some sums are made of several chunks."""
        return any(self.pieces(b) > 1 for b in range(self.layer.output_blocks))

    @property
    def core_demand(self) -> dict[str, int]:
        """Bytes of a core's memory by what is there."""
        slots = self.most_chunks if self.kept else 2
        return {
            # the last vectors of a tile read a little beyond the data, of which no result is kept
            "data": self.buffers * (self.tile_bytes + QUAD_BYTES),
            "weights": slots * self.chunk_bytes,
            "results": 2 * (self.result_bytes + self.result_quad),
            "partial sums": self.share.tiles * SUM_BYTES + SUM_BYTES if self.in_parts else 0,
            "parameters": 2 * PARAMETER_BYTES,
        }

    @property
    def source_bytes(self) -> int:
        """One tile of data in a memory tile."""
        return self.share.blocks * self.share.source_rows * self.share.source_columns * BLOCK

    @property
    def residual_source_bytes(self) -> int:
        """One tile of the residual in a memory tile."""
        if not self.layer.residual:
            return 0
        return self.layer.output_blocks * self.share.residual_rows * self.share.residual_columns * BLOCK

    @property
    def stored_bytes(self) -> int:
        """Results of 8 channels of one tile in a memory tile."""
        return self.rows * self.share.stored_columns * BLOCK * self.layer.result_size

    @property
    def most_results(self) -> int:
        """Blocks of output channels of the part that has most."""
        return len(self.output_blocks(0))

    @property
    def result_ring(self) -> int:
        """Tiles of results that a memory tile holds at a time: two where a lock can count their blocks."""
        return 2 if 2 * self.most_results <= LOCK_MAXIMUM else 1
