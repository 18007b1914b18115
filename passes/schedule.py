"""Schedule selection: the target's cheapest schedule for every node of a laid-out graph."""

from __future__ import annotations

from sparsec.compiler.graph import Graph
from sparsec.compiler.schedule import Schedule
from sparsec.compiler.target import Target


def make_schedule(graph: Graph, target: Target) -> Schedule:
    """A layer schedule for every node, each chosen by the target's cost model among the candidates that are legal for it."""
    return Schedule({node.name: target.cost(graph, node) for node in graph.nodes})
