"""The plan of a layer: how it is cut and tiled, its chunks of weights, and where everything is in cores and memory tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsec.backends.aie.core.program import Kind, entries
from sparsec.backends.aie.core.sparse_b import DEPTH
from sparsec.backends.aie.lower.chunks import Chunk
from sparsec.backends.aie.lower.core_places import CorePlaces, in_core
from sparsec.backends.aie.lower.geometry import BFLOAT16
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.memory_places import MemoryPlaces, What, granule, in_memory
from sparsec.backends.aie.lower.modes import Stream
from sparsec.backends.aie.lower.tiling import SUM_BYTES, Tiling
from sparsec.backends.aie.machine import Machine

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LayerPlan:
    """A layer on the array. `pages` of weights are by part of these; `memory` by column."""

    tiling: Tiling
    pages: tuple[tuple[bytes, ...], ...]
    core: CorePlaces
    memory: tuple[MemoryPlaces, ...]

    @property
    def layer(self) -> ConvLayer:
        """What is computed."""
        return self.tiling.layer

    @property
    def weights(self) -> bytes:
        """All pages as memory tiles read them, channel by channel."""
        arrivals = [(c, i) for c in range(len(self.memory)) for i in range(2)]
        return b"".join(b"".join(self.stream_order(c, i)) for c, i in arrivals)

    def stream_order(self, column: int, arrival: int) -> list[bytes]:
        """The pages that come through one channel of a shim in their order: in turns where streams are of one length."""
        places = self.memory[column]
        portions = [places.weights[i] for i in places.arrivals[arrival].weights]
        found = [self.pages[p.stream.part][p.first : p.first + p.count] for p in portions]
        if len({len(f) for f in found}) > 1:
            return [page for pages in found for page in pages]
        size = 1 if places.slots or not found else granule(len(found[0]))
        return [page for at in range(0, len(found[0]) if found else 0, size) for f in found for page in f[at : at + size]]

    def sources(self, what: What, stream: Stream) -> list[tuple[int, int]]:
        """Where a stream's portions are, in their order: columns, and numbers in these."""
        found = [(c, i) for c, m in enumerate(self.memory) for i, p in enumerate(m.portions(what)) if p.stream is stream]
        return sorted(found, key=lambda at: self.memory[at[0]].portions(what)[at[1]].first)


def kinds_of(tiling: Tiling) -> tuple[Kind, ...]:
    """The kinds of product that a layer asks of cores."""
    return tuple(dict.fromkeys(k for b in range(tiling.rows_of_counts) for k in _kinds(tiling, b)))


def _kinds(tiling: Tiling, block: int) -> list[Kind]:
    n, layer = (1 if tiling.diagonal else tiling.inputs) * tiling.pieces(block), tiling.layer
    chained, found = tiling.mode.chain > 1, []
    for i in range(n):
        last = i == n - 1
        residual = layer.residual is not None and last
        signed = (layer.signed[0], layer.signed[1] and residual, layer.signed[2] and last)
        low, high = (b is not None and last for b in layer.shifts.bounds)
        made = Kind(layer.depthwise, signed, residual, cuts=(low, high))
        if chained:
            made = replace(made, gets=i > 0, puts=not last)
        else:
            made = replace(made, starts_partial=i > 0, ends_partial=not last)
        scaled = layer.shifts.scaling is not None and last
        made = replace(made, maximum=layer.maximum, wide=layer.wide and last, bfloat16=layer.element is BFLOAT16, scaled=scaled)
        found.append(replace(made, sparse=tiling.sparse, transposed=bool(layer.computed and layer.computed.transposed)))
    return found


