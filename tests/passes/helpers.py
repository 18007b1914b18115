"""Graphs from text, and the checks that every pass must stand: valid after, same values, and settled (a second run changes
nothing)."""

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.passing.base import Notes, Pass
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.text.parser import parse_graph
from sparsec.compiler.text.printer import print_graph
from sparsec.compiler.types import TensorType


def random_array(t: TensorType, rng: np.random.Generator, *, positive: bool = False) -> np.ndarray:
    if t.dtype is DType.BOOL:
        return rng.integers(0, 2, t.shape).astype(np.bool_)
    if not t.dtype.is_float:
        return rng.integers(0, 5, t.shape).astype(t.dtype.numpy)
    values = rng.uniform(0.5, 2, t.shape) if positive else rng.standard_normal(t.shape)
    return values.astype(t.dtype.numpy)


def graph_of(body: str, *, constants: str = "", seed: int = 0) -> Graph:
    """A graph from lines of the text form. `constants` lists `name: type` lines that are filled with random numbers (positive
    ones for names that start with `var`)."""
    rng = np.random.default_rng(seed)
    named: dict[str, np.ndarray] = {}
    lines = ['graph "g" {']
    for line in filter(None, (part.strip() for part in constants.splitlines())):
        name, _, kind = line.partition(":")
        lines.append(f"input %{name}: {kind.strip()}")
        named[name] = np.empty(0)
    parsed = parse_graph("\n".join([*lines, body, "}"]))
    for name in named:
        named[name] = random_array(parsed.types[name], rng, positive=name.startswith("var"))
    inputs = tuple(v for v in parsed.inputs if v not in named)
    return Graph(parsed.name, inputs, parsed.outputs, parsed.nodes, parsed.types, {**parsed.constants, **named})


def assert_same_values(before: Graph, after: Graph, *, tolerance: float = 1e-5) -> None:
    """Both graphs give the same outputs on random inputs, within `tolerance` of the largest value."""
    rng = np.random.default_rng(1)
    feeds = {v: random_array(before.types[v], rng) for v in before.inputs}
    expected, found = interpret(before, feeds), interpret(after, feeds)
    assert list(expected) == list(found)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        if array.dtype.kind == "f":
            finite = np.isfinite(array)
            assert np.array_equal(array[~finite], found[name][~finite], equal_nan=True), name
            scale = np.max(np.abs(array[finite]), initial=1e-30)
            assert np.max(np.abs(array[finite] - found[name][finite]), initial=0) <= tolerance * scale, name
        else:
            assert np.array_equal(array, found[name]), name


def check(step: Pass, before: Graph, *, tolerance: float = 1e-5) -> Graph:
    """Run a pass and require what every pass promises."""
    after = run_pipeline(before, [step])
    assert_same_values(before, after, tolerance=tolerance)
    origins = {o for n in before.nodes for o in n.origin}
    assert {o for n in after.nodes for o in n.origin} <= origins
    again = run_pipeline(after, [step])
    assert print_graph(again) == print_graph(after), "a second run changes the graph again"
    return after


def rejections(step: Pass, graph: Graph) -> list[str]:
    """The graph is left alone; the reasons that the pass gives."""
    notes = Notes()
    after = run_pipeline(graph, [step], notes=notes)
    assert print_graph(after) == print_graph(graph)
    return [str(n) for n in notes.entries]


def lines(graph: Graph) -> list[str]:
    """The nodes as text, constants' names cut to what is stable."""
    return [line.strip() for line in print_graph(graph).splitlines() if " = " in line and "const" not in line]


def ops(graph: Graph) -> list[str]:
    """The operators in order."""
    return [n.op.name for n in graph.nodes]
