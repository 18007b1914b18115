"""Layout assignment: optimal against exhaustive search on small graphs, values unchanged, halos where readers want them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import models
from sparsec.backends.cpu.target import CpuTarget
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import UnsupportedError
from sparsec.compiler.graph import Graph, Node, Port
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.layout import ROW_MAJOR, Blocked, Layout
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.relayout import Relayout
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.scalar import Arg, Program
from sparsec.compiler.schedule import LayerSchedule, Schedule
from sparsec.compiler.target import LayoutOption, Ties
from sparsec.compiler.types import TensorType
from sparsec.passes.layout import AssignLayouts, choose_layouts
from sparsec.passes.pipelines import DEFAULT

LAYOUTS: tuple[Layout, ...] = (ROW_MAJOR, Blocked(1, 4), Blocked(1, 8))
CONVERSION = 7.0


@dataclass
class PricedTarget:
    """Every node runs in any of three layouts at a drawn price; conversions have one price."""

    prices: dict[str, tuple[float, ...]]
    name: str = "priced"
    halos: dict[tuple[str, int], tuple[tuple[int, int], ...]] = field(default_factory=dict)

    def legal(self, graph: Graph, node: Node) -> Sequence[LayoutOption]:
        return [
            LayoutOption((layout,) * len(node.inputs), (layout,), price)
            for layout, price in zip(LAYOUTS, self.prices.get(node.name, ()), strict=False)
        ]

    def conversion_cycles(self, graph: Graph, value: str, source: Layout, target: Layout) -> float:
        return CONVERSION

    def halo(self, graph: Graph, node: Node, operand: int) -> tuple[tuple[int, int], ...]:
        return self.halos.get((node.name, operand), ())

    def ties(self, graph: Graph) -> Ties:
        return Ties({}, frozenset())

    def cost(self, graph: Graph, node: Node) -> LayerSchedule:
        raise AssertionError("layout assignment does not schedule")

    def lower(self, graph: Graph, schedule: Schedule) -> None:
        raise AssertionError("layout assignment does not lower")


def sums(edges: Sequence[Sequence[int]]) -> Graph:
    """A graph of sums: node i adds the values that edges[i] lists (0 is the input, k the result of node k - 1)."""
    t = TensorType(DType.F32, (1, 16, 2, 2))
    nodes = []
    for i, sources in enumerate(edges):
        program = Program().then("identity", Arg(0)) if len(sources) == 1 else Program().then("add", Arg(0), Arg(1))
        nodes.append(Node(f"n{i}", Map(program), tuple(f"v{s}" for s in sources), (f"v{i + 1}",), (f"onnx{i}",)))
    types = {f"v{i}": t for i in range(len(edges) + 1)}
    return Graph("sums", ("v0",), (Port("out", f"v{len(edges)}"),), tuple(nodes), types)


def total(graph: Graph, target: PricedTarget, layouts: dict[str, Layout]) -> float:
    """Price of an assignment: nodes, and one conversion for every (value, other layout) that is wanted."""
    made = {n.output: layouts[n.name] for n in graph.nodes} | {"v0": ROW_MAJOR}
    wanted = {(v, layouts[n.name]) for n in graph.nodes for v in n.inputs} | {(p.value, ROW_MAJOR) for p in graph.outputs}
    conversions = sum(made[v] != layout for v, layout in wanted)
    return sum(target.prices[n.name][LAYOUTS.index(layouts[n.name])] for n in graph.nodes) + CONVERSION * conversions


@st.composite
def problems(draw: st.DrawFn) -> tuple[Graph, PricedTarget]:
    count = draw(st.integers(1, 5))
    edges = [draw(st.lists(st.integers(0, i), min_size=1, max_size=2)) for i in range(count)]
    price = st.floats(0, 30, allow_nan=False)
    prices = {f"n{i}": tuple(draw(price) for _ in LAYOUTS) for i in range(count)}
    return sums(edges), PricedTarget(prices)


@given(problems())
def test_the_choice_is_optimal(problem: tuple[Graph, PricedTarget]) -> None:
    graph, target = problem
    chosen = {name: option.outputs[0] for name, option in choose_layouts(graph, target).items()}
    names = [n.name for n in graph.nodes]
    best = min(total(graph, target, dict(zip(names, c, strict=True))) for c in itertools.product(LAYOUTS, repeat=len(names)))
    assert total(graph, target, chosen) == pytest.approx(best, rel=1e-3, abs=1e-2)


@given(problems())
def test_values_and_interface_stay(problem: tuple[Graph, PricedTarget]) -> None:
    graph, target = problem
    after = run_pipeline(graph, [AssignLayouts(target)])
    x = {"v0": np.random.default_rng(0).standard_normal((1, 16, 2, 2), dtype=np.float32)}
    np.testing.assert_array_equal(interpret(after, x)["out"], interpret(graph, x)["out"])
    assert after.types["v0"].layout == ROW_MAJOR
    assert all(after.types[p.value].layout == ROW_MAJOR for p in after.outputs)
    for node in after.nodes:
        if not isinstance(node.op, Relayout):
            orders = {after.types[v].layout for v in (*node.inputs, *node.outputs)}
            assert len(orders) == 1, "every option of this target has one layout for all"


def test_a_halo_is_the_largest_that_readers_want() -> None:
    graph = sums([[0], [1], [1], [2, 3]])
    target = PricedTarget({f"n{i}": (50.0, 0.0) for i in range(4)})
    none, one, two = (0, 0), (1, 1), (0, 2)
    target.halos = {("n1", 0): (none, one, none), ("n2", 0): (none, two, one)}
    after = run_pipeline(graph, [AssignLayouts(target)])
    assert str(after.types["v1"]) == "f32[1,16,2,2]@c4a1+0:0,1:2,1:1"
    assert str(after.types["v2"]) == "f32[1,16,2,2]@c4a1"


def test_a_node_without_a_kernel_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match=r"node 'n0' \(Map of f32\[1,16,2,2\]\) has no kernel on target priced"):
        choose_layouts(sums([[0]]), PricedTarget({}))


def test_a_convolutional_network_converts_only_at_its_ends() -> None:
    graph = run_pipeline(import_model(models.build("tiny_cnn")), DEFAULT)
    after = run_pipeline(graph, [AssignLayouts(CpuTarget.named("x86_64+avx2+fma"))])
    conversions = [n for n in after.nodes if isinstance(n.op, Relayout)]
    assert [n.inputs[0] for n in conversions][:1] == list(graph.inputs)
    assert len(conversions) <= 2
