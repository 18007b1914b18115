"""Concat: operands computed in place where the storage allows it, copied where it does not."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.lower.base import BLOCKED_TYPES, LowerContext, Lowering, blocked, channel_axes, lowering, stream_cycles
from sparsec.backends.cpu.lower.copies import clear_tail, copy_channels, copy_region, region
from sparsec.backends.cpu.lower.operands import blocked_constant
from sparsec.backends.cpu.storage import Alias
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR, Blocked
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption


def part_starts(graph: Graph, node: Node, axis: int) -> list[int]:
    """Where each operand begins along the concatenated dimension."""
    starts, at = [], 0
    for v in node.inputs:
        starts.append(at)
        at += graph.types[v].shape[axis]
    return starts


@lowering
class LowerConcat(Lowering):
    """Parts of one buffer."""

    op = Concat

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        y = graph.types[node.output]
        axis = node.op.axis % y.rank  # type: ignore[attr-defined]
        options = [LayoutOption((ROW_MAJOR,) * len(node.inputs), (ROW_MAJOR,), stream_cycles(2 * y.nbytes))]
        if y.dtype not in BLOCKED_TYPES:
            return options
        for a in channel_axes(y):
            layout = blocked(y, a, isa)
            if a != axis:
                options.append(LayoutOption((layout,) * len(node.inputs), (layout,), stream_cycles(2 * y.nbytes)))
            elif all(s % isa.lanes == 0 for s in part_starts(graph, node, axis)):
                options.append(LayoutOption((layout,) * len(node.inputs), (layout,), 0.0))
            else:
                options.append(LayoutOption((layout,) * len(node.inputs), (layout,), stream_cycles(4 * y.nbytes)))
        return options

    def aliases(self, graph: Graph, node: Node) -> Sequence[Alias]:
        y = graph.types[node.output]
        axis = node.op.axis % y.rank  # type: ignore[attr-defined]
        if not isinstance(y.layout, Blocked) or y.layout.axis != axis:
            return ()
        block, end = y.layout.block, y.shape[axis]
        return [
            Alias(v, node.output, start // block, same_order=True, fills=True)
            for v, start in zip(node.inputs, part_starts(graph, node, axis), strict=True)
            if graph.types[v].layout == y.layout and v not in graph.constants
            if start % block == 0 and 0 < (n := graph.types[v].shape[axis]) and (n % block == 0 or start + n == end)
        ]

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        y = ctx.view(node.output)
        axis = node.op.axis % y.type.rank  # type: ignore[attr-defined]
        channels = isinstance(y.type.layout, Blocked) and y.type.layout.axis == axis
        for v, start in zip(node.inputs, part_starts(ctx.graph, node, axis), strict=True):
            part = blocked_constant(ctx, v, y.type.layout) if v in ctx.graph.constants else ctx.view(v)
            if channels and start % y.type.layout.block:  # type: ignore[union-attr]
                copy_channels(ctx, node, part, 0, y, start, part.type.shape)
            elif part.type.elements and part.ref != region(y, axis, start):
                copy_region(ctx, node, part, y, axis, start)
        if channels:
            clear_tail(ctx, node, y)
