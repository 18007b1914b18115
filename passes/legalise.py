"""Legalise: take fused epilogues apart where the target has no kernel for the fused node.

Fusion does not ask the target, so that graphs read the same for every machine; what a machine cannot run fused becomes the bare
operator and a Map, which every machine has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.map import Map
from sparsec.compiler.passing.base import Notes, Pass, Rejected
from sparsec.compiler.scalar import Program
from sparsec.compiler.target import Target

_OPERANDS = 2  # data and weights; the epilogue's operands follow them


@dataclass(frozen=True)
class Legalise(Pass):
    """Unfuse nodes that the target cannot run.

    1. The target offers no layout option for the node. 2. Its op has a non-empty epilogue.
    """

    target: Target
    name: ClassVar[str] = "legalise"
    summary: ClassVar[str] = "epilogues taken apart where the target has no kernel for the fused node"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        editor = GraphEditor(graph)
        for node in graph.nodes:
            notes.at = node
            program = getattr(node.op, "epilogue", Program())
            if not program.steps or self.target.legal(graph, node):
                continue
            self._unfuse(editor, node, program)
            notes.reject(node, Rejected(f"no fused kernel on {self.target.name}: {program} runs as a pass of its own"))
        return editor.finish()

    def _unfuse(self, editor: GraphEditor, node: Node, program: Program) -> None:
        bare, extras = node.inputs[:_OPERANDS], node.inputs[_OPERANDS:]
        op = replace(node.op, epilogue=Program())  # type: ignore[type-var]
        result = node.output
        editor.remove(node)
        acc = editor.add(op, bare, hint=f"{result}.bare", origin=node.origin, name=node.name)
        editor.add(Map(program), [acc.output, *extras], hint=result, origin=node.origin, outputs=[result])
