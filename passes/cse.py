"""Common subexpression elimination."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph
from sparsec.compiler.ops.base import Array
from sparsec.compiler.passing.base import Notes, Pass, register_pass
from sparsec.compiler.text.printer import print_attributes


@register_pass
@dataclass(frozen=True)
class CommonSubexpressions(Pass):
    """Compute once what several nodes compute, and store once what several constants hold.

    1. Constants are equal when dtype, shape and every bit are.
    2. Nodes are equal when operator, attributes (by their text, so that 0.0 and -0.0 differ), operands and the storage order of
       the results are. The first one stays and takes the origin of the others.
    """

    name = "cse"
    summary = "merge equal nodes and equal constants"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        editor = GraphEditor(graph)
        _merge_constants(editor)
        first: dict[object, str] = {}
        for name in [n.name for n in editor.nodes]:
            node = editor.node(name)
            if node is None:
                continue
            notes.at = node
            layouts = tuple(editor.types[v].layout for v in node.outputs)
            key = (node.op.name, print_attributes(node.op), node.inputs, layouts)  # 2
            kept = editor.node(first.setdefault(key, name))
            if kept is None or kept is node:
                continue
            for old, new in zip(node.outputs, kept.outputs, strict=True):
                editor.replace_uses(old, new)
            editor.remove(node)
            editor.replace(kept, kept.op, kept.inputs, origin=node.origin)
        return editor.finish()


def _merge_constants(editor: GraphEditor) -> None:
    buckets: dict[object, list[str]] = {}
    for name, array in list(editor.constants.items()):
        bucket = buckets.setdefault((array.dtype, array.shape, _sample(array)), [])
        for other in bucket:
            if np.array_equal(_bits(editor.constants[other]), _bits(array)):  # 1
                editor.replace_uses(name, other)
                break
        else:
            bucket.append(name)


def _bits(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)


def _sample(array: Array) -> bytes:
    """A few bytes that tell most arrays apart without reading all of them."""
    flat = array.reshape(-1)
    return flat[:: max(1, flat.size // 16)].tobytes()
