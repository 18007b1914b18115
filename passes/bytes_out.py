"""Products whose results are dequantised where they are made store bytes or sums instead."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules
from sparsec.compiler.scalar import Arg, Imm, Operand, Program, Step, Tmp

_BYTES = (DType.U8, DType.I8)


class _Bytes(Rule[int]):
    """y = g(bytes of a product) -> the bytes, then g."""

    ops = (Conv, MatMul)

    def match(self, editor: GraphEditor, node: Node) -> int | Rejected | None:
        assert isinstance(node.op, Conv | MatMul)
        steps = node.op.epilogue.steps
        if editor.types[node.output].dtype in _BYTES:
            return None
        casts = [i for i, s in enumerate(steps) if s.fn == "cast" and s.dtype in _BYTES]
        if not casts:  # 1
            return None
        last = casts[-1]
        if any(not _reads_only_from(a, last) for s in steps[last + 1 :] for a in s.args):  # 2
            return Rejected("what is done to its bytes reads other operands, too")
        return last

    def apply(self, editor: GraphEditor, node: Node, match: int) -> None:
        _split(editor, node, match + 1, "bytes")


class _Sums(Rule[int]):
    """y = g(int32 sums of a product of bytes, which may have a bias) -> the sums, then g, where g makes floats."""

    ops = (Conv, MatMul)

    def match(self, editor: GraphEditor, node: Node) -> int | Rejected | None:
        assert isinstance(node.op, Conv | MatMul)
        steps, data = node.op.epilogue.steps, editor.types[node.inputs[0]].dtype
        if data not in _BYTES or not editor.types[node.output].dtype.is_float or any(s.dtype in _BYTES for s in steps):  # 3
            return None
        first = next((i for i, s in enumerate(steps) if s.fn == "cast"), 0)
        if any(not _reads_only_from(a, first - 1) for s in steps[first:] for a in s.args):  # 4
            return Rejected("what is done to its sums reads other operands, too")
        return first

    def apply(self, editor: GraphEditor, node: Node, match: int) -> None:
        _split(editor, node, match, "sums")


def _split(editor: GraphEditor, node: Node, count: int, hint: str) -> None:
    """The first steps stay in the epilogue, the others become a node."""
    op, origin = node.op, node.origin
    assert isinstance(op, Conv | MatMul)
    steps, last = op.epilogue.steps, count - 1
    stored = replace(op, epilogue=Program(steps[:count]))
    behind = Program(tuple(Step(s.fn, tuple(_behind(a, last) for a in s.args), s.dtype) for s in steps[count:]))
    inputs, outputs = node.inputs, node.outputs
    editor.remove(node)
    made = editor.add(stored, inputs, hint=f"{node.output}.{hint}", origin=origin, name=node.name)
    editor.add(Map(behind), [made.output], hint=node.output, origin=origin, outputs=outputs)


def _reads_only_from(a: Operand, first: int) -> bool:
    """Whether it is a number, or what step `first` or a later one made; first -1: what the product made."""
    return isinstance(a, Imm) or (isinstance(a, Tmp) and a.index >= first) or (a == Arg(0) and first < 0)


def _behind(a: Operand, first: int) -> Operand:
    if isinstance(a, Tmp):
        return Arg(0) if a.index == first else Tmp(a.index - first - 1)
    return a


@register_pass
@dataclass(frozen=True)
class BytesOut(Pass):
    """Split an epilogue behind its last rounding to bytes, or behind its sums: for machines that store nothing else.

    1. The epilogue rounds to bytes, and its result is not one. 2. The steps behind read nothing but these bytes and numbers.
    3. Or it never rounds, and makes floats of a product of bytes. 4. The steps behind read nothing but the int32 sums.
    """

    name = "bytes_out"
    summary = "store products as bytes or sums where they are dequantised as they are made, and dequantise by a node of its own"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Bytes(), _Sums()], notes)
