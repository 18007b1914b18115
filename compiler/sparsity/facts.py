"""What a graph's weights have to give to sparse kernels: pattern, density, and why zeros mean nothing."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.sparsity import DENSE
from sparsec.compiler.sparsity.base import Array
from sparsec.compiler.sparsity.detect import MIN_SPARSITY
from sparsec.compiler.sparsity.weights import LayerWeights, layer_weights


@dataclass(frozen=True, slots=True)
class WeightFacts:
    """Of the constant that a node multiplies by.

    `pattern` is what its type says, as "2:4/rows=32"; "" for none. `density` is the share of weights that are not zero.
    `unused` says why no kernel can leave its zeros out, whatever the prediction ("" when one can).
    """

    pattern: str
    density: float
    unused: str = ""

    @property
    def sparse(self) -> bool:
        """Whether there are zeros enough for kernels to look at."""
        return self.density <= 1 - MIN_SPARSITY


def weight_facts(graph: Graph) -> dict[str, WeightFacts]:
    """By node name, for every node of a final graph that multiplies by a constant, or by what only constants make."""
    found: dict[str, WeightFacts] = {}
    layers = {node.name: layer for layer in layer_weights(graph) for node in layer.nodes}
    fixed = _fixed(graph)
    for node in graph.nodes:
        if not node.op.macs(graph.in_types(node)):
            continue
        weights = [v for v in dict.fromkeys(node.inputs[:2]) if v in fixed and graph.types[v].elements]
        sources = [c for v in weights for c in _sources(graph, v)]
        if sources:
            source = max(sources, key=lambda c: graph.types[c].elements)
            pattern = graph.types[source].sparsity
            unused = _unused(graph, node, weights[-1], layers.get(node.name))
            found[node.name] = WeightFacts("" if pattern == DENSE else pattern.spec, _density(graph.constants[source]), unused)
    return found


def _density(w: Array) -> float:
    return float(np.count_nonzero(w) / w.size)


def _fixed(graph: Graph) -> set[str]:
    """The constants, and values that are computed from nothing else."""
    fixed = set(graph.constants)
    for node in graph.nodes:
        operands = [v for v in node.inputs if v != ABSENT]
        if operands and fixed.issuperset(operands):
            fixed.update(node.outputs)
    return fixed


def _sources(graph: Graph, value: str) -> list[str]:
    """The constants that a fixed value is computed from."""
    if value in graph.constants:
        return [value] if graph.types[value].elements else []
    return [c for v in graph.producers[value].inputs if v != ABSENT for c in _sources(graph, v)]


def _unused(graph: Graph, node: Node, weights: str, layer: LayerWeights | None) -> str:
    if weights not in graph.constants:
        name = graph.producers[weights].name
        return f"{name!r} computes its weights at run time: the pass `fold` makes them a constant"
    if layer is None:
        dtype = graph.types[weights].dtype
        return f"no kernel for {node.op.name}{'' if dtype.is_float else f' of {dtype.value}'} leaves zeros out"
    if layer.depthwise:
        return "it is depthwise: every output reads one channel, and no kernel for that leaves zeros out"
    if isinstance(node.op, MatMul) and prod(graph.types[weights].shape[:-2]) > 1:
        return "its weights are a batch of matrices, and no kernel for that leaves zeros out"
    return ""
