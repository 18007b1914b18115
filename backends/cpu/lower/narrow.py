"""Products of narrow numbers, bytes or bfloat16: what the lowerings of Conv and MatMul ask of their nodes."""

from __future__ import annotations

from math import prod

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.dot import row_channels
from sparsec.backends.cpu.kernels.panel_epilogue import Types
from sparsec.backends.cpu.lower.integers import has_reduced_range, is_bounded_result, is_integer
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul


def is_bfloat16(graph: Graph, node: Node) -> bool:
    """Whether the node sums products of bfloat16 data and constant bfloat16 weights in float32."""
    assert isinstance(node.op, Conv | MatMul)
    return node.op.wide and node.inputs[0] not in graph.constants and node.inputs[1] in graph.constants


def is_narrow(graph: Graph, node: Node) -> bool:
    """Whether the node sums products of bytes or of bfloat16, with constant weights."""
    return is_integer(graph, node) or is_bfloat16(graph, node)


def types_of(graph: Graph, node: Node, isa: Isa) -> Types:
    """The element types around the panels of a node `without_bias`; all float32 for one that is not narrow."""
    extras = tuple(graph.types[v].dtype for v in node.inputs[2:])
    y = graph.types[node.output].dtype
    if is_integer(graph, node):
        reduced = isa.reduced_cost is not None and has_reduced_range(graph, node)
        return Types(DType.U8, y, extras, is_bounded_result(graph, node), reduced)
    return Types(DType.BF16, y, extras) if is_bfloat16(graph, node) else Types()


def has_panels(graph: Graph, node: Node, isa: Isa) -> bool:
    """Whether the panel kernel takes a narrow node: blocks, and the channels of a group, hold whole weight rows."""
    x = graph.types[node.inputs[0]]
    per_row = row_channels(x.dtype, isa)
    groups = node.op.groups if isinstance(node.op, Conv) else 1
    per_group = x.shape[1] // groups if groups > 1 else per_row
    return per_row > 0 and isa.lanes % per_row == 0 and per_group % per_row == 0 and prod(x.shape) > 0
