"""Where the heads of an Attention are: shared by groups of queries, and inside the lines that linear layers give."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import ABSENT, Node
from sparsec.compiler.ops.attention import Attention
from sparsec.compiler.ops.expand import Expand
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.passing.base import Rejected
from sparsec.compiler.passing.rules import Rule, merged_origin
from sparsec.passes.common.views import is_row_major, readers, row_major, same_view, sources, step_view


class SharedHeads(Rule[list[str]]):
    """Keys and values [B, G, L, D] expanded to [B, G, R, L, D] and reshaped to [B, G * R, L, D] are read as they were."""

    ops = (Attention,)

    def match(self, editor: GraphEditor, node: Node) -> list[str] | None:
        assert isinstance(node.op, Attention)
        if editor.types[node.inputs[1]].rank != 4 or node.op.heads != node.op.kv_heads:
            return None
        found = [self._unrepeated(editor, v) for v in node.inputs[1:3]]
        if None in found or len({editor.types[v].shape[1] for v in found if v is not None}) != 1:  # 6
            return None
        return [v for v in found if v is not None]

    def _unrepeated(self, editor: GraphEditor, value: str) -> str | None:
        """The operand [B, G, 1, L, D] of the Expand that `value` comes from."""
        b, h, length, d = editor.types[value].shape
        for source, view in sources(editor, value):
            node = editor.producer(source)
            if node is not None and isinstance(node.op, Expand) and view is not None and is_row_major(view):
                before, after = editor.types[node.inputs[0]].shape, node.op.shape
                if len(after) == 5 and after == (b, after[1], h // after[1], length, d) and before == (*after[:2], 1, length, d):
                    return node.inputs[0]
        return None

    def apply(self, editor: GraphEditor, node: Node, match: list[str]) -> None:
        assert isinstance(node.op, Attention)
        operands = []
        for v in match:
            b, g, _, length, d = editor.types[v].shape
            operands.append(editor.add(Reshape((b, g, length, d)), [v], hint=f"{v}.groups", origin=node.origin).output)
        op = replace(node.op, kv_heads=editor.types[operands[0]].shape[1])
        editor.replace(node, op, [node.inputs[0], *operands, *node.inputs[3:]])


@dataclass(frozen=True)
class _Inside:
    operands: list[str]
    last: Node
    between: tuple[Node, ...]


class HeadsInside(Rule[_Inside]):
    """Split heads -> Attention of rank 4 -> merge heads becomes Attention of rank 3, which reads what linear layers give."""

    ops = (Attention,)

    def match(self, editor: GraphEditor, node: Node) -> _Inside | Rejected | None:
        assert isinstance(node.op, Attention)
        if editor.types[node.output].rank != 4:
            return None
        operands: list[str] = []
        for value in node.inputs[:3]:
            found = self._unsplit(editor, value)
            if found is None:  # 7
                return Rejected(f"operand {value!r} is not a split of [batch, length, heads * width]")
            operands.append(found)
        b, h, s, d = editor.types[node.output].shape
        view = row_major((b, s, h, d)).transpose(0, 2, 1, 3)
        between: list[Node] = []
        for step in readers(editor, node.output):
            between.append(step)
            after = step_view(view, step)
            if after is None:
                break
            view = after
            if is_row_major(view):
                return _Inside(operands, step, tuple(between))
        return Rejected("its heads are not merged to [batch, length, heads * width]")  # 8

    def _unsplit(self, editor: GraphEditor, value: str) -> str | None:
        """The value, of any shape, whose elements in order are [B, length, heads, width]; preferably [B, length, all]."""
        b, h, length, d = editor.types[value].shape
        wanted = row_major((b, length, h, d)).transpose(0, 2, 1, 3)
        best = None
        for source, view in sources(editor, value):
            if view is not None and same_view(view, wanted):
                best = source
                if editor.types[source].shape == (b, length, h * d):
                    break
        return best

    def apply(self, editor: GraphEditor, node: Node, match: _Inside) -> None:
        assert isinstance(node.op, Attention)
        operands: list[str] = []
        for value, given in zip(match.operands, node.inputs, strict=False):
            b, h, length, d = editor.types[given].shape
            lines = (b, length, h * d)
            if editor.types[value].shape != lines:
                value = editor.add(Reshape(lines), [value], hint=f"{value}.lines", origin=node.origin).output
            operands.append(value)
        operands += [v for v in node.inputs[3:] if v != ABSENT]
        shape = editor.types[match.last.output].shape
        origin = merged_origin(node, *match.between)
        b, h, s, d = editor.types[node.output].shape
        if shape == (b, s, h * d):
            editor.remove(match.last)
            editor.replace(node, node.op, operands, outputs=match.last.outputs, origin=origin)
            return
        inner = editor.add(node.op, operands, hint=f"{match.last.output}.lines", origin=origin)
        editor.replace(match.last, Reshape(shape), [inner.output])
