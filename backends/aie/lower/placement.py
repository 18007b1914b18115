"""Where layers lie in memory tiles: weights beside all that the layer before holds, results where the next layer reads them.

Layers lie at the bottom and at the top of memory tiles in turns, first fit. Results that stay are laid out as the data of the
next layer, all tiles of them, in the memory tile that sends them to cores: the column's own or its western neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparsec.backends.aie.descriptor_forms import OWN_WORDS
from sparsec.backends.aie.lower.memory_places import MemoryPlaces, Portion
from sparsec.backends.aie.lower.modes import Stream
from sparsec.backends.aie.lower.operands import held_bytes
from sparsec.backends.aie.lower.plan import LayerPlan
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.compiler.errors import InternalError

_Span = tuple[int, int]  # bytes from, and up to
_LEAST_SLOTS = 6  # of a ring of weights that is made smaller


@dataclass(frozen=True, slots=True)
class Placed:
    """A layer's plan with its places; whether its data are there when it begins, whether its results stay there, and whether its
    weights, and its data too (`ahead`), may come before the layer before has finished."""

    plan: LayerPlan
    here: bool
    stays: bool
    early: bool
    ahead: bool


@dataclass(slots=True)
class _Held:
    """What a layer holds in one memory tile, and what the next one must not touch while it runs."""

    spans: list[_Span]
    staying: _Span | None = None


def placements(plans: Sequence[LayerPlan], joined: Sequence[bool], there: Sequence[bool]) -> list[Placed]:
    """Places for layers that follow one another; `joined` says whose results shall stay for the next, `there` whose data may come
    while the layer before computes. What has no room is given up: first data that come early, then half of the rings of
    weights and again half, then weights that come early, then results that stay."""
    given, plans = plans, list(plans)
    stays, early, ahead = list(joined), [True] * len(plans), list(there)
    while True:
        found: list[Placed] = []
        held: list[_Held] | None = None
        for k, plan in enumerate(plans):
            here = k > 0 and stays[k - 1]
            made = _place(plan, k % 2 == 1, held, here=here, stays=stays[k], early=k > 0 and early[k], ahead=ahead[k])
            if made is None:
                break
            placed, held = made
            found.append(Placed(placed, here, stays[k], k > 0 and early[k], k > 0 and early[k] and ahead[k]))
        if len(found) == len(plans):
            return found
        k = len(found)
        if ahead[k] and k:
            ahead[k] = False
        elif early[k] and k and (smaller := _with_half_rings(plans[k])) is not None:
            plans[k] = smaller
        elif early[k] and k:
            plans[k], early[k] = given[k], False
        elif stays[k]:
            stays[k], early[k] = False, True
        elif k and stays[k - 1]:
            stays[k - 1], early[k] = False, True
        else:  # it fits alone
            raise InternalError(f"layer {plans[k].layer.node!r} does not fit memory tiles that its plan fits")


def _with_half_rings(plan: LayerPlan) -> LayerPlan | None:
    """The plan with rings of half as many pages of weights; None where they are few."""
    if plan.layer.computed or any(0 < m.slots < 2 * _LEAST_SLOTS for m in plan.memory) or not any(m.slots for m in plan.memory):
        return None
    return replace(plan, memory=tuple(replace(m, slots=m.slots // 2) for m in plan.memory))


def owner(plan: LayerPlan, column: int, row: int) -> Stream:
    """The stream of data with the positions of a core, whose memory tile would send its results as data of the next layer."""
    part = plan.tiling.mode.parts(column, row)[0]
    return next(s for s in plan.tiling.mode.data() if s.part == part)


def _place(
    plan: LayerPlan, top: bool, before: Sequence[_Held] | None, *, here: bool, stays: bool, early: bool, ahead: bool
) -> tuple[LayerPlan, list[_Held]] | None:
    """The plan with its places, and what it holds; None where that has no room."""
    held, places = [], []
    for column in range(len(plan.memory)):
        staying = before[column].staying if here and before is not None else None
        wanted = Wanted.of(plan.tiling, plan.memory[column], column, here=here, stays=stays)
        around = before[column].spans if early and before is not None else []
        made = wanted.placed(plan.memory[0].discarded, top, [staying] if staying else [], around, ahead=ahead)
        if made is None:
            return None
        bases, own = made
        held.append(own)
        places.append(_with_places(plan, column, bases, staying, here=here))
    found = replace(plan, memory=tuple(places))
    return (_with_staying(found, held) if stays else found), held


@dataclass(frozen=True, slots=True)
class Wanted:
    """Bytes of what a layer holds in one memory tile: weights, results that stay, data and residual, results that leave."""

    weights: list[int]
    staying: list[int]
    data: list[int]
    residual: list[int]
    results: list[int]

    @staticmethod
    def of(t: Tiling, m: MemoryPlaces, column: int, *, here: bool, stays: bool) -> Wanted:
        """Of a column's memory tile, where data are `here` already, or results stay."""
        own = [s for s in t.mode.data() if s.memory.column == column]
        rows = range(t.mode.grid.core_rows)
        blocks = [len(t.output_blocks(t.mode.parts(column, r)[1])) if t.mode.finishes(r) else 0 for r in rows]
        return Wanted(
            [held_bytes(t, p.stream.part, m.slots or p.count) for p in m.weights],
            [_staying_bytes(t)] * len(own) if stays else [],
            [] if here else [m.ring * p.count * t.part_bytes for p in m.data],
            [m.ring * p.count * t.residual_part_bytes for p in m.residual],
            [] if stays else [t.result_ring * n * t.stored_bytes for n in blocks],
        )

    def placed(
        self, limit: int, top: bool, busy: list[_Span], around: Sequence[_Span], *, ahead: bool
    ) -> tuple[list[list[int]], _Held] | None:
        """Where all of it is, weights, and data and residual that come `ahead`, clear of what is `around` as well; None where
        there is no room."""
        busy, bases = list(busy), []
        for sizes in (self.weights, self.staying, self.data, self.residual, self.results):
            early = sizes is self.weights or (ahead and (sizes is self.data or sizes is self.residual))
            at = _fit([*busy, *(around if early else ())], sum(sizes), limit, top)
            if at is None:
                return None
            if sizes:
                busy.append((at, at + sum(sizes)))
            bases.append([at + sum(sizes[:i]) for i in range(len(sizes))])
        return bases, _Held(busy, (bases[1][0], bases[1][0] + sum(self.staying)) if self.staying else None)


