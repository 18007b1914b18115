"""Which ways to compute layers that follow one another go together best.

What a layer takes depends on the way of the one before: whether results stay in memory tiles for it, how many of its weights come
early, whether they leave for DDR; and on that of an earlier one whose results it adds, which may be held there. So ways are
chosen along the layers as a shortest path (Viterbi, IEEE Transactions on Information Theory 13, 1967, section III): the state is
a layer's way and how results lie that are held, and what a state costs is the cheapest path to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from itertools import pairwise
from math import inf
from operator import itemgetter

from sparsec.backends.aie.lower.chaining import Readers, handed, in_ddr_but_last, not_added, uncounted
from sparsec.backends.aie.lower.cost import Context, Estimate, last_unit
from sparsec.backends.aie.lower.memory_places import MemoryPlaces, in_memory
from sparsec.backends.aie.lower.placement import Wanted, smaller_ring
from sparsec.backends.aie.lower.prefetch import change_early, first_is_there, narrowed
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import Machine

_CHANGED = 500  # cycles from when cores have all data until circuits have changed, and more data begin to come
_IN_ONE_PIECE = 0.9  # of a memory tile may be full, so that what is free is likely to lie together


@dataclass(frozen=True)
class Way:
    """A way to compute a layer, and what it takes; with a `handicap`, by which others have to be better than the one that is
    the cheapest by itself."""

    machine: Machine
    tiling: Tiling
    cost: Estimate
    handicap: float = 1.0

    def within(self, context: Context) -> float:
        """What it counts as in a context."""
        return self.handicap * self.cost.within(context)

    @cached_property
    def least(self) -> float:
        """What it counts as in the best context."""
        return self.within(Context(here=True, added=True, early=inf, follows=True, soon=inf))

    @cached_property
    def held(self) -> tuple[dict[str, int], ...]:
        """Bytes of a memory tile by what it holds, by column; `staying` results where they stay, `results` where they do not;
        data of all tiles, where these are `here`."""
        found, t = [], self.tiling
        whole = Counter(s.memory.column for s in t.mode.homes)  # as results stay
        for column, places in enumerate(self.places):
            alone, stays = (Wanted.of(t, places, column, here=False, stays=s) for s in (False, True))
            found.append(
                {
                    "weights": sum(alone.weights),
                    "data": sum(alone.data),
                    "residual": sum(alone.residual),
                    "results": sum(alone.results),
                    "staying": sum(stays.staying),
                    "here": whole[column] * t.tiles * t.source_bytes * t.mode.chain,
                }
            )
        return tuple(found)

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """Of its weights that memory tiles may hold: all, or as much as rings of weights do that are smaller, and so on."""
        few = min((m.slots for m in self.places if m.weights), default=0)
        slots = [few]
        while not self.tiling.layer.computed and smaller_ring(slots[-1]) < slots[-1]:
            slots.append(smaller_ring(slots[-1]))
        return tuple(n / few if few else 1.0 for n in slots)

    @cached_property
    def room(self) -> float:
        """Cycles of a channel for the weights that memory tiles have room for."""
        return max((c.room for c in self.cost.channels), default=0.0)

    @cached_property
    def places(self) -> tuple[MemoryPlaces, ...]:
        """What is in memory tiles."""
        return in_memory(self.machine, self.tiling)


@dataclass(frozen=True, slots=True)
class _State:
    """The cheapest path to a way: its cycles before the last layer, that layer's context, the number of its way, whose results
    are `held` in memory tiles while it runs, until the layer `until` has added them, and the path to the layer before."""

    before: float
    context: Context
    last: float
    way: int
    held: Way | None = None
    until: int = -1
    back: _State | None = None

    @property
    def cycles(self) -> float:
        return self.before + self.last

    @property
    def key(self) -> tuple[int, object]:
        """What tells it from other states of its layer."""
        return _key(self.way, self.held)


def _key(way: int, held: Way | None) -> tuple[int, object]:
    return way, (held.tiling.mode.cut, held.tiling.rows) if held else None


class Begins(IntEnum):
    """How the second of two layers begins while the first one computes: as a whole, without data in cores, without its weights,
    or not at all."""

    WHOLE = 0
    WITHOUT_DATA = 1
    WITHOUT_WEIGHTS = 2
    LATE = 3


Stays = Callable[[Readers, Tiling, Tiling, bool], bool]
Pairs = Callable[[Tiling, Tiling], bool]
Beginning = Callable[[Tiling, Tiling], Begins]


def _stays(who: Readers, before: Tiling, after: Tiling, held: bool) -> bool:
    return not handed(who, before, after, held=held)


def _adds(before: Tiling, adder: Tiling) -> bool:
    return not not_added(before, adder)


def _begins(_: Tiling, __: Tiling) -> Begins:
    return Begins.WHOLE


@dataclass(frozen=True, slots=True)
class Step:
    """A layer on the cheapest path: the number of its way, and whether its results are `held` for the layer that adds them."""

    way: int
    held: bool


def along(
    layers: Sequence[Sequence[Way]],
    who: Sequence[Readers],
    stays: Stays = _stays,
    adds: Pairs = _adds,
    begins: Beginning = _begins,
) -> list[Step]:
    """The cheapest path, layer by layer; `who` reads the results of each. `stays` says of two ways whether results of the first
    may stay for the second, if they are also held for a later layer or not, `adds` whether the results of one way may be held
    until another one adds them, `begins` how the second begins while the first runs. Of results that are held there are one
    layer's at a time."""
    found: list[Step] = []
    after, at = None, _Search(layers, who, stays, adds, begins).best() if layers else None
    while at is not None:
        held = after is not None and after.held is layers[-1 - len(found)][at.way]
        found.append(Step(at.way, held))
        after, at = at, at.back
    return found[::-1]


