"""Convolutions by their definition on row-major data: computed weights, three dimensions, float64, transposed convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.conv_direct import ConvDirect, ConvDirectGeometry, conv_direct
from sparsec.backends.cpu.lower.base import LowerContext, stream_cycles
from sparsec.backends.cpu.lower.operands import extra_kind
from sparsec.compiler.errors import UnsupportedError
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.conv_transpose import ConvTranspose
from sparsec.compiler.schedule import Cost, LayerSchedule
from sparsec.compiler.target import LayoutOption

_EFFICIENCY = 0.25  # of the vector units' multiply-accumulates


def direct_kinds(graph: Graph, node: Node) -> tuple[str, ...] | None:
    """Kinds of the epilogue's operands for the direct kernel, or None when it cannot read one."""
    out = graph.types[node.output]
    kinds = []
    for v in node.inputs[2:]:
        t = graph.types[v]
        along = [i + out.rank - t.rank for i, n in enumerate(t.shape) if n != 1]
        kind = "channel" if along == [1] and t.shape != out.shape else extra_kind(graph, v, out, 1)
        if kind is None or t.dtype is not graph.types[node.inputs[0]].dtype:
            return None
        kinds.append(kind)
    return tuple(kinds)


def direct_kernel(graph: Graph, node: Node, isa: Isa) -> tuple[ConvDirect, ConvDirectGeometry] | None:
    """The kernel for a Conv or ConvTranspose, or None when there is none for its types and epilogue."""
    op, kinds = node.op, direct_kinds(graph, node)
    assert isinstance(op, Conv | ConvTranspose)
    x, w, y = (graph.types[v] for v in (*node.inputs[:2], node.output))
    if kinds is None or y.dtype is not x.dtype or 0 in x.shape:
        return None
    transposed = isinstance(op, ConvTranspose)
    try:
        kernel, geometry = conv_direct(
            x.dtype, x.shape, y.shape, w.shape[2:], op.strides, op.dilations, op.pads, op.groups,
            transposed=transposed, epilogue=op.epilogue, kinds=kinds,
        )  # fmt: skip
        kernel.context(isa)
    except (ValueError, UnsupportedError):
        return None
    return kernel, geometry


def direct_options(graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
    """The row-major option of the direct kernel, where it takes the node."""
    if direct_kernel(graph, node, isa) is None:
        return ()
    return (LayoutOption((ROW_MAJOR,) * len(node.inputs), (ROW_MAJOR,), _cycles(graph, node, isa)),)


def _cycles(graph: Graph, node: Node, isa: Isa) -> float:
    macs = node.op.macs(graph.in_types(node))
    return stream_cycles(graph.types[node.output].nbytes) + macs / (isa.lanes * _EFFICIENCY)


def schedule_direct(graph: Graph, node: Node, isa: Isa, layer: LayerSchedule) -> LayerSchedule:
    """`layer`, the memory-bound default, with the direct kernel's name and cost."""
    cost = Cost(_cycles(graph, node, isa), node.op.macs(graph.in_types(node)), layer.cost.bytes, "compute")
    return replace(layer, kernel="direct", cost=cost)


def lower_direct(ctx: LowerContext, node: Node) -> None:
    """Append the direct kernel's call."""
    found = direct_kernel(ctx.graph, node, ctx.isa)
    assert found is not None
    ctx.call(node, *found, [*(ctx.view(v).ref for v in node.inputs), ctx.view(node.output).ref])
