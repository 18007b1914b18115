"""Folding of elementwise scaling and shifting by constants into the weights before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.base import Array
from sparsec.compiler.ops.map import Map
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules
from sparsec.compiler.scalar import Arg, Imm, Operand
from sparsec.passes.common.affine import along_channels, channel_axis, foldable, scale_outputs


class _Fold(Rule[tuple[Node, Array, Array]]):
    """y = conv(x) * c, / c, + c or - c."""

    ops = (Map,)

    def match(self, editor: GraphEditor, node: Node) -> tuple[Node, Array, Array] | Rejected | None:
        assert isinstance(node.op, Map)
        steps, out = node.op.program.steps, editor.types[node.output]
        if len(steps) != 1 or steps[0].fn not in ("mul", "div", "add", "sub") or not out.dtype.is_float:  # 1
            return None
        data, other = steps[0].args
        if steps[0].fn in ("mul", "add") and not self._is_data(editor, node, data):
            data, other = other, data
        if not self._is_data(editor, node, data) or self._is_data(editor, node, other) or not isinstance(data, Arg):
            return None
        value = node.inputs[data.index]
        producer = foldable(editor, editor.producer(value), value)
        if isinstance(producer, Rejected):  # 2
            return producer
        if editor.types[value].shape != out.shape:  # 3
            return Rejected(f"the constant broadcasts the result of {producer.name!r}")
        axis = channel_axis(producer, out.rank)
        c = self._constant(editor, node, other, axis, out.shape)
        if c is None:
            return Rejected(f"its constant differs within a channel of {producer.name!r}")  # 4
        if steps[0].fn == "div" and not c.all():
            return Rejected("it divides by zero")
        one, zero = np.ones_like(c), np.zeros_like(c)
        scale, shift = {"mul": (c, zero), "div": (1 / np.where(c == 0, 1, c), zero), "add": (one, c), "sub": (one, -c)}[
            steps[0].fn
        ]
        return producer, scale, shift

    def _is_data(self, editor: GraphEditor, node: Node, a: Operand) -> bool:
        return isinstance(a, Arg) and editor.constant_of(node.inputs[a.index]) is None

    def _constant(self, editor: GraphEditor, node: Node, a: Operand, axis: int, shape: tuple[int, ...]) -> Array | None:
        if isinstance(a, Imm):
            return np.full(shape[axis], a.value, dtype=np.float64)
        array = editor.constant_of(node.inputs[a.index]) if isinstance(a, Arg) else None
        found = along_channels(array, axis, len(shape), shape[axis]) if array is not None else None
        return found.astype(np.float64) if found is not None else None

    def apply(self, editor: GraphEditor, node: Node, match: tuple[Node, Array, Array]) -> None:
        scale_outputs(editor, match[0], match[1], match[2], result=node)


@register_pass
@dataclass(frozen=True)
class FoldScale(Pass):
    """Fold y = conv(x) * c, / c, + c and - c with constants a channel into weights and bias.

    1. The Map is one multiplication, division, addition or subtraction of floating-point data and a constant.
    2. Its data come from a Conv, ConvTranspose or MatMul with constant weights, at most a constant bias a channel, and no
       other reader.
    3. The result has the producer's shape.
    4. The constant is one number, or one a channel, and no divisor is zero.
    """

    name = "scale"
    summary = "fold scaling and shifting by constants into the weights before it"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Fold()], notes)
