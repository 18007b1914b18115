"""Computation in float32 in graphs of 16-bit floats."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.expand import Expand
from sparsec.compiler.ops.gather import Gather
from sparsec.compiler.ops.gather_elements import GatherElements
from sparsec.compiler.ops.gather_nd import GatherND
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pad import Pad
from sparsec.compiler.ops.relayout import Relayout
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.slice import Slice
from sparsec.compiler.ops.tile import Tile
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.passing.base import Notes, Pass, register_pass
from sparsec.compiler.scalar import Arg, Operand, Program, Tmp, operand_dtype, step_dtype

SMALL = (DType.F16, DType.BF16)
MOVES = (Concat, Expand, Gather, GatherElements, GatherND, Pad, Relayout, Reshape, Slice, Tile, Transpose)
_EXACT = (DType.BOOL, DType.I8, DType.U8)  # every value of these is one of a 16-bit float (of bfloat16, too)


def cast(dtype: DType) -> Map:
    """The Map that converts to `dtype`."""
    return Map(Program().then("cast", Arg(0), dtype=dtype))


@register_pass
@dataclass(frozen=True)
class Widen(Pass):
    """Compute in float32 where operands are float16 or bfloat16, and round what leaves the graph.

    1. A node computes with 16-bit floats; a graph that only moves them stays as it is.
    2. Every 16-bit value in the graph becomes a float32 one: constants are converted, inputs are cast where they come in,
       outputs where they leave. Values between are not rounded, as in onnxruntime, which removes casts that meet.
    3. A cast to a 16-bit float that the model itself asks of a wider type keeps its rounding.
    """

    name = "widen"
    summary = "compute in float32 where the data is float16 or bfloat16, rounding what leaves the graph"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        if not any(_touches(graph, n) and not isinstance(n.op, MOVES) and not _is_cast(graph, n) for n in graph.nodes):  # 1
            return graph
        editor = GraphEditor(graph)
        wide: dict[str, str] = {}  # 2
        for v in (*graph.inputs, *graph.constants):
            if graph.types[v].dtype not in SMALL:
                continue
            if v in graph.constants:
                array = np.asarray(graph.constants[v], np.float32)
                wide[v] = editor.add_constant(array, f"{v}.wide", graph.types[v].sparsity)
            else:
                wide[v] = editor.add(cast(DType.F32), [v], hint=f"{v}.wide").output
        for node in graph.nodes:
            if _touches(graph, node):
                _widen(editor, graph, node, wide)
        for v in dict.fromkeys(p.value for p in graph.outputs):
            if v in wide and v in graph.producers:
                editor.add(cast(graph.types[v].dtype), [wide[v]], hint=v, origin=graph.producers[v].origin, outputs=[v])
        return editor.finish()


def _touches(graph: Graph, node: Node) -> bool:
    return any(t.dtype in SMALL for t in (*graph.in_types(node), *graph.out_types(node)) if t)


def _is_cast(graph: Graph, node: Node) -> bool:
    """Whether the node only converts an input or for an output: there is nothing to compute."""
    outer = node.inputs[0] in graph.inputs or node.output in graph.output_values
    return isinstance(node.op, Map) and outer and all(s.fn == "cast" for s in node.op.program.steps)


def _widen(editor: GraphEditor, graph: Graph, node: Node, wide: dict[str, str]) -> None:
    outputs = []
    for v in node.outputs:
        if graph.types[v].dtype in SMALL:
            wide[v] = editor.fresh_value(f"{v}.wide")
            editor.types[wide[v]] = graph.types[v]
        outputs.append(wide.get(v, v))
    op = node.op
    if isinstance(op, Conv | MatMul):
        op = replace(op, wide=False)
    if isinstance(op, Map):
        op = Map(wide_program(op.program, [graph.types[v].dtype for v in node.inputs]))
    editor.replace(node, op, [wide.get(v, v) if v != ABSENT else v for v in node.inputs], outputs=outputs)


def wide_program(program: Program, dtypes: list[DType]) -> Program:
    """`program` for arguments of the types `dtypes`, of which 16-bit floats are float32 now."""
    made, types = Program(), list[DType]()
    now: list[Operand] = []  # where the steps' results are now
    for step in program.steps:
        types.append(step_dtype(step, dtypes, types))
        args = [now[a.index] if isinstance(a, Tmp) else a for a in step.args]
        if step.fn != "cast" or step.dtype not in SMALL:
            made = made.then(step.fn, *args, dtype=step.dtype)
        else:
            source = operand_dtype(step, dtypes, types[:-1])
            if source not in (*SMALL, *_EXACT) or (source in SMALL and source is not step.dtype):  # 3
                made = made.then("cast", *args, dtype=step.dtype)
                args = [made.result]
            made = made.then("cast", *args, dtype=DType.F32)
        now.append(made.result)
    return made
