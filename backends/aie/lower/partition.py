"""Which nodes the array computes and which the host, in segments that follow one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsec.backends.aie.lower.layer import ConvLayer, layer_of
from sparsec.backends.aie.lower.views import View, views_of
from sparsec.compiler.graph import ABSENT, Graph, Node, Port


@dataclass(frozen=True, slots=True)
class ArraySegment:
    """Layers that the array computes one after the other, and nodes that are views of their images."""

    layers: tuple[ConvLayer, ...]
    views: tuple[View, ...] = ()


@dataclass(frozen=True, slots=True)
class HostSegment:
    """Nodes that a library of the host computes."""

    graph: Graph


@dataclass(frozen=True)
class Partition:
    """Segments in order, and why the nodes that the host computes are not on the array (by node, a clause)."""

    segments: tuple[ArraySegment | HostSegment, ...]
    reasons: Mapping[str, str]
    views: Mapping[str, View]


def layers_of(graph: Graph) -> tuple[dict[str, ConvLayer], dict[str, str]]:
    """The nodes that the array has a way to compute, and why it has none for the others, by node."""
    layers: dict[str, ConvLayer] = {}
    reasons: dict[str, str] = {}
    for node in graph.nodes:
        found = layer_of(graph, node)
        if isinstance(found, str):
            reasons[node.name] = found
        else:
            layers[node.name] = found
    return layers, reasons


def partition(graph: Graph, layers: Mapping[str, ConvLayer], reasons: Mapping[str, str]) -> Partition:
    """Cut the graph into as few segments as taking turns needs: all that the array can do now, then all that the host can.

    `layers` are on the array, and `reasons` says why the other nodes are not, except for views.
    """
    views, others = views_of(graph, {layer.y for layer in layers.values()})
    left = list(graph.nodes)
    known = {*graph.inputs, *graph.constants, ABSENT}
    segments: list[ArraySegment | HostSegment] = []
    placed = {*layers, *views}
    on_array = True
    while left:
        taken = _ready(left, known, placed, on_array)
        names = [n.name for n in taken]
        left = [n for n in left if n.name not in set(names)]
        if taken and on_array:
            segments.append(
                ArraySegment(tuple(layers[n] for n in names if n in layers), tuple(views[n] for n in names if n in views))
            )
        elif taken:
            segments.append(HostSegment(_subgraph(graph, taken, f"{graph.name}_host{len(segments)}")))
        on_array = not on_array
    why = {n.name: others.get(n.name, reasons[n.name]) for n in graph.nodes if n.name not in placed}
    return Partition(tuple(segments), why, views)


def _ready(left: list[Node], known: set[str], placed: set[str], on_array: bool) -> list[Node]:
    """The nodes of one side that can be computed now, in order; their results become known."""
    taken = []
    for node in left:
        if (node.name in placed) == on_array and all(v in known for v in node.inputs):
            taken.append(node)
            known.update(node.outputs)
    return taken


def _subgraph(graph: Graph, nodes: list[Node], name: str) -> Graph:
    """Some nodes as a graph: values from outside become inputs, values that others read or that leave become outputs."""
    made = {v for n in nodes for v in n.outputs}
    inside = {n.name for n in nodes}
    read = {v: None for n in nodes for v in n.inputs if v != ABSENT}
    inputs = tuple(v for v in read if v not in made and v not in graph.constants)
    leaving = [
        v for n in nodes for v in n.outputs if v in graph.output_values or any(u.name not in inside for u in graph.users[v])
    ]
    constants = {v: graph.constants[v] for v in read if v in graph.constants}
    types = {v: graph.types[v] for v in {*read, *made}}
    return Graph(name, inputs, tuple(Port(v, v) for v in leaving), tuple(nodes), types, constants)
