"""Sub-volumes of the weight-block-sparsity paper's scheduler: what of a layer one core holds at a time.

D'Alberto et al., arXiv 2407.09453, section on tiling: the width is split over columns, output channels over rows of cores, the
height is streamed; a core holds 8 KB of input, 8 KB of output (each twice) and 16 KB of weights. The order in which the scheduler
gives up (all channels, then fewer output or input channels) was read off the authors' published instruction logs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil

from sparsec.backends.aie.estimate.network import Layer
from sparsec.compiler.errors import LimitError

BLOCK = 8  # channels and columns of a tile come in eights
ACTIVATIONS = 8 * 1024
WEIGHTS = 16 * 1024
PARAMETERS = 192  # of a layer, before its weights
_POOLED = {"max": 16 * 1024, "average": 12 * 1024, "global": 16 * 1024}


@dataclass(frozen=True, slots=True)
class Tile:
    """One iteration of a core: it reads `rows_in` x `width_in` x `channels_in` values and writes the same of out.

    `pieces`: how often the tile's share of the width has to be halved until one row fits.
    """

    rows_in: int
    width_in: int
    channels_in: int
    rows_out: int
    width_out: int
    channels_out: int
    pieces: int = 1


@dataclass(frozen=True, slots=True)
class WeightTile:
    """The weights that a core holds at a time, `couts` x `cins` filters, and all of its share, in bytes without parameters.

    `even`: all rows of cores that have output channels have equally many.
    """

    couts: int
    cins: int
    bytes: int
    share_couts: int
    share_bytes: int
    even: bool


def eights(n: int) -> int:
    """`n` up to the next multiple of eight."""
    return -(-n // BLOCK) * BLOCK


def divisors(n: int) -> Iterator[int]:
    """Of `n`, ascending."""
    return (d for d in range(1, n + 1) if n % d == 0)


def tile_of(layer: Layer, k: int) -> Tile:
    """The tile of any layer but a concatenation on a `k` x `k` array."""
    if layer.kind == "conv":
        return conv_tile(layer, k)
    return add_tile(layer, k) if layer.kind == "add" else pool_tile(layer, k)


def _columns_used(width: int, k: int) -> int:
    """Columns that a width is split over: one where it is narrower than the array."""
    return k if width >= k else 1


def conv_tile(layer: Layer, k: int) -> Tile:
    """The largest tile of a convolution that fits: all channels if they do, else fewer output, then input channels.

    Raises LimitError (does not fit) where one row of eight channels exceeds a buffer.
    """
    c_in, c_out = eights(layer.source[0]), eights(layer.result[0])
    width, height = layer.source[2], layer.source[1]
    w_out = ceil(layer.result[2] / _columns_used(layer.result[2], k))
    w_in = min((w_out - 1) * layer.strides[1] + layer.kernel[1], width)
    rows = min(_rows_in(layer, w_in, c_in), _rows_out(layer, w_out, c_out))
    if rows < 1:
        # the scheduler then forgets the halo of the width
        w_in = ceil(width / _columns_used(width, k))
        c_out = _fewer(c_out, lambda c: _rows_out(layer, w_out, c), layer, "output", w_out)
        c_in = _fewer(c_in, lambda c: _rows_in(layer, w_in, c), layer, "input", w_in)
        rows = min(_rows_in(layer, w_in, c_in), _rows_out(layer, w_out, c_out))
    rows = min(rows, layer.result[1])
    rows_in = min((rows - 1) * layer.strides[0] + layer.kernel[0], height + layer.pads[0] + layer.pads[2])
    return Tile(rows_in, w_in, c_in, rows, w_out, c_out)


def _rows_in(layer: Layer, width: int, channels: int) -> int:
    """Output rows whose input fits; with a stride, the rows that only the kernel's overhang needs are not counted."""
    rows, kernel, stride = ACTIVATIONS // (eights(width) * channels), layer.kernel[0], layer.strides[0]
    if rows < max(1, kernel - stride + 1):
        return 0
    return rows - kernel + 1 if stride == 1 else ceil(rows / stride)