def plan_layer(machine: Machine, tiling: Tiling, kinds: Sequence[Kind], core: CorePlaces | None = None) -> LayerPlan:
    """Place everything; in cores it may have its places. FitError when something is too large."""
    core = core or in_core(machine, tiling)
    pages = []
    for part in range(tiling.mode.weight_parts // tiling.mode.chain):
        made = [_chunks(tiling, row, own, core, kinds) for own, row in enumerate(tiling.counts_of(part))]
        each = max(1, len(made) // tiling.groups)
        if tiling.mode.chain > 1:
            pages += [_pages(tiling, part * tiling.mode.chain + i, [b[i][0] for b in made]) for i in range(tiling.mode.chain)]
            continue
        units = [(at, split) for at in range(0, len(made), each) for split in range(tiling.splits)]
        pages.append(_pages(tiling, part, [c for at, split in units for block in made[at : at + each] for c in block[split]]))
    return LayerPlan(tiling, tuple(pages), core, in_memory(machine, tiling))


def _pages(tiling: Tiling, part: int, chunks: Sequence[Chunk]) -> tuple[bytes, ...]:
    """The chunks of a part of the weights, packed, as pages; what is constant of them, where their blocks are computed."""
    layout, size = tiling.layout(part), tiling.page_bytes[part]
    if tiling.layer.computed is not None:
        packed = [c.pack(tiling.share.steps, s) for c, s in zip(chunks, layout.spots, strict=True)]
        start = tiling.chunk_start
        return tuple(made[:start] + made[start + tiling.blocks_bytes :] for made in packed)
    stream = bytearray(layout.pages * size)
    for chunk, at, spot in zip(chunks, layout.starts, layout.spots, strict=True):
        made = chunk.pack(tiling.share.steps, spot)
        stream[at : at + len(made)] = made
    return tuple(bytes(stream[at : at + size]) for at in range(0, len(stream), size))


def _chunks(tiling: Tiling, row: int, own: int, core: CorePlaces, kinds: Sequence[Kind]) -> list[list[Chunk]]:
    """The nonzero blocks of 8 output channels, or of 16, which are a core's `own`-th, by part of the input channels."""
    layer = tiling.layer
    bias = np.zeros((tiling.results_together, 8), layer.shifts.bias.dtype)
    for i, block in enumerate(tiling.made_by(row)):
        there = layer.shifts.bias[8 * block : 8 * block + 8]
        bias[i, : there.size] = there
    residual = core.residual + own * tiling.results_together * tiling.residual_stride if layer.residual else 0
    others = tiling.residual_stride if layer.residual and tiling.sparse else 0
    group = max(1, tiling.most_results // tiling.groups)
    each = tiling.results_together * tiling.partial_bytes
    further = own % (group // tiling.results_together) * each if tiling.splits > 1 and not tiling.diagonal else 0
    further += SUM_BYTES // 2 * tiling.sparse  # a chunk's first stores are twice as many
    partial = core.partial[0] + further if tiling.in_parts else 0
    wanted = iter(_kinds(tiling, row))
    begins = dict(zip(kinds, entries(tuple(kinds)), strict=True))
    source = own if tiling.mode.channelwise else row
    found: list[list[Chunk]] = []
    for split in range(tiling.inputs):
        offsets, whole = _sparse_blocks(tiling, row, split) if tiling.sparse else _blocks(tiling, row, split, source)
        found.append([])
        if tiling.diagonal and not offsets:
            continue
        for i in range(tiling.pieces(row)):
            part, kind = slice(i * tiling.chunk_blocks, (i + 1) * tiling.chunk_blocks), next(wanted)
            sums = partial if kind.starts_partial or kind.ends_partial else 0  # sums of one chunk have no other place
            blocks, places = whole[part], offsets[part]
            begun = bias.reshape(-1) if kind.has_bias else None
            found[-1].append(Chunk(begun, blocks, places, begins[kind], residual, sums, kind.starts_partial, others))
    return found


def _blocks(tiling: Tiling, block: int, split: int, source: int) -> tuple[list[int], Array]:
    """The nonzero blocks of 8 output channels and a part of the input channels: where their data are, which are those of block
    `source` if depthwise, and the blocks."""
    layer, share = tiling.layer, tiling.share
    w = layer.weights[block]  # [8, input blocks, 8, rows, columns], of depthwise ones [8, summands, 1, ...]
    within = range(w.shape[1] if layer.depthwise else share.blocks)
    offsets, blocks = [], []
    for i, j in ((i, j) for i in range(w.shape[3]) for j in range(w.shape[4])):
        for b in within:
            found = w[:, split * share.blocks + b, :, i, j]
            if found.any():
                offsets.append(share.offset(source if layer.depthwise else b, i, j))
                blocks.append(found.reshape(8) if layer.depthwise else found.T)
    return offsets, np.array(blocks, w.dtype).reshape((-1, 8) if layer.depthwise else (-1, 8, 8))


def _sparse_blocks(tiling: Tiling, row: int, split: int) -> tuple[list[int], Array]:
    """The pairs of operands of 16 output channels and a part of the input channels that are not both zero: where their data are,
    and the operands, int8 [n, 2, 16, 8]."""
    share, w = tiling.share, tiling.layer.weights[list(tiling.made_by(row))]  # [2, 8, input blocks, 8, rows, columns]
    offsets, blocks = [], []
    for i, j in ((i, j) for i in range(w.shape[4]) for j in range(w.shape[5])):
        for b in range(0, share.blocks, 2):
            found = w[:, :, split * share.blocks + b : split * share.blocks + b + 2, :, i, j]
            if found.any():
                offsets.append(share.offset(b, i, j))
                blocks.append(found.transpose(0, 2, 3, 1).reshape(2, DEPTH, 8))
    return offsets, np.array(blocks, w.dtype).reshape(-1, 2, DEPTH, 8)