def cycles_along(ways: Sequence[Way], who: Sequence[Readers], begins: Beginning = _begins) -> list[float]:
    """What layers take in given ways, one for each, behind one another."""
    states = _states(ways, who, begins)
    ends = [*(state.before for state in states), *(state.cycles for state in states[-1:])]
    return [end - begin for begin, end in pairwise(ends)]


def soon_along(ways: Sequence[Way], who: Sequence[Readers], begins: Beginning = _begins) -> list[bool]:
    """Whether the first data of layers come to cores, or to memory tiles, while the layer before computes."""
    return [state.context.ready or state.context.soon > 0 for state in _states(ways, who, begins)]


def _states(ways: Sequence[Way], who: Sequence[Readers], begins: Beginning) -> list[_State]:
    """The path along given ways, from its first layer on."""
    found: list[_State] = []
    at = _Search([[way] for way in ways], who, _stays, _adds, begins).best() if ways else None
    while at is not None:
        found.append(at)
        at = at.back
    return found[::-1]


@dataclass(frozen=True)
class _Search:
    layers: Sequence[Sequence[Way]]
    who: Sequence[Readers]
    stays: Stays
    adds: Pairs
    begins: Beginning

    def best(self) -> _State:
        """The cheapest path."""
        return min(self._last(), key=lambda state: state.cycles)

    def _last(self) -> list[_State]:
        """The cheapest paths to the states of the last layer."""
        paths = [_State(0.0, Context(), way.within(Context()), n) for n, way in enumerate(self.layers[0])]
        for i in range(1, len(self.layers)):
            found: dict[tuple[int, object], _State] = {}
            before = sorted(((self._least(i - 1, path), path, self._holding(i - 1, path)) for path in paths), key=itemgetter(0))
            for n, way in enumerate(self.layers[i]):
                for least, path, holding in before:
                    for begins, held, until in holding:
                        known = found.get(_key(n, held))
                        if known is not None and known.cycles <= least + way.least:
                            continue
                        for made in self._steps(i, path, (begins, held, until), n, way):
                            if made.key not in found or made.cycles < found[made.key].cycles:
                                found[made.key] = made
            paths = list(found.values())
        return paths

    def _least(self, i: int, path: _State) -> float:
        """Cycles of a path whose last layer is `i`, if none of its results leaves."""
        return path.before + self.layers[i][path.way].within(replace(path.context, leaves=0.0, stays=True))

    def _holding(self, i: int, path: _State) -> list[tuple[bool, Way | None, int]]:
        """What may be held when a layer is done: what was before, or its own results, if some way of the adder can add them."""
        one, adder = self.layers[i][path.way], self.who[i].adder
        going_on = path.held is not None and path.until > i
        found: list[tuple[bool, Way | None, int]] = [(False, path.held, path.until) if going_on else (False, None, -1)]
        if not going_on and adder >= 0 and any(self.adds(one.tiling, way.tiling) for way in self.layers[adder]):
            found.append((True, one, adder))
        return found

    def _steps(self, i: int, path: _State, holding: tuple[bool, Way | None, int], number: int, way: Way) -> Iterator[_State]:
        """From a path to a way of the next layer, with what is held: through DDR, and by results that stay if they can."""
        one, who = self.layers[i - 1][path.way], self.who[i - 1]
        begins, held, until = holding
        own = path.held if path.until >= i - 1 else None
        if own is not None and path.context.here and path.back is not None and self.layers[i - 2][path.back.way] is own:
            own = None  # as its results are the data that are there
        added = held is not None and until == i
        if held is not None and added and not self.adds(held.tiling, way.tiling):
            return
        for here in (False, True):
            if here and not self.stays(who, one.tiling, way.tiling, begins):
                continue
            leaves = who.leave(here=here, held=begins)
            if begins and leaves and uncounted(one.tiling):
                continue
            around = _Around(here, begins, added, own, held)
            if (here or held is not None) and not around.fits(one, path.context, way):
                continue
            share = one.tiling.layer.share_left(all_leave=who.all_leave(here=here, held=begins))
            last = one.within(replace(path.context, leaves=share, stays=here)) if share != 1 or here else path.last
            beginning = self.begins(one.tiling, way.tiling)
            weights = beginning in (Begins.WHOLE, Begins.WITHOUT_DATA)
            room = way.room * around.beside(one, path.context, way) if weights else 0.0
            early = min(room, one.cost.spare(path.context, last))
            late = beginning is Begins.LATE
            alone = added or way.tiling.layer.residual is None or way.tiling.mode.own
            begins_soon = alone and beginning is Begins.WHOLE and (here or around.ahead(one, path.context, way))
            ready, soon = self._soon(one, way, who, here=here, leaves=leaves) if begins_soon else (False, 0.0)
            context = Context(here, added, early, follows=True, late=late, ready=ready, soon=soon)
            yield _State(path.before + last, context, way.within(context), number, held, until, path)

    def _soon(self, one: Way, way: Way, who: Readers, *, here: bool, leaves: bool) -> tuple[bool, float]:
        """Whether the first tiles of a way come to memory tiles while cores compute the layer before, and for how many cycles
        they come to cores meanwhile."""
        key = (id(one), id(way), here, leaves)
        if key not in self._begun:
            before, after = one.tiling, way.tiling
            ready = not here and in_ddr_but_last(before, after, way.places, shared=who.shared)
            there = ready or (here and first_is_there(before, after))
            self._begun[key] = ready, _prefetched(one, way, leaves) if there else 0.0
        return self._begun[key]

    @cached_property
    def _begun(self) -> dict[tuple[int, int, bool, bool], tuple[bool, float]]:
        return {}