def _rows_out(layer: Layer, width: int, channels: int) -> int:
    """Output rows that fit, counted at the input's pace."""
    return ACTIVATIONS // (eights(width) * channels) // layer.strides[0]


def _fewer(channels: int, rows: Callable[[int], int], layer: Layer, side: str, width: int) -> int:
    """The most channels, an equal part of all, of which a row fits."""
    for d in divisors(channels // BLOCK):
        if rows(channels // d) >= 1:
            return channels // d
    need = eights(width) * BLOCK * (layer.kernel[0] if side == "input" else layer.strides[0])
    raise LimitError(
        f"{layer.name} does not fit: {width} columns of 8 {side} channels take {need} bytes of a core's {ACTIVATIONS} for"
        f" {side}: use an array with more columns"
    )


def pool_tile(layer: Layer, k: int) -> Tile:
    """The tile of a pooling: as many rows as fit, the width halved until one does, then fewer channels."""
    limit, channels = _POOLED[layer.kind], layer.source[0]
    kh, kw = layer.kernel
    sh, sw = layer.strides
    if layer.kind == "global":
        share = ceil(channels / k)
        part = next((share // d for d in divisors(share) if kh * kw * (share // d) <= limit), 1)
        return Tile(kh, kw, part, 1, 1, part, share // part)
    w_out, pieces = ceil(layer.result[2] / _columns_used(layer.result[2], k)), 1
    while kh * ((w_out - 1) * sw + kw) * channels > limit and w_out > 1:
        w_out, pieces = ceil(w_out / 2), pieces * 2
    w_in = (w_out - 1) * sw + kw
    channels = next((channels // d for d in divisors(channels) if kh * w_in * (channels // d) <= limit), 1)
    rows = min((limit // (w_in * channels) - kh) // sh + 1, layer.result[1])
    return Tile((rows - 1) * sh + kh, w_in, channels, rows, w_out, channels, pieces)


def add_tile(layer: Layer, k: int) -> Tile:
    """The tile of an addition: rows of both operands."""
    channels, pieces = layer.source[0], 1
    width = ceil(layer.result[2] / _columns_used(layer.result[2], k))
    while width * channels > ACTIVATIONS and width > 1:
        width, pieces = ceil(width / 2), pieces * 2
    rows = min(max(1, ACTIVATIONS // (width * channels)), layer.result[1])
    return Tile(rows, width, channels, rows, width, channels, pieces)


def weight_tile(layer: Layer, k: int, density: float) -> WeightTile:
    """What of a core's filters it holds at a time: fewer output, then fewer input channels."""
    share, c_in = eights(ceil(layer.result[0] / k)), eights(layer.source[0])
    taps = layer.kernel[0] * layer.kernel[1]
    even = layer.result[0] % share == 0  # else rows of cores would need different numbers of parts
    splits = [share // d for d in divisors(share // BLOCK)] if even else [share]
    couts = next((c for c in splits if weight_bytes(c, c_in, taps, density) <= WEIGHTS), splits[-1])
    fitting = (c_in // d for d in divisors(c_in // BLOCK) if weight_bytes(couts, c_in // d, taps, density) <= WEIGHTS)
    cins = next(fitting, None)
    if cins is None:
        need = weight_bytes(couts, BLOCK, taps, density)
        raise LimitError(
            f"{layer.name} does not fit: {couts} output by 8 input channels of {taps} taps take {need} bytes of a core's"
            f" {WEIGHTS}-byte weight buffer: use an array whose rows divide its {layer.result[0]} output channels by eights"
        )
    tile = weight_bytes(couts, cins, taps, density)
    return WeightTile(couts, cins, tile, share, tile * (share // couts) * (c_in // cins), even)


def weight_bytes(couts: int, cins: int, taps: int, density: float) -> int:
    """Stored weights, 2 bytes of mask a block (in sixteens), 4 bytes of bias an output channel."""
    mask = 2 * ceil(couts / BLOCK) * ceil(cins / BLOCK)
    return ceil(density * couts * cins * taps) + -(-mask // 16) * 16 + 4 * eights(couts)
