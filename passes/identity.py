"""Removal of nodes that do nothing."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.expand import Expand
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.pad import Pad
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.slice import Slice
from sparsec.compiler.ops.tile import Tile
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.passing.base import Notes, Pass, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules
from sparsec.compiler.scalar import Arg


def is_identity(editor: GraphEditor, node: Node) -> bool:
    """Whether a node's result is its first operand, element for element, in the same shape and type."""
    op, x, y = node.op, editor.types[node.inputs[0]] if node.inputs[:1] != (ABSENT,) else None, editor.types[node.output]
    if x is None or x != y:
        return False
    match op:
        case Map():
            steps = op.program.steps
            return (
                all(s.fn in ("identity", "cast") for s in steps)
                and all(s.args == (Arg(0),) or i > 0 for i, s in enumerate(steps))
                and len(steps) <= 1
            )
        case Reshape() | Expand() | Tile():
            return True
        case Slice():
            return not any(op.starts)  # the type is the same, so every step is 1
        case Transpose():
            return op.perm == tuple(range(x.rank))
        case Pad():
            return not any(op.pads)
        case Concat():
            return len(node.inputs) == 1
        case Pool():
            ones = (1,) * len(op.kernel)
            return op.kind in ("max", "avg") and op.kernel == ones and op.strides == ones and not any(op.pads)
        case Reduce():
            return op.keepdims and all(x.shape[a] == 1 for a in op.over)
        case _:
            return False


class _Skip(Rule[str]):
    """Readers take the operand itself."""

    def match(self, editor: GraphEditor, node: Node) -> str | None:
        if len(node.outputs) != 1 or not node.inputs or not is_identity(editor, node):
            return None
        return node.inputs[0]

    def apply(self, editor: GraphEditor, node: Node, match: str) -> None:
        editor.replace_uses(node.output, match)
        editor.remove(node)


class _DropParts(Rule[list[str]]):
    """Concat without its empty parts."""

    ops = (Concat,)

    def match(self, editor: GraphEditor, node: Node) -> list[str] | None:
        kept = [v for v in node.inputs if editor.types[v].elements]
        return kept if kept and len(kept) < len(node.inputs) else None

    def apply(self, editor: GraphEditor, node: Node, match: list[str]) -> None:
        editor.replace(node, node.op, match)


@register_pass
@dataclass(frozen=True)
class Identity(Pass):
    """Remove nodes whose result is their first operand.

    1. The operand has the type of the result (dtype, shape, storage order).
    2. It is a Map without steps or with one identity or cast; a Reshape, Expand or Tile; a Transpose that keeps the order; a
       Slice of everything; a Pad of nothing; a Concat of one; a max or average pool of single positions; or a Reduce over
       extents of 1.

    Empty parts of a Concat are left out first.
    """

    name = "identity"
    summary = "remove nodes that do nothing"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_DropParts(), _Skip()], notes)
