"""Products of two computed tensors on the array: emitted files, executed, against the interpreter; what does not fit, and why."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.aie.emit import emit
from sparsec.backends.aie.lower.reading import layer_of
from sparsec.backends.aie.mlir import part_text
from sparsec.backends.aie.program import ArrayPart, ArrayProgram
from sparsec.backends.aie.simulate.model import ModelRun
from sparsec.backends.aie.tolerance import compare
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node, Port
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.attention import Attention
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.passing.pipeline import parse_pipeline
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType
from sparsec.passes.pipelines import PIPELINES
from sparsec.passes.registry import load_all
from tests.backends.aie.bfloat16_layers import epilogue, numbers
from tests.backends.aie.mlir_reader import misfits, parse
from tests.backends.aie.networks import compile_for, run_emitted

Array = np.ndarray[Any, Any]
BF16 = DType.BF16
ROUNDED = Program.parse("cast.bf16(a0)")


def pair(x: tuple[int, ...], w: tuple[int, ...], *, turned: bool = False, bias: bool = False, residual: bool = False) -> Graph:
    """A product of two inputs [..., M, K] and [..., K, N], or [..., N, K] where it is turned."""
    program = epilogue(residual, "") if bias else ROUNDED
    m, n = x[-2], w[-2 if turned else -1]
    y = (*x[:-2], m, n)
    types = {"x": TensorType(BF16, x), "w": TensorType(BF16, w), "y": TensorType(BF16, y)}
    constants: dict[str, Array] = {}
    inputs = ["x", "w"]
    if bias:
        constants["b"] = np.arange(n, dtype=np.float32) - 3
        types["b"] = TensorType(DType.F32, (n,))
    if residual:
        types["r"] = types["y"]
        inputs.append("r")
    read = ("x", "w", *(["b"] if bias else []), *(["r"] if residual else []))
    node = Node("layer", MatMul(trans_b=turned, epilogue=program, wide=True), read, ("y",), ("layer",))
    return Graph("net", tuple(inputs), (Port("y", "y"),), (node,), types, constants)


def run(program: ArrayProgram, feeds: dict[str, Array]) -> ModelRun:
    """Execute the emitted files."""
    with tempfile.TemporaryDirectory() as folder:
        return run_emitted(program, feeds, Path(folder))


def exact(graph: Graph, seed: int = 0, target: str = "aie2:npu1") -> ArrayProgram:
    """Whole numbers: all of it on the array, and the interpreter's to the last bit."""
    rng = np.random.default_rng(seed)
    program = compile_for(graph, target)
    feeds = {v: numbers(rng, graph.types[v].shape, True) for v in graph.inputs}
    ran = run(program, feeds)
    assert all(isinstance(p, ArrayPart) for p in program.parts), program.reasons
    assert np.array_equal(ran.outputs["y"], interpret(graph, feeds)["y"])
    return program


def test_heads_of_one_tile_wait_for_no_residual_behind_more_data_than_cores_hold() -> None:
    """Three heads, two buffers: as units they would wait for a residual that comes behind the third."""
    exact(pair((3, 47, 1), (3, 1, 1), bias=True, residual=True))
    exact(pair((2, 47, 8), (2, 8, 8), bias=True, residual=True))


def test_residuals_do_not_come_between_frames_and_computed_blocks() -> None:
    """Streams of weights that bring residuals send pages as they are; those with computed blocks are put together."""
    for m, n in ((2, 9), (4, 17)):
        program = exact(pair((1, m, 4), (1, 4, n), bias=True, residual=True), target="aie2:2x2")
        (part,) = program.parts
        assert isinstance(part, ArrayPart)
        assert not any(p.tiling.mode.own for p in part.plans)


