"""What of a layer comes while the one before still computes: circuits, and the tasks of cores' channels, without other values."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from models.byte_layer import ByteConv, chain_graph
from sparsec.backends.aie.descriptors import ShimDescriptor
from sparsec.backends.aie.lower import sequence
from sparsec.backends.aie.lower.choose import candidates
from sparsec.backends.aie.lower.control import LayerControl, Stage
from sparsec.backends.aie.lower.layout import images_of
from sparsec.backends.aie.lower.modes import Cut, Mode, modes
from sparsec.backends.aie.lower.network import lower_with
from sparsec.backends.aie.lower.plan import kinds_of, plan_layer
from sparsec.backends.aie.lower.prefetch import NOTHING
from sparsec.backends.aie.lower.reading import conv_layer
from sparsec.backends.aie.lower.sequence import _staged, in_turn
from sparsec.backends.aie.lower.tile_control import Links, Traffic
from sparsec.backends.aie.lower.writer import queue_of
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.program import ArrayPart, ArrayProgram
from sparsec.backends.aie.registers import Direction, Kind, Tile, register_name, split
from sparsec.backends.aie.transaction import BlockWrite, Operation, Sync, Task, Write, start, task_of
from sparsec.compiler.errors import FitError
from sparsec.compiler.graph import Graph
from tests.backends.aie.networks import check_run

NPU = machine_named("aie2:npu1")
GRID = NPU.grid


def _mode(cut: Cut, *, streams: int = 1, chain: int = 1) -> Mode:
    return next(m for m in modes(GRID) if (m.cut, m.streams, m.chain) == (cut, streams, chain))


def _lowered(graph: Graph, chosen: list[Mode]) -> ArrayProgram:
    """With the first way of each mode."""
    ways = {}
    for node, mode in zip(graph.nodes, chosen, strict=True):
        layer = conv_layer(graph, node)
        assert not isinstance(layer, str)
        ways[node.name] = next(iter(candidates(NPU, layer, (mode,), *graph.types[layer.y].shape[2:])))
    return lower_with(graph, NPU, ways)


def _part(program: ArrayProgram) -> ArrayPart:
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    return part


def _windows(program: ArrayProgram) -> list[list[Operation]]:
    """The operations up to each layer's end, from that of the one before."""
    part = _part(program)
    return [list(part.control.operations[a:b]) for a, b in pairwise(part.ends)]


def _late(program: ArrayProgram) -> list[str]:
    """By layer what keeps it from beginning early."""
    return list(_part(program).late)


def _switched(op: Operation) -> bool:
    if not isinstance(op, Write | BlockWrite):
        return False
    tile, offset = split(op.address)
    return register_name(GRID.kind(tile), offset).startswith(("master.", "slave."))


def _awaits(op: Operation, kind: Kind, direction: Direction) -> bool:
    return isinstance(op, Sync) and op.direction is direction and GRID.kind(op.tile) is kind


def _queues(op: Operation) -> bool:
    """Whether it starts a task of a core's channel for data or weights."""
    queue = queue_of(GRID, op)
    return queue is not None and GRID.kind(queue[0]) is Kind.CORE and queue[1] is Direction.S2MM


CHANGES = [
    (_mode(Cut.PAIRS, chain=2), _mode(Cut.PAIRS), _mode(Cut.PAIRS, streams=4)),
    (_mode(Cut.BOTH), _mode(Cut.HALVES), _mode(Cut.BOTH)),
    (_mode(Cut.BOTH, chain=2), _mode(Cut.BOTH), _mode(Cut.PAIRS)),
]


@pytest.mark.parametrize("chosen", CHANGES, ids=lambda ms: "-".join(m.cut.name for m in ms))
def test_circuits_and_tasks_come_before_results(chosen: tuple[Mode, ...]) -> None:
    """Circuits change when all cores have their data and weights, before anyone asks for the results, if ways out are the same;
    tasks are queued before either."""
    rng = np.random.default_rng(5)
    graph = chain_graph(rng, 128, (16, 16), [ByteConv(0, 128), ByteConv(1, 128, 3), ByteConv(2, 128, residual=1)], density=0.5)
    program = _lowered(graph, list(chosen))
    check_run(program, graph, rng)
    early = [layer for layer, late in zip(_windows(program), _late(program)[1:], strict=False) if not late]
    assert early
    for layer in early:
        finished = next(i for i, op in enumerate(layer) if _awaits(op, Kind.CORE, Direction.MM2S))
        told = [i for i, op in enumerate(layer) if _awaits(op, Kind.CORE, Direction.S2MM)]
        assert len(told) == 2
        assert max(told) < finished
        assert sum(map(_queues, layer[: min(told)])) >= 2 * GRID.columns * GRID.core_rows
        assert any(map(_switched, layer[max(told) : finished]))
        assert not any(map(_switched, layer[finished:]))


