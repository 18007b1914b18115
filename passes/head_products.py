"""Products of two computed tensors, those of attention too, as products of so many matrices: [H, M, K] x [H, K, N]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.compiler.ops.attention import Attention, AttentionSizes
from sparsec.compiler.ops.base import Op
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.softmax import Softmax
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.scalar import Arg, Imm, Program

_HEADS_OUT = (0, 2, 1, 3)  # [B, M, H, K] <-> [B, H, M, K]


@dataclass(frozen=True)
class _Writer:
    """Adds the nodes that stand in for one."""

    editor: GraphEditor
    node: Node

    def emit(self, op: Op, *inputs: str, outputs: Sequence[str] | None = None, role: str = "") -> str:
        """A new node's output."""
        hint = f"{self.node.name}.{role or op.name.lower()}"
        return self.editor.add(op, inputs, hint=hint, origin=self.node.origin, outputs=outputs).output

    def apart(self, value: str, heads: int) -> str:
        """[B, M, heads * K] as [B * heads, M, K]."""
        b, m, channels = self.editor.types[value].shape
        k = channels // heads
        if b == 1:
            return self.emit(Transpose((1, 0, 2)), self.emit(Reshape((m, heads, k)), value))
        turned = self.emit(Transpose(_HEADS_OUT), self.emit(Reshape((b, m, heads, k)), value))
        return self.emit(Reshape((b * heads, m, k)), turned)

    def together(self, value: str, batch: int, outputs: Sequence[str]) -> str:
        """[batch * heads, M, K] as [batch, M, heads * K]."""
        g, m, k = self.editor.types[value].shape
        heads = g // batch
        if batch == 1:
            turned = self.emit(Transpose((1, 0, 2)), value)
        else:
            turned = self.emit(Transpose(_HEADS_OUT), self.emit(Reshape((batch, heads, m, k)), value))
        return self.emit(Reshape((batch, m, heads * k)), turned, outputs=outputs)

    def matrices(self, value: str) -> str:
        """[..., M, K] as [H, M, K]. Where heads were taken apart before, at once, without a dimension of 1 in front."""
        shape, maker = self.editor.types[value].shape, self.editor.producer(value)
        if len(shape) <= 3:
            return value
        if maker is not None and maker.op == Transpose(_HEADS_OUT) and shape[0] == 1:
            before = self.editor.producer(maker.inputs[0])
            source = before.inputs[0] if before is not None and isinstance(before.op, Reshape) else maker.inputs[0]
            return self.emit(Transpose((1, 0, 2)), self.emit(Reshape((shape[2], shape[1], shape[3])), source))
        return self.emit(Reshape((prod(shape[:-2]), *shape[-2:])), value)


def _scaled(op: Attention, masked: bool) -> Program:
    program = Program()
    if op.scale != 1:
        program = program.then("mul", Arg(0), Imm(op.scale))
    return program.then("add", program.result, Arg(1)) if masked else program


def _attention(editor: GraphEditor, node: Node, z: AttentionSizes) -> None:
    """Scores, softmax, and the sum of values."""
    op = node.op
    assert isinstance(op, Attention)
    w, inputs = _Writer(editor, node), node.inputs
    flat, outputs, masked = len(editor.types[inputs[0]].shape) == 3, node.outputs, len(inputs) > 3 and inputs[3] != ABSENT
    q, k, v = (w.apart(x, op.heads) if flat else w.matrices(x) for x in inputs[:3])
    mask = [inputs[3]] if masked else []
    if masked and z.b == 1 and len(shape := editor.types[inputs[3]].shape) == 4:
        mask = [w.emit(Reshape(shape[1:]), inputs[3])]
    editor.remove(node)
    if z.b == 1:
        scores = w.emit(MatMul(trans_b=True, epilogue=_scaled(op, masked)), q, k, *mask, role="scores")
        shares = w.emit(Softmax(2), scores)
    else:  # a mask may differ from one of the batch to the next
        scores = w.emit(Reshape((z.b, z.h, z.s, z.l)), w.emit(MatMul(trans_b=True), q, k, role="scores"))
        program = _scaled(op, masked)
        scores = w.emit(Map(program), scores, *mask) if program.steps else scores
        shares = w.emit(Reshape((z.b * z.h, z.s, z.l)), w.emit(Softmax(3), scores))
    if flat:
        w.together(w.emit(MatMul(), shares, v, role="values"), z.b, outputs)
    else:
        w.emit(Reshape((z.b, z.h, z.s, z.dv)), w.emit(MatMul(), shares, v, role="values"), outputs=outputs)


def _product(editor: GraphEditor, node: Node) -> None:
    """A product of tensors with several dimensions before the matrices; what its epilogue adds keeps its own shape."""
    op, outputs, shape = node.op, node.outputs, editor.types[node.output].shape
    assert isinstance(op, MatMul)
    w, extras = _Writer(editor, node), node.inputs[2:]
    a, b = (w.matrices(v) for v in node.inputs[:2])
    editor.remove(node)
    if all(len(editor.types[v].shape) <= 1 for v in extras):
        w.emit(Reshape(shape), w.emit(op, a, b, *extras), outputs=outputs)
        return
    sums = w.emit(Reshape(shape), w.emit(replace(op, epilogue=Program()), a, b))
    w.emit(Map(op.epilogue), sums, *extras, outputs=outputs)


@register_pass
@dataclass(frozen=True)
class HeadProducts(Pass):
    """Attention becomes a product of queries and keys, a softmax, and a product with values; products of two computed tensors get
    one dimension before their matrices: for machines that multiply computed tensors, but know no attention.

    1. Everything is float32, and nothing is empty.
    2. Every head of queries has keys and values of its own.
    3. Both operands of a product have the same dimensions before their matrices, and the first is not transposed.
    """

    name = "head_products"
    summary = "attention as two products of computed tensors and a softmax, each product of [heads, rows, columns]"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        editor = GraphEditor(graph)
        for node in graph.nodes:
            op, notes.at = node.op, node
            if isinstance(op, Attention):
                z = op.sizes([graph.types[v] if v != ABSENT else None for v in node.inputs])
                if graph.types[node.inputs[0]].dtype is not DType.F32 or 0 in (z.b, z.h, z.s, z.l, z.d, z.dv):  # 1
                    continue
                if z.h != z.kv:  # 2
                    notes.reject(node, Rejected(f"its {z.h} heads share the keys of {z.kv}"))
                    continue
                _attention(editor, node, z)
            elif isinstance(op, MatMul) and not any(v in graph.constants for v in node.inputs[:2]):
                x, w = (graph.types[v] for v in node.inputs[:2])
                if x.dtype is not DType.F32 or w.dtype is not DType.F32 or 0 in (*x.shape, *w.shape):  # 1
                    continue
                if x.shape[:-2] != w.shape[:-2] or op.trans_a:  # 3
                    notes.reject(node, Rejected(f"it multiplies {list(x.shape)} by {list(w.shape)}, not as many by as many"))
                elif x.rank > 3:
                    _product(editor, node)
        editor.sweep()
        return editor.finish()
