"""Layers and networks on the array: emitted files, executed, against the interpreter to the last bit."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.byte_layer import conv_graph
from sparsec.backends.aie.emit import emit
from sparsec.backends.aie.lower.choose import candidates, ranked
from sparsec.backends.aie.lower.memory_places import What, in_memory
from sparsec.backends.aie.lower.modes import Cut, modes
from sparsec.backends.aie.lower.network import lower_with
from sparsec.backends.aie.lower.reading import conv_layer
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.program import ArrayPart
from sparsec.compiler.errors import FitError
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.scalar import Program
from sparsec.passes.pipelines import ARRAY
from sparsec.passes.quantisation.model import quantise
from sparsec.passes.quantisation.settings import Settings
from tests.backends.aie.networks import compile_for, first_lowered, random_feeds, run_emitted

FASHION = Path(__file__).parents[3] / "benchmarks" / "data" / "resnet8_fashion.onnx"
NPU = machine_named("aie2:npu1")


@pytest.fixture(scope="module")
def trained() -> Graph:
    """A trained network, quantised for arrays."""
    feeds = {"image": np.random.default_rng(0).random((8, 1, 28, 28), np.float32)}
    made = quantise(onnx.load(FASHION), feeds, Settings(power_of_two=True, per_channel=False))
    return run_pipeline(import_model(made.proto, dims={"batch": 1}), ARRAY)


def _check(graph: Graph, rng: np.random.Generator, target: str = "aie2:npu1", program: Any = None) -> Any:
    feeds = random_feeds(rng, graph)
    with tempfile.TemporaryDirectory() as folder:
        run = run_emitted(program or compile_for(graph, target), feeds, Path(folder))
    for name, expected in interpret(graph, feeds).items():
        assert np.array_equal(run.outputs[name], expected)
    return run


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_convolution_is_exact(data: st.DataObject) -> None:
    draw = data.draw
    kernel = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    top, left, bottom, right = (draw(st.integers(0, k - 1)) for k in (*kernel, *kernel))
    size = draw(st.integers(kernel[0], 20)), draw(st.integers(kernel[1], 20))
    depthwise, residual = draw(st.booleans()), draw(st.booleans())
    ic = draw(st.integers(2, 40))
    oc = ic if depthwise else draw(st.integers(1, 70))
    zeros = 2 * draw(st.integers(0, 127)), 2 * draw(st.integers(0, 127)), 2 * draw(st.integers(0, 127))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    graph = conv_graph(
        rng,
        (ic, oc),
        size,
        kernel,
        stride=draw(st.integers(1, 2)),
        pads=(top, left, bottom, right),
        depthwise=depthwise,
        residual=residual,
        zeros=zeros,
        density=1.0 if depthwise else draw(st.sampled_from([1.0, 0.5, 0.1])),
    )
    _check(graph, rng, draw(st.sampled_from(["aie2:2x2", "aie2:3x3", "aie2:npu1"])))


def _tilings(graph: Graph, cut: Cut | None = None) -> list[Tiling]:
    """All that fit, of one cut or of any."""
    layer = conv_layer(graph, graph.nodes[0])
    assert not isinstance(layer, str)
    _, _, height, width = graph.types["y"].shape
    ways = tuple(m for m in modes(NPU.grid) if cut in (None, m.cut))
    return list(candidates(NPU, layer, ways, height, width))


@pytest.mark.parametrize("cut", list(Cut))
def test_every_cut_and_tiling_is_exact(cut: Cut) -> None:
    """Of each cut a few tilings far apart: weights that stay or not, sums in parts, one and two buffers, many tiles and one."""
    rng = np.random.default_rng(3)
    graph = conv_graph(rng, (24, 40), (9, 7), (3, 3), pads=(1, 1, 1, 1), residual=True)
    kinds: dict[Any, list[Tiling]] = {}
    for t in reversed(_tilings(graph, cut)):
        kinds.setdefault((t.kept, t.buffers, min(t.tiles, 2), t.in_parts), []).append(t)
    assert len(kinds) > 3
    for found in list(kinds.values())[:: max(1, len(kinds) // 3)]:
        _check(graph, rng, program=first_lowered(graph, found))


@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_input_channels_in_parts_are_exact(data: st.DataObject) -> None:
    """Sums that stay in cores from one part to the next, of some output channels at a time or of all: any size and pattern."""
    draw = data.draw
    kernel, stride = draw(st.sampled_from([1, 3])), draw(st.integers(1, 2))
    size = draw(st.integers(kernel, 9)), draw(st.integers(kernel, 17))
    inputs = draw(st.sampled_from([128, 250])) if kernel == 1 else 128  # more taps would make sums that float32 does not hold
    channels = inputs, draw(st.sampled_from([30, 64]))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    pad = kernel // 2
    graph = conv_graph(
        rng,
        channels,
        size,
        (kernel, kernel),
        stride=stride,
        pads=(pad, pad, pad, pad),
        residual=draw(st.booleans()),
        shift=14,
        residual_shift=12,
        density=draw(st.sampled_from([1.0, 0.5, 0.1])),
    )
    found = [t for t in _tilings(graph) if t.splits > 1 and t.tiles < 5]
    first = draw(st.integers(0, len(found) - 1))
    _check(graph, rng, program=first_lowered(graph, [*found[first:], *found[:first]]))


@pytest.mark.parametrize(
    ("cut", "data", "weights"),
    [
        (Cut.BOTH, [{0}, {1}, {2}, {3}], [{0}, {1}, {2}, {3}]),
        (Cut.POSITIONS, [{c} for c in range(4) for _ in range(4)], [{0, 1, 2}]),
        (Cut.CHANNELS, [{0, 1, 2}], [{c} for c in range(4) for _ in range(4)]),
        (Cut.PAIRS, [{0, 1}, {2, 3}], [{0}, {2}, {0}, {2}, {1}, {3}, {1}, {3}]),
        (Cut.HALVES, [{c} for c in range(4) for _ in range(2)], [{0, 1}, {2, 3}]),
    ],
)
def test_streams_come_through_the_shims_near_their_sender(cut: Cut, data: list[set[int]], weights: list[set[int]]) -> None:
    """Every part and chunk once, in the memory of a column whose locks and bytes the sender's channel reaches."""
    graph = conv_graph(np.random.default_rng(3), (64, 128), (16, 16), (3, 3), pads=(1, 1, 1, 1))
    tiling = next(t for t in _tilings(graph, cut) if t.splits == 4 and t.groups == 1)
    memory = in_memory(NPU, tiling)
    for what, expected, total in ((What.DATA, data, tiling.parts), (What.WEIGHTS, weights, 0)):
        streams = tiling.mode.weights() if what is What.WEIGHTS else tiling.mode.data()
        for stream, columns in zip(streams, expected, strict=True):
            found = [(c, p) for c, m in enumerate(memory) for p in m.portions(what) if p.stream is stream]
            covered = sorted(i for _, p in found for i in range(p.first, p.first + p.count))
            assert covered == list(range(total or tiling.pages(stream.part)))
            assert {c for c, _ in found} == columns
            assert columns == {stream.memory.column} or stream.channel < 4


