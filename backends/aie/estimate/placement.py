"""What stays in memory tiles between layers, and what goes through DDR: the weight-block-sparsity paper's allocation.

D'Alberto et al., arXiv 2407.09453: a column's memory tile holds its slice of the activations and one row's filters; where the
allocation fails, tensors are evicted to DDR. The rules below were read off the authors' published instruction logs:

1. A layer whose operands, result and filters fit beside what is still needed runs from memory tile to memory tile.
2. Filters that do not fit together with the operands come in parts, and the layer runs once a part.
3. Otherwise everything is evicted, and the layer reads and writes DDR in equal parts of its rows: the fewest such that one part
   of the operands and two of the result fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from sparsec.backends.aie.estimate.network import INPUT, Layer
from sparsec.backends.aie.estimate.tiles import BLOCK, PARAMETERS, Tile, WeightTile, columns_used, divisors, eights
from sparsec.compiler.errors import LimitError

WORD = 128  # tensors in memory tiles start and end at words


@dataclass(frozen=True, slots=True)
class Placement:
    """How a layer runs: in `row_parts` parts of its rows, `weight_parts` of its filters. Bytes are of one column's DDR channels."""

    row_parts: int = 1
    weight_parts: int = 1
    load_bytes: int = 0
    weight_bytes: int = 0
    write_bytes: int = 0
    through_ddr: bool = False


@dataclass
class _Memory:
    """A column's memory tile: bytes by tensor, and which of them also are in DDR."""

    held: dict[str, int] = field(default_factory=dict)
    in_ddr: set[str] = field(default_factory=set)

    def evict(self, needed: set[str]) -> int:
        """Empty the memory; the bytes that had to be written."""
        written = sum(size for name, size in self.held.items() if name in needed and name not in self.in_ddr)
        self.in_ddr |= self.held.keys()
        self.held.clear()
        return written


