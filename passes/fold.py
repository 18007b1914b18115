"""Constant folding."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.compiler.layout import ROW_MAJOR
from sparsec.compiler.ops.base import Array
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass


@register_pass
@dataclass(frozen=True)
class Fold(Pass):
    """Evaluate nodes whose operands are all constants.

    1. Every operand is a constant, and there is one.
    2. The results are stored row-major.
    3. The results take at most `max_growth` bytes more than the operands; else the model would swell, and the reason is kept.
    4. Evaluating takes no more memory than that either (windows may slide over far more padding than data).

    When the constants of the whole graph grow by more than `max_growth`, a note says by how much.
    """

    name = "fold"
    summary = "evaluate what depends on constants only"
    max_growth: int = 32 << 20

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        editor = GraphEditor(graph)
        for node in editor.nodes:  # in topological order, so that one sweep folds everything
            notes.at = node
            arrays = self._operands(editor, node)
            if arrays is None:
                continue
            before = sum(a.nbytes for a in arrays if a is not None)
            after = sum(t.elements * t.dtype.itemsize for t in graph.out_types(node))
            if after > before + self.max_growth:  # 3
                grown = f"folding would turn {before:,} bytes of constants into {after:,}; max_growth is {self.max_growth:,}"
                notes.reject(node, Rejected(grown))
                continue
            if (workspace := node.op.workspace(graph.in_types(node))) > before + self.max_growth:  # 4
                notes.reject(node, Rejected(f"evaluating it takes {workspace:,} bytes; max_growth is {self.max_growth:,}"))
                continue
            known = editor.types[node.inputs[0]].sparsity
            editor.fold(node, node.op.evaluate(arrays))
            if isinstance(node.op, Transpose) and node.op.perm == (1, 0):
                editor.set_sparsity(node.output, known)  # filters are seen through it, so that they have the same pattern
        folded = editor.finish()
        growth = _bytes(folded) - _bytes(graph)
        if growth > self.max_growth:
            notes.say(f"constants grew by {growth:,} bytes to {_bytes(folded):,}")
        return folded

    def _operands(self, editor: GraphEditor, node: Node) -> list[Array | None] | None:
        arrays = [editor.constant_of(v) if v != ABSENT else None for v in node.inputs]
        if not arrays or any(a is None and v != ABSENT for a, v in zip(arrays, node.inputs, strict=True)):  # 1
            return None
        if any(editor.types[v].layout != ROW_MAJOR for v in node.outputs):  # 2
            return None
        return arrays


def _bytes(graph: Graph) -> int:
    return sum(a.nbytes for a in graph.constants.values())
