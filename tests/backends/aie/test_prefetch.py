"""Words of a layer that come to cores while these compute the last unit of the layer before: when, which, where, and values."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, reject, settings
from hypothesis import strategies as st

from models.byte_layer import ByteConv, bottlenecks, chain_graph
from sparsec.backends.aie.lower import sequence
from sparsec.backends.aie.lower.choose import candidates
from sparsec.backends.aie.lower.circuits import keeps_way_out
from sparsec.backends.aie.lower.modes import Cut, Mode, modes
from sparsec.backends.aie.lower.network import lower_with
from sparsec.backends.aie.lower.prefetch import NOTHING, first_is_there, narrowed, prefetched, taken
from sparsec.backends.aie.lower.reading import conv_layer
from sparsec.backends.aie.lower.tile_control import NONE_QUEUED
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.lower.writer import queue_of
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.program import ArrayPart, ArrayProgram
from sparsec.backends.aie.registers import Direction, Kind
from sparsec.backends.aie.transaction import Operation, Sync, Write, task_of
from sparsec.compiler.errors import LimitError
from sparsec.compiler.graph import Graph
from sparsec.compiler.interpreter import interpret
from tests.backends.aie.networks import check_run, random_feeds, run_emitted

NPU = machine_named("aie2:npu1")
GRID = NPU.grid


def _mode(cut: Cut, *, chain: int = 1, own: bool = False) -> Mode:
    return next(m for m in modes(GRID) if (m.cut, m.streams, m.chain, m.own) == (cut, 1, chain, own))


def _ways(graph: Graph, node: int, mode: Mode) -> list[Tiling]:
    layer = conv_layer(graph, graph.nodes[node])
    assert not isinstance(layer, str)
    _, _, height, width = graph.types[layer.y].shape
    return list(candidates(NPU, layer, (mode,), height, width))


def _lowered(graph: Graph, chosen: Sequence[tuple[Mode, int]]) -> ArrayProgram:
    """With weights that stay, two buffers of data, and tiles of so many rows."""
    ways = {}
    for i, (node, (mode, rows)) in enumerate(zip(graph.nodes, chosen, strict=True)):
        ways[node.name] = next(t for t in _ways(graph, i, mode) if (t.rows, t.buffers, t.kept, t.splits) == (rows, 2, True, 1))
    return lower_with(graph, NPU, ways)


def _part(program: ArrayProgram) -> ArrayPart:
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    return part


def _sent(operations: Sequence[Operation], channel: int) -> Iterator[tuple[int, int]]:
    """Where tasks of a channel of memory tiles to cores are started, and how often each runs its chain."""
    for i, op in enumerate(operations):
        queue = queue_of(GRID, op)
        if queue is not None and isinstance(op, Write) and queue[1:] == (Direction.MM2S, channel):
            if GRID.kind(queue[0]) is Kind.MEMORY:
                yield i, task_of(Kind.MEMORY, op.value).repeat


def _of_a_core(op: Sync) -> bool:
    return GRID.kind(op.tile) is Kind.CORE


def _bottleneck(rng: np.random.Generator, size: tuple[int, int] = (20, 12)) -> Graph:
    """Of which the last layer's data and residual are there."""
    convs = [ByteConv(0, 256), ByteConv(1, 128), ByteConv(2, 64), ByteConv(3, 256, residual=1)]
    return chain_graph(rng, 64, size, convs, density=0.5)


WAYS = [(_mode(Cut.BOTH), 1), (_mode(Cut.BOTH, chain=4), 1), (_mode(Cut.BOTH, chain=2), 1), (_mode(Cut.BOTH, own=True), 1)]


def test_the_first_unit_comes_before_the_layer_before_is_done() -> None:
    """Data that are there: a task of one tile when all cores have what they still compute, the others when they have finished.
    Weights in one task, of which a core takes a page; of the last layer the residual as well."""
    rng = np.random.default_rng(1)
    graph = _bottleneck(rng)
    program = _lowered(graph, WAYS)
    part = _part(program)
    assert [s.stays for s in part.staying] == [True, True, True, False]
    assert [prefetched(a, b, here=True) for a, b in pairwise(part.plans)] == [(True, True, False)] * 2 + [(True, True, True)]
    for (a, b), plan in zip(pairwise(part.ends), part.plans[1:], strict=False):
        layer = part.control.operations[a:b]
        told = [i for i, op in enumerate(layer) if isinstance(op, Sync) and _of_a_core(op) and op.direction is Direction.S2MM]
        done = next(i for i, op in enumerate(layer) if isinstance(op, Sync) and _of_a_core(op) and op.direction is Direction.MM2S)
        early = [times for i, times in _sent(layer, 0) if max(told) < i < done]
        assert early == [1] * GRID.columns
        weights = plan.tiling.mode.weights()[0].channel
        assert any(max(told) < i < done for i, _ in _sent(layer, weights))
    check_run(program, graph, rng)


def test_layers_take_less_and_values_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = _bottleneck(np.random.default_rng(2), (28, 56))  # cores take longer than what configures the next layer
    feeds = random_feeds(np.random.default_rng(3), graph)
    found = []
    for early in (True, False):
        with monkeypatch.context() as patched, tempfile.TemporaryDirectory() as folder:
            if not early:
                patched.setattr(sequence, "prefetched", lambda before, after, *, here: NOTHING)
            run = run_emitted(_lowered(graph, WAYS), feeds, Path(folder))
        (part,) = run.parts
        found.append(([layer.cycles for layer in part.cycles(NPU).layers], run.outputs))
    (soon, outputs), (late, others) = found
    expected = interpret(graph, feeds)
    assert all(np.array_equal(outputs[v], expected[v]) and np.array_equal(others[v], expected[v]) for v in expected)
    assert soon[1] + 300 < late[1]
    assert soon[3] + 300 < late[3], "the third layer is so small that it takes what the control stream does to configure this one"


