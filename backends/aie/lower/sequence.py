"""Layers one after the other: which operations of a layer come while the one before still computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sparsec.backends.aie.descriptor_forms import WORD_BYTES
from sparsec.backends.aie.lower.chaining import Neighbours
from sparsec.backends.aie.lower.circuits import Circuits
from sparsec.backends.aie.lower.control import LayerControl, Stage, enable
from sparsec.backends.aie.lower.cost import BEGUN, TAIL, USED
from sparsec.backends.aie.lower.leaving import RESULT_PIECES
from sparsec.backends.aie.lower.placement import Placed, placements
from sparsec.backends.aie.lower.plan import LayerPlan
from sparsec.backends.aie.lower.prefetch import NOTHING, change_early, prefetched
from sparsec.backends.aie.lower.prefetch import taken as taken_early
from sparsec.backends.aie.lower.thinning import AllLeave, ask_for_thinned
from sparsec.backends.aie.lower.tile_control import NONE_QUEUED, Links, Traffic
from sparsec.backends.aie.lower.writer import queue_of, without_room
from sparsec.backends.aie.part import Part
from sparsec.backends.aie.registers import Grid, Kind, split
from sparsec.backends.aie.transaction import BlockWrite, Operation, Write
from sparsec.compiler.errors import LimitError

BEGINS_LATE = "it begins when the layer before has finished"
_AT_ONCE = 0  # instead of fewer pieces of results: weights at once
_QUEUED = 5  # tasks of a channel at most: one that runs, and four that wait


_Asked = tuple[int, Links, tuple[tuple[float, ...], ...] | None]  # all that a layer's control depends on beside its plan


@dataclass(frozen=True, slots=True)
class Sequenced:
    """The operations of a segment, how many there are up to each layer's end (the first number: before the first), by layer what
    keeps it from beginning while the one before computes, "" where nothing does, how it meets its neighbours, and its places."""

    operations: tuple[Operation, ...]
    ends: tuple[int, ...]
    late: tuple[str, ...]
    links: tuple[Links, ...]
    places: tuple[Placed, ...]


def sequence(
    part: Part,
    layers: Sequence[tuple[LayerPlan, Traffic]],
    cycles: Sequence[float],
    neighbours: Neighbours,
    there: Sequence[bool],
    follow: Sequence[bool],
) -> Sequenced:
    """All operations. A layer's descriptors, parameters and weights come while the layer before computes, if they have places
    beside that one's; when its results are there, the data follow.

    Where descriptors do not suffice for a layer beside the one before, results of that one leave in fewer pieces; where that is
    not enough, weights of both come at once.

    By layer, `cycles` says about how long it takes, `neighbours` whether results may stay in memory tiles, and go to DDR as well,
    which nobody waits for but the layer behind the next, `there` whether its data are in DDR before the layer before begins,
    `follow` whether its first tiles are when that has but its last tiles left to bring there. LimitError names a layer that does
    not fit, and AllLeave one whose results cannot be thinned out.
    """
    plans = [plan for plan, _ in layers]
    places = placements(plans, neighbours, [a or b for a, b in zip(there, follow, strict=True)])
    all_leave = [who.all_leave(here=p.joined, held=p.held) for who, p in zip(neighbours.readers, places, strict=True)]
    ask_for_thinned((plan.layer for plan in plans), all_leave)
    follows = [p.ahead and not p.here and not a for p, a in zip(places, there, strict=True)]
    leaves = [r.leave(here=p.joined, held=p.held) for r, p in zip(neighbours.readers, places, strict=True)]
    steps = [RESULT_PIECES] * len(layers)  # pieces of the results, then weights at once, then neither of both
    pairs = list(pairwise(plans))
    early = [NOTHING, *(prefetched(a, b, here=p.here) for (a, b), p in zip(pairs, places[1:], strict=True))]
    taken = [NONE_QUEUED, *(taken_early(a.tiling, b.tiling, some) for (a, b), some in zip(pairs, early[1:], strict=True))]
    known: dict[_Asked, LayerControl] = {}
    while True:
        made = _Sequence(part, known)
        for i, (placed, (_, traffic)) in enumerate(zip(places, layers, strict=True)):
            links = Links(
                placed.here,
                placed.added,
                placed.ahead and there[i] and _by_themselves(placed),
                follows[i],
                placed.stays,
                plans[i + 1].tiling.rows if placed.joined else placed.plan.tiling.rows,
                leaves=leaves[i],
                apart=i + 1 < len(places) and follows[i + 1],
                pieces=steps[i] if steps[i] > 0 else RESULT_PIECES,
                at_once=_AT_ONCE in steps[max(0, i - 1) : i + 1],
                tells=i + 1 < len(plans)
                and change_early(plans[i].tiling, plans[i + 1].tiling, leaves[i], more=any(early[i + 1])),
                queued=taken[i],
                left=NONE_QUEUED if i + 1 == len(taken) else taken[i + 1],
                prefetch=early[i][:2],
            )
            try:
                made.add(placed, traffic, links, cycles[i - 1] if i else 0.0)
            except LimitError as exc:
                if placed.plan.layer.thinned:  # the whole may take fewer descriptors
                    raise AllLeave([placed.plan.layer]) from exc
                raise LimitError(str(exc), node=placed.plan.layer.node) from exc
        made.end()
        fewer = [i - 1 for i in made.crowded if steps[i - 1] >= _AT_ONCE]
        if not fewer and not made.unqueued:
            return Sequenced(tuple(made.operations), tuple(made.ends), tuple(made.late), tuple(made.links), tuple(places))
        for i in fewer:
            steps[i] -= 2 if steps[i] > 1 else 1  # one piece fewer through each of two channels
        if not fewer:  # with fewer pieces a layer may begin early after all
            for i in made.unqueued:
                taken[i], early[i] = NONE_QUEUED, NOTHING


class _Sequence:
    """Adds layers one after the other."""

    def __init__(self, part: Part, known: dict[_Asked, LayerControl]) -> None:
        """`known` are controls of layers that others made, by all that they depend on."""
        self.part, self.grid, self._known = part, part.grid, known
        self.circuits = Circuits(part.grid if part.whole else part.machine)
        self.operations = part.moved(enable(part.grid))
        self.ends, self.late, self.links = [0], list[str](), list[Links]()
        self.crowded: list[int] = []  # layers that find too few descriptors beside the layer before
        self.unqueued: list[int] = []  # layers whose cores' tasks find no place in queues beside the layer before
        self._before: LayerControl | None = None
        self._awaited: list[Operation] = []  # results of the layer before the last one that still leave

    def add(self, placed: Placed, traffic: Traffic, links: Links, cycles: float) -> None:
        """The next layer; the one before takes about so many `cycles`."""
        near, far = self.circuits.change(placed.plan.tiling.mode)
        control, early, why = self._control(placed, traffic, links, cycles, again=bool(near))
        moved = self.part.moved
        self.operations += moved(self._awaited)
        self._awaited = []
        if early and self._before is not None:
            delivered = not near
            stages = _staged(self.grid, self._before, control, told=delivered and self._before.links.tells)
            if stages[Stage.QUEUE]:
                self.unqueued.append(len(self.late))
            self.operations += moved(stages[Stage.CONFIGURE])
            if delivered:
                self.operations += moved(self._before.delivered())
                if self._before.links.tells:
                    self.operations += [*far, *moved(stages[Stage.PREFETCH])]
                    far, stages[Stage.PREFETCH] = [], []
            self.operations += moved([*self._before.first_in_ddr(), *stages[Stage.FOLLOW]])
            self._finish(lasting=links.here, delivered=delivered)
            rest = stages[Stage.LEAVE]
            if rest:
                rest = [*self._awaited, *rest]
                self._awaited = []
            self.operations += [*near, *moved(stages[Stage.ARRIVE]), *moved(stages[Stage.TAKE])]
            self.operations += [*far, *moved([*stages[Stage.PREFETCH], *stages[Stage.SEND]]), *moved(rest)]
        else:
            if links.queued != NONE_QUEUED:
                self.unqueued.append(len(self.late))
            self.operations += moved(self._before.first_in_ddr() if self._before is not None else [])
            self._finish(lasting=False)
            first, then = ([op for _, op in staged] for staged in (control.arriving, control.computing))
            leaving = [*control.leaving, *control.leaving_array]
            self.operations += [*near, *moved(first), *far, *moved(then), *moved(leaving)]
        self._before = control
        self.late.append(why)
        self.links.append(links)

    def end(self) -> None:
        """Wait for the last one."""
        self.operations += self.part.moved(self._awaited)
        self._finish(lasting=False)

    def _finish(self, *, lasting: bool, delivered: bool = False) -> None:
        """Wait for the last layer; for results in DDR later, if they are `lasting` in memory tiles; for data and weights that
        cores tell of, if these are not known to be `delivered`."""
        if self._before is None:
            return
        if not delivered:
            self.operations += self.part.moved(self._before.delivered())
        if lasting:
            self._awaited = [*self._before.in_ddr(), *self._before.tidy()]
            self.operations += self.part.moved(self._before.finish())
        else:
            done = [*self._before.in_ddr(), *self._before.finish(), *self._before.tidy()]
            self.operations += self.part.moved(done)
        self.ends.append(len(self.operations))

    def _control(
        self, placed: Placed, traffic: Traffic, links: Links, cycles: float, *, again: bool
    ) -> tuple[LayerControl, bool, str]:
        """The control of a layer, whether it begins early, and why not all of it does; `again`: circuits from DDR change."""
        before, plan, turn = self._before, placed.plan, len(self.late)
        why = "not all cores have results in the layer before"
        if before is not None and before.all_cores:
            late = ""
            if again:
                late = "circuits from DDR change"
            elif not placed.early:
                late = "they have no place in memory tiles beside the layer before"
            control = self._made(plan, traffic, links, None if late else _time(before, cycles))
            why = without_room(self.grid, control.needed, before.taken)
            if not late and control.cut_short:
                late = "equal pieces, as descriptors suffice for, are much smaller than what there is time for"
            if not why:
                return control, True, late and f"its weights come later: {late}"
            self.crowded.append(turn)
            if not links.here and not without_room(self.grid, control.arrived, before.taken):
                return control, True, f"memory tiles learn later what to send: {why}"
        late = "" if before is None else f"{BEGINS_LATE}: {why}"
        return self._made(plan, traffic, links, None), False, late

    def _made(self, plan: LayerPlan, traffic: Traffic, links: Links, early: list[list[float]] | None) -> LayerControl:
        """The control of the next layer, which most rounds want as the one before had it."""
        turn = len(self.late)
        way = (turn, links, None if early is None else tuple(map(tuple, early)))
        if way not in self._known:
            self._known[way] = LayerControl(self.grid, plan, traffic, turn, links, early=early)
        return self._known[way]


def _by_themselves(placed: Placed) -> bool:
    """Whether data may come ahead of a residual: that comes between their tiles if there are several, unless it is held."""
    return placed.plan.layer.residual is None or placed.plan.tiling.tiles == 1 or placed.added


def _staged(grid: Grid, before: LayerControl, control: LayerControl, *, told: bool) -> dict[Stage, list[Operation]]:
    """Operations by stage, cores last, because they may end the layer before the last one meanwhile. Tasks for which a queue has
    no place beside those of the layer before come later, and so do descriptors that have none: those of what arrives when data
    follow, if cores have `told` by then that they have all of the layer before, of which nothing is in these queues then."""
    before_queued = Counter(q for op in before.operations if (q := queue_of(grid, op)))
    queued = Counter(before_queued)
    stages: dict[Stage, list[Operation]] = {stage: [] for stage in Stage}
    cores: list[Operation] = []
    behind = Counter(q for op in before.leaving if (q := queue_of(grid, op)))  # tasks that may still be queued
    sending = Stage.TAKE if without_room(grid, control.needed, before.taken) else Stage.CONFIGURE
    leaving = Stage.LEAVE if without_room(grid, control.kept, before.taken) else Stage.CONFIGURE
    array = Stage.LEAVE if without_room(grid, control.taken, before.taken) else Stage.CONFIGURE
    computing = range(len(control.arriving), len(control.arriving) + len(control.computing))
    staged = [*control.arriving, *control.computing, *((leaving, op) for op in control.leaving)]
    for i, (wanted, op) in enumerate((*staged, *((array, op) for op in control.leaving_array))):
        stage, queue = wanted, queue_of(grid, op)
        if queue and stage in (Stage.CONFIGURE, Stage.FOLLOW):
            queued[queue] += 1
            if queued[queue] > _QUEUED:
                stage = Stage.ARRIVE if i < len(control.arriving) else Stage.LEAVE
                if told and stage is Stage.ARRIVE and queued[queue] - before_queued[queue] <= _QUEUED:
                    stage = Stage.FOLLOW
        if queue and stage is Stage.QUEUE:
            first = queued[queue] == before_queued[queue]
            queued[queue] += 1
            stage = Stage.CONFIGURE if queued[queue] <= _QUEUED else Stage.QUEUE if first else Stage.TAKE
        if queue and stage is Stage.PREFETCH:
            behind[queue] += 1
            stage = Stage.SEND if sending is Stage.TAKE or behind[queue] > _QUEUED else Stage.PREFETCH
        kind = grid.kind(split(op.address)[0]) if isinstance(op, (Write, BlockWrite)) else None
        if wanted is stage is Stage.CONFIGURE and kind is Kind.MEMORY and i in computing:
            stage = sending
        (cores if kind is Kind.CORE and stage is Stage.CONFIGURE else stages[stage]).append(op)
    stages[Stage.CONFIGURE] += cores
    for stage in (Stage.ARRIVE, Stage.PREFETCH, Stage.SEND):
        stages[stage] = in_turn(grid, stages[stage])
    return stages


def in_turn(grid: Grid, tasks: Sequence[Operation]) -> list[Operation]:
    """Tasks in another order: the first of all channels, so that all cores begin, then the second of those that have one, and so
    on."""
    before, turns = Counter[object](), list[int]()
    for op in tasks:
        turns.append(before[queue_of(grid, op)])
        before[queue_of(grid, op)] += 1
    return [tasks[i] for i in sorted(range(len(tasks)), key=turns.__getitem__)]


def _time(before: LayerControl, cycles: float) -> list[list[float]]:
    """Words that the channels from DDR can bring while the layer before computes, behind what they bring for that one, at once or
    as its rings have room."""
    t = before.tiling
    found: list[list[float]] = []
    for column, places in enumerate(before.plan.memory):
        found.append([])
        for i, a in enumerate(places.arrivals):
            late = before.weights_late[column, i]
            data = sum(places.data[n].count for n in a.data) * t.part_bytes
            data += sum(places.residual[n].count for n in a.residual) * t.residual_part_bytes
            chunks = max((places.weights[n].count for n in a.weights), default=0) * t.streamed
            share = max(
                1 - places.ring / t.tiles if data else 0.0,
                1 - places.slots / chunks if chunks and places.slots else 0.0,
            )
            busy = max(BEGUN, late + t.tiles * data / WORD_BYTES, share * cycles)
            found[-1].append(max(TAIL, USED * cycles - busy))
    return found
