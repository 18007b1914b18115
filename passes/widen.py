"""Computation in float32 for operators on 16-bit floats."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.compiler.ops.arg_reduce import ArgReduce
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.expand import Expand
from sparsec.compiler.ops.gather import Gather
from sparsec.compiler.ops.gather_elements import GatherElements
from sparsec.compiler.ops.gather_nd import GatherND
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.pad import Pad
from sparsec.compiler.ops.relayout import Relayout
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.slice import Slice
from sparsec.compiler.ops.tile import Tile
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.passing.base import Notes, Pass, register_pass
from sparsec.compiler.scalar import Arg, Program

SMALL = (DType.F16, DType.BF16)
# operators that only move elements, or whose every step is defined in the small type
MOVES = (Concat, Expand, Gather, GatherElements, GatherND, Pad, Relayout, Reshape, Slice, Tile, Transpose, Map, ArgReduce)


def cast(dtype: DType) -> Map:
    """The Map that converts to `dtype`."""
    return Map(Program().then("cast", Arg(0), dtype=dtype))


@register_pass
@dataclass(frozen=True)
class Widen(Pass):
    """Compute in float32 where operands are float16 or bfloat16, and round the results once.

    1. The node reads or makes a 16-bit float.
    2. It computes: what only moves elements, and elementwise programs, take them as they are.
    """

    name = "widen"
    summary = "compute in float32 where the data is float16 or bfloat16, rounding each result once"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        editor = GraphEditor(graph)
        for node in graph.nodes:
            types = (*(t for t in graph.in_types(node) if t), *graph.out_types(node))
            if any(t.dtype in SMALL for t in types) and not isinstance(node.op, MOVES):
                _widen(editor, node)
        return editor.finish()


def _widen(editor: GraphEditor, node: Node) -> None:
    inputs = []
    for v in node.inputs:
        if v != ABSENT and editor.types[v].dtype in SMALL:
            v = editor.add(cast(DType.F32), [v], hint=f"{v}.wide", origin=node.origin).output
        inputs.append(v)
    small = [editor.types[v].dtype for v in node.outputs]
    wide = [editor.fresh_value(f"{v}.wide") if d in SMALL else v for v, d in zip(node.outputs, small, strict=True)]
    for v in wide:
        editor.types.setdefault(v, editor.types[node.outputs[0]])
    editor.replace(node, node.op, inputs, outputs=wide)
    for v, w, d in zip(node.outputs, wide, small, strict=True):
        if v != w:
            editor.add(cast(d), [w], hint=v, origin=node.origin, outputs=[v])
