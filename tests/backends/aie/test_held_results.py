"""Results that are held in memory tiles until a later layer adds them, against the interpreter, and why they are not."""

from __future__ import annotations

import numpy as np
import pytest

from models.byte_layer import ByteConv, bottlenecks, chain_graph
from sparsec.backends.aie.lower.choose import candidates
from sparsec.backends.aie.lower.modes import Cut, Mode, modes
from sparsec.backends.aie.lower.network import lower_with
from sparsec.backends.aie.lower.reading import conv_layer
from sparsec.backends.aie.lower.shim_control import ACTIVATIONS
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.program import ArrayPart, ArrayProgram, Staying
from sparsec.backends.aie.transaction import Patch
from sparsec.compiler.graph import Graph
from tests.backends.aie.networks import check_run

NPU = machine_named("aie2:npu1")
CUTS = (Cut.BOTH, Cut.POSITIONS, Cut.PAIRS, Cut.HALVES)


def _mode(cut: Cut, *, streams: int = 1, chain: int = 1, own: bool = False) -> Mode:
    return next(m for m in modes(NPU.grid) if (m.cut, m.streams, m.chain, m.own) == (cut, streams, chain, own))


def _ways(graph: Graph, node: int, mode: Mode, rows: int | None = None) -> list[Tiling]:
    layer = conv_layer(graph, graph.nodes[node])
    assert not isinstance(layer, str)
    _, _, height, width = graph.types[layer.y].shape
    found = candidates(NPU, layer, (mode,), height, width)
    return [t for t in found if rows in (None, t.rows)]


def _lowered(graph: Graph, chosen: list[tuple[Mode, int]]) -> tuple[ArrayProgram, list[Staying]]:
    """With the first way of each mode and of so many rows a tile."""
    ways = {n.name: _ways(graph, i, *chosen[i])[0] for i, n in enumerate(graph.nodes)}
    program = lower_with(graph, NPU, ways)
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    return program, list(part.staying)


def _values_in_ddr(program: ArrayProgram) -> set[str]:
    """Values that descriptors of shims read or write."""
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    found = set()
    for op in part.control.operations:
        if isinstance(op, Patch) and op.argument == ACTIVATIONS:
            found |= {v for v, image in program.images.items() if 0 <= op.offset - image.offset < image.nbytes}
    return found


@pytest.mark.parametrize("cut", CUTS, ids=lambda c: c.name)
@pytest.mark.parametrize("rows", [1, 2])
def test_a_bottleneck_adds_what_was_held(cut: Cut, rows: int) -> None:
    """The first layer's results are the next one's data, and added three layers later: in no case are they in DDR. Between them
    is a layer that reads rows around each position, so that its data are."""
    rng = np.random.default_rng(3)
    graph = chain_graph(rng, 64, (29, 9), [ByteConv(0, 64), *(_later(c) for c in bottlenecks(64, 32, 1)), ByteConv(4, 32)])
    mode = _mode(cut)
    program, staying = _lowered(graph, [(mode, rows)] * 5)
    assert [(s.stays, s.held, s.leaves) for s in staying[:2]] == [(True, True, False), (False, False, True)]
    assert "v1" not in _values_in_ddr(program)
    assert {"v0", "v2"} <= _values_in_ddr(program)
    check_run(program, graph, rng)


@pytest.mark.parametrize("apart", [False, True])
def test_what_shall_be_apart_is_not_held(apart: bool) -> None:
    """The same bottleneck: what is added goes to DDR, and the next layer finds it in memory tiles nevertheless."""
    rng = np.random.default_rng(3)
    graph = chain_graph(rng, 64, (29, 9), [ByteConv(0, 64), *(_later(c) for c in bottlenecks(64, 32, 1)), ByteConv(4, 32)])
    ways = {n.name: _ways(graph, i, _mode(Cut.BOTH), 1)[0] for i, n in enumerate(graph.nodes)}
    program = lower_with(graph, NPU, ways, apart=frozenset(["v1"] if apart else []))
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    assert (part.staying[0].stays, part.staying[0].held) == (True, not apart)
    assert ("v1" in _values_in_ddr(program)) == apart
    check_run(program, graph, rng)


def _later(conv: ByteConv) -> ByteConv:
    """The same of values one further."""
    return ByteConv(conv.x + 1, conv.channels, conv.kernel, conv.stride, None if conv.residual is None else conv.residual + 1)


