"""ArgReduce: row-major, any element type."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.reduce import arg_reduce
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, lowering, stream_cycles
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR
from sparsec.compiler.ops.arg_reduce import ArgReduce
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption


@lowering
class LowerArgReduce(Lowering):
    """Positions of extremes."""

    op = ArgReduce

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x = graph.types[node.inputs[0]]
        return (LayoutOption((ROW_MAJOR,), (ROW_MAJOR,), stream_cycles(x.nbytes) + 2 * x.elements),)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        op, x, y = node.op, ctx.view(node.inputs[0]), ctx.view(node.output)
        assert isinstance(op, ArgReduce)
        kernel, geometry = arg_reduce(op.kind, x.type.dtype, x.type.shape, op.axis, op.last)
        ctx.call(node, kernel, geometry, [x.ref, y.ref])
