"""What memory tiles hold while a layer runs: rings of data and weights, or all of them, and through which channels they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise

from sparsec.backends.aie.lower.cutting import LOCK_MAXIMUM, RING
from sparsec.backends.aie.lower.modes import Stream
from sparsec.backends.aie.lower.operands import held_bytes, ring_of
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import Machine
from sparsec.compiler.errors import FitError

WEIGHT_SLOTS = 48  # of a memory tile's ring at most
_FEW_SLOTS = 8  # of a ring that is not made smaller so that the next layer's weights have room beside it
_DISCARDED_BYTES = 2048
_HALVED = 2  # columns at most that a stream comes from whose portions come in halves: each is a task of its sender
_GRANULES = 60  # that a lock and an iteration count, of weights that a memory tile holds whole


class What(Enum):
    """What memory tiles hold until it goes to cores."""

    DATA = "data"
    RESIDUAL = "residual"
    WEIGHTS = "weights"

    __hash__ = object.__hash__  # there is one of each, and it is often a key: by name takes much longer


@dataclass(frozen=True, slots=True)
class Portion:
    """What a memory tile holds of a stream at byte address `at`: `count` of the parts of a tile, or of the pages, from the
    `first` on."""

    stream: Stream
    first: int
    count: int
    at: int = 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """What comes through one shim channel: portions by their number in the column's memory tile. So many tiles of data and
    residual come `before` the weights, the rest behind them."""

    data: tuple[int, ...]
    residual: tuple[int, ...]
    weights: tuple[int, ...]
    before: int


@dataclass(frozen=True, slots=True)
class MemoryPlaces:
    """What one memory tile holds. Portions of data and residual are rings of `ring` tiles, those of weights rings of `slots`
    pages, or whole (0).

    Byte addresses: results are a ring for each core of the column, tiles behind the last valid row go to `discarded`, which is
    in one place for all layers: they may come when the next one's data do.
    """

    data: tuple[Portion, ...]
    residual: tuple[Portion, ...]
    weights: tuple[Portion, ...]
    ring: int
    slots: int
    results: tuple[int, ...]
    discarded: int
    arrivals: tuple[Arrival, Arrival]

    def portions(self, what: What) -> tuple[Portion, ...]:
        """Those of one kind."""
        return {What.DATA: self.data, What.RESIDUAL: self.residual, What.WEIGHTS: self.weights}[what]


def granule(pages: int) -> int:
    """Pages that come together into a memory tile which holds all of them."""
    return next(n for n in range(-(-pages // _GRANULES), pages + 1) if pages % n == 0)


def _portions(arriving: Sequence[tuple[Stream, int, int]], total: int, *, halves: bool = False) -> list[Portion]:
    """What comes through a column's shim, of streams of `total` parts each. With `halves`, in two where it is all of one stream,
    so that both channels bring it."""
    found = []
    for s, i, n in arriving:
        first, end = total * i // n, total * (i + 1) // n
        if end - first > 1 and halves and len(arriving) == 1 and n <= _HALVED:
            half = (first + end + 1) // 2
            return [Portion(s, first, half - first), Portion(s, half, end - half)]
        if end > first:
            found.append(Portion(s, first, end - first))
    return found


def _by_stream(portion: Portion, pieces: int) -> list[Portion]:
    """A portion of the residual, cut where one stream's pieces end and the next one's begin."""
    end = portion.first + portion.count
    cuts = [n for n in range(portion.first, end + 1) if n in (portion.first, end) or n % pieces == 0]
    return [replace(portion, first=a, count=b - a) for a, b in pairwise(cuts)]


def in_memory(machine: Machine, tiling: Tiling) -> tuple[MemoryPlaces, ...]:
    """Rings and weights in the memory tiles, by column. FitError when they are too large.

    Streams of weights that come through several columns' shims are held whole: if that does not fit, they come through one.
    """
    if any(len(s.sources) > 1 for s in tiling.mode.weights()) and tiling.layer.computed is None:
        try:
            return tuple(_in_memory(machine, tiling, column, spread=True) for column in range(tiling.mode.grid.columns))
        except FitError:
            pass
    return tuple(_in_memory(machine, tiling, column, spread=False) for column in range(tiling.mode.grid.columns))


def _in_memory(machine: Machine, tiling: Tiling, column: int, *, spread: bool) -> MemoryPlaces:
    mode, size = tiling.mode, machine.memory.data_bytes
    arriving = mode.arriving(column, weights=False)
    data = _portions(arriving, tiling.parts, halves=True)
    ending = [a for a in arriving if a[0].step == mode.chain - 1]  # to the cores that have results
    residual = _portions(ending, tiling.residual_parts, halves=True)
    if mode.residual_streams > 1:
        residual = [q for p in _portions(arriving, tiling.residual_parts) for q in _by_stream(p, tiling.residual_pieces)]
    streams = mode.arriving(column, weights=True, spread=spread)
    weights = [p for s in streams for p in _portions([s], tiling.pages(s[0].part))]
    rows = range(mode.grid.core_rows)
    tile = tiling.part_bytes * sum(p.count for p in data) + tiling.residual_part_bytes * sum(p.count for p in residual)
    made = [len(tiling.output_blocks(mode.parts(column, r)[1])) if mode.finishes(r) else 0 for r in rows]
    rings = [tiling.result_ring * n * tiling.stored_bytes for n in made]
    room = size - sum(rings) - _DISCARDED_BYTES
    computed = tiling.layer.computed is not None
    if computed:
        room -= sum(held_bytes(tiling, p.stream.part, 0) for p in weights)
    ring, slots = _rings(tiling, tile, weights, room, whole=not computed and (spread or tiling.streamed > 1))
    if computed and weights:
        slots = min(ring_of(tiling, p.stream.part, slots) for p in weights)
        ring = ring if slots else 0
    arrivals = _arrivals(tiling, data, residual, weights, ring, slots)
    uneven = slots and any(len({weights[i].count for i in a.weights}) > 1 or len(a.weights) > computed > 0 for a in arrivals)
    if not ring or uneven or (spread and slots):  # rings are filled in turns
        raise FitError(
            f"layer {tiling.layer.node!r} in a memory tile",
            demand=f"{min(RING, tiling.tiles) * tile:,} bytes of data, {sum(rings):,} of results, "
            f"at least {2 * sum(tiling.page_bytes[p.stream.part] for p in weights):,} of weights",
            bound=f"{size:,} bytes",
            remedy="use an array with more columns",
            node=tiling.layer.node,
        )
    at = 0
    placed: list[list[Portion]] = []
    for portions, each in ((data, ring * tiling.part_bytes), (residual, ring * tiling.residual_part_bytes), (weights, 0)):
        placed.append([])
        for p in portions:
            placed[-1].append(Portion(p.stream, p.first, p.count, at))
            at += held_bytes(tiling, p.stream.part, slots or p.count) if portions is weights else p.count * each
    ring_at = tuple(at + sum(rings[:r]) for r in rows)
    parts = tuple(map(tuple, placed))
    return MemoryPlaces(parts[0], parts[1], parts[2], ring, slots, ring_at, size - _DISCARDED_BYTES, arrivals)


def _rings(tiling: Tiling, data: int, weights: Sequence[Portion], room: int, *, whole: bool) -> tuple[int, int]:
    """Tiles of data (0: none fit) and pages of a stream of weights (0: all of them) that a memory tile holds at a time.

    Weights that cores ask for again are held whole if at all possible, then data of all tiles, so that they can come before
    the weights through the same channel.
    """
    page = sum(tiling.page_bytes[p.stream.part] for p in weights)
    every = sum(p.count * tiling.page_bytes[p.stream.part] for p in weights)
    fewest = min(RING, tiling.tiles)
    parts = tiling.parts + tiling.residual_parts
    all_tiles = tiling.tiles if tiling.tiles * parts <= LOCK_MAXIMUM else fewest
    if tiling.mode.streams > 1:  # none of these streams knows when the others have sent a tile
        if all_tiles < tiling.tiles:
            return 0, 0
        fewest = all_tiles
    most = max((p.count for p in weights), default=0)
    if fewest * tiling.parts > LOCK_MAXIMUM:
        return 0, 0
    for ring in dict.fromkeys((all_tiles, fewest)):
        if ring * data + every <= room and whole:
            return ring, 0
    for ring in dict.fromkeys((all_tiles, fewest)):
        left = (room - ring * data) // page if weights else 0
        slots = min(max(left // 2, min(left, _FEW_SLOTS)), WEIGHT_SLOTS, most)
        if ring * data <= room and (not weights or slots >= min(2, most)):
            return ring, slots
    return 0, 0


def _arrivals(
    tiling: Tiling, data: Sequence[Portion], residual: Sequence[Portion], weights: Sequence[Portion], ring: int, slots: int
) -> tuple[Arrival, Arrival]:
    """Portions by shim channel. Data and weights share channels where the first of them never wait for the second.

    Weights that have places of their own come behind the first tile of data, others behind all tiles if these have.
    """
    held = ring >= tiling.tiles
    before = 1 if tiling.kept or not slots else tiling.tiles
    again = tiling.streamed if slots else 1
    sizes = {(What.DATA, i): p.count * tiling.tiles * tiling.part_bytes for i, p in enumerate(data)}
    sizes |= {(What.RESIDUAL, i): p.count * tiling.tiles * tiling.residual_part_bytes for i, p in enumerate(residual)}
    sizes |= {(What.WEIGHTS, i): p.count * again * tiling.page_bytes[p.stream.part] for i, p in enumerate(weights)}
    found: list[dict[What, list[int]]] = [{what: [] for what in What} for _ in range(2)]
    loads = [0, 0]
    apart = not held and slots > 0 and not tiling.kept
    for (what, i), size in sorted(sizes.items(), key=lambda s: -s[1]):
        channel = int(what is What.WEIGHTS) if apart else loads.index(min(loads))
        if what is What.WEIGHTS and tiling.layer.computed and found[channel][what]:
            channel = 1 - channel  # one stream in each
        found[channel][what].append(i)
        loads[channel] += size
    first, second = (
        Arrival(tuple(sorted(f[What.DATA])), tuple(sorted(f[What.RESIDUAL])), tuple(sorted(f[What.WEIGHTS])), before)
        for f in found
    )
    return first, second
