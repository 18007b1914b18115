"""What of a network the array computes and what the host, in segments that take turns: products, and all that is between them."""

from __future__ import annotations

from dataclasses import replace

from sparsec.backends.systolic.network import Network
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.scalar import Program
from sparsec.compiler.segments import Segment, segments
from sparsec.compiler.types import TensorType

SUMS = ".sums"  # what a product's results are called before its epilogue


def network_parts(network: Network) -> tuple[Segment, ...]:
    """The segments of a network. A layer's node in them has no epilogue: the array makes sums, and a Map of the host the rest."""
    layers = {choice.layer.node.name for choice in network.choices}
    return segments(_without_epilogues(network.graph, layers), layers)


def _without_epilogues(graph: Graph, layers: set[str]) -> Graph:
    """The graph with the epilogues of `layers` as nodes of their own."""
    types, nodes = dict(graph.types), list[Node]()
    for node in graph.nodes:
        op = node.op
        if node.name not in layers or not isinstance(op, Conv | MatMul) or not op.epilogue.steps:
            nodes.append(node)
            continue
        bare = replace(op, epilogue=Program())
        sums = _unused(node.output + SUMS, types)
        types[sums] = bare.infer(graph.in_types(node)[:2])[0]
        nodes.append(replace(node, op=bare, inputs=node.inputs[:2], outputs=(sums,)))
        nodes.append(Node(f"{node.name}.epilogue", Map(op.epilogue), (sums, *node.inputs[2:]), node.outputs, node.origin))
    return replace(graph, nodes=tuple(nodes), types=types)


def _unused(name: str, types: dict[str, TensorType]) -> str:
    while name in types:
        name += "_"
    return name
