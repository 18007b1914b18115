"""Products of flattened images are convolutions whose window is the whole image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules, merged_origin

_BYTES = (DType.U8, DType.I8)


class _Flat(Rule[Node]):
    """MatMul(Reshape(x), w) -> Reshape(Conv(x, w))."""

    ops = (MatMul,)

    def match(self, editor: GraphEditor, node: Node) -> Node | Rejected | None:
        op, below = node.op, editor.producer(node.inputs[0])
        assert isinstance(op, MatMul)
        if below is None or not isinstance(below.op, Reshape):
            return None
        x, flat, w = editor.types[below.inputs[0]], editor.types[below.output], editor.constant_of(node.inputs[1])
        if x.rank != 4 or x.dtype not in _BYTES or x.shape[0] != 1 or x.shape[2:] == (1, 1) or w is None:  # 1
            return None
        if flat.shape != (1, x.elements) or w.ndim != 2 or op.trans_a:  # 1
            return Rejected(f"{below.name!r} does not make one row of one image, times a matrix")
        outputs = editor.types[node.output].shape[-1]
        extras = [editor.constant_of(v) for v in node.inputs[2:]]
        if any(e is None or e.size not in (1, outputs) for e in extras):  # 2
            return Rejected("its epilogue reads more than a constant for each output")
        return below

    def apply(self, editor: GraphEditor, node: Node, match: Node) -> None:
        op, x = node.op, match.inputs[0]
        assert isinstance(op, MatMul)
        w = editor.constant_of(node.inputs[1])
        assert w is not None
        _, channels, rows, columns = editor.types[x].shape
        kernel = np.ascontiguousarray(w if op.trans_b else w.T).reshape(-1, channels, rows, columns)
        operands = [x, editor.add_constant(kernel, f"{node.inputs[1]}.image")]
        for v in node.inputs[2:]:
            extra = editor.constant_of(v)
            assert extra is not None
            operands.append(editor.add_constant(extra.reshape(-1, 1, 1), f"{v}.image"))
        whole = Conv((1, 1), (1, 1), (0, 0, 0, 0), epilogue=op.epilogue, zero=op.zero, wide=op.wide)
        shape, origin, outputs = editor.types[node.output].shape, (*node.origin, *merged_origin(match)), node.outputs
        editor.remove(node)
        made = editor.add(whole, operands, hint=f"{outputs[0]}.image", origin=origin, name=node.name)
        editor.add(Reshape(shape), [made.output], hint=outputs[0], origin=origin, outputs=outputs)


@register_pass
@dataclass(frozen=True)
class FlatProducts(Pass):
    """The product of a flattened image of bytes and a matrix becomes a convolution: for machines whose data are images.

    1. One image of more than one position is flattened, and multiplied by a constant matrix. 2. Whatever else the product's
    epilogue reads are constants, one for each output or one for all.
    """

    name = "flat_products"
    summary = "products of flattened images of bytes as convolutions over the whole image"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Flat()], notes)
