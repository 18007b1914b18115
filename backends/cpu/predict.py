"""What the cost model expects every layer of a graph to take, without lowering it."""

from __future__ import annotations

from sparsec.backends.cpu.describe import microseconds
from sparsec.backends.cpu.target import CpuTarget
from sparsec.compiler.graph import Graph
from sparsec.compiler.passing.pipeline import parse_pipeline
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.passes.layout import AssignLayouts
from sparsec.passes.legalise import Legalise
from sparsec.passes.pipelines import PIPELINES
from sparsec.passes.registry import load_all
from sparsec.passes.schedule import make_schedule


def predicted_layers(graph: Graph, target: CpuTarget, passes: str | None = None) -> list[tuple[tuple[str, ...], float]]:
    """Of a graph as imported: the ONNX nodes of every layer that it is compiled to, and the layer's predicted microseconds.

    `passes` as for the driver. Raises what the passes and the target raise.
    """
    steps = parse_pipeline("default" if passes is None else passes, load_all(), PIPELINES)
    optimised = run_pipeline(graph, (*steps, Legalise(target), AssignLayouts(target)))
    layers = make_schedule(optimised, target).layers
    return [(node.origin, microseconds(layers[node.name].cost.cycles)) for node in optimised.nodes]
