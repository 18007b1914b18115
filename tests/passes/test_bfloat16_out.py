"""The pass `bfloat16_out`: what stays in the epilogues of bfloat16 products, and what becomes a node behind them."""

from __future__ import annotations

import numpy as np
import pytest

from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.passes.bfloat16_out import Bfloat16Out
from tests.passes.helpers import graph_of

CONSTANTS = """
w: bf16[16, 8]
b: f32[8]
c: f32[4, 1]
k: bf16[8, 1, 1, 1]
"""


def _product(epilogue: str, dtype: str, inputs: str = "", operands: str = ", %b") -> Graph:
    body = f"""input %x: bf16[1,4,16]
    {inputs}
    %y = MatMul(%x, %w{operands}) {{wide=true, epilogue={epilogue!r}}} -> {dtype}[1,4,8]
    output "y" = %y"""
    return graph_of(body, constants=CONSTANTS)


def _programs(graph: Graph) -> list[str]:
    programs = []
    for node in graph.nodes:
        assert isinstance(node.op, MatMul | Map)
        programs.append(str(node.op.epilogue if isinstance(node.op, MatMul) else node.op.program))
    return programs


R, F = "input %r: bf16[1,4,8]", "input %f: f32[1,4,8]"


@pytest.mark.parametrize(
    ("epilogue", "dtype", "inputs", "operands", "programs"),
    [
        ("", "f32", "", "", ["cast.bf16(a0)", "cast.f32(a0)"]),
        ("add(a0,a1)", "f32", "", ", %b", ["add(a0,a1);cast.bf16(t0)", "cast.f32(a0)"]),
        ("add(a0,a1);relu(t0)", "f32", "", ", %b", ["add(a0,a1);relu(t0);cast.bf16(t1)", "cast.f32(a0)"]),
        (
            "add(a0,a1);gelu(t0);cast.bf16(t1)",
            "bf16",
            "",
            ", %b",
            ["add(a0,a1);cast.bf16(t0)", "cast.f32(a0);gelu(t0);cast.bf16(t1)"],
        ),
        (
            "cast.f32(a2);add(a0,a1);add(t1,t0);tanh(t2)",
            "f32",
            R,
            ", %b, %r",
            ["cast.f32(a2);add(a0,a1);add(t1,t0);cast.bf16(t2)", "cast.f32(a0);tanh(t0)"],
        ),
        ("add(a0,a2);add(t0,a1)", "f32", F, ", %f, %b", ["add(a0,a1);cast.bf16(t0)", "cast.f32(a0);add(t0,a1)"]),
        (
            "add(a0,a1);sigmoid(t0);mul(t0,t1)",
            "f32",
            "",
            ", %b",
            ["add(a0,a1);cast.bf16(t0)", "cast.f32(a0);sigmoid(t0);mul(t0,t1)"],
        ),
        ("add(a0,a1)", "f32", "", ", %c", ["cast.bf16(a0)", "cast.f32(a0);add(t0,a1)"]),
        ("mul(a0,2.0);add(t0,a1)", "f32", "", ", %b", ["cast.bf16(a0)", "cast.f32(a0);mul(t0,2.0);add(t1,a1)"]),
    ],
)
def test_what_stays_and_what_follows(epilogue: str, dtype: str, inputs: str, operands: str, programs: list[str]) -> None:
    """Bias, a bfloat16 residual and bounds stay, nothing else; values are those of the graph before, rounded where it is cut."""
    graph = _product(epilogue, dtype, inputs, operands)
    after = run_pipeline(graph, (Bfloat16Out(),))
    assert _programs(after) == programs
    assert after.types[after.nodes[0].output].dtype is DType.BF16
    rng = np.random.default_rng(1)
    feeds = {v: rng.normal(0, 1, graph.types[v].shape).astype(graph.types[v].dtype.numpy) for v in graph.inputs}
    before, now = (interpret(g, feeds)["y"].astype(np.float64) for g in (graph, after))
    assert np.abs(now - before).max() <= 2.0**-6 * max(1.0, np.abs(before).max())


def test_what_ends_with_the_rounding_stays_as_it_is() -> None:
    graph = _product("add(a0,a1);relu(t0);cast.bf16(t1)", "bf16")
    assert run_pipeline(graph, (Bfloat16Out(),)) == graph


def test_depthwise_products_are_rounded_as_others_are() -> None:
    conv = "{strides=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0), groups=8, wide=true} -> f32[1,8,3,3]"
    graph = graph_of(f'input %x: bf16[1,8,3,3]\n%y = Conv(%x, %k) {conv}\noutput "y" = %y', constants=CONSTANTS)
    first, second = run_pipeline(graph, (Bfloat16Out(),)).nodes
    assert isinstance(first.op, Conv) and str(first.op.epilogue) == "cast.bf16(a0)"
    assert isinstance(second.op, Map) and str(second.op.program) == "cast.f32(a0)"


@pytest.mark.parametrize(("groups", "kept"), [(8, "div(a0,9.0);cast.bf16(t0)"), (1, "cast.bf16(a0)")])
def test_sums_of_one_channel_may_be_divided(groups: int, kept: str) -> None:
    conv = f"{{strides=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0), groups={groups}, wide=true, epilogue='div(a0,9.0)'}}"
    text = f'input %x: bf16[1,{groups},3,3]\n%y = Conv(%x, %k) {conv} -> f32[1,8,3,3]\noutput "y" = %y'
    first = run_pipeline(graph_of(text, constants=CONSTANTS), (Bfloat16Out(),)).nodes[0]
    assert isinstance(first.op, Conv) and str(first.op.epilogue) == kept


def test_a_sum_of_two_products_is_read_as_bfloat16() -> None:
    """The first is rounded as it ends, and the second adds it, as where a block's shortcut has a product of its own."""
    body = """input %x: bf16[1,4,16]
    %p = MatMul(%x, %w, %b) {wide=true, epilogue='add(a0,a1)'} -> f32[1,4,8]
    %y = MatMul(%x, %w, %b, %p) {wide=true, epilogue='add(a0,a1);add(t0,a2);relu(t1)'} -> f32[1,4,8]
    output "y" = %y"""
    before = graph_of(body, constants=CONSTANTS)
    after = run_pipeline(before, (Bfloat16Out(),))
    assert [type(n.op) for n in after.nodes] == [MatMul, MatMul, Map]
    assert after.types[after.nodes[1].inputs[3]].dtype is DType.BF16
    assert _programs(after)[1] == "cast.f32(a2);add(a0,a1);add(t1,t0);relu(t2);cast.bf16(t3)"
    feeds = {"x": np.random.default_rng(0).normal(0, 1, (1, 4, 16)).astype(DType.BF16.numpy)}
    found, wanted = interpret(after, feeds)["y"], interpret(before, feeds)["y"]
    assert np.allclose(found, wanted, rtol=2.0**-7, atol=2.0**-5)