@pytest.mark.parametrize("groups", [2, 4])
def test_tiles_come_again_for_each_group_of_output_channels(groups: int) -> None:
    rng = np.random.default_rng(6)
    graph = conv_graph(rng, (128, 128), (8, 16), shift=13)
    found = [t for t in _tilings(graph, Cut.BOTH) if t.groups == groups and t.tiles == 2]
    for kept in (True, False):
        tiling = next(t for t in found if t.kept is kept)
        _check(graph, rng, program=lower_with(graph, NPU, {"conv": tiling}))


@pytest.mark.parametrize(("kept", "splits", "residual"), [(False, 1, True), (False, 2, False), (True, 1, False), (True, 2, True)])
def test_chunks_have_their_own_lengths(kept: bool, splits: int, residual: bool) -> None:
    """Channels with few blocks and with many: pages that hold several chunks or a part of one, for one tile and for several, and
    fewer bytes than if all chunks were as long as the longest."""
    rng = np.random.default_rng([kept, splits, residual])
    graph = conv_graph(rng, (32, 128), (6, 11), (3, 3), pads=(1, 1, 1, 1), residual=residual, shift=13)
    filled = rng.random((16, 4, 3, 3)) < rng.choice([0.1, 0.4, 0.9], (16, 1, 1, 1))
    w = graph.constants["w"] * np.repeat(np.repeat(filled, 8, 0), 8, 1).astype(np.int8)
    graph = replace(graph, constants={**graph.constants, "w": w})
    found = [t for t in _tilings(graph, Cut.BOTH) if t.kept is kept and t.splits == splits and not t.paging.alone]
    around = False
    for several in (False, True):
        program = first_lowered(graph, [t for t in found if (t.tiles > 1) is several])
        part = program.parts[0]
        tiling = part.plans[0].tiling
        starts = [tiling.layout(p).starts for p in range(tiling.mode.channel_parts)]
        lengths = {int(n) for s in starts for n in np.diff(s)}
        for p, own in enumerate(starts):
            whole = tiling.paging.held(p) * tiling.page_bytes[p]
            around |= any(
                at // whole < (at + n - 1) // whole for at, n in zip(own, tiling._streams.chunks[p].lengths, strict=True)
            )
        assert len(lengths) > 2 and len(part.weights) < 0.95 * max(lengths) * sum(map(len, starts))
        _check(graph, rng, program=program)
    assert around is not kept, "blocks go on from the end of a ring to its begin"


