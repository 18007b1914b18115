"""Weights of which no two exceed 128: when sums of two products in 16 bits are chosen, and that they never saturate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.cpu.isa import Isa, isa_named
from sparsec.backends.cpu.lower.integers import has_reduced_range
from sparsec.backends.cpu.lower.narrow import types_of
from sparsec.backends.cpu.target import CpuTarget
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.types import TensorType
from sparsec.passes.layout import AssignLayouts
from tests.backends.cpu.compiled import compile_graph, merged, run_graph, split
from tests.backends.cpu.harness import BYTES, by_name
from tests.backends.cpu.test_integers import LAYERS, Layer, case, reference
from tests.machine import needs

Array = np.ndarray[Any, Any]
AVX2, VNNI = isa_named("x86_64+avx2+fma"), isa_named("x86_64+avx512f+vnni")
PAIRS = [isa for isa in BYTES if isa.reduced_cost is not None]


def with_weights(layer: Layer, w: Array) -> tuple[Graph, dict[str, Array]]:
    """The layer's graph with weights repeated from [channels], and data of 255."""
    graph, feeds = case(layer, 0)
    shape = graph.constants["w"].shape
    along = 0 if layer.kernel == 0 else 1
    repeated = np.resize(w, shape[along]).reshape([-1 if i == along else 1 for i in range(len(shape))])
    constants = {**graph.constants, "w": np.ascontiguousarray(np.broadcast_to(repeated, shape)).astype(np.int8)}
    return replace(graph, constants=constants), {**feeds, "x": np.full_like(feeds["x"], 255)}


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=9), st.booleans())
@settings(max_examples=60)
def test_pairs_are_those_that_instructions_sum(weights: list[int], product: bool) -> None:
    layer = Layer(len(weights), 16, 0 if product else 1, 4, epilogue="sums")
    graph, _ = with_weights(layer, np.array(weights))
    pairs = [abs(a) + abs(b) for a, b in zip(weights[::2], [*weights[1::2], 0], strict=False)]
    assert has_reduced_range(graph, graph.nodes[0]) == (max(pairs) <= 128)
    assert types_of(graph, graph.nodes[0], AVX2).reduced == (max(pairs) <= 128)
    assert not types_of(graph, graph.nodes[0], VNNI).reduced


def test_transposed_products_have_their_channels_last() -> None:
    graph, _ = case(Layer(8, 16, 0, 4, epilogue="sums"), 0)
    w = np.zeros((16, 8), np.int8)
    w[0, 1], w[0, 2], w[1, 0] = 127, 127, 127  # side by side, but in two pairs; and of two outputs
    node = replace(graph.nodes[0], op=MatMul(trans_b=True))
    turned = replace(graph, constants={"w": w}, types={**graph.types, "w": TensorType(DType.I8, w.shape)})
    assert has_reduced_range(turned, node)
    beyond = w.copy()
    beyond[0, 3] = 2
    assert not has_reduced_range(replace(turned, constants={"w": beyond}), node)


EDGES = {
    "as large as may be": (64, 64, -64, -64),
    "uneven": (127, 1, -127, -1),
    "alone": (-128, 0, 0, -128),
    "too large": (65, 64, 0, 0),
    "too large below": (0, 0, -127, -127),
}


@needs("gcc")
@pytest.mark.parametrize("isa", PAIRS, ids=by_name)
def test_nothing_saturates(isa: Isa, tmp_path: Path) -> None:
    """Data of 255: 255 * 128 is the largest sum that 16 bits hold."""
    layers = {"conv": Layer(32, 24, 3, 6, epilogue="sums"), "product": Layer(32, 24, 0, 9, epilogue="sums")}
    cases = {f"{n} {e}": with_weights(layer, np.array(w)) for n, layer in layers.items() for e, w in EDGES.items()}
    made = compile_graph(merged({n: g for n, (g, _) in cases.items()}), isa.name, tmp_path)
    got = run_graph(made, tmp_path, split({n: feeds for n, (_, feeds) in cases.items()}))
    reduced = {c.node.split("/")[0]: c.kernel.types.reduced for c in made.program.calls if hasattr(c.kernel, "types")}
    for name, (graph, feeds) in cases.items():
        assert reduced[name] == ("too large" not in name)
        np.testing.assert_array_equal(got[f"{name}/y"], reference(layers[name.split()[0]], graph, feeds), err_msg=name)


@pytest.mark.parametrize("name", ["window", "product", "blocks of 8", "any zeros"])
def test_cost_and_reason_know_it(name: str) -> None:
    graph, _ = case(LAYERS[name], 0)
    tame = replace(graph, constants={**graph.constants, "w": graph.constants["w"] // 2})
    target = CpuTarget(AVX2)
    found = []
    for g in (graph, tame):
        laid_out = AssignLayouts(target).run(g)
        found.append(target.cost(laid_out, next(n for n in laid_out.nodes if n.origin == ("y",))))
    assert found[1].cost.cycles < 0.8 * found[0].cost.cycles
    assert found[0].reason.endswith("(quantise with --reduce-range)") and "16 bits" in found[1].reason
    assert found[1].candidates[0].kernel in {f"{c.kernel}, 16-bit sums" for c in found[0].candidates}
