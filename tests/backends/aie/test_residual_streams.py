"""Residuals through several streams: of data, each with its own cores' residual, or of weights, one for each core; values, and
what each carries."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from models.byte_layer import ByteConv, chain_graph, conv_graph
from sparsec.backends.aie.lower.choose import candidates
from sparsec.backends.aie.lower.circuits import keeps_way_out
from sparsec.backends.aie.lower.memory_places import What, in_memory
from sparsec.backends.aie.lower.modes import Cut, Mode, modes
from sparsec.backends.aie.lower.network import lower_with
from sparsec.backends.aie.lower.reading import conv_layer
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import Machine, machine_named
from sparsec.backends.aie.program import ArrayPart
from sparsec.backends.aie.registers import Tile
from sparsec.compiler.errors import LimitError
from sparsec.compiler.graph import Graph
from tests.backends.aie.networks import check_run, compile_for

NPU = machine_named("aie2:npu1")
SEVERAL = [m for m in modes(NPU.grid) if m.streams > 1]
OWN = [m for m in modes(NPU.grid) if m.own]


def _name(mode: Mode) -> str:
    return f"{mode.cut.name}-own" if mode.own else mode.cut.name


def _ways(machine: Machine, graph: Graph, node: int, mode: Mode) -> Iterator[Tiling]:
    layer = conv_layer(graph, graph.nodes[node])
    assert not isinstance(layer, str)
    _, _, height, width = graph.types[layer.y].shape
    return candidates(machine, layer, (mode,), height, width)


def test_which_cuts_have_several_streams() -> None:
    """Two in each column, as much as its shim brings, so that results keep both channels; four of halves, two of which leave
    results one channel where weights are sent, too."""
    assert [(m.cut, m.streams) for m in SEVERAL] == [(Cut.BOTH, 2), (Cut.PAIRS, 4), (Cut.HALVES, 2)]
    for mode in SEVERAL:
        halves = mode.cut is Cut.HALVES
        assert [mode.leaving(c) for c in range(4)] == ([1, 2, 1, 2] if halves else [2, 2, 2, 2])
        sent = [s for streams in mode.carriers() for s in streams]
        assert all(sum(s.memory.column == c for s in sent) == (4 if halves else 2) for c in range(4))
        assert len({(s.memory, s.channel) for s in (*sent, *mode.weights())}) == len(sent) + len(mode.weights())
        for stream, streams in zip(mode.data(), mode.carriers(), strict=True):
            assert sorted(c for s in streams for c in s.cores) == sorted(stream.cores)


def test_which_cuts_have_a_stream_of_weights_for_each_core() -> None:
    """Of memory tiles that reach the data of the core's positions, and leave a channel for results; halves of rows share one
    stream of data for that."""
    assert [m.cut for m in OWN] == [Cut.BOTH, Cut.PAIRS, Cut.HALVES]
    for mode in OWN:
        assert sorted(c for s in mode.weights() for c in s.cores) == sorted(c for s in mode.data() for c in s.cores)
        assert all(len(s.cores) == 1 for s in mode.weights())
        sent = {(s.memory, s.channel) for s in mode.data()}
        assert len(sent) == {Cut.BOTH: 4, Cut.PAIRS: 2, Cut.HALVES: 4}[mode.cut]
        assert len({(s.memory, s.channel) for s in mode.weights()} - sent) == 16
        assert [mode.leaving(c) for c in range(4)] == ([1, 2, 1, 2] if mode.cut is Cut.PAIRS else [1, 1, 1, 1])


@pytest.mark.parametrize("mode", OWN, ids=_name)
def test_a_residual_comes_behind_the_first_page(mode: Mode) -> None:
    """A core's channel of weights takes a page, then the residual of the first tile, then all other pages: no task that is queued
    while the layer before computes takes free places of a residual, which that layer may have."""
    graph = conv_graph(np.random.default_rng(3), (64, 256), (4 * mode.position_parts, 16), residual=True)
    for tiles, kept in ((1, False), (2, True)):
        tiling = next(t for t in _ways(NPU, graph, 0, mode) if (t.tiles, t.kept) == (tiles, kept) and max(t.paging.counts) > 1)
        (part,) = lower_with(graph, NPU, {"conv": tiling}).parts
        assert isinstance(part, ArrayPart)
        queued = [t for op in part.control.operations if (t := op.text(NPU.grid)).startswith("write core(0,2).s2mm1.queue")]
        first = [int(text.split("bd")[1].split(",")[0].split()[0]) for text in queued]
        assert first[0] == first[-1 if tiles == 1 else 2] != first[1]
        assert first[1] == first[-1] or tiles == 1


@pytest.mark.parametrize("mode", [*SEVERAL, *OWN], ids=_name)
@pytest.mark.parametrize("tiles", [1, 3])
def test_residuals_lie_by_the_stream_that_carries_them(mode: Mode, tiles: int) -> None:
    """Every piece once, in a memory tile that the stream's channel reaches."""
    graph = conv_graph(np.random.default_rng(3), (32, 256), (3 * mode.position_parts, 16), residual=True)
    tiling = next(t for t in _ways(NPU, graph, 0, mode) if t.tiles == tiles)
    memory, pieces = in_memory(NPU, tiling), tiling.residual_pieces
    assert pieces == (min(8, 32 // mode.residual_streams) if tiles == 1 else 1)
    own = {s.cores[0]: s for s in mode.weights()} if mode.own else {}
    for stream, carriers in zip(mode.data(), mode.carriers(), strict=True):
        streams = [own[core] for core in stream.cores] if own else carriers
        found = [(c, p) for c, m in enumerate(memory) for p in m.portions(What.RESIDUAL) if p.stream is stream]
        assert sorted(i for _, p in found for i in range(p.first, p.first + p.count)) == list(range(tiling.residual_parts))
        for column, portion in found:
            carrier = streams[portion.first // pieces]
            assert portion.count == pieces
            assert abs(carrier.memory.column - column) <= 1


@settings(max_examples=4, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(data=st.data())
def test_any_layer_with_a_residual_is_exact(data: st.DataObject) -> None:
    """One tile and several, weights that stay or not, parts of input channels, strides, cores with one block and with many."""
    draw = data.draw
    machine = machine_named(draw(st.sampled_from(["aie2:npu1", "aie2:npu1", "aie2:2x2"])))
    mode = draw(st.sampled_from([m for m in modes(machine.grid) if m.residual_streams > 1]))
    kernel, stride = draw(st.sampled_from([1, 3])), draw(st.integers(1, 2))
    size = draw(st.integers(kernel, 15)), draw(st.integers(kernel, 19))
    channels = draw(st.sampled_from([16, 24, 64])), 8 * mode.channel_parts * draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    graph = conv_graph(
        rng,
        channels,
        size,
        (kernel, kernel),
        stride=stride,
        pads=(kernel // 2,) * 4,
        residual=True,
        density=draw(st.sampled_from([1.0, 0.3])),
    )
    found = list(_ways(machine, graph, 0, mode))
    kinds = sorted({(t.tiles, t.splits, t.kept, t.buffers) for t in found})
    wanted = kinds[draw(st.integers(0, len(kinds) - 1))]
    for t in found:
        if (t.tiles, t.splits, t.kept, t.buffers) == wanted:
            try:
                program = lower_with(graph, machine, {"conv": t})
            except LimitError:
                continue
            check_run(program, graph, rng)
            return


@pytest.mark.parametrize("mode", [*SEVERAL, *OWN], ids=_name)
@pytest.mark.parametrize("tiles", [1, 2])
def test_results_stay_from_one_form_of_a_cut_to_the_other(mode: Mode, tiles: int) -> None:
    """Data of several streams that are there already, and results that leave for DDR while the next layer's circuits are made."""
    rng = np.random.default_rng(5)
    convs = [ByteConv(0, 64), ByteConv(1, 64, residual=0), ByteConv(2, 128), ByteConv(3, 64, residual=2)]
    graph = chain_graph(rng, 64, (13, 7), convs, outputs=(2,))
    plain = Mode(mode.cut, mode.grid)
    chosen = {}
    for i, form in enumerate((plain, mode, plain, mode)):
        chosen[graph.nodes[i].name] = next(t for t in _ways(NPU, graph, i, form) if t.tiles == tiles)
    program = lower_with(graph, NPU, chosen)
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    assert [(s.stays, s.leaves) for s in part.staying] == [(True, False), (True, True), (True, False), (False, True)]
    check_run(program, graph, rng)


@pytest.mark.parametrize("mode", SEVERAL, ids=lambda m: m.cut.name)
def test_locks_that_streams_follow_one_another_by_begin_at_zero(mode: Mode) -> None:
    """They may have been those of free places two layers before, of which some are free when a layer has finished: streams would
    send data of a tile that have not come yet."""
    convs = [ByteConv(0, 128), ByteConv(0, 128, residual=1), ByteConv(2, 128), ByteConv(3, 128, residual=1)]
    graph = chain_graph(np.random.default_rng(7), 64, (16, 7), convs)
    plain = Mode(Cut.HALVES, NPU.grid)
    chosen = {}
    for i, (form, tiles) in enumerate(((plain, 1), (mode, 1), (plain, 1), (mode, 2))):
        chosen[graph.nodes[i].name] = next(t for t in _ways(NPU, graph, i, form) if t.tiles == tiles)
    (part,) = lower_with(graph, NPU, chosen).parts
    assert isinstance(part, ArrayPart)
    names = [f"write {NPU.grid.kind(t).value}{t}.lock{n} " for t in (Tile(c, 1) for c in range(4)) for n in range(64)]
    operations = [op.text(NPU.grid) for op in part.control.operations]
    for layer, plan in ((1, part.plans[1]), (3, part.plans[3])):
        told = operations[part.ends[layer - 1] : part.ends[layer + 1]]  # configured while the one before computes
        for column, places in enumerate(plan.memory):
            pairs = sum(len(places.portions(what)) for what in What) + NPU.rows
            followed = len(places.data) * (mode.streams - 1)
            first = 32 * (layer % 2) + 2 * pairs
            for lock in range(first, first + followed):
                name = names[64 * column + lock]
                assert any(op.startswith(name) and op.removeprefix(name).startswith("0x00000000") for op in told), name


def test_circuits_that_a_layer_behind_needs_for_its_results() -> None:
    """Weights of CHANNELS take a channel that results of BOTH leave by."""
    both, several, channels = (Mode(cut, NPU.grid, n) for cut, n in ((Cut.BOTH, 1), (Cut.BOTH, 2), (Cut.CHANNELS, 1)))
    assert keeps_way_out(several, both) and keeps_way_out(both, several)
    assert not keeps_way_out(both, channels)


def test_small_images_with_many_channels_take_them() -> None:
    """A residual that one stream would carry to all cores of a column in more cycles than they multiply."""
    graph = conv_graph(np.random.default_rng(0), (64, 1024), (14, 14), residual=True, density=0.5, shift=12)
    (part,) = compile_for(graph).parts
    assert isinstance(part, ArrayPart)
    assert part.plans[0].tiling.mode.streams == 4
