"""The coupling of an ONNX model: only what its file can hold is free."""

from __future__ import annotations

from sparsec.compiler.exporter.weights import WeightEditor
from sparsec.compiler.graph import Graph
from sparsec.passes.permutation.coupling import Coupling, couple


def couple_model(graph: Graph, editor: WeightEditor) -> Coupling:
    """The coupling of a model imported with `as_stored`, for orders that `editor` of the same model can write.

    Constants that the model does not store as they are used, and those that something reads which the graph does not show, fix
    their dimensions. Write what `permuted` returns with `editor.replace`.
    """
    present = {name for node in graph.nodes for name in (node.name, *node.origin)}

    def blocked(value: str) -> str:
        return editor.unwritable(value, {name for node in graph.users[value] for name in (node.name, *node.origin)}, present)

    return couple(graph, blocked)
