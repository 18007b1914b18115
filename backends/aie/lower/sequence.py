"""Layers one after the other: which operations of a layer come while the one before still computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sparsec.backends.aie.lower.circuits import Circuits
from sparsec.backends.aie.lower.control import LayerControl, Stage, enable
from sparsec.backends.aie.lower.placement import placed, weights_before_data, weights_beside
from sparsec.backends.aie.lower.plan import LayerPlan
from sparsec.backends.aie.lower.tile_control import Traffic
from sparsec.backends.aie.lower.writer import queue_of, without_room
from sparsec.backends.aie.registers import Grid, Kind, split
from sparsec.backends.aie.transaction import BlockWrite, Operation, Write
from sparsec.compiler.errors import LimitError

_QUEUED = 5  # tasks of a channel at most: one that runs, and four that wait


@dataclass(frozen=True, slots=True)
class Sequenced:
    """The operations of a segment, how many there are up to each layer's end (the first number: before the first), and by layer
    what keeps it from beginning while the one before computes, "" where nothing does."""

    operations: tuple[Operation, ...]
    ends: tuple[int, ...]
    late: tuple[str, ...]


def sequence(grid: Grid, layers: Sequence[tuple[LayerPlan, Traffic]]) -> Sequenced:
    """All operations. A layer's descriptors, parameters and weights come while the layer before computes, if they have places
    beside that one's; when its results are there, the data follow. LimitError names a layer that does not fit."""
    circuits, operations = Circuits(grid), list(enable(grid))
    ends, late = [0], []
    before: LayerControl | None = None
    for turn, (plan, traffic) in enumerate(layers):
        near, far = circuits.change(plan.tiling.mode)
        try:
            control, early, why = _control(grid, placed(plan, turn), traffic, turn, before, again=bool(near))
        except LimitError as exc:
            raise LimitError(str(exc), node=plan.layer.node) from exc
        late.append(why)
        if before is None:
            operations += _in_order(near, far, control)
        elif early:
            stages = _staged(grid, before, control)
            operations += [*stages[Stage.CONFIGURE], *before.finish()]
            ends.append(len(operations))
            operations += [*near, *stages[Stage.ARRIVE], *stages[Stage.TAKE], *far, *stages[Stage.SEND], *stages[Stage.LEAVE]]
        else:
            operations += before.finish()
            ends.append(len(operations))
            operations += _in_order(near, far, control)
        before = control
    if before is not None:
        operations += before.finish()
        ends.append(len(operations))
    return Sequenced(tuple(operations), tuple(ends), tuple(late))


def _control(
    grid: Grid, plan: LayerPlan, traffic: Traffic, turn: int, before: LayerControl | None, *, again: bool
) -> tuple[LayerControl, bool, str]:
    """The control of a layer, whether it begins early, and why not all of it does; `again`: circuits from DDR change."""
    why = "it is the first" if before is None else "not all cores have results in the layer before"
    if before is not None and before.all_cores:
        late = ""
        if again:
            late = "circuits from DDR change"
        elif not weights_before_data(plan):
            late = "they come behind its data"
        elif not weights_beside(plan, before.plan):
            late = "they have no place in memory tiles beside the layer before"
        control = LayerControl(grid, plan, traffic, turn, weights_first=not late)
        why = without_room(grid, control.needed, before.taken)
        if not why:
            return control, True, late and f"its weights come later: {late}"
    return LayerControl(grid, plan, traffic, turn), False, why


def _in_order(near: Iterable[Operation], far: Iterable[Operation], control: LayerControl) -> list[Operation]:
    """A layer whose operations all come when the array has finished the layer before."""
    first, then = ([op for _, op in staged] for staged in (control.arriving, control.computing))
    return [*near, *first, *far, *then, *control.leaving, *control.leaving_array]


def _staged(grid: Grid, before: LayerControl, control: LayerControl) -> dict[Stage, list[Operation]]:
    """Operations by stage, cores last, because they may end the layer before the last one meanwhile. Tasks for which a queue has
    no place beside those of the layer before come later, and so do descriptors that have none."""
    queued = Counter(q for op in before.operations if (q := queue_of(grid, op)))
    stages: dict[Stage, list[Operation]] = {stage: [] for stage in Stage}
    cores: list[Operation] = []
    leaving = Stage.LEAVE if without_room(grid, control.kept, before.taken) else Stage.CONFIGURE
    array = Stage.LEAVE if without_room(grid, control.taken, before.taken) else Stage.CONFIGURE
    staged = [*control.arriving, *control.computing, *((leaving, op) for op in control.leaving)]
    for wanted, op in (*staged, *((array, op) for op in control.leaving_array)):
        stage, queue = wanted, queue_of(grid, op)
        if queue and stage is Stage.CONFIGURE:
            queued[queue] += 1
            if queued[queue] > _QUEUED:
                stage = Stage.LEAVE
        in_core = isinstance(op, (Write, BlockWrite)) and grid.kind(split(op.address)[0]) is Kind.CORE
        (cores if in_core and stage is Stage.CONFIGURE else stages[stage]).append(op)
    stages[Stage.CONFIGURE] += cores
    return stages
