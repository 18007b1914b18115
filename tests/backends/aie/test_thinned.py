"""Results of which only every n-th row and column leaves for DDR, against the interpreter, and when all of them do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.byte_layer import ByteConv, chain_graph
from sparsec.backends.aie.descriptor_forms import WORD_BYTES
from sparsec.backends.aie.descriptors import ShimDescriptor
from sparsec.backends.aie.lower.chaining import counted, counts_tiles
from sparsec.backends.aie.lower.choose import candidates
from sparsec.backends.aie.lower.cost import Context, estimate
from sparsec.backends.aie.lower.geometry import Thinned
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.leaving import Leaving, leaving_rows
from sparsec.backends.aie.lower.modes import Cut, Mode, modes
from sparsec.backends.aie.lower.network import lower, lower_with
from sparsec.backends.aie.lower.partition import layers_of
from sparsec.backends.aie.lower.reading import conv_layer
from sparsec.backends.aie.lower.shim_control import ACTIVATIONS
from sparsec.backends.aie.lower.thinning import AllLeave, with_thinned
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.lower.writer import queue_of
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.program import ArrayPart, ArrayProgram, Staying
from sparsec.backends.aie.registers import Direction, Kind, Tile
from sparsec.backends.aie.transaction import BlockWrite, Patch, Write, descriptor_at, task_of
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.types import TensorType
from tests.backends.aie.networks import check_run

NPU = machine_named("aie2:npu1")
MODES = modes(NPU.grid)
CUTS = (Cut.BOTH, Cut.POSITIONS, Cut.PAIRS, Cut.HALVES)
SHORTCUT = (ByteConv(0, 64), ByteConv(1, 32), ByteConv(2, 64, residual=1), ByteConv(3, 32))  # whose third result is read on


def _mode(cut: Cut, *, streams: int = 1) -> Mode:
    return next(m for m in MODES if (m.cut, m.streams, m.chain) == (cut, streams, 1))


def _thinned(graph: Graph) -> tuple[Graph, dict[str, ConvLayer]]:
    """The graph as the array has it, and its layers."""
    made, found = with_thinned(graph)
    layers = layers_of(made)[0]
    return made, layers | {node: replace(layers[node], thinned=t) for node, t in found.items()}


def _ways(graph: Graph, layers: dict[str, ConvLayer], mode: Mode, rows: int) -> dict[str, Tiling]:
    """The first way of each layer in a mode, with so many rows a tile, or with the next fewer that ways have."""
    ways = {}
    for node, layer in layers.items():
        height, width = graph.types[layer.y].shape[2:]
        own = mode if layer.residual else replace(mode, streams=1, own=False)
        found = list(candidates(NPU, layer, (own,), height, width))
        most = max(t.rows for t in found if t.rows <= rows)
        ways[node] = next(t for t in found if t.rows == most)
    return ways


def _part(program: ArrayProgram) -> ArrayPart:
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    return part


def _of(program: ArrayProgram, node: str) -> Staying:
    """What becomes of a layer's results."""
    part = _part(program)
    return next(s for p, s in zip(part.plans, part.staying, strict=True) if p.layer.node == node)


def _words_to_ddr(program: ArrayProgram) -> Counter[str]:
    """Words that shims write, by value."""
    grid, found = NPU.grid, Counter[str]()
    made: dict[tuple[Tile, int], tuple[ShimDescriptor, str]] = {}
    written: dict[tuple[Tile, int], ShimDescriptor] = {}
    for op in _part(program).control.operations:
        if isinstance(op, BlockWrite) and (at := descriptor_at(grid, op.address)) and grid.kind(at[0]) is Kind.SHIM:
            written[at] = ShimDescriptor.decode(op.values)
        elif isinstance(op, Patch) and op.argument == ACTIVATIONS:
            at = descriptor_at(grid, op.address - WORD_BYTES)  # the address is the second word
            assert at is not None
            images = program.images.items()
            made[at] = written[at], next(v for v, image in images if 0 <= op.offset - image.offset < image.nbytes)
        elif isinstance(op, Write) and (queue := queue_of(grid, op)) and queue[:2] == (Tile(queue[0].column, 0), Direction.S2MM):
            task = task_of(Kind.SHIM, op.value)
            number: int | None = task.descriptor
            while number is not None:
                descriptor, value = made[queue[0], number]
                found[value] += descriptor.length * task.repeat
                number = descriptor.next
    return found


def _lowered(graph: Graph, mode: Mode, rows: int) -> ArrayProgram:
    made, layers = _thinned(graph)
    return lower_with(made, NPU, _ways(made, layers, mode, rows))


