"""Layers whose sums go from core to core: values in every cut, which cores have what, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from models.byte_layer import ByteConv, chain_graph, conv_graph
from sparsec.backends.aie.core.program import Kind
from sparsec.backends.aie.lower.choose import candidates, ranked
from sparsec.backends.aie.lower.chunks import Chunk, Steps
from sparsec.backends.aie.lower.geometry import plane
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.modes import Cut, Mode, modes
from sparsec.backends.aie.lower.network import lower_with
from sparsec.backends.aie.lower.reading import layer_of
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import Machine, machine_named
from sparsec.backends.aie.program import ArrayPart, ArrayProgram
from sparsec.compiler.errors import LimitError
from sparsec.compiler.graph import Graph
from tests.backends.aie import bfloat16_layers
from tests.backends.aie.core_bench import Bench
from tests.backends.aie.networks import check_run, first_lowered

NPU, PAIR = machine_named("aie2:npu1"), machine_named("aie2:2x2")
CHAINED = [m for m in modes(NPU.grid) if m.chain > 1 and not m.weights_first]


def _layer(graph: Graph, node: int = 0) -> tuple[ConvLayer, int, int]:
    layer = layer_of(graph, graph.nodes[node])
    assert not isinstance(layer, str)
    extent = plane(graph.types[layer.y])
    assert extent is not None
    return layer, extent[1], extent[2]


def _mode(cut: Cut, chain: int, *, own: bool = False) -> Mode:
    return next(m for m in modes(NPU.grid) if (m.cut, m.chain, m.streams, m.own) == (cut, chain, 1, own))


def _ways(machine: Machine, graph: Graph, mode: Mode, node: int = 0) -> Iterator[Tiling]:
    layer, height, width = _layer(graph, node)
    return candidates(machine, layer, (mode,), height, width)


def _first_that_fits(machine: Machine, graph: Graph, mode: Mode) -> ArrayProgram:
    return first_lowered(graph, _ways(machine, graph, mode), machine.name)


def test_which_cores_have_what() -> None:
    """Every core takes one stream of data and one of weights; what is passed on stays in the column, and ends in memory tiles."""
    found = {(m.cut, m.chain) for m in CHAINED}
    assert found == {(c, n) for c in (Cut.BOTH, Cut.CHANNELS, Cut.PAIRS) for n in (2, 4)} | {(Cut.HALVES, 2)}
    cores = sorted(NPU.grid.cores())
    for mode in CHAINED:
        for streams in (mode.data(), mode.weights()):
            assert sorted(t for s in streams for t in s.cores) == cores
            for s in streams:
                assert {mode.step(t.row - 2) for t in s.cores} == {s.step}
        assert [mode.step(r) for r in reversed(range(4))] == [*range(mode.chain)] * (4 // mode.chain)
        for c in range(4):
            for r in range(4):
                below = r - r % mode.chain  # the last of its chain
                assert mode.parts(c, r) == mode.parts(c, below)
                assert mode.finishes(below)
        sent = [(s.memory, s.channel) for s in (*mode.data(), *mode.weights())]
        assert len(set(sent)) == len(sent)
        assert sum(f.destinations[0].tile.row == 1 and f.source.tile.row > 1 for f in mode.flows()) == 16 // mode.chain


def test_results_leave_through_all_channels_alike() -> None:
    """Of the cores of a column that have results, which of a chain are the last ones."""
    for mode in modes(NPU.grid):
        for column in range(NPU.grid.columns):
            through = [mode.leave_through(column, i) for i in range(mode.leaving(column))]
            assert sorted(r for rows in through for r in rows) == [r for r in range(4) if mode.finishes(r)]
            assert max(map(len, through)) - min(map(len, through)) <= 1


@pytest.mark.parametrize("mode", CHAINED, ids=lambda m: f"{m.cut.name}-{m.chain}")
@pytest.mark.parametrize("residual", [False, True])
def test_every_cut_is_exact(mode: Mode, residual: bool) -> None:
    rng = np.random.default_rng(mode.chain)
    kernel, size = ((3, 3), (6, 9)) if residual else ((1, 1), (7, 7))
    graph = conv_graph(
        rng, (64 * mode.chain, 40), size, kernel, pads=(kernel[0] // 2,) * 4, residual=residual, density=0.6, shift=13
    )
    check_run(_first_that_fits(NPU, graph, mode), graph, rng)


def test_two_cores_and_one_layer() -> None:
    rng = np.random.default_rng(5)
    graph = conv_graph(rng, (128, 32), (8, 8), (1, 1), shift=12)
    mode = next(m for m in modes(PAIR.grid) if m.chain == 2 and m.cut is Cut.BOTH)
    program = _first_that_fits(PAIR, graph, mode)
    check_run(program, graph, rng)
    part = next(p for p in program.parts if isinstance(p, ArrayPart))
    written = [op.text(PAIR.grid) for op in part.control.operations if "accumulators" in op.text(PAIR.grid)]
    assert len(written) == 4
    assert "core(0,2).accumulators" in written[0]
    text = program.core_text
    assert text.count("getc") == 8 == len({line for line in text.splitlines() if "getc" in line})
    assert text.count("| putc c7, 1 |") == 2  # in the loop, and behind it


@settings(max_examples=3, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(data=st.data())
def test_any_layer_is_exact(data: st.DataObject) -> None:
    draw = data.draw
    mode = draw(st.sampled_from(CHAINED))
    k, stride = draw(st.sampled_from([(1, 1), (1, 2), (3, 1), (3, 2)]))
    graph = conv_graph(
        np.random.default_rng(draw(st.integers(0, 99))),
        (64 * mode.chain * draw(st.integers(1, 2 if k == 1 else 1)), draw(st.integers(8, 90))),
        (draw(st.integers(k, 11)), draw(st.integers(k, 12))),
        (k, k),
        stride=stride,
        pads=(k // 2,) * 4,
        residual=draw(st.booleans()),
        density=draw(st.sampled_from([0.1, 0.5, 1.0] if k == 1 else [0.1, 0.2])),  # sums stay below 2^24
        shift=13,
    )
    ways = [t for i, t in enumerate(_ways(NPU, graph, mode)) if i < 300]
    for tiling in draw(st.permutations(ways[:: max(1, len(ways) // 20)])):
        try:
            program = lower_with(graph, NPU, {tiling.layer.node: tiling})
        except LimitError:
            continue
        check_run(program, graph, np.random.default_rng(0))
        return


@pytest.mark.parametrize(("residual", "cut"), [(False, "relu(t-1)"), (True, "")])
@pytest.mark.parametrize("chain", [2, 4])
def test_bfloat16(residual: bool, cut: str, chain: int) -> None:
    rng = np.random.default_rng(chain)
    graph = bfloat16_layers.convolution(rng, (64 * chain, 24), (6, 8), residual=residual, cut=cut, density=0.7)
    mode = next(m for m in CHAINED if m.chain == chain and m.cut is Cut.PAIRS)
    bfloat16_layers.equal(graph, rng, _first_that_fits(NPU, graph, mode))


def test_layers_in_a_row() -> None:
    """A chain behind another cut, chains behind each other, another cut behind chains: the next layer is configured meanwhile."""
    rng = np.random.default_rng(8)
    graph = chain_graph(rng, 128, (4, 8), [ByteConv(i, c) for i, c in enumerate((128, 256, 64, 64))], shift=13)
    chosen = {}
    wanted = [(Cut.BOTH, 1), (Cut.PAIRS, 2), (Cut.BOTH, 4), (Cut.HALVES, 1)]
    for i, (cut, chain) in enumerate(wanted):
        tiling = next(_ways(NPU, graph, _mode(cut, chain), i))
        chosen[tiling.layer.node] = tiling
    program = lower_with(graph, NPU, chosen)
    check_run(program, graph, rng)
    part = next(p for p in program.parts if isinstance(p, ArrayPart))
    assert [s.stays for s in part.staying] == [False] * 4
    assert part.staying[1].why.startswith("the next layer has positions over columns, channels over rows, input channels over")
    assert not any("not all cores have results" in late for late in part.late)


@pytest.mark.parametrize(("cut", "chain"), sorted({(m.cut, m.chain) for m in CHAINED if m.cut is not Cut.CHANNELS}, key=str))
@pytest.mark.parametrize("after", ["alone", "own", "chain"])
def test_results_of_chains_stay(cut: Cut, after: str, chain: int) -> None:
    """For a layer without chains, one with a stream of weights to each core, and another chain; what stays does not leave. Those
    of the first layer are held, too, until the third one adds them, which has tiles of the same rows."""
    rng = np.random.default_rng(chain)
    convs = [ByteConv(0, 128), ByteConv(1, 64), ByteConv(2, 128, residual=1), ByteConv(3, 64)]
    graph = chain_graph(rng, 256, (13, 9), convs, shift=13)
    wanted = [_mode(cut, chain), _mode(cut, 2), _mode(cut, 1, own=after == "own"), _mode(cut, 2 if after == "chain" else 1)]
    chosen = {}
    for i, mode in enumerate(wanted):
        found = list(_ways(NPU, graph, mode, i))
        rows = min(2, max(t.rows for t in found))
        chosen[graph.nodes[i].name] = next(t for t in found if t.rows == rows)
    program = lower_with(graph, NPU, chosen)
    part = next(p for p in program.parts if isinstance(p, ArrayPart))
    assert [(s.stays, s.held, s.leaves) for s in part.staying[:2]] == [(True, True, False), (True, False, False)]
    check_run(program, graph, rng)


def test_results_of_a_chain_stay_in_memory_tiles_that_they_reach() -> None:
    """Those of all columns do not, where one memory tile sends all data."""
    graph = chain_graph(np.random.default_rng(0), 256, (7, 7), [ByteConv(0, 128), ByteConv(1, 128)], shift=13)
    chosen = {graph.nodes[i].name: next(_ways(NPU, graph, _mode(Cut.CHANNELS, 2), i)) for i in range(2)}
    program = lower_with(graph, NPU, chosen)
    part = next(p for p in program.parts if isinstance(p, ArrayPart))
    assert (part.staying[0].stays, part.staying[0].why) == (False, "memory tiles reach only their neighbours")


def test_what_the_cost_model_prefers() -> None:
    """Sums in parts become chains; few input channels, int32 results, depthwise products and maxima do not."""

    def best(channels: tuple[int, int], size: tuple[int, int]) -> Tiling:
        layer, height, width = _layer(conv_graph(np.random.default_rng(0), channels, size, (1, 1), shift=14))
        return ranked(NPU, layer, modes(NPU.grid), height, width)[0][1]

    assert best((512, 128), (28, 28)).mode.chain > 1
    assert best((64, 64), (56, 56)).mode.chain == 1
    graph = conv_graph(np.random.default_rng(0), (256, 32), (8, 8), (1, 1))
    layer, height, width = _layer(graph)
    for other in (replace(layer, wide=True), replace(layer, depthwise=True), replace(layer, maximum=True)):
        assert not list(candidates(NPU, other, tuple(CHAINED), height, width))


def test_chunks_of_a_chain() -> None:
    """Slopes of cycles over chunks and over 4 vectors of a core that never waits for the cascade."""

    def cycles(kind: Kind, chunks: int, vectors: int) -> int:
        each = 2 if kind.bfloat16 else 1
        weights = np.ones((8, 8, 8), np.float32).astype(bfloat16_layers.BF16) if kind.bfloat16 else np.ones((8, 8, 8), np.int8)
        bias = np.zeros(8, np.float32 if kind.bfloat16 else np.int32)
        made = Chunk(bias, weights, [32 * each * i for i in range(8)], 0)
        steps = Steps((64, 64, 64), 256, 32) if kind.bfloat16 else None
        bench = Bench([kind], [np.zeros(32 * 400, np.uint8)], [made] * chunks, vectors, steps=steps, result_bytes=128 * each)
        bench.core.state.inbox.push(np.zeros((8 * chunks * vectors, 64), np.uint8))
        bench.run()
        assert len(bench.core.state.inbox) == (0 if kind.gets else 8 * chunks * vectors)
        assert sum(map(len, bench.core.state.outbox)) == (8 * chunks * vectors if kind.puts else 0)
        return bench.core.now - bench.core.stalls["bank"]

    for kind, chunk, quad in (
        (Kind(puts=True), 20, 0),
        (Kind(gets=True, puts=True), 19, 0),
        (Kind(gets=True), 19, 0),
        (Kind(gets=True, residual=True), 22, 6),
        (Kind(puts=True, bfloat16=True), 22, 0),
        (Kind(gets=True, puts=True, bfloat16=True), 22, 0),
        (Kind(gets=True, bfloat16=True), 21, 0),
        (Kind(gets=True, residual=True, bfloat16=True), 24, 5),
    ):
        block = 64 if kind.bfloat16 else 32
        found = (
            cycles(kind, 5, 4) - cycles(kind, 4, 4) - 4 * (block + quad),
            (cycles(kind, 4, 5) - cycles(kind, 4, 4)) / 4 - block,
        )
        assert found == (chunk, quad), kind.name
