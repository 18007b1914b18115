"""CumSum and TopK: line by line, row-major, any element type."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels import lines as kernels
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, lowering, stream_cycles
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR
from sparsec.compiler.ops.cumsum import CumSum
from sparsec.compiler.ops.topk import TopK
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption


@lowering
class LowerCumSum(Lowering):
    """Running sums."""

    op = CumSum

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x = graph.types[node.inputs[0]]
        return (LayoutOption((ROW_MAJOR,), (ROW_MAJOR,), stream_cycles(2 * x.nbytes) + 4 * x.elements),)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        op, x, y = node.op, ctx.view(node.inputs[0]), ctx.view(node.output)
        assert isinstance(op, CumSum)
        geometry = kernels.line_geometry(x.type.shape, op.axis)
        ctx.call(node, kernels.CumSum(x.type.dtype, op.exclusive, op.reverse), geometry, [x.ref, y.ref])


@lowering
class LowerTopK(Lowering):
    """The k best of every line."""

    op = TopK

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x = graph.types[node.inputs[0]]
        return (LayoutOption((ROW_MAJOR,), (ROW_MAJOR,) * 2, stream_cycles(x.nbytes) + 4 * x.elements),)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        op, x = node.op, ctx.view(node.inputs[0])
        assert isinstance(op, TopK)
        geometry = kernels.line_geometry(x.type.shape, op.axis, op.k)
        operands = [x.ref, *(ctx.view(v).ref for v in node.outputs)]
        ctx.call(node, kernels.TopK(x.type.dtype, op.largest), geometry, operands)
