"""The ways to compute a layer on the array, the cheapest first by the cost model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf

from sparsec.backends.aie.descriptor_forms import CORE_STEP_BYTES, MOST_TURNS
from sparsec.backends.aie.lower.cost import Estimate, at_least, estimate, explicit_descriptors
from sparsec.backends.aie.lower.cutting import LOCK_MAXIMUM
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.memory_places import MemoryPlaces, in_memory
from sparsec.backends.aie.lower.modes import Mode
from sparsec.backends.aie.lower.operands import does_not_fit, regular
from sparsec.backends.aie.lower.sparse import why_dense
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import Machine
from sparsec.compiler.errors import FitError

_PIECES = (1, 2, 3, 4, 6, 8, 12)  # of the sums of 8 channels
_MEAN = 512  # blocks of a mean that are one chunk: parts would take kinds of product that nothing else needs
_SPLITS = (1, 2, 4, 8, 16, 32)  # of input channels
_LEAST, _TAPS = 8, 4  # products of 8 output channels in a part of the input channels, so many at most for each of its blocks
_GROUPS = (1, 2, 4)  # of output channels
_MOST_DESCRIPTORS = 16  # of a memory tile for the data of a stream, or of all, so that there are enough for the rest
_MOST_SKIPPED = 255  # words that a dimension of a core's descriptor counts
_LONGER = 1.5  # than the best way, from where on others are not looked at
_STEP_BYTES = CORE_STEP_BYTES - 256  # from one buffer of a core to the next: what a descriptor's iteration steps


def candidates(
    machine: Machine, layer: ConvLayer, modes: tuple[Mode, ...], height: int, width: int, *, sparse: bool | None = None
) -> Iterator[Tiling]:
    """All tilings that fit, or those of sparse products, or the others."""
    found = (t for t in _candidates(machine, layer, modes, height, width) if sparse in (None, t.sparse))
    yield from (t for t in found if _places(machine, t) is not None)


def _candidates(machine: Machine, layer: ConvLayer, modes: tuple[Mode, ...], height: int, width: int) -> Iterator[Tiling]:
    """All tilings that descriptors and locks can count and a core may have room for."""
    core, bank = machine.core.data_bytes, machine.core.data_bytes // machine.core.data_banks
    taps = min(_TAPS, layer.window.kernel[0] * layer.window.kernel[1])
    for mode in modes:
        if mode.residual_streams > 1 and (layer.residual is None or layer.output_blocks % mode.channel_parts):
            continue
        band = -(-height // (mode.position_parts // layer.fan))
        rows = sorted({-(-band // n) for n in range(1, min(band, MOST_TURNS) + 1)})
        if mode.chain > 1 and not _chainable(layer, mode.chain):
            continue
        for splits in _splits(layer, taps) if mode.chain == 1 else (1,):
            most = max(1, int(layer.counts(splits * mode.chain).max()))
            whole = layer.maximum or mode.chain > 1 or layer.shifts.scaling or (layer.shifts.divisor != 1 and most <= _MEAN)
            pieces = (1,) if whole or layer.computed else _PIECES if splits == 1 else (1, 2)
            for height_of in rows:
                for blocks in _chunk_blocks(most, pieces):
                    for kept in (True, False):
                        for buffers in (2, 1):
                            made = Tiling(layer, mode, height, width, height_of, blocks, kept, buffers, core, bank, splits)
                            for groups in _GROUPS if splits > 1 and not layer.computed else (1,):
                                made = replace(made, groups=groups) if groups > 1 else made
                                if _fits(machine, made):
                                    yield made
            if not why_dense(layer, mode, splits):
                yield from _sparse(machine, layer, mode, height, width, rows, splits)


def _sparse(
    machine: Machine, layer: ConvLayer, mode: Mode, height: int, width: int, rows: Sequence[int], splits: int
) -> Iterator[Tiling]:
    """Tilings of sparse products."""
    core, bank = machine.core.data_bytes, machine.core.data_bytes // machine.core.data_banks
    most = max(1, int(layer.sparse_counts(splits, mode.channel_parts).max()))
    for height_of in rows:
        for kept in (True, False):
            for buffers in (2, 1):
                chunk = most + most % 2
                made = Tiling(layer, mode, height, width, height_of, chunk, kept, buffers, core, bank, splits, sparse=True)
                for groups in _GROUPS if splits > 1 else (1,):
                    made = replace(made, groups=groups) if groups > 1 else made
                    if _fits(machine, made):
                        yield made


def _chainable(layer: ConvLayer, cores: int) -> bool:
    """Whether so many cores may each have a part of a layer's input channels: whole blocks, and enough products in each."""
    taps = min(_TAPS, layer.window.kernel[0] * layer.window.kernel[1])
    enough = layer.input_blocks % cores == 0 and layer.input_blocks * taps >= _LEAST * cores
    return enough and not (layer.depthwise or layer.maximum or layer.wide or layer.shifts.scaling or layer.computed)


