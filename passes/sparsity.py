"""Recognition of the zeros in weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.sparsity import DENSE, Sparsity
from sparsec.compiler.sparsity.detect import MIN_SPARSITY, detect
from sparsec.compiler.sparsity.weights import layer_weights


@register_pass
@dataclass(frozen=True)
class DetectSparsity(Pass):
    """Record in the type of every constant weight the tightest pattern that it has.

    1. Only Conv (depthwise apart) and MatMul nodes read the weights, and all in the same way.
    2. At least 10 % of them are zero.
    3. Some pattern stores fewer bytes than all weights.
    """

    name = "sparsity"
    summary = "record the tightest sparsity pattern of every constant weight in its type"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        editor = GraphEditor(graph)
        for layer in layer_weights(graph):
            notes.at = layer.nodes[0]
            array, claim = graph.constants[layer.value], graph.types[layer.value].sparsity
            found: tuple[Sparsity, ...] = ()
            if layer.reason:  # 1
                if (array == 0).mean() >= 0.5:
                    notes.reject(layer.nodes[0], Rejected(f"its zeros are not used: {layer.reason}"))
            elif not layer.depthwise and np.count_nonzero(array) <= (1 - MIN_SPARSITY) * array.size:  # 2, before any copy
                found = detect(layer.view.filters(array), claim)  # 3
            editor.set_sparsity(layer.value, found[0] if found else DENSE)
        return editor.finish()
