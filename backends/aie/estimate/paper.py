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
from sparsec.backends.aie.estimate.tiles import (
    PARAMETERS,
    Tile,
    WeightTile,
    add_tile,
    conv_tile,
    eights,
    pool_tile,
    weight_tile,
)
from sparsec.compiler.errors import LimitError, UsageError

BYTES_PER_US = 2**32 / 1e6
MACS = 256  # a nanosecond
CAPACITY = 512 * 1024


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
    """A layer's instructions. DDR times in microseconds: `load` and `load_weights` side by side, `write` at the end."""

    layer: Layer
    placement: Placement
    load: float
    load_weights: float
    segments: tuple[Segment, ...]
    write: float
    cut_inputs: bool = False  # the filters come in parts of input channels: output channels do not divide evenly by rows of cores

    @property
    def time(self) -> float:
        """Microseconds of the layer."""
        return max(self.load, self.load_weights) + sum(s.time for s in self.segments) + self.write


def paper_layers(layers: Sequence[Layer], k: int, density: float = 1.0) -> tuple[LayerTime, ...]:
    """Every layer's charges on a `k` x `k` array; `density` of the 8x8 blocks of all filters but the first are kept.

    Raises LimitError where the paper's scheduler finds no split of a layer (demand, bound, remedy), UsageError for grouped
    convolutions, which its formulas do not know.
    """
    placer = Placer(layers, k, CAPACITY)
    return tuple(_layer_time(layer, k, density, placer) for layer in layers if layer.kind != "concat")


def paper_ms(layers: Sequence[Layer], k: int, density: float = 1.0) -> float:
    """Milliseconds of the network: layers run one after the other."""
    return sum(t.time for t in paper_layers(layers, k, density)) / 1e3


def _layer_time(layer: Layer, k: int, density: float, placer: Placer) -> LayerTime:
    if layer.groups != 1:
        raise UsageError(f"{layer.name} has {layer.groups} groups: the paper's estimator knows none, use --estimator physical")
    own = 1.0 if INPUT in layer.inputs else density
    weights = weight_tile(layer, k, own) if layer.kind == "conv" else None
    if layer.kind == "conv":
        tile = conv_tile(layer, k)
    elif layer.kind == "add":
        tile = add_tile(layer, k)
    else:
        tile = pool_tile(layer, k)
    placement = placer.place(layer, tile, weights)
    repeats = placement.weight_parts * tile.pieces
    if not placement.through_ddr:
        repeats = max(repeats, tile.pieces * _concat_repeats(layer, k, placer))
    segments = tuple(_segments(layer, tile, weights, own, placement.row_parts, repeats))
    written = placement.write_bytes + (0 if placement.through_ddr else placer.leaving(layer))
    us = [b / BYTES_PER_US for b in (placement.load_bytes, placement.weight_bytes, written)]
    cut = weights is not None and placement.weight_parts > 1 and not weights.even
    return LayerTime(layer, placement, us[0], us[1], segments, us[2], cut)


def _concat_repeats(layer: Layer, k: int, placer: Placer) -> int:
    """Rows of cores split the channels of the whole concatenation: its narrower parts are computed several times."""
    owner = placer.tensor(layer)
    if owner == layer.name:
        return 1
    return max(1, ceil(placer.shape(owner)[0] / k / layer.result[0]))


def _segments(
    layer: Layer, tile: Tile, weights: WeightTile | None, density: float, parts: int, repeats: int
) -> Iterator[Segment]:
    parameters = {"conv": PARAMETERS, "add": 160}.get(layer.kind, 96)
    stored = weights.bytes if weights else 0
    first = True
    for _ in range(repeats):
        for part in range(parts):
            rows = layer.result[1] // parts
            for i, (count, padded) in enumerate(_runs(layer, tile.rows_out, part * rows, rows)):
                fetched = (stored if i == 0 else 0) + (parameters if first else 0)
                yield _segment(layer, tile, weights, density, count, padded, fetched)
                first = False


def _segment(layer: Layer, tile: Tile, weights: WeightTile | None, density: float, count: int, padded: bool, fetched: int) -> Segment:
    read, write = tile.rows_in * tile.channels_in, tile.rows_out * tile.channels_out
    if weights is not None:
        taps = layer.kernel[0] * layer.kernel[1]
        work = ceil(read * tile.width_in * taps * weights.cins / MACS) * (1.0 if density == 1 else density)
        read, write = read * eights(tile.width_in), write * eights(tile.width_out)
    else:
        work = float(ceil(read * tile.width_in / MACS))
        read, write = read * tile.width_in * (2 if layer.kind == "add" else 1), write * tile.width_out
    us = (count * read / BYTES_PER_US, fetched / BYTES_PER_US, count * work / 1e3, count * write / BYTES_PER_US)
    return Segment(count, padded, *us)


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


__all__ = ["BYTES_PER_US", "LayerTime", "LimitError", "Segment", "paper_layers", "paper_ms"]
