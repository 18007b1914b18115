"""Where layers lie in memory tiles: weights beside all that the layer before holds, results where the next layer reads them.

Layers lie at the bottom and at the top of memory tiles in turns, first fit. Results that stay are laid out as the data of the
next layer, all tiles of them, in the memory tile that sends them to cores: the column's own or its western neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparsec.backends.aie.descriptor_forms import OWN_WORDS
from sparsec.backends.aie.lower.plan import LayerPlan, MemoryPlaces, data_streams, weight_streams

_Span = tuple[int, int]  # bytes from, and up to


@dataclass(frozen=True, slots=True)
class Placed:
    """A layer's plan with its places; whether its data are there when it begins, whether its results stay there, and whether its
    weights may come before the layer before has finished."""

    plan: LayerPlan
    here: bool
    stays: bool
    early: bool


@dataclass(slots=True)
class _Held:
    """What a layer holds in one memory tile, and what the next one must not touch while it runs."""

    spans: list[_Span]
    staying: _Span | None = None


def placements(plans: Sequence[LayerPlan], joined: Sequence[bool]) -> list[Placed]:
    """Places for layers that follow one another; `joined` says whose results shall stay for the next. What has no room is given
    up: first weights that come early, then results that stay."""
    stays, early = list(joined), [True] * len(plans)
    while True:
        found: list[Placed] = []
        held: list[_Held] | None = None
        for k, plan in enumerate(plans):
            here = k > 0 and stays[k - 1]
            made = _place(plan, k % 2 == 1, held, here=here, stays=stays[k], early=k > 0 and early[k])
            if made is None:
                break
            placed, held = made
            found.append(Placed(placed, here, stays[k], k > 0 and early[k]))
        if len(found) == len(plans):
            return found
        k = len(found)
        if early[k] and k:
            early[k] = False
        elif stays[k]:
            stays[k], early[k] = False, True
        elif k and stays[k - 1]:
            stays[k - 1], early[k] = False, True
        else:  # it fits alone
            raise AssertionError(f"layer {plans[k].layer.node!r} does not fit memory tiles that its plan fits")


def owner(plan: LayerPlan, column: int, row: int) -> tuple[int, int]:
    """The column whose memory tile sends the positions of a core to cores, and the number of that stream there."""
    mode = plan.tiling.mode
    part = mode.parts(column, row)[0]
    stream = next(s for s in mode.data() if s.part == part)
    return stream.memory.column, data_streams(plan.tiling, stream.memory.column).index(stream)


def _place(
    plan: LayerPlan, top: bool, before: Sequence[_Held] | None, *, here: bool, stays: bool, early: bool
) -> tuple[LayerPlan, list[_Held]] | None:
    """The plan with its places, and what it holds; None where that has no room."""
    t, limit = plan.tiling, plan.memory[0].discarded
    held, places, staying = [], [], []
    tile = t.residual_source_bytes if here else t.source_bytes + t.residual_source_bytes
    for column, old in enumerate(plan.memory):
        streams = len(data_streams(t, column))
        rows = [len(t.output_blocks(t.mode.parts(column, r)[1])) for r in range(t.mode.grid.core_rows)]
        weights = [(old.slots or t.chunks(s.part)) * t.chunk_bytes for s in weight_streams(t, column)]
        data = [old.ring * tile] * streams
        kept = [t.tiles * t.layer.output_blocks * t.stored_bytes] * streams if stays else []
        results = [] if stays else [t.result_ring * n * t.stored_bytes for n in rows]
        first = before[column].staying if here and before is not None else None
        busy: list[_Span] = [first] if first is not None else []
        around = [*busy, *(before[column].spans if early and before is not None else ())]
        bases = []
        for sizes, others in ((weights, around), (kept, busy), (data, busy), (results, busy)):
            at = _fit(others, sum(sizes), limit, top)
            if at is None:
                return None
            if sizes:
                busy.append((at, at + sum(sizes)))
            bases.append([at + sum(sizes[:i]) for i in range(len(sizes))])
        held.append(_Held(busy, (bases[1][0], bases[1][0] + sum(kept)) if kept else None))
        staying.append(bases[1])
        each = t.tiles * t.source_bytes
        own = [first[0] + i * each for i in range(streams)] if first is not None else bases[2]
        made = replace(old, weights=tuple(bases[0]), data=tuple(own), results=tuple(bases[3]), residual=tuple(bases[2]))
        places.append(made)
    found = replace(plan, memory=tuple(places))
    return (_with_staying(found, staying) if stays else found), held


def _with_staying(plan: LayerPlan, staying: Sequence[Sequence[int]]) -> LayerPlan:
    """Results of each core where they stay, as its own memory tile counts: before its first byte in its western neighbour."""
    t = plan.tiling
    memory: list[MemoryPlaces] = []
    for column, places in enumerate(plan.memory):
        found = []
        for r in range(t.mode.grid.core_rows):
            there, stream = owner(plan, column, r)
            found.append(staying[there][stream] + t.mode.parts(column, r)[1] * t.stored_bytes - 4 * (column - there) * OWN_WORDS)
        memory.append(replace(places, results=tuple(found)))
    return replace(plan, memory=tuple(memory))


def _fit(busy: Sequence[_Span], size: int, limit: int, top: bool) -> int | None:
    """Where `size` bytes are free: as low as possible, or as high."""
    starts = [limit - size, *(a - size for a, _ in busy)] if top else [0, *(b for _, b in busy)]
    free = [at for at in starts if 0 <= at <= limit - size and all(at + size <= a or b <= at for a, b in busy)]
    return (max if top else min)(free, default=None)


def weights_before_data(plan: LayerPlan) -> bool:
    """Whether weights can come before all data: where both share a channel, cores or memory tiles have to take all of them
    without computing."""
    return all(plan.tiling.kept or not m.slots or not (a.data and a.weights) for m in plan.memory for a in m.arrivals)