def _prefetched(one: Way, way: Way, leaves: bool) -> float:
    """Cycles for which data come to cores while these compute the last unit of the layer before, about: when all of that have
    come, circuits change, unless results that leave take them."""
    before, after, size = narrowed(one.machine, one.tiling, way.tiling), way.tiling, one.machine.core.data_bytes
    waits = before.buffers > after.buffers or (after.mode.weights_first and not before.kept)
    if waits or not change_early(before, after, leaves, more=True):
        return 0.0
    first = after.buffers * after.unit_bytes + (after.paging.bytes if after.mode.weights_first else 0)
    if sum(before.core_demand.values()) - (before.buffers - 1) * before.unit_bytes + first > size:
        return 0.0  # where other units were than the last one, there is no room for those that fill buffers
    return max(0.0, last_unit(before, one.cost.compute) - _CHANGED)


@dataclass(frozen=True, slots=True)
class _Around:
    """What memory tiles hold around a step: results that stay `here` for the second layer; those of the first layer that begin to
    be held (`begins`), those that it had around itself (`own`), and those that the second has (`held`), which it may add."""

    here: bool
    begins: bool
    added: bool
    own: Way | None
    held: Way | None

    def fits(self, one: Way, context: Context, way: Way) -> bool:
        """Whether memory tiles have room for results that stay while either layer runs."""
        limit = one.machine.memory.data_bytes
        kept = "staying" if self.here or self.begins else "results"
        first = (_sum(h, "weights", kept, *_arriving(context)) for h in one.held)
        residual = () if self.added else ("residual",)
        data = () if self.here else ("data",)
        staying = [h["staying"] if self.here and not self.begins else 0 for h in one.held]
        then = (s + _sum(h, "weights", "results", *residual, *data) for s, h in zip(staying, way.held, strict=True))
        return (
            max(map(sum, zip(first, _held(self.own, one), strict=True)))
            <= limit
            >= max(map(sum, zip(then, _held(self.held, way), strict=True)))
        )

    def beside(self, one: Way, context: Context, way: Way) -> float:
        """The share of the weights of the second layer that memory tiles have room for beside the first."""
        return next((share for share in way.shares if self._have_room(one, context, way, share)), 0.0)

    def ahead(self, one: Way, context: Context, way: Way) -> bool:
        """Whether they have room for its data as well, beside weights of which they hold as few as it can do with."""
        return self._have_room(one, context, way, way.shares[-1], "data")

    def _have_room(self, one: Way, context: Context, way: Way, share: float, *more: str) -> bool:
        """Whether they have room for so much of the weights of the second layer, and all of `more` of it, beside the first."""
        kept = "staying" if self.here or self.begins else "results"
        first = (_sum(h, "weights", kept, *_arriving(context)) for h in one.held)
        then = (share * h["weights"] + _sum(h, *more) for h in way.held)
        room = _IN_ONE_PIECE * one.machine.memory.data_bytes
        return max(map(sum, zip(first, then, _held(self.own, one), strict=True))) <= room


def _arriving(context: Context) -> tuple[str, ...]:
    return "here" if context.here else "data", *(() if context.added else ("residual",))


def _held(way: Way | None, beside: Way) -> list[int]:
    """Bytes of results that are held, by column."""
    return [h["staying"] for h in way.held] if way is not None else [0] * len(beside.held)


def _sum(held: dict[str, int], *kinds: str) -> int:
    return sum(held[kind] for kind in kinds)