def test_layers_of_different_cuts_follow_each_other(trained: Graph) -> None:
    """Circuits change between layers, and what one layer leaves in locks and memories does not disturb the next."""
    rng, graph = np.random.default_rng(8), trained
    chosen = {}
    cuts = list(Cut)
    for node in graph.nodes:
        layer = conv_layer(graph, node) if isinstance(node.op, Conv) else "none"
        if isinstance(layer, str):
            continue
        _, _, height, width = graph.types[layer.y].shape
        ways = tuple(m for m in modes(NPU.grid) if m.cut is cuts[len(chosen) % len(cuts)])
        chosen[node.name] = ranked(NPU, layer, ways, height, width)[0][1]
    assert len({t.mode.cut for t in chosen.values()}) == len(cuts)
    reasons = {n.name: "it is left to the host" for n in graph.nodes if n.name not in chosen}
    _check(graph, rng, program=lower_with(graph, NPU, chosen, reasons))


def test_blocks_of_zeros_cost_neither_transfers_nor_cycles() -> None:
    """Tiled alike: half of the products, hardly more than half of the weights' bytes, and fewer cycles."""
    runs, weights = {}, {}
    tiling: Tiling | None = None
    for density in (1.0, 0.5):
        rng = np.random.default_rng(5)
        graph = conv_graph(rng, (64, 64), (8, 8), (3, 3), pads=(1, 1, 1, 1), density=density)
        layer = conv_layer(graph, graph.nodes[0])
        assert not isinstance(layer, str)
        ways = tuple(m for m in modes(NPU.grid) if m.chain == 1)
        whole = (t for _, t in ranked(NPU, layer, ways, 8, 8) if t.splits == 1 and t.chunk_blocks == 72)
        tiling = replace(tiling or next(whole), layer=layer)
        program = lower_with(graph, NPU, {"conv": tiling})
        part = program.parts[0]
        assert isinstance(part, ArrayPart)
        weights[density] = len(part.weights)
        runs[density] = _check(graph, rng, program=program)
    macs = {d: sum(r.parts[0].finished.macs(t) for t in NPU.grid.cores()) for d, r in runs.items()}
    assert macs[0.5] == macs[1.0] / 2
    assert weights[0.5] < 0.55 * weights[1.0]
    assert runs[0.5].cycles < runs[1.0].cycles


def test_residuals_of_channels_that_take_one_chunk_or_more() -> None:
    """Channels with few blocks take one chunk, which adds the residual at once; those with many add it to partial sums."""
    rng = np.random.default_rng(6)
    graph = conv_graph(rng, (128, 128), (8, 8), (1, 1), residual=True, zeros=(0, 2, 0))
    weights = graph.constants["w"].copy()
    weights[rng.random(16).repeat(8) < 0.5, 48:] = 0
    graph = replace(graph, constants={**graph.constants, "w": weights})
    layer = conv_layer(graph, graph.nodes[0])
    assert not isinstance(layer, str)
    whole = next(t for _, t in ranked(NPU, layer, modes(NPU.grid), 8, 8) if t.splits == t.mode.chain == 1)
    tiling = replace(whole, chunk_blocks=8)
    assert {tiling.pieces(b) for b in range(16)} == {1, 2}
    _check(graph, rng, program=lower_with(graph, NPU, {"conv": tiling}))


