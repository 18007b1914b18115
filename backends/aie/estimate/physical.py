"""Our estimator: what the products, the streams and DDR of an array need for each layer, and how they overlap.

This model is ours and no measurement. A layer's work is split over s parts of its positions and n parts of its output channels,
one part a core; the split with the least time counts. A core computes 16 positions x 8 output channels at a time (four 4x8x8
products a kept 8x8 block, weights loaded once), receives activations and filters on one stream each and sends results on a third.
What a core cannot hold is sent again, whichever is cheapest: activations once a part of the filters, filters once a part of the
activations, or both while 32-bit sums of a part of the results stay.
Dropped 8x8 blocks are neither sent nor multiplied. Filters come from DDR in every layer; activations only where operands and
results exceed all memory tiles together.

    cycles = max(compute, streams, DDR) + the first chunk's way in and the last one's way out + locks, descriptors, latency

Layers run one after the other. `roofline` is max(MAC, streams, DDR) of the whole array, without overheads and without the
unevenness of splits: no layer is faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, prod

from sparsec.backends.aie.estimate.network import INPUT, Layer
from sparsec.backends.aie.machine import Machine
from sparsec.compiler.errors import LimitError

BLOCK = 8
_TILE = 16  # positions a core computes side by side: four products share one load of the filters


@dataclass(frozen=True, slots=True)
class PhysicalTime:
    """Cycles of a layer by cause; `roofline` bounds `cycles` from below, `bound_by` says with which of MAC, streams, DDR."""

    layer: Layer
    positions: int
    channels: int
    compute: int
    streams: int
    ddr: int
    overhead: int
    roofline: int
    bound_by: str

    @property
    def cycles(self) -> int:
        """All of the layer."""
        return max(self.compute, self.streams, self.ddr) + self.overhead


@dataclass(frozen=True, slots=True)
class _Volume:
    """What a layer moves and multiplies, in bytes and products of kept blocks; `kept` counts 8x8 blocks of all taps."""

    source: int
    result: int
    filters: int
    products: int
    block_rows: int
    blocks_a_row: int
    taps: int


def physical_layers(layers: Sequence[Layer], machine: Machine, density: float = 1.0) -> tuple[PhysicalTime, ...]:
    """Every layer's cycles; `density` of the 8x8 blocks of all filters but the first layer's are kept.

    Raises LimitError where a core cannot hold one 8x8 block of a layer's filters.
    """
    return tuple(
        _layer_time(layer, machine, 1.0 if INPUT in layer.inputs else density) for layer in layers if layer.kind != "concat"
    )


def physical_ms(layers: Sequence[Layer], machine: Machine, density: float = 1.0) -> float:
    """Milliseconds of the network: layers run one after the other."""
    return 1e3 * sum(t.cycles for t in physical_layers(layers, machine, density)) / machine.clock_hz


def _volume(layer: Layer, density: float) -> _Volume:
    operands = len(layer.inputs) if layer.kind == "add" else 1
    source, result, taps = operands * prod(layer.source), prod(layer.result), prod(layer.kernel)
    if layer.kind != "conv":
        return _Volume(source, result, 0, 0, ceil(layer.result[0] / BLOCK), 0, taps)
    per_group = layer.source[0] // layer.groups
    # eight output channels of several groups read the inputs of all of these
    touched = per_group * ceil(BLOCK / max(1, layer.result[0] // layer.groups)) if layer.groups > 1 else per_group
    rows, columns = ceil(layer.result[0] / BLOCK), ceil(touched / BLOCK)
    kept = max(rows, ceil(density * rows * columns))
    mask = ceil(rows * columns / 8) if density < 1 else 0
    filters = kept * taps * BLOCK * BLOCK + mask + 4 * layer.result[0]
    positions = layer.result[1] * layer.result[2]
    products = positions * ceil(density * layer.result[0] * per_group) * taps
    return _Volume(source, result, filters, products, rows, ceil(kept / rows), taps)


def _layer_time(layer: Layer, machine: Machine, density: float) -> PhysicalTime:
    volume = _volume(layer, density)
    ddr = _ddr_cycles(layer, volume, machine)
    bounds = _bounds(volume, ddr, machine)
    roofline = max(bounds.values())
    bound_by = next(name for name, cycles in bounds.items() if cycles == roofline)
    best: PhysicalTime | None = None
    for s, n in _splits(layer, machine):
        found = _split_cycles(layer, volume, machine, s, n)
        if found is None:
            continue
        time = PhysicalTime(layer, s, n, found[0], found[1], ddr, found[2], roofline, bound_by)
        if best is None or time.cycles < best.cycles:
            best = time
    if best is None:
        raise LimitError(
            f"{layer.name} does not fit: one 8x8 block of its {volume.taps} taps takes {volume.taps * BLOCK * BLOCK} bytes of the"
            f" {_filter_room(machine)} that a core has for filters: use a smaller kernel, or an array with more data memory"
        )
    return best


def _splits(layer: Layer, machine: Machine) -> Iterator[tuple[int, int]]:
    """Parts of the positions x parts of the output channels: columns against rows either way, or all of one kind."""
    columns, rows, cores = machine.columns, machine.rows, machine.cores
    yield from dict.fromkeys(((columns, rows), (rows, columns), (cores, 1), (1, cores), (2 * columns, max(1, rows // 2))))


def _filter_room(machine: Machine) -> int:
    """Half of a core's data memory; the other half is two buffers of activations and two of results."""
    return machine.core.data_bytes // 2