def words(size: int) -> int:
    """Bytes up to whole words."""
    return -(-size // WORD) * WORD


def slice_bytes(shape: tuple[int, int, int], k: int, rows: int | None = None) -> int:
    """One column's slice of a tensor, all its rows or some."""
    channels, height, width = shape
    columns = k if width >= k else 1
    return words(eights(channels) * (height if rows is None else rows) * ceil(width / columns))


class Placer:
    """Goes through the layers in order; `place` says how each runs."""

    def __init__(self, layers: Sequence[Layer], k: int, capacity: int) -> None:
        self.k, self.capacity = k, capacity
        self.layers = {layer.name: layer for layer in layers}
        self.owner = _owners(layers)
        self.memory = _Memory()
        position = {layer.name: i for i, layer in enumerate(layers)}
        self.last_use: dict[str, int] = {}
        for layer in layers:
            for v in layer.inputs:
                owner = self.owner.get(v, v)
                self.last_use[owner] = max(self.last_use.get(owner, 0), position[layer.name])
        self.position = position
        self.made_from: dict[str, tuple[str, ...]] = {}

    def tensor(self, layer: Layer) -> str:
        """The tensor that a layer writes: its own, or the concatenation's that it is part of."""
        return self.owner.get(layer.name, layer.name)

    def shape(self, tensor: str) -> tuple[int, int, int]:
        """Of the tensor that a layer writes."""
        return self.layers[tensor].result

    def place(self, layer: Layer, tile: Tile, weights: WeightTile | None) -> Placement:
        """How the next layer runs, given its core's share of the filters.

        Raises LimitError where even one row, or one part of the filters, does not fit into a memory tile.
        """
        now, result = self.position[layer.name], self.tensor(layer)
        operands = [self.owner.get(v, v) for v in layer.inputs]
        needed = {v for v, last in self.last_use.items() if last >= now} | set(operands)
        filters = words(weights.share_bytes) if weights else 0
        first = INPUT in operands
        if not first and not self._scattered(layer):
            touched = [*operands, result] if result in self.memory.in_ddr else operands
            loads = sum(self._size(v) for v in dict.fromkeys(touched) if v not in self.memory.held)
            placement = self._inside(layer, operands, result, weights, needed)
            if placement is not None:
                return _with(placement, load_bytes=loads, weight_bytes=filters + PARAMETERS if weights else WORD)
        return self._outside(layer, tile, operands, result, weights, needed)

    def _size(self, tensor: str) -> int:
        return slice_bytes(self.shape(tensor), self.k)

    def _scattered(self, layer: Layer) -> bool:
        """Whether it reads or writes a concatenation of concatenations, which only exists in DDR."""
        pooled = [self.layers[v] for v in layer.inputs if v in self.layers and self.layers[v].kind == "average"]
        return any(self._nested(v) for v in layer.inputs) or any(self._scattered(p) for p in pooled)

    def leaving(self, layer: Layer) -> int:
        """Bytes that the network's last layer writes to DDR."""
        return 0 if self.tensor(layer) in self.last_use else slice_bytes(layer.result, self.k)

    def _nested(self, tensor: str) -> bool:
        layer = self.layers.get(tensor)
        if layer is None or layer.kind != "concat":
            return False
        return any(self.layers[v].kind == "concat" and self.owner.get(v, v) == v for v in layer.inputs if v in self.layers)

    def _inside(
        self, layer: Layer, operands: list[str], result: str, weights: WeightTile | None, needed: set[str]
    ) -> Placement | None:
        """From memory tile to memory tile, if that fits."""
        live = {v: s for v, s in self.memory.held.items() if v in needed or v == result}
        live.update({v: self._size(v) for v in operands})
        if layer.kind != "add":  # a sum takes the place of an operand
            live[result] = self._size(result)
        used = sum(live.values())
        filters = words(weights.share_bytes) if weights else 0
        dead = sum(self.memory.held.get(v, 0) for v in self.made_from.get(operands[0], ()) if v not in live)
        bystanders = [v for v in live if v not in operands and v != result]
        parts = 1
        if used > self.capacity:
            return None
        if used + filters + (dead if bystanders else 0) > self.capacity:
            if weights is None or used + filters <= self.capacity:
                return None
            if filters + sum(self._size(v) for v in set(operands)) <= self.capacity:
                return None
            parts = self._weight_parts(layer, weights, self.capacity - used)
        if layer.kind == "add":
            live[result] = live.pop(operands[0])
            if all(v in self.memory.in_ddr or v not in self.memory.held for v in operands):
                self.memory.in_ddr.add(result)
        self.made_from[result] = tuple(v for v in operands if v not in self.memory.in_ddr)
        self.memory.held = live
        return Placement(weight_parts=parts)

    def _weight_parts(self, layer: Layer, weights: WeightTile, room: int) -> int:
        """The fewest equal parts of the filters of which one fits."""
        taps = layer.kernel[0] * layer.kernel[1]
        blocks = (weights.share_couts if weights.even else eights(layer.source[0])) // BLOCK
        for parts in divisors(blocks):
            if words(ceil(weights.share_bytes / parts)) <= min(room, self.capacity * 5 // 8):
                return parts
        raise LimitError(
            f"{layer.name} does not fit: 1/{blocks} of its filters, {ceil(weights.share_bytes / blocks)} bytes of {taps} taps,"
            f" exceeds the {room} bytes left in a memory tile: use an array with more rows"
        )

    def _outside(
        self, layer: Layer, tile: Tile, operands: list[str], result: str, weights: WeightTile | None, needed: set[str]
    ) -> Placement:
        """From DDR to DDR."""
        inputs = [v for v in dict.fromkeys(operands) if v != INPUT]
        sizes = {v: self._size(v) for v in inputs}
        loads = sum(sizes[v] for v in inputs if v not in self.memory.held)
        first = INPUT in operands
        whole = sum(sizes.values()) <= self.capacity and not first
        written = self.memory.evict(needed)
        parts, loaded = self._row_parts(layer, tile, not whole)
        scattered = self._scattered(layer)
        out_rows = layer.result[1] // parts
        own = layer.result if result == layer.name else self.shape(result)
        out = parts * slice_bytes(own, self.k, out_rows)
        extra = loads if whole and not scattered else 0
        filters = words(weights.share_bytes) if weights else 0
        used = loaded // parts + out // parts
        weight_parts = 1
        if weights is not None and used + filters > self.capacity:
            weight_parts = self._weight_parts(layer, weights, self.capacity - used)
        self.memory.in_ddr.add(result)
        if scattered:
            written = 0
        return Placement(
            parts,
            weight_parts,
            extra + loaded,
            (parts if whole else 1) * filters + PARAMETERS if weights else WORD,
            written + out,
            True,
        )

    def _row_parts(self, layer: Layer, tile: Tile, large: bool) -> tuple[int, int]:
        """The fewest parts of the rows that fit, and the bytes of operands that all of them read."""
        operands = len(layer.inputs) if layer.kind == "add" else 1
        height = layer.result[1]
        for parts in divisors(height):
            rows = height // parts
            spans = [_span(layer, p * rows, rows) for p in range(parts)]
            read = [operands * slice_bytes(layer.source, self.k, s) for s in spans]
            out = slice_bytes(layer.result, self.k, rows)
            copies = 1 if large and INPUT not in layer.inputs else 2
            piece = max(read)
            if tile.pieces > 1 and layer.kind in ("max", "average"):
                piece, out = (words(r * w * layer.source[0]) for r, w in ((max(spans), tile.width_in), (rows, tile.width_out)))
                whole = tile.width_in * tile.pieces - (tile.pieces - 1) * (layer.kernel[1] - layer.strides[1])
                read = [words(s * min(whole, ceil(layer.source[2])) * layer.source[0]) for s in spans]
            if piece + copies * out <= self.capacity:
                return parts, sum(read)
        out = slice_bytes(layer.result, self.k, 1)
        demand = operands * slice_bytes(layer.source, self.k, layer.kernel[0]) + out
        raise LimitError(
            f"{layer.name} does not fit: one row of its result needs {demand} bytes of a memory tile's {self.capacity}:"
            " use an array with more columns"
        )


def _span(layer: Layer, first: int, rows: int) -> int:
    """Input rows that output rows [first, first + rows) read."""
    begin = max(0, first * layer.strides[0] - layer.pads[0])
    end = min(layer.source[1], (first + rows - 1) * layer.strides[0] - layer.pads[0] + layer.kernel[0])
    return end - begin


def _owners(layers: Sequence[Layer]) -> Mapping[str, str]:
    """The concatenation that each operand of one is part of; the first nested concatenation dissolves in the outer one."""
    kinds = {layer.name: layer for layer in layers}
    owner: dict[str, str] = {}
    for layer in layers:
        if layer.kind != "concat":
            continue
        nested = [v for v in layer.inputs if v in kinds and kinds[v].kind == "concat"]
        for v in layer.inputs:
            if v not in nested:
                owner[v] = layer.name
        for v in nested[:1]:
            owner[v] = layer.name
            owner.update({inner: layer.name for inner in kinds[v].inputs})
    return owner


def _with(placement: Placement, *, load_bytes: int, weight_bytes: int) -> Placement:
    return Placement(placement.row_parts, placement.weight_parts, load_bytes, weight_bytes, placement.write_bytes)


__all__ = ["Placement", "Placer", "columns_used", "slice_bytes", "words"]