def _staying_bytes(t: Tiling) -> int:
    """Results of a stream's positions: all tiles, all channels."""
    return t.tiles * t.layer.output_blocks * t.stored_bytes


def _with_places(
    plan: LayerPlan, column: int, bases: Sequence[Sequence[int]], staying: _Span | None, *, here: bool
) -> MemoryPlaces:
    """A memory tile's places; data that stayed from the layer before are one portion a stream, and do not arrive."""
    t, m = plan.tiling, plan.memory[column]
    weights, _, data, residual, results = bases
    found = replace(
        m,
        weights=tuple(replace(p, at=at) for p, at in zip(m.weights, weights, strict=True)),
        residual=tuple(replace(p, at=at) for p, at in zip(m.residual, residual, strict=True)),
        results=tuple(results),
    )
    if not here:
        return replace(found, data=tuple(replace(p, at=at) for p, at in zip(m.data, data, strict=True)))
    first, last = (replace(a, data=()) for a in m.arrivals)
    own = [s for s in t.mode.data() if s.memory.column == column]
    at = staying[0] if staying else 0
    stayed = tuple(Portion(s, 0, t.parts, at + i * t.tiles * t.source_bytes) for i, s in enumerate(own))
    return replace(found, data=stayed, arrivals=(first, last))


def _with_staying(plan: LayerPlan, held: Sequence[_Held]) -> LayerPlan:
    """Results of each core where they stay, as its own memory tile counts: a neighbour's are before its first byte, or behind."""
    t = plan.tiling
    memory: list[MemoryPlaces] = []
    for column, places in enumerate(plan.memory):
        found = []
        for r in range(t.mode.grid.core_rows):
            stream = owner(plan, column, r)
            there = stream.memory.column
            number = [s for s in t.mode.data() if s.memory.column == there].index(stream)
            span = held[there].staying
            assert span is not None
            at = span[0] + number * _staying_bytes(t) + t.mode.parts(column, r)[1] * t.stored_bytes
            found.append(at - 4 * (column - there) * OWN_WORDS)
        memory.append(replace(places, results=tuple(found)))
    return replace(plan, memory=tuple(memory))


def _fit(busy: Sequence[_Span], size: int, limit: int, top: bool) -> int | None:
    """Where `size` bytes are free: as low as possible, or as high."""
    starts = [limit - size, *(a - size for a, _ in busy)] if top else [0, *(b for _, b in busy)]
    free = [at for at in starts if 0 <= at <= limit - size and all(at + size <= a or b <= at for a, b in busy)]
    return (max if top else min)(free, default=None)
