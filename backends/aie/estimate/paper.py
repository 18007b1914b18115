"""The estimator of the weight-block-sparsity paper: its charges, layer by layer, from shapes alone.

D'Alberto et al., arXiv 2407.09453: k x k cores at 1 GHz, 256 products a cycle each; 2^32 bytes a second on every channel. The
formulas were checked against the authors' published instruction logs. One of them charges a convolution's input tile times the
input channels of its filters where the core's output channels belong, so that its times are not those of the products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from sparsec.backends.aie.estimate.network import INPUT, Layer
from sparsec.backends.aie.estimate.placement import Placement, Placer
from sparsec.backends.aie.estimate.tiles import PARAMETERS, Tile, WeightTile, eights, tile_of, weight_tile
from sparsec.compiler.errors import UsageError

_BYTES_PER_US = 2**32 / 1e6
_MACS_PER_NS = 256
_MEMORY_TILE = 512 * 1024
_CONSTANTS = {"conv": PARAMETERS, "add": 160}  # bytes of a layer's parameters; poolings have _POOLING
_POOLING = 96


@dataclass(frozen=True, slots=True)
class Segment:
    """Iterations of a core that see the same padding; microseconds of all of them together."""

    iterations: int
    padded: bool
    load: float
    weights: float
    compute: float
    write: float

    @property
    def time(self) -> float:
        """Head and tail run their phases in turn, a body overlaps them; the filters come before."""
        phases = (self.load, self.compute, self.write)
        return self.weights + (sum(phases) if self.padded else max(phases))


@dataclass(frozen=True, slots=True)
class LayerTime:
    """A layer's instructions. DDR times in microseconds: `load` and `load_weights` side by side, `write` at the end.

    `doubt`: demand and bound where the memory tile takes the filters in parts of input channels, which no published log shows.
    """

    layer: Layer
    placement: Placement
    load: float
    load_weights: float
    segments: tuple[Segment, ...]
    write: float
    doubt: str

    @property
    def time(self) -> float:
        """Microseconds of the layer."""
        return max(self.load, self.load_weights) + sum(s.time for s in self.segments) + self.write


def paper_layers(layers: Sequence[Layer], k: int, density: float = 1.0) -> tuple[LayerTime, ...]:
    """Every layer's charges on a `k` x `k` array; `density` of the 8x8 blocks of all filters but the first layer's are kept.

    Raises LimitError where the paper's scheduler finds no split of a layer (demand, bound, remedy), UsageError for grouped
    convolutions, which its formulas do not know.
    """
    placer = Placer(layers, k, _MEMORY_TILE)
    return tuple(_layer_time(layer, k, density, placer) for layer in layers if layer.kind != "concat")


def paper_ms(layers: Sequence[Layer], k: int, density: float = 1.0) -> float:
    """Milliseconds of the network: layers run one after the other."""
    return sum(t.time for t in paper_layers(layers, k, density)) / 1e3


def _layer_time(layer: Layer, k: int, density: float, placer: Placer) -> LayerTime:
    if layer.groups != 1:
        raise UsageError(f"{layer.name} has {layer.groups} groups: the paper's estimator knows none, use --estimator physical")
    kept = 1.0 if INPUT in layer.inputs else density
    weights = weight_tile(layer, k, kept) if layer.kind == "conv" else None
    tile = tile_of(layer, k)
    placement = placer.place(layer, tile, weights)
    repeats = placement.weight_parts * tile.pieces
    if not placement.through_ddr:
        repeats = max(repeats, tile.pieces * _concat_repeats(layer, k, placer))
    segments = tuple(_segments(layer, tile, weights, kept, placement.row_parts, repeats))
    doubt = ""
    if weights is not None and placement.weight_parts > 1 and not weights.even:
        doubt = f"{layer.name} has {weights.share_bytes} bytes of filters for {placement.filter_room} left in a memory tile"
    load, filters, write = (
        size / _BYTES_PER_US for size in (placement.load_bytes, placement.weight_bytes, placement.write_bytes)
    )
    return LayerTime(layer, placement, load, filters, segments, write, doubt)


def _concat_repeats(layer: Layer, k: int, placer: Placer) -> int:
    """Rows of cores split the channels of the whole concatenation: its narrower parts are charged several times."""
    return ceil(placer.channels(placer.tensor(layer)) / k / layer.result[0])


def _segments(
    layer: Layer, tile: Tile, weights: WeightTile | None, density: float, parts: int, repeats: int
) -> Iterator[Segment]:
    """Of all repeats and parts of the rows; filters come with the first segment of each, parameters with the very first."""
    parameters, rows = _CONSTANTS.get(layer.kind, _POOLING), layer.result[1] // parts
    for part in range(repeats * parts):
        fetched = weights.bytes if weights else 0
        for count, padded in _runs(layer, tile.rows_out, part % parts * rows, rows):
            yield _segment(layer, tile, weights, density, count, padded, fetched + parameters)
            fetched = parameters = 0


def _segment(
    layer: Layer, tile: Tile, weights: WeightTile | None, density: float, count: int, padded: bool, fetched: int
) -> Segment:
    read, write = tile.rows_in * tile.channels_in, tile.rows_out * tile.channels_out
    work = read * tile.width_in
    if weights is None:
        ns = float(ceil(work / _MACS_PER_NS))
        read, write = work * (2 if layer.kind == "add" else 1), write * tile.width_out
    else:
        # as published: filters' input channels times the input tile; products would be output channels times the result's
        ns = density * ceil(work * layer.kernel[0] * layer.kernel[1] * weights.cins / _MACS_PER_NS)
        read, write = read * eights(tile.width_in), write * eights(tile.width_out)
    load, filters, store = (size / _BYTES_PER_US for size in (count * read, fetched, count * write))
    return Segment(count, padded, load, filters, count * ns / 1e3, store)


def _runs(layer: Layer, step: int, first: int, rows: int) -> Iterator[tuple[int, bool]]:
    """Iterations in a row that see the same padding (head, body, tail), and whether they see any."""
    before, count = (0, 0), 0
    for begin in range(first, first + rows, step):
        last = min(begin + step, first + rows) - 1
        top = max(0, layer.pads[0] - begin * layer.strides[0])
        bottom = max(0, last * layer.strides[0] - layer.pads[0] + layer.kernel[0] - layer.source[1])
        if (top, bottom) != before and count:
            yield count, before != (0, 0)
            count = 0
        before, count = (top, bottom), count + 1
    yield count, before != (0, 0)
