"""Relayout: one pass over the data, which also zeroes the halo and the padded lanes of the result."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.relayout import relayout
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, lowering
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.relayout import Relayout
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption


@lowering
class LowerRelayout(Lowering):
    """A conversion; layout assignment makes these, so it never has to choose for one."""

    op = Relayout

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        source, result = graph.types[node.inputs[0]], graph.types[node.output]
        return (LayoutOption((source.layout,), (result.layout,), 0.0),)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        source, result = ctx.view(node.inputs[0]), ctx.view(node.output)
        kernel, geometry = relayout(source.type, result.type)
        ctx.call(node, kernel, geometry, [source.ref, result.ref])