@pytest.mark.parametrize("cut", CUTS, ids=lambda c: c.name)
@pytest.mark.parametrize(("stride", "rows"), [(2, 1), (2, 2), (3, 2), (2, 3)])
def test_every_nth_row_and_column_leaves(cut: Cut, stride: int, rows: int) -> None:
    """The last layer of a stage: the next one finds all results in memory tiles, a shortcut reads some of them in DDR, and only
    these are there."""
    rng = np.random.default_rng(1)
    graph = chain_graph(rng, 32, (29, 13), [*SHORTCUT, ByteConv(3, 64, 1, stride), ByteConv(4, 32)])
    program = _lowered(graph, _mode(cut), rows)
    staying = _of(program, "conv3")
    assert (staying.stays, staying.leaves, staying.every) == (True, True, stride)
    words = _words_to_ddr(program)
    kept = -(-29 // stride) * -(-13 // stride)
    assert words[f"v3_every_{stride}"] == 64 * kept // WORD_BYTES
    assert words["v3"] == 0
    assert words["v4"] == 32 * 29 * 13 // WORD_BYTES
    check_run(program, graph, rng)


def _read_in_rows_of_one(graph: Graph, cut: Cut, rows: int, reader: str, other: Cut | None = None) -> ArrayProgram:
    """All layers in tiles of so many rows, but the `reader` in tiles of one, perhaps with another cut."""
    made, layers = _thinned(graph)
    ways = _ways(made, layers, _mode(cut), rows)
    return lower_with(made, NPU, ways | {reader: _ways(made, layers, _mode(other or cut), 1)[reader]})


@pytest.mark.parametrize(
    ("cut", "other", "height"),
    [*((cut, cut, 29) for cut in CUTS), (Cut.BOTH, Cut.HALVES, 24), (Cut.BOTH, Cut.HALVES, 48)],
    ids=lambda v: v.name if isinstance(v, Cut) else str(v),
)
@pytest.mark.parametrize(("stride", "rows"), [(2, 2), (2, 3), (4, 2)])
def test_what_leaves_may_lie_in_tiles_of_one_row(cut: Cut, other: Cut, height: int, stride: int, rows: int) -> None:
    """Tiles of several rows, which the next layer reads row by row, halves of a column's as well; every n-th row and column of
    them leaves."""
    rng = np.random.default_rng(1)
    graph = chain_graph(rng, 32, (height, 13), [*SHORTCUT, ByteConv(3, 64, 1, stride), ByteConv(4, 32)])
    program = _read_in_rows_of_one(graph, cut, rows, "conv4", other)
    part, staying = _part(program), _of(program, "conv3")
    above, below = (p.tiling.rows for p in part.plans if p.layer.node in ("conv3", "conv4"))
    assert (above > 1, below) == (True, 1)
    assert (staying.stays, staying.leaves, staying.every) == (True, True, stride)
    words = _words_to_ddr(program)
    assert words[f"v3_every_{stride}"] == 64 * -(-height // stride) * -(-13 // stride) // WORD_BYTES
    assert words["v3"] == 0
    check_run(program, graph, rng)


def test_locks_count_whole_tiles_that_lie_in_tiles_of_one_row() -> None:
    """Four tiles of 16 blocks, which a descriptor takes in tile by tile, are more than a lock counts: what has left is free."""
    rng = np.random.default_rng(3)
    graph = chain_graph(rng, 32, (56, 8), [ByteConv(0, 256), ByteConv(1, 64), ByteConv(1, 64, 1, 2)])
    program = _read_in_rows_of_one(graph, Cut.HALVES, 2, "conv2")
    first = _part(program).plans[0].tiling
    assert (first.tiles, first.most_results, counts_tiles(first), counted(first)) == (4, 16, False, False)
    assert (_of(program, "conv1").stays, _of(program, "conv1").every) == (True, 2)
    check_run(program, graph, rng)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_any_size_stride_and_cut_is_exact(data: st.DataObject) -> None:
    """Odd sizes, bands that begin with rows that do not leave, or have none that do, tiles of any rows, several streams."""
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    stride, size = draw(st.integers(2, 5)), (draw(st.integers(1, 24)), draw(st.integers(1, 24)))
    graph = chain_graph(rng, 32, size, [*SHORTCUT, ByteConv(3, 64, 1, stride), ByteConv(3, 32, 1, stride), ByteConv(4, 32)])
    streams = [m for m in MODES if m.chain == 1 and m.cut in CUTS and not m.weights_first]
    try:
        program = _lowered(graph, draw(st.sampled_from(streams)), draw(st.integers(1, 4)))
    except AllLeave:
        return
    assert _of(program, "conv3").every == stride
    assert _words_to_ddr(program)["v3"] == 0
    check_run(program, graph, rng)


def test_the_next_layer_reads_with_a_stride_what_is_held() -> None:
    """It has to wait for what leaves, though it does not read the layer's own image."""
    rng = np.random.default_rng(2)
    convs = [ByteConv(0, 64), ByteConv(1, 32, 1, 2), ByteConv(0, 32, 3), ByteConv(3, 64, residual=1), ByteConv(4, 32)]
    graph = chain_graph(rng, 32, (13, 9), convs)
    program = _lowered(graph, _mode(Cut.BOTH), 2)
    staying = _of(program, "conv1")
    assert (staying.stays, staying.held, staying.every) == (False, True, 2)
    assert _words_to_ddr(program)["v1"] == 0
    check_run(program, graph, rng)


@pytest.mark.parametrize(
    ("stride", "height", "rows", "tiles"),
    [(2, 56, 1, False), (2, 53, 1, False), (3, 56, 1, True), (2, 49, 1, True), (3, 112, 2, None)],
)
def test_locks_count_rows_between(stride: int, height: int, rows: int, tiles: bool | None) -> None:
    """Seven tiles of 16 blocks are more than a lock counts. It counts the blocks of three, the second of which leaves while the
    third one comes; of four it does not, nor those behind the last row of an image of 49, of which the last part has none: there
    locks count tiles of one row. Of tiles of two rows a descriptor takes no more than a block."""
    rng = np.random.default_rng(3)
    graph = chain_graph(rng, 32, (height, 8), [ByteConv(0, 256), ByteConv(1, 64), ByteConv(1, 64, 1, stride)])
    if tiles is None:
        with pytest.raises(AllLeave, match="all of 'v1' leaves for DDR"):
            _lowered(graph, _mode(Cut.HALVES), rows)
        return
    program = _lowered(graph, _mode(Cut.HALVES), rows)
    assert _of(program, "conv1").every == stride
    assert counts_tiles(_part(program).plans[0].tiling) == tiles
    check_run(program, graph, rng)


def _strided(*convs: ByteConv, outputs: Sequence[int] = ()) -> Graph:
    return chain_graph(np.random.default_rng(4), 32, (9, 9), convs, outputs)


@pytest.mark.parametrize(
    "graph",
    [
        _strided(ByteConv(0, 32), ByteConv(1, 32), ByteConv(1, 32, 1, 2), outputs=(1,)),
        _strided(ByteConv(0, 32), ByteConv(1, 32, 3), ByteConv(1, 32, 1, 2)),
        _strided(ByteConv(0, 32), ByteConv(1, 32), ByteConv(1, 32, 3), ByteConv(1, 32, 1, 2)),
        _strided(ByteConv(0, 32), ByteConv(1, 32), ByteConv(1, 32, 1, 2), ByteConv(1, 32, 1, 3)),
        _strided(ByteConv(0, 32), ByteConv(1, 32), ByteConv(1, 32, 3, 2)),
        _strided(ByteConv(0, 32), ByteConv(1, 32, 1, 2)),
        _strided(ByteConv(0, 32), ByteConv(0, 32, 1, 2)),
    ],
    ids=["an output", "next 3x3", "another 3x3", "two strides", "a stride of 3x3", "nobody else", "an input"],
)
def test_what_others_want_in_ddr_is_not_thinned(graph: Graph) -> None:
    assert with_thinned(graph) == (graph, {})


def test_other_names_are_found() -> None:
    """Values and nodes that have the names that thinned ones would have."""
    graph = _strided(ByteConv(0, 32), ByteConv(1, 32), ByteConv(1, 32, 1, 2))
    named = Graph(graph.name, ("v1_every_2",), graph.outputs, tuple(_renamed(graph)), _types(graph), graph.constants)
    made, found = with_thinned(named)
    assert found["conv1"].value == "v1_every_2_1"
    assert made.nodes[2].name == found["conv1"].node


def _renamed(graph: Graph) -> list[Node]:
    return [replace(n, inputs=tuple("v1_every_2" if v == "v0" else v for v in n.inputs)) for n in graph.nodes]


def _types(graph: Graph) -> dict[str, TensorType]:
    return {"v1_every_2" if v == "v0" else v: t for v, t in graph.types.items()}


def test_what_does_not_stay_leaves_whole() -> None:
    """The ways that are chosen, and those of tests, may not let results stay: `lower` then thins nothing out, and the reader has
    its stride again."""
    rng = np.random.default_rng(5)
    graph = chain_graph(rng, 32, (9, 9), [ByteConv(0, 32), ByteConv(1, 32), ByteConv(1, 32, 1, 2), ByteConv(2, 32)])
    made, layers = _thinned(graph)
    ways = _ways(made, layers, _mode(Cut.BOTH), 1)
    with pytest.raises(AllLeave):
        lower_with(made, NPU, ways | {"conv2": _ways(made, layers, _mode(Cut.PAIRS), 1)["conv2"]})


def test_the_ways_of_a_shortcut_are_chosen_with_what_leaves() -> None:
    """64 > 256 1x1 + @28x28, whose residual is held: more streams of data, as results do not need their channel."""
    rng = np.random.default_rng(6)
    convs = [ByteConv(0, 256), ByteConv(1, 64), ByteConv(2, 256, residual=1), ByteConv(3, 64), ByteConv(3, 64, 1, 2)]
    graph = chain_graph(rng, 64, (28, 28), [*convs, ByteConv(4, 64)], density=0.5)
    program = lower(graph, NPU)
    staying = _of(program, "conv3")
    assert (staying.stays, staying.every) == (True, 2)
    reader = next(p.layer for p in _part(program).plans if p.layer.node == "conv5")
    assert (reader.x, reader.window.stride) == ("v3_every_2", 1)
    check_run(program, graph, rng)


def test_without_room_all_results_leave() -> None:
    """Memory tiles have no room for 2.4 MB beside the rest."""
    rng = np.random.default_rng(7)
    graph = chain_graph(rng, 32, (49, 49), [ByteConv(0, 1024), ByteConv(1, 32), ByteConv(1, 32, 1, 2), ByteConv(2, 32)])
    assert with_thinned(graph)[1]
    program = lower(graph, NPU)
    assert (_of(program, "conv1").stays, _of(program, "conv1").leaves, _of(program, "conv1").every) == (False, True, 1)
    check_run(program, graph, rng)


def test_what_leaves_counts() -> None:
    """The model takes a quarter of what DDR takes where a quarter leaves."""
    graph = chain_graph(np.random.default_rng(8), 64, (28, 28), [ByteConv(0, 256), ByteConv(1, 64), ByteConv(1, 64, 1, 2)])
    _, layers = _thinned(graph)
    layer = layers["conv1"]
    assert layer.share_left(all_leave=False) == 0.25
    assert layer.share_left(all_leave=True) == 1.25
    tiling = next(candidates(NPU, layer, (_mode(Cut.BOTH),), 28, 28))
    cost = replace(estimate(NPU, tiling), ddr_out=1e6)
    whole, some, none = (cost.within(Context(follows=True, leaves=share)) for share in (1.0, 0.25, 0.0))
    assert whole - none > 3.9 * (some - none) > 0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 5),
    st.integers(1, 6),
    st.sampled_from([m for m in MODES if m.chain == 1]),
    st.integers(1, 3),
)
def test_patterns_have_every_row_once(height: int, every: int, rows: int, mode: Mode, pieces: int) -> None:
    """All rows that leave, in their order, and what locks have counted up to each."""
    graph = chain_graph(np.random.default_rng(9), 8, (height, 3), [ByteConv(0, 128)])
    layer = conv_layer(graph, graph.nodes[0])
    assert isinstance(layer, ConvLayer)
    layer = replace(layer, thinned=Thinned("slice", "thin", every, 1 / every**2))
    tiling = Tiling(layer, mode, height, 3, rows, 2, True, 1, 1 << 16, 1 << 14)
    found: dict[tuple[int, int], list[int]] = {}
    counted = Counter[tuple[int, int]]()
    leaving = Leaving(tiling, pieces)
    for column in range(mode.grid.columns):
        for channel in range(mode.leaving(column)):
            for pattern in leaving.patterns(column, channel):
                for turn in range(pattern.times):
                    for r in pattern.rows:
                        tile = pattern.first + turn * pattern.period + r.tile
                        counted[column, r.row] += r.waits
                        assert counted[column, r.row] == tile + 1
                        first = tile * rows + r.above
                        found.setdefault((column, r.row), []).extend(range(first, first + every * r.height, every))
    for column in range(mode.grid.columns):
        for row in range(mode.grid.core_rows):
            part = mode.parts(column, row)[0]
            first = tiling.first_row(part)
            own = [n for n in range(tiling.valid_rows(part)) if (first + n) % every == 0]
            assert found.get((column, row), []) == own
            assert sum(count for _, _, count in leaving_rows(tiling, part)) == len(own)
