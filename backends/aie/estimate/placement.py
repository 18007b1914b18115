"""What stays in memory tiles between layers, and what goes through DDR: the weight-block-sparsity paper's allocation.

D'Alberto et al., arXiv 2407.09453: a column's memory tile holds its slice of the activations and one row's filters; where the
allocation fails, tensors are evicted to DDR. How exactly was read off the authors' published instruction logs:

1. A layer whose operands, result and filters fit beside what is still needed runs from memory tile to memory tile. A sum takes
   the place of an operand; parts of a concatenation are written where it lies.
2. Filters that can never lie beside the layer's operands come in equal parts, and the layer runs once a part.
3. Otherwise everything is evicted, and the layer reads from DDR and writes to DDR in equal parts of its rows: the fewest such
   that one part of the operands and two of the result fit.
4. The first layer, and layers that read a concatenation of concatenations, always go through DDR.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from sparsec.backends.aie.estimate.network import INPUT, Layer
from sparsec.backends.aie.estimate.tiles import BLOCK, PARAMETERS, Tile, WeightTile, divisors, eights
from sparsec.compiler.errors import LimitError

_WORD = 128  # tensors in memory tiles start and end at words
_PART = 5 / 8  # of a memory tile: the logs have parts of filters up to 297 KB, and none where 389 KB would do


@dataclass(frozen=True, slots=True)
class Placement:
    """How a layer runs: in `row_parts` parts of its rows, `weight_parts` of its filters. Bytes are those of one column.

    `filter_room`: what the memory tile has left for filters.
    """

    row_parts: int = 1
    weight_parts: int = 1
    load_bytes: int = 0
    weight_bytes: int = 0
    write_bytes: int = 0
    through_ddr: bool = False
    filter_room: int = 0


def slice_bytes(shape: tuple[int, int, int], k: int, rows: int | None = None) -> int:
    """One column's slice of a tensor [channels, height, width], all its rows or some."""
    channels, height, width = shape
    columns = k if width >= k else 1
    return _words(eights(channels) * (height if rows is None else rows) * ceil(width / columns))


