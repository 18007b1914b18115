"""Layers that follow one another: begun early, and with values that stay in memory tiles, against the interpreter."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from models.byte_layer import ByteConv, chain_graph
from sparsec.backends.aie.lower.choose import candidates
from sparsec.backends.aie.lower.layer import conv_layer
from sparsec.backends.aie.lower.modes import Cut, modes
from sparsec.backends.aie.lower.network import lower_with
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.program import ArrayPart, ArrayProgram
from sparsec.compiler.graph import Graph
from sparsec.compiler.interpreter import interpret
from tests.backends.aie.networks import random_feeds, run_emitted

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


def _check(program: ArrayProgram, graph: Graph, rng: np.random.Generator) -> int:
    feeds = random_feeds(rng, graph)
    with tempfile.TemporaryDirectory() as folder:
        run = run_emitted(program, feeds, Path(folder))
    for name, expected in interpret(graph, feeds).items():
        assert np.array_equal(run.outputs[name], expected)
    return run.cycles


@pytest.mark.parametrize(("cut", "height"), [(Cut.BOTH, 13), (Cut.POSITIONS, 29), (Cut.PAIRS, 9), (Cut.HALVES, 15)])
def test_results_stay_for_the_next_layer(cut: Cut, height: int) -> None:
    """3x3, then 1x1 with the input added, then 1x1: in every cut whose memory tiles the results reach, in one tile and in two."""
    rng = np.random.default_rng(5)
    convs = [ByteConv(0, 64, 3), ByteConv(1, 64, residual=0), ByteConv(2, 64)]
    graph = chain_graph(rng, 64, (height, 7), convs)
    for tiles in (1, 2):
        chosen = {}
        for i in range(3):
            found = [t for t in _ways(graph, i, cut) if t.tiles == tiles]
            chosen[graph.nodes[i].name] = found[(7 * i) % len(found)]
        program = lower_with(graph, NPU, chosen)
        assert [(s.stays, s.leaves) for s in _part(program).staying] == [(True, False), (True, False), (False, True)]
        _check(program, graph, rng)
