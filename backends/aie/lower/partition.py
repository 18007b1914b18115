"""Which nodes the array computes and which the host, in segments that follow one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsec.backends.aie.lower.layer import ConvLayer, conv_layer
from sparsec.compiler.graph import Graph
from sparsec.compiler.segments import segments


@dataclass(frozen=True, slots=True)
class ArraySegment:
    """Layers that the array computes one after the other."""

    layers: tuple[ConvLayer, ...]


@dataclass(frozen=True, slots=True)
class HostSegment:
    """Nodes that a library of the host computes."""

    graph: Graph


@dataclass(frozen=True)
class Partition:
    """Segments in order, and why the nodes that the host computes are not on the array (by node, a clause)."""

    segments: tuple[ArraySegment | HostSegment, ...]
    reasons: Mapping[str, str]


def partition(graph: Graph) -> Partition:
    """Cut the graph into segments of layers that the array can do, and of the nodes that it cannot."""
    layers: dict[str, ConvLayer] = {}
    reasons: dict[str, str] = {}
    for node in graph.nodes:
        found = conv_layer(graph, node)
        if isinstance(found, str):
            reasons[node.name] = found
        else:
            layers[node.name] = found
    cut = tuple(
        ArraySegment(tuple(layers[n.name] for n in s.graph)) if s.on_array else HostSegment(s.graph)
        for s in segments(graph, layers)
    )
    return Partition(cut, reasons)