class Placer:
    """Goes through the layers in order; `place` says how each runs."""

    def __init__(self, layers: Sequence[Layer], k: int, capacity: int) -> None:
        self._k, self._capacity = k, capacity
        self._layers = {layer.name: layer for layer in layers}
        self._position = {layer.name: i for i, layer in enumerate(layers)}
        self._owner = _owners(layers)
        self._last_use: dict[str, int] = {}
        for i, layer in enumerate(layers):
            self._last_use.update({self._owner.get(v, v): i for v in layer.inputs})
        self._held: dict[str, int] = {}  # bytes of tensors in a memory tile
        self._in_ddr: set[str] = set()
        self._made_from: dict[str, str] = {}

    def tensor(self, layer: Layer) -> str:
        """The tensor that a layer writes: its own, or the concatenation's that it is part of."""
        return self._owner.get(layer.name, layer.name)

    def channels(self, tensor: str) -> int:
        """Of the tensor that a layer writes."""
        return self._layers[tensor].result[0]

    def place(self, layer: Layer, tile: Tile, weights: WeightTile | None) -> Placement:
        """How the next layer runs, with this tile and a core's share of the filters.

        Raises LimitError where even one row, or the smallest part of the filters, does not fit into a memory tile.
        """
        operands = [self._owner.get(v, v) for v in dict.fromkeys(layer.inputs)]
        placement = None
        if INPUT not in operands and not self._scattered(layer):
            placement = self._inside(layer, operands, weights)
        if placement is None:
            placement = self._outside(layer, tile, operands, weights)
        elif self.tensor(layer) not in self._last_use:
            placement = replace(placement, write_bytes=slice_bytes(layer.result, self._k))
        return placement

    def _size(self, tensor: str) -> int:
        return slice_bytes(self._layers[tensor].result, self._k)

    def _scattered(self, layer: Layer) -> bool:
        """Whether it reads a concatenation of concatenations, or what an average makes of one."""
        for v in layer.inputs:
            made = self._layers.get(v)
            if made is None:
                continue
            inner = (self._layers[u] for u in made.inputs if u in self._layers)
            if made.kind == "concat" and any(u.kind == "concat" and u.name not in self._owner for u in inner):
                return True
            if made.kind == "average" and self._scattered(made):
                return True
        return False

    def _inside(self, layer: Layer, operands: list[str], weights: WeightTile | None) -> Placement | None:
        """From memory tile to memory tile, None if that does not fit (rules 1 and 2)."""
        result, now = self.tensor(layer), self._position[layer.name]
        touched = [*operands, result] if result in self._in_ddr else operands
        loads = sum(self._size(v) for v in touched if v not in self._held)
        live = {v: size for v, size in self._held.items() if self._last_use.get(v, now) >= now or v == result}
        live.update({v: self._size(v) for v in operands})
        if layer.kind != "add":
            live[result] = self._size(result)
        former = self._made_from.get(operands[0], "")
        dead = 0 if former in live else self._held.get(former, 0)
        room = self._capacity - sum(live.values())
        filters = _words(weights.share_bytes) if weights else 0
        parts = 1
        if room < filters:
            if weights is None or room < 0 or filters + sum(self._size(v) for v in operands) <= self._capacity:
                return None
            parts = self._weight_parts(layer, weights, room)
        # beside third tensors, what the operand was made from is still in the way
        elif len(live) > len(operands) + 1 and room < filters + dead:
            return None
        if layer.kind == "add":
            live[result] = live.pop(operands[0])
            if all(v in self._in_ddr for v in operands):
                self._in_ddr.add(result)
        if operands[0] not in self._in_ddr:
            self._made_from[result] = operands[0]
        self._held = live
        fetched = filters + PARAMETERS if weights else _WORD
        return Placement(weight_parts=parts, load_bytes=loads, weight_bytes=fetched, filter_room=room)

    def _weight_parts(self, layer: Layer, weights: WeightTile, room: int) -> int:
        """The fewest equal parts of which one fits: of output channels, or of input channels where these are uneven."""
        blocks = (weights.share_couts if weights.even else eights(layer.source[0])) // BLOCK
        for parts in divisors(blocks):
            if _words(ceil(weights.share_bytes / parts)) <= min(room, int(self._capacity * _PART)):
                return parts
        raise LimitError(
            f"{layer.name} does not fit: the smallest part of its filters takes {ceil(weights.share_bytes / blocks)} bytes, and"
            f" {max(room, 0)} are left in a memory tile of {self._capacity}: use a larger array"
        )

    def _outside(self, layer: Layer, tile: Tile, operands: list[str], weights: WeightTile | None) -> Placement:
        """From DDR to DDR (rules 3 and 4)."""
        result, first, scattered = self.tensor(layer), INPUT in operands, self._scattered(layer)
        sizes = {v: self._size(v) for v in operands if v != INPUT}
        tried = not first and sum(sizes.values()) <= self._capacity  # operands come whole before the allocation fails
        again = sum(size for v, size in sizes.items() if v not in self._held) if tried and not scattered else 0
        written = 0 if scattered else self._evicted(layer, operands)
        self._in_ddr |= {*self._held, result}
        self._held = {}
        parts, read = self._row_parts(layer, tile, 2 if tried or first else 1)
        out = parts * slice_bytes(self._layers[result].result, self._k, layer.result[1] // parts)
        filters, weight_parts = _words(weights.share_bytes) if weights else 0, 1
        room = self._capacity - read // parts - out // parts
        if weights is not None and filters > room:
            weight_parts = self._weight_parts(layer, weights, room)
        refetched = tried or (first and out <= self._capacity)
        fetched = filters * (parts if refetched else 1) + PARAMETERS if weights else _WORD
        return Placement(parts, weight_parts, again + read, fetched, written + out, True, room)

    def _evicted(self, layer: Layer, operands: list[str]) -> int:
        """Bytes that have to be written before the memory can be emptied."""
        now = self._position[layer.name]
        needed = [v for v in self._held if v in operands or self._last_use.get(v, 0) >= now]
        return sum(self._held[v] for v in needed if v not in self._in_ddr)

    def _row_parts(self, layer: Layer, tile: Tile, copies: int) -> tuple[int, int]:
        """The fewest parts of the rows of which one fits with `copies` of its result; the bytes of operands that all read."""
        for parts in divisors(layer.result[1]):
            rows = layer.result[1] // parts
            read, piece, out = self._row_bytes(layer, tile, rows)
            if piece + copies * out <= self._capacity:
                return parts, read
        _, piece, out = self._row_bytes(layer, tile, 1)
        raise LimitError(
            f"{layer.name} does not fit: a row of its result and the rows that it reads take {piece + copies * out} bytes of"
            f" a memory tile of {self._capacity}: use an array with more columns"
        )

    def _row_bytes(self, layer: Layer, tile: Tile, rows: int) -> tuple[int, int, int]:
        """For parts of so many rows: the operands' bytes of all parts, of the largest, and the result's of one."""
        spans = [_span(layer, begin, rows) for begin in range(0, layer.result[1], rows)]
        if tile.pieces > 1 and layer.kind in ("max", "average"):
            channels, overlap = layer.source[0], layer.kernel[1] - layer.strides[1]
            width = min(tile.width_in * tile.pieces - (tile.pieces - 1) * overlap, layer.source[2])
            sizes = [_words(span * width * channels) for span in spans]
            return sum(sizes), _words(max(spans) * tile.width_in * channels), _words(rows * tile.width_out * channels)
        operands = len(layer.inputs) if layer.kind == "add" else 1
        sizes = [operands * slice_bytes(layer.source, self._k, span) for span in spans]
        return sum(sizes), max(sizes), slice_bytes(layer.result, self._k, rows)


def _words(size: int) -> int:
    return -(-size // _WORD) * _WORD


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
        owner.update({v: layer.name for v in layer.inputs if v not in nested})
        for v in nested[:1]:
            owner.update(dict.fromkeys((v, *kinds[v].inputs), layer.name))
    return owner
