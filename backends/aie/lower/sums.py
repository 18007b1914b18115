"""Products that the array multiplies and the host finishes: where shifts cannot do what an epilogue does.

Sums leave as int32, exact whatever comes behind them; the rest of the epilogue becomes an element-wise node, which is the host's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sparsec.backends.aie.lower.reading import layer_of
from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.scalar import Arg, Operand, Program, Step, Tmp

_BYTES = (DType.U8, DType.I8)


def with_sums(graph: Graph, reasons: Mapping[str, str]) -> tuple[Graph, dict[str, str]]:
    """The graph with products of bytes cut behind their sums where `reasons` (by node) has why the array does not finish them and
    it can make the sums; and the reasons, those of cut products under the names of what is left to the host."""
    editor, why = GraphEditor(graph), dict(reasons)
    for node in graph.nodes:
        if node.name not in reasons or not isinstance(node.op, Conv | MatMul) or graph.types[node.inputs[0]].dtype not in _BYTES:
            continue
        count = _added(graph, node)
        if not node.op.epilogue.steps[count:] or not _is_layer(graph, node, count):
            continue
        rest = _cut(editor, node, count)
        why[rest.name] = why.pop(node.name)
    return (editor.finish() if len(editor.nodes) > len(graph.nodes) else graph), why


def _added(graph: Graph, node: Node) -> int:
    """How many steps of the epilogue belong to the sums: one that adds a constant bias of int32, or none."""
    assert isinstance(node.op, Conv | MatMul)
    steps = node.op.epilogue.steps
    first = steps[0] if steps else None
    if first is None or first.fn != "add" or first.args[0] != Arg(0) or not isinstance(first.args[1], Arg):
        return 0
    bias = graph.constants.get(node.inputs[1 + first.args[1].index])
    return int(bias is not None and bias.dtype == DType.I32.numpy)


def _is_layer(graph: Graph, node: Node, count: int) -> bool:
    """Whether the array makes the node's sums."""
    op = node.op
    assert isinstance(op, Conv | MatMul)
    sums = replace(op, epilogue=Program(op.epilogue.steps[:count]))
    inputs = node.inputs[: 2 + count]
    if count and sums.epilogue.steps[0].args[1] != Arg(1):
        return False
    made = replace(node, op=sums, inputs=inputs)
    types = {**graph.types, node.output: sums.infer([graph.types[v] for v in inputs])[0]}
    alone = Graph(graph.name, graph.inputs, (), (made,), types, graph.constants)
    return not isinstance(layer_of(alone, made), str)


def _cut(editor: GraphEditor, node: Node, count: int) -> Node:
    """Sums of the product, then what else its epilogue does; returns that."""
    op = node.op
    assert isinstance(op, Conv | MatMul)
    steps = op.epilogue.steps

    def behind(a: Operand) -> Operand:
        if isinstance(a, Tmp):
            return Arg(0) if a.index < count else Tmp(a.index - count)
        return a

    rest = Program(tuple(Step(s.fn, tuple(behind(a) for a in s.args), s.dtype) for s in steps[count:]))
    used = sorted({a.index for s in rest.steps for a in s.args if isinstance(a, Arg)} - {0})
    rest = rest.substitute({index: Arg(1 + i) for i, index in enumerate(used)})
    operands, outputs, origin = [node.inputs[1 + index] for index in used], node.outputs, node.origin
    sums = replace(op, epilogue=Program(steps[:count]))
    editor.remove(node)
    made = editor.add(sums, node.inputs[: 2 + count], hint=f"{outputs[0]}.sums", origin=origin, name=node.name)
    return editor.add(Map(rest), [made.output, *operands], hint=outputs[0], origin=origin, outputs=outputs)
