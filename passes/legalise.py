"""Legalise: take apart what the target has no kernel for.

Fusion does not ask the target, so that graphs read the same for every machine; what a machine cannot run fused becomes the bare
operator and a Map, which every machine has, products of bytes it has no instructions for become products of int32, and those of
bfloat16 products of float32, which are the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.integer import DATA
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.quantize import centre_program
from sparsec.compiler.passing.base import Notes, Pass, Rejected
from sparsec.compiler.scalar import Program
from sparsec.compiler.target import Target
from sparsec.passes.widen import cast

_OPERANDS = 2  # data and weights; the epilogue's operands follow them


@dataclass(frozen=True)
class Legalise(Pass):
    """Unfuse nodes that the target cannot run, and widen their bytes and bfloat16.

    1. The target offers no layout option for the node. 2. Its op has a non-empty epilogue, or it sums products of bytes or, in
    float32, of bfloat16.
    """

    target: Target
    name: ClassVar[str] = "legalise"
    summary: ClassVar[str] = "epilogues taken apart, bytes and bfloat16 widened, where the target has no kernel for the node"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        editor = GraphEditor(graph)
        for node in graph.nodes:
            notes.at = node
            program = getattr(node.op, "epilogue", Program())
            op = node.op if isinstance(node.op, Conv | MatMul) else None
            of_bytes, of_bfloat16 = op is not None and graph.types[node.inputs[0]].dtype in DATA, op is not None and op.wide
            if not (program.steps or of_bytes or of_bfloat16) or self.target.legal(graph, node):
                continue
            if op is not None and of_bytes:
                node = self._widen(editor, node, centre_program(op.zero), np.int32)
                notes.reject(node, Rejected(f"no kernel for these bytes on {self.target.name}: they are multiplied as int32"))
            elif of_bfloat16:
                node = self._widen(editor, node, cast(DType.F32).program, np.float32)
                notes.reject(node, Rejected(f"no kernel for it on {self.target.name}: its bfloat16 is multiplied as float32"))
            if not program.steps:
                continue
            self._unfuse(editor, node, program)
            notes.reject(node, Rejected(f"no fused kernel on {self.target.name}: {program} runs as a pass of its own"))
        return editor.finish()

    def _widen(self, editor: GraphEditor, node: Node, program: Program, dtype: type[np.int32 | np.float32]) -> Node:
        """The node over wider numbers: `program` of the data, and the same weights."""
        op, name = node.op, DType.from_numpy(dtype).value
        assert isinstance(op, Conv | MatMul)
        x = editor.add(Map(program), node.inputs[:1], hint=f"{node.inputs[0]}.{name}", origin=node.origin).output
        array = editor.constant_of(node.inputs[1])
        if array is not None:
            w = editor.add_constant(array.astype(dtype), f"{node.inputs[1]}.{name}", editor.types[node.inputs[1]].sparsity)
        else:
            widened = cast(DType.from_numpy(dtype))
            w = editor.add(widened, node.inputs[1:2], hint=f"{node.inputs[1]}.{name}", origin=node.origin).output
        return editor.replace(node, replace(op, zero=0, wide=False), [x, w, *node.inputs[2:]])

    def _unfuse(self, editor: GraphEditor, node: Node, program: Program) -> None:
        bare, extras = node.inputs[:_OPERANDS], node.inputs[_OPERANDS:]
        op = replace(node.op, epilogue=Program())  # type: ignore[type-var]
        result = node.output
        editor.remove(node)
        acc = editor.add(op, bare, hint=f"{result}.bare", origin=node.origin, name=node.name)
        editor.add(Map(program), [acc.output, *extras], hint=result, origin=node.origin, outputs=[result])
