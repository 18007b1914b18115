"""Layers of bfloat16 on the array: emitted files, executed, against the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from sparsec.backends.aie.core.assembly import assemble, disassemble
from sparsec.backends.aie.core.program import Kind, core_program, core_text, entries
from sparsec.backends.aie.lower.choose import candidates, ranked
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.modes import modes
from sparsec.backends.aie.lower.network import lower_with
from sparsec.backends.aie.lower.reading import layer_of
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.program import ArrayPart
from sparsec.backends.aie.tolerance import compare
from sparsec.compiler.graph import Graph
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.scalar import Program
from tests.backends.aie.bfloat16_layers import convolution, equal, feeds_of, maximum, mean, product, run
from tests.backends.aie.networks import compile_for

NPU = machine_named("aie2:npu1")


def _layer(graph: Graph) -> ConvLayer:
    layer = layer_of(graph, graph.nodes[0])
    assert not isinstance(layer, str), layer
    return layer


def test_tilings_far_apart_are_exact() -> None:
    """Weights that stay or not, parts of input channels, sums in parts, one and two buffers, many tiles and one."""
    rng = np.random.default_rng(3)
    graph = convolution(rng, (64, 24), (8, 8), (1, 1), residual=True, cut="relu(t-1)")
    found = list(candidates(NPU, _layer(graph), modes(NPU.grid), 8, 8))
    kinds = {(t.kept, t.splits > 1, min(t.tiles, 2), t.in_parts): t for t in found}
    assert len(kinds) > 6
    for tiling in list(kinds.values())[:: len(kinds) // 3]:
        equal(graph, rng, lower_with(graph, NPU, {"layer": tiling}))


def test_real_numbers_are_within_the_bound_of_their_sums() -> None:
    rng = np.random.default_rng(8)
    graph = product(rng, (32, 512, 32), residual=True, whole=False)
    feeds = feeds_of(rng, graph, whole=False)
    ran = run(graph, feeds)
    made = compare(graph, graph.nodes[0], ran.values, ran.outputs["y"])
    assert made.close
    assert made.differing < 0.05  # most sums round to the same bfloat16 in any order
    wrong = ran.outputs["y"].copy()
    wrong[0, 3, 5] += np.float32(2) * np.float32(2.0**-7) * abs(wrong[0, 3, 5])
    assert not compare(graph, graph.nodes[0], ran.values, wrong).close
    wrong[0, 3, 5] = np.nan
    assert not compare(graph, graph.nodes[0], ran.values, wrong).close


def test_blocks_of_zeros_are_neither_stored_nor_multiplied() -> None:
    """Tiled alike, with all inputs at a time: products and bytes follow the blocks that are there, and cycles fall."""
    runs, tiling = {}, None
    for density in (1.0, 0.5):
        rng = np.random.default_rng(5)
        graph = product(rng, (64, 256, 64), density=density)
        layer = _layer(graph)
        share = sum(layer.block_counts) / layer.all_blocks
        ways = ranked(NPU, layer, modes(NPU.grid), 8, 8)
        tiling = replace(tiling or next(t for _, t in ways if t.splits == t.mode.chain == 1), layer=layer)
        program = lower_with(graph, NPU, {"layer": tiling})
        part = program.parts[0]
        assert isinstance(part, ArrayPart)
        ran = equal(graph, rng, program)
        macs = sum(ran.parts[0].finished.macs(t) for t in NPU.grid.cores())
        runs[density] = macs / share, len(part.weights), ran.cycles
    assert runs[0.5][0] == pytest.approx(runs[1.0][0], rel=0.15)  # blocks come in pairs
    assert runs[0.5][1] < 0.85 * runs[1.0][1]  # chunks are as long as the longest
    assert runs[0.5][2] < runs[1.0][2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("add(a0,a1)", "its result is f32, and the array stores bfloat16 where it multiplies that"),
        ("add(a0,a1);gelu(t0);cast.bf16(t1)", "its epilogue's step gelu(t0) is none that the array has behind sums of bfloat16"),
        ("div(a0,3.0);add(t0,a1);cast.bf16(t1)", "its epilogue's step div(a0,3.0) is none that the array has behind sums"),
        ("mul(a0,2.0);add(t0,a1);cast.bf16(t1)", "its epilogue's step mul(a0,2.0) is none that the array has behind sums"),
        ("add(a0,a1);cast.bf16(t0);cast.f32(t1);relu(t2);cast.bf16(t3)", "it does more to its result than to round it"),
        ("add(a0,a1);min(t0,6.0);relu(t1);cast.bf16(t2)", "its epilogue's step relu(t1) is none that the array has"),
    ],
)
def test_reasons_for_the_host(text: str, reason: str) -> None:
    graph = convolution(np.random.default_rng(1), (8, 8), (4, 4))
    node = graph.nodes[0]
    assert isinstance(node.op, Conv)
    op = replace(node.op, epilogue=Program.parse(text))
    types = dict(graph.types) | {"y": op.infer(graph.in_types(node))[0]}
    other = Graph(graph.name, graph.inputs, graph.outputs, (replace(node, op=op),), types, graph.constants)
    found = layer_of(other, other.nodes[0])
    assert isinstance(found, str)
    assert found.startswith(reason)


def test_means_are_within_the_bound_of_two_summands_of_the_reciprocal() -> None:
    """49 positions, on real numbers; weights are twice as many as positions, and one result off by more than that is found."""
    rng = np.random.default_rng(6)
    graph = mean(160, 7)
    feeds = feeds_of(rng, graph, whole=False)
    program = compile_for(graph)
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    assert [(p.layer.fan, p.layer.block_counts[0]) for p in part.plans] == [(16, 98), (4, 98)]
    ran = run(graph, feeds, program)
    made = compare(graph, graph.nodes[0], ran.values, ran.outputs["y"])
    assert made.close and made.differing < 0.05
    wrong = ran.outputs["y"].copy()
    at = int(abs(wrong.astype(np.float32)).argmax())
    wrong.reshape(-1)[at] += np.float32(2.0**-6) * abs(wrong.reshape(-1)[at])
    assert not compare(graph, graph.nodes[0], ran.values, wrong).close


def test_means_of_powers_of_two_take_one_weight_a_position() -> None:
    graph = mean(24, 4)
    program = compile_for(graph)
    (part,) = program.parts
    assert isinstance(part, ArrayPart) and part.plans[0].layer.block_counts[0] == 16
    equal(graph, np.random.default_rng(7), program)


def test_a_maximum_that_is_off_is_found() -> None:
    graph = maximum((1, 8, 6, 6), (3, 3), 1, (1, 1, 1, 1))
    feeds = feeds_of(np.random.default_rng(8), graph, whole=False)
    right = interpret(graph, feeds)["y"]
    assert compare(graph, graph.nodes[0], feeds, right).close
    wrong = right.copy()
    wrong[0, 1, 2, 3] = np.nextafter(np.float32(wrong[0, 1, 2, 3]), np.float32(np.inf)) + np.float32(0.01)
    assert not compare(graph, graph.nodes[0], feeds, wrong).close


def test_the_programs_text_assembles_to_its_bytes(golden: Callable[[str, str], None]) -> None:
    kinds = [
        Kind(bfloat16=True, residual=True, cuts=(True, True)),
        *(Kind(bfloat16=True, starts_partial=a, ends_partial=b) for a, b in ((False, True), (True, True), (True, False))),
    ]
    program = core_program(kinds, 0xFE80, 16384)
    assert assemble(core_text(kinds, 0xFE80)) == program == assemble(disassemble(program))
    text = disassemble(core_program(kinds[:1], 0xFE80, 16384)).splitlines(keepends=True)
    golden("aie/core_bf16.s", "".join(text[entries(tuple(kinds))[0] :]))
