"""Padding with a zero point as a node of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.pad import Pad
from sparsec.compiler.passing.base import Notes, Pass, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules


def apart(editor: GraphEditor, x: str, op: Conv, origin: tuple[str, ...]) -> tuple[str, Conv]:
    """The padded data of a convolution of quantised ones, and the convolution without padding."""
    n = len(op.strides)
    margins = (0, 0, *op.pads[:n], 0, 0, *op.pads[n:])
    padded = editor.add(Pad(margins, "constant", float(op.zero)), [x], hint=f"{x}.padded", origin=origin).output
    return padded, replace(op, pads=(0,) * (2 * n))


class _Apart(Rule[Conv]):
    """Conv(x) with pads -> Conv(Pad(x, zero))."""

    ops = (Conv,)

    def match(self, editor: GraphEditor, node: Node) -> Conv | None:
        assert isinstance(node.op, Conv)
        return node.op if node.op.zero and any(node.op.pads) else None

    def apply(self, editor: GraphEditor, node: Node, match: Conv) -> None:
        x, op = apart(editor, node.inputs[0], match, node.origin)
        editor.replace(node, op, [x, *node.inputs[1:]])


@register_pass
@dataclass(frozen=True)
class PadsApart(Pass):
    """Padding with a zero point other than 0 becomes a node of its own: for machines whose halos hold zeros."""

    name = "pads_apart"
    summary = "padding with zero points as a node of its own"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Apart()], notes)