def _splits(layer: ConvLayer, taps: int) -> Iterator[int]:
    """Parts of the input channels: of products of computed tensors, whole heads."""
    if layer.computed:
        yield from (n for n in range(1, layer.computed.heads + 1) if layer.computed.heads % n == 0)
        return
    for n in _SPLITS:
        if n == 1 or not (layer.depthwise or layer.input_blocks % n or layer.input_blocks * taps < _LEAST * n):
            yield n


def _chunk_blocks(most: int, pieces: Sequence[int]) -> list[int]:
    """Blocks of a chunk, of at most so many in so many pieces: even numbers."""
    found = (-(-most // n) for n in pieces)
    return sorted({n + n % 2 for n in found}, reverse=True)


def _fits(machine: Machine, t: Tiling) -> bool:
    """Whether descriptors and locks can count it, and a core has room."""
    parts = {len(t.output_blocks(p)) for p in range(t.mode.channel_parts)} - {0}
    if t.layer.computed and not regular(t):
        return False
    if t.groups > 1 and (t.layer.residual or len(parts) > 1 or t.most_results % (t.groups * t.results_together)):
        return False
    if explicit_descriptors(t) > _MOST_DESCRIPTORS:
        return False
    if t.layer.residual and t.splits > 8:
        return False
    if t.layer.residual and t.mode.sharing > 1 and t.residual_words > _MOST_SKIPPED:
        return False
    if t.mode.own and (t.layer.computed or not (t.kept or t.tiles == 1)):  # residuals come between whole pages, and once
        return False
    if t.mode.weights_first and not (t.kept and t.buffers == (1 if t.mode.channelwise and t.units == 1 else 2) and _plain(t)):
        return False
    if t.tiles > MOST_TURNS or t.most_results > LOCK_MAXIMUM:
        return False
    if t.buffers > 1 and (t.unit_bytes > _STEP_BYTES or t.units == 1):
        return False
    return t.least_demand <= machine.core.data_bytes


def _plain(t: Tiling) -> bool:
    """Whether weights are constant, and whole sums made of tiles that come once, to which nothing is added."""
    layer = t.layer
    alone = not (layer.residual or layer.computed) and layer.depthwise == t.mode.channelwise
    return t.splits == t.groups == 1 and alone and not (t.in_parts or t.sparse)


def _places(machine: Machine, t: Tiling) -> tuple[MemoryPlaces, ...] | None:
    """What memory tiles hold; None where that or what cores hold does not fit."""
    if sum(t.core_demand.values()) > machine.core.data_bytes or (t.kept and max(t.paging.counts) > LOCK_MAXIMUM):
        return None
    try:
        return in_memory(machine, t)
    except FitError:
        return None


def ranked(
    machine: Machine, layer: ConvLayer, modes: tuple[Mode, ...], height: int, width: int, aim: float = inf
) -> list[tuple[Estimate, Tiling]]:
    """The tilings that fit, the cheapest first by the model, and what they take; without those that take much longer than the
    best one, or than the cycles to `aim` at, and those with one buffer of data of which there is room for two.

    FitError when there are none.
    """
    bounded = sorted((at_least(machine, t), i, t) for i, t in enumerate(_candidates(machine, layer, modes, height, width)))
    found: list[tuple[float, int, Estimate, Tiling]] = []
    least, double = aim, set[tuple[object, ...]]()
    for bound, i, t in bounded:
        if bound > _LONGER * least:
            break
        alike = (t.mode, t.rows, t.chunk_blocks, t.kept, t.splits, t.groups, t.sparse)
        if (t.buffers == 1 and alike in double) or (places := _places(machine, t)) is None:
            continue
        made = estimate(machine, t, places)
        least = min(least, made.cycles)
        if t.buffers > 1:
            double.add(alike)
        found.append((made.cycles, i, made, t))
    if not found and layer.computed:
        raise does_not_fit(machine, layer)
    if not found:
        raise FitError(
            f"layer {layer.node!r} on {machine.name}",
            demand=f"one row of {width} x {layer.channels[0]} inputs and {layer.channels[1]} outputs, and weights of 8 channels",
            bound=f"{machine.core.data_bytes:,} bytes of a core and {machine.memory.data_bytes:,} of a memory tile",
            remedy="use a larger array",
            node=layer.node,
        )
    return [(made, t) for _, _, made, t in sorted(found, key=lambda f: f[:2])]