def test_a_trained_network_is_exact(trained: Graph) -> None:
    program = compile_for(trained)
    assert sum(len(p.plans) for p in program.parts if isinstance(p, ArrayPart)) == 11  # with mean and classifier
    _check(trained, np.random.default_rng(0), program=program)


def test_files_are_the_same_each_time() -> None:
    graph = conv_graph(np.random.default_rng(1), (16, 16), (8, 8), (3, 3), pads=(1, 1, 1, 1))
    assert emit(compile_for(graph)) == emit(compile_for(graph))


def test_what_does_not_fit_says_so(tmp_path: Path) -> None:
    graph = conv_graph(np.random.default_rng(1), (2048, 8), (3, 900), (3, 3), shift=16)
    layer = conv_layer(graph, graph.nodes[0])
    assert not isinstance(layer, str)
    with pytest.raises(FitError, match=r"layer 'conv' on aie2:npu1 does not fit: .* the bound is 65,536 bytes of a core"):
        ranked(NPU, layer, modes(NPU.grid), 1, 898)
    small = conv_graph(np.random.default_rng(1), (8, 8), (8, 8))
    lonely = tmp_path / "lonely.toml"
    lonely.write_text('base = "ve2802"\nshim.columns = [5]\n')
    with pytest.raises(FitError, match="8 rows of cores in 38 columns, 1 of which reach DDR, with 2 memory tiles each"):
        compile_for(small, f"aie2:{lonely}")


def test_of_more_rows_four_compute() -> None:
    rng = np.random.default_rng(4)
    graph = conv_graph(rng, (40, 90), (17, 9), (3, 3), pads=(1, 1, 1, 1), residual=True)
    run = _check(graph, rng, "aie2:6x6")
    busy = {t.row for t, core in run.parts[0].finished.array.cores.items() if core.core.products}
    assert busy == {2, 3, 4, 5}


@pytest.mark.parametrize("columns", [2, 3])
def test_of_fewer_columns_than_rows_as_many_rows_compute(columns: int, tmp_path: Path) -> None:
    machine = tmp_path / "narrow.toml"
    machine.write_text(f'base = "npu1"\ncolumns = {columns}\nshim.columns = {list(range(columns))}\n')
    rng = np.random.default_rng(4)
    graph = conv_graph(rng, (40, 90), (17, 9), (3, 3), pads=(1, 1, 1, 1), residual=True)
    run = _check(graph, rng, f"aie2:{machine}")
    busy = {(t.column, t.row) for t, core in run.parts[0].finished.array.cores.items() if core.core.products}
    assert busy == {(c, 2 + r) for c in range(columns) for r in range(columns)}


@pytest.mark.parametrize(
    ("epilogue", "reason"),
    [
        ("add(a0,a1);cast.f32(t0);mul(t1,0.001)", "its result is f32, the array stores bytes and sums"),
        (
            "add(a0,a1);cast.f32(t0);mul(t1,0.001);round(t2);relu(t3);min(t4,255.0);cast.u8(t5)",
            "its scale 0.001 is not a power of two up to 1: quantise with --power-of-two",
        ),
        (
            "add(a0,a1);cast.f32(t0);mul(t1,0.0625);round(t2);add(t3,3.0);relu(t4);min(t5,255.0);cast.u8(t6)",
            "its zero point 3 is odd, and is added before halves are rounded to even: quantise with --power-of-two",
        ),
        (
            "add(a0,a1);cast.f32(t0);mul(t1,0.0625);round(t2);add(t3,300.0);max(t4,290.0);cast.u8(t5)",
            "its activation cuts to 290 .. None, outside of the range of bytes",
        ),
        (
            "add(a0,a1);cast.f32(t0);mul(t1,0.0625);tanh(t2);round(t3);relu(t4);min(t5,255.0);cast.u8(t6)",
            "its epilogue's step tanh(t2) is none that the array has",
        ),
    ],
)
def test_reasons_for_the_host(epilogue: str, reason: str) -> None:
    graph = conv_graph(np.random.default_rng(1), (8, 8), (4, 4))
    node = graph.nodes[0]
    assert isinstance(node.op, Conv)
    op = replace(node.op, epilogue=Program.parse(epilogue))
    types = dict(graph.types)
    types["y"] = op.infer(graph.in_types(node))[0]
    other = Graph(graph.name, graph.inputs, graph.outputs, (replace(node, op=op),), types, graph.constants)
    assert conv_layer(other, other.nodes[0]) == reason
