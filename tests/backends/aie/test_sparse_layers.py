"""Layers whose weights are 2:4: sparse products against the interpreter, what they save, and streams that break the pattern."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from models.byte_layer import ByteConv, chain_graph, conv_graph
from sparsec.backends.aie.core.sparse_b import PAIR_BYTES, compress, expand
from sparsec.backends.aie.emit import emit
from sparsec.backends.aie.lower.choose import candidates
from sparsec.backends.aie.lower.modes import Cut, modes
from sparsec.backends.aie.lower.network import lower_with
from sparsec.backends.aie.lower.reading import conv_layer
from sparsec.backends.aie.lower.sparse import told_products
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.program import ArrayPart, ArrayProgram
from sparsec.backends.aie.simulate.model import ArrayModel
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError, StreamError, UsageError
from sparsec.compiler.graph import Graph, Node, Port
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType
from tests.backends.aie.networks import check_run, compile_for, first_lowered, random_feeds

Array = np.ndarray[Any, Any]
NPU = machine_named("aie2:npu1")


def _ways(graph: Graph, cut: Cut | None = None) -> list[Tiling]:
    """All ways to compute its only layer by sparse products."""
    layer = conv_layer(graph, graph.nodes[0])
    assert not isinstance(layer, str)
    _, _, height, width = graph.types["y"].shape
    ways = tuple(m for m in modes(NPU.grid) if cut in (None, m.cut))
    return list(candidates(NPU, layer, ways, height, width, sparse=True))


def _tiling(program: ArrayProgram) -> Tiling:
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    return part.plans[0].tiling


@settings(max_examples=4, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(data=st.data())
def test_any_way_is_exact(data: st.DataObject) -> None:
    """Any size, kernel and stride; with blocks that are zero, a residual, sums in parts."""
    draw = data.draw
    kernel, stride = draw(st.sampled_from([1, 2, 3])), draw(st.integers(1, 2))
    size = draw(st.integers(kernel, 9)), draw(st.integers(kernel, 17))
    channels = draw(st.sampled_from([(16, 64), (61, 128), (128, 64)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    graph = conv_graph(
        rng,
        channels,
        size,
        (kernel, kernel),
        stride=stride,
        pads=(kernel // 2,) * 4,
        residual=draw(st.booleans()),
        zeros=(2 * draw(st.integers(0, 127)), 4, 6),
        shift=12,
        density=draw(st.sampled_from([1.0, 0.3])),
        of_four=draw(st.integers(1, 2)),
    )
    found = _ways(graph)
    first = draw(st.integers(0, len(found) - 1))
    check_run(first_lowered(graph, [*found[first:], *found[:first]]), graph, rng)


@pytest.mark.parametrize("sparse", [False, True])
def test_planes_come_in_parts(sparse: bool) -> None:
    """With a stride, blocks of channels of a tile are in cores as soon as they come, each with all of its planes; pairs of blocks
    are in one part."""
    rng = np.random.default_rng(11)
    graph = conv_graph(rng, (128, 64), (13, 15), (3, 3), stride=2, pads=(1, 1, 1, 1), density=0.5, of_four=2)
    layer = conv_layer(graph, graph.nodes[0])
    assert not isinstance(layer, str)
    ways = candidates(NPU, layer, modes(NPU.grid), *graph.types["y"].shape[2:], sparse=sparse)
    found = [t for t in ways if t.parts > t.splits]
    assert all(t.source.blocks // t.parts % (2 if sparse else 1) == 0 for t in found)
    for chain in sorted({t.mode.chain for t in found}):
        check_run(first_lowered(graph, [t for t in found if t.mode.chain == chain]), graph, rng)


@pytest.mark.parametrize("cut", list(Cut))
def test_sums_in_parts_of_every_cut(cut: Cut) -> None:
    rng = np.random.default_rng(2)
    graph = conv_graph(rng, (128, 256), (5, 5), shift=12, of_four=2)
    found = [t for t in _ways(graph, cut) if t.splits > 1]
    found.sort(key=lambda t: (-t.groups, t.tiles))
    kept = cut in (Cut.BOTH, Cut.PAIRS)
    check_run(first_lowered(graph, [t for t in found if t.kept is kept]), graph, rng)


def test_sums_leave_as_they_are() -> None:
    """Of a product of rows by a matrix, in one part and in several."""
    rng = np.random.default_rng(4)
    w = conv_graph(rng, (256, 64), (1, 1), of_four=2).constants["w"].reshape(64, 256)
    bias = rng.integers(-(2**30), 2**30, 64).astype(np.int32)
    op = MatMul(trans_b=True, epilogue=Program.parse("add(a0,a1)"), zero=3)
    types = {"x": TensorType(DType.U8, (12, 256)), "w": TensorType(DType.I8, w.shape), "b": TensorType(DType.I32, bias.shape)}
    types["y"] = op.infer([types[v] for v in "xwb"])[0]
    node = Node("conv", op, ("x", "w", "b"), ("y",), ("conv",))
    graph = Graph("g", ("x",), (Port("y", "y"),), (node,), types, {"w": w, "b": bias})
    program = compile_for(graph)
    tiling = _tiling(program)
    assert tiling.sparse and tiling.layer.wide
    check_run(program, graph, rng)
    check_run(first_lowered(graph, [replace(tiling, splits=2, chunk_blocks=8, buffers=1, groups=1, kept=False)]), graph, rng)


def test_activations_cut_within_the_range_of_bytes() -> None:
    rng = np.random.default_rng(5)
    graph = conv_graph(rng, (64, 64), (9, 9), (3, 3), pads=(1, 1, 1, 1), of_four=2)
    node = graph.nodes[0]
    assert isinstance(node.op, Conv)
    text = "add(a0,a1);cast.f32(t0);mul(t1,0.001953125);round(t2);max(t3,17.0);min(t4,90.0);cast.u8(t5)"
    graph = replace(graph, nodes=(replace(node, op=replace(node.op, epilogue=Program.parse(text))),))
    program = compile_for(graph)
    assert _tiling(program).sparse
    check_run(program, graph, rng)


def test_two_of_four_take_fewer_bytes_and_cycles(tmp_path: Path) -> None:
    """A mask and 64 bytes for 128, and half of the products."""
    made = {}
    for kept in (4, 2):
        rng = np.random.default_rng(7)
        graph = conv_graph(rng, (128, 128), (28, 28), (3, 3), pads=(1, 1, 1, 1), shift=13, of_four=kept)
        program = compile_for(graph)
        tiling = _tiling(program)
        assert tiling.sparse == (kept == 2)
        (part,) = program.parts
        assert isinstance(part, ArrayPart)
        run = _run(program, graph, tmp_path)
        macs = sum(run.parts[0].finished.macs(tile) for tile in NPU.grid.cores())
        made[kept] = len(part.weights), run.cycles, macs
    assert 0.55 < made[2][0] / made[4][0] < 0.75
    assert 0.5 <= made[2][2] / made[4][2] < 0.6
    assert made[2][1] < 0.8 * made[4][1]


def test_operands_that_are_zero_are_left_out() -> None:
    """Where both blocks of output channels that a chunk makes have none."""
    rng = np.random.default_rng(8)
    graph = conv_graph(rng, (128, 64), (8, 8), of_four=2)
    w = graph.constants["w"].copy()
    w[:, 16:32], w[8:16, 48:64] = 0, 0
    graph = replace(graph, constants={**graph.constants, "w": w})
    tiling = next(t for t in _ways(graph, Cut.BOTH) if t.splits == 1)
    assert tiling.made_by(1) == (1, 5)
    assert tiling.counts[:, 0].tolist() == [7, 7, 7, 7]
    check_run(first_lowered(graph, [tiling]), graph, rng)


def test_results_stay_for_the_next_layer() -> None:
    """Layers with sparse products between ones with dense products: each begins early, and reads what stays in memory tiles."""
    rng = np.random.default_rng(5)
    convs = [ByteConv(0, 64, 3), ByteConv(1, 64), ByteConv(2, 64, residual=0), ByteConv(3, 64)]
    graph = chain_graph(rng, 64, (9, 7), convs, of_four=2)
    chosen = {}
    for i, node in enumerate(graph.nodes):
        layer = conv_layer(graph, node)
        assert not isinstance(layer, str)
        ways = tuple(m for m in modes(NPU.grid) if m.cut is Cut.BOTH and m.streams == 1)
        found = candidates(NPU, layer, ways, 9, 7, sparse=i > 0)
        chosen[node.name] = next(t for t in found if t.tiles == 1)
    program = lower_with(graph, NPU, chosen)
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    assert [p.tiling.sparse for p in part.plans] == [False, True, True, True]
    assert [s.stays for s in part.staying] == [True, True, True, False]
    check_run(program, graph, rng)


@pytest.mark.parametrize(
    ("channels", "of_four", "why"),
    [
        ((128, 128), 3, ""),
        ((128, 72), 2, "9 blocks of 8 output channels are no pairs for each of "),
        ((24, 64), 2, ""),
    ],
)
def test_what_dense_products_compute(channels: tuple[int, int], of_four: int, why: str) -> None:
    graph = conv_graph(np.random.default_rng(9), channels, (8, 8), of_four=of_four)
    tiling = _tiling(compile_for(graph))
    assert not tiling.sparse
    assert why in told_products(tiling)


def test_what_sparse_products_compute_is_told() -> None:
    graph = conv_graph(np.random.default_rng(9), (256, 128), (14, 14), (3, 3), of_four=2)
    tiling = _tiling(compile_for(graph))
    assert told_products(tiling) == "sparse-B products of 4 x 16 x 8, as two of every four weights are zeros"
    told = told_products(replace(tiling, sparse=False))
    assert told == "dense products, though two of every four weights are zeros: cheaper by the model"


def _files(program: ArrayProgram, folder: Path) -> None:
    for name, data in emit(program).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _run(program: ArrayProgram, graph: Graph, folder: Path) -> Any:
    _files(program, folder)
    feeds = random_feeds(np.random.default_rng(1), graph)
    run = ArrayModel(folder).run(feeds, lambda _: pytest.fail("nothing is the host's"))
    assert np.array_equal(run.outputs["y"], interpret(graph, feeds)["y"])
    return run


def test_a_stream_that_breaks_the_pattern_is_an_error(tmp_path: Path) -> None:
    """A mask with a bit more than was packed: which mask, where in the core's program, and when."""
    graph = conv_graph(np.random.default_rng(3), (64, 64), (8, 8), of_four=2)
    program = _broken(compile_for(graph))
    with pytest.raises(StreamError) as caught:
        _run(program, graph, tmp_path)
    assert "a mask of sparse B marks 3 of the four values of column 0 from k = 0 on, and 2 is the most" in str(caught.value)
    assert "bundle" in str(caught.value) and "cycle" in str(caught.value)


