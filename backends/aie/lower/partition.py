"""Which nodes the array computes and which the host, in segments that follow one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.reading import layer_of
from sparsec.backends.aie.lower.views import View, views_of
from sparsec.compiler.graph import Graph
from sparsec.compiler.segments import segments


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
    """Cut the graph into segments of layers that the array can do, and of the nodes that it cannot.

    `layers` are on the array, and `reasons` says why the other nodes are not, except for views.
    """
    views, others = views_of(graph, {layer.y for layer in layers.values()})
    placed = {*layers, *views, *(layer.thinned.node for layer in layers.values() if layer.thinned)}
    cut = tuple(
        ArraySegment(
            tuple(layers[n.name] for n in s.graph if n.name in layers), tuple(views[n.name] for n in s.graph if n.name in views)
        )
        if s.on_array
        else HostSegment(s.graph)
        for s in segments(graph, placed)
    )
    why = {n.name: others.get(n.name, reasons[n.name]) for n in graph.nodes if n.name not in placed}
    return Partition(cut, why, views)