@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_any_product_of_whole_numbers_is_exact(data: st.DataObject) -> None:
    draw = data.draw
    heads, m, k, n = (draw(st.integers(1, most)) for most in (6, 50, 70, 70))
    turned, flat = draw(st.booleans()), draw(st.booleans())
    lead = () if flat else (heads,)
    bias = draw(st.booleans())
    residual = bias and draw(st.booleans())
    graph = pair((*lead, m, k), (*lead, n, k) if turned else (*lead, k, n), turned=turned, bias=bias, residual=residual)
    exact(graph, draw(st.integers(0, 99)), draw(st.sampled_from(["aie2:2x2", "aie2:npu1"])))


@pytest.mark.parametrize("turned", [False, True])
def test_real_numbers_are_within_the_bound_of_their_sums(turned: bool) -> None:
    graph = pair((4, 32, 40), (4, 24, 40) if turned else (4, 40, 24), turned=turned)
    rng = np.random.default_rng(1)
    feeds = {v: numbers(rng, graph.types[v].shape, False) for v in graph.inputs}
    ran = run(compile_for(graph), feeds)
    assert compare(graph, graph.nodes[0], feeds, ran.outputs["y"]).close


def test_heads_are_units_of_a_core() -> None:
    """Data of one head are multiplied while those of the next one come: sums of a chunk are whole, in one kind of product."""
    program = exact(pair((6, 128, 48), (6, 128, 48), turned=True))
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    (plan,) = part.plans
    assert plan.tiling.splits == 6 and not plan.tiling.in_parts
    assert len(plan.weights) == 6 * 16 * plan.tiling.frame_bytes  # no blocks are there


def test_many_positions_are_made_in_parts_of_the_heads() -> None:
    """More results than a lock counts: some heads after the others, each of which is a layer of its own."""
    program = compile_for(pair((8, 512, 16), (8, 512, 16), turned=True), "aie2:2x2")
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    first = [p.layer.computed for p in part.plans]
    assert len(first) > 1 and all(c is not None for c in first)
    assert sum(p.layer.macs(program.graph) for p in part.plans) == 8 * 512 * 512 * 16


def test_positions_that_are_no_rows_are_made_head_by_head() -> None:
    """197 positions are one row, and 25 blocks of results of a head no multiple of cores: at once, one core would make all."""
    program = exact(pair((3, 197, 64), (3, 197, 64), turned=True))
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    assert [(p.layer.computed.first, p.layer.computed.heads) for p in part.plans if p.layer.computed] == [(0, 1), (1, 1), (2, 1)]


@pytest.mark.parametrize("turned", [False, True])
def test_residuals_and_biases_are_added(turned: bool) -> None:
    exact(pair((4, 16, 24), (4, 32, 24) if turned else (4, 24, 32), turned=turned, bias=True, residual=True))


def test_streams_are_valid_mlir_and_manifest_names_the_tensor() -> None:
    program = compile_for(pair((2, 16, 16), (2, 16, 16)))
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    text = part_text(program.machine, part.control, (len(part.weights), program.activation_bytes), {})
    assert text is not None
    assert not list(misfits(parse(text)))
    manifest = json.loads(emit(program)["manifest.json"])
    assert manifest["parts"][0]["layers"][0]["weights_from"] == "w"
    assert manifest["parts"][0]["inputs"] == ["x", "w"]


def _attention(heads: int, positions: int, width: int, mask: bool) -> Graph:
    """Products that make queries, keys and values of x, attention, and a product behind it: float32, as a model has it."""
    channels, rng = heads * width, np.random.default_rng(heads)
    types = {v: TensorType(DType.F32, (1, positions, channels)) for v in ("x", "q", "k", "v", "a", "y")}
    constants = {f"w{v}": (rng.normal(0, 1, (channels, channels)) / channels**0.5).astype(np.float32) for v in "qkvy"}
    types |= {name: TensorType(DType.F32, w.shape) for name, w in constants.items()}
    inputs, read = ("x",), ("q", "k", "v")
    if mask:
        types["mask"] = TensorType(DType.F32, (1, 1, 1, positions))
        inputs, read = ("x", "mask"), (*read, "mask")
    nodes = [Node(v, MatMul(), ("x", f"w{v}"), (v,), (v,)) for v in "qkv"]
    nodes.append(Node("attention", Attention(heads, heads, width**-0.5), read, ("a",), ("attention",)))
    nodes.append(Node("y", MatMul(), ("a", "wy"), ("y",), ("y",)))
    return Graph("net", inputs, (Port("y", "y"),), tuple(nodes), types, constants)


