"""Dead code elimination."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph
from sparsec.compiler.passing.base import Notes, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class DeadCode(Pass):
    """Remove nodes none of whose results reaches an output, then constants that nothing reads.

    Inputs stay even when nothing reads them: they are the caller's interface.
    """

    name = "dce"
    summary = "remove nodes and constants that no output needs"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        editor = GraphEditor(graph)
        editor.changed = True  # `finish` sweeps
        swept = editor.finish()
        same = len(swept.nodes) == len(graph.nodes) and len(swept.constants) == len(graph.constants)
        return graph if same else swept
