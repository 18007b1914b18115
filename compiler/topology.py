"""Graph theory over nodes: the one module that speaks networkx."""

from __future__ import annotations

from collections.abc import Iterable

import networkx as nx

from sparsec.compiler.errors import ModelError
from sparsec.compiler.graph import ABSENT, Node


def dependency_graph(nodes: Iterable[Node]) -> nx.DiGraph:
    """Node names with an edge from each producer to each reader, in insertion order."""
    nodes = list(nodes)
    producer = {out: node.name for node in nodes for out in node.outputs}
    graph = nx.DiGraph()
    graph.add_nodes_from(node.name for node in nodes)
    graph.add_edges_from((producer[v], node.name) for node in nodes for v in node.inputs if v != ABSENT and v in producer)
    return graph


def sort_nodes(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Nodes in topological order; ties keep the given order, so that the result is stable."""
    nodes = list(nodes)
    by_name = {node.name: node for node in nodes}
    position = {node.name: i for i, node in enumerate(nodes)}
    graph = dependency_graph(nodes)
    try:
        return tuple(by_name[n] for n in nx.lexicographical_topological_sort(graph, key=position.__getitem__))
    except nx.NetworkXUnfeasible:
        cycle = [edge[0] for edge in nx.find_cycle(graph)]
        raise ModelError(
            f"the graph has a cycle through nodes {', '.join(map(repr, cycle[:8]))}: an ONNX graph must be acyclic", node=cycle[0]
        ) from None


def find_cycle(edges: Iterable[tuple[str, str]]) -> list[str]:
    """The names along one cycle of a directed graph, empty when it has none."""
    graph = nx.DiGraph(edges)
    try:
        return [edge[0] for edge in nx.find_cycle(graph)]
    except nx.NetworkXNoCycle:
        return []