@pytest.mark.parametrize(("cut", "streams"), [(Cut.BOTH, 2), (Cut.PAIRS, 4), (Cut.HALVES, 2)])
@pytest.mark.parametrize(("band", "rows"), [(1, 1), (3, 1), (3, 3), (4, 2), (3, 2)])
def test_several_streams_add_what_was_held(cut: Cut, streams: int, band: int, rows: int) -> None:
    """Each stream takes its own blocks of channels out of what lies in their order: of tiles of one row, of the only tile, and of
    two tiles, the second of which may have a row that is nobody's."""
    rng = np.random.default_rng(4)
    mode = _mode(cut, streams=streams)
    convs = [ByteConv(0, 64), ByteConv(1, 64), ByteConv(2, 64, residual=1), ByteConv(3, 32)]
    graph = chain_graph(rng, 64, (band * mode.position_parts, 9), convs)
    program, staying = _lowered(graph, [(_mode(cut), rows), (_mode(cut), rows), (mode, rows), (_mode(cut), rows)])
    assert [s.held for s in staying] == [True, False, False, False]
    assert "v1" not in _values_in_ddr(program)
    check_run(program, graph, rng)


@pytest.mark.parametrize("cut", [Cut.BOTH, Cut.PAIRS, Cut.HALVES])
@pytest.mark.parametrize(("band", "rows"), [(1, 1), (3, 1), (3, 3), (4, 2), (6, 2)])
def test_streams_of_weights_add_what_was_held(cut: Cut, band: int, rows: int) -> None:
    """Each core's stream takes its own blocks of channels; data of the layer behind lie in the same tiles."""
    rng = np.random.default_rng(4)
    plain, mode = _mode(cut), _mode(cut, own=True)
    convs = [ByteConv(0, 64), ByteConv(1, 64), ByteConv(2, 64, residual=1), ByteConv(3, 32)]
    graph = chain_graph(rng, 64, (band * mode.position_parts, 9), convs)
    program, staying = _lowered(graph, [(plain, rows), (plain, rows), (mode, rows), (plain, rows)])
    assert [s.held for s in staying] == [True, False, False, False]
    assert staying[2].stays
    assert "v1" not in _values_in_ddr(program)
    check_run(program, graph, rng)


@pytest.mark.parametrize(("cut", "chain"), [(Cut.BOTH, 2), (Cut.BOTH, 4), (Cut.PAIRS, 2), (Cut.PAIRS, 4), (Cut.HALVES, 2)])
@pytest.mark.parametrize("rows", [1, 2])
def test_chains_of_cores_read_what_stays(cut: Cut, chain: int, rows: int) -> None:
    """Each core of a chain has its own input channels, which lie together in every tile."""
    rng = np.random.default_rng(5)
    graph = chain_graph(rng, 64, (29, 9), [ByteConv(0, 256), ByteConv(1, 64)])
    program, staying = _lowered(graph, [(_mode(cut), rows), (_mode(cut, chain=chain), rows)])
    assert [(s.stays, s.leaves) for s in staying] == [(True, False), (False, True)]
    assert "v1" not in _values_in_ddr(program)
    check_run(program, graph, rng)


def test_the_next_layer_adds_what_was_held() -> None:
    """A shortcut: what it makes is added by the layer behind it, whose data are another value."""
    rng = np.random.default_rng(6)
    graph = chain_graph(rng, 32, (13, 7), [ByteConv(0, 32), ByteConv(0, 64), ByteConv(1, 64, residual=2)])
    program, staying = _lowered(graph, [(_mode(Cut.BOTH), 2)] * 3)
    assert [(s.stays, s.held, s.leaves) for s in staying] == [(False, False, True), (False, True, False), (False, False, True)]
    check_run(program, graph, rng)


def test_more_results_are_held_than_a_descriptor_counts() -> None:
    """Tiles of 32 blocks each, of which a descriptor counts two tiles: two descriptors bring them where they stay."""
    rng = np.random.default_rng(7)
    graph = chain_graph(rng, 32, (64, 4), [ByteConv(0, 256), ByteConv(1, 32), ByteConv(2, 256, residual=1)])
    mode = _mode(Cut.POSITIONS)
    program, staying = _lowered(graph, [(mode, 1)] * 3)
    assert [(s.stays, s.held, s.leaves) for s in staying[:1]] == [(True, True, False)]
    check_run(program, graph, rng)


def test_results_that_others_want_leave_as_well() -> None:
    """An output of the graph is held, and in DDR."""
    rng = np.random.default_rng(8)
    convs = [ByteConv(0, 64), ByteConv(1, 32, 3), ByteConv(2, 64, residual=1)]
    graph = chain_graph(rng, 32, (13, 7), convs, outputs=(1,))
    program, staying = _lowered(graph, [(_mode(Cut.BOTH), 2)] * 3)
    assert (staying[0].held, staying[0].leaves) == (True, True)
    check_run(program, graph, rng)


