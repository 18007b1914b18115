"""Layers that follow one another: begun early, and with values that stay in memory tiles, against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from models.byte_layer import ByteConv, chain_graph
from sparsec.backends.aie.lower.choose import candidates
from sparsec.backends.aie.lower.modes import Cut, modes
from sparsec.backends.aie.lower.network import lower_with
from sparsec.backends.aie.lower.reading import conv_layer
from sparsec.backends.aie.lower.shim_control import ACTIVATIONS
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.lower.writer import queue_of
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.program import ArrayPart, ArrayProgram
from sparsec.backends.aie.registers import Direction, Kind, Tile, register_name, split
from sparsec.backends.aie.transaction import BlockWrite, Patch, Sync, Write, task_of
from sparsec.compiler.graph import Graph
from tests.backends.aie.networks import check_run

NPU = machine_named("aie2:npu1")


def _ways(graph: Graph, node: int, cut: Cut) -> list[Tiling]:
    layer = conv_layer(graph, graph.nodes[node])
    assert not isinstance(layer, str)
    _, _, height, width = graph.types[layer.y].shape
    return list(candidates(NPU, layer, tuple(m for m in modes(NPU.grid) if m.cut is cut), height, width))


def _part(program: ArrayProgram) -> ArrayPart:
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    return part


@pytest.mark.parametrize(("cut", "height"), [(Cut.BOTH, 13), (Cut.POSITIONS, 29), (Cut.PAIRS, 9), (Cut.HALVES, 15)])
def test_results_stay_for_the_next_layer(cut: Cut, height: int) -> None:
    """3x3, then 1x1 with the input added, then 1x1: in every cut whose memory tiles the results reach, in one tile and in two."""
    rng = np.random.default_rng(5)
    n = 64 if cut is Cut.PAIRS else 32
    convs = [ByteConv(0, n, 3), ByteConv(1, n, residual=0), ByteConv(2, n)]
    graph = chain_graph(rng, n, (height, 7), convs)
    for tiles in (1, 2):
        chosen = {}
        for i in range(3):
            found = [t for t in _ways(graph, i, cut) if t.tiles == tiles]
            chosen[graph.nodes[i].name] = found[(7 * i) % len(found)]
        program = lower_with(graph, NPU, chosen)
        assert [(s.stays, s.leaves) for s in _part(program).staying] == [(True, False), (True, False), (False, True)]
        check_run(program, graph, rng)


def test_layers_begin_while_the_one_before_computes() -> None:
    """All that a layer tells its cores stands before the wait for the results of the layer before, and runs are exact."""
    rng = np.random.default_rng(6)
    graph = chain_graph(rng, 32, (13, 7), [ByteConv(0, 32, 3), ByteConv(1, 32, 3), ByteConv(2, 32, 3)])
    ways = {n.name: next(t for t in _ways(graph, i, Cut.BOTH) if t.kept) for i, n in enumerate(graph.nodes)}
    program = lower_with(graph, NPU, ways)
    part = _part(program)
    assert part.late == ("", "", "")
    later = part.control.operations[part.ends[2] :]
    assert not any(NPU.grid.kind(split(op.address)[0]) is Kind.CORE for op in later if isinstance(op, Write | BlockWrite))
    check_run(program, graph, rng)


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (ByteConv(1, 64, 3), "the next layer reads rows or columns around each position"),
        (ByteConv(0, 64), "the next layer reads something else"),
    ],
)
def test_results_that_cannot_stay_say_why(after: ByteConv, why: str) -> None:
    graph = chain_graph(np.random.default_rng(7), 64, (13, 7), [ByteConv(0, 64), after], outputs=(1,))
    ways = {n.name: _ways(graph, i, Cut.BOTH)[0] for i, n in enumerate(graph.nodes)}
    staying = _part(lower_with(graph, NPU, ways)).staying[0]
    assert (staying.stays, staying.leaves, staying.why) == (False, True, why)


def test_results_that_others_read_stay_and_leave() -> None:
    """A value that is the next layer's data, a later one's residual and an output is in memory tiles and in DDR."""
    rng = np.random.default_rng(8)
    convs = [ByteConv(0, 64), ByteConv(1, 32), ByteConv(2, 64, residual=1)]
    graph = chain_graph(rng, 32, (13, 7), convs, outputs=(1,))
    ways = {n.name: next(t for t in _ways(graph, i, Cut.BOTH) if t.tiles == 1) for i, n in enumerate(graph.nodes)}
    program = lower_with(graph, NPU, ways)
    assert [(s.stays, s.leaves) for s in _part(program).staying] == [(True, True), (True, False), (False, True)]
    check_run(program, graph, rng)


@pytest.mark.parametrize(
    ("residual", "tiles", "late"),
    [(None, (1, 1), set()), (None, (1, 2), {"v0"}), (1, (2, 1), {"v1"}), (1, (1, 1), set())],  # of equal tiles, v1 is held
)
def test_data_come_ahead_of_the_layer_before(residual: int | None, tiles: tuple[int, int], late: set[str]) -> None:
    """A layer that reads what was there before the layer before began: its first tile comes while that one computes, so that only
    further tiles, or the residual, are left to start when it has finished."""
    rng = np.random.default_rng(9)
    graph = chain_graph(rng, 32, (13, 7), [ByteConv(0, 32, 3), ByteConv(0, 32, 3, residual=residual)], outputs=(1,))
    ways = {
        n.name: next(t for t in _ways(graph, i, Cut.BOTH) if t.kept and t.tiles == tiles[i]) for i, n in enumerate(graph.nodes)
    }
    program = lower_with(graph, NPU, ways)
    part, shim = _part(program), Tile(0, 0)
    patches: dict[int, int] = {}  # where a descriptor reads activations
    read: set[str] = set()
    for i, op in enumerate(part.control.operations):
        if isinstance(op, Patch) and split(op.address)[0] == shim and op.argument == ACTIVATIONS:
            name = register_name(Kind.SHIM, split(op.address)[1])
            patches[int(name.removeprefix("bd").removesuffix(".1"))] = op.offset
        queue = queue_of(NPU.grid, op)
        if queue and isinstance(op, Write) and queue[:2] == (shim, Direction.MM2S) and i >= part.ends[1]:
            offset = patches.get(task_of(Kind.SHIM, op.value).descriptor)
            read |= {v for v, image in program.images.items() if offset is not None and 0 <= offset - image.offset < image.nbytes}
    assert read == late
    check_run(program, graph, rng)


@pytest.mark.parametrize(("kernel", "tiles", "follows"), [(1, 4, True), (3, 4, False), (1, 1, False)])
def test_first_tiles_come_before_the_last_results_of_the_layer_before(kernel: int, tiles: int, follows: bool) -> None:
    """Data of a layer's first tiles are read when all but the last tiles of the layer before are in DDR, if they are none of
    these: a 3x3 kernel reads a row of the band above, and of a single tile all rows are the last."""
    rng = np.random.default_rng(12)
    graph = chain_graph(rng, 64, (32, 7), [ByteConv(0, 64, 3), ByteConv(1, 64, kernel), ByteConv(2, 64, 3)])
    wanted = ((Cut.BOTH, tiles), (Cut.PAIRS, 4), (Cut.BOTH, 1))
    ways = {}
    for i, node in enumerate(graph.nodes):
        found = [t for t in _ways(graph, i, wanted[i][0]) if t.tiles == wanted[i][1] and t.kept]
        ways[node.name] = next(t for t in found if t.mode.streams == t.mode.chain == 1)
    program = lower_with(graph, NPU, ways)
    part, image, shim = _part(program), program.images[graph.nodes[0].output], Tile(0, 0)
    reading: set[int] = set()
    first = len(part.control.operations)
    for i, op in enumerate(part.control.operations):
        reads = isinstance(op, Patch) and op.argument == ACTIVATIONS and split(op.address)[0] == shim
        if reads and 0 <= op.offset - image.offset < image.nbytes:
            reading.add(int(register_name(Kind.SHIM, split(op.address)[1]).removeprefix("bd").removesuffix(".1")))
        queue = queue_of(NPU.grid, op)
        if queue and isinstance(op, Write) and queue[:2] == (shim, Direction.MM2S):
            first = min(first, i) if task_of(Kind.SHIM, op.value).descriptor in reading else first
    assert (first < part.ends[1]) == follows
    waits = [i for i, op in enumerate(part.control.operations[: part.ends[1]]) if isinstance(op, Sync) and op.tile.row == 0]
    assert [i < first for i in waits] == ([True, True, False, False] if follows else [True, True])
    check_run(program, graph, rng)


def test_weights_come_at_once_where_descriptors_are_short() -> None:
    """Results of two kinds of tiles, each by two descriptors a channel, leave too few for a layer with two streams beside weights
    that come in two parts."""
    rng = np.random.default_rng(13)
    graph = chain_graph(rng, 128, (28, 14), [ByteConv(0, 128), ByteConv(1, 128, 3), ByteConv(2, 128, residual=0)])
    ways = {}
    for i, (node, tiles) in enumerate(zip(graph.nodes, (4, 4, 7), strict=True)):
        found = (t for t in _ways(graph, i, Cut.BOTH) if t.tiles == tiles and t.kept and t.mode.chain == 1)
        ways[node.name] = next(t for t in found if (t.mode.streams > 1) == (i == 2))
    program = lower_with(graph, NPU, ways)
    assert _part(program).late == ("", "", "")
    check_run(program, graph, rng)


def test_weights_come_early_where_what_sends_them_cannot_be_told_yet() -> None:
    """Two layers whose planes take more descriptors of a memory tile than it has for both: the second one's weights come while
    the first computes, and what sends its data is told when that has finished."""
    rng = np.random.default_rng(10)
    graph = chain_graph(rng, 128, (15, 35), [ByteConv(0, 128, 3, 2), ByteConv(1, 128, 3, 2)])
    ways = {
        n.name: next(t for t in _ways(graph, i, Cut.CHANNELS) if t.tiles == 1 and t.splits == 4)
        for i, n in enumerate(graph.nodes)
    }
    program = lower_with(graph, NPU, ways)
    assert _part(program).late[1].startswith("memory tiles learn later what to send: memory tile (1,1) has 24 descriptors")
    check_run(program, graph, rng)


def test_results_leave_in_fewer_pieces_where_descriptors_are_short() -> None:
    """Layers whose results would leave in five pieces through each channel: shims have descriptors for both layers anyway."""
    rng = np.random.default_rng(11)
    convs = [ByteConv(0, 64, 1), ByteConv(1, 64, residual=0), ByteConv(2, 64, 3), ByteConv(3, 64, residual=2)]
    graph = chain_graph(rng, 64, (28, 7), convs)
    ways = {}
    for i, node in enumerate(graph.nodes):
        cut, tiles = ((Cut.PAIRS, 7), (Cut.HALVES, 4))[i % 2]
        ways[node.name] = next(t for t in _ways(graph, i, cut) if t.tiles == tiles and t.kept and t.mode.streams == 1)
    program = lower_with(graph, NPU, ways)
    assert _part(program).late == ("", "", "", "")
    check_run(program, graph, rng)
