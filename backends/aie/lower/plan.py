"""How a layer is spread over the array, and what every memory holds while it runs.

Each column of cores takes a band of output rows; each row of cores an equal part of the output channels, in chunks of 8. A memory
tile holds the band of its column and the weights of the row with its number, and collects the results of its column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.backends.aie.core.program import Kind
from sparsec.backends.aie.lower.chunks import Chunk, Steps
from sparsec.backends.aie.lower.geometry import TILE_VECTORS, VECTOR_BYTES, Image, Share
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.machine import Machine
from sparsec.compiler.errors import FitError

PARAMETER_BYTES = 64
_TILE_BYTES = TILE_VECTORS * VECTOR_BYTES


@dataclass(frozen=True, slots=True)
class CorePlaces:
    """Byte addresses in every core's data memory: one data buffer, two of weights and of results, and a layer's parameters."""

    data: int
    weights: tuple[int, int]
    results: tuple[int, int]
    parameters: int


@dataclass(frozen=True, slots=True)
class MemoryPlaces:
    """Byte addresses in every memory tile: data, residual, weights, and the results of each of its cores."""

    data: int
    residual: int
    weights: int
    results: tuple[int, ...]


@dataclass(frozen=True)
class LayerPlan:
    """A layer's share of everything. `chunks` are packed chunks of weights by row of cores, all of `chunk_bytes`."""

    layer: ConvLayer
    share: Share
    chunks: tuple[tuple[bytes, ...], ...]
    first_blocks: tuple[int, ...]
    chunk_bytes: int
    core: CorePlaces
    memory: MemoryPlaces

    @property
    def blocks(self) -> int:
        """Nonzero blocks of weights."""
        w = self.layer.weights
        return int(np.count_nonzero(w.any(axis=(1, 3))))

    @property
    def result_bytes(self) -> int:
        """What a core makes of a chunk, with what lies between rows."""
        return self.share.tiles * _TILE_BYTES

    @property
    def residual_bytes(self) -> int:
        """The residual in a core, all channels."""
        return self.layer.output_blocks * self.result_bytes if self.layer.residual else 0

    @property
    def stored_bytes(self) -> int:
        """Results of one chunk in a memory tile."""
        return self.share.rows * self.share.stored_columns * 8


def kind_of(layer: ConvLayer) -> Kind:
    """The kind of product that the layer asks of cores."""
    data, added, result = layer.signed
    return Kind(layer.depthwise, data, added if layer.residual else None, result)


def share_of(machine: Machine, layer: ConvLayer, rows: int, columns: int) -> Share:
    """What a column of cores computes of `rows` x `columns` outputs."""
    return Share(layer.window, layer.input_blocks, -(-rows // machine.columns), columns)


def plan_layer(machine: Machine, layer: ConvLayer, x: Image, y: Image, kind: int) -> LayerPlan:
    """Spread a layer over the array. FitError when something is too large."""
    share = share_of(machine, layer, y.rows, y.columns)
    per_row = -(-layer.output_blocks // machine.rows)
    firsts = tuple(min(r * per_row, layer.output_blocks) for r in range(machine.rows))
    packed = [
        [_chunk(layer, share, block, kind).pack(Steps()) for block in range(first, min(first + per_row, layer.output_blocks))]
        for first in firsts
    ]
    size = max(len(c) for row in packed for c in row)
    chunks = tuple(tuple(c.ljust(size, b"\0") for c in row) for row in packed)
    made = LayerPlan(layer, share, chunks, firsts, size, CorePlaces(0, (0, 0), (0, 0), 0), MemoryPlaces(0, 0, 0, ()))
    return LayerPlan(layer, share, chunks, firsts, size, _in_core(machine, made), _in_memory(machine, made))


def _chunk(layer: ConvLayer, share: Share, block: int, kind: int) -> Chunk:
    """The nonzero blocks of 8 output channels."""
    w = layer.weights[block]  # [8, input blocks, 8, rows, columns]
    offsets, blocks = [], []
    for i, j in ((i, j) for i in range(w.shape[3]) for j in range(w.shape[4])):
        for b in range(w.shape[1]):
            found = w[:, b, :, i, j]
            if found.any():
                offsets.append(share.offset(block if layer.depthwise else b, i, j))
                blocks.append(found.reshape(8) if layer.depthwise else found.T)
    shape = (0, 8) if layer.depthwise else (0, 8, 8)
    s = layer.shifts
    bias = np.zeros(8, np.int32)
    own = s.bias[8 * block : 8 * block + 8]
    bias[: own.size] = own
    return Chunk(bias, np.array(blocks, np.int8).reshape(-1, *shape[1:]), offsets, s.shift, s.residual_shift, kind)


def _in_core(machine: Machine, plan: LayerPlan) -> CorePlaces:
    """Buffers in banks of their own where they fit, so that loads, stores and DMA do not meet."""
    size = machine.core.data_bytes
    bank = size // machine.core.data_banks
    # the last tile reads a little beyond the data, of which no result is kept
    data = plan.share.data_vectors * VECTOR_BYTES + plan.residual_bytes + _TILE_BYTES * 2
    slot = -(-plan.chunk_bytes // _TILE_BYTES) * _TILE_BYTES
    result = plan.result_bytes + _TILE_BYTES  # the first store of a chunk lands before its results
    parameters = size - PARAMETER_BYTES
    demand = data + 2 * slot + 2 * result + PARAMETER_BYTES
    if demand > size:
        raise FitError(
            f"layer {plan.layer.node!r} in a core",
            demand=f"{data:,} bytes of data, 2 x {slot:,} of weights, 2 x {result:,} of results",
            bound=f"{size:,} bytes of data memory",
            remedy="use an array with more cores, or keep this layer on the host",
            node=plan.layer.node,
        )
    at = 0
    places = []
    for need in (data, 2 * slot, 2 * result):
        places.append(at)
        aligned = -(-(at + need) // bank) * bank
        at = (
            aligned
            if aligned + demand - sum((data, 2 * slot, 2 * result)[: len(places)]) <= size
            else -(-(at + need) // _TILE_BYTES) * _TILE_BYTES
        )
    weights, results = places[1], places[2] + _TILE_BYTES
    return CorePlaces(0, (weights, weights + slot), (results, results + result), parameters)


def _in_memory(machine: Machine, plan: LayerPlan) -> MemoryPlaces:
    share, layer = plan.share, plan.layer
    rows = share.source_rows * share.blocks
    data = rows * share.source_columns * 8
    residual = layer.output_blocks * share.residual_rows * share.residual_columns * 8 if layer.residual else 0
    weights = max(len(c) for c in plan.chunks) * plan.chunk_bytes
    results = [len(c) * plan.stored_bytes for c in plan.chunks]
    demand = data + residual + weights + sum(results)
    if demand > machine.memory.data_bytes:
        raise FitError(
            f"layer {layer.node!r} in a memory tile",
            demand=f"{data:,} bytes of data, {residual:,} of residual, {weights:,} of weights, {sum(results):,} of results",
            bound=f"{machine.memory.data_bytes:,} bytes",
            remedy="use an array with more columns, or keep this layer on the host",
            node=layer.node,
        )
    first = data + residual + weights
    return MemoryPlaces(0, data, data + residual, tuple(first + sum(results[:r]) for r in range(len(results))))
