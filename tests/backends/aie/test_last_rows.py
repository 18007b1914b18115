"""Tiles whose last rows are no results: cores multiply as few vectors as there are rows, in every cut and kind of product."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from models.byte_layer import ByteConv, chain_graph, conv_graph
from sparsec.backends.aie.lower.choose import candidates
from sparsec.backends.aie.lower.cost import compute_cycles
from sparsec.backends.aie.lower.geometry import plane
from sparsec.backends.aie.lower.modes import Cut, modes
from sparsec.backends.aie.lower.network import lower_with
from sparsec.backends.aie.lower.reading import layer_of
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.simulate.report import LayerCycles
from sparsec.compiler.graph import Graph
from tests.backends.aie import bfloat16_layers
from tests.backends.aie.networks import check_run, first_lowered, random_feeds, run_emitted

NPU = machine_named("aie2:npu1")


def _ways(graph: Graph) -> Iterator[Tiling]:
    """Those of the first layer with tiles that its positions do not fill."""
    layer = layer_of(graph, graph.nodes[0])
    assert not isinstance(layer, str)
    extent = plane(graph.types[layer.y])
    assert extent is not None
    for t in candidates(NPU, layer, modes(NPU.grid), extent[1], extent[2]):
        if t.rows > 1 and t.valid_rows(0) % t.rows:
            yield t


def _cycles(graph: Graph, tiling: Tiling) -> LayerCycles:
    program = lower_with(graph, NPU, {tiling.layer.node: tiling})
    with tempfile.TemporaryDirectory() as folder:
        run = run_emitted(program, random_feeds(np.random.default_rng(0), graph), Path(folder))
    (part,) = run.parts
    return part.cycles(NPU).layers[0]


def test_how_many_vectors_a_tile_has() -> None:
    """7 rows of 7 vectors each: tiles of 2 rows have 14, the last one 7. Of 25 rows one pair of columns has 13, the last one
    alone in a tile of 4, and the other one 12, of which that tile has none."""
    graph = conv_graph(np.random.default_rng(0), (32, 32), (28, 28), (1, 1))
    t = next(t for t in _ways(graph) if t.mode.cut is Cut.BOTH and t.rows == 2)
    assert (t.tiles, t.share.tiles) == (4, 4)
    assert [(t.full_tiles(p), t.last_vectors(p)) for p in range(4)] == [(3, 2)] * 4
    assert t.quads == 3 * 4 + 2
    graph = conv_graph(np.random.default_rng(0), (32, 32), (25, 28), (1, 1))
    t = next(t for t in _ways(graph) if t.mode.cut is Cut.PAIRS and t.rows == 4)
    assert (t.tiles, t.share.tiles) == (4, 7)
    assert [(t.full_tiles(p), t.last_vectors(p)) for p in range(2)] == [(3, 2), (3, 2)]
    assert t.quads == 3 * 7 + 2


@pytest.mark.parametrize("chain", [1, 2])
def test_cores_multiply_what_there_is(chain: int) -> None:
    """4 products for each 4 vectors and block; the model of costs counts the same cycles less."""
    graph = conv_graph(np.random.default_rng(0), (128, 32), (28, 28), (1, 1), shift=12)
    found = [t for t in _ways(graph) if (t.mode.cut, t.mode.chain, t.mode.streams, t.rows) == (Cut.BOTH, chain, 1, 2)]
    t = next(t for t in found if t.splits == 1 and t.chunk_blocks == 16 // chain and t.kept)
    blocks = 16 // chain * (32 // 8 // t.mode.channel_parts)  # of input channels, for each of a core's outputs
    assert _cycles(graph, t).busiest_products == 4 * t.quads * blocks == 4 * 14 * blocks
    filled = conv_graph(np.random.default_rng(0), (128, 32), (32, 28), (1, 1), shift=12)
    layer = layer_of(filled, filled.nodes[0])
    assert not isinstance(layer, str)
    whole = next(w for w in candidates(NPU, layer, (t.mode,), 32, 28) if (w.rows, w.kept, w.splits) == (2, True, 1))
    assert (whole.tiles, whole.quads) == (4, 16)
    assert compute_cycles(whole) - compute_cycles(t) == pytest.approx(4 * 2 * blocks)


@settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(data=st.data())
def test_any_way_is_exact(data: st.DataObject) -> None:
    """Sums in parts, groups of output channels, sparse products, residuals, strides."""
    draw = data.draw
    k, stride = draw(st.sampled_from([(1, 1), (1, 2), (3, 1), (3, 2)]))
    graph = conv_graph(
        np.random.default_rng(draw(st.integers(0, 99))),
        (draw(st.sampled_from([16, 64, 128])), draw(st.integers(8, 70))),
        (draw(st.integers(5, 30)), draw(st.integers(k, 20))),
        (k, k),
        stride=stride,
        pads=(k // 2,) * 4,
        residual=draw(st.booleans()),
        density=draw(st.sampled_from([0.1, 0.3])),
        shift=12,
    )
    ways = list(islice(_ways(graph), 400))
    assume(ways)  # rows may be too few for tiles that they do not fill
    first = draw(st.permutations(ways[:: max(1, len(ways) // 20)]))
    check_run(first_lowered(graph, [*first, *ways]), graph, np.random.default_rng(0))


@pytest.mark.parametrize("residual", [False, True])
def test_bfloat16(residual: bool) -> None:
    rng = np.random.default_rng(1)
    graph = bfloat16_layers.convolution(rng, (32, 24), (13, 8), residual=residual, cut="relu(t-1)")
    bfloat16_layers.equal(graph, rng, first_lowered(graph, _ways(graph)))


def test_maxima() -> None:
    rng = np.random.default_rng(2)
    graph = bfloat16_layers.maximum((1, 16, 26, 9), (3, 3), 2, (1, 1, 1, 1))
    bfloat16_layers.equal(graph, rng, first_lowered(graph, _ways(graph)))


def test_the_next_layer_multiplies_whole_tiles_again() -> None:
    """What a core multiplied last is forgotten where a layer begins."""
    rng = np.random.default_rng(3)
    graph = chain_graph(rng, 32, (28, 28), [ByteConv(0, 32), ByteConv(1, 32)], shift=10)
    chosen = {}
    for i in range(2):
        layer = layer_of(graph, graph.nodes[i])
        assert not isinstance(layer, str)
        mode = next(m for m in modes(NPU.grid) if m.cut is Cut.BOTH)
        chosen[layer.node] = next(t for t in candidates(NPU, layer, (mode,), 28, 28) if t.rows == 2)
    check_run(lower_with(graph, NPU, chosen), graph, rng)