def test_data_are_there_when_results_of_the_first_tile_have_left_cores() -> None:
    """When all cores have the last unit, all but the last two are done, and of these results fill two buffers of a core."""
    rng = np.random.default_rng(4)
    graph = chain_graph(rng, 64, (16, 12), [ByteConv(0, 64), ByteConv(1, 64)])
    ways = {t.rows: t for t in _ways(graph, 0, _mode(Cut.BOTH)) if t.buffers == 2 and t.splits == 1}
    after = _ways(graph, 1, _mode(Cut.BOTH))[0]
    assert ways[1].tiles == 4
    assert ways[1].layer.output_blocks // ways[1].mode.channel_parts == 2
    assert first_is_there(ways[1], after), "two tiles are done, and the results of the second fill the buffers"
    assert not first_is_there(ways[2], after), "of two tiles none"
    narrow = chain_graph(rng, 64, (20, 12), [ByteConv(0, 32), ByteConv(1, 64)])
    one = next(t for t in _ways(narrow, 0, _mode(Cut.BOTH)) if (t.rows, t.buffers, t.splits) == (1, 2, 1))
    assert one.tiles == 5
    assert one.layer.output_blocks == one.mode.channel_parts
    assert first_is_there(one, after), "three tiles are done, two of which may be in the buffers"
    assert not first_is_there(replace(one, height=16), after)
    several = next(m for m in modes(GRID) if m.streams > 1)
    assert not first_is_there(one, replace(after, mode=several)), "streams that follow one another by locks of their own"


def test_locks_count_what_is_handed() -> None:
    """All buffers of data, one page, and all blocks of the residual; where weights of the layer before do not stay, their pages
    are taken back by the core, and none is handed on."""
    part = _part(_lowered(_bottleneck(np.random.default_rng(5)), WAYS))
    before, after = part.plans[2].tiling, part.plans[3].tiling
    assert taken(before, after, (True, True, True)) == (2, 1, after.layer.output_blocks // 4)
    assert taken(before, after, NOTHING) == (1, 0, 0)
    assert taken(replace(before, kept=False), after, NOTHING) == (1, 1, 0)
    few = replace(before, mode=_mode(Cut.CHANNELS))
    assert not few.all_cores
    assert taken(few, after, (True, True, True)) == NONE_QUEUED
    ring = replace(part.plans[2], tiling=replace(before, kept=False))
    assert prefetched(ring, part.plans[3], here=True)[1:] == (False, False)


def test_results_leave_through_one_channel_where_circuits_change_early_then() -> None:
    """Chains of four cores have results in one core of a column; a stream of weights for each core takes the other channel. Not
    where results take most of the time, or nothing is gained."""
    rng = np.random.default_rng(6)
    graph = chain_graph(rng, 128, (28, 14), [ByteConv(0, 128, 3), ByteConv(1, 128, residual=0), ByteConv(2, 512)])
    chained = next(t for t in _ways(graph, 0, _mode(Cut.PAIRS, chain=4)) if t.tiles > 1)
    own = _ways(graph, 1, _mode(Cut.BOTH, own=True))[0]
    assert not keeps_way_out(chained.mode, own.mode)
    made = narrowed(NPU, chained, own)
    assert made == replace(chained, mode=replace(chained.mode, narrow=True))
    assert [made.mode.leaving(c) for c in range(4)] == [1] * 4
    assert keeps_way_out(made.mode, own.mode)
    many = next(t for t in _ways(graph, 2, _mode(Cut.PAIRS)) if t.tiles > 1)
    assert not keeps_way_out(many.mode, own.mode)
    assert narrowed(NPU, many, own) is many, "a layer of 512 channels, whose results take longer than its products"
    assert narrowed(NPU, chained, chained) is chained


@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(data=st.data())
def test_any_ways_behind_one_another(data: st.DataObject) -> None:
    """Bottlenecks in several tiles, chains and streams of weights among them, of blocks that are left out."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    channels = data.draw(st.sampled_from([64, 128]))
    convs = [
        ByteConv(0, channels),
        *(replace(c, x=c.x + 1, residual=_one_more(c.residual)) for c in bottlenecks(channels, 64, 2)),
    ]
    size = data.draw(st.sampled_from([16, 20, 28])), data.draw(st.integers(5, 12))
    graph = chain_graph(rng, 64, size, convs, density=data.draw(st.sampled_from([0.25, 0.5, 1.0])))
    cut = data.draw(st.sampled_from([Cut.BOTH, Cut.PAIRS]))
    ways = {}
    for i, node in enumerate(graph.nodes):
        likely = [m for m in modes(GRID) if m.cut is cut and (m.own or convs[i].residual is None)]
        found = _ways(graph, i, data.draw(st.sampled_from(likely))) or _ways(graph, i, _mode(cut))
        roomy = [t for t in found if t.buffers == 2 and t.tiles > 2] or found
        ways[node.name] = data.draw(st.sampled_from(roomy[:12]))
    try:
        program = lower_with(graph, NPU, ways)
    except LimitError:
        reject()
    check_run(program, graph, rng)


def _one_more(number: int | None) -> int | None:
    return None if number is None else number + 1