def _split_cycles(layer: Layer, volume: _Volume, machine: Machine, s: int, n: int) -> tuple[int, int, int] | None:
    """Cycles of the largest part: computing, its busiest stream, overhead; None where it does not fit."""
    costs, width = machine.costs, machine.streams.bytes_per_cycle
    height = layer.result[1] * layer.result[2]
    positions, block_rows = ceil(height / s), ceil(volume.block_rows / n)
    halo = (layer.kernel[0] - layer.strides[0]) * layer.source[2] * layer.source[0] if s > 1 else 0
    source = min(volume.source, ceil(volume.source / s) + max(0, halo))
    if layer.kind != "conv":
        source = ceil(source * block_rows / volume.block_rows)  # a core needs the channels that it computes
    result = ceil(positions * block_rows * BLOCK)
    filters = ceil(volume.filters * block_rows / volume.block_rows)
    room, buffer = _filter_room(machine), machine.core.data_bytes // 8
    if volume.taps * BLOCK * BLOCK > room and volume.filters:
        return None
    chunks, sent = max(1, ceil(source / buffer), ceil(result / buffer)), (source, filters)
    if filters > room:
        ways = _ways(source, filters, positions, block_rows * BLOCK, chunks, room)
        sent = min(ways, key=lambda way: (max(way), sum(way)))
    steps = ceil(sent[0] / buffer) + ceil(sent[1] / room)
    tiles = machine.columns * machine.memory_rows
    leaving = ceil((s * sent[0] + n * sent[1]) / (tiles * machine.memory.mm2s_channels * width))
    entering = ceil(s * n * result / (tiles * machine.memory.s2mm_channels * width))
    streams = max(*(ceil(b / width) for b in sent), ceil(result / width), leaving, entering)
    overhead = (
        ceil(min(source, buffer) / width)
        + ceil(min(filters, room) / width if filters else 0)
        + ceil(min(result, buffer) / width)
        + 2 * costs.lock * steps
        + 3 * costs.descriptor_start
        + (machine.rows + machine.memory_rows) * costs.hop
        + (costs.ddr_latency if volume.filters else 0)
    )
    return _compute_cycles(volume, machine, positions, block_rows), streams, overhead


def _ways(source: int, filters: int, positions: int, channels: int, chunks: int, room: int) -> Iterator[tuple[int, int]]:
    """Bytes of activations and filters sent to a core if either is cut, or if sums of a part of its results stay in `room`."""
    yield source * ceil(filters / room), filters
    yield source, filters * chunks
    for wide in range(BLOCK, channels + BLOCK, BLOCK):
        high = room // (4 * wide)
        if high:
            yield source * ceil(channels / wide), filters * ceil(positions / high)


def _compute_cycles(volume: _Volume, machine: Machine, positions: int, block_rows: int) -> int:
    """A core's cycles for its part, with the loads of operands where they take longer than the products."""
    mode = machine.matmul.int8
    if not volume.products:
        reads = positions * block_rows * BLOCK * volume.taps
        return ceil(reads / (machine.core.port_bytes * machine.core.loads_per_cycle))
    products = _TILE // mode.m
    block = max(products * mode.cycles, products * machine.matmul.load_a_cycles, machine.matmul.load_b_cycles)
    per_row = volume.blocks_a_row * volume.taps * block + machine.costs.kernel_prologue
    return ceil(positions / _TILE) * block_rows * per_row


def _ddr_cycles(layer: Layer, volume: _Volume, machine: Machine) -> int:
    """Cycles of the shims or of DDR, whichever is slower; reads and writes go side by side."""
    held = machine.columns * machine.memory_rows * machine.memory.data_bytes
    outside = volume.source + volume.result > held
    read = volume.filters + (volume.source if outside or INPUT in layer.inputs else 0)
    write = volume.result if outside else 0
    shims = len(machine.shim.columns)
    reading = min(shims * machine.shim.read_bytes_per_cycle, machine.costs.ddr_bytes_per_cycle)
    writing = min(shims * machine.shim.write_bytes_per_cycle, machine.costs.ddr_bytes_per_cycle)
    return max(ceil(read / reading), ceil(write / writing))


def _bounds(volume: _Volume, ddr: int, machine: Machine) -> dict[str, int]:
    """The least cycles of the whole array by resource: every byte passes a stream of a memory tile once."""
    tiles, width = machine.columns * machine.memory_rows, machine.streams.bytes_per_cycle
    out = tiles * machine.memory.mm2s_channels * width
    back = tiles * machine.memory.s2mm_channels * width
    streams = max((volume.source + volume.filters) // out, volume.result // back)
    return {"MAC": volume.products // machine.macs_per_cycle, "streams": streams, "DDR": ddr}