@pytest.mark.parametrize("handed", [True, False])
def test_the_same_circuits_are_awaited_where_words_come_early(handed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    graph = chain_graph(rng, 64, (16, 9), [ByteConv(0, 64), ByteConv(1, 64), ByteConv(2, 64)])
    if not handed:
        monkeypatch.setattr(sequence, "prefetched", lambda before, after, *, here: NOTHING)
    program = _lowered(graph, [_mode(Cut.BOTH)] * 3)
    assert [any(_awaits(op, Kind.CORE, Direction.S2MM) for op in layer) for layer in _windows(program)] == [handed, handed, False]
    assert _part(program).soon == (False, handed, handed)
    check_run(program, graph, rng)


def test_tasks_without_room_in_queues_come_later() -> None:
    """The residual of an only tile comes in so many tasks that queues have no place for the next layer's beside them: then none
    of those is started before the results are there."""
    rng = np.random.default_rng(7)
    convs = [ByteConv(0, 512), ByteConv(1, 512), ByteConv(2, 512, residual=1), ByteConv(3, 64)]
    graph = chain_graph(rng, 64, (4, 13), convs)
    program = _lowered(graph, [_mode(Cut.BOTH)] * 4)
    check_run(program, graph, rng)
    assert not any(_late(program)[1:])
    early = []
    for layer in _windows(program):
        finished = next(i for i, op in enumerate(layer) if _awaits(op, Kind.CORE, Direction.MM2S))
        early.append(sum(map(_queues, layer[:finished])))
    cores = GRID.columns * GRID.core_rows
    assert early[0] == 4 * cores, "its own, and the next layer's"
    assert early[1] == 5 * cores, "the next layer's, with four tasks of data and residual"
    assert early[2] == cores * 3 // 4, "the fifth one, of all but the last of the cores that share data; none of the last layer's"
    assert early[3] == 2 * cores, "its own"


@pytest.mark.parametrize(("own", "told", "stages"), [
    (2, False, [Stage.CONFIGURE, Stage.ARRIVE, Stage.ARRIVE]),
    (2, True, [Stage.CONFIGURE, Stage.FOLLOW, Stage.FOLLOW]),
    (5, True, [Stage.CONFIGURE, *[Stage.FOLLOW] * 4, Stage.ARRIVE]),
    (1, False, [Stage.CONFIGURE, Stage.ARRIVE]),
])  # fmt: skip
def test_tasks_that_find_a_full_queue_wait_until_cores_tell_that_they_have_all(own: int, told: bool, stages: list[Stage]) -> None:
    """Of those that a channel takes, all but one are the layer's before; the last of this layer's is of data that follow."""

    def task(descriptor: int) -> Operation:
        return start(GRID, Tile(0, 1), Direction.S2MM, 4, Task(descriptor))

    tasks = [(Stage.CONFIGURE, task(8 + n)) for n in range(own)] + [(Stage.FOLLOW, task(20))]
    nothing: dict[str, Any] = {"computing": [], "leaving": [], "leaving_array": [], "needed": {}, "kept": {}, "taken": {}}
    before = SimpleNamespace(**nothing, operations=[task(n) for n in range(4)])
    control: Any = SimpleNamespace(**nothing, arriving=tasks)
    found = _staged(GRID, cast(LayerControl, before), control, told=told)
    where = {op: stage for stage, ops in found.items() for op in ops}
    assert [where[op] for _, op in tasks] == stages
    for ops in found.values():
        assert ops == [op for _, op in tasks if op in ops], "tasks of a queue stay in order"


@pytest.mark.parametrize(("time", "fewer"), [(0.0, 0), (500.0, 0), (2000.0, 2), (6000.0, 2)])
def test_early_weights_in_equal_pieces_take_one_descriptor(time: float, fewer: int) -> None:
    """What comes early and what comes later are all words of the weights, once, with a descriptor of each channel for either and
    with one for both."""
    graph = chain_graph(np.random.default_rng(8), 512, (7, 7), [ByteConv(0, 512, 3)], density=0.5)
    layer = conv_layer(graph, graph.nodes[0])
    assert not isinstance(layer, str)
    way = next(t for t in candidates(NPU, layer, (_mode(Cut.CHANNELS, chain=4),), 7, 7) if t.streamed == 1 and not t.kept)
    plan = plan_layer(NPU, way, kinds_of(way))
    traffic = Traffic.of(layer, images_of(graph, [way], {})[0], 0)
    words = []
    for at_once in (False, True):
        links = Links(at_once=at_once)
        made = LayerControl(GRID, plan, traffic, 0, links, early=[[time, time]] * GRID.columns)
        moved, found, shims = Counter[Tile](), dict[tuple[Tile, int], ShimDescriptor](), Counter[Tile]()
        for _, op in made.arriving:
            tile, offset = split(op.address)
            if isinstance(op, BlockWrite) and GRID.kind(tile) is Kind.SHIM:
                number = int(register_name(Kind.SHIM, offset).removeprefix("bd").removesuffix(".0"))
                found[tile, number] = ShimDescriptor.decode(op.values)
                shims[tile] += 1
            if (queue := queue_of(GRID, op)) and GRID.kind(tile) is Kind.SHIM:
                assert isinstance(op, Write)
                task = task_of(Kind.SHIM, op.value)
                moved[tile] += found[queue[0], task.descriptor].length * task.repeat
        words.append((moved, shims))
    assert words[0][0] == words[1][0]
    assert all(words[0][1][t] - words[1][1][t] == fewer for t in words[0][1])


def test_no_more_weights_come_early_than_rings_hold_where_data_come_behind_them() -> None:
    """Cores take the rest of them when they begin, and data would wait for that; where no data come behind, all may be early."""
    graph = chain_graph(np.random.default_rng(8), 256, (14, 7), [ByteConv(0, 512)])
    layer = conv_layer(graph, graph.nodes[0])
    assert not isinstance(layer, str)
    way = next(t for t in candidates(NPU, layer, (_mode(Cut.CHANNELS, chain=2),), 14, 7) if t.kept and t.paging.counts[0] > 3)
    whole = plan_layer(NPU, way, kinds_of(way))
    plan = replace(whole, memory=tuple(replace(m, slots=2) for m in whole.memory))
    traffic = Traffic.of(layer, images_of(graph, [way], {})[0], 0)
    made = LayerControl(GRID, plan, traffic, 0, early=[[1e6, 1e6]] * GRID.columns)
    arrivals = {(c, i): a for c, m in enumerate(plan.memory) for i, a in enumerate(m.arrivals) if a.weights}
    assert any(a.data for a in arrivals.values()) and not all(a.data for a in arrivals.values())
    for (column, i), a in arrivals.items():
        portions = [plan.memory[column].weights[n] for n in a.weights]
        late = sum((p.count - 2) * way.page_bytes[p.stream.part] // 4 for p in portions)
        assert made.weights_late[column, i] == (late if a.data else 0)


def test_a_memory_tile_has_so_many_locks_for_a_layer() -> None:
    """Portions that want more than 32 would take those of the layer before."""
    graph = chain_graph(np.random.default_rng(8), 64, (14, 7), [ByteConv(0, 64)])
    layer = conv_layer(graph, graph.nodes[0])
    assert not isinstance(layer, str)
    way = next(iter(candidates(NPU, layer, (_mode(Cut.BOTH),), 14, 7)))
    whole = plan_layer(NPU, way, kinds_of(way))
    plan = replace(whole, memory=tuple(replace(m, weights=m.weights * 16) for m in whole.memory))
    traffic = Traffic.of(layer, images_of(graph, [way], {})[0], 0)
    with pytest.raises(
        FitError, match="'conv1' in a memory tile does not fit: it is more than 32 locks, the bound is 32 for each"
    ):
        LayerControl(GRID, plan, traffic, 0)


def test_all_channels_begin_before_any_has_a_second_task() -> None:
    """Tasks of a channel stay in order."""

    def task(column: int, channel: int, descriptor: int) -> Operation:
        return start(GRID, Tile(column, 1), Direction.MM2S, channel, Task(descriptor))

    first = [task(0, 0, 0), task(0, 2, 1), task(1, 0, 2)]
    made = in_turn(GRID, [first[0], task(0, 0, 5), task(0, 0, 4), first[1], first[2], task(1, 0, 3)])
    assert made == [*first, task(0, 0, 5), task(1, 0, 3), task(0, 0, 4)]
