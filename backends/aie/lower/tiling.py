"""Sizes that follow from how a layer is cut (`cutting`): pages of weights, and the bytes of what is in cores and memory tiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sparsec.backends.aie.core.program import HEADER_BYTES, LEAST_BLOCKS, PARAMETER_BYTES
from sparsec.backends.aie.core.sparse_b import PAIR_BYTES
from sparsec.backends.aie.descriptor_forms import WORD_BYTES
from sparsec.backends.aie.lower.chunks import chunk_bytes
from sparsec.backends.aie.lower.cutting import LOCK_MAXIMUM, Cutting
from sparsec.backends.aie.lower.geometry import BLOCK, BYTE, LANES, LOAD_BYTES, TILE_VECTORS
from sparsec.backends.aie.lower.modes import ARRIVING
from sparsec.backends.aie.lower.page_sizes import Rates, Streams, in_one
from sparsec.backends.aie.lower.paging import Chunks, Layout, Paging

Array = np.ndarray[Any, Any]

QUAD = TILE_VECTORS * LANES * BLOCK  # elements that a core multiplies together
SUM_BYTES = 4 * QUAD  # int32 or float32 sums of it for 8 channels
SKIPPED_BYTES = 1280  # where residuals that are other cores' go
TRANSFER = 35  # cycles of a channel from one descriptor to the next
CONFLICTS = 1.12  # times what cores take whose loads of data and weights meet in a bank
_ALIGN = 32
_BUSY = 4  # times 4 vectors, for whose products by a block of weights a core takes as long as to get it
_PIECES = 8  # of a core's residual of the only tile at most


@dataclass(frozen=True)
class Tiling(Cutting):
    """A way to compute a layer. Pages of weights are as small as possible if `tight`, which takes some time to find."""

    tight: bool = False

    @property
    def frame_bytes(self) -> int:
        """Bytes of a chunk beside blocks that come out of a computed tensor."""
        assert self.layer.computed is not None
        return self.paging.sizes[0] - self.blocks_bytes

    @property
    def blocks_bytes(self) -> int:
        """Bytes of the blocks of a chunk that come out of a computed tensor."""
        assert self.layer.computed is not None
        return self.layer.computed.inner * self.layer.element.block_bytes

    @cached_property
    def _streams(self) -> Streams:
        bands = self.bands if self.mode.channelwise else 0
        key = (self.splits, self.groups, self.chunk_blocks, self.mode.channel_parts, self.mode.chain, self.sparse, bands)
        known = self.layer.streams
        if key not in known:
            known[key] = Streams(self._lengths())
        return known[key]

    def _lengths(self) -> list[Chunks]:
        """The chunks of each part of the weights, in the order in which cores take them."""
        element, most = self.layer.element, int(self.all_pieces.max())
        each = PAIR_BYTES if self.sparse else LOAD_BYTES if self.layer.depthwise else element.block_bytes
        piece = np.arange(most)
        blocks = np.clip(self.counts[:, :, None] - piece * self.chunk_blocks, 0, self.chunk_blocks)
        goes_on = (np.arange(self.inputs)[:, None] + piece > 0) & (not self.diagonal)
        least = goes_on & (element is BYTE and not self.sparse and self.mode.chain == 1)
        biases = np.where(goes_on, 0, self.results_together)
        sizes, leads = chunk_bytes(blocks, np.where(least, LEAST_BLOCKS[True], LEAST_BLOCKS[False]), each, biases)
        sizes[np.broadcast_to(piece >= self.all_pieces[:, None, None], sizes.shape)] = 0
        if self.diagonal:
            sizes[blocks == 0] = 0
        found = []
        for p in range(self.mode.weight_parts // self.mode.chain):
            rows = list(self.counts_of(p))
            own = [sizes[rows], leads[rows]]
            if self.mode.chain > 1:
                found += [Chunks(tuple(n), tuple(m)) for n, m in zip(*(o[:, :, 0].T.tolist() for o in own), strict=True)]
                continue
            within = (self.groups, len(own[0]) // self.groups, self.splits, most)
            own = [o.reshape(within).swapaxes(1, 2).reshape(-1) for o in own]
            found.append(Chunks(*(tuple(o[own[0] > 0].tolist()) for o in own)))
        return found

    @cached_property
    def least_demand(self) -> int:
        """Bytes of a core's memory at least: without a ring of weights, or with all that stay."""
        return sum(self._demand_beside_weights.values()) + (self._streams.longest if self.kept else 0)

    @cached_property
    def least_stream(self) -> float:
        """Cycles of the longest stream of weights for each tile at least."""
        return self._streams.longest / WORD_BYTES

    @cached_property
    def paging(self) -> Paging:
        """The pages that chunks come in: the cheapest that a core has room for, preferably with data and weights apart."""
        several, again = self.mode.chain > 1, self.streamed > 1
        rates = Rates(TRANSFER, len(ARRIVING) * self.mode.grid.columns)
        if self.mode.weights_first:
            return in_one(self._streams.chunks, rates)
        found = self._streams.pagings(rates, kept=self.kept, again=again, room=self.core_bytes, several=several)
        room = self.core_bytes - sum(self._demand_beside_weights.values())

        def apart(p: Paging) -> bool:
            return self.gap_of(p) <= room - p.bytes

        counted = [p for p in found if not self.kept or max(p.counts) <= LOCK_MAXIMUM]
        fitting = [p for p in counted if p.bytes <= room] or found[:1]
        best = min(fitting, key=lambda p: p.cost * (1 if apart(p) else CONFLICTS))
        if not self.tight:
            return best
        fits = apart if apart(best) else lambda p: p.bytes <= room
        tight = self._streams.tightened(best, rates, again=again, room=room, fits=fits)
        waits = self.share.tiles < _BUSY
        return self._streams.longest_ring(tight, again=again, fits=fits) if waits else tight

    def gap_of(self, paging: Paging, more: int = 0) -> int:
        """Bytes in a core between data, which take so many `more`, and weights, so that a bank holds no more than one of both,
        and one half of the ring of weights comes where the other is not read."""
        first = paging.first_half
        demand = self._demand_beside_weights
        return -(demand["data"] + more + demand["residual"] + first) % self.bank_bytes

    def layout(self, part: int) -> Layout:
        """Where the chunks of a part of the weights are."""
        return self.paging.layout(part, self._streams.chunks[part], again=self.streamed > 1)

    @cached_property
    def page_bytes(self) -> tuple[int, ...]:
        """Bytes of a page of the weights of each part of the output channels."""
        return self.paging.sizes

    def pages(self, part: int) -> int:
        """Pages of a part of the weights."""
        return self.paging.counts[part]

    @property
    def chunk_start(self) -> int:
        """Where the blocks of a page's first chunk begin, if all are alike."""
        return self._streams.chunks[0].lead + HEADER_BYTES

    @cached_property
    def data_bytes(self) -> int:
        """Vectors of one unit in a core."""
        return self.share.data_vectors * self.layer.element.vector_bytes

    @property
    def results_buffers(self) -> int:
        """Buffers of results in a core: what chunks make while results of the one before leave."""
        return 2 * self.results_together

    @property
    def residual_words(self) -> int:
        """Words of the residual of 8 channels that come to a core: whole rows."""
        return self.share.rows * self.share.result_pitch * self.layer.element.vector_bytes // 4

    @property
    def residual_stride(self) -> int:
        """Bytes from the residual of 8 channels in a core to that of the next, with room for a word of each other part."""
        return -(-4 * (self.residual_words + self.mode.sharing - 1) // _ALIGN) * _ALIGN

    @property
    def residual_lead(self) -> int:
        """Bytes before the first: for what lands there and is another part's."""
        return -(-4 * (self.mode.sharing - 1) // _ALIGN) * _ALIGN

    @property
    def residual_bytes(self) -> int:
        """Bytes of one tile's residual in a core: of its own channels."""
        return self.residual_lead + self.most_results * self.residual_stride if self.layer.residual else 0

    @cached_property
    def residual_parts(self) -> int:
        """Parts that the residual of a tile comes in through a memory tile: `residual_pieces` of one stream, then of the next."""
        if self.mode.residual_streams > 1:
            return self.mode.residual_streams * self.residual_pieces
        most = max(1, 4 // self.mode.groups[1])
        return next(n for n in range(most, 0, -1) if self.layer.output_blocks % n == 0) if self.layer.residual else 0

    @cached_property
    def residual_pieces(self) -> int:
        """Pieces of what a tile's residual is in one of several streams."""
        blocks = self.layer.output_blocks // self.mode.residual_streams
        return next(n for n in range(_PIECES, 0, -1) if blocks % n == 0) if self.residual_in_turn else 1

    @property
    def skips(self) -> bool:
        """Whether residuals of other cores' channels, or data of other positions, come to a core too."""
        return (self.layer.residual is not None and self.mode.sharing > 1) or self.mode.together > 1

    @property
    def unit_bytes(self) -> int:
        """One buffer of data in a core."""
        return self.data_bytes

    @property
    def result_bytes(self) -> int:
        """Results of one chunk in a core."""
        return self.share.tiles * self.result_quad

    @property
    def result_quad(self) -> int:
        """Results of 4 vectors."""
        return QUAD * self.layer.result_size

    @property
    def partial_bytes(self) -> int:
        """Half of the sums of 8 channels in a core; the first store of a chunk lands before them."""
        return (self.share.tiles + 1) * SUM_BYTES // 2

    @property
    def half_sums(self) -> int:
        """Bytes of half of all partial sums in a core."""
        return (
            self.most_results // self.groups if self.splits > 1 and not self.diagonal else int(self.in_parts)
        ) * self.partial_bytes

    @property
    def core_demand(self) -> dict[str, int]:
        """Bytes of a core's memory by what is there."""
        return self._demand_beside_weights | {"weights": self.paging.bytes}

    @cached_property
    def _demand_beside_weights(self) -> dict[str, int]:
        return {
            "data": self.buffers * self.unit_bytes + max(self.share.slack, SKIPPED_BYTES if self.skips else 0),
            "residual": self.residual_bytes,
            "weights": 0,
            "results": self.results_buffers * (self.result_bytes + self.result_quad),
            "partial sums": 2 * self.half_sums,
            "parameters": 2 * PARAMETER_BYTES,
        }

    @cached_property
    def source_bytes(self) -> int:
        """One tile of data in a memory tile."""
        source = self.source
        return source.blocks * source.source_rows * source.source_columns * BLOCK * self.layer.element.bytes

    @cached_property
    def part_bytes(self) -> int:
        """One part of a tile in a memory tile."""
        return self.source_bytes // self.parts

    @cached_property
    def residual_part_bytes(self) -> int:
        """One part of the residual of a tile in a memory tile."""
        return self.residual_source_bytes // max(1, self.residual_parts)

    @property
    def residual_source_bytes(self) -> int:
        """One tile of the residual in a memory tile."""
        if not self.layer.residual:
            return 0
        positions = self.share.rows * self.share.residual_columns
        return self.layer.output_blocks * positions * BLOCK * self.layer.element.bytes

    @cached_property
    def stored_bytes(self) -> int:
        """Results of 8 channels of one tile in a memory tile."""
        return self.rows * self.share.stored_columns * BLOCK * self.layer.result_size

    @property
    def result_ring(self) -> int:
        """Tiles of results that a memory tile holds at a time: two where a lock can count their blocks."""
        return 2 if 2 * self.most_results <= LOCK_MAXIMUM and self.tiles > 1 and self.groups == 1 else 1
