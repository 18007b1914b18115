"""Halos: the zero positions around blocked values that convolutions read instead of testing bounds."""

from __future__ import annotations

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.compiler.layout import Blocked
from sparsec.compiler.ops.relayout import Relayout
from sparsec.compiler.target import Target
from sparsec.passes.common.conversions import Converter

Halo = tuple[tuple[int, int], ...]


def _join(a: Halo, b: Halo) -> Halo:
    if not a or not b:
        return a or b
    return tuple((max(x[0], y[0]), max(x[1], y[1])) for x, y in zip(a, b, strict=True))


def assign_halos(graph: Graph, target: Target) -> Graph:
    """Give every blocked value the largest halo that a reader wants; values that share storage share it."""
    ties = target.ties(graph)
    wanted: dict[str, Halo] = {}
    bare: dict[str, list[tuple[Node, int, Halo]]] = {}
    for node in graph.nodes:
        for i, value in enumerate(node.inputs):
            if value == ABSENT or value in graph.constants:
                continue
            halo = target.halo(graph, node, i)
            if halo and any(any(h) for h in halo):
                group = ties.group(value)
                if group in ties.bare:
                    bare.setdefault(value, []).append((node, i, halo))
                else:
                    wanted[group] = _join(wanted.get(group, ()), halo)
    editor = GraphEditor(graph)
    for value, t in graph.types.items():
        halo = wanted.get(ties.group(value), ())
        if halo and isinstance(t.layout, Blocked):
            editor.set_layout(value, Blocked(t.layout.axis, t.layout.block, halo))
    converter = Converter(editor)
    for value, readers in bare.items():
        layout = graph.types[value].layout
        assert isinstance(layout, Blocked)
        halo = ()
        for _, _, h in readers:
            halo = _join(halo, h)
        copy = converter.get(value, Blocked(layout.axis, layout.block, halo))
        for node, i, _ in readers:
            now = next(n for n in editor.nodes if n.name == node.name)
            converter.rewire(now, [copy if k == i else v for k, v in enumerate(now.inputs)])
    # a Relayout's attribute is its result's order
    for node in editor.nodes:
        if isinstance(node.op, Relayout) and node.op.layout != editor.types[node.output].layout:
            layout = editor.types[node.output].layout
            editor.replace(node, Relayout(layout), node.inputs)
    return editor.finish()
