"""Where layers lie in memory tiles: weights beside all that the layer before holds, results where the next layer reads them.

Layers lie at the bottom and at the top of memory tiles in turns, first fit. Results that stay are laid out as the data of the
next layer, all tiles of them, in the memory tile that sends them to cores: the column's own or its western neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparsec.backends.aie.descriptor_forms import OWN_WORDS
from sparsec.backends.aie.lower.chaining import Neighbours
from sparsec.backends.aie.lower.memory_places import MemoryPlaces, Portion
from sparsec.backends.aie.lower.modes import Stream
from sparsec.backends.aie.lower.operands import held_bytes
from sparsec.backends.aie.lower.plan import LayerPlan
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.compiler.errors import InternalError

_Span = tuple[int, int]  # bytes from, and up to
LEAST_SLOTS = 4  # of a ring of weights that is made smaller


@dataclass(frozen=True, slots=True)
class Placed:
    """A layer's plan with its places; whether its data are there when it begins (`here`), and the residual that is `added`;
    whether its results stay for the next layer (`joined`), or are `held` for one that adds them; and whether its weights, and its
    data too (`ahead`), may come before the layer before has finished."""

    plan: LayerPlan
    here: bool
    added: bool
    joined: bool
    held: bool
    early: bool
    ahead: bool

    @property
    def stays(self) -> bool:
        """Whether results stay where the layers that read them find them."""
        return self.joined or self.held


@dataclass(slots=True)
class _Held:
    """What a layer holds in one memory tile, and what the next one must not touch while it runs."""

    spans: list[_Span]
    staying: _Span | None = None


@dataclass(slots=True)
class _Wishes:
    """What layers shall have, by layer, of which some is given up: results that stay for the next layer, the layer that adds them
    where they are (-1: none), weights that come early, data that come ahead, plans with their rings of weights."""

    plans: list[LayerPlan]
    joined: list[bool]
    adders: list[int]
    early: list[bool]
    ahead: list[bool]
    first: Sequence[LayerPlan]
    neighbours: Neighbours

    def holder(self, k: int) -> int:
        """The layer whose results one adds where they are, -1 where none."""
        return next((i for i, adder in enumerate(self.adders) if adder == k), -1)

    def held(self, k: int) -> list[int]:
        """Layers whose results are held while another one runs."""
        return [i for i, adder in enumerate(self.adders) if i < k <= adder]

    def give_up(self, k: int) -> None:
        """Something, so that layer `k` has room: first data that come ahead, then a quarter of its rings of weights, and again
        one, then weights that come early, then data that are there if they are fewer than what else stays, then results that
        stay, then those that are held."""
        holding = [*self.held(k), *([k] if self.adders[k] >= 0 else [])]
        if self.ahead[k] and k:
            self.ahead[k] = False
        elif self.early[k] and k and (smaller := _with_smaller_rings(self.plans[k])) is not None:
            self.plans[k] = smaller
        elif self.early[k] and k:
            self.plans[k], self.early[k] = self.first[k], False
        elif self._few_data(k, [*holding, *([k] if self.joined[k] else [])]):
            self.joined[k - 1], self.early[k] = False, True
        elif self.joined[k]:
            self.joined[k], self.early[k] = False, True
            if not self.neighbours.may_hold(k, here=False):
                self.adders[k] = -1
        elif k and self.joined[k - 1] and not holding:
            self.joined[k - 1], self.early[k] = False, True
        elif holding:
            last = holding[-1]
            self.adders[last], self.early[k] = -1, True
            self.joined[last] = self.joined[last] and self.neighbours.may_stay(last, held=False)
        else:  # it fits alone
            raise InternalError(f"layer {self.plans[k].layer.node!r} does not fit memory tiles that its plan fits")

    def _few_data(self, k: int, others: Sequence[int]) -> bool:
        """Whether data that are there for a layer, and for no later one, are fewer than the results of each of others."""
        size = [_staying_bytes(plan.tiling) * plan.tiling.mode.position_parts for plan in self.plans]
        there = k > 0 and self.joined[k - 1] and self.adders[k - 1] < 0
        return there and bool(others) and all(size[k - 1] < size[i] for i in others)


def placements(plans: Sequence[LayerPlan], neighbours: Neighbours, there: Sequence[bool]) -> list[Placed]:
    """Places for layers that follow one another; `neighbours` says whose results may stay, `there` whose data may come while the
    layer before computes. What has no room is given up."""
    joined, adders = neighbours.joined, list(neighbours.adders)
    wishes = _Wishes(list(plans), joined, adders, [True] * len(plans), list(there), plans, neighbours)
    while True:
        found: list[Placed] = []
        held: list[list[_Held]] = []
        for k, plan in enumerate(wishes.plans):
            here, holder, holds = k > 0 and wishes.joined[k - 1], wishes.holder(k), wishes.adders[k] >= 0
            early = k > 0 and wishes.early[k]
            made = _place(
                plan,
                k % 2 == 1,
                held[-1] if held else None,
                added=held[holder] if holder >= 0 else None,
                kept=[held[i] for i in wishes.held(k)],
                here=here,
                laid=plans[k + 1].tiling.rows if wishes.joined[k] else plan.tiling.rows if holds else 0,
                early=early,
                ahead=wishes.ahead[k],
            )
            if made is None:
                break
            placed, own = made
            held.append(own)
            found.append(Placed(placed, here, holder >= 0, wishes.joined[k], holds, early, early and wishes.ahead[k]))
        if len(found) == len(plans):
            return found
        wishes.give_up(len(found))


def smaller_ring(slots: int) -> int:
    """Pages of a ring of weights that is made smaller; as many where they are few."""
    return min(slots, max(LEAST_SLOTS, slots * 3 // 4))


def _with_smaller_rings(plan: LayerPlan) -> LayerPlan | None:
    """The plan with smaller rings of weights; None where they are few."""
    if plan.layer.computed or all(smaller_ring(m.slots) == m.slots for m in plan.memory):
        return None
    return replace(plan, memory=tuple(replace(m, slots=smaller_ring(m.slots)) for m in plan.memory))


def owner(plan: LayerPlan, column: int, row: int) -> Stream:
    """The stream of data with the positions of a core, whose memory tile would send its results as data of the next layer."""
    return plan.tiling.mode.homes[plan.tiling.mode.parts(column, row)[0]]


def _place(
    plan: LayerPlan,
    top: bool,
    before: Sequence[_Held] | None,
    *,
    added: Sequence[_Held] | None,
    kept: Sequence[Sequence[_Held]],
    here: bool,
    laid: int,
    early: bool,
    ahead: bool,
) -> tuple[LayerPlan, list[_Held]] | None:
    """The plan with its places, and what it holds, beside the results of others that are `kept` there, of which it adds those
    `added`; its own stay in tiles of `laid` rows, if not 0. None where that has no room."""
    held, places = [], []
    for column in range(len(plan.memory)):
        staying = before[column].staying if here and before is not None else None
        residual = added[column].staying if added is not None else None
        wanted = Wanted.of(plan.tiling, plan.memory[column], column, here=here, stays=laid > 0, added=added is not None)
        around = before[column].spans if early and before is not None else []
        busy = [span for h in kept if (span := h[column].staying)]
        made = wanted.placed(plan.memory[0].discarded, top, [*busy, *([staying] if staying else [])], around, ahead=ahead)
        if made is None:
            return None
        bases, own = made
        held.append(own)
        found = _with_places(plan, column, bases)
        found = _with_data(plan, column, found, staying) if here else found
        places.append(_with_residual(plan, column, found, residual) if added is not None else found)
    whole = replace(plan, memory=tuple(places))
    return (_with_staying(whole, held, laid) if laid else whole), held


@dataclass(frozen=True, slots=True)
class Wanted:
    """Bytes of what a layer holds in one memory tile: weights, results that stay, data and residual, results that leave."""

    weights: list[int]
    staying: list[int]
    data: list[int]
    residual: list[int]
    results: list[int]

    @staticmethod
    def of(t: Tiling, m: MemoryPlaces, column: int, *, here: bool, stays: bool, added: bool = False) -> Wanted:
        """Of a column's memory tile, where data are `here` already, or the residual that is `added`, or results stay."""
        own = [s for s in t.mode.homes if s.memory.column == column]
        rows = range(t.mode.grid.core_rows)
        blocks = [len(t.output_blocks(t.mode.parts(column, r)[1])) if t.mode.finishes(r) else 0 for r in rows]
        return Wanted(
            [held_bytes(t, p.stream.part, m.slots or p.count) for p in m.weights],
            [_staying_bytes(t)] * len(own) if stays else [],
            [] if here else [m.ring * p.count * t.part_bytes for p in m.data],
            [] if added else [m.ring * p.count * t.residual_part_bytes for p in m.residual],
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


def _with_places(plan: LayerPlan, column: int, bases: Sequence[Sequence[int]]) -> MemoryPlaces:
    """A memory tile's places for what arrives and what leaves."""
    m = plan.memory[column]
    weights, _, data, residual, results = bases
    return replace(
        m,
        weights=tuple(replace(p, at=at) for p, at in zip(m.weights, weights, strict=True)),
        data=tuple(replace(p, at=at) for p, at in zip(m.data, data, strict=True)) if data else m.data,
        residual=tuple(replace(p, at=at) for p, at in zip(m.residual, residual, strict=True)) if residual else m.residual,
        results=tuple(results),
    )


def _with_data(plan: LayerPlan, column: int, m: MemoryPlaces, staying: _Span | None) -> MemoryPlaces:
    """Data that stayed from the layer before are one portion a stream, and do not arrive. Each core of a chain has some of the
    channels of every tile."""
    t, (first, last) = plan.tiling, m.arrivals
    stayed = tuple(
        Portion(s, 0, t.parts, at + s.step * t.source_bytes)
        for part, at in _stayed(t, column, staying)
        for s in t.mode.data()
        if s.part == part
    )
    return replace(m, data=stayed, arrivals=(replace(first, data=()), replace(last, data=())))


def _with_residual(plan: LayerPlan, column: int, m: MemoryPlaces, staying: _Span | None) -> MemoryPlaces:
    """The same of a residual that an earlier layer made: a portion for each of several streams, whose blocks take turns."""
    t, (first, last) = plan.tiling, m.arrivals
    pieces = t.residual_parts // t.mode.residual_streams
    block = t.residual_source_bytes // t.layer.output_blocks
    stayed = tuple(
        Portion(s, i * pieces, pieces, at + i * block)
        for part, at in _stayed(t, column, staying)
        for s in t.mode.data()
        for i in range(t.mode.residual_streams)
        if s.part == part
    )
    return replace(m, residual=stayed, arrivals=(replace(first, residual=()), replace(last, residual=())))


def _stayed(t: Tiling, column: int, staying: _Span | None) -> list[tuple[int, int]]:
    """The parts of the positions whose values are in a column's memory tile, and where those of each begin."""
    own = [s.part for s in t.mode.homes if s.memory.column == column]
    return [(part, staying[0] + i * ((staying[1] - staying[0]) // len(own))) for i, part in enumerate(own)] if staying else []


def _with_staying(plan: LayerPlan, held: Sequence[_Held], laid: int) -> LayerPlan:
    """Results of each core where they stay, in tiles of `laid` rows, as its own memory tile counts: a neighbour's are before its
    first byte, or behind."""
    t = plan.tiling
    memory: list[MemoryPlaces] = []
    for column, places in enumerate(plan.memory):
        found = []
        for r in range(t.mode.grid.core_rows):
            stream = owner(plan, column, r)
            there = stream.memory.column
            number = [s for s in t.mode.homes if s.memory.column == there].index(stream)
            span = held[there].staying
            assert span is not None
            at = span[0] + number * _staying_bytes(t) + t.mode.parts(column, r)[1] * t.stored_bytes * laid // t.rows
            found.append(at - 4 * (column - there) * OWN_WORDS)
        memory.append(replace(places, results=tuple(found)))
    return replace(plan, memory=tuple(memory))


def _fit(busy: Sequence[_Span], size: int, limit: int, top: bool) -> int | None:
    """Where `size` bytes are free: as low as possible, or as high."""
    starts = [limit - size, *(a - size for a, _ in busy)] if top else [0, *(b for _, b in busy)]
    free = [at for at in starts if 0 <= at <= limit - size and all(at + size <= a or b <= at for a, b in busy)]
    return (max if top else min)(free, default=None)