@pytest.mark.parametrize(
    ("heads", "positions", "width", "views", "target"), [(2, 21, 24, 8, "aie2:npu1"), (3, 16, 12, 0, "aie2:2x2")]
)
def test_attention_block(heads: int, positions: int, width: int, views: int, target: str) -> None:
    """Six products on the array, softmax on the host; heads of whole blocks of channels are views."""
    graph = _attention(heads, positions, width, mask=True)
    passes = parse_pipeline("default,head_products,bfloat16_pairs,bfloat16_out", load_all(), PIPELINES)
    made = run_pipeline(graph, passes)
    program = compile_for(made, target)
    rng = np.random.default_rng(5)
    feeds = {"x": rng.normal(0, 1, (1, positions, heads * width)).astype(np.float32)}
    feeds["mask"] = np.where(np.arange(positions) < positions - 5, 0, -1e9).astype(np.float32).reshape(1, 1, 1, -1)
    ran = run(program, feeds)
    parts = [p for p in program.parts if isinstance(p, ArrayPart)]
    assert sum(len(p.plans) for p in parts) == 6
    assert sum(len(p.views) for p in parts) == views
    for node in (n for n in made if isinstance(n.op, MatMul)):
        assert compare(made, node, ran.values, ran.values[node.output]).close
    wanted = interpret(graph, feeds)["y"]
    assert np.abs(ran.outputs["y"] - wanted).max() < 0.05 * np.abs(wanted).max()


def _reason(graph: Graph) -> str:
    found = layer_of(graph, graph.nodes[0])
    assert isinstance(found, str)
    return found


def test_what_is_no_product_of_as_many_matrices_says_so() -> None:
    whole = pair((2, 16, 16), (2, 16, 16))
    turned = Node("layer", MatMul(trans_a=True, epilogue=ROUNDED, wide=True), ("x", "w"), ("y",), ("layer",))
    odd = Graph("net", whole.inputs, whole.outputs, (turned,), whole.types, {})
    assert _reason(odd) == "it multiplies [2, 16, 16] transposed by [2, 16, 16], not as many matrices by as many"
    shared = pair((2, 16, 16), (16, 16))
    assert _reason(shared) == "it multiplies [2, 16, 16] by [16, 16], not as many matrices by as many"
    floats = {v: TensorType(DType.F32, t.shape) for v, t in whole.types.items()}
    plain = Node("layer", MatMul(), ("x", "w"), ("y",), ("layer",))
    made = Graph("net", whole.inputs, whole.outputs, (plain,), floats, {})
    assert _reason(made) == "it multiplies f32 by computed f32, and the array computed tensors of bfloat16"


def test_what_does_not_fit_goes_to_the_host_with_demand_bound_and_remedy() -> None:
    program = compile_for(pair((16, 4096), (4096, 16)))
    assert not any(isinstance(p, ArrayPart) for p in program.parts)
    assert "does not fit" in program.reasons["layer"] and "blocks of one chunk" in program.reasons["layer"]


def test_weights_whose_rows_have_gaps_go_to_the_host() -> None:
    """A tensor by itself, transposed: as data its rows of 5 positions are read up to 8."""
    whole = pair((25, 16), (25, 16), turned=True)
    node = Node("layer", whole.nodes[0].op, ("x", "x"), ("y",), ("layer",))
    program = compile_for(Graph("net", ("x",), whole.outputs, (node,), whole.types, {}))
    assert "the computed weights 'x' of layer 'layer'" in program.reasons["layer"]
    assert "multiply a copy of it" in program.reasons["layer"]
    exact(Graph("net", ("x",), whole.outputs, (node,), pair((64, 16), (64, 16), turned=True).types, {}))