def _broken(program: ArrayProgram) -> ArrayProgram:
    """With three values marked in the first mask of the weights."""
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    tiling = part.plans[0].tiling
    assert tiling.sparse
    weights = bytearray(part.weights)
    weights[tiling.chunk_start] |= 0b111
    return replace(program, parts=(replace(part, weights=bytes(weights)),))


@given(seed=st.integers(0, 999), kept=st.integers(0, 2), wide=st.booleans())
def test_what_is_compressed_is_expanded(seed: int, kept: int, wide: bool) -> None:
    rng = np.random.default_rng(seed)
    dtype, columns = (np.int16, 4) if wide else (np.int8, 8)
    groups = rng.integers(1, 120, (3, 2, columns, 4, 4)).astype(dtype)
    groups[np.argsort(rng.random(groups.shape), axis=-1) >= kept] = 0
    operands = np.moveaxis(groups.reshape(3, 2, columns, 16), -1, -2)
    masks, values = compress(operands)
    assert masks.shape == (3, 2, 16) and values.shape == (3, 2, 64)
    assert np.array_equal(expand(masks, values, dtype), operands)


def test_masks_and_values_of_an_operand() -> None:
    """Column by column, two of every four: what is not zero, and zeros that fill up."""
    operand = np.zeros((16, 8), np.int8)
    operand[[1, 3], 0], operand[6, 0], operand[12:14, 7] = (5, -6), 7, (8, 9)
    masks, values = compress(operand)
    assert masks.tolist() == [0b0101_1010, 0b0011_0011, *[0b0011_0011] * 13, 0b0011_0011]
    assert values.view(np.int8).tolist() == [5, -6, 0, 7, *[0] * 58, 8, 9]


def test_weights_that_are_not_two_of_four_are_no_operand() -> None:
    operand = np.zeros((2, 16, 8), np.int8)
    operand[1, 8:11, 3] = 1
    with pytest.raises(
        UsageError, match="column 3 of a sparse B operand has 3 values that are not zero among the four from k = 8"
    ):
        compress(operand)


def test_masks_mark_both_bytes_of_a_value() -> None:
    masks, values = compress(np.ones((16, 4), np.int16) * (np.arange(16) % 2)[:, None].astype(np.int16))
    masks[3] ^= 1
    with pytest.raises(ModelError, match="a mask of sparse B marks one byte of a value and not the other: "):
        expand(masks, values, np.int16)
    assert PAIR_BYTES == 160