@pytest.mark.parametrize(
    ("adder", "rows"), [((Cut.BOTH, 1), 2), ((Cut.PAIRS, 1), 1), ((Cut.BOTH, 2), 2)], ids=["rows", "cut", "streams"]
)
def test_what_lies_otherwise_is_not_held(adder: tuple[Cut, int], rows: int) -> None:
    """Tiles of other rows, other cuts, and several streams of tiles of several rows read residuals out of DDR."""
    rng = np.random.default_rng(9)
    height = 24 if adder == (Cut.BOTH, 2) else 15
    graph = chain_graph(rng, 64, (height, 9), [ByteConv(0, 64), ByteConv(1, 64, 3), ByteConv(2, 64, residual=1)])
    first = 2 if adder == (Cut.BOTH, 2) else 1  # three tiles of two rows
    chosen = [(_mode(Cut.BOTH), first), (_mode(Cut.BOTH), 1), (_mode(adder[0], streams=adder[1]), rows)]
    program, staying = _lowered(graph, chosen)
    assert not any(s.held for s in staying)
    assert "v1" in _values_in_ddr(program)
    check_run(program, graph, rng)


def test_without_room_results_leave() -> None:
    """Values of which memory tiles hold one, but not two: the second is read out of DDR."""
    rng = np.random.default_rng(10)
    convs = [ByteConv(0, 512), ByteConv(1, 64), ByteConv(2, 512, residual=1), ByteConv(3, 64), ByteConv(4, 512, residual=3)]
    graph = chain_graph(rng, 32, (46, 46), convs)
    program, staying = _lowered(graph, [(_mode(Cut.HALVES), 1)] * 5)
    assert [s.held for s in staying] == [True, False, False, False, False]
    check_run(program, graph, rng)


@pytest.mark.parametrize(
    ("height", "channels", "rows", "stays"),
    [(56, 256, 1, True), (53, 256, 1, True), (52, 256, 1, True), (32, 512, 1, True), (112, 256, 2, True), (56, 512, 2, False)],
)
def test_more_results_leave_than_locks_count(height: int, channels: int, rows: int, stays: bool) -> None:
    """Seven tiles of 16 blocks: a lock counts those that have not left. Of the last rows' cores some tiles are behind the image,
    which never leave: three in 53 rows, and four, which are more than a lock counts, in 52. There, and of 32 blocks, two tiles of
    which are as many, it counts tiles, if these have one row."""
    rng = np.random.default_rng(11)
    graph = chain_graph(rng, 32, (height, 8), [ByteConv(0, channels), ByteConv(1, 64)], outputs=(1,))
    program, staying = _lowered(graph, [(_mode(Cut.HALVES), rows)] * 2)
    assert (staying[0].stays, staying[0].leaves) == (stays, True)
    assert stays or staying[0].why == "there are more of its parts than locks count"
    check_run(program, graph, rng)


@pytest.mark.parametrize("cut", CUTS, ids=lambda c: c.name)
@pytest.mark.parametrize("rows", [4, 2])
def test_rows_of_a_tile_stay_as_tiles_of_one_row(cut: Cut, rows: int) -> None:
    """3x3 in tiles of several rows, one or two, of which the last may have rows that are nobody's; then 1x1 row by row."""
    rng = np.random.default_rng(12)
    mode = _mode(cut)
    graph = chain_graph(rng, 64, (3 * mode.position_parts, 9), [ByteConv(0, 64, 3), ByteConv(1, 64), ByteConv(2, 64)])
    program, staying = _lowered(graph, [(mode, min(rows, 3)), (mode, 1), (mode, 1)])
    assert [(s.stays, s.leaves) for s in staying] == [(True, False), (True, False), (False, True)]
    check_run(program, graph, rng)


def test_what_a_layer_in_two_parts_reads_is_in_ddr() -> None:
    """The second part reads it again, when memory tiles have given it up."""
    rng = np.random.default_rng(13)
    graph = chain_graph(rng, 32, (13, 7), [ByteConv(0, 32), ByteConv(1, 64)])
    mode = _mode(Cut.BOTH)
    layer = conv_layer(graph, graph.nodes[1])
    assert not isinstance(layer, str)
    parts = [next(t for t in candidates(NPU, layer.part(n, n + 4), (mode,), 13, 7) if t.rows == 2) for n in (0, 4)]
    program = lower_with(graph, NPU, {"conv1": _ways(graph, 0, mode, 2)[0], "conv2": tuple(parts)})
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    assert [p.layer.first_block for p in part.plans] == [0, 0, 4]
    assert part.staying[0].leaves
    check_run(program, graph, rng)
